//! The table at the end, and the same as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    measure,
    rounds::{DISTURBANCE, Rounds, Spread},
    scenario::{BARS, Bar, Scenario},
};

/// The contestants that the others are compared with, in scenarios where they take part.
const REFERENCES: [&str; 2] = ["limit", "axum"];

/// The bars are left out of runs that only show that the benchmark works.
pub(crate) fn table(results: &[(Scenario, Rounds)], bars: bool) -> String {
    let mut out = format!(
        "\n{}\nOne worker thread per server, one for the client. Median, and in brackets the range.\n",
        measure::machine()
    );
    for (scenario, rounds) in results {
        out += &block(scenario, rounds);
    }
    let all = if bars { BARS } else { &[] };
    let bars: Vec<_> = all.iter().filter_map(|bar| held(bar, results)).collect();
    if !bars.is_empty() {
        out += "\nbar\n";
    }
    for (bar, ratio) in bars {
        let verdict = if ratio.median <= bar.at_most {
            "holds"
        } else if ratio.least <= bar.at_most {
            "within the spread"
        } else {
            "MISSED"
        };
        out += &format!(
            "  {:<10} {:<7} {} / {}: {} (at most {}) {verdict}\n",
            bar.scenario,
            bar.figure,
            bar.of,
            bar.against,
            shown(ratio, 2),
            bar.at_most,
        );
    }
    out
}

fn block(scenario: &Scenario, rounds: &Rounds) -> String {
    let labels: Vec<_> = scenario.contestants.iter().map(|one| one.label).collect();
    let main = scenario.columns[0].figure;
    let references: Vec<_> = REFERENCES
        .iter()
        .filter_map(|name| Some((name, labels.iter().position(|label| label == name)?)))
        .collect();

    let mut lines = vec![vec![String::new()]];
    lines[0].extend(scenario.columns.iter().map(|column| column.heading.into()));
    lines[0].extend(references.iter().map(|(name, _)| format!("× {name}")));
    for (index, label) in labels.iter().enumerate() {
        let mut line = vec![(*label).to_owned()];
        line.extend(scenario.columns.iter().map(|column| {
            let spread = rounds.of(index, column.figure);
            spread.map_or("–".into(), |spread| shown(spread, column.digits))
        }));
        line.extend(references.iter().map(|&(_, reference)| {
            let ratio = rounds.ratio(index, reference, main);
            ratio.map_or("–".into(), |ratio| shown(ratio, 2))
        }));
        lines.push(line);
    }

    let mut out = format!(
        "\n{} ({}): {} rounds",
        scenario.title,
        scenario.name,
        rounds.kept.len()
    );
    if rounds.discarded > 0 {
        out += &format!(
            ", {} runs discarded because other programs used more than {DISTURBANCE} cores",
            rounds.discarded
        );
    }
    out.push('\n');
    let widths: Vec<_> = (0..lines[0].len())
        .map(|column| {
            let width = |line: &Vec<String>| line[column].chars().count();
            lines.iter().map(width).max().unwrap_or(0)
        })
        .collect();
    for line in &lines {
        let mut text = String::from(" ");
        for (index, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            text += &match index {
                0 => format!(" {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

fn shown(spread: Spread, digits: usize) -> String {
    let Spread {
        least,
        median,
        most,
    } = spread;
    format!("{median:.digits$} [{least:.digits$}–{most:.digits$}]")
}

fn held<'a>(bar: &'a Bar, results: &[(Scenario, Rounds)]) -> Option<(&'a Bar, Spread)> {
    let (scenario, rounds) = results.iter().find(|(one, _)| one.name == bar.scenario)?;
    let find = |label| {
        scenario
            .contestants
            .iter()
            .position(|one| one.label == label)
    };
    let ratio = rounds.ratio(find(bar.of)?, find(bar.against)?, bar.figure)?;
    Some((bar, ratio))
}

pub(crate) fn json(results: &[(Scenario, Rounds)]) -> Value {
    let scenarios: Vec<_> = results.iter().map(one).collect();
    let bars = BARS.iter().filter_map(|bar| held(bar, results));
    let bars = bars.map(|(bar, ratio)| {
        json!({
            "scenario": bar.scenario,
            "figure": bar.figure,
            "of": bar.of,
            "against": bar.against,
            "at_most": bar.at_most,
            "ratio": spread(ratio),
        })
    });
    json!({
        "measured": since_1970(),
        "machine": measure::machine(),
        "scenarios": scenarios,
        "bars": bars.collect::<Vec<_>>(),
    })
}

fn one((scenario, rounds): &(Scenario, Rounds)) -> Value {
    let contestants = scenario.contestants.iter().enumerate().map(|(index, one)| {
        let runs: Vec<_> = rounds.kept.iter().map(|round| &round[index]).collect();
        json!({"label": one.label, "rounds": runs})
    });
    json!({
        "name": scenario.name,
        "title": scenario.title,
        "contestants": contestants.collect::<Vec<_>>(),
        "discarded_runs": rounds.discarded,
        "rounds_given_up": rounds.given_up,
    })
}

fn spread(spread: Spread) -> Value {
    json!({"median": spread.median, "least": spread.least, "most": spread.most})
}

/// Seconds.
pub(crate) fn since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

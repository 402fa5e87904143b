//! Runs a scenario in rounds: each contestant once per round, in rotating order. Runs during which
//! other programs used the machine are discarded.

use crate::{
    Result,
    scenario::{Contestant, Scenario},
    work::Figures,
};

/// A run counts only if other programs used at most this many cores.
pub(crate) const DISTURBANCE: f64 = 0.3;

/// Attempts per run before its round is given up.
const TRIES: usize = 4;

/// The rounds that count: figures by contestant.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) kept: Vec<Vec<Figures>>,
    /// Runs disturbed by other programs.
    pub(crate) discarded: usize,
    /// Rounds without an undisturbed run of every contestant.
    pub(crate) given_up: usize,
}

impl Rounds {
    pub(crate) fn run(scenario: &Scenario, count: usize, tolerant: bool) -> Result<Self> {
        let mut rounds = Self {
            kept: Vec::new(),
            discarded: 0,
            given_up: 0,
        };
        while rounds.kept.len() < count && rounds.given_up <= count {
            let number = rounds.kept.len() + rounds.given_up;
            match rounds.round(scenario, number, tolerant)? {
                Some(round) => rounds.kept.push(round),
                None => rounds.given_up += 1,
            }
        }
        if rounds.kept.is_empty() {
            return Err("this machine is too busy: no round was undisturbed".into());
        }
        Ok(rounds)
    }

    fn round(
        &mut self,
        scenario: &Scenario,
        number: usize,
        tolerant: bool,
    ) -> Result<Option<Vec<Figures>>> {
        let count = scenario.contestants.len();
        let mut round = vec![Figures::new(); count];
        for turn in 0..count {
            let index = (turn + number) % count;
            let contestant = &scenario.contestants[index];
            match self.undisturbed(contestant, tolerant) {
                Ok(Some(figures)) => round[index] = figures,
                Ok(None) => return Ok(None),
                Err(error) => {
                    let Contestant { label, .. } = contestant;
                    return Err(format!("{}, {label}: {error}", scenario.name).into());
                }
            }
        }
        Ok(Some(round))
    }

    fn undisturbed(&mut self, contestant: &Contestant, tolerant: bool) -> Result<Option<Figures>> {
        for _ in 0..TRIES {
            let figures = contestant.work.run(contestant.setup)?;
            let others = figures.get("others").copied().unwrap_or_default();
            if tolerant || others <= DISTURBANCE {
                return Ok(Some(figures));
            }
            self.discarded += 1;
        }
        Ok(None)
    }

    /// A figure of one contestant over all rounds.
    pub(crate) fn of(&self, contestant: usize, figure: &str) -> Option<Spread> {
        let values = self.kept.iter().map(|round| round[contestant].get(figure));
        Spread::of(values.collect::<Option<Vec<_>>>()?.into_iter().copied())
    }

    /// The ratio of one contestant's figure to another's, round by round.
    pub(crate) fn ratio(&self, of: usize, against: usize, figure: &str) -> Option<Spread> {
        let ratio =
            |round: &Vec<Figures>| Some(round[of].get(figure)? / round[against].get(figure)?);
        Spread::of(self.kept.iter().filter_map(ratio))
    }
}

/// The median and the range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle]),
            _ => values[middle],
        };
        Some(Self {
            least: *values.first()?,
            median,
            most: *values.last()?,
        })
    }
}

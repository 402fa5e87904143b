//! Fan-out: what a delivered event costs a server, with this crate and with its alternatives.
//!
//! `cargo run --release -p fanout` runs all scenarios, prints one table, and takes about 15 minutes
//! on an otherwise idle machine. `-- --help` lists the options. `docs/performance.md` explains the
//! figures. Linux only: CPU time and memory come from `/proc`.

// Sizes and times here are far below the limits of the smaller types.
#![allow(clippy::cast_possible_truncation)]

mod child;
mod client;
mod curves;
mod measure;
mod report;
mod rounds;
mod scenario;
mod servers;
mod work;

use std::{fs, process::ExitCode, time::Instant};

use rounds::Rounds;
use servers::Setup;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const HELP: &str = "\
Usage: cargo run --release -p fanout -- [OPTION...]

  --scenario NAME  run only this scenario (may be repeated)
  --only LABEL     run only this server, as the table names it (may be repeated)
  --rounds N       undisturbed rounds per scenario (6; with --curves 3)
  --busy           also count rounds in which other programs used the machine
  --json FILE      write every figure of every round to FILE
  --curves         measure how cost grows, instead of the scenarios; prints JSON
  --quick          one round of each scenario with little load, to see that it runs
  --list           list the scenarios
  --help           print this";

#[derive(Debug, Default)]
struct Options {
    scenarios: Vec<String>,
    only: Vec<String>,
    rounds: Option<usize>,
    busy: bool,
    json: Option<String>,
    curves: bool,
    list: bool,
    help: bool,
    quick: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next().cloned();
                value.ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--scenario" => options.scenarios.push(value()?),
                "--only" => options.only.push(value()?),
                "--rounds" => options.rounds = Some(value()?.parse()?),
                "--json" => options.json = Some(value()?),
                "--busy" => options.busy = true,
                "--curves" => options.curves = true,
                "--list" => options.list = true,
                "--help" => options.help = true,
                "--quick" => options.quick = true,
                other => return Err(format!("no option is named {other}\n\n{HELP}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let Some((flag, rest)) = arguments.split_first()
        && flag == "--server"
    {
        return servers::run(Setup::from_arguments(rest)?);
    }
    let options = Options::parse(&arguments)?;
    let mut scenarios = scenario::all(options.quick);
    if options.help {
        println!("{HELP}");
        return Ok(());
    }
    if options.list {
        for scenario in &scenarios {
            println!("{:<10} {}", scenario.name, scenario.title);
        }
        return Ok(());
    }
    if options.curves {
        let chosen = options.scenarios.first().map(String::as_str);
        let curves = curves::run(chosen, options.rounds.unwrap_or(3), options.busy)?;
        let text = format!("{curves:#}\n");
        match options.json {
            Some(file) => fs::write(file, text)?,
            None => print!("{text}"),
        }
        return Ok(());
    }

    for name in &options.scenarios {
        if !scenarios.iter().any(|scenario| scenario.name == name) {
            return Err(format!("no scenario is named {name}; --list lists them").into());
        }
    }
    let chosen = |all: &[String], name: &str| all.is_empty() || all.iter().any(|one| one == name);
    scenarios.retain(|scenario| chosen(&options.scenarios, scenario.name));
    for scenario in &mut scenarios {
        let contestants = &mut scenario.contestants;
        contestants.retain(|contestant| chosen(&options.only, contestant.label));
    }
    scenarios.retain(|scenario| !scenario.contestants.is_empty());

    let limit = measure::file_limit()?;
    let works = scenarios.iter().flat_map(|scenario| &scenario.contestants);
    let files = works.map(|one| one.work.files()).max().unwrap_or(0);
    if files > limit {
        return Err(format!(
            "this needs {files} open files per process, and {limit} are allowed: ulimit -n {files}"
        )
        .into());
    }

    let (count, tolerant) = match options.quick {
        true => (1, true),
        false => (options.rounds.unwrap_or(6), options.busy),
    };
    let mut results = Vec::new();
    for scenario in scenarios {
        let began = Instant::now();
        eprint!("{} … ", scenario.title);
        match Rounds::run(&scenario, count, tolerant) {
            Ok(rounds) => results.push((scenario, rounds)),
            // The other scenarios are still useful.
            Err(error) => eprint!("left out: {error} … "),
        }
        eprintln!("{:.0} s", began.elapsed().as_secs_f64());
    }
    print!("{}", report::table(&results, !options.quick));
    if let Some(file) = options.json {
        fs::write(file, format!("{:#}\n", report::json(&results)))?;
    }
    Ok(())
}

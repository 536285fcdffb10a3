//! `spinetail cluster simulate`: many seeds, and one line for each that violates something.

use std::thread;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::cli::Outcome;
use crate::cli::host::{EXIT_FAILED, print};
use spinetail::sim::report::Report;
use spinetail::sim::run::{Plan, Play, play};

/// Play seeded simulations of a cluster with faulty links, disks, clocks and sites; exit 1 if an invariant is violated
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  spinetail cluster simulate --seeds 10000\n  \
    spinetail cluster simulate --scenario partitions --first-seed 42 --seeds 1\n  \
    spinetail cluster simulate --scenario no-wal --seeds 100   # a negative control: must exit 1")]
pub struct SimulateArguments {
    /// How many seeds; with 'all', scenarios take turns
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_seed: u64,
    /// What goes wrong
    #[arg(long, value_name = "NAME|all", default_value = "all", value_parser = PossibleValuesParser::new(names()))]
    scenario: String,
    /// Threads; as many as there are cores if not given
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--scenario` may be.
fn names() -> Vec<&'static str> {
    let mut names = vec!["all"];
    names.extend(Play::all().into_iter().map(Play::name));
    names.extend(Play::controls().into_iter().map(Play::name));
    names
}

/// Plays; an error if something was violated.
pub fn run(arguments: &SimulateArguments) -> Outcome {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let plan = Plan {
        scenario: Play::named(&arguments.scenario),
        first_seed: arguments.first_seed,
        seeds: arguments.seeds,
        threads: arguments.threads.unwrap_or(cores),
    };
    let mut report = Report::default();
    let mut printed = Ok(());
    play(&plan, |outcome| {
        report.add(&outcome);
        if let (false, Some(line)) = (arguments.json, outcome.failure_line())
            && printed.is_ok()
        {
            printed = print(&format!("{line}\n"));
        }
    });
    printed?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| (EXIT_FAILED, error.to_string()))?;
        print(&format!("{json}\n"))?;
    } else {
        print(&report.text())?;
    }
    match report.failures.len() {
        0 => Ok(()),
        count => Err((EXIT_FAILED, format!("{count} of {} seeds violate an invariant", report.seeds))),
    }
}

//! `spinetail replay`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use spinetail::base::units::parse_bytes;
use spinetail::replay::{self, Capacity};
use spinetail::trace::Trace;

use crate::cli::Outcome;

/// Replay a trace against the cache alone: the miss ratio that so much memory would give
#[derive(Args)]
#[command(
    after_help = "With --charge all a capacity is what 'serve --memory' takes: the same size gives the same cache.\n\nExample:\n  spinetail replay --trace cluster52.csv.zst --capacity 1% --json -"
)]
pub struct ReplayArguments {
    /// Rows of time,key,size; .zst is decompressed
    #[arg(long, value_name = "FILE.csv.zst")]
    trace: PathBuf,
    /// Objects (5000), a share of the footprint (1%) or bytes (16MiB, 4096B); may be given several times
    #[arg(long, value_name = "SIZE", required = true, value_parser = parse_capacity)]
    capacity: Vec<Capacity>,
    /// Who decides what leaves
    #[arg(long, value_enum, default_value = "learned")]
    policy: Policy,
    /// What counts: keys and values as published simulations count, or everything
    #[arg(long, value_enum, default_value = "payload")]
    charge: Charge,
    /// Write JSON to FILE, or to standard output with '-'
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    /// The appliance's own
    Learned,
    /// Exact LRU, the published yardstick
    Lru,
}

#[derive(Clone, Copy, ValueEnum)]
enum Charge {
    Payload,
    All,
}

/// Runs the command.
pub fn run(arguments: ReplayArguments) -> Outcome {
    let trace = Trace::read(&arguments.trace).map_err(|error| (1, error))?;
    let name = Trace::name_of(&arguments.trace);
    let policy = match arguments.policy {
        Policy::Learned => replay::Policy::Learned,
        Policy::Lru => replay::Policy::Lru,
    };
    let charge = match arguments.charge {
        Charge::Payload => replay::Charge::Payload,
        Charge::All => replay::Charge::All,
    };
    let mut reports = Vec::new();
    for &capacity in &arguments.capacity {
        let report = replay::replay(&name, &trace, capacity, policy, charge).map_err(|error| (2, error))?;
        if arguments.json.as_ref().is_none_or(|file| file.as_os_str() != "-") {
            if reports.is_empty() {
                println!(
                    "{:<20} {:<8} {:>14} {:>10} {:>10} {:>8} {:>10}",
                    "trace", "policy", "capacity", "miss", "byte miss", "ns/req", "B/entry"
                );
            }
            println!(
                "{:<20} {:<8} {:>14} {:>10.6} {:>10.6} {:>8.0} {:>10.1}",
                report.trace,
                report.policy,
                report.capacity,
                report.miss_ratio,
                report.byte_miss_ratio,
                report.ns_per_request,
                report.structure_bytes_per_entry
            );
        }
        reports.push(report);
    }
    let Some(file) = arguments.json else { return Ok(()) };
    // One capacity gives one object, several give a list.
    let json = match reports.as_slice() {
        [report] => serde_json::to_string_pretty(report),
        several => serde_json::to_string_pretty(several),
    }
    .map_err(|error| (1, error.to_string()))?;
    if file.as_os_str() == "-" {
        println!("{json}");
        return Ok(());
    }
    std::fs::write(&file, json + "\n").map_err(|error| (1, format!("{}: {error}", file.display())))
}

fn parse_capacity(text: &str) -> Result<Capacity, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| format!("'{text}' is no share: write it like 1% or 0.1%"))?;
        if !(percent > 0.0 && percent <= 100.0) {
            return Err(format!("'{text}' is no share: it lies above 0 % and up to 100 %"));
        }
        return Ok(Capacity::Share(percent / 100.0));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let objects = text.parse().map_err(|_| format!("'{text}' is no number of objects"))?;
        return if objects == 0 {
            Err("a cache of 0 objects holds nothing".into())
        } else {
            Ok(Capacity::Objects(objects))
        };
    }
    match parse_bytes(text)? {
        0 => Err("a cache of 0 bytes holds nothing".into()),
        bytes => Ok(Capacity::Bytes(bytes)),
    }
}

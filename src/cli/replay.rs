//! `spinetail replay`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use spinetail::base::units::parse_bytes;
use spinetail::replay::{self, Capacity, Curve, Report};
use spinetail::trace::Trace;

use crate::cli::Outcome;

/// Replay a trace against the cache alone: the miss ratio that so much memory would give
#[derive(Args)]
#[command(
    after_help = "With --charge all a capacity is what 'serve --memory' takes: the same size gives the same cache.\n\nExamples:\n  spinetail replay --trace cluster52.csv.zst --capacity 1% --json -\n  spinetail replay --trace cluster52.csv.zst --mrc"
)]
pub struct ReplayArguments {
    /// Rows of time,key,size; .zst is decompressed
    #[arg(long, value_name = "FILE.csv.zst")]
    trace: PathBuf,
    /// Objects (5000), a share of the footprint (1%) or bytes (16MiB, 4096B); may be given several times
    #[arg(long, value_name = "SIZE", required_unless_present = "mrc", value_parser = parse_capacity)]
    capacity: Vec<Capacity>,
    /// Who decides what leaves
    #[arg(long, value_enum, default_value = "learned")]
    policy: Policy,
    /// What counts: keys and values as published simulations count, or everything
    #[arg(long, value_enum, default_value = "payload")]
    charge: Charge,
    /// Estimate the miss ratio at twelve capacities from one pass over a sample of the keys
    #[arg(long, conflicts_with_all = ["capacity", "learned_in", "learned_out"])]
    mrc: bool,
    /// With --mrc: replay in full at each capacity too, and print the error
    #[arg(long, requires = "mrc")]
    exact: bool,
    /// Start with what an earlier replay has learned
    #[arg(long, value_name = "FILE")]
    learned_in: Option<PathBuf>,
    /// Write what was learned (of the last capacity)
    #[arg(long, value_name = "FILE")]
    learned_out: Option<PathBuf>,
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
    /// S3-FIFO
    S3fifo,
    /// W-TinyLFU
    #[value(name = "w-tinylfu")]
    WTinylfu,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
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
        Policy::S3fifo => replay::Policy::S3Fifo,
        Policy::WTinylfu => replay::Policy::WTinyLfu,
    };
    let charge = match arguments.charge {
        Charge::Payload => replay::Charge::Payload,
        Charge::All => replay::Charge::All,
    };
    let to_stdout = arguments.json.as_ref().is_some_and(|file| file.as_os_str() == "-");
    if arguments.mrc {
        if arguments.charge == Charge::All {
            return Err((2, "--mrc scales capacities, which holds for payload only: leave --charge out".into()));
        }
        let curve = replay::curve(&name, &trace, policy, arguments.exact).map_err(|error| (2, error))?;
        if !to_stdout {
            print_curve(&curve);
        }
        return write_json(arguments.json, &curve);
    }
    let learned = match &arguments.learned_in {
        Some(file) => Some(std::fs::read(file).map_err(|error| (1, format!("{}: {error}", file.display())))?),
        None => None,
    };
    let mut reports = Vec::new();
    let mut learned_last = None;
    for &capacity in &arguments.capacity {
        let (report, learned) = replay::replay_from(&name, &trace, capacity, policy, charge, learned.as_deref())
            .map_err(|error| (2, error))?;
        learned_last = learned;
        if !to_stdout {
            print_report(&report, reports.is_empty());
        }
        reports.push(report);
    }
    if let Some(file) = &arguments.learned_out {
        let bytes = learned_last.ok_or_else(|| (2, format!("{} learns nothing to write", policy.name())))?;
        std::fs::write(file, bytes).map_err(|error| (1, format!("{}: {error}", file.display())))?;
    }
    // One capacity gives one object, several give a list.
    match reports.as_slice() {
        [report] => write_json(arguments.json, report),
        several => write_json(arguments.json, &several),
    }
}

fn print_report(report: &Report, is_first: bool) {
    if is_first {
        println!(
            "{:<20} {:<9} {:>14} {:>10} {:>10} {:>8} {:>10}",
            "trace", "policy", "capacity", "miss", "byte miss", "ns/req", "B/entry"
        );
    }
    println!(
        "{:<20} {:<9} {:>14} {:>10.6} {:>10.6} {:>8.0} {:>10.1}",
        report.trace,
        report.policy,
        report.capacity,
        report.miss_ratio,
        report.byte_miss_ratio,
        report.ns_per_request,
        report.structure_bytes_per_entry
    );
}

fn print_curve(curve: &Curve) {
    println!(
        "{}, {}: {} of {} requests simulated, {:.1} % of the keys",
        curve.trace,
        curve.policy,
        curve.sampled_requests,
        curve.requests,
        100.0 * curve.sample_rate
    );
    println!(
        "{:>10} {:>14} {:>10}{}",
        "share",
        "capacity",
        "miss",
        if curve.mean_absolute_error.is_some() { "      exact      error" } else { "" }
    );
    for point in &curve.points {
        print!("{:>9.1}% {:>14} {:>10.4}", 100.0 * point.share, point.capacity, point.miss_ratio);
        match point.exact_miss_ratio {
            Some(exact) => println!(" {exact:>10.4} {:>10.4}", point.miss_ratio - exact),
            None => println!(),
        }
    }
    if let Some(error) = curve.mean_absolute_error {
        println!("mean absolute error {error:.4}");
    }
}

fn write_json(file: Option<PathBuf>, value: &impl Serialize) -> Outcome {
    let Some(file) = file else { return Ok(()) };
    let json = serde_json::to_string_pretty(value).map_err(|error| (1, error.to_string()))?;
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

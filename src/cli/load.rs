//! `spinetail load`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use spinetail::base::limits;
use spinetail::base::units::{format_ns, parse_bytes, parse_duration};
use spinetail::client::Client;
use spinetail::host::calibrate::keep::HINT;
use spinetail::host::calibration::{Calibration, Figures};
use spinetail::host::process::raise_open_files;
use spinetail::host::topology::Topology;
use spinetail::load::keys::key_digits;
use spinetail::load::report::{Section, render};
use spinetail::load::run::Run;
use spinetail::load::{Arrivals, Dialect, Distribution, Objective, Plan, Route, run as run_plan, search};
use spinetail::trace::Trace;

use crate::cli::Outcome;
use crate::cli::target::{Target, parse_any_target, parse_cores};

/// Put an open-loop load on a server and print what it did
#[derive(Args)]
#[command(
    after_help = "Latency counts from the moment a request was due, so a stalled server cannot hide.\n\nExamples:\n  spinetail load --fill --rate 50000 --duration 10s --report report.html\n  spinetail load --rate max --pipeline 32 --connections 4\n  spinetail load --trace cluster52.csv.zst --on-miss set\n  spinetail load --slo 'p99<200us'\n  spinetail load --target l0:///run/spinetail/l0.sock --keys 1000 --fill --gets 1"
)]
pub struct LoadArguments {
    /// The server: native://ADDR, shm://PATH, l0://PATH (reads in shared memory), resp://ADDR (Redis), memcached://ADDR or echo://ADDR (returns what it gets)
    #[arg(long, value_name = "SCHEME://WHERE", default_value = "native://127.0.0.1:7700", value_parser = parse_any_target)]
    target: Target,
    /// Connections, over all threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Most requests under way on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pipeline: u32,
    /// One more connection that sends bursts of N GETs, each when the last is answered, and is not counted: what a neighbour with a deep
    /// pipeline costs the others [default: none]
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    deep: u32,
    /// Requests a second, or max: as fast as answers come [default: max]
    #[arg(long, value_name = "RPS|max", value_parser = parse_rate, default_value = "max")]
    rate: Rate,
    /// How requests of a given rate are spaced
    #[arg(long, value_enum, default_value = "uniform")]
    arrivals: Spacing,
    /// How long to measure; a trace runs to its end unless this comes first [default: 10s]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How long to run before measuring
    #[arg(long, value_name = "D", value_parser = parse_duration, default_value = "0s")]
    warmup: Duration,
    /// Distinct keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a key
    #[arg(long, value_name = "N", default_value = "16", value_parser = parse_bytes)]
    key_bytes: u64,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value = "100", value_parser = parse_bytes)]
    value_bytes: u64,
    /// Share of GETs, the rest are SETs
    #[arg(long, value_name = "RATIO", default_value_t = 0.9)]
    gets: f64,
    /// zipf:S, uniform, sequential or hotspot:SHARE:HEAT
    #[arg(long, value_name = "NAME", default_value = "zipf:0.99", value_parser = Distribution::parse)]
    distribution: Distribution,
    /// Replay a trace: rows of time,key,size, each a GET
    #[arg(long, value_name = "FILE.csv.zst", conflicts_with_all = ["distribution", "gets", "keys", "fill", "verify", "warmup", "slo"])]
    trace: Option<PathBuf>,
    /// Write every key first
    #[arg(long)]
    fill: bool,
    /// What to do when a GET finds nothing
    #[arg(long, value_enum, default_value = "none")]
    on_miss: OnMiss,
    /// Time to live of what is written
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Put key and version into every value and check every answer; exit 1 if one is wrong or lost
    #[arg(long)]
    verify: bool,
    /// Send each request to the shard that owns its key, or to any and let the server forward
    #[arg(long, value_enum, default_value = "owner")]
    route: Routing,
    /// Seed of every choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Cores for the load's threads, one each, like 1 or 2-3 [default: one thread, anywhere]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<Cores>,
    /// Search the highest rate that holds an objective, like 'p99<200us'
    #[arg(long, value_name = "OBJECTIVE", value_parser = Objective::parse)]
    slo: Option<Objective>,
    /// Write JSON to FILE, or to standard output with '-'
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Write a report with plots that opens offline
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the percentile distribution in HdrHistogram's text format
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

type Cores = Vec<usize>;

#[derive(Clone, Copy)]
enum Rate {
    Max,
    Requests(f64),
}

#[derive(Clone, Copy, ValueEnum)]
enum Spacing {
    Uniform,
    Poisson,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OnMiss {
    Set,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum Routing {
    Owner,
    Any,
}

/// Runs the command.
pub fn run(arguments: LoadArguments) -> Outcome {
    raise_open_files();
    let plan = plan_of(&arguments)?;
    let quiet = arguments.json.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let evicted_before = if plan.verify { lost_by_right(&arguments)? } else { 0 };
    let (name, run) = match arguments.slo {
        None => (String::new(), run_plan(&plan).map_err(|reason| (1, reason))?),
        Some(objective) => {
            let found = search(&plan, objective, |rate, measured, holds| {
                let verdict = if holds { "holds" } else { "breaks" };
                eprintln!("{rate:>12.0} requests/s: {:>9} {verdict}", format_ns(measured));
            })
            .map_err(|reason| (1, reason))?;
            let (rate, run) = found.ok_or((1, "even the lowest rate breaks the objective".to_string()))?;
            if !quiet {
                println!("highest rate that holds: {rate:.0} requests/s");
            }
            (format!("highest rate that holds: {rate:.0} requests/s"), run)
        }
    };
    if !quiet {
        println!("{}", run.outcome.table().trim_end());
    }
    let calibration = Calibration::load().map(|taken| taken.figures());
    match &calibration {
        Some(figures) if !quiet => println!("{}", figures.line()),
        Some(_) => (),
        None => eprintln!("{HINT}"),
    }
    write_files(&arguments, &name, &run, calibration.as_ref())?;
    if plan.verify {
        let by_right = lost_by_right(&arguments)?.saturating_sub(evicted_before);
        let lost = run.verified.missing.saturating_sub(by_right);
        eprintln!(
            "verified: {} wrong values, {} lost keys ({} written keys were not found, the server evicted or expired {by_right})",
            run.verified.wrong, lost, run.verified.missing
        );
        if run.verified.wrong > 0 || lost > 0 {
            return Err((1, run.complaint.unwrap_or_else(|| "values were lost".to_string())));
        }
    }
    if run.outcome.errors > 0 {
        let reason = run.complaint.unwrap_or_else(|| "no reason was recorded".to_string());
        return Err((1, format!("{} errors; the first: {reason}", run.outcome.errors)));
    }
    Ok(())
}

fn plan_of(arguments: &LoadArguments) -> Result<Plan, (u8, String)> {
    let usage = |reason: String| (2, reason);
    let trace = match &arguments.trace {
        None => None,
        Some(path) => Some(Arc::new(Trace::read(path).map_err(|reason| (1, reason))?)),
    };
    let digits = key_digits(arguments.keys) as u64;
    if !(digits..=limits::KEY_BYTES_MAX as u64).contains(&arguments.key_bytes) {
        return Err(usage(format!(
            "--key-bytes {}: {} keys need {digits} to {} bytes",
            arguments.key_bytes,
            arguments.keys,
            limits::KEY_BYTES_MAX
        )));
    }
    if arguments.value_bytes > limits::VALUE_BYTES_MAX as u64 {
        return Err(usage(format!("--value-bytes: at most {}", limits::VALUE_BYTES_MAX)));
    }
    if arguments.verify && arguments.target.dialect != Dialect::Native {
        return Err(usage("--verify asks the server's statistics what it evicted: only with native://".to_string()));
    }
    if arguments.target.l0.is_some() && (arguments.verify || arguments.deep > 0 || arguments.pipeline > 1) {
        return Err(usage(
            "l0:// reads one key at a time in shared memory: without --verify, --deep and --pipeline".to_string(),
        ));
    }
    if !(0.0..=1.0).contains(&arguments.gets) {
        return Err(usage("--gets: a share between 0 and 1".to_string()));
    }
    if arguments.cores.as_ref().is_some_and(|cores| cores.len() as u64 > arguments.keys) {
        return Err(usage("--cores: more threads than keys".to_string()));
    }
    let default_duration = if trace.is_some() { None } else { Some(Duration::from_secs(10)) };
    Ok(Plan {
        endpoint: arguments.target.endpoint.clone(),
        l0: arguments.target.l0.clone(),
        dialect: arguments.target.dialect,
        target: arguments.target.text.clone(),
        connections: arguments.connections as usize,
        pipeline: arguments.pipeline as usize,
        deep: arguments.deep as usize,
        rate: match arguments.rate {
            Rate::Max => None,
            Rate::Requests(rate) => Some(rate),
        },
        arrivals: match arguments.arrivals {
            Spacing::Uniform => Arrivals::Uniform,
            Spacing::Poisson => Arrivals::Poisson,
        },
        duration: arguments.duration.or(default_duration),
        warmup: arguments.warmup,
        keys: arguments.keys,
        key_bytes: arguments.key_bytes as usize,
        value_bytes: arguments.value_bytes as usize,
        gets: arguments.gets,
        distribution: arguments.distribution,
        trace,
        fill: arguments.fill,
        set_on_miss: arguments.on_miss == OnMiss::Set,
        ttl_ms: arguments.ttl.map_or(0, |ttl| (ttl.as_millis() as u64).max(1)),
        verify: arguments.verify,
        route: match arguments.route {
            Routing::Owner => Route::Owner,
            Routing::Any => Route::Any,
        },
        seed: arguments.seed,
        cores: arguments.cores.clone().unwrap_or_default(),
        filled: Arc::default(),
    })
}

/// Entries that the server has dropped by right: evicted or expired.
fn lost_by_right(arguments: &LoadArguments) -> Result<u64, (u8, String)> {
    let failed = |error| (1, format!("{}: {error}", arguments.target.text));
    // Gauges are left for readers four times a second.
    std::thread::sleep(Duration::from_millis(600));
    let mut client = Client::connect(arguments.target.endpoint.clone()).map_err(failed)?;
    let stats = client.stats().map_err(failed)?;
    let value = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok(value("evicted") + value("expired"))
}

fn write_files(
    arguments: &LoadArguments,
    name: &str,
    run: &Run,
    calibration: Option<&Figures>,
) -> Result<(), (u8, String)> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| (1, format!("{}: {error}", path.display())))
    };
    if let Some(path) = &arguments.json {
        let mut value = run.outcome.to_json();
        value["calibration"] = json!(calibration);
        if arguments.verify {
            value["verified"] = json!({ "wrong": run.verified.wrong, "missing": run.verified.missing });
        }
        let text = serde_json::to_string_pretty(&value).map_err(|error| (1, error.to_string()))? + "\n";
        if path.as_os_str() == "-" {
            print!("{text}");
        } else {
            write(path, text)?;
        }
    }
    if let Some(path) = &arguments.hgrm {
        write(path, run.outcome.hgrm())?;
    }
    if let Some(path) = &arguments.report {
        let section = Section { name: describe(arguments), note: name.to_string(), outcome: run.outcome.clone() };
        write(path, render("Spinetail load", &host_facts(), &[section]))?;
    }
    Ok(())
}

fn describe(arguments: &LoadArguments) -> String {
    format!("{}, {} connection(s), depth {}", arguments.target.text, arguments.connections, arguments.pipeline)
}

/// What a reader of a report must know of the machine.
pub fn host_facts() -> Vec<(String, String)> {
    let mut facts = Vec::new();
    if let Ok(machine) = Topology::detect(Path::new("/")) {
        facts.push(("Processor".to_string(), machine.cpu_model.clone().unwrap_or_else(|| "unknown".to_string())));
        facts.push(("Cores".to_string(), machine.core_ids().len().to_string()));
        facts.push(("Kernel".to_string(), machine.kernel.clone().unwrap_or_else(|| "unknown".to_string())));
        facts.push(("Virtual machine".to_string(), if machine.virtualised { "yes" } else { "no" }.to_string()));
    }
    facts.push(("Spinetail".to_string(), env!("CARGO_PKG_VERSION").to_string()));
    facts
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::Requests(rate)),
        _ => Err(format!("'{text}' is no rate: requests a second, or max")),
    }
}

//! `spinetail demo`: from nothing to a picture.
//!
//! Starts this very executable as a server of its own process on one core, loads it from another,
//! and writes what it saw. The loads are few and short; what they show is a machine's first look,
//! not its best.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use spinetail::base::units::{format_bytes, format_ns};
use spinetail::client::Endpoint;
use spinetail::host::process::Limits;
use spinetail::host::topology::Topology;
use spinetail::load::report::{Section, render};
use spinetail::load::run::Run;
use spinetail::load::{Arrivals, Dialect, Distribution, Plan, Route, run as run_plan};

use crate::cli::Outcome;
use crate::cli::load::host_facts;

/// Start an appliance, load it, print a table and write a report, in about a minute
#[derive(Args)]
#[command(after_help = "Writes report.html and demo.json; leaves nothing running.\n\nExample:\n  spinetail demo")]
pub struct DemoArguments {
    /// Where to write report.html and demo.json
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,
    /// Seconds for each load
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

/// A server in a process of its own, ended when this is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    resp: SocketAddr,
    shm: PathBuf,
    l0: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &DemoArguments) -> Outcome {
    let failed = |reason: String| (1, reason);
    let machine = Topology::detect(Path::new("/")).map_err(failed)?;
    let allowed = Limits::read().allowed_cores;
    let (&server_core, &load_core) = match allowed.as_slice() {
        [] => return Err((1, "no core may be used".to_string())),
        [only] => (only, only),
        [first, .., last] => (last, first),
    };
    println!(
        "host    {} cores, {}{}",
        machine.core_ids().len(),
        machine.cpu_model.as_deref().unwrap_or("unknown processor"),
        if machine.virtualised { ", virtual" } else { "" }
    );
    // Spinning needs a core of its own; on a single one the server would starve the load.
    let poll = if server_core == load_core { "park" } else { "spin" };
    let memory = (machine.memory_total_bytes.unwrap_or(1 << 30) / 8).clamp(64 << 20, 1 << 30);
    let server = Server::start(server_core, memory, poll).map_err(failed)?;
    println!("serve   {} on core {server_core} ({poll}), memory {}", server.address, format_bytes(memory));

    let base = Plan {
        dialect: Dialect::Native,
        endpoint: server.address.into(),
        l0: None,
        target: format!("native://{}", server.address),
        connections: 1,
        pipeline: 1,
        deep: 0,
        rate: None,
        arrivals: Arrivals::Poisson,
        duration: Some(Duration::from_secs(arguments.seconds.into())),
        warmup: Duration::from_secs(1),
        keys: KEYS,
        key_bytes: 16,
        value_bytes: 100,
        gets: 0.9,
        distribution: Distribution::Zipf(0.99),
        trace: None,
        fill: false,
        set_on_miss: false,
        ttl_ms: 0,
        verify: false,
        route: Route::Owner,
        seed: 1,
        cores: vec![load_core],
        filled: Arc::default(),
    };
    fill(&base).map_err(failed)?;
    let loads = [
        ("native, 1 connection", "20,000 requests/s, one at a time", Plan { rate: Some(20_000.0), ..base.clone() }),
        (
            "native, 50 connections",
            "50,000 requests/s over 50 connections, as independent users would send them",
            Plan { rate: Some(50_000.0), connections: 50, pipeline: 4, ..base.clone() },
        ),
        (
            "native, 4 × depth 32",
            "as fast as answers come, 4 connections with 32 requests under way each: not open loop, throughput only",
            Plan { connections: 4, pipeline: 32, ..base.clone() },
        ),
        ("RESP, 1 connection", "20,000 requests/s, one at a time, as a Redis client speaks", {
            let target = format!("resp://{}", server.resp);
            Plan { rate: Some(20_000.0), dialect: Dialect::Resp, endpoint: server.resp.into(), target, ..base.clone() }
        }),
        ("shared memory", "100,000 requests/s, one at a time, from a program on the same host, without TCP", {
            let target = format!("shm://{}", server.shm.display());
            Plan { rate: Some(100_000.0), endpoint: Endpoint::Shm(server.shm.clone()), target, ..base.clone() }
        }),
        ("shared memory, depth 256", "the same as fast as answers come: throughput only", {
            let target = format!("shm://{}", server.shm.display());
            Plan { pipeline: 256, endpoint: Endpoint::Shm(server.shm.clone()), target, ..base.clone() }
        }),
        (
            "L0, in shared memory",
            "hot entries read by the program itself, timed one by one, the timer's cost included",
            {
                let (target, keys) = (format!("l0://{}", server.l0.display()), L0_KEYS);
                Plan { l0: Some(server.l0.clone()), gets: 0.999, keys, fill: true, target, ..base.clone() }
            },
        ),
    ];
    let mut sections = Vec::new();
    println!();
    println!(
        "{:<24}{:>6} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "load", "op", "requests/s", "p50", "p90", "p99", "p99.9", "max"
    );
    for (name, note, plan) in loads {
        let run = run_plan(&plan).map_err(failed)?;
        print_rows(name, &run);
        if run.outcome.errors > 0 {
            return Err((1, format!("{name}: {} errors: {}", run.outcome.errors, run.complaint.unwrap_or_default())));
        }
        if plan.l0.is_some() {
            println!("{:<24}{:>5} of each of these the timer itself is {}", "", "", format_ns(run.outcome.timer_ns));
        }
        sections.push(Section { name: name.to_string(), note: note.to_string(), outcome: run.outcome });
    }
    server.stop().map_err(failed)?;
    let files = write(arguments, &sections)?;
    println!("report  {}\njson    {}", files.0.display(), files.1.display());
    Ok(())
}

/// Writes every key, drawing a bar.
fn fill(base: &Plan) -> Result<(), String> {
    let plan = Plan {
        fill: true,
        warmup: Duration::ZERO,
        duration: Some(Duration::from_millis(1)),
        pipeline: 64,
        ..base.clone()
    };
    let done = Arc::new(AtomicBool::new(false));
    let (filled, stop) = (plan.filled.clone(), done.clone());
    let bar = std::thread::spawn(move || draw_bar(&filled, &stop));
    let run = run_plan(&plan);
    done.store(true, Ordering::Relaxed);
    // A bar that could not be drawn is no reason to fail.
    let _ = bar.join();
    let run = run?;
    if run.outcome.errors > 0 {
        return Err(format!("the fill had {} errors: {}", run.outcome.errors, run.complaint.unwrap_or_default()));
    }
    Ok(())
}

fn draw_bar(filled: &AtomicU64, done: &AtomicBool) {
    let terminal = std::io::stdout().is_terminal();
    loop {
        let finished = done.load(Ordering::Relaxed);
        let count = if finished { KEYS } else { filled.load(Ordering::Relaxed) };
        if terminal || finished {
            let width = (count * 40 / KEYS) as usize;
            print!(
                "{}fill    [{}{}] {count} keys",
                if terminal { "\r" } else { "" },
                "#".repeat(width),
                ".".repeat(40 - width)
            );
            let _ = std::io::stdout().flush();
        }
        if finished {
            println!();
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn print_rows(name: &str, run: &Run) {
    for (operation, measured) in &run.outcome.operations {
        let at = |quantile: f64| format_ns(measured.latency.value_at_quantile(quantile));
        let rate = measured.count as f64 / run.outcome.duration_s.max(1e-9);
        println!(
            "{name:<24}{operation:>6} {rate:>11.0} {:>9} {:>9} {:>9} {:>9} {:>9}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            format_ns(measured.latency.max())
        );
    }
}

fn write(arguments: &DemoArguments, sections: &[Section]) -> Result<(PathBuf, PathBuf), (u8, String)> {
    let dir = &arguments.out;
    let complaint = |error: std::io::Error| (1, format!("{}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(complaint)?;
    let (report, json_file) = (dir.join("report.html"), dir.join("demo.json"));
    let loads: Vec<_> =
        sections.iter().map(|section| json!({ "name": section.name, "outcome": section.outcome.to_json() })).collect();
    let facts: serde_json::Map<String, serde_json::Value> =
        host_facts().into_iter().map(|(name, value)| (name, json!(value))).collect();
    let value = json!({ "host": facts, "loads": loads });
    let text = serde_json::to_string_pretty(&value).map_err(|error| (1, error.to_string()))?;
    std::fs::write(&report, render("Spinetail demo", &host_facts(), sections)).map_err(complaint)?;
    std::fs::write(&json_file, text + "\n").map_err(complaint)?;
    Ok((report, json_file))
}

impl Server {
    /// Starts `spinetail serve` and waits for its ready line.
    fn start(core: usize, memory: u64, poll: &str) -> Result<Server, String> {
        let shm = std::env::temp_dir().join(format!("spinetail-demo-{}", std::process::id()));
        let l0 = std::env::temp_dir().join(format!("spinetail-demo-l0-{}", std::process::id()));
        let executable = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
        let mut child = Command::new(executable)
            .args(["serve", "--listen", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--shards", "1"])
            .args(["--shm".as_ref(), shm.as_os_str(), "--l0-socket".as_ref(), l0.as_os_str()])
            .args(["--cores", &core.to_string(), "--memory", &format!("{memory}B"), "--poll", poll])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the server did not start: {error}"))?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("the server has no output")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        let address = |prefix| line.split_whitespace().find_map(|word| word.strip_prefix(prefix)?.parse().ok());
        match (read, address("native="), address("resp=")) {
            (Ok(_), Some(address), Some(resp)) => Ok(Server { child, address, resp, shm, l0 }),
            _ => {
                let mut words = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut words);
                }
                let _ = child.wait();
                Err(format!("the server did not start: {}", words.trim()))
            }
        }
    }

    /// Ends it as an operator would, and waits.
    fn stop(mut self) -> Result<(), String> {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        if !status.is_ok_and(|status| status.success()) {
            self.child.kill().map_err(|error| error.to_string())?;
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After stop() both find nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const KEYS: u64 = 200_000;
/// Keys of the L0 load: a hot set.
const L0_KEYS: u64 = 4096;

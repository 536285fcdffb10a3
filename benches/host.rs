//! Do the figures of `spinetail host calibrate` agree with independent floors?
//!
//! `cargo bench --bench host`, or `-- chase` for the cases whose name contains that; `SPINETAIL_BENCH=smoke` runs a small
//! size. A case has two subjects that take turns, round by round, on the same cores: **calibrate**, the very code that
//! the command runs, and **floor**, which shares none of it.
//!
//! - `chase/…`: the floor of the other benches, a cycle drawn by Sattolo's shuffle. Both are one dependent load a step over as
//!   many lines of 64 bytes in transparent huge pages, and both answer the median of short batches, since the mean of a
//!   long one is the others' time slices wherever others run; the order and the loop are each one's own.
//! - `ping-pong/A-B`: two threads that turn a flag over with `AtomicBool` alone, on the median of 32 lines.
//! - `syscall`: `getppid` through `syscall(2)`; calibrate asks std.
//! - `clock`: `clock_gettime(CLOCK_MONOTONIC)`; calibrate asks `Instant`.
//!
//! `median ns` is the median of the rounds and `p99 ns` the highest of them. A ratio to the floor far from one means that one
//! of the two measures something else than it says; on a machine that others use both columns say by how much they vary.

#[allow(dead_code, reason = "every bench uses its own part of this")]
mod common;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spinetail::base::prng::Prng;
use spinetail::host::calibrate::chase::{Bounds, Chase, sets};
use spinetail::host::calibrate::{calls, clock, pairs};
use spinetail::host::memory::PageWish;
use spinetail::host::topology::{Cache, Core, Topology};

use crate::common::measure::median;
use crate::common::report::{self, Row};
use crate::common::subjects::PointerChase;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("host bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One round of one subject, in nanoseconds.
type Round<'a> = Box<dyn FnMut() -> f64 + 'a>;

fn run() -> Result<(), String> {
    let smoke = std::env::var("SPINETAIL_BENCH").is_ok_and(|size| size == "smoke");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = cores.last().filter(|&&core| core_affinity::set_for_current(core)).map(|core| core.id);
    let host = report::host(cores.len(), core, if smoke { "smoke" } else { "full" });
    let preemptions = report::preemptions();
    let (rounds, slice) = if smoke { (3, Duration::from_millis(10)) } else { (9, Duration::from_millis(100)) };
    let set_bytes = if smoke { 64 << 20 } else { 512 << 20 };
    let mut rows = Vec::new();
    let mut case = |name: String, mut calibrate: Round<'_>, mut floor: Round<'_>| {
        let mut figures = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            // Who begins takes turns; the first round warms both.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for subject in order {
                let figure = if subject == 0 { calibrate() } else { floor() };
                if round > 0 && figure.is_finite() {
                    figures[subject].push(figure);
                }
            }
        }
        for (subject, figures) in ["calibrate", "floor"].into_iter().zip(&figures) {
            if !figures.is_empty() {
                let p99_ns = figures.iter().copied().fold(0.0, f64::max);
                rows.push(Row {
                    case: name.clone(),
                    subject,
                    median_ns: median(figures),
                    p99_ns,
                    rounds: figures.len(),
                });
            }
        }
    };

    let bounds = Bounds { memory_bytes: 4 * set_bytes, set_bytes, copies: 2 };
    let machine = Topology::detect(Path::new("/"))?;
    let caches: Vec<&Cache> = machine.core(core.unwrap_or(0)).into_iter().flat_map(Core::data_caches).collect();
    let (sets, notes) = sets(&caches, bounds);
    for set in &sets {
        let name = format!("chase/{}/{}", set.level, set.bytes);
        if !name.contains(&filter) {
            continue;
        }
        let (bytes, lines) = (set.bytes as usize, set.bytes as usize / 64);
        let mut chase = Chase::new(bytes, PageWish::Transparent, None, &mut Prng::new(17))?;
        let floor = PointerChase::new(bytes, lines, false)?;
        let (is_near, mut at) = (set.level != "DRAM", 0);
        let calibrate = move || {
            if is_near {
                chase.warm();
            }
            chase.load_ns(slice)
        };
        let floor = move || {
            if is_near {
                at = floor.walk(at, lines);
            }
            let (started, mut batches) = (Instant::now(), Vec::new());
            while batches.len() < 5 || started.elapsed() < slice {
                let before = Instant::now();
                at = floor.walk(at, STEPS);
                batches.push(before.elapsed().as_nanos() as f64 / STEPS as f64);
            }
            median(&batches)
        };
        case(name, Box::new(calibrate), Box::new(floor));
    }
    if let [first, .., last] = cores[..] {
        let name = format!("ping-pong/{}-{}", first.id, last.id);
        if name.contains(&filter) {
            let calibrate = move || pairs::one_way_ns(first.id, last.id, slice).unwrap_or(f64::NAN);
            case(name, Box::new(calibrate), Box::new(move || flags_ns(first, last)));
        }
    }
    if "syscall".contains(&filter) {
        case(
            "syscall".into(),
            Box::new(move || calls::syscall_ns(slice)),
            Box::new(move || batches_ns(slice, raw_syscall)),
        );
    }
    if "clock".contains(&filter) {
        case("clock".into(), Box::new(move || clock::clock_ns(slice)), Box::new(move || batches_ns(slice, raw_clock)));
    }

    println!("host: {host}");
    notes.iter().for_each(|note| println!("{note}"));
    report::print(&rows, "floor", "calibrate");
    println!("lost the core {} times", report::preemptions() - preemptions);
    let path = report::write("host", host, &rows).map_err(|error| format!("the report: {error}"))?;
    println!("written: {}", path.display());
    Ok(())
}

/// A flag alone on two lines.
#[repr(align(128))]
struct Flag(AtomicBool);

/// One way between two cores by turning flags over: the median of the lines.
fn flags_ns(first: core_affinity::CoreId, second: core_affinity::CoreId) -> f64 {
    let flags: Vec<Flag> = (0..LINES).map(|_| Flag(AtomicBool::new(false))).collect();
    let barrier = Barrier::new(2);
    // Whoever waits for the other gives its core up in the end, where that is the only one both can run on.
    let turn = |flag: &Flag, from: bool| {
        let mut looks = 0u32;
        while flag.0.load(Ordering::Acquire) != from {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(1 << 20) {
                std::thread::yield_now();
            }
        }
        flag.0.store(!from, Ordering::Release);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(second);
            barrier.wait();
            flags.iter().for_each(|flag| (0..TRIPS).for_each(|_| turn(flag, true)));
        });
        let asking = scope.spawn(|| {
            core_affinity::set_for_current(first);
            barrier.wait();
            let of = |flag: &Flag| {
                let started = Instant::now();
                (0..TRIPS).for_each(|_| turn(flag, false));
                // The last turn is still on its way: one way of two thousand.
                started.elapsed().as_nanos() as f64 / (2 * TRIPS) as f64
            };
            median(&flags.iter().map(of).collect::<Vec<_>>())
        });
        asking.join().expect("the asking thread")
    })
}

/// The median of batches of a thousand, in nanoseconds each.
fn batches_ns(slice: Duration, call: fn()) -> f64 {
    let (started, mut batches) = (Instant::now(), Vec::new());
    while batches.len() < 5 || started.elapsed() < slice {
        let before = Instant::now();
        (0..1_000).for_each(|_| call());
        batches.push(before.elapsed().as_nanos() as f64 / 1e3);
    }
    median(&batches)
}

#[expect(unsafe_code, reason = "past std on purpose")]
fn raw_syscall() {
    // SAFETY: getppid takes nothing and cannot fail.
    black_box(unsafe { libc::syscall(libc::SYS_getppid) });
}

#[expect(unsafe_code, reason = "past std on purpose")]
fn raw_clock() {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one live timespec is passed, which the call writes.
    black_box(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) });
    black_box(now.tv_nsec);
}

/// Steps of a batch of the floor's walk.
const STEPS: usize = 2_000;

const LINES: usize = 32;
const TRIPS: usize = 1_000;

//! What it costs to wake a thread that sleeps, and to send a byte through loopback between two that do.
//!
//! ```text
//!   sleeper   ── parks ── … off its core for 200 µs … ─────────── runs: reads the clock
//!   waker     ──────────── spins, reads the clock, unparks ──→                     latency = the difference
//! ```
//!
//! `park` and `unpark` are a futex each, the same sleep and the same wake-up that an eventfd, a socket or a ring ends in:
//! an interrupt to the sleeper's core, its way out of the idle state, the scheduler. The sleeper has been off its core for
//! `limits::CALIBRATE_SLEEP_US` each time: cores sleep the deeper the longer they do, so a shard that has been idle for
//! seconds may wake more slowly than this figure says. With one core for both the waker gives it up once it has called, and
//! what is measured is a switch between two threads.
//!
//! A distribution, not a mean: the middle one and the hundredth are both given, because a deeper idle state or a
//! hypervisor that had given the core away is in the second.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::limits;
use crate::host::calibrate::rounds::{Rounds, median_batch, resolution_ns};
use crate::host::calibration::Measured;
use crate::host::process::keep_to_cores;

/// The rounds of both.
#[derive(Debug)]
pub struct Wake {
    sleeper: usize,
    waker: usize,
    p50: Rounds,
    p99: Rounds,
    loopback: Rounds,
    complaint: Option<String>,
}

impl Wake {
    /// The sleeper on one core, the waker on another or the same.
    pub fn prepare(sleeper: usize, waker: usize, clock_ns: f64) -> Wake {
        let one = || Rounds::with_resolution(resolution_ns(clock_ns, 1));
        let loopback = Rounds::with_resolution(resolution_ns(clock_ns, TRIPS));
        Wake { sleeper, waker, p50: one(), p99: one(), loopback, complaint: None }
    }

    /// One round: two thirds of `slice` for wake-ups, the rest for loopback.
    pub fn round(&mut self, slice: Duration) {
        let mut latencies = wake_ups_ns(self.sleeper, self.waker, slice * 2 / 3);
        latencies.sort_unstable();
        if !latencies.is_empty() {
            let at = |share: f64| latencies[((latencies.len() as f64 * share).ceil() as usize).max(1) - 1] as f64;
            self.p50.add(at(0.5));
            self.p99.add(at(0.99));
        }
        match loopback_ns(self.sleeper, self.waker, slice / 3) {
            Ok(figure) => self.loopback.add(figure),
            Err(error) => {
                let told = format!("loopback was not measured: {error}; is the interface lo up?");
                self.complaint = Some(told);
            }
        }
    }

    /// Sleeper and waker have a core each.
    pub fn is_across_cores(&self) -> bool {
        self.sleeper != self.waker
    }

    /// Median and 99th percentile of a wake-up, in microseconds.
    pub fn wake_up_us(&self) -> (Option<Measured>, Option<Measured>) {
        let us = |rounds: &Rounds| rounds.measured().map(|measured| measured.per(1e3));
        (us(&self.p50), us(&self.p99))
    }

    /// A byte there and back through TCP, in microseconds.
    pub fn loopback_us(&self) -> Option<Measured> {
        self.loopback.measured().map(|measured| measured.per(1e3))
    }

    /// What could not be measured.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

/// What the two threads share.
struct Bed {
    started: Instant,
    /// The number of the sleep that the sleeper has gone into.
    asleep: AtomicU64,
    /// The number of the sleep that is over.
    called: AtomicU64,
    /// Nanoseconds after `started` at which the sleeper ran again.
    woken_ns: AtomicU64,
    /// The number of the sleep that this belongs to.
    answered: AtomicU64,
    over: AtomicBool,
}

/// Latencies of wake-ups in nanoseconds, as many as `slice` has room for, at least [`WAKE_UPS_MIN`]; none if a thread
/// could not be pinned.
fn wake_ups_ns(sleeper: usize, waker: usize, slice: Duration) -> Vec<u64> {
    let bed = Bed {
        started: Instant::now(),
        asleep: AtomicU64::new(0),
        called: AtomicU64::new(0),
        woken_ns: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let bed = &bed;
        let sleeping = scope.spawn(move || {
            let pinned = keep_to_cores(&[sleeper]).is_ok();
            bed.sleep();
            pinned
        });
        let sleeping_thread = sleeping.thread().clone();
        let waking = scope.spawn(move || {
            let pinned = keep_to_cores(&[waker]).is_ok();
            let latencies = bed.wake(&sleeping_thread, sleeper == waker, slice);
            bed.over.store(true, Ordering::Release);
            sleeping_thread.unpark();
            if pinned { latencies } else { Vec::new() }
        });
        let latencies = waking.join().unwrap_or_default();
        if sleeping.join().unwrap_or(false) { latencies } else { Vec::new() }
    })
}

impl Bed {
    fn sleep(&self) {
        for number in 1.. {
            self.asleep.store(number, Ordering::Release);
            while self.called.load(Ordering::Acquire) < number {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                thread::park();
            }
            self.woken_ns.store(self.started.elapsed().as_nanos() as u64, Ordering::Relaxed);
            self.answered.store(number, Ordering::Release);
        }
    }

    /// Wakes the sleeper again and again. On a shared core everything that waits gives the core up.
    fn wake(&self, sleeper: &thread::Thread, shared_core: bool, slice: Duration) -> Vec<u64> {
        let mut latencies = Vec::with_capacity(WAKE_UPS_RESERVED);
        let pause = Duration::from_micros(limits::CALIBRATE_SLEEP_US);
        let until = |holds: &dyn Fn() -> bool| {
            while !holds() {
                if shared_core { thread::yield_now() } else { std::hint::spin_loop() }
            }
        };
        for number in 1.. {
            until(&|| self.asleep.load(Ordering::Acquire) == number);
            if shared_core {
                thread::sleep(pause);
            } else {
                let asleep_since = Instant::now();
                until(&|| asleep_since.elapsed() >= pause);
            }
            let before = self.started.elapsed().as_nanos() as u64;
            self.called.store(number, Ordering::Release);
            sleeper.unpark();
            until(&|| self.answered.load(Ordering::Acquire) == number);
            latencies.push(self.woken_ns.load(Ordering::Relaxed).saturating_sub(before));
            if latencies.len() >= WAKE_UPS_MIN && self.started.elapsed() >= slice {
                break;
            }
        }
        latencies
    }
}

/// A byte there and back between two blocking threads, in nanoseconds.
fn loopback_ns(client: usize, server: usize, slice: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        // A packet filter may swallow what the handshake let through.
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> io::Result<()> {
            keep_to_cores(&[server])?;
            let mut byte = [0];
            while far.read(&mut byte)? == 1 {
                far.write_all(&byte)?;
            }
            Ok(())
        });
        let ask = scope.spawn(move || -> io::Result<f64> {
            keep_to_cores(&[client])?;
            let mut outcome = Ok(());
            let figure = median_batch(slice, TRIPS, || {
                for _ in 0..TRIPS {
                    if outcome.is_ok() {
                        outcome = near.write_all(&[1]).and_then(|()| near.read_exact(&mut [0]));
                    }
                }
            });
            // `near` is closed with this thread's end, and the echo ends with it.
            outcome.map(|()| figure)
        });
        let figure = ask.join().map_err(|_| io::Error::other("the asking thread broke off"))?;
        drop(echo.join());
        figure
    })
}

/// Fewest wake-ups of a round.
const WAKE_UPS_MIN: usize = 25;

/// Room for wake-ups, so that few of them pay for more.
const WAKE_UPS_RESERVED: usize = 4096;

/// Round trips of a batch: some 200 µs.
const TRIPS: u32 = 10;

/// How long a byte may take.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::Limits;

    #[test]
    fn sleepers_wake_up_from_the_same_core_and_from_another() {
        let cores = Limits::read().allowed_cores;
        for waker in [cores[0], cores[cores.len() - 1]] {
            let mut wake = Wake::prepare(cores[0], waker, 25.0);
            for _ in 0..3 {
                wake.round(Duration::from_millis(10));
            }
            let (p50, p99) = wake.wake_up_us();
            let (p50, p99) = (p50.unwrap(), p99.unwrap());
            assert!(p50.median > 0.1 && p50.median <= p99.median, "{p50:?} {p99:?}");
            assert!(wake.loopback_us().is_some_and(|us| us.median > 0.5), "{:?}", wake.complaint());
            assert_eq!(wake.is_across_cores(), waker != cores[0]);
        }
    }

    #[test]
    fn a_core_that_is_not_there_gives_no_figure_and_ends() {
        let none = crate::host::topology::CORE_ID_MAX;
        assert!(wake_ups_ns(none, none, Duration::ZERO).is_empty());
        assert!(loopback_ns(none, none, Duration::ZERO).is_err());
    }
}

//! What the kernel takes for a call: a system call that does next to nothing, and a NOP through an io_uring.
//!
//! The system call is `getppid`, through std: no library answers it from memory, and the kernel reads one word for it. What
//! is left is the way in and out, with whatever the machine does on that way against speculation attacks.
//!
//! The ring has the flags of a shard's ring (see `probe`), and the NOP is submitted and waited for in one call: the system
//! call, the kernel's look at the submission, the completion, and the deferred work that a wait runs. No device, no
//! socket. Where rings are refused there is no figure, and the reason is the one that `host check` gives.
#![expect(unsafe_code, reason = "io_uring's queue takes entries on the caller's word")]

use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::time::Duration;

use io_uring::{IoUring, opcode};

use crate::host::calibrate::rounds::{Rounds, median_batch, resolution_ns};
use crate::host::calibration::Measured;
use crate::host::probe;

/// The rounds of both.
pub struct Calls {
    syscall: Rounds,
    ring: Result<IoUring, String>,
    ring_rounds: Rounds,
}

impl Calls {
    /// Builds the ring, on the thread that will measure: a ring like a shard's belongs to one.
    pub fn prepare(clock_ns: f64) -> Calls {
        let resolution = resolution_ns(clock_ns, CALLS);
        Calls {
            syscall: Rounds::with_resolution(resolution),
            ring: ring(),
            ring_rounds: Rounds::with_resolution(resolution),
        }
    }

    /// One round: two fifths of `slice` for the system call, the rest for the ring.
    pub fn round(&mut self, slice: Duration) {
        self.syscall.add(syscall_ns(slice * 2 / 5));
        let Ok(ring) = &mut self.ring else { return };
        match ring_ns(ring, slice * 3 / 5) {
            Ok(figure) => self.ring_rounds.add(figure),
            // Granted and then refused: a filter that forbids io_uring_enter alone.
            Err(error) => self.ring = Err(format!("the ring was built, then a NOP was refused: {error}")),
        }
    }

    /// The system call.
    pub fn syscall(&self) -> Option<Measured> {
        self.syscall.measured()
    }

    /// The ring, or why there is none.
    pub fn ring(&self) -> Result<Option<Measured>, String> {
        self.ring.as_ref().map(|_| self.ring_rounds.measured()).map_err(Clone::clone)
    }
}

/// One system call, in nanoseconds.
pub fn syscall_ns(slice: Duration) -> f64 {
    median_batch(slice, CALLS, || {
        for _ in 0..CALLS {
            black_box(parent_id());
        }
    })
}

/// A ring set up like a shard's, or why there is none and what to do.
pub fn ring() -> Result<IoUring, String> {
    if let Some(refusal) = probe::io_uring_refusal() {
        return Err(refusal);
    }
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(RING_ENTRIES)
        .map_err(|error| format!("a ring was granted and the next one refused: {error}"))
}

/// One NOP there and back, in nanoseconds.
fn ring_ns(ring: &mut IoUring, slice: Duration) -> std::io::Result<f64> {
    let mut outcome = Ok(());
    let figure = median_batch(slice, CALLS, || {
        for _ in 0..CALLS {
            if outcome.is_ok() {
                outcome = nop(ring);
            }
        }
    });
    outcome.map(|()| figure)
}

fn nop(ring: &mut IoUring) -> std::io::Result<()> {
    // SAFETY: a NOP names no memory and no file, so there is nothing that must outlive it.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(std::io::Error::other)?;
    ring.submit_and_wait(1)?;
    let completed = ring.completion().count();
    if completed == 1 { Ok(()) } else { Err(std::io::Error::other(format!("{completed} completions of one NOP"))) }
}

/// Calls of a batch: 20 to 200 µs.
const CALLS: u32 = 200;

/// Entries of the ring; one is used.
const RING_ENTRIES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_call_takes_longer_than_reading_a_register() {
        let figure = syscall_ns(Duration::from_millis(5));
        assert!((10.0..100_000.0).contains(&figure), "{figure}");
    }

    #[test]
    fn a_ring_gives_a_figure_or_a_reason() {
        let mut calls = Calls::prepare(25.0);
        for _ in 0..5 {
            calls.round(Duration::from_millis(5));
        }
        let syscall = calls.syscall().unwrap();
        match calls.ring() {
            // It is a system call and more; that it is slower shows in the highest round at the least.
            Ok(ring) => assert!(ring.unwrap().high > syscall.low, "{ring:?} {syscall:?}"),
            Err(refusal) => assert!(refusal.contains(':'), "{refusal}"),
        }
    }

    #[test]
    fn every_nop_completes_once() {
        let Ok(mut ring) = ring() else { return };
        for _ in 0..100 {
            nop(&mut ring).unwrap();
        }
        assert_eq!(ring.completion().count(), 0);
    }
}

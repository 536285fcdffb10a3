//! Hits that took no lock: how many there were, and which entries some of them found.
//!
//!   cell of a thread, 128 B   | hits | next report at | reports waiting | stripe and slot × 13 |
//!
//! Every thread has a number and counts in the cell of that number, with loads and stores of its own rather than
//! atomic additions. Should there be more threads than cells two of them share one, and now and then lose
//! a count or a report; nothing depends on either. When a cell is full its reports are handed to their stripes,
//! each if its lock is free: what is not told is a hit that was not sampled.
//!
//! Read buffers that may lose are Caffeine's (1), cells by thread are Java's striped counters.
//!
//! (1) Manes, Einziger & Friedman, "TinyLFU" in Caffeine, BoundedBuffer.java

use std::cell::Cell as ThreadCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::base::limits;
use crate::base::prng::mix;

/// The cells of one cache.
pub struct Reads {
    cells: Box<[Cell]>,
}

/// One thread's cell, alone on its pair of lines: processors fetch lines in pairs.
#[repr(align(128))]
#[derive(Default)]
pub struct Cell {
    hits: AtomicU64,
    next_report_at: AtomicU64,
    waiting: AtomicU64,
    reports: [AtomicU64; limits::EMBEDDED_REPORTS],
}

impl Reads {
    /// Cells for a machine of so many cores.
    pub fn new(cores: usize) -> Reads {
        let count = (CELLS_PER_CORE * cores.max(1)).next_power_of_two();
        Reads { cells: (0..count).map(|_| Cell::default()).collect() }
    }

    /// What so many cells take.
    pub fn bytes(cores: usize) -> usize {
        (CELLS_PER_CORE * cores.max(1)).next_power_of_two() * size_of::<Cell>()
    }

    /// Counts a hit of the calling thread. Answers its cell if that is full.
    #[inline(always)]
    pub fn hit(&self, stripe: u16, slot: u32) -> Option<&Cell> {
        let cell = &self.cells[thread_number() & (self.cells.len() - 1)];
        let hits = cell.hits.load(Ordering::Relaxed) + 1;
        cell.hits.store(hits, Ordering::Relaxed);
        if hits < cell.next_report_at.load(Ordering::Relaxed) {
            return None;
        }
        cell.report(hits, stripe, slot).then_some(cell)
    }

    /// Hits so far.
    pub fn hits(&self) -> u64 {
        self.cells.iter().map(|cell| cell.hits.load(Ordering::Relaxed)).sum()
    }
}

impl Cell {
    /// Notes a report. Answers whether there is room for no more.
    #[cold]
    #[inline(never)]
    fn report(&self, hits: u64, stripe: u16, slot: u32) -> bool {
        // On average every 32nd, but never in step with the program: of a loop over 1,024 keys every 32nd hit
        // would always find the same 32.
        let pause = limits::EMBEDDED_HITS_PER_REPORT / 2 + mix(hits) % limits::EMBEDDED_HITS_PER_REPORT;
        self.next_report_at.store(hits + pause, Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed) as usize;
        if let Some(place) = self.reports.get(waiting) {
            place.store(u64::from(stripe) << 32 | u64::from(slot), Ordering::Relaxed);
            self.waiting.store(waiting as u64 + 1, Ordering::Relaxed);
        }
        waiting + 1 >= limits::EMBEDDED_REPORTS
    }

    /// Takes all reports, as stripe and slot.
    pub fn take(&self, mut with: impl FnMut(u16, u32)) {
        let waiting = self.waiting.load(Ordering::Relaxed) as usize;
        for place in &self.reports[..waiting.min(limits::EMBEDDED_REPORTS)] {
            let report = place.load(Ordering::Relaxed);
            with((report >> 32) as u16, report as u32);
        }
        self.waiting.store(0, Ordering::Relaxed);
    }
}

/// The calling thread's number: threads that began one after another have different cells.
#[inline(always)]
fn thread_number() -> usize {
    thread_local! {
        static NUMBER: ThreadCell<usize> = const { ThreadCell::new(NO_NUMBER) };
    }
    static NUMBER_NEXT: AtomicUsize = AtomicUsize::new(0);
    NUMBER.with(|number| {
        if number.get() == NO_NUMBER {
            number.set(NUMBER_NEXT.fetch_add(1, Ordering::Relaxed) % NO_NUMBER);
        }
        number.get()
    })
}

const NO_NUMBER: usize = usize::MAX;
/// So that most programs' threads, which may be more than cores, have cells of their own.
const CELLS_PER_CORE: usize = 8;
const _: () = assert!(size_of::<Cell>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_thirty_two_hits_is_reported_and_all_are_counted() {
        let reads = Reads::new(1);
        let (mut reported, mut heard) = (0, Vec::new());
        for number in 0..32_000u32 {
            if let Some(cell) = reads.hit(3, number % 1024) {
                cell.take(|stripe, slot| {
                    assert_eq!(stripe, 3);
                    reported += 1;
                    heard.push(slot);
                });
            }
        }
        assert_eq!(reads.hits(), 32_000);
        assert!((900..1100).contains(&reported), "{reported}");
        heard.sort_unstable();
        heard.dedup();
        assert!(heard.len() > 400, "reports keep step with the program: {} keys", heard.len());
    }

    #[test]
    fn threads_have_cells_of_their_own() {
        let reads = Reads::new(2);
        let threads = if cfg!(miri) { 4 } else { 16 };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    (0..1000).for_each(|slot| {
                        reads.hit(0, slot);
                    });
                });
            }
        });
        // Other tests' threads take numbers too, so two of these may meet in a cell and lose a few.
        assert!(reads.hits() > 500 * threads && reads.hits() <= 1000 * threads, "{}", reads.hits());
    }
}

//! What time it was at which tick, by which an item's stamp is read as milliseconds.
//!
//!   oldest   | tick, time | … | tick, time | tick, time | tick, time |   newest
//!              ^ the last time that the clock was seen at this tick
//!
//! The clock that ages are measured with counts requests, and a hit does not read another one. So the owner
//! notes the time now and then. An access with stamp S came after the last note of a tick before S, and the
//! time since that note is what is answered: never less than is true, more by what lies between two notes.
//! A shard without traffic stays at one tick and needs one note. The table is bounded: of the older notes
//! those are given up that matter least for their age, so that 64 reach from a quarter of a second to days,
//! each a quarter or so from the next.

use crate::base::limits::{TIME_NOTES, TIME_NOTES_APART_MS};
use crate::base::time::Instant;
use crate::learn::touch::STAMPS;

/// Notes of the time, oldest first.
#[derive(Clone)]
pub struct Times {
    notes: Vec<Note>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    tick: u32,
    at: Instant,
}

impl Times {
    /// Nothing is known.
    pub fn new() -> Times {
        Times { notes: Vec::with_capacity(TIME_NOTES) }
    }

    /// Notes that the clock is at `tick` now.
    pub fn note(&mut self, tick: u32, now: Instant) {
        if let Some(last) = self.notes.last_mut() {
            if last.tick == tick {
                last.at = last.at.max(now);
                return;
            }
            if last.at.ms_until(now) < TIME_NOTES_APART_MS {
                return;
            }
        }
        // No stamp reaches further back than to one note that lies beyond them all.
        while self.notes.get(1).is_some_and(|second| tick.wrapping_sub(second.tick) >= STAMPS) {
            self.notes.remove(0);
        }
        if self.notes.len() == TIME_NOTES {
            let least = self.least_missed(now);
            self.notes.remove(least);
        }
        self.notes.push(Note { tick, at: now });
    }

    /// Milliseconds since a moment before the tick that was `age` ticks before `tick`, the latest that is known.
    pub fn ms_since_before(&self, tick: u32, age: u32, now: Instant) -> u64 {
        let before = self.notes.iter().rev().find(|note| tick.wrapping_sub(note.tick) > age);
        before.or(self.notes.first()).map_or(0, |note| note.at.ms_until(now))
    }

    /// The note without which the gap between its neighbours is smallest for its age.
    fn least_missed(&self, now: Instant) -> usize {
        let gap = |notes: &[Note]| {
            let age = notes[2].at.ms_until(now) + TIME_NOTES_APART_MS;
            notes[0].at.ms_until(notes[2].at) as f32 / age as f32
        };
        let gaps = self.notes.windows(3).map(gap).enumerate();
        1 + gaps.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a full table has three notes").0
    }
}

impl Default for Times {
    fn default() -> Times {
        Times::new()
    }
}

const _: () = assert!(TIME_NOTES >= 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    #[test]
    fn an_access_is_dated_by_the_note_before_it() {
        let mut times = Times::new();
        assert_eq!(times.ms_since_before(5, 0, ms(9000)), 0, "nobody has noted the time");
        times.note(4, ms(1000));
        times.note(7, ms(2000));
        // Ticks 5 to 7 began after 1000, 8 and what follows after 2000.
        for (age, idle) in [(0, 500), (1, 1500), (3, 1500), (4, 1500), (5000, 1500)] {
            assert_eq!(times.ms_since_before(8, age, ms(2500)), idle, "age {age}");
        }
        // A clock that stands still: what will be accessed next is new, what was is as old as it is.
        times.note(7, ms(60_000));
        assert_eq!(times.ms_since_before(8, 0, ms(60_200)), 200);
        assert_eq!(times.ms_since_before(8, 1, ms(60_200)), 59_200);
        times.note(9, ms(60_001));
        assert_eq!(times.notes.len(), 2, "too soon after the last note");
    }

    #[test]
    fn ticks_may_wrap_and_time_stand_still() {
        let mut times = Times::new();
        times.note(u32::MAX - 1, ms(1000));
        times.note(2, ms(2000));
        times.note(3, ms(0));
        assert_eq!(times.ms_since_before(4, 1, ms(3000)), 1000);
        assert_eq!(times.ms_since_before(4, 2, ms(3000)), 2000);
        assert_eq!(times.ms_since_before(4, 0, ms(0)), 0);
    }

    #[test]
    fn sixty_four_notes_cover_hours_to_a_quarter() {
        let mut times = Times::new();
        // One tick in two seconds, a note each second, for four hours.
        let seconds = if cfg!(miri) { 300 } else { 4 * 3600 };
        for second in 0..=seconds {
            times.note((second / 2) as u32, ms(second * 1000));
            assert!(times.notes.len() <= TIME_NOTES && times.notes.is_sorted_by_key(|note| note.at));
        }
        let tick = (seconds / 2) as u32;
        for age in 0..tick - 1 {
            let began = u64::from(tick - age) * 2000;
            let (real, known) = (seconds * 1000 - began, times.ms_since_before(tick, age, ms(seconds * 1000)));
            assert!(known >= real && known <= real + real / 4 + 3000, "tick {age} ago: {known} for {real} ms");
        }
    }

    #[test]
    fn notes_that_no_stamp_reaches_are_given_up() {
        let mut times = Times::new();
        for second in 0..100 {
            times.note(second * 1000, ms(u64::from(second) * 1000));
        }
        assert!(times.notes.len() <= (STAMPS / 1000 + 2) as usize, "{}", times.notes.len());
        let oldest = times.ms_since_before(99_000, STAMPS - 1, ms(99_000));
        assert!((8000..=10_000).contains(&oldest), "{oldest}");
    }
}

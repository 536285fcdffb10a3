//! States of the segments: which are free, which belong to which log and in what order.
//!
//!   main   oldest -> … -> newest     each log is a list by the time its segments were opened;
//!   small  oldest -> … -> newest     the hand takes from the old end
//!   open   [log][ttl class]          where the next item of that class is appended
//!
//! Items of alike remaining life share a segment, so that it dies as a whole.

use crate::base::time::Instant;

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Free,
    /// Buckets of the index or its overflow.
    Index,
    Ghosts,
    Log(Log),
}

/// The two logs: new items in the small one, those that proved themselves in the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Small = 0,
    Main = 1,
}

/// One segment's state. The items themselves are in the arena.
#[derive(Clone, Debug)]
pub struct Segment {
    pub usage: Use,
    /// Bytes written from the front.
    pub written: u32,
    /// Bytes of items that the index still points to.
    pub live_bytes: u32,
    /// Items that the index still points to.
    pub live_items: u32,
    /// What the live items count for (see `Accounting`).
    pub charge: u64,
    /// When the last of its items expires; `NEVER` if one does not.
    pub expires_max: Instant,
    class: u8,
    older: u32,
    newer: u32,
}

pub struct Segments {
    states: Vec<Segment>,
    free: Vec<u32>,
    ends: [Ends; 2],
    open: [[u32; TTL_CLASSES]; 2],
    class_count: usize,
    bytes_shift: u32,
    /// Bytes of items that the index points to, of all logs.
    live_bytes: u64,
}

#[derive(Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
    count: u32,
    charge: u64,
}

impl Segments {
    pub fn new(count: usize, segment_bytes: usize) -> Segments {
        assert!(segment_bytes.is_power_of_two());
        let blank = Segment {
            usage: Use::Free,
            written: 0,
            live_bytes: 0,
            live_items: 0,
            charge: 0,
            expires_max: Instant::from_ms(0),
            class: 0,
            older: NONE,
            newer: NONE,
        };
        Segments {
            states: vec![blank; count],
            free: (0..count as u32).rev().collect(),
            ends: [Ends { oldest: NONE, newest: NONE, count: 0, charge: 0 }; 2],
            open: [[NONE; TTL_CLASSES]; 2],
            // A store of few segments cannot afford one open segment for each class.
            class_count: if count >= SEGMENTS_FOR_TTL_CLASSES { TTL_CLASSES } else { 1 },
            bytes_shift: segment_bytes.trailing_zeros(),
            live_bytes: 0,
        }
    }

    /// Takes a free segment for the index or the ghosts.
    pub fn take(&mut self, usage: Use) -> Option<u32> {
        let id = self.free.pop()?;
        self.states[id as usize].usage = usage;
        Some(id)
    }

    /// Takes a free segment and makes it the open one of `log` and `class`.
    pub fn open(&mut self, log: Log, class: usize) -> Option<u32> {
        let id = self.take(Use::Log(log))?;
        let newest = self.ends[log as usize].newest;
        let state = &mut self.states[id as usize];
        state.class = class as u8;
        state.older = newest;
        state.newer = NONE;
        let ends = &mut self.ends[log as usize];
        ends.newest = id;
        ends.count += 1;
        match newest {
            NONE => ends.oldest = id,
            before => self.states[before as usize].newer = id,
        }
        self.open[log as usize][class] = id;
        Some(id)
    }

    /// Takes a segment out of its log, so that nothing more is appended, for [`Segments::release`].
    pub fn unlink(&mut self, id: u32) {
        let Use::Log(log) = self.states[id as usize].usage else { panic!("segment {id} is in no log") };
        let Segment { older, newer, charge, .. } = self.states[id as usize];
        let ends = &mut self.ends[log as usize];
        ends.count -= 1;
        ends.charge -= charge;
        if ends.oldest == id {
            ends.oldest = newer;
        }
        if ends.newest == id {
            ends.newest = older;
        }
        if older != NONE {
            self.states[older as usize].newer = newer;
        }
        if newer != NONE {
            self.states[newer as usize].older = older;
        }
        self.close(id);
        // From here on its charge is its own; the log no longer counts it, nor what lives in it.
        self.states[id as usize].charge = 0;
        self.live_bytes -= u64::from(self.states[id as usize].live_bytes);
        self.states[id as usize].live_bytes = 0;
    }

    /// Makes sure that nothing more is appended to a log's segment.
    pub fn close(&mut self, id: u32) {
        let Use::Log(log) = self.states[id as usize].usage else { panic!("segment {id} is in no log") };
        let open = &mut self.open[log as usize][self.states[id as usize].class as usize];
        if *open == id {
            *open = NONE;
        }
    }

    /// Gives a segment that is in no log back to the free list.
    pub fn release(&mut self, id: u32) {
        let state = &mut self.states[id as usize];
        assert!(state.usage != Use::Free, "segment {id} is released twice");
        *state = Segment {
            usage: Use::Free,
            written: 0,
            live_bytes: 0,
            live_items: 0,
            charge: 0,
            expires_max: Instant::from_ms(0),
            class: 0,
            older: NONE,
            newer: NONE,
        };
        self.free.push(id);
    }

    /// Classes in use.
    pub fn class_count(&self) -> usize {
        self.class_count
    }

    /// The segment that items of `log` and `class` are appended to, if one is open.
    pub fn opened(&self, log: Log, class: usize) -> Option<u32> {
        let id = self.open[log as usize][class];
        (id != NONE).then_some(id)
    }

    /// Whether anything may still be appended to `id`.
    pub fn is_open(&self, id: u32) -> bool {
        match self.states[id as usize].usage {
            Use::Log(log) => self.open[log as usize][self.states[id as usize].class as usize] == id,
            _ => false,
        }
    }

    /// Counts an item appended to `id`.
    pub fn appended(&mut self, id: u32, bytes: usize, charge: u64, expires: Option<Instant>) {
        self.live_bytes += bytes as u64;
        let state = &mut self.states[id as usize];
        state.written += bytes as u32;
        state.live_bytes += bytes as u32;
        state.live_items += 1;
        state.charge += charge;
        state.expires_max = state.expires_max.max(expires.unwrap_or(NEVER));
        if let Use::Log(log) = state.usage {
            self.ends[log as usize].charge += charge;
        }
    }

    /// Counts an item of `id` that the index no longer points to.
    pub fn died(&mut self, id: u32, bytes: usize, charge: u64) {
        self.live_bytes -= bytes as u64;
        let state = &mut self.states[id as usize];
        state.live_bytes -= bytes as u32;
        state.live_items -= 1;
        state.charge -= charge;
        if let Use::Log(log) = state.usage {
            self.ends[log as usize].charge -= charge;
        }
    }

    /// The class of items that live until `expires`.
    pub fn class_of(&self, expires: Option<Instant>, now: Instant) -> usize {
        let Some(expires) = expires else { return 0 };
        let seconds = now.ms_until(expires) / 1000;
        // 1 s, 8 s, 64 s, 9 min, 68 min, 9 h, longer.
        let class = 1 + (63 - (seconds | 1).leading_zeros() as usize) / 3;
        class.clamp(1, TTL_CLASSES - 1).min(self.class_count - 1)
    }

    pub fn raise_expiry(&mut self, id: u32, expires: Instant) {
        let state = &mut self.states[id as usize];
        state.expires_max = state.expires_max.max(expires);
    }

    pub fn get(&self, id: u32) -> &Segment {
        &self.states[id as usize]
    }

    pub fn oldest(&self, log: Log) -> Option<u32> {
        let id = self.ends[log as usize].oldest;
        (id != NONE).then_some(id)
    }

    /// Segments of a log.
    pub fn log_count(&self, log: Log) -> u32 {
        self.ends[log as usize].count
    }

    /// What the live items of a log count for.
    pub fn log_charge(&self, log: Log) -> u64 {
        self.ends[log as usize].charge
    }

    /// Bytes of live items, their headers included.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    pub fn count(&self) -> usize {
        self.states.len()
    }

    pub fn segment_bytes(&self) -> usize {
        1 << self.bytes_shift
    }

    /// The segment that byte address `location` is in.
    #[inline]
    pub fn of(&self, location: usize) -> u32 {
        (location >> self.bytes_shift) as u32
    }

    /// Byte address of a segment's first byte.
    #[inline]
    pub fn start(&self, id: u32) -> usize {
        (id as usize) << self.bytes_shift
    }
}

/// An expiry that does not come.
pub const NEVER: Instant = Instant::from_ms(u64::MAX);
/// One class for items that do not expire, the others for remaining lives a factor of eight apart.
const TTL_CLASSES: usize = 8;
/// Below this many segments all items share one class.
const SEGMENTS_FOR_TTL_CLASSES: usize = 64;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_order_its_segments_were_opened_in() {
        let mut segments = Segments::new(8, 64);
        let ids: Vec<u32> = (0..4).map(|_| segments.open(Log::Main, 0).unwrap()).collect();
        segments.unlink(ids[1]);
        segments.release(ids[1]);
        assert_eq!(segments.oldest(Log::Main), Some(ids[0]));
        segments.unlink(ids[0]);
        assert_eq!(segments.oldest(Log::Main), Some(ids[2]));
        segments.unlink(ids[2]);
        segments.unlink(ids[3]);
        assert_eq!((segments.oldest(Log::Main), segments.log_count(Log::Main)), (None, 0));
        assert_eq!(segments.opened(Log::Main, 0), None);
    }

    #[test]
    fn lives_a_factor_of_eight_apart_get_their_own_class() {
        let segments = Segments::new(128, 64);
        let now = Instant::from_ms(5);
        let class = |seconds: u64| segments.class_of(Some(now.after_ms(seconds * 1000)), now);
        assert_eq!(segments.class_of(None, now), 0);
        assert_eq!([1, 7, 8, 63, 64, 511, 512].map(class), [1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(class(1 << 40), TTL_CLASSES - 1);
    }
}

//! Recounts everything a store believes and compares. Slow on purpose: for tests, fuzzing and the
//! simulator, after as many operations as they can afford.

use std::collections::HashMap;
use std::ops::DerefMut;

use crate::base::hash::KeyHash;
use crate::base::time::Instant;
use crate::cache::item::Item;
use crate::cache::segments::{Log, Use};
use crate::cache::store::Store;

#[derive(Default)]
struct Recount {
    bytes: u32,
    items: u32,
    charge: u64,
    expires_max: Option<Instant>,
}

impl<M: DerefMut<Target = [u8]>> Store<M> {
    /// Says what is wrong, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let memory: &[u8] = &self.memory;
        let mut recounts: HashMap<u32, Recount> = HashMap::new();
        let mut keys: HashMap<&[u8], usize> = HashMap::new();
        let mut wrong: Option<String> = None;
        let (mut entries, mut payload) = (0u64, 0u64);
        self.index.for_each(memory, |home, slot| {
            let location = slot.location();
            let item = Item::read(memory, location);
            let hash: KeyHash = self.seed.hash(item.key);
            let segment = self.segments.of(location);
            let state = self.segments.get(segment);
            let end = location - self.segments.start(segment) + item.bytes();
            let complaint = if self.index.home(hash) != home {
                Some("is in a bucket its key does not hash to")
            } else if slot.tag() != hash.tag() {
                Some("has another key's tag")
            } else if !matches!(state.usage, Use::Log(_)) {
                Some("is in a segment that is in no log")
            } else if end > state.written as usize {
                Some("reaches past what its segment has written")
            } else if keys.insert(item.key, location).is_some() {
                Some("is stored under a key that is there twice")
            } else {
                None
            };
            if let Some(complaint) = complaint {
                wrong.get_or_insert(format!("the item at {location} {complaint}"));
            }
            let recount = recounts.entry(segment).or_default();
            recount.bytes += item.bytes() as u32;
            recount.items += 1;
            recount.charge += self.charge_of(&item);
            recount.expires_max = recount.expires_max.max(Some(item.expires.unwrap_or(crate::cache::segments::NEVER)));
            entries += 1;
            payload += (item.key.len() + item.value.len()) as u64;
        });
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        equal("entries", self.index.entries(), entries)?;
        equal("payload bytes", self.counts.payload_bytes, payload)?;

        let (mut free, mut logs, mut charges, mut live) = (0usize, [0u32; 2], [0u64; 2], 0u64);
        let mut pages = 0;
        for id in 0..self.segments.count() as u32 {
            let state = self.segments.get(id);
            match state.usage {
                Use::Free => free += 1,
                Use::Index | Use::Ghosts => pages += 1,
                Use::Log(log) => {
                    let recount = recounts.remove(&id).unwrap_or_default();
                    equal(&format!("live bytes of segment {id}"), state.live_bytes, recount.bytes)?;
                    equal(&format!("live items of segment {id}"), state.live_items, recount.items)?;
                    equal(&format!("charge of segment {id}"), state.charge, recount.charge)?;
                    if recount.expires_max > Some(state.expires_max) {
                        return Err(format!("segment {id} would be swept before its last item expires"));
                    }
                    let is_walked = self.hand.iter().chain(&self.sweep).any(|walk| walk.segment == id);
                    if recount.items == 0 && !self.segments.is_open(id) && !is_walked {
                        return Err(format!("segment {id} is empty, closed and not free"));
                    }
                    logs[log as usize] += 1;
                    charges[log as usize] += state.charge;
                    live += u64::from(state.live_bytes);
                }
            }
        }
        equal("live bytes", self.segments.live_bytes(), live)?;
        equal("free segments", self.segments.free_count(), free)?;
        equal("pages", self.index.page_count() + self.ghosts.page_count(), pages)?;
        for log in [Log::Small, Log::Main] {
            equal("segments of a log", self.segments.log_count(log), logs[log as usize])?;
            equal("charge of a log", self.segments.log_charge(log), charges[log as usize])?;
        }
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, believed: T, counted: T) -> Result<(), String> {
    if believed == counted { Ok(()) } else { Err(format!("{what}: believed {believed:?}, counted {counted:?}")) }
}

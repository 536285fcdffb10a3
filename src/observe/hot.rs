//! Which keys are read most, from samples.
//!
//! A shard looks at one read a millisecond, which costs its requests nothing that could be measured, and counts what it
//! sees in a Space-Saving sketch (1): as many counters as there is room for, and when a key comes that has none, it takes
//! over the smallest with all it counts. A key that makes up more than one part in 128 (as many as there are counters) of the reads has one for
//! sure; what a counter may have inherited is its error. Counts are halved now and then, so that the sketch tells of the
//! last half minute rather than of the whole past.
//!
//! (1) Metwally, Agrawal & El Abbadi, "Efficient computation of frequent and top-k elements in data streams", ICDT 2005

use std::sync::Mutex;

/// A shard's sketch.
#[derive(Debug, Default)]
pub struct HotKeys {
    counters: Vec<HotKey>,
    samples: u64,
}

/// A key and how often it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotKey {
    /// Its hash.
    pub hash: u64,
    /// Samples, at most.
    pub count: u64,
    /// How many of them may have been other keys'.
    pub error: u64,
    /// The key, or its beginning.
    pub key: Box<[u8]>,
}

/// Where readers find a shard's sketch: its keys, most read first, and how many samples they are of.
#[derive(Default)]
pub struct PublishedHotKeys(Mutex<(Vec<HotKey>, u64)>);

impl HotKeys {
    /// Counts a read that was looked at.
    pub fn note(&mut self, hash: u64, key: &[u8]) {
        self.samples += 1;
        if self.samples >= SAMPLES_MAX {
            self.samples /= 2;
            self.counters.iter_mut().for_each(|counter| {
                counter.count /= 2;
                counter.error /= 2;
            });
            self.counters.retain(|counter| counter.count > 0);
        }
        if let Some(known) = self.counters.iter_mut().find(|counter| counter.hash == hash) {
            known.count += 1;
            return;
        }
        let key = key[..key.len().min(KEY_BYTES_SHOWN)].into();
        if self.counters.len() < COUNTERS {
            self.counters.push(HotKey { hash, count: 1, error: 0, key });
        } else if let Some(least) = self.counters.iter_mut().min_by_key(|counter| counter.count) {
            *least = HotKey { hash, count: least.count + 1, error: least.count, key };
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = HotKeys::default();
    }

    /// Leaves a copy for readers, unless one is reading at this moment.
    pub fn publish(&self, to: &PublishedHotKeys) {
        if let Ok(mut published) = to.0.try_lock() {
            let mut most: Vec<&HotKey> = self.counters.iter().collect();
            most.sort_unstable_by_key(|counter| std::cmp::Reverse(counter.count));
            most.truncate(KEYS_PUBLISHED);
            published.0 = most.into_iter().cloned().collect();
            published.1 = self.samples;
        }
    }
}

impl PublishedHotKeys {
    /// The keys most read, with the number of samples they are of.
    pub fn read(&self) -> (Vec<HotKey>, u64) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// Counters of a sketch.
const COUNTERS: usize = 128;
/// Keys of a shard that readers are given.
const KEYS_PUBLISHED: usize = 16;
/// Samples at which all counts are halved: half a minute's, at one a millisecond.
const SAMPLES_MAX: u64 = 32_768;
/// Bytes of a key that are kept, for those who may see them.
const KEY_BYTES_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn heavy_keys_are_found_among_many_light_ones() {
        let (mut sketch, mut prng) = (HotKeys::default(), Prng::new(3));
        for _ in 0..20_000 {
            // Two keys in five reads are key 1 and key 2, the rest any of ten thousand.
            let key = match prng.below(10) {
                0..3 => 1,
                3 => 2,
                _ => 10 + prng.below(10_000),
            };
            sketch.note(key, &key.to_le_bytes());
        }
        let published = PublishedHotKeys::default();
        sketch.publish(&published);
        let (keys, samples) = published.read();
        assert_eq!((keys[0].hash, keys[1].hash, samples), (1, 2, 20_000));
        for (found, share) in keys.iter().zip([0.3, 0.1]) {
            let least = (found.count - found.error) as f64 / samples as f64;
            let most = found.count as f64 / samples as f64;
            assert!(least <= share + 0.02 && most >= share - 0.02, "{least} {share} {most}");
        }
        assert_eq!(&keys[0].key[..], 1u64.to_le_bytes());
    }

    #[test]
    fn what_was_hot_is_forgotten_when_it_is_no_longer_read() {
        let mut sketch = HotKeys::default();
        (0..SAMPLES_MAX).for_each(|_| sketch.note(1, b"old"));
        (0..2 * SAMPLES_MAX).for_each(|_| sketch.note(2, b"new"));
        let published = PublishedHotKeys::default();
        sketch.publish(&published);
        let (keys, samples) = published.read();
        assert!(keys[0].hash == 2 && samples < SAMPLES_MAX && keys.len() <= KEYS_PUBLISHED);
        let old = keys.iter().find(|key| key.hash == 1).map_or(0, |key| key.count);
        assert!(old * 4 < keys[0].count, "{keys:?}");
    }

    #[test]
    fn a_long_key_is_kept_in_part() {
        let mut sketch = HotKeys::default();
        sketch.note(1, &[b'k'; 1_000]);
        assert_eq!(sketch.counters[0].key.len(), KEY_BYTES_SHOWN);
    }
}

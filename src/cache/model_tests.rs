//! The store against a plain `HashMap` under random operations in an arena so small that
//! everything happens all the time: evictions, expiry, overwrites, growth of the index, wrap-around.
//!
//! The model cannot know what was evicted, so a miss is allowed where it has an entry; anything
//! else (a value it does not have, an expired one, a version or number that differs, a refusal
//! without reason) is not. A key that vanishes must be accounted for: the store's own count of
//! evictions bounds how many the model may lose.

use std::collections::HashMap;

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::prng::Prng;
use crate::base::time::Instant;
use crate::cache::{Accounting, Condition, Config, Put, Refused, Store};

struct Entry {
    value: Vec<u8>,
    expires: Option<Instant>,
    version: Option<u64>,
    flags: u32,
    marks: u8,
}

struct Run {
    store: Store<Vec<u8>>,
    model: HashMap<Vec<u8>, Entry>,
    prng: Prng,
    now: Instant,
    lost: u64,
}

const SEED: HashSeed = HashSeed(42);

impl Run {
    fn new(seed: u64, segment_bytes: usize, segments: usize) -> Run {
        let config = Config { segment_bytes, seed: SEED, accounting: Accounting::Memory };
        Run {
            store: Store::new(vec![0; segment_bytes * segments], config),
            model: HashMap::new(),
            prng: Prng::new(seed),
            now: Instant::from_ms(1000),
            lost: 0,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        // A skewed choice of 600 keys, so that some live long and most do not.
        let number = self.prng.below(600).min(self.prng.below(600));
        let length = if number.is_multiple_of(97) { 200 } else { 3 + number as usize % 20 };
        let mut key = vec![b'k'; length];
        key[..2].copy_from_slice(&(number as u16).to_le_bytes());
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.prng.below(20) {
            0 => self.prng.below(700),
            1 => 0,
            _ => self.prng.below(90),
        };
        let byte = self.prng.next_u64() as u8;
        vec![byte; length as usize]
    }

    fn marks(&mut self) -> u8 {
        if self.prng.below(8) == 0 { self.prng.below(4) as u8 } else { 0 }
    }

    fn expires(&mut self) -> Option<Instant> {
        match self.prng.below(4) {
            0 => Some(self.now.after_ms(1 + self.prng.below(300))),
            1 => Some(self.now.after_ms(1 + self.prng.below(100_000))),
            _ => None,
        }
    }

    /// What the model holds now; expired entries leave it here.
    fn modelled(&mut self, key: &[u8]) -> Option<&mut Entry> {
        if self.model.get(key).is_some_and(|entry| entry.expires.is_some_and(|at| at <= self.now)) {
            self.model.remove(key);
        }
        self.model.get_mut(key)
    }

    /// The store says that `key` is not there: if the model disagrees it was evicted.
    fn absent(&mut self, key: &[u8]) {
        if self.modelled(key).is_some() {
            self.model.remove(key);
            self.lost += 1;
        }
    }

    fn step(&mut self) {
        let key = self.key();
        let hash = SEED.hash(&key);
        let now = self.now;
        match self.prng.below(100) {
            0..40 => self.get(&key, false),
            40..44 => self.get(&key, true),
            44..75 => {
                let (value, expires, versioned) = (self.value(), self.expires(), self.prng.below(4) == 0);
                let flags = if self.prng.below(8) == 0 { self.prng.next_u64() as u32 } else { 0 };
                let marks = self.marks();
                let put = Put { value: &value, expires, client_flags: flags, versioned, marks, ..Put::default() };
                let version = self.store.set(hash, &key, put, now).expect("nothing refuses an unconditional set");
                assert_eq!(version.is_some(), versioned);
                self.model.insert(key, Entry { value, expires, version, flags, marks });
            }
            75..83 => self.conditional(&key),
            83..88 => {
                let was = self.store.delete(hash, &key, now);
                let modelled = self.modelled(&key).is_some();
                assert!(modelled || !was, "deleted what was never there");
                self.lost += u64::from(modelled && !was);
                self.model.remove(&key);
            }
            88..92 => self.increment(&key),
            92..94 => {
                let expires = self.expires();
                if self.store.touch(hash, &key, expires, now) {
                    let entry = self.modelled(&key).expect("touched what was never there");
                    entry.expires = expires;
                } else {
                    self.absent(&key);
                }
            }
            94..96 => {
                let marks = self.marks();
                if self.store.mark(hash, &key, marks, now) {
                    self.modelled(&key).expect("marked what was never there").marks = marks;
                } else {
                    self.absent(&key);
                }
            }
            96..99 => self.now = now.after_ms(self.prng.below(20)),
            _ => {
                self.store.expire(now, 4, 10);
                if self.prng.below(2000) == 0 {
                    self.store.flush();
                    self.model.clear();
                }
            }
        }
    }

    fn get(&mut self, key: &[u8], versioned: bool) {
        let (hash, now) = (SEED.hash(key), self.now);
        let found = match versioned {
            true => self.store.get_versioned(hash, key, now),
            false => self.store.get(hash, key, now),
        };
        let Some(item) = found else { return self.absent(key) };
        let (value, expires, version, flags) = (item.value.to_vec(), item.expires, item.version, item.client_flags);
        let marks = item.marks;
        assert!(!versioned || version.is_some() || value.len() > 600, "asked for a version and got none");
        let entry = self.modelled(key).expect("served what is not stored or has expired");
        assert_eq!((&value, expires, flags, marks), (&entry.value, entry.expires, entry.flags, entry.marks));
        if entry.version.is_some() {
            assert_eq!(version, entry.version, "the version changed without a write");
        }
        entry.version = version;
    }

    fn conditional(&mut self, key: &[u8]) {
        let (hash, now, value, expires) = (SEED.hash(key), self.now, self.value(), self.expires());
        let known = self.modelled(key).map(|entry| entry.version);
        let condition = match self.prng.below(4) {
            0 => Condition::Absent,
            1 => Condition::Present,
            2 => Condition::Version(known.flatten().unwrap_or(u64::MAX)),
            _ => Condition::Version(self.prng.below(50)),
        };
        let marks = self.marks();
        let put = Put { value: &value, expires, condition, versioned: true, marks, ..Put::default() };
        match self.store.set(hash, key, put, now) {
            Ok(version) => {
                match condition {
                    Condition::Absent => self.absent(key),
                    Condition::Present => assert!(known.is_some(), "replaced what is not there"),
                    Condition::Version(wanted) => {
                        assert!(known.is_some(), "compared with what is not there");
                        // A version the model has not been told may be the item's own.
                        assert!(known.flatten().is_none_or(|version| version == wanted), "compared equal to another");
                    }
                    Condition::Always => {}
                }
                self.model.insert(key.to_vec(), Entry { value, expires, version, flags: 0, marks });
            }
            Err(Refused::Exists) => assert!(condition == Condition::Absent && known.is_some()),
            Err(Refused::NotFound) => {
                assert!(condition != Condition::Absent);
                self.absent(key);
            }
            Err(Refused::VersionDiffers) => {
                let Condition::Version(wanted) = condition else { panic!("no version was given") };
                assert!(known.is_some(), "compared with what is not there");
                assert!(known.flatten() != Some(wanted), "the version is the one that was told");
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn increment(&mut self, key: &[u8]) {
        let (hash, now, expires) = (SEED.hash(key), self.now, self.expires());
        let delta = self.prng.below(1000) as i64 - 300;
        let initial = (self.prng.below(2) == 0).then_some(7);
        let number = self.modelled(key).map(|entry| {
            let number = std::str::from_utf8(&entry.value).ok()?.parse::<i64>().ok()?;
            // Only as it is written here: no `+`, no zeros in front.
            (number.to_string().as_bytes() == entry.value).then_some(number)
        });
        match self.store.increment(hash, key, delta, initial, expires, false, now) {
            Ok((result, _)) => {
                let was_there = match number {
                    // Evicted meanwhile and begun anew looks the same as starting at `initial`.
                    Some(Some(number)) if result == number + delta => true,
                    Some(_) if initial == Some(result) => {
                        self.absent(key);
                        false
                    }
                    Some(_) => panic!("counted {result}, the model says {number:?} + {delta}"),
                    None => {
                        assert_eq!(Some(result), initial);
                        false
                    }
                };
                let (kept_expiry, flags) =
                    self.model.get(key).map_or((expires, 0), |entry| (entry.expires, entry.flags));
                let expires = if was_there { kept_expiry } else { expires };
                let value = result.to_string().into_bytes();
                let entry = Entry { value, expires, version: None, flags, marks: 0 };
                self.model.insert(key.to_vec(), entry);
            }
            Err(Refused::NotANumber) => assert_eq!(number, Some(None)),
            Err(Refused::NotFound) => self.absent(key),
            Err(Refused::Overflow) => assert!(number.flatten().unwrap().checked_add(delta).is_none()),
            Err(other) => panic!("{other}"),
        }
    }
}

fn run(seed: u64, segment_bytes: usize, segments: usize, operations: u64) {
    let mut run = Run::new(seed, segment_bytes, segments);
    for operation in 0..operations {
        run.step();
        if operation % 1000 == 0 {
            run.store.check().unwrap_or_else(|wrong| panic!("seed {seed}, operation {operation}: {wrong}"));
        }
    }
    let stats = run.store.stats();
    assert!(run.lost <= stats.evicted, "{} keys vanished, {} were evicted", run.lost, stats.evicted);
    if !cfg!(miri) {
        assert!(stats.evicted > operations / 1000, "the arena is too large for this test: {stats:?}");
        assert!(stats.expired > operations / 1000, "nothing expired: {stats:?}");
        assert!(run.lost > 0, "no eviction was ever noticed: {stats:?}");
    }
}

const OPERATIONS: u64 = if cfg!(miri) { 300 } else { 1_000_000 };

#[test]
fn the_store_agrees_with_a_map_in_16_small_segments() {
    run(1, 1024, 16, OPERATIONS);
}

#[test]
fn the_store_agrees_with_a_map_in_the_fewest_segments() {
    run(2, 1024, limits::SEGMENT_COUNT_MIN, OPERATIONS);
}

#[test]
fn the_store_agrees_with_a_map_with_ttl_classes() {
    run(3, 1024, 80, OPERATIONS / 2);
    run(4, 2048, 24, OPERATIONS / 2);
}

#[test]
fn an_item_larger_than_a_segment_is_refused_and_nothing_is_lost() {
    let mut run = Run::new(5, 1024, 16);
    let hash = SEED.hash(b"key");
    run.store.set(hash, b"key", Put { value: b"kept", ..Put::default() }, run.now).unwrap();
    let large = vec![0; 1024];
    let refused = run.store.set(hash, b"key", Put { value: &large, ..Put::default() }, run.now);
    assert!(matches!(refused, Err(Refused::TooLarge { bytes_max: 1024, .. })), "{refused:?}");
    assert_eq!(run.store.get(hash, b"key", run.now).unwrap().value, b"kept");
}

#[test]
fn an_expired_item_is_not_served_and_its_segment_is_swept() {
    let mut run = Run::new(6, 1024, 80);
    for i in 0..200u32 {
        let key = i.to_le_bytes();
        let put = Put { value: &[0; 40], expires: Some(run.now.after_ms(50)), ..Put::default() };
        run.store.set(SEED.hash(&key), &key, put, run.now).unwrap();
    }
    let used = run.store.stats().used_bytes;
    let later = run.now.after_ms(50);
    run.store.expire(later, 80, 1000);
    let stats = run.store.stats();
    assert_eq!((stats.entries, stats.expired), (0, 200));
    assert!(stats.used_bytes + 8 * 1024 < used, "the segments of the dead are still in use: {stats:?}");
    run.store.check().unwrap();
}

#[test]
fn a_store_of_the_smallest_items_gives_the_index_room() {
    let mut run = Run::new(7, 4096, 64);
    for i in 0..if cfg!(miri) { 300 } else { 50_000u32 } {
        let key = &i.to_le_bytes()[..3];
        run.store.set(SEED.hash(key), key, Put::default(), run.now).unwrap();
    }
    run.store.check().unwrap();
    let stats = run.store.stats();
    assert!(cfg!(miri) || stats.entries > 4096 * 64 / 40, "{stats:?}");
}

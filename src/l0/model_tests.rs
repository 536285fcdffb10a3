//! Publisher and reader against a plain map: whatever was written last is what is read, or nothing.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::prng::Prng;
use crate::l0::publisher::{Entry, Publisher};
use crate::l0::reader::bytes_of;
use crate::l0::table::{Region, Shape};

const SEED: HashSeed = HashSeed(5);
const OPERATIONS: u64 = if cfg!(miri) { 600 } else { 300_000 };

struct Model {
    publisher: Publisher<'static, AtomicU64>,
    stored: HashMap<Vec<u8>, (Vec<u8>, u64)>,
    now_ms: u64,
}

fn region(bytes: usize) -> Region<'static, AtomicU64> {
    let shape = Shape::for_bytes(bytes);
    let words = Vec::leak((0..shape.words()).map(|_| AtomicU64::new(0)).collect());
    Region::new(words, shape)
}

fn key(prng: &mut Prng) -> Vec<u8> {
    let number = prng.next_u64() % 60;
    let length = [1, 3, 7, 8, 9, 16, 31, 64, 65][number as usize % 9];
    (0..length).map(|at| (number as u8).wrapping_add((at as u8).wrapping_mul(17))).collect()
}

impl Model {
    fn new(bytes: usize) -> Model {
        Model { publisher: Publisher::new(region(bytes)), stored: HashMap::new(), now_ms: 1000 }
    }

    fn step(&mut self, prng: &mut Prng) {
        let key = key(prng);
        let hash = SEED.hash(&key);
        match prng.next_u64() % 100 {
            0..40 => {
                let mut out = [0; limits::L0_SPILL_WORDS];
                let now = self.now_ms;
                let found = self.publisher.region().read(hash, &key, &mut out, |at| at <= now);
                if let Some(found) = found {
                    let (value, expires) = self.stored.get(&key).expect("a key that is not stored was found");
                    assert_eq!(bytes_of(&out, found.value_bytes), value);
                    assert!(*expires == 0 || *expires > now, "an expired entry was found");
                    let read = std::cell::Cell::new(false);
                    self.publisher.check(found.slot, |at| {
                        read.set(at == key);
                        true
                    });
                    assert!(read.get(), "the slot named is the key's");
                }
            }
            40..60 => {
                let length = [0, 1, 8, 100, 150, 500, 1024, 1025][prng.next_u64() as usize % 8];
                let value: Vec<u8> = (0..length).map(|_| prng.next_u64() as u8).collect();
                let expires = if prng.next_u64().is_multiple_of(4) { self.now_ms + prng.next_u64() % 50 } else { 0 };
                self.publisher.written(&Entry { key: &key, hash, value: &value, expires_ms: expires });
                self.stored.insert(key, (value, expires));
            }
            60..80 => {
                if let Some((value, expires)) = self.stored.get(&key) {
                    let entry = Entry { key: &key, hash, value, expires_ms: *expires };
                    let before = self.publisher.published();
                    let is_published = self.publisher.publish(&entry, |key| key[0] as f32);
                    assert!(!is_published || self.publisher.has(hash, &key));
                    assert!(self.publisher.published() >= before, "one gives way to one");
                }
            }
            80..92 => {
                self.publisher.removed(hash, &key);
                self.stored.remove(&key);
            }
            92..96 => {
                if let Some((_, expires)) = self.stored.get_mut(&key) {
                    *expires = self.now_ms + prng.next_u64() % 50;
                    self.publisher.touched(hash, &key, *expires);
                }
            }
            96 => self.publisher.check(prng.next_u64() as u32 % 64, |_| false),
            97 => self.now_ms += 10,
            98 => self.publisher.sweep(5),
            _ => {
                self.publisher.flushed();
                self.stored.clear();
            }
        }
    }
}

#[test]
fn what_is_read_is_what_was_written_last() {
    for (seed, bytes) in [(1, 4 << 10), (2, 8 << 10), (3, 40 << 10)] {
        let (mut model, mut prng) = (Model::new(bytes), Prng::new(seed));
        let mut most = 0;
        for step in 0..OPERATIONS {
            model.step(&mut prng);
            most = most.max(model.publisher.published());
            if step.is_multiple_of(if cfg!(miri) { 100 } else { 10 }) {
                model.publisher.verify(|key| SEED.hash(key));
            }
        }
        assert!(most > if cfg!(miri) { 1 } else { 5 }, "hardly anything was ever published: {most}");
    }
}

#[test]
fn the_hotter_entry_stays_where_only_one_can() {
    let mut publisher = Publisher::new(region(4 << 10));
    let hotness = |key: &[u8]| key[0] as f32;
    for number in 0..=200u8 {
        let key = [number];
        publisher.publish(&Entry { key: &key, hash: SEED.hash(&key), value: b"v", expires_ms: 0 }, hotness);
    }
    publisher.verify(|key| SEED.hash(key));
    let places = publisher.region().shape().slot_count() as u64;
    assert!(publisher.published() + 3 >= places, "{} of {places}", publisher.published());
    let cold = (0..50u8).filter(|&number| publisher.has(SEED.hash(&[number]), &[number])).count();
    assert_eq!(cold, 0, "cold entries stayed while hotter ones came");
}

#[test]
fn epochs_that_come_around_bring_nothing_back() {
    let mut publisher = Publisher::new(region(4 << 10));
    let hash = SEED.hash(b"key");
    publisher.publish(&Entry { key: b"key", hash, value: b"old", expires_ms: 0 }, |_| 1.0);
    for _ in 0..u16::MAX as u32 + 3 {
        publisher.flushed();
        assert_eq!(publisher.region().read(hash, b"key", &mut [0; limits::L0_SPILL_WORDS], |_| false), None);
        if cfg!(miri) {
            break;
        }
    }
    publisher.verify(|key| SEED.hash(key));
}

#[test]
fn a_cleared_slot_is_not_found_under_the_empty_key() {
    let mut model = Model::new(100_000);
    let (hash, mut out) = (SEED.hash(b""), [0; limits::L0_SPILL_WORDS]);
    let entry = Entry { key: b"key", hash, value: b"value", expires_ms: 0 };
    assert!(model.publisher.publish(&entry, |_| 0.0));
    model.publisher.removed(hash, b"key");
    assert_eq!(model.publisher.region().read(hash, b"", &mut out, |_| false), None);
}

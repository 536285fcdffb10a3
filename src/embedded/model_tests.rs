//! The cache against a plain map, by one thread: what is read is what was written last, or nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::limits;
use crate::base::prng::Prng;
use crate::embedded::{Builder, Cache, InsertError, LoadError, Value};
use crate::l0::clock;

const OPERATIONS: u64 = if cfg!(miri) { 200 } else { 200_000 };
/// Room for one stripe, and for a hundred segments of a few kibibytes.
const SMALL_BYTES: usize = 2 << 20;

fn small() -> Builder {
    Cache::builder().capacity_bytes(SMALL_BYTES).stripes(1)
}

/// The moments, ms, between which an entry expires if it does; the cache has read one of them.
type Expiry = Option<(u64, u64)>;

struct Model {
    cache: Cache,
    stored: HashMap<Vec<u8>, (Vec<u8>, Expiry)>,
    /// Whether what is stored may be gone.
    evicts: bool,
    found: u64,
}

fn key(prng: &mut Prng, keys: u64) -> Vec<u8> {
    let number = prng.below(keys);
    let length = [2, 8, 9, 16, 31, 64, 65, 200][number as usize % 8];
    let mut key = vec![number as u8; length];
    key[1] = (number >> 8) as u8;
    key
}

fn value(prng: &mut Prng) -> Vec<u8> {
    let length = [0, 1, 8, 100, 150, 161, 500, 1024, 1025, 3000][prng.below(10) as usize];
    (0..length).map(|_| prng.next_u64() as u8).collect()
}

impl Model {
    fn new(cache: Cache, evicts: bool) -> Model {
        Model { cache, stored: HashMap::new(), evicts, found: 0 }
    }

    fn judge(&mut self, key: &[u8], before_ms: u64, found: Option<&[u8]>) {
        let after_ms = clock::now_ms();
        match (self.stored.get(key), found) {
            (None, None) => {}
            (None, Some(_)) => panic!("a key that is not stored was found"),
            (Some((value, expires)), Some(found)) => {
                assert_eq!(value, found);
                assert!(expires.is_none_or(|(_, latest)| before_ms < latest), "an expired entry was found");
                self.found += 1;
            }
            (Some((_, expires)), None) => {
                let may_be_over = expires.is_some_and(|(earliest, _)| after_ms >= earliest);
                assert!(self.evicts || may_be_over, "a stored key was not found");
            }
        }
    }

    fn step(&mut self, prng: &mut Prng, keys: u64) {
        let key = key(prng, keys);
        let before_ms = clock::now_ms();
        match prng.below(1000) {
            0..450 => {
                let found = self.cache.get(&key);
                self.judge(&key, before_ms, found.as_deref());
            }
            450..600 => {
                let found = self.cache.get_with(&key, <[u8]>::to_vec);
                self.judge(&key, before_ms, found.as_deref());
            }
            600..750 => {
                let value = value(prng);
                self.cache.insert(&key, &value).unwrap();
                self.stored.insert(key, (value, None));
            }
            750..800 => {
                let (value, ttl_ms) = (value(prng), prng.below(30));
                self.cache.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)).unwrap();
                self.stored.insert(key, (value, Some((before_ms + ttl_ms, clock::now_ms() + ttl_ms))));
            }
            800..900 => {
                let loaded = value(prng);
                let mut has_loaded = false;
                let load = || {
                    has_loaded = true;
                    loaded.clone()
                };
                let answered = self.cache.get_or_insert_with(&key, load);
                if has_loaded {
                    assert_eq!(answered, loaded);
                    self.judge(&key, before_ms, None);
                    self.stored.insert(key, (loaded, None));
                } else {
                    self.judge(&key, before_ms, Some(&answered));
                }
            }
            900..999 => {
                let contains = self.cache.contains_key(&key);
                let removed = self.cache.remove(&key);
                let (is_stored, expires) = match self.stored.get(&key) {
                    Some((_, expires)) => (true, *expires),
                    None => (false, None),
                };
                if !self.evicts && expires.is_none() {
                    assert_eq!((contains, removed), (is_stored, is_stored));
                }
                assert!(is_stored || !(contains || removed));
                self.stored.remove(&key);
            }
            // Rarely enough for the cache to be full in between.
            _ if self.evicts && prng.below(20) > 0 => {}
            _ => {
                self.cache.clear();
                self.stored.clear();
            }
        }
    }
}

fn run(cache: Cache, evicts: bool, keys: u64, seed: u64) {
    let (mut model, mut prng) = (Model::new(cache, evicts), Prng::new(seed));
    for step in 0..OPERATIONS {
        model.step(&mut prng, keys);
        if step.is_multiple_of(OPERATIONS / 20) {
            model.cache.verify();
        }
    }
    model.cache.verify();
    assert!(cfg!(miri) || model.found > OPERATIONS / 20, "hardly anything was ever found: {}", model.found);
    let metrics = model.cache.metrics();
    assert!(cfg!(miri) || metrics.l0_hits > 0 && metrics.published > 0, "{metrics:?}");
    assert_eq!(metrics.evicted > 0, evicts && !cfg!(miri), "{metrics:?}");
}

#[test]
fn what_is_read_is_what_was_written_last() {
    run(small().build().unwrap(), false, 60, 1);
    run(Cache::builder().capacity_bytes(4 << 20).stripes(2).build().unwrap(), false, 200, 2);
}

#[test]
fn under_eviction_what_is_read_is_what_was_written_last_or_nothing() {
    run(small().build().unwrap(), true, 4000, 3);
}

#[test]
#[cfg_attr(miri, ignore = "takes many inserts")]
fn the_capacity_bounds_what_is_stored() {
    let cache = small().build().unwrap();
    let entries = 100_000u32;
    for number in 0..entries {
        cache.insert(&number.to_le_bytes(), &[1; 100]).unwrap();
    }
    let metrics = cache.metrics();
    assert!(metrics.payload_bytes < SMALL_BYTES as u64 && metrics.inserts == u64::from(entries));
    assert!(metrics.evicted > 50_000 && metrics.entries > 5_000, "{metrics:?}");
    assert_eq!(metrics.entries, cache.len());
    cache.verify();
}

#[test]
fn a_refused_insert_changes_nothing() {
    let cache = small().entry_bytes_max(10_000).build().unwrap();
    cache.insert(b"key", b"old").unwrap();
    assert!(matches!(cache.insert(b"key", &[0; 100_000]), Err(InsertError::TooLarge { .. })));
    assert!(matches!(cache.insert(b"key", &vec![0; 5 << 20]), Err(InsertError::TooLarge { .. })));
    assert_eq!(cache.get(b"key").unwrap(), b"old");
    assert_eq!(cache.insert(b"", b"value"), Err(InsertError::KeyLength { bytes: 0 }));
    assert_eq!(cache.insert(&[0; 1025], b"value"), Err(InsertError::KeyLength { bytes: 1025 }));
    cache.insert(&[0; limits::KEY_BYTES_MAX], b"value").unwrap();
    cache.insert(b"long", &[7; 9_980]).unwrap();
    assert_eq!(cache.get(b"long").unwrap(), [7; 9_980]);
    assert_eq!(cache.len(), 3);
}

#[test]
fn keys_that_cannot_be_stored_are_not_found_and_loaded_every_time() {
    let cache = small().build().unwrap();
    cache.insert(b"a", b"1").unwrap();
    cache.get(b"a");
    cache.remove(b"a");
    for key in [&b""[..], &[0; 2000]] {
        assert!(cache.get(key).is_none() && !cache.contains_key(key) && !cache.remove(key));
        for _ in 0..2 {
            assert_eq!(cache.get_or_insert_with(key, || b"loaded".to_vec()), b"loaded");
        }
        assert!(cache.get(key).is_none());
    }
}

#[test]
fn entries_expire_to_the_millisecond_published_or_not() {
    let cache = small().time_to_live(Duration::from_millis(40)).build().unwrap();
    for key in [&b"short"[..], &[1; 100]] {
        let before_ms = clock::now_ms();
        cache.insert(key, b"value").unwrap();
        let after_ms = clock::now_ms();
        loop {
            let asked_ms = clock::now_ms();
            let is_found = cache.get(key).is_some();
            let answered_ms = clock::now_ms();
            assert!(!is_found || asked_ms < after_ms + 40, "served too late");
            assert!(is_found || answered_ms >= before_ms + 40, "served too short");
            if !is_found {
                break;
            }
        }
        assert!(!cache.contains_key(key) && !cache.remove(key));
    }
    cache.insert_with_ttl(b"never", b"value", Duration::ZERO).unwrap();
    assert!(cache.get(b"never").is_none());
    cache.insert_with_ttl(b"always", b"value", Duration::MAX).unwrap();
    assert!(cache.get(b"always").is_some());
}

#[test]
fn expired_entries_are_cleared_away_by_writers() {
    let cache = small().build().unwrap();
    for number in 0..500u32 {
        cache.insert_with_ttl(&number.to_le_bytes(), &[1; 100], Duration::from_millis(5)).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while cache.metrics().expired < 500 {
        assert!(std::time::Instant::now() < deadline, "{:?}", cache.metrics());
        std::thread::sleep(Duration::from_millis(1));
        cache.insert(b"other", b"value").unwrap();
    }
    assert_eq!(cache.len(), 1);
}

#[test]
fn clear_leaves_nothing_and_a_cache_that_works() {
    let cache = small().build().unwrap();
    for round in 0..if cfg!(miri) { 2 } else { 5u8 } {
        for number in 0..100u32 {
            cache.insert(&number.to_le_bytes(), &[round]).unwrap();
            assert_eq!(cache.get(&number.to_le_bytes()).unwrap(), [round]);
        }
        assert!(!cache.is_empty() && cache.metrics().published > 50);
        cache.clear();
        assert!(cache.is_empty() && (0..100u32).all(|number| cache.get(&number.to_le_bytes()).is_none()));
        assert_eq!((cache.metrics().published, cache.metrics().payload_bytes), (0, 0));
        cache.verify();
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes many hits")]
fn a_hot_key_takes_the_place_of_cold_ones() {
    // A region of some 250 slots, and more keys than that.
    let cache = small().l0_bytes(64 << 10).build().unwrap();
    let keys: Vec<[u8; 4]> = (0..1000u32).map(u32::to_le_bytes).collect();
    keys.iter().for_each(|key| cache.insert(key, b"value").unwrap());
    keys.iter().for_each(|key| drop(cache.get(key)));
    let hot = &keys[900..950];
    for _ in 0..200 {
        hot.iter().for_each(|key| drop(cache.get(key)));
    }
    let before = cache.metrics().l0_hits;
    hot.iter().for_each(|key| drop(cache.get(key)));
    let hits = cache.metrics().l0_hits - before;
    assert!(hits >= 45, "{hits} of 50 hot keys are published");
    cache.verify();
}

#[test]
fn a_loader_that_asks_for_its_own_key_is_told() {
    let cache = small().build().unwrap();
    let outer = cache.try_get_or_insert_with(b"key", || {
        let inner = cache.try_get_or_insert_with(b"key", || Ok::<_, ()>(Vec::new()));
        assert_eq!(inner, Err(LoadError::Recursive));
        let other = cache.try_get_or_insert_with(b"other", || Ok::<_, ()>(b"2".to_vec()));
        assert_eq!(other.unwrap(), b"2");
        Ok::<_, ()>(b"1".to_vec())
    });
    assert_eq!(outer.unwrap(), b"1");
    assert!(cache.contains_key(b"key") && cache.contains_key(b"other"));
}

#[test]
fn a_loaded_value_does_not_undo_a_write_made_meanwhile() {
    let cache = small().build().unwrap();
    let answered = cache.get_or_insert_with(b"key", || {
        cache.insert(b"key", b"newer").unwrap();
        b"older".to_vec()
    });
    assert_eq!((answered.to_vec(), cache.get(b"key").unwrap().to_vec()), (b"older".to_vec(), b"newer".to_vec()));
    for invalidate in [|cache: &Cache| assert!(!cache.remove(b"gone")), Cache::clear] {
        cache.get_or_insert_with(b"gone", || {
            invalidate(&cache);
            b"older".to_vec()
        });
        assert!(cache.get(b"gone").is_none());
    }
}

#[test]
fn a_loaded_value_that_is_too_large_is_answered() {
    let cache = small().build().unwrap();
    assert_eq!(cache.get_or_insert_with(b"key", || vec![1; 1 << 20]).len(), 1 << 20);
    assert!(cache.get(b"key").is_none());
}

#[test]
fn values_outlive_the_cache_and_clones_are_one() {
    let cache = small().build().unwrap();
    let clone = cache.clone();
    clone.insert(b"key", &[1; 1000]).unwrap();
    let values: Vec<Value> = (0..3).map(|_| cache.get(b"key").unwrap()).collect();
    assert!(format!("{cache:?}").contains("stripes: 1"));
    drop((cache, clone));
    assert!(values.iter().all(|value| *value == [1; 1000]));
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_dropped_cache_gives_its_memory_back() {
    let mapped_pages = || -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').next().unwrap().parse().unwrap()
    };
    let build = || {
        // Small pages, so that the mapping is as large as it says; other tests build while this one counts.
        let cache = Cache::builder().capacity_bytes(24 << 20).stripes(2).build().unwrap();
        for number in 0..100u32 {
            cache.insert(&number.to_le_bytes(), &[1; 1000]).unwrap();
            cache.get(&number.to_le_bytes());
        }
        let clone = cache.clone();
        std::thread::spawn(move || drop(clone)).join().unwrap();
    };
    build();
    let before = mapped_pages();
    (0..200).for_each(|_| build());
    let grown = mapped_pages().saturating_sub(before) * 4096;
    assert!(grown < 100 * (24 << 20), "{grown} bytes are still mapped");
}

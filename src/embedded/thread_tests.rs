//! The cache under many threads: coherence, one loader a key, waiters of loaders that fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::base::prng::Prng;
use crate::embedded::{Cache, LoadError};

const THREADS: usize = if cfg!(miri) { 4 } else { 16 };
const OPERATIONS: u64 = if cfg!(miri) { 40 } else { 60_000 };

fn small(stripes: usize) -> Cache {
    Cache::builder().capacity_bytes(1 << 20 << stripes.ilog2()).stripes(stripes).build().unwrap()
}

/// A value that says which key and version it is of, in every word.
fn value(key: u64, version: u64) -> Vec<u8> {
    let words = [1, 5, 20, 40, 128, 140][(key ^ version) as usize % 6];
    (0..words).flat_map(|at: u64| (key << 48 ^ version << 8 ^ at).to_le_bytes()).collect()
}

/// The version in a value of `key`, all of whose words agree.
fn version(key: u64, bytes: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
    let version = (word(0) ^ key << 48) >> 8;
    assert_eq!(bytes, value(key, version), "key {key}: a value of two halves");
    version
}

/// Keys with one writer each. `floors` holds the last version whose insert or removal has returned: nobody who
/// begins to read after that may be given an older one.
#[test]
fn nobody_reads_older_than_what_an_insert_has_returned() {
    const KEYS: u64 = 24;
    let cache = small(2);
    let floors: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let (writers, found) = (2u64, AtomicU64::new(0));
    let running = AtomicUsize::new(writers as usize);
    thread::scope(|scope| {
        for writer in 0..writers {
            let (cache, floors, running) = (&cache, &floors, &running);
            scope.spawn(move || {
                let mut prng = Prng::new(writer);
                for version in 1..=OPERATIONS {
                    let key = prng.below(KEYS / writers) * writers + writer;
                    if prng.below(8) == 0 {
                        cache.remove(&key.to_le_bytes());
                    } else {
                        cache.insert(&key.to_le_bytes(), &value(key, version)).unwrap();
                    }
                    floors[key as usize].store(version, Ordering::Release);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for reader in 0..3 {
            let (cache, floors, running, found) = (&cache, &floors, &running, &found);
            scope.spawn(move || {
                let mut prng = Prng::new(100 + reader);
                while running.load(Ordering::Relaxed) > 0 {
                    let key = prng.below(KEYS);
                    let floor = floors[key as usize].load(Ordering::Acquire);
                    let seen = match reader {
                        0 => cache.get_with(&key.to_le_bytes(), |bytes| version(key, bytes)),
                        _ => cache.get(&key.to_le_bytes()).map(|bytes| version(key, &bytes)),
                    };
                    if let Some(seen) = seen {
                        assert!(seen >= floor, "key {key}: version {seen} after {floor} had returned");
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    cache.verify();
    assert!(cfg!(miri) || found.into_inner() > 0, "nothing was ever read");
}

#[test]
fn a_clear_is_seen_by_everybody_when_it_has_returned() {
    let cache = small(2);
    let (cleared, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let floor = cleared.load(Ordering::Acquire);
                    if let Some(seen) = cache.get_with(b"key", |bytes| version(7, bytes)) {
                        assert!(seen > floor, "version {seen} survived the clearing of {floor}");
                    }
                }
            });
        }
        for version in 1..=OPERATIONS / 10 {
            cache.insert(b"key", &value(7, version)).unwrap();
            cache.get(b"key");
            cache.clear();
            cleared.store(version, Ordering::Release);
        }
        stop.store(true, Ordering::Relaxed);
    });
    cache.verify();
}

#[test]
fn many_threads_on_all_operations_leave_a_sound_cache() {
    let cache = small(4);
    thread::scope(|scope| {
        for number in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                let mut prng = Prng::new(number);
                for _ in 0..OPERATIONS / 2 {
                    let keys = if prng.below(2) == 0 { 50 } else { 20_000 };
                    let key = prng.below(keys);
                    let bytes = key.to_le_bytes();
                    match prng.below(20) {
                        0..4 => cache.insert(&bytes, &value(key, 1)).unwrap(),
                        4 => drop(cache.remove(&bytes)),
                        5..8 => drop(version(key, &cache.get_or_insert_with(&bytes, || value(key, 2)))),
                        8 => cache.insert_with_ttl(&bytes, &value(key, 3), Duration::from_millis(1)).unwrap(),
                        _ => drop(cache.get(&bytes).map(|bytes| version(key, &bytes))),
                    }
                }
            });
        }
    });
    cache.verify();
    let metrics = cache.metrics();
    assert!(cfg!(miri) || metrics.hits > metrics.l0_hits && metrics.l0_hits > 0, "{metrics:?}");
}

#[test]
fn one_thread_loads_and_all_get_its_value() {
    let cache = small(1);
    for round in 0..if cfg!(miri) { 2 } else { 50u64 } {
        let (loads, barrier) = (AtomicUsize::new(0), Barrier::new(THREADS));
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (cache, loads, barrier) = (&cache, &loads, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let loaded = cache.get_or_insert_with(&round.to_le_bytes(), || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(2));
                        value(round, 1)
                    });
                    assert_eq!(version(round, &loaded), 1, "thread {number}");
                });
            }
        });
        assert_eq!(loads.into_inner(), 1, "loads in round {round}");
    }
}

#[test]
fn loaders_of_different_keys_run_side_by_side() {
    // One stripe: were the lock held while loading, nobody would pass the barrier.
    let cache = small(1);
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS as u64 {
            let (cache, barrier) = (&cache, &barrier);
            scope.spawn(move || {
                cache.get_or_insert_with(&number.to_le_bytes(), || {
                    barrier.wait();
                    cache.insert(b"other", b"value").unwrap();
                    value(number, 1)
                })
            });
        }
    });
    assert_eq!(cache.len(), THREADS as u64 + 1);
}

#[test]
fn a_loader_that_fails_or_panics_hands_over_to_one_who_waits() {
    for panics in [false, true] {
        let cache = small(1);
        let (tries, at_once, barrier) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(THREADS));
        let failures = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let load = || {
                        assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "two loaders at once");
                        thread::sleep(Duration::from_millis(2));
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        match tries.fetch_add(1, Ordering::SeqCst) {
                            0..3 if panics => std::panic::resume_unwind(Box::new("no value")),
                            0..3 => Err("no value"),
                            _ => Ok(value(1, 1)),
                        }
                    };
                    let loaded = catch_unwind(AssertUnwindSafe(|| cache.try_get_or_insert_with(b"key", load)));
                    match loaded {
                        Ok(Ok(loaded)) => assert_eq!(version(1, &loaded), 1),
                        Ok(Err(LoadError::Failed("no value"))) | Err(_) => {
                            failures.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(Err(error)) => panic!("{error}"),
                    }
                });
            }
        });
        assert_eq!((tries.into_inner(), failures.into_inner()), (4, 3), "with panics: {panics}");
        cache.verify();
    }
}

/// Callers who come after an invalidation load anew, even while an older loader still runs.
#[test]
fn nobody_joins_a_flight_that_was_disowned() {
    let cache = small(1);
    let (began, may_end) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let older = scope.spawn(|| {
            cache.get_or_insert_with(b"key", || {
                began.wait();
                may_end.wait();
                b"older".to_vec()
            })
        });
        began.wait();
        assert!(!cache.remove(b"key"));
        assert_eq!(cache.get_or_insert_with(b"key", || b"newer".to_vec()), b"newer");
        may_end.wait();
        assert_eq!(older.join().unwrap(), b"older");
    });
    assert_eq!(cache.get(b"key").unwrap(), b"newer");
}

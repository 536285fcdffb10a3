//! Many threads at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::base::prng::{Prng, mix};
use crate::embedded::Cache;

const ROUNDS: u64 = if cfg!(miri) { 200 } else { 300_000 };
const KEYS: u64 = 16;

fn cache() -> Cache {
    Cache::builder().capacity_bytes(8 << 20).stripes(2).build().unwrap()
}

/// A value that says which key and version it is, of a length that comes of them.
fn value(key: u64, version: u64) -> Vec<u8> {
    let length = 24 + (mix(key ^ version << 8) % 200) as usize;
    let mut bytes = vec![(key ^ version) as u8; length];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

#[test]
fn no_thread_reads_older_than_what_an_insert_has_returned_for() {
    let cache = cache();
    // Of each key the version begun last and the one that has returned last.
    let begun: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let returned: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (cache, begun, returned) = (&cache, &begun, &returned);
            scope.spawn(move || {
                let mut prng = Prng::new(writer);
                for version in 1..=ROUNDS / 4 {
                    // Each writer has keys of its own, so versions of a key rise.
                    let key = prng.next_u64() % (KEYS / 2) * 2 + writer;
                    begun[key as usize].store(version, Ordering::SeqCst);
                    if version.is_multiple_of(9) {
                        cache.remove(&key.to_le_bytes());
                    } else {
                        cache.insert(&key.to_le_bytes(), &value(key, version)).unwrap();
                    }
                    returned[key as usize].store(version, Ordering::SeqCst);
                }
            });
        }
        for reader in 0..2 {
            let (cache, begun, returned) = (&cache, &begun, &returned);
            scope.spawn(move || {
                let mut prng = Prng::new(100 + reader);
                for _ in 0..ROUNDS {
                    let key = prng.next_u64() % KEYS;
                    let floor = returned[key as usize].load(Ordering::SeqCst);
                    let Some(found) = cache.get(&key.to_le_bytes()) else { continue };
                    let ceiling = begun[key as usize].load(Ordering::SeqCst);
                    let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
                    assert_eq!(found, value(key, version), "torn or foreign");
                    assert!((floor..=ceiling).contains(&version), "{version} of {floor} to {ceiling}");
                }
            });
        }
    });
    cache.verify();
}

#[test]
fn sixteen_callers_of_one_key_load_once() {
    let (cache, loads) = (cache(), AtomicU64::new(0));
    for round in 0..if cfg!(miri) { 2 } else { 50u64 } {
        let barrier = Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    barrier.wait();
                    let found = cache.get_or_insert_with(&round.to_le_bytes(), || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                        round.to_string().into_bytes()
                    });
                    assert_eq!(found, round.to_string().into_bytes());
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), round + 1);
    }
}

#[test]
fn a_loader_that_panics_or_fails_lets_the_next_one_try() {
    let cache = cache();
    let barrier = Arc::new(Barrier::new(2));
    let panicking = {
        let (cache, barrier) = (cache.clone(), barrier.clone());
        std::thread::spawn(move || {
            cache.get_or_insert_with(b"key", || {
                barrier.wait();
                std::thread::sleep(Duration::from_millis(20));
                panic!("the source is down");
            })
        })
    };
    barrier.wait();
    assert_eq!(cache.get_or_insert_with(b"key", || b"second".to_vec()), b"second");
    assert!(panicking.join().is_err());
    assert_eq!(cache.get(b"key").unwrap(), b"second");
    cache.insert(b"other", b"still works").unwrap();
}

#[test]
fn what_was_removed_while_it_was_loaded_is_not_stored() {
    let cache = cache();
    let loaded = cache.get_or_insert_with(b"key", || {
        assert!(!cache.remove(b"key"));
        b"read before the removal".to_vec()
    });
    assert_eq!(loaded, b"read before the removal");
    assert!(cache.get(b"key").is_none());
}

#[test]
fn loaders_of_different_keys_do_not_wait_for_each_other() {
    let cache = cache();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for number in 0..8u64 {
            let (cache, barrier) = (&cache, &barrier);
            // All eight must be loading at once for the barrier to open.
            scope.spawn(move || {
                cache.get_or_insert_with(&number.to_le_bytes(), || {
                    barrier.wait();
                    vec![1]
                })
            });
        }
    });
    assert_eq!(cache.len(), 8);
}

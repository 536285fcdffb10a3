//! The cache against a plain map: what is found is what was stored last.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::base::prng::Prng;
use crate::embedded::{Cache, InsertError, LoadError, Value};

const OPERATIONS: u64 = if cfg!(miri) { 2_000 } else { 400_000 };

fn small() -> Cache {
    Cache::builder().capacity_bytes(4 << 20).stripes(2).l0_bytes(256 << 10).build().unwrap()
}

#[test]
fn what_is_found_is_what_was_stored_last() {
    for seed in 1..=3 {
        let (cache, mut model, mut prng) = (small(), HashMap::<Vec<u8>, Vec<u8>>::new(), Prng::new(seed));
        for step in 0..OPERATIONS {
            let number = prng.next_u64() % 3000;
            // Mostly a few hot keys, so that reads without a lock are among them.
            let number = if prng.next_u64().is_multiple_of(3) { number } else { number % 40 };
            let key = format!("key-{number:0width$}", width = number as usize % 70).into_bytes();
            match prng.next_u64() % 100 {
                0..60 => {
                    let found = cache.get(&key);
                    match (&found, model.get(&key)) {
                        (Some(found), Some(stored)) => assert_eq!(found, stored),
                        (Some(_), None) => panic!("a key that was removed is found"),
                        (None, _) => {} // evicted
                    }
                    assert_eq!(cache.get_with(&key, <[u8]>::to_vec), found.map(Vec::from));
                }
                60..85 => {
                    let length = [0, 1, 8, 100, 160, 161, 500, 1024, 1025, 3000][prng.next_u64() as usize % 10];
                    let value: Vec<u8> = (0..length).map(|at| (step + at) as u8).collect();
                    cache.insert(&key, &value).unwrap();
                    assert_eq!(cache.get(&key).expect("just stored"), value);
                    model.insert(key, value);
                }
                85..95 => {
                    assert!(!cache.remove(&key) || model.contains_key(&key), "removed what was not there");
                    model.remove(&key);
                    assert!(!cache.contains_key(&key));
                }
                95..99 => {
                    let loaded = cache.get_or_insert_with(&key, || b"loaded".to_vec());
                    let stored = model.entry(key).or_insert_with(|| b"loaded".to_vec());
                    if loaded != *stored {
                        assert_eq!(loaded, b"loaded", "neither stored nor loaded");
                        *stored = b"loaded".to_vec();
                    }
                }
                _ if prng.next_u64().is_multiple_of(50) => {
                    cache.clear();
                    model.clear();
                    assert!(cache.is_empty());
                }
                _ => cache.verify(),
            }
        }
        cache.verify();
        let metrics = cache.metrics();
        assert!(
            cfg!(miri) || metrics.l0_hits * 4 > metrics.hits,
            "hardly anything was read without a lock: {metrics:?}"
        );
        assert!(metrics.payload_bytes <= metrics.capacity_bytes && metrics.entries <= 3000);
    }
}

#[test]
fn a_full_cache_stays_within_its_memory_and_evicts() {
    let cache = small();
    for number in 0..50_000u32 {
        cache.insert(&number.to_le_bytes(), &[number as u8; 200]).unwrap();
    }
    let metrics = cache.metrics();
    assert!(metrics.evicted > 20_000 && metrics.payload_bytes < 4 << 20, "{metrics:?}");
    assert_eq!(metrics.entries, cache.len());
    cache.verify();
}

#[test]
fn entries_expire_to_the_millisecond_with_and_without_a_lock() {
    let cache = Cache::builder().capacity_bytes(4 << 20).time_to_live(Duration::from_secs(60)).build().unwrap();
    let before = Instant::now();
    cache.insert_with_ttl(b"brief", b"1", Duration::from_millis(60)).unwrap();
    cache.insert(b"long", b"2").unwrap();
    let mut last_seen = before;
    while before.elapsed() < Duration::from_millis(120) {
        let asked = Instant::now();
        if cache.get(b"brief").is_some() {
            last_seen = asked;
        }
    }
    assert!(last_seen - before <= Duration::from_millis(61), "served after {:?}", last_seen - before);
    assert!(last_seen - before >= Duration::from_millis(30), "gone after {:?}", last_seen - before);
    assert!(cache.metrics().l0_hits > 0);
    assert_eq!(cache.get(b"long").unwrap(), b"2");
}

#[test]
fn refusals_are_typed_and_change_nothing() {
    let cache = small();
    cache.insert(b"key", b"kept").unwrap();
    assert!(matches!(cache.insert(b"key", &vec![0; 4 << 20]), Err(InsertError::TooLarge { .. })));
    assert!(cache.insert(&[1; 2000], b"value").is_err() && cache.insert(b"", b"value").is_err());
    assert!(cache.get(b"").is_none() && !cache.remove(b"") && cache.get(&[1; 2000]).is_none());
    assert_eq!(cache.get(b"key").unwrap(), b"kept");
    let failed = cache.try_get_or_insert_with(b"other", || Err("no source"));
    assert!(matches!(failed, Err(LoadError::Failed("no source"))));
    assert!(cache.get(b"other").is_none());
    let inner = cache.clone();
    let recursive = cache.try_get_or_insert_with(b"self", || {
        inner.try_get_or_insert_with(b"self", || Ok::<_, ()>(vec![1])).map(Vec::from)
    });
    assert!(matches!(recursive, Err(LoadError::Failed(LoadError::Recursive))));
    // Too large to be stored is answered all the same.
    assert_eq!(cache.get_or_insert_with(b"film", || vec![7; 4 << 20]).len(), 4 << 20);
}

#[test]
fn values_outlive_their_cache_and_memory_is_given_back() {
    let mapped = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut kept: Vec<Value> = Vec::new();
    let before = mapped();
    for round in 0..if cfg!(miri) { 2 } else { 50u32 } {
        let cache = Cache::builder().capacity_bytes(64 << 20).build().unwrap();
        let clone = cache.clone();
        cache.insert(&round.to_le_bytes(), &[round as u8; 300]).unwrap();
        drop(cache);
        kept.push(clone.get(&round.to_le_bytes()).unwrap());
    }
    assert!(mapped() < before + (1 << 30), "caches of 3 GiB in all were dropped and are still mapped");
    assert!(kept.iter().enumerate().all(|(round, value)| *value == [round as u8; 300]));
}

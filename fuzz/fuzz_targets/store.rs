//! Operations on a store against a plain map: the model test, driven by coverage.
//!
//! The model cannot know what was evicted, so a miss is allowed where it has an entry; a value it does
//! not have, an expired one, or a store that does not recount right is not.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use spinetail::base::hash::HashSeed;
use spinetail::base::time::Instant;
use spinetail::cache::{Accounting, Condition, Config, Put, Refused, Store};

const SEED: HashSeed = HashSeed(7);

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let mut next = move || bytes.next();
    let Some(shape) = next() else { return };
    let (segment_bytes, segments) = [(1024, 12), (1024, 40), (2048, 80), (4096, 20)][usize::from(shape) % 4];
    let config = Config { segment_bytes, seed: SEED, accounting: Accounting::Memory };
    let mut store = Store::new(vec![0u8; segment_bytes * segments], config);
    let mut model: HashMap<Vec<u8>, (Vec<u8>, Option<Instant>)> = HashMap::new();
    let mut now = Instant::from_ms(1);
    let mut operations = 0u32;
    while let (Some(operation), Some(a), Some(b)) = (next(), next(), next()) {
        // Keys of several lengths, values from nothing to nearly a segment.
        let key = vec![a; 1 + usize::from(a & 0x1f) * if a > 250 { 30 } else { 1 }];
        let hash = SEED.hash(&key);
        let value = vec![b ^ a; usize::from(b) * if operation & 0x80 != 0 { 4 } else { 1 }];
        let expires = (operation & 0x40 != 0).then(|| now.after_ms(1 + u64::from(b) * 10));
        let alive = |model: &HashMap<Vec<u8>, (Vec<u8>, Option<Instant>)>, now: Instant| {
            model.get(&key).is_some_and(|(_, expires)| expires.is_none_or(|at| at > now))
        };
        match operation & 7 {
            0 | 1 => match store.get(hash, &key, now) {
                Some(item) => {
                    let (value, expires) = model.get(&key).expect("served what was never stored");
                    assert!(expires.is_none_or(|at| at > now), "served after its time");
                    assert_eq!((item.value, item.expires), (&value[..], *expires));
                }
                None => drop(model.remove(&key)),
            },
            2 | 3 => {
                match store.set(hash, &key, Put { value: &value, expires, ..Put::default() }, now) {
                    Ok(_) => drop(model.insert(key, (value, expires))),
                    Err(Refused::TooLarge { bytes, bytes_max }) => assert!(bytes > bytes_max),
                    Err(other) => panic!("{other}"),
                }
            }
            4 => {
                let put = Put { value: &value, expires, condition: Condition::Absent, ..Put::default() };
                match store.set(hash, &key, put, now) {
                    Ok(_) => drop(model.insert(key, (value, expires))),
                    Err(Refused::Exists) => assert!(alive(&model, now), "exists, says the store"),
                    Err(Refused::TooLarge { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            5 => {
                let was = store.delete(hash, &key, now);
                assert!(!was || alive(&model, now), "deleted what was never there");
                model.remove(&key);
            }
            6 => {
                if store.touch(hash, &key, expires, now) {
                    assert!(alive(&model, now), "touched what was never there");
                    model.get_mut(&key).expect("just seen").1 = expires;
                } else if store.peek(hash, &key, now).is_none() {
                    model.remove(&key);
                }
            }
            _ => {
                now = now.after_ms(u64::from(a));
                store.expire(now, usize::from(b), usize::from(a));
            }
        }
        operations += 1;
        if operations % 64 == 0 {
            store.check().expect("the store recounts right");
        }
    }
    store.check().expect("the store recounts right");
});

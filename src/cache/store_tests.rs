//! What the model does not see: an item's marks beside all else about it, and its history.

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::time::Instant;
use crate::cache::{Accounting, Config, History, MARK_STALE, MARK_WON, Put, Store};

const SEED: HashSeed = HashSeed(9);
const KEY: &[u8] = b"key";

fn hash() -> KeyHash {
    SEED.hash(KEY)
}

fn ms(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

fn store() -> Store<Vec<u8>> {
    Store::new(vec![0; 64 * 4096], Config { segment_bytes: 4096, seed: SEED, accounting: Accounting::Memory })
}

fn history(store: &mut Store<Vec<u8>>, now: u64) -> (bool, u64, u8) {
    let History { is_hit, idle_ms, frequency } = store.history(hash(), KEY, ms(now)).expect("the key is stored");
    (is_hit, idle_ms, frequency)
}

#[test]
fn marking_keeps_all_else_about_an_item() {
    let now = ms(5);
    for value_len in [3, 3000] {
        let mut store = store();
        let value = vec![7; value_len];
        let put = Put { value: &value, expires: Some(ms(99)), client_flags: 5, versioned: true, ..Put::default() };
        let version = store.set(hash(), KEY, put, now).unwrap();
        for marks in [MARK_STALE, MARK_STALE, MARK_STALE | MARK_WON, MARK_WON, 0, MARK_WON] {
            assert!(store.mark(hash(), KEY, marks, now));
            let item = store.peek(hash(), KEY, now).unwrap();
            assert_eq!((item.value, item.expires, item.client_flags), (&value[..], put.expires, 5));
            assert_eq!((item.version, item.marks), (version, marks), "{value_len} bytes");
            store.check().unwrap();
        }
        assert!(!history(&mut store, 5).0, "marking is no hit");
        assert!(!store.mark(hash(), KEY, MARK_WON, ms(99)), "it has expired");
        assert!(!store.mark(SEED.hash(b"none"), b"none", MARK_WON, now));
    }
}

#[test]
fn marks_stay_until_something_is_stored() {
    let now = ms(5);
    let mut store = store();
    let put = Put { value: b"1", marks: MARK_STALE, ..Put::default() };
    store.set(hash(), KEY, put, now).unwrap();
    let marks = |store: &mut Store<Vec<u8>>| store.peek(hash(), KEY, now).unwrap().marks;
    assert!(store.touch(hash(), KEY, Some(ms(99)), now), "rewritten with an expiry");
    assert_eq!(marks(&mut store), MARK_STALE);
    let version = store.get_versioned(hash(), KEY, now).unwrap().version;
    assert!(version.is_some() && marks(&mut store) == MARK_STALE);
    assert!(store.touch(hash(), KEY, None, now), "rewritten without one");
    assert_eq!((store.peek(hash(), KEY, now).unwrap().version, marks(&mut store)), (version, MARK_STALE));
    assert_eq!(store.increment(hash(), KEY, 1, None, None, false, now), Ok((2, None)));
    assert_eq!(marks(&mut store), 0);
    assert!(store.mark(hash(), KEY, MARK_WON, now));
    store.set(hash(), KEY, Put { value: b"3", ..Put::default() }, now).unwrap();
    assert_eq!(marks(&mut store), 0, "what was written is not what was marked, though it is as long");
    store.check().unwrap();
}

#[test]
fn idle_time_is_known_to_the_second_in_a_store_with_little_traffic() {
    let mut store = store();
    assert_eq!(store.history(hash(), KEY, ms(0)), None);
    store.note_time(ms(10_000));
    store.set(hash(), KEY, Put { value: b"1", ..Put::default() }, ms(10_700)).unwrap();
    // Whoever notes the time each second while nothing comes, and whoever sleeps till something does.
    for second in 11..=12 {
        store.note_time(ms(second * 1000));
    }
    assert_eq!(history(&mut store, 12_700), (false, 2700, 0), "two seconds, and the one before the note");
    store.note_time(ms(700_000));
    assert!(store.get(hash(), KEY, ms(700_000)).is_some());
    assert_eq!(history(&mut store, 700_100), (true, 100, 1));
    for _ in 0..10 {
        assert!(store.get(hash(), KEY, ms(700_100)).is_some());
    }
    assert_eq!(history(&mut store, 700_200), (true, 200, 11), "and asking for it counts nothing");
}

#[test]
fn a_write_makes_an_item_new_and_a_touch_counts_as_a_hit() {
    let mut store = store();
    let set = |store: &mut Store<Vec<u8>>, value: &[u8], now: u64| {
        store.note_time(ms(now));
        store.set(hash(), KEY, Put { value, ..Put::default() }, ms(now)).unwrap();
    };
    set(&mut store, b"1", 1000);
    assert!(store.touch(hash(), KEY, None, ms(1000)));
    assert_eq!(history(&mut store, 3000), (true, 2000, 1));
    // In place, and elsewhere.
    for (value, now) in [(&b"2"[..], 10_000), (b"33", 20_000)] {
        set(&mut store, value, now);
        assert_eq!(history(&mut store, now + 50), (false, 50, 1));
        store.note_time(ms(now + 5000));
        assert!(store.get(hash(), KEY, ms(now + 5000)).is_some());
        assert_eq!(history(&mut store, now + 5100), (true, 100, 2));
        set(&mut store, b"4", now + 6000);
        assert!(store.touch(hash(), KEY, Some(ms(99_000)), ms(now + 6000)), "rewritten, with its history");
        assert!(history(&mut store, now + 6000).0);
        set(&mut store, b"5", now + 6500);
        store.get_versioned(hash(), KEY, ms(now + 6500)).unwrap();
        assert!(history(&mut store, now + 6600).0, "rewritten with a version");
        store.delete(hash(), KEY, ms(now + 7000));
        set(&mut store, b"1", now + 7000);
        assert_eq!(history(&mut store, now + 7000).2, 0, "a new item knows nothing of one that was deleted");
        assert!(store.get(hash(), KEY, ms(now + 7000)).is_some());
    }
    let refused = store.set(hash(), KEY, Put { value: &[0; 5000], ..Put::default() }, ms(30_000));
    assert!(refused.is_err() && history(&mut store, 30_000).0, "what is refused changes nothing");
}

#[test]
fn a_write_that_has_to_make_room_keeps_the_history_it_found() {
    let mut store = store();
    let long = |number: u32| vec![number as u8; 900];
    let mut hits = 0;
    let writes: u32 = if cfg!(miri) { 100 } else { 700 };
    for number in 0..writes {
        store.note_time(ms(u64::from(number) * 1000));
        let now = ms(u64::from(number) * 1000);
        let other = number.to_le_bytes();
        store.set(SEED.hash(&other), &other, Put { value: &long(number), ..Put::default() }, now).unwrap();
        // Of changing length, so that it moves, in a store that is full and grows its index.
        let value = vec![1; 100 + number as usize % 300];
        store.set(hash(), KEY, Put { value: &value, ..Put::default() }, now).unwrap();
        let (is_hit, idle_ms, _) = history(&mut store, now.ms + 100);
        hits += u32::from(is_hit);
        assert_eq!(idle_ms, 100, "write {number}");
        assert!(store.get(hash(), KEY, now).is_some());
    }
    assert!(cfg!(miri) || store.stats().evicted > 300);
    assert!(hits <= 20, "{hits} writes are said to have been read: more than were evicted and came back");
    store.check().unwrap();
}

//! Bytes of structure an entry costs, by resident memory: what the process grew by, less keys and values,
//! over entries. A process of its own, so that nothing else grows it.

use spinetail::base::hash::HashSeed;
use spinetail::base::time::Instant;
use spinetail::cache::{Accounting, Config, Put, Store};
use spinetail::host::memory::{Arena, PageWish};

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0
}

/// Everything on: the arena is full, so there are ghosts, a policy, and free segments for the hand.
#[test]
fn a_million_entries_of_16_and_100_bytes_cost_less_than_20_bytes_each() {
    let seed = HashSeed(1);
    let set = |store: &mut Store<Arena>, number: u64| {
        let mut key = [0x6b; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let put = Put { value: &[7; 100], ..Put::default() };
        store.set(seed.hash(&key), &key, put, Instant::from_ms(number / 1000)).unwrap();
    };
    let before = resident_bytes();
    let arena_bytes = 126 << 20;
    let arena = Arena::reserve(arena_bytes, PageWish::Small, None, false).unwrap();
    let segment_bytes = Store::<Arena>::segment_bytes_for(arena_bytes as u64);
    let mut store = Store::new(arena, Config { segment_bytes, seed, accounting: Accounting::Memory });
    for number in 0..2_200_000 {
        set(&mut store, number);
    }
    let stats = store.stats();
    assert!(stats.evicted > 1_000_000 && stats.rushes < 10, "{stats:?}");
    let entries = stats.entries as f64;
    assert_eq!(stats.payload_bytes, stats.entries * 116);
    let structure = (resident_bytes() - before - stats.payload_bytes as f64) / entries;
    let ghosts = stats.entries as f64 * 4.0 / entries;
    println!(
        "{structure:.2} B an entry at {entries} entries, everything counted; {:.2} B without ghosts",
        structure - ghosts
    );
    println!("index, ghosts and tables {:.2} B of it", stats.index_bytes as f64 / entries);
    assert!(entries > 900_000.0 && structure <= 20.0 && structure - ghosts <= 16.0, "{structure}");
}

//! The cache inside a program: `cargo run --release --example embedded`.
//!
//! Some threads ask for squares, of which a slow function knows each; whoever asks first computes, the others wait
//! for its answer or find it stored.

use std::thread;
use std::time::Duration;

use spinetail::embedded::Cache;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::builder().capacity_bytes(16 << 20).time_to_live(Duration::from_secs(60)).build()?;

    let threads: Vec<_> = (0..4u64)
        .map(|_| {
            let cache = cache.clone();
            thread::spawn(move || (0..100_000u64).map(|number| square(&cache, number % 50)).sum::<u64>())
        })
        .collect();
    for thread in threads {
        println!("a thread's sum is {}", thread.join().expect("squares do not panic"));
    }

    let metrics = cache.metrics();
    println!("{} squares computed, {} hits, {} of them without a lock", metrics.inserts, metrics.hits, metrics.l0_hits);

    // What has changed at its source is removed, and computed anew by whoever asks next.
    cache.remove(&7u64.to_le_bytes());
    assert_eq!(square(&cache, 7), 49);
    Ok(())
}

fn square(cache: &Cache, number: u64) -> u64 {
    let value = cache.get_or_insert_with(&number.to_le_bytes(), || {
        thread::sleep(Duration::from_millis(1));
        (number * number).to_le_bytes().to_vec()
    });
    u64::from_le_bytes(value[..].try_into().expect("a square has eight bytes"))
}

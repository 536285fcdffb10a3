//! What does a hit cost that never leaves the process, beside its floor and what people use instead?
//!
//! `cargo bench --bench l0`, or `-- hot-100` for the cases whose name contains that; `SPINETAIL_BENCH=smoke` runs a
//! small size.
//!
//! Every subject holds the same keys of 16 bytes and values of 100; a hit copies the value out (a peer hands out
//! a counted reference, whose bytes are then copied to the same place). Subjects take turns on one pinned thread,
//! round by round, and who begins rotates. While a subject is measured a thread on another core writes its
//! entries, 100,000 a second.
//!
//! - `median ns`: median over rounds of a batch's mean. In `dependent` cases each key depends on the value read
//!   before it, as in a program that follows what it finds; in the others look-ups may overlap.
//! - `p99 ns`: of look-ups timed one by one with the time-stamp counter between fences (`load::ticks`), less the
//!   median of what a pair of readings around nothing measures.
//! - **spinetail-l0**: `l0::Reader` over shared memory files, as another process has it. **-batch**: sixteen keys
//!   asked for together. **embedded**: `embedded::Cache::get_with`.
//! - **pointer-chase**: one dependent load over as many bytes as the table's entries lie on.
//! - `threads-2` cases: two threads read at once, the same key or different ones; figures are for each thread.

#[allow(dead_code, reason = "every bench uses its own part of this")]
mod common;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spinetail::base::hash::HashSeed;
use spinetail::embedded::Cache;
use spinetail::host::memory::PageWish;
use spinetail::host::shared::{SharedMemory, Writers};
use spinetail::l0::{Entry, Publisher, Reader, alive, layout, reports};
use spinetail::load::Distribution;
use spinetail::load::keys::Keys;
use spinetail::load::ticks::Ticks;

use crate::common::measure::{median, percentile};
use crate::common::report::{self, Row};
use crate::common::subjects::{Plan, PointerChase, Work};

type Key = [u8; 16];
type Value = [u8; VALUE_BYTES];

/// One subject: reads a key, copies its value, answers its last byte.
type Read<'a> = Box<dyn FnMut(&[Key], &[u32], Mode) -> f64 + 'a>;
type Write = Arc<dyn Fn(&Key, &Value) + Send + Sync>;

/// How a stream is read.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Independent,
    Dependent,
}

struct Subject<'a> {
    name: &'static str,
    read: Read<'a>,
    /// For the writing thread; a subject without one is measured alone.
    write: Option<Write>,
    single: Box<dyn FnMut(&Key) -> u8 + 'a>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("l0 bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let smoke = std::env::var("SPINETAIL_BENCH").is_ok_and(|size| size == "smoke");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = cores.last().filter(|&&core| core_affinity::set_for_current(core)).map(|core| core.id);
    let host = report::host(cores.len(), core, if smoke { "smoke" } else { "full" });
    let (rounds, batch, singles, large) =
        if smoke { (2, 20_000, 5_000, 20_000) } else { (5, 1_000_000, 200_000, 1_000_000) };
    let ticks = Ticks::calibrate();
    let mut rows = Vec::new();
    for (name, entries) in [("hot-100", 100), ("hot-4096", 4096), ("large", large)] {
        for (distribution_name, distribution) in
            [("uniform", Distribution::Uniform), ("zipf", Distribution::Zipf(0.99))]
        {
            for (mode_name, mode) in [("independent", Mode::Independent), ("dependent", Mode::Dependent)] {
                let case = format!("{name}/{distribution_name}/{mode_name}");
                if !case.contains(&filter) {
                    continue;
                }
                let mut drawn = Keys::new(distribution, entries as u64, 7, 0);
                let stream: Vec<u32> = (0..batch + singles).map(|_| drawn.next_key() as u32).collect();
                let extent = Extent { rounds, batch, ticks: &ticks };
                measure(&case, entries, &stream, mode, extent, &cores, &mut rows)?;
            }
        }
    }
    if "threads-2".contains(&filter) && cores.len() > 1 {
        for name in ["different-keys", "same-key"] {
            threads(name, if smoke { 20_000 } else { 3_000_000 }, rounds, &cores, &mut rows);
        }
    }
    println!("host: {host}");
    println!(
        "timer: {:.1} ns, the median of a pair of readings around nothing, are subtracted in p99",
        ticks.pair_ns()
    );
    report::print(&rows, "pointer-chase", "quick_cache");
    let path = report::write("l0", host, &rows).map_err(|error| format!("the report: {error}"))?;
    println!("written: {}", path.display());
    Ok(())
}

#[derive(Clone, Copy)]
struct Extent<'a> {
    rounds: usize,
    batch: usize,
    ticks: &'a Ticks,
}

fn measure(
    case: &str,
    entries: usize,
    stream: &[u32],
    mode: Mode,
    extent: Extent<'_>,
    cores: &[core_affinity::CoreId],
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    let keys: Vec<Key> = (0..entries).map(|number| key(number as u64)).collect();
    let mut subjects = subjects(&keys, case.contains("zipf"))?;
    let (batch, singles) = stream.split_at(extent.batch);
    let mut means = vec![Vec::new(); subjects.len()];
    let mut tails = vec![Vec::new(); subjects.len()];
    for round in 0..=extent.rounds {
        for turn in 0..subjects.len() {
            let at = (round + turn) % subjects.len();
            let subject = &mut subjects[at];
            let stop = Arc::new(AtomicBool::new(false));
            let writer = subject.write.clone().filter(|_| cores.len() > 1).map(|write| {
                let (stop, core, keys) = (stop.clone(), cores[0], keys.clone());
                std::thread::spawn(move || write_steadily(&*write, &keys, core, &stop))
            });
            let mean = (subject.read)(&keys, batch, mode);
            let mut tail: Vec<u32> = singles
                .iter()
                .map(|&number| {
                    let key = &keys[number as usize];
                    let before = extent.ticks.now();
                    black_box((subject.single)(key));
                    let ns = extent.ticks.ns(extent.ticks.now() - before) - extent.ticks.pair_ns();
                    (ns.max(0.0) * 16.0) as u32
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            if let Some(writer) = writer {
                writer.join().map_err(|_| "the writer panicked")?;
            }
            if round > 0 {
                means[at].push(mean);
                tails[at].push(percentile(&mut tail, 0.99) / 16.0);
            }
        }
    }
    for ((subject, means), tails) in subjects.iter().zip(&means).zip(&tails) {
        let (median_ns, p99_ns) = (median(means), median(tails));
        rows.push(Row { case: case.to_owned(), subject: subject.name, median_ns, p99_ns, rounds: means.len() });
    }
    Ok(())
}

/// A hundred thousand writes a second, spread evenly.
fn write_steadily(
    write: &(dyn Fn(&Key, &Value) + Send + Sync),
    keys: &[Key],
    core: core_affinity::CoreId,
    stop: &AtomicBool,
) {
    core_affinity::set_for_current(core);
    let (began, mut number) = (Instant::now(), 0u32);
    while !stop.load(Ordering::Relaxed) {
        while began.elapsed() < Duration::from_micros(10) * number && !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        number += 1;
        let mut value = [number as u8; VALUE_BYTES];
        value[VALUE_BYTES - 1] = 0;
        write(&keys[(number as usize).wrapping_mul(7919) % keys.len()], &value);
    }
}

/// Reads a stream; nanoseconds a look-up. The last byte of every value is zero: it joins the next key's number
/// where look-ups depend on each other, and the program cannot know.
fn stream_of(keys: &[Key], stream: &[u32], mode: Mode, mut get: impl FnMut(&Key) -> u8) -> f64 {
    let (mut carry, mut misses) = (0, 0u64);
    let began = Instant::now();
    match mode {
        Mode::Independent => {
            for &number in stream {
                misses += u64::from(get(&keys[number as usize]) == MISS);
            }
        }
        Mode::Dependent => {
            for &number in stream {
                let answer = get(&keys[number as usize + carry]);
                misses += u64::from(answer == MISS);
                carry = usize::from(answer & 1 & !(answer >> 7));
            }
        }
    }
    let ns = began.elapsed().as_nanos() as f64 / stream.len() as f64;
    check(misses, stream);
    ns
}

fn key(number: u64) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(format!("{number:016}").as_bytes());
    key
}

/// A reader that meets a slot whose writer was taken off its core gives up, as it should; that must stay rare.
fn check(misses: u64, stream: &[u32]) {
    assert!(misses <= stream.len() as u64 / 500, "{misses} of {} look-ups missed", stream.len());
}

/// All that hold `keys`. A look-up answers the value's last byte, which is zero, or [`MISS`].
fn subjects(keys: &[Key], skewed: bool) -> Result<Vec<Subject<'static>>, String> {
    let value = {
        let mut value = [7; VALUE_BYTES];
        value[VALUE_BYTES - 1] = 0;
        value
    };
    let mut subjects = Vec::new();

    let (reader, write, bytes) = table(keys, &value)?;
    let reader = std::rc::Rc::new(std::cell::RefCell::new(reader));
    let last = |found: Option<&[u8]>| found.map_or(MISS, |value| value[VALUE_BYTES - 1]);
    let (for_batches, for_many, for_singles) = (reader.clone(), reader.clone(), reader.clone());
    subjects.push(Subject {
        name: "spinetail-l0",
        read: Box::new(move |keys, stream, mode| {
            let reader = &mut *for_batches.borrow_mut();
            stream_of(keys, stream, mode, |key| last(reader.get(key).expect("its owner lives")))
        }),
        write: Some(write.clone()),
        single: Box::new(move |key| last(for_singles.borrow_mut().get(key).expect("its owner lives"))),
    });
    let many = reader.clone();
    subjects.push(Subject {
        name: "spinetail-l0-batch",
        read: Box::new(move |keys, stream, _| {
            let reader = &mut *for_many.borrow_mut();
            let (mut misses, began) = (0u64, Instant::now());
            for numbers in stream.chunks(16) {
                let mut asked = [[0; 16]; 16];
                for (asked, &number) in asked.iter_mut().zip(numbers) {
                    *asked = keys[number as usize];
                }
                let answered =
                    reader.get_many(&asked[..numbers.len()], |_, found| misses += u64::from(last(found) == MISS));
                answered.expect("its owner lives");
            }
            let ns = began.elapsed().as_nanos() as f64 / stream.len() as f64;
            check(misses, stream);
            ns
        }),
        write: Some(write),
        single: Box::new(move |key| last(many.borrow_mut().get(key).expect("its owner lives"))),
    });

    let embedded = embedded(keys, &value)?;
    let (cache, single, writing) = (embedded.clone(), embedded.clone(), embedded);
    let read =
        |cache: &Cache, key: &Key| cache.get_with(key, |value| black_box(value)[VALUE_BYTES - 1]).unwrap_or(MISS);
    subjects.push(Subject {
        name: "embedded",
        read: Box::new(move |keys, stream, mode| stream_of(keys, stream, mode, |key| read(&cache, key))),
        write: Some(Arc::new(move |key: &Key, value: &Value| writing.insert(key, value).expect("stored"))),
        single: Box::new(move |key| read(&single, key)),
    });

    let copied = |found: Option<Arc<[u8]>>, out: &mut Value| match found {
        Some(value) => {
            out.copy_from_slice(&value);
            black_box(&*out)[VALUE_BYTES - 1]
        }
        None => MISS,
    };
    let capacity = keys.len() * 2 + 64;
    macro_rules! peer {
        ($name:literal, $cache:expr, $get:expr, $insert:expr) => {{
            let cache = Arc::new($cache);
            for key in keys {
                $insert(&*cache, *key, Arc::from(&value[..]));
            }
            let (single, writing) = (cache.clone(), cache.clone());
            let (mut out, mut out_single) = ([0; VALUE_BYTES], [0; VALUE_BYTES]);
            subjects.push(Subject {
                name: $name,
                read: Box::new(move |keys, stream, mode| {
                    stream_of(keys, stream, mode, |key| copied($get(&*cache, key), &mut out))
                }),
                write: Some(Arc::new(move |key: &Key, value: &Value| {
                    $insert(&*writing, *key, Arc::from(&value[..]));
                })),
                single: Box::new(move |key| copied($get(&*single, key), &mut out_single)),
            });
        }};
    }
    peer!(
        "quick_cache",
        quick_cache::sync::Cache::<Key, Arc<[u8]>>::new(capacity),
        |cache: &quick_cache::sync::Cache<Key, Arc<[u8]>>, key: &Key| cache.get(key),
        |cache: &quick_cache::sync::Cache<Key, Arc<[u8]>>, key: Key, value: Arc<[u8]>| cache.insert(key, value)
    );
    peer!(
        "dashmap",
        dashmap::DashMap::<Key, Arc<[u8]>>::with_capacity(capacity),
        |map: &dashmap::DashMap<Key, Arc<[u8]>>, key: &Key| map.get(key).map(|value| value.clone()),
        |map: &dashmap::DashMap<Key, Arc<[u8]>>, key: Key, value: Arc<[u8]>| map.insert(key, value)
    );
    peer!(
        "moka",
        moka::sync::Cache::<Key, Arc<[u8]>>::new(capacity as u64),
        |cache: &moka::sync::Cache<Key, Arc<[u8]>>, key: &Key| cache.get(key),
        |cache: &moka::sync::Cache<Key, Arc<[u8]>>, key: Key, value: Arc<[u8]>| cache.insert(key, value)
    );
    subjects.push(chase(bytes, keys.len(), skewed)?);
    Ok(subjects)
}

/// A table in shared memory as a server makes it, its reader, how its owner writes, and the bytes that look-ups
/// reach.
fn table(keys: &[Key], value: &Value) -> Result<(Reader, Write, usize), String> {
    // Some eight slots an entry for hot sets, as a server's default has them; three for large ones.
    let slots = if keys.len() <= 4096 { keys.len() * 8 } else { keys.len() * 3 };
    let (regions, bytes) = layout::plan(&[0], (slots * 192 * 4 / 3).max(256 << 10) as u64);
    let wish = if bytes > 4 << 20 { PageWish::Huge2M } else { PageWish::Small };
    let make = |bytes, wish, writers| {
        SharedMemory::create("bench", bytes, wish, None, writers).map_err(|error| format!("no shared memory: {error}"))
    };
    let memory: &'static SharedMemory = Box::leak(Box::new(make(bytes, wish, Writers::Maker)?));
    let marks: &'static SharedMemory = Box::leak(Box::new(make(4096, PageWish::Small, Writers::Maker)?));
    let seed = HashSeed(0x7370_696e_6574_6169);
    layout::write_header(memory.words(), seed, 1, &regions);
    alive::mark(marks.words(), 0).map_err(|error| error.to_string())?;
    let mut publisher = Publisher::new(regions[0].region(memory.words()));
    let mut unpublished = 0;
    for key in keys {
        let entry = Entry { key, hash: seed.hash(key), value, expires_ms: 0 };
        unpublished += usize::from(!publisher.publish(&entry, |_| 1.0));
    }
    // A few in ten thousand find their window full at this load.
    if unpublished > keys.len() / 500 {
        return Err(format!("{unpublished} of {} keys found no place: the case would miss", keys.len()));
    }
    let cells = make(reports::bytes(1), PageWish::Small, Writers::All)?;
    let reader = Reader::open(marks.file(), cells.file(), &[memory.file()]).map_err(|error| error.to_string())?;
    let publisher = std::sync::Mutex::new(publisher);
    let write = move |key: &Key, value: &Value| {
        let mut publisher = publisher.lock().expect("one writer");
        publisher.written(&Entry { key, hash: seed.hash(key), value, expires_ms: 0 });
    };
    // A look-up reads the lines of 16 + 16 + 100 bytes: three of them.
    Ok((reader, Arc::new(write), keys.len() * 192))
}

/// A cache that has all keys published.
fn embedded(keys: &[Key], value: &Value) -> Result<Cache, String> {
    let l0_bytes = (keys.len() * 192 * 3 * 4 / 3).max(8 << 20);
    let capacity = l0_bytes + keys.len() * 160 + (64 << 20);
    let cache =
        Cache::builder().capacity_bytes(capacity).l0_bytes(l0_bytes).build().map_err(|error| error.to_string())?;
    keys.iter().try_for_each(|key| cache.insert(key, value)).map_err(|error| error.to_string())?;
    for _ in 0..2 {
        keys.iter().for_each(|key| drop(cache.get(key)));
    }
    Ok(cache)
}

/// The floor: one dependent load a look-up, over as many bytes and as skewed. It has no look-ups to time singly.
fn chase(bytes: usize, entries: usize, skewed: bool) -> Result<Subject<'static>, String> {
    let mut chase = PointerChase::new(bytes, entries, skewed)?;
    Ok(Subject {
        name: "pointer-chase",
        read: Box::new(move |_, stream, _| {
            let extent = common::measure::Extent { batch: stream.len(), singles: 0, timer_ns: 0 };
            common::subjects::Subject::run(&mut chase, Plan { work: Work::Hit, stream, extent }).mean_ns
        }),
        write: None,
        single: Box::new(|_| 0),
    })
}

/// Two threads at once, each on a core of its own, against one of them alone.
fn threads(name: &str, reads: usize, rounds: usize, cores: &[core_affinity::CoreId], rows: &mut Vec<Row>) {
    let keys: Vec<Key> = (0..100).map(key).collect();
    let value = [0; VALUE_BYTES];
    let cache = embedded(&keys, &value).expect("a small cache");
    let work = |cache: &Cache, thread: usize| {
        let mine = if name == "same-key" { 0 } else { thread * 50 };
        let span = if name == "same-key" { 1 } else { 50 };
        let began = Instant::now();
        for number in 0..reads {
            let key = &keys[mine + number % span];
            black_box(cache.get_with(key, |value| black_box(value)[VALUE_BYTES - 1]));
        }
        began.elapsed().as_nanos() as f64 / reads as f64
    };
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        alone.push(work(&cache, 0));
        let barrier = std::sync::Barrier::new(2);
        let figures: Vec<f64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|thread| {
                    let (cache, barrier, work, core) = (&cache, &barrier, &work, cores[cores.len() - 1 - thread]);
                    scope.spawn(move || {
                        core_affinity::set_for_current(core);
                        barrier.wait();
                        work(cache, thread)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a reader")).collect()
        });
        together.push(figures.iter().sum::<f64>() / 2.0);
    }
    for (subject, figures) in [("embedded", &together[1..]), ("embedded-alone", &alone[1..])] {
        let median_ns = median(figures);
        rows.push(Row { case: format!("threads-2/{name}"), subject, median_ns, p99_ns: median_ns, rounds });
    }
}

const VALUE_BYTES: usize = 100;
const MISS: u8 = 255;

//! Two regions that both take writes, 80 ms apart, cut off from each other and brought together again.
//!
//! Two appliances of the shipped binary with `--cluster`, joined by proxies that delay every byte by 40 ms one way, and a
//! third one without a cluster under the same load. Values are written, deleted and counted at both regions all the time,
//! through a partition, while one prober asks all three in turn for values and measures how long they take. The partition
//! lasts six seconds, or what `SPINETAIL_PARTITION_S` says: `scripts/regions` makes it thirty.
//!
//! A second partition is under a load that no stream keeps so much of: what it let go of is fetched when the partition has
//! healed, a hundred thousand entries from each side to the other.
//!
//! Asserted: equal digests and equal values within five seconds of healing, and no lost increment. The quotient of the
//! 99th percentiles is asserted where the machine has nothing else to do, which whoever runs it must say
//! (`SPINETAIL_QUIET=1`): with other programs on its two cores it measures them.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{SPINETAIL, spinetail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use spinetail::base::prng::Prng;
use spinetail::cluster::host::control::Control;
use spinetail::cluster::host::folder::NodeFile;
use spinetail::cluster::host::proxy::Proxy;

const ONE_WAY: Duration = Duration::from_millis(40);
const KEYS: u64 = 4_000;
const COUNTERS: u64 = 16;
/// Writes of each region in a second, open loop.
const WRITES_PER_SECOND: u64 = 1_000;
/// GETs of each appliance in a second.
const PROBES_PER_SECOND: u64 = 500;
const CONVERGENCE: Duration = Duration::from_secs(5);
/// Keys of the load that overflows, what each is set to, and in what batches.
const MANY_KEYS: u64 = 100_000;
const MANY_VALUE_BYTES: usize = 100;
const MANY_BATCH: u64 = 500;

struct Appliance {
    child: Child,
    resp: String,
    folder: Option<PathBuf>,
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Appliance {
    fn start(memory: &str, folder: Option<&Path>) -> Appliance {
        let mut command = Command::new(SPINETAIL);
        command.args(["serve", "--memory", memory, "--shards", "1", "--poll", "park"]);
        command.args(["--listen", "127.0.0.1:0", "--resp", "127.0.0.1:0"]);
        if let Some(folder) = folder {
            command.arg("--cluster").arg(folder);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let resp =
            line.split_whitespace().find_map(|word| word.strip_prefix("resp=")).expect("a ready line").to_string();
        Appliance { child, resp, folder: folder.map(Path::to_path_buf) }
    }

    fn connect(&self) -> Resp {
        let stream = TcpStream::connect(&self.resp).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Resp(BufReader::new(stream))
    }

    /// What it says of its replication.
    fn replication(&self) -> Value {
        let status = Control::connect(self.folder.as_deref().unwrap()).unwrap().status().unwrap();
        status["parts"]["replication"].clone()
    }
}

/// A connection of RESP, one command at a time.
struct Resp(BufReader<TcpStream>);

impl Resp {
    fn ask(&mut self, words: &[&str]) -> Option<String> {
        let mut command = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| command.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.0.get_mut().write_all(command.as_bytes()).unwrap();
        self.reply()
    }

    fn ask_many(&mut self, words: &[&str]) -> Vec<Option<String>> {
        let count = self.ask(words).unwrap().parse().unwrap();
        (0..count).map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> Option<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let line = line.trim_end();
        assert!(!line.starts_with('-') && !line.is_empty(), "refused: {line}");
        let Some(length) = line.strip_prefix('$') else { return Some(line[1..].to_string()) };
        let length = length.parse::<usize>().ok()?;
        let mut value = vec![0; length + 2];
        self.0.read_exact(&mut value).unwrap();
        value.truncate(length);
        Some(String::from_utf8(value).unwrap())
    }

    /// Every key there may be, and what is stored under it.
    fn all(&mut self) -> BTreeMap<String, String> {
        let names = (0..KEYS).map(|key| format!("k{key}")).chain((0..COUNTERS).map(|key| format!("n{key}")));
        names.filter_map(|name| self.ask(&["GET", &name]).map(|value| (name, value))).collect()
    }
}

/// Four sites, of which two vote only and are not even there: replication needs no agreement.
fn init(root: &Path) {
    let _ = std::fs::remove_dir_all(root);
    std::fs::create_dir_all(root).unwrap();
    let ports: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let sites = ports.iter().enumerate().map(|(site, port)| {
        let kind = if site < 2 { "region" } else { "witness" };
        let address = port.local_addr().unwrap();
        format!("[[site]]\nname = \"site-{site}\"\nkind = \"{kind}\"\n[[site.node]]\naddress = \"{address}\"\n")
    });
    let plan = root.join("sites.toml");
    std::fs::write(&plan, sites.collect::<String>()).unwrap();
    drop(ports);
    let ended = spinetail(&["cluster", "init", "--plan", plan.to_str().unwrap(), root.join("c").to_str().unwrap()]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

/// Puts a slow link between a node and another.
async fn proxy(root: &Path, from: u16, to: u16) -> Proxy {
    let genesis = std::fs::read_to_string(root.join("c/cluster.toml")).unwrap();
    let genesis: toml::Value = toml::from_str(&genesis).unwrap();
    let nodes = genesis["node"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["id"].as_integer() == Some(i64::from(to))).unwrap();
    let proxy = Proxy::start("127.0.0.1:0", node["address"].as_str().unwrap().to_string(), ONE_WAY).await.unwrap();
    let path = root.join(format!("c/node-{from}/node.toml"));
    let mut own: NodeFile = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    own.reach.insert(to.to_string(), proxy.address.to_string());
    std::fs::write(&path, toml::to_string(&own).unwrap()).unwrap();
    proxy
}

/// Writes at a steady rate until told to stop. Answers what it has added to each counter.
fn write(mut to: Resp, seed: u64, is_over: &AtomicBool, written: &AtomicU64) -> Vec<u64> {
    let mut prng = Prng::new(seed);
    let mut counted = vec![0; COUNTERS as usize];
    let began = Instant::now();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if let Some(early) = Duration::from_micros(number * 1_000_000 / WRITES_PER_SECOND).checked_sub(began.elapsed())
        {
            thread::sleep(early);
        }
        let key = format!("k{}", prng.below(KEYS));
        match prng.below(10) {
            0..5 => _ = to.ask(&["SET", &key, &format!("{:016x}{}", prng.next_u64(), "x".repeat(84))]),
            5 => _ = to.ask(&["DEL", &key]),
            _ => {
                let counter = prng.below(COUNTERS);
                to.ask(&["INCR", &format!("n{counter}")]);
                counted[counter as usize] += 1;
            }
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
    counted
}

/// Asks each in turn for values, and measures how long that takes.
fn probe(mut of: Vec<Resp>, is_over: &AtomicBool) -> Vec<Histogram<u64>> {
    let mut prng = Prng::new(99);
    let mut took: Vec<_> = of.iter().map(|_| Histogram::<u64>::new(3).unwrap()).collect();
    let began = Instant::now();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if let Some(early) = Duration::from_micros(number * 1_000_000 / PROBES_PER_SECOND).checked_sub(began.elapsed())
        {
            thread::sleep(early);
        }
        let key = format!("k{}", prng.below(KEYS));
        for turn in 0..of.len() {
            // Whoever is first pays for the prober's waking up: each is in turn.
            let which = (turn + number as usize) % of.len();
            let asked = Instant::now();
            of[which].ask(&["GET", &key]);
            took[which].record(asked.elapsed().as_nanos() as u64).unwrap();
        }
    }
    took
}

/// Two regions that have met, behind their proxies.
struct Pair {
    regions: Vec<Appliance>,
    proxies: [Proxy; 2],
    root: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Pair {
    fn start(name: &str, memory: &str) -> Pair {
        let root = std::env::temp_dir().join(format!("str-{name}-{}", std::process::id()));
        init(&root);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let proxies = runtime.block_on(async { [proxy(&root, 1, 2).await, proxy(&root, 2, 1).await] });
        let regions: Vec<Appliance> =
            (1..=2).map(|node| Appliance::start(memory, Some(&root.join(format!("c/node-{node}"))))).collect();
        let pair = Pair { regions, proxies, root, _runtime: runtime };
        let began = Instant::now();
        while (0..2).any(|region| pair.peer(region)["compared"].as_u64().unwrap_or(0) == 0) {
            assert!(began.elapsed() < Duration::from_secs(30), "they do not meet: {:#}", pair.regions[0].replication());
            thread::sleep(Duration::from_millis(50));
        }
        pair
    }

    /// What a region says of the other.
    fn peer(&self, region: usize) -> Value {
        self.regions[region].replication()["peers"][(2 - region).to_string()].clone()
    }

    fn set_cut(&self, is_cut: bool) {
        self.proxies.iter().for_each(|proxy| proxy.set_cut(is_cut));
    }

    /// Whether both said at their last comparison that they know the same.
    fn is_same(&self) -> bool {
        let (a, b) = (self.peer(0), self.peer(1));
        a["is_equal"] == json!(true) && b["is_equal"] == json!(true) && a["digest"] == b["digest"]
    }
}

#[test]
fn two_regions_agree_within_five_seconds_of_a_partition_and_lose_no_increment() {
    let partition_s = std::env::var("SPINETAIL_PARTITION_S").map_or(6, |seconds| seconds.parse().unwrap());
    let pair = Pair::start("steady", "96MiB");
    let regions = &pair.regions;
    let alone = Appliance::start("96MiB", None);

    let (writing_over, probing_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = [&regions[0], &regions[1], &alone]
        .into_iter()
        .enumerate()
        .map(|(which, to)| {
            let (to, is_over, written) = (to.connect(), writing_over.clone(), written.clone());
            thread::spawn(move || write(to, which as u64, &is_over, &written))
        })
        .collect();
    let prober = {
        let of = vec![regions[0].connect(), regions[1].connect(), alone.connect()];
        let is_over = probing_over.clone();
        thread::spawn(move || probe(of, &is_over))
    };
    thread::sleep(Duration::from_secs(3));
    pair.set_cut(true);
    thread::sleep(Duration::from_secs(partition_s));
    assert!(regions[0].connect().all() != regions[1].connect().all(), "they were not cut off");
    writing_over.store(true, Ordering::Relaxed);
    let counted: Vec<Vec<u64>> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let lag_ms = pair.peer(0)["lag_ms"].as_u64().unwrap();
    pair.set_cut(false);
    let healed = Instant::now();

    let (mut values_equal, mut digests_equal) = (None, None);
    while values_equal.is_none() || digests_equal.is_none() {
        if values_equal.is_none() && regions[0].connect().all() == regions[1].connect().all() {
            values_equal = Some(healed.elapsed());
        }
        // Comparisons of before the healing may not count: it takes equal values to have equal digests.
        if values_equal.is_some() && pair.is_same() {
            digests_equal = Some(healed.elapsed());
        }
        let wait = healed.elapsed();
        assert!(wait < 6 * CONVERGENCE, "{wait:?}: {:#} {:#}", regions[0].replication(), regions[1].replication());
        thread::sleep(Duration::from_millis(20));
    }
    probing_over.store(true, Ordering::Relaxed);
    let took = prober.join().unwrap();

    let mut lost = 0i64;
    for region in regions {
        let mut connection = region.connect();
        for counter in 0..COUNTERS {
            let sum = counted[0][counter as usize] + counted[1][counter as usize];
            let stands_at: i64 = connection.ask(&["GET", &format!("n{counter}")]).unwrap().parse().unwrap();
            lost += (sum as i64 - stands_at).abs();
        }
    }
    let p99_us: Vec<f64> = took.iter().map(|took| took.value_at_quantile(0.99) as f64 / 1e3).collect();
    let p50_us: Vec<f64> = took.iter().map(|took| took.value_at_quantile(0.5) as f64 / 1e3).collect();
    let ratio = p99_us[0].max(p99_us[1]) / p99_us[2];
    let report = json!({
        "partition_s": partition_s,
        "lag_ms_at_healing": lag_ms,
        "writes": written.load(Ordering::Relaxed),
        "increments": counted[..2].iter().flatten().sum::<u64>(),
        "lost_increments": lost,
        "values_equal_s": values_equal.unwrap().as_secs_f64(),
        "digests_equal_s": digests_equal.unwrap().as_secs_f64(),
        "gets": took.iter().map(|took| took.len()).sum::<u64>(),
        "get_p50_us": { "region_1": p50_us[0], "region_2": p50_us[1], "alone": p50_us[2] },
        "get_p99_us": { "region_1": p99_us[0], "region_2": p99_us[1], "alone": p99_us[2] },
        "get_p99_ratio": ratio,
        "counts": regions[0].replication()["counts"],
        "peer": pair.peer(0),
    });
    println!("{report:#}");
    if let Ok(path) = std::env::var("SPINETAIL_REGIONS_JSON") {
        std::fs::write(path, report.to_string()).unwrap();
    }
    assert_eq!(lost, 0, "increments were lost, or counted twice");
    assert!(digests_equal.unwrap() <= CONVERGENCE && values_equal.unwrap() <= CONVERGENCE);
    if std::env::var_os("SPINETAIL_QUIET").is_some() {
        assert!(ratio <= 1.1, "GET p99 is {ratio:.2} times as long with replication");
    }
}

/// Sets keys of its own side, with values that do not compress.
fn set_many(region: usize, mut to: Resp, round: u64) {
    let mut prng = Prng::new(1000 * region as u64 + round);
    for first in (0..MANY_KEYS).step_by(MANY_BATCH as usize) {
        let mut commands = Vec::new();
        for key in first..first + MANY_BATCH {
            let key = format!("r{region}-{key}");
            commands.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n", key.len()).as_bytes());
            commands.extend_from_slice(format!("${MANY_VALUE_BYTES}\r\n").as_bytes());
            commands.extend((0..MANY_VALUE_BYTES).map(|_| b'!' + prng.below(90) as u8));
            commands.extend_from_slice(b"\r\n");
        }
        to.0.get_mut().write_all(&commands).unwrap();
        (0..MANY_BATCH).for_each(|_| assert_eq!(to.reply().as_deref(), Some("OK")));
    }
}

/// How many of a side's keys have the same value at both.
fn equal_of(pair: &Pair, region: usize) -> u64 {
    let (mut here, mut there) = (pair.regions[0].connect(), pair.regions[1].connect());
    let mut equal = 0;
    for first in (0..MANY_KEYS).step_by(MANY_BATCH as usize) {
        let keys: Vec<String> = (first..first + MANY_BATCH).map(|key| format!("r{region}-{key}")).collect();
        let mut words = vec!["MGET"];
        words.extend(keys.iter().map(String::as_str));
        let (ours, theirs) = (here.ask_many(&words), there.ask_many(&words));
        equal += ours.iter().zip(&theirs).filter(|(ours, theirs)| ours.is_some() && ours == theirs).count() as u64;
    }
    equal
}

#[test]
fn what_a_stream_had_no_room_for_is_fetched_within_five_seconds() {
    let pair = Pair::start("many", "512MiB");
    pair.set_cut(true);
    for round in 0..2 {
        thread::scope(|scope| {
            for region in 0..2 {
                let to = pair.regions[region].connect();
                scope.spawn(move || set_many(region, to, round));
            }
        });
    }
    // The thread that replicates has looked at all of it.
    thread::sleep(Duration::from_millis(500));
    let let_go: Vec<u64> = (0..2).map(|region| pair.peer(region)["let_go"].as_u64().unwrap()).collect();
    // None ends while they are cut off.
    let compared = |region: usize| pair.peer(region)["compared"].as_u64().unwrap();
    let before = [compared(0), compared(1)];
    pair.set_cut(false);
    let healed = Instant::now();
    while compared(0) == before[0] || compared(1) == before[1] || !pair.is_same() {
        let wait = healed.elapsed();
        assert!(wait < 6 * CONVERGENCE, "{wait:?}: {:#} {:#}", pair.peer(0), pair.peer(1));
        thread::sleep(Duration::from_millis(20));
    }
    let took = healed.elapsed();
    let fetched: Vec<u64> = (0..2).map(|region| pair.peer(region)["fetched"].as_u64().unwrap()).collect();
    println!("{let_go:?} frames were let go of, {fetched:?} records fetched, equal after {took:.2?}");
    assert_eq!((equal_of(&pair, 0), equal_of(&pair, 1)), (MANY_KEYS, MANY_KEYS));
    assert!(let_go.iter().all(|&frames| frames > 0), "the streams kept everything: {let_go:?}");
    assert!(fetched.iter().all(|&records| records > MANY_KEYS / 4), "{fetched:?}");
    assert!(took <= CONVERGENCE, "{took:.2?}");
}

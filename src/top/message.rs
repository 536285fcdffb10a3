//! The JSON of an event, as `docs/observability.md` has it; a test reads the examples there.
//!
//! A figure this does not know is passed over, so that an older `top` reads a newer server. A part it
//! cannot do without and does not find is said by name.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Said once, when a connection begins.
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    /// The server's version.
    pub version: String,
    /// Its host's name.
    #[serde(default)]
    pub host: String,
    /// When it started: tells a server that is back from one that was never gone.
    pub started_unix_ms: u64,
    /// How its idle shards wait.
    #[serde(default)]
    pub poll: String,
    /// What drives its sockets.
    #[serde(default)]
    pub io: String,
    /// Its hardware profile.
    #[serde(default)]
    pub profile: String,
    /// Time between two ticks.
    pub interval_s: f64,
    /// Time over which a tick's latencies are.
    pub window_s: f64,
    /// Which percentiles a tick's latencies hold.
    pub percentiles: Vec<f64>,
    /// The last ten minutes.
    #[serde(default)]
    pub history: History,
}

/// The last ten minutes, a row a second.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct History {
    /// Time of a row.
    #[serde(default)]
    pub interval_s: f64,
    /// What a row holds.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The rows, oldest first.
    #[serde(default)]
    pub rows: Vec<Vec<Option<f64>>>,
}

/// Said ten times a second.
#[derive(Clone, Debug, Deserialize)]
pub struct Tick {
    /// When.
    pub unix_ms: u64,
    /// How long the server runs.
    pub uptime_s: f64,
    /// What happened in the last interval, as a second's.
    pub rates: Rates,
    /// Latencies of the last window by operation.
    pub latency: BTreeMap<String, Latency>,
    /// Bytes now.
    pub memory: Memory,
    /// What was evicted.
    #[serde(default)]
    pub evictions: Evictions,
    /// Connections now.
    pub connections: Connections,
    /// Each shard.
    pub shards: Vec<Shard>,
    /// The most read keys.
    #[serde(default)]
    pub hot_keys: Vec<HotKey>,
    /// Each tenant.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
}

/// What happens in a second.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/observability.md says what each is")]
pub struct Rates {
    pub requests: f64,
    pub get: f64,
    pub set: f64,
    pub delete: f64,
    pub increment: f64,
    pub touch: f64,
    pub other: f64,
    pub hits_l0: f64,
    pub hits_l1: f64,
    pub misses: f64,
    pub evicted: f64,
    pub expired: f64,
    pub ghost_hits: f64,
    pub forwarded: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
    pub connections_opened: f64,
    pub refused: f64,
}

impl Rates {
    /// Adds `other`, taken `part` times.
    pub fn add(&mut self, other: &Rates, part: f64) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.get, other.get),
            (&mut self.set, other.set),
            (&mut self.delete, other.delete),
            (&mut self.increment, other.increment),
            (&mut self.touch, other.touch),
            (&mut self.other, other.other),
            (&mut self.hits_l0, other.hits_l0),
            (&mut self.hits_l1, other.hits_l1),
            (&mut self.misses, other.misses),
            (&mut self.evicted, other.evicted),
            (&mut self.expired, other.expired),
            (&mut self.ghost_hits, other.ghost_hits),
            (&mut self.forwarded, other.forwarded),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.connections_opened, other.connections_opened),
            (&mut self.refused, other.refused),
        ];
        for (sum, value) in pairs {
            *sum += value * part;
        }
    }

    /// Shares of reads answered by L0, by L1 and not at all; `None` where nothing was read.
    pub fn tiers(&self) -> Option<[f64; 3]> {
        let reads = self.hits_l0 + self.hits_l1 + self.misses;
        (reads > 0.0).then(|| [self.hits_l0 / reads, self.hits_l1 / reads, self.misses / reads])
    }
}

/// Latencies of one operation in nanoseconds, in the order of [`Hello::percentiles`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Latency {
    /// Requests of the window.
    #[serde(default)]
    pub count: u64,
    /// What a client waits for, but for the network.
    #[serde(default)]
    pub total: Vec<u64>,
    /// What the core works.
    #[serde(default)]
    pub service: Vec<u64>,
    /// Waiting for others.
    #[serde(default)]
    pub queue: Vec<u64>,
}

/// Bytes by kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/observability.md says what each is")]
pub struct Memory {
    pub payload: u64,
    pub structure: u64,
    pub fragmentation: u64,
    pub free: u64,
    pub l0: u64,
    pub resident: u64,
    pub limit: u64,
    pub huge_pages: u64,
    pub entries: u64,
    pub overhead_per_entry: Option<f64>,
}

/// How long what was evicted had been idle.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Evictions {
    pub idle_p50_s: Option<f64>,
    pub idle_p90_s: Option<f64>,
}

/// Who is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Connections {
    pub open: u64,
    pub l0_readers: u64,
    pub near_caches: u64,
}

/// One shard.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/observability.md says what each is")]
pub struct Shard {
    pub shard: u64,
    pub core: Option<u64>,
    pub busy: f64,
    pub requests: f64,
    pub p99_ns: Option<u64>,
    pub entries: u64,
    pub connections: u64,
    pub steal: f64,
    pub switches: f64,
    pub mailbox: u64,
    pub buffers_exhausted: f64,
}

/// A key that is read much.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/observability.md says what each is")]
pub struct HotKey {
    pub key: String,
    pub share: f64,
}

/// A tenant.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/observability.md says what each is")]
pub struct Tenant {
    pub tenant: String,
    pub hits_l0: f64,
    pub hits_l1: f64,
    pub misses: f64,
    pub sets: f64,
    pub get_p99_ns: Option<u64>,
    pub l0_entries: u64,
    pub l0_bytes: u64,
}

/// The examples of the documentation, for every test of this room.
#[cfg(test)]
pub mod examples {
    use super::*;

    /// `hello` and `tick` as the page has them, each in one line.
    pub fn texts() -> (String, String) {
        let page = include_str!("../../docs/observability.md");
        let mut blocks = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut next = |start: &str| {
            let block = blocks.next().expect("the page has an example");
            assert!(block.starts_with(start), "{block}");
            block.replace('\n', " ")
        };
        (next("{\"version\""), next("{\"unix_ms\""))
    }

    /// The page's hello.
    pub fn hello() -> Hello {
        serde_json::from_str(&texts().0).expect("the page's hello is understood")
    }

    /// The page's tick.
    pub fn tick() -> Tick {
        serde_json::from_str(&texts().1).expect("the page's tick is understood")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every figure of the page's tick is one this knows, and every figure this knows is on the page. Without this a
    /// renamed one would quietly read as zero.
    #[test]
    fn the_page_and_the_structs_name_the_same_figures() {
        let tick: serde_json::Value = serde_json::from_str(&examples::texts().1).unwrap();
        let names = |value: &serde_json::Value| -> Vec<String> {
            let mut names: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
            names.sort();
            names
        };
        let source = include_str!("message.rs");
        let fields = |name: &str| -> Vec<String> {
            let body = source.split(&format!("pub struct {name} {{\n")).nth(1).expect("a struct").split("\n}").next();
            let lines = body.unwrap().lines().filter_map(|line| line.trim().strip_prefix("pub "));
            let mut names: Vec<String> = lines.map(|line| line.split(':').next().unwrap().to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&tick["rates"]), fields("Rates"));
        assert_eq!(names(&tick["latency"]["get"]), fields("Latency"));
        assert_eq!(names(&tick["memory"]), fields("Memory"));
        assert_eq!(names(&tick["evictions"]), fields("Evictions"));
        assert_eq!(names(&tick["connections"]), fields("Connections"));
        assert_eq!(names(&tick["shards"][0]), fields("Shard"));
        assert_eq!(names(&tick["hot_keys"][0]), fields("HotKey"));
        assert_eq!(names(&tick["tenants"][0]), fields("Tenant"));
        let mut known = fields("Tick");
        known.push("totals".to_string()); // heard, and not shown: rates say it better
        known.sort();
        assert_eq!(names(&tick), known);
    }

    #[test]
    fn the_examples_of_the_page_are_understood() {
        let (hello, tick) = (examples::hello(), examples::tick());
        assert_eq!((hello.version.as_str(), hello.host.as_str()), ("0.1.0", "cache-7"));
        assert_eq!(hello.percentiles.len(), tick.latency["get"].total.len());
        assert_eq!(hello.history.columns.len(), hello.history.rows[0].len());
        assert_eq!((tick.rates.requests, tick.shards[0].entries), (120_000.0, 52_000));
    }

    #[test]
    fn a_part_that_is_missing_is_named() {
        let error = serde_json::from_str::<Tick>("{\"unix_ms\":1,\"uptime_s\":1}").unwrap_err().to_string();
        assert!(error.contains("rates"), "{error}");
    }
}

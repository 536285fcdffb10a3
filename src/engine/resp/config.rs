//! What CONFIG GET and CONFIG SET know.
//!
//! The server is configured by its flags and its profile. Clients and tools ask for parameters of Redis all the same,
//! and some set them; those that mean something here do what they say, the others are remembered and have no effect
//! (docs/compatibility.md names both).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::resp::info::Forgotten;
use crate::wire::glob;

/// What the shards share of RESP.
pub struct RespShared {
    parameters: Mutex<BTreeMap<&'static str, String>>,
    next_client: AtomicU64,
    /// Why every command must be looked at: [`PAUSED`], [`FULL`], [`EVENTS`].
    pub attention: AtomicU32,
    /// Which events about keys are published, as `notify-keyspace-events` has them.
    pub events: AtomicU32,
    /// Until when clients are paused, in milliseconds of the process's clock; only their writes, or all.
    pub paused_until: AtomicU64,
    pub pauses_writes_only: AtomicBool,
    /// The shard whose transaction spans several, by its number and one; 0 for none.
    pub transaction: AtomicU32,
    /// Keys that CLIENT TRACKING remembers on each shard, as CONFIG SET wants it; 0 for what memory allows.
    pub tracked_keys_max: AtomicUsize,
    /// Unix time in milliseconds when the process's clock was zero.
    pub unix_zero_ms: i64,
    /// Names this run of the server.
    pub run_id: String,
    /// Clients of RESP now.
    pub clients: AtomicUsize,
    /// Clients whose reads are tracked.
    pub tracking_clients: AtomicUsize,
    /// When counters were last set back (CONFIG RESETSTAT), as what they stood at.
    pub forgotten: Mutex<Forgotten>,
    /// Memory of the whole server.
    pub memory_bytes: u64,
}

/// A parameter's row.
struct Parameter(&'static str, &'static str, Kind);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Memory,
    /// A size, or a share of the memory in percent.
    MemoryOrShare,
    /// Letters of events about keys.
    Events,
    /// The listeners of a running server stay.
    Port,
    Bool,
    /// One of these, separated by bars.
    Choice(&'static str),
    /// Cannot be set.
    Fixed,
}

const PARAMETERS: &[Parameter] = &[
    Parameter("maxmemory", "0", Kind::Memory),
    Parameter(
        "maxmemory-policy",
        "allkeys-lfu",
        Kind::Choice(
            "noeviction|allkeys-lru|allkeys-lfu|allkeys-random|volatile-lru|volatile-lfu|volatile-random|volatile-ttl",
        ),
    ),
    Parameter("maxmemory-samples", "5", Kind::Number),
    Parameter("maxmemory-clients", "0", Kind::MemoryOrShare),
    Parameter("maxclients", "10000", Kind::Number),
    Parameter("proto-max-bulk-len", "1048576", Kind::Memory),
    Parameter("client-query-buffer-limit", "1073741824", Kind::Memory),
    Parameter("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 0 0 0", Kind::Text),
    Parameter("timeout", "0", Kind::Number),
    Parameter("tcp-keepalive", "60", Kind::Number),
    Parameter("tracking-table-max-keys", "1000000", Kind::Number),
    Parameter("latency-tracking", "yes", Kind::Bool),
    Parameter("latency-tracking-info-percentiles", "50 99 99.9", Kind::Text),
    Parameter("slowlog-log-slower-than", "10000", Kind::Number),
    Parameter("slowlog-max-len", "128", Kind::Number),
    Parameter("notify-keyspace-events", "", Kind::Events),
    Parameter("loglevel", "notice", Kind::Choice("debug|verbose|notice|warning")),
    Parameter("save", "", Kind::Text),
    Parameter("appendonly", "no", Kind::Bool),
    Parameter("requirepass", "", Kind::Fixed),
    Parameter("hz", "10", Kind::Number),
    Parameter("lfu-log-factor", "10", Kind::Number),
    Parameter("lfu-decay-time", "1", Kind::Number),
    Parameter("lazyfree-lazy-user-del", "no", Kind::Bool),
    Parameter("lua-time-limit", "5000", Kind::Number),
    Parameter("activerehashing", "yes", Kind::Bool),
    Parameter("list-max-listpack-size", "-2", Kind::Number),
    Parameter("hash-max-listpack-entries", "512", Kind::Number),
    Parameter("hash-max-ziplist-entries", "512", Kind::Number),
    Parameter("zset-max-listpack-entries", "128", Kind::Number),
    Parameter("zset-max-ziplist-entries", "128", Kind::Number),
    Parameter("set-max-intset-entries", "512", Kind::Number),
    Parameter("databases", "1", Kind::Fixed),
    Parameter("bind", "", Kind::Fixed),
    Parameter("port", "0", Kind::Port),
    Parameter("daemonize", "no", Kind::Fixed),
    Parameter("replicaof", "", Kind::Fixed),
    Parameter("slaveof", "", Kind::Fixed),
    Parameter("repl-backlog-size", "0", Kind::Memory),
    Parameter("io-threads", "1", Kind::Fixed),
    Parameter("cluster-enabled", "no", Kind::Fixed),
    Parameter("dir", "/", Kind::Fixed),
];

impl RespShared {
    /// The parameters as the server starts, which has `memory_bytes`.
    pub fn new(unix_zero_ms: i64, run_id: u64, memory_bytes: u64, value_bytes_max: usize) -> RespShared {
        let mut parameters: BTreeMap<&'static str, String> =
            PARAMETERS.iter().map(|Parameter(name, value, _)| (*name, (*value).to_string())).collect();
        parameters.insert("maxmemory", memory_bytes.to_string());
        parameters.insert("proto-max-bulk-len", value_bytes_max.to_string());
        RespShared {
            parameters: Mutex::new(parameters),
            next_client: AtomicU64::new(1),
            attention: AtomicU32::new(0),
            events: AtomicU32::new(0),
            paused_until: AtomicU64::new(0),
            pauses_writes_only: AtomicBool::new(false),
            transaction: AtomicU32::new(0),
            tracked_keys_max: AtomicUsize::new(0),
            unix_zero_ms,
            run_id: format!("{run_id:016x}{:016x}{:08x}", crate::base::prng::mix(run_id), run_id as u32),
            clients: AtomicUsize::new(0),
            tracking_clients: AtomicUsize::new(0),
            forgotten: Mutex::default(),
            memory_bytes,
        }
    }

    /// The number of a new client at `shard`, which it also names.
    pub fn client_id(&self, shard: u16) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed) << SHARD_BITS | u64::from(shard)
    }

    /// Whether a client may have had this number: later ones have not been given yet.
    pub fn was_given(&self, id: u64) -> bool {
        id >> SHARD_BITS < self.next_client.load(Ordering::Relaxed)
    }

    /// One parameter's value.
    pub fn parameter(&self, name: &str) -> String {
        self.lock().get(name).cloned().unwrap_or_default()
    }

    /// All parameters whose names match, with their values.
    pub fn matching(&self, patterns: &[&[u8]]) -> Vec<(&'static str, String)> {
        let lower: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
        let parameters = self.lock();
        let wanted = parameters.iter().filter(|(name, _)| lower.iter().any(|it| glob::matches(it, name.as_bytes())));
        wanted.map(|(name, value)| (*name, value.clone())).collect()
    }

    /// Sets parameters, all or none. What is wrong, in Redis's words.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        let mut parameters = self.lock();
        let mut wanted: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in pairs {
            let shown = String::from_utf8_lossy(name).to_lowercase();
            let Some(Parameter(name, _, kind)) = PARAMETERS.iter().find(|Parameter(known, ..)| *known == shown) else {
                return Err(format!("Unknown option or number of arguments for CONFIG SET - '{shown}'"));
            };
            if wanted.iter().any(|(known, _)| known == name) {
                return Err(format!("CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter"));
            }
            let failed = |why: &str| format!("CONFIG SET failed (possibly related to argument '{name}') - {why}");
            let text = String::from_utf8_lossy(value).into_owned();
            let text = match kind {
                Kind::Text => text,
                Kind::Fixed if parameters.get(name) == Some(&text) => text,
                Kind::Fixed => return Err(failed("can't set immutable config")),
                Kind::Bool if text == "yes" || text == "no" => text,
                Kind::Bool => return Err(failed("argument must be 'yes' or 'no'")),
                Kind::Number if text.parse::<i64>().is_ok() => text,
                Kind::Number => return Err(failed("argument couldn't be parsed into an integer")),
                Kind::Port if parameters.get(name) == Some(&text) => text,
                Kind::Port => {
                    return Err(failed("Unable to listen on this port: a running server keeps its listeners (--resp)"));
                }
                Kind::MemoryOrShare => match text.strip_suffix('%').map(str::parse::<u64>) {
                    Some(Ok(..=100)) => text,
                    Some(_) => return Err(failed("percentage argument must be less or equal to 100")),
                    None => memory(&text).ok_or_else(|| failed("argument must be a memory value"))?.to_string(),
                },
                Kind::Events => match events(&text) {
                    Some(events) => event_letters(events),
                    None => return Err(failed("Invalid event class character. Use 'Ag$lszhxeKEtmdn'.")),
                },
                Kind::Memory => memory(&text).ok_or_else(|| failed("argument must be a memory value"))?.to_string(),
                Kind::Choice(choices) if choices.split('|').any(|choice| choice == text) => text,
                Kind::Choice(choices) => {
                    return Err(failed(&format!(
                        "argument(s) must be one of the following: {}",
                        choices.replace('|', ", ")
                    )));
                }
            };
            wanted.push((name, text));
        }
        for (name, value) in wanted {
            if name == "tracking-table-max-keys" {
                self.tracked_keys_max.store(value.parse().unwrap_or(0), Ordering::Relaxed);
            }
            if name == "notify-keyspace-events" {
                let letters = events(&value).unwrap_or(0);
                // Neither by key nor by event: nobody could hear of it.
                let events = if letters & (BY_KEY | BY_EVENT) == 0 { 0 } else { letters };
                self.events.store(events, Ordering::Relaxed);
                self.attend(EVENTS, events != 0);
                self.attend(EXPIRIES, events & EXPIRED != 0);
            }
            parameters.insert(name, value);
        }
        Ok(())
    }

    /// Whether writes are refused for want of memory: somebody has set a bound with CONFIG SET, `used` is beyond it, and
    /// nothing may be evicted or the bound is below what an empty server takes.
    pub fn is_full(&self, used: u64) -> bool {
        let parameters = self.lock();
        let bound = parameters.get("maxmemory").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let keeps_all = parameters.get("maxmemory-policy").is_some_and(|policy| policy == "noeviction");
        bound > 0 && used > bound && (keeps_all || bound < EMPTY_BYTES)
    }

    /// Whether keys may go for want of memory.
    pub fn evicts(&self) -> bool {
        self.lock().get("maxmemory-policy").is_some_and(|policy| policy != "noeviction")
    }

    /// Every command must be looked at for this reason, or need not be any more.
    pub fn attend(&self, reason: u32, is_on: bool) {
        match is_on {
            true => self.attention.fetch_or(reason, Ordering::Relaxed),
            false => self.attention.fetch_and(!reason, Ordering::Relaxed),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.parameters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard where a client is connected.
pub fn shard_of_client(id: u64) -> u16 {
    (id & ((1 << SHARD_BITS) - 1)) as u16
}

/// A size as Redis writes it: 100, 1k, 1kb, 2mb, 3g.
fn memory(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let unit = match &lower[digits..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    lower[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// The letters of `notify-keyspace-events` as bits, in their order in [`EVENT_LETTERS`].
fn events(text: &str) -> Option<u32> {
    let mut bits = 0;
    for letter in text.chars() {
        bits |= match letter {
            'A' => ALL_KINDS,
            letter => 1 << EVENT_LETTERS.find(letter)?,
        };
    }
    Some(bits)
}

/// The letters of these bits, as Redis writes them.
fn event_letters(bits: u32) -> String {
    let is_all = bits & ALL_KINDS == ALL_KINDS;
    let mut text = String::from(if is_all { "A" } else { "" });
    let rest = if is_all { bits & !ALL_KINDS } else { bits };
    text.extend(
        EVENT_LETTERS.chars().enumerate().filter(|(place, _)| rest & 1 << place != 0).map(|(_, letter)| letter),
    );
    text
}

/// Clients are paused.
pub const PAUSED: u32 = 1;
/// Memory is full by what CONFIG SET said.
pub const FULL: u32 = 2;
/// Events about keys are published.
pub const EVENTS: u32 = 4;
/// One of them is that a key has expired.
pub const EXPIRIES: u32 = 8;
/// Kinds of events, the two channels, and what `A` does not stand for.
const EVENT_LETTERS: &str = "g$lshzxetdKEmn";
/// Events of commands about keys of any type.
pub const GENERIC: u32 = 1;
/// Events of commands about strings.
pub const STRING: u32 = 1 << 1;
/// A key has expired.
pub const EXPIRED: u32 = 1 << 6;
/// A key had to go for want of room.
pub const EVICTED: u32 = 1 << 7;
/// Events are published by key.
pub const BY_KEY: u32 = 1 << 10;
/// Events are published by their name.
pub const BY_EVENT: u32 = 1 << 11;
/// A key has come to be.
pub const NEW: u32 = 1 << 13;
const ALL_KINDS: u32 = (1 << 10) - 1;
/// A bound below this cannot be kept by evicting.
const EMPTY_BYTES: u64 = 1 << 20;

/// A client's number ends with its shard.
const SHARD_BITS: u32 = 8;

const _: () = assert!(crate::base::limits::SHARD_COUNT_MAX <= 1 << SHARD_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> RespShared {
        RespShared::new(0, 1, 64 << 20, 1000)
    }

    #[test]
    fn every_parameter_takes_the_value_it_has() {
        let shared = shared();
        for (name, value) in shared.matching(&[b"*"]) {
            assert_eq!(shared.set(&[(name.as_bytes(), value.as_bytes())]), Ok(()), "{name}");
        }
    }

    #[test]
    fn parameters_are_set_all_or_none() {
        let shared = shared();
        assert_eq!(shared.set(&[(b"hz", b"50"), (b"MaxMemory", b"2mb")]), Ok(()));
        assert_eq!((shared.parameter("hz"), shared.parameter("maxmemory")), ("50".into(), "2097152".into()));
        assert_eq!(shared.set(&[(b"notify-keyspace-events", b"gxK$lszhetdE")]), Ok(()));
        assert_eq!(shared.parameter("notify-keyspace-events"), "AKE");
        for bad in [(b"nosuch".as_slice(), b"1".as_slice()), (b"port", b"1"), (b"hz", b"x"), (b"appendonly", b"maybe")]
        {
            assert!(shared.set(&[(b"timeout", b"9"), bad]).is_err());
        }
        assert_eq!(shared.parameter("timeout"), "0");
        assert_eq!(shared.matching(&[b"max*policy", b"hz"]).len(), 2);
    }

    #[test]
    fn a_clients_number_names_its_shard_and_later_ones_are_larger() {
        let shared = shared();
        let (first, second) = (shared.client_id(200), shared.client_id(3));
        assert_eq!((shard_of_client(first), shard_of_client(second), first < second), (200, 3, true));
    }
}

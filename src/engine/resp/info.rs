//! INFO, LATENCY HISTOGRAM, and what CONFIG RESETSTAT sets back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::DerefMut;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::engine::core::Core;
use crate::engine::resp::clients::REDIS_VERSION;
use crate::engine::resp::front::subcommand;
use crate::engine::resp::gather;
use crate::host::process;
use crate::observe::calls::{CallSums, call_sums};
use crate::wire::resp::commands::{COMMANDS, Cmd};
use crate::wire::resp::encode;

/// What CONFIG RESETSTAT sets back: counters and calls as they stood then.
#[derive(Default)]
pub struct Forgotten {
    counters: BTreeMap<&'static str, u64>,
    calls: Vec<CallSums>,
}

/// Sections that INFO has, and whether it shows them unasked.
const SECTIONS: &[(&str, bool)] = &[
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("persistence", true),
    ("stats", true),
    ("replication", true),
    ("cpu", true),
    ("modules", true),
    ("errorstats", true),
    ("cluster", true),
    ("keyspace", true),
    ("commandstats", false),
    ("latencystats", false),
];

impl<M: DerefMut<Target = [u8]>> Core<M> {
    pub(super) fn info(&mut self, words: &[&[u8]], is_resp3: bool, reply: &mut Vec<u8>) {
        let asked: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).to_lowercase()).collect();
        let everything = asked.iter().any(|word| word == "all" || word == "everything");
        let unasked = asked.is_empty() || asked.iter().any(|word| word == "default");
        let mut text = String::new();
        for (name, is_default) in SECTIONS {
            if everything || (unasked && *is_default) || asked.iter().any(|word| word == name) {
                if !text.is_empty() {
                    text.push_str("\r\n");
                }
                self.section(name, &mut text);
            }
        }
        gather::text(text.as_bytes(), is_resp3, reply);
    }

    fn section(&self, name: &str, text: &mut String) {
        let mut title = name.to_string();
        title[..1].make_ascii_uppercase();
        let sums = self.sums();
        let of = |name: &str| sums.get(name).copied().unwrap_or(0);
        let resp = &self.shared.resp;
        // Writing to a string cannot fail.
        let mut put = |name: &str, value: String| {
            let _ = write!(text, "{name}:{value}\r\n");
        };
        let whole = |number: u64| number.to_string();
        let uptime = self.now.ms / 1000;
        match name {
            "server" => {
                put("# Server", String::new());
                put("redis_version", REDIS_VERSION.into());
                put("redis_git_sha1", "00000000".into());
                put("redis_git_dirty", "0".into());
                put("redis_mode", "standalone".into());
                put("spinetail_version", env!("CARGO_PKG_VERSION").into());
                put("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
                put("arch_bits", "64".into());
                put("multiplexing_api", "io_uring".into());
                put("process_id", std::process::id().to_string());
                put("run_id", resp.run_id.clone());
                put("tcp_port", resp.parameter("port"));
                put("server_time_usec", whole(1000 * u64::try_from(self.keys.unix_ms()).unwrap_or(0)));
                put("uptime_in_seconds", whole(uptime));
                put("uptime_in_days", whole(uptime / 86_400));
                put("hz", resp.parameter("hz"));
                put("shards", self.shared.counters.len().to_string());
                put("executable", "spinetail".into());
                put("config_file", String::new());
            }
            "clients" => {
                put("# Clients", String::new());
                put("connected_clients", resp.clients.load(Ordering::Relaxed).to_string());
                put("cluster_connections", "0".into());
                put("maxclients", resp.parameter("maxclients"));
                put("client_recent_max_input_buffer", "0".into());
                put("client_recent_max_output_buffer", "0".into());
                put("blocked_clients", "0".into());
                put("tracking_clients", resp.tracking_clients.load(Ordering::Relaxed).to_string());
                put("clients_in_timeout_table", "0".into());
            }
            "memory" => {
                let (used, all) = (of("used_bytes"), resp.memory_bytes);
                put("# Memory", String::new());
                put("used_memory", whole(used));
                put("used_memory_human", human(used));
                put("used_memory_rss", whole(process::resident_bytes()));
                put("used_memory_peak", whole(used));
                put("used_memory_dataset", whole(of("payload_bytes")));
                put("used_memory_overhead", whole(used.saturating_sub(of("payload_bytes"))));
                put("used_memory_startup", "0".into());
                put("total_system_memory", "0".into());
                put("maxmemory", resp.parameter("maxmemory"));
                put("maxmemory_human", human(resp.parameter("maxmemory").parse().unwrap_or(0)));
                put("maxmemory_policy", resp.parameter("maxmemory-policy"));
                put("memory_budget", whole(all));
                put("mem_fragmentation_ratio", "1.00".into());
                put("mem_allocator", "segments".into());
                put("lazyfree_pending_objects", "0".into());
            }
            "persistence" => {
                put("# Persistence", String::new());
                for (name, value) in [
                    ("loading", "0"),
                    ("async_loading", "0"),
                    ("rdb_changes_since_last_save", "0"),
                    ("rdb_bgsave_in_progress", "0"),
                    ("rdb_last_save_time", "0"),
                    ("rdb_last_bgsave_status", "ok"),
                    ("rdb_last_bgsave_time_sec", "-1"),
                    ("rdb_current_bgsave_time_sec", "-1"),
                    ("aof_enabled", "0"),
                    ("aof_rewrite_in_progress", "0"),
                    ("aof_last_bgrewrite_status", "ok"),
                    ("aof_last_write_status", "ok"),
                ] {
                    put(name, value.into());
                }
            }
            "stats" => {
                let (keys, items, prefixes) = self.keys.tracking.counts();
                let commands: u64 = self.call_sums().iter().map(|sum| sum.count).sum();
                put("# Stats", String::new());
                put("total_connections_received", whole(of("connections_opened")));
                put("total_commands_processed", whole(commands));
                put("instantaneous_ops_per_sec", whole(commands / uptime.max(1)));
                put("total_net_input_bytes", whole(of("received_bytes")));
                put("total_net_output_bytes", whole(of("sent_bytes")));
                put("rejected_connections", "0".into());
                put("expired_keys", whole(of("expired")));
                put("evicted_keys", whole(of("evicted")));
                put("evicted_clients", whole(of("listeners_dropped")));
                put("keyspace_hits", whole(of("get_hits")));
                put("keyspace_misses", whole(of("get_misses")));
                put("pubsub_channels", self.pubsub.channels(None).count().to_string());
                put("pubsub_patterns", self.pubsub.patterns().count().to_string());
                put("latest_fork_usec", "0".into());
                put("total_forks", "0".into());
                put("tracking_total_keys", keys.to_string());
                put("tracking_total_items", items.to_string());
                put("tracking_total_prefixes", prefixes.to_string());
                put("unexpected_error_replies", "0".into());
                put("total_error_replies", whole(of("refused") + self.open_calls_rejected));
                put("l0_hits", whole(of("l0_hits")));
                put("forwarded", whole(of("forwarded_out")));
            }
            "replication" => {
                put("# Replication", String::new());
                put("role", "master".into());
                put("connected_slaves", "0".into());
                put("master_failover_state", "no-failover".into());
                put("master_replid", resp.run_id.clone());
                put("master_repl_offset", "0".into());
                put("second_repl_offset", "-1".into());
                put("repl_backlog_active", "0".into());
            }
            "cpu" => {
                let (user, system) = process::cpu_seconds();
                put("# CPU", String::new());
                put("used_cpu_sys", format!("{system:.6}"));
                put("used_cpu_user", format!("{user:.6}"));
            }
            "modules" => put("# Modules", String::new()),
            "errorstats" => {
                put("# Errorstats", String::new());
                let errors = of("refused") + self.open_calls_rejected;
                if errors > 0 {
                    put("errorstat_ERR", format!("count={errors}"));
                }
            }
            "cluster" => {
                put("# Cluster", String::new());
                put("cluster_enabled", "0".into());
            }
            "keyspace" => {
                put("# Keyspace", String::new());
                let keys = of("entries");
                if keys > 0 {
                    put("db0", format!("keys={keys},expires=0,avg_ttl=0"));
                }
            }
            "commandstats" => {
                put("# Commandstats", String::new());
                for (name, sum) in self.called() {
                    let (us, each) = (sum.total_ns / 1000, sum.total_ns as f64 / 1000.0 / sum.count as f64);
                    let line = format!(
                        "calls={},usec={us},usec_per_call={each:.2},rejected_calls=0,failed_calls=0",
                        sum.count
                    );
                    put(&format!("cmdstat_{name}"), line);
                }
            }
            "latencystats" => {
                put("# Latencystats", String::new());
                let parameter = resp.parameter("latency-tracking-info-percentiles");
                let percentiles: Vec<f64> = parameter.split_whitespace().filter_map(|text| text.parse().ok()).collect();
                for (name, sum) in self.called() {
                    let each: Vec<String> = percentiles
                        .iter()
                        .map(|percentile| {
                            let us = sum.quantile_ns(percentile / 100.0) as f64 / 1000.0;
                            format!("p{percentile}={us:.3}")
                        })
                        .collect();
                    put(&format!("latency_percentiles_usec_{name}"), each.join(","));
                }
            }
            _ => {}
        }
        // Titles have no colon.
        *text =
            text.replacen(&format!("# {title}:\r\n"), &format!("# {title}\r\n"), 1).replace("# CPU:\r\n", "# CPU\r\n");
    }

    /// Sums of the shards' counters since the last CONFIG RESETSTAT; gauges as they are.
    fn sums(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = self.sums_ever();
        // This shard knows better than what it left for readers a quarter of a second ago.
        let (mine, left) = (self.keys.store.stats(), &self.shared.counters[self.id.0 as usize]);
        for (name, now, then) in [
            ("entries", mine.entries, left.entries.get()),
            ("used_bytes", mine.used_bytes, left.used_bytes.get()),
            ("payload_bytes", mine.payload_bytes, left.payload_bytes.get()),
            ("evicted", mine.evicted, left.evicted.get()),
            ("expired", mine.expired, left.expired.get()),
        ] {
            let sum = sums.entry(name).or_default();
            *sum = (*sum + now).saturating_sub(then);
        }
        let forgotten = self.shared.resp.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, before) in &forgotten.counters {
            if let Some(sum) = sums.get_mut(name) {
                *sum = sum.saturating_sub(*before);
            }
        }
        sums
    }

    fn sums_ever(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for shard in &self.shared.counters {
            for (name, value) in shard.values() {
                *sums.entry(name).or_default() += value;
            }
        }
        sums
    }

    fn call_sums(&self) -> Vec<CallSums> {
        let mut sums = call_sums(self.shared.calls.iter());
        let forgotten = self.shared.resp.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        sums.iter_mut().zip(&forgotten.calls).for_each(|(sum, before)| sum.since(before));
        sums
    }

    /// Commands that were called.
    fn called(&self) -> Vec<(&'static str, CallSums)> {
        let all = COMMANDS.iter().map(|row| row.name).zip(self.call_sums());
        all.filter(|(_, sum)| sum.count > 0).collect()
    }

    /// Sets counters back (CONFIG RESETSTAT).
    pub(super) fn forget_counters(&mut self) {
        const COUNTED: [&str; 9] = [
            "connections_opened",
            "received_bytes",
            "sent_bytes",
            "expired",
            "evicted",
            "listeners_dropped",
            "get_hits",
            "get_misses",
            "refused",
        ];
        self.open_calls_rejected = 0;
        let mut counters = self.sums_ever();
        counters.retain(|name, _| COUNTED.contains(name));
        let calls = call_sums(self.shared.calls.iter());
        *self.shared.resp.forgotten.lock().unwrap_or_else(PoisonError::into_inner) = Forgotten { counters, calls };
    }

    pub(super) fn latency(&mut self, words: &[&[u8]], is_resp3: bool, reply: &mut Vec<u8>) {
        match words[0].to_ascii_uppercase().as_slice() {
            b"HISTOGRAM" => {
                let asked: Vec<String> =
                    words[1..].iter().map(|word| String::from_utf8_lossy(word).to_lowercase()).collect();
                let called = self.called();
                let wanted: Vec<_> =
                    called.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|it| it == name)).collect();
                encode::map(wanted.len(), is_resp3, reply);
                for (name, sum) in wanted {
                    encode::bulk(name.as_bytes(), reply);
                    encode::map(2, is_resp3, reply);
                    encode::bulk(b"calls", reply);
                    encode::integer(sum.count as i64, reply);
                    encode::bulk(b"histogram_usec", reply);
                    let buckets = sum.by_microseconds();
                    encode::map(buckets.len(), is_resp3, reply);
                    for (us, count) in buckets {
                        encode::integer(us as i64, reply);
                        encode::integer(count as i64, reply);
                    }
                }
            }
            b"LATEST" => encode::array(0, reply),
            b"HISTORY" => encode::array(0, reply),
            b"RESET" => encode::integer(0, reply),
            _ => subcommand(Cmd::Latency, words[0], reply),
        }
    }
}

/// A size for people.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{amount:.2}{}", UNITS[unit]) }
}

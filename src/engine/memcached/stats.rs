//! What STATS answers: memcached's names for what is known here. What this server does not have is not answered.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::ops::DerefMut;

use crate::base::limits;
use crate::engine::core::Core;
use crate::host::process;
use crate::wire::memcached::encode;

/// What clients are told they talk to: the version of memcached whose protocol this is, and ours.
pub const VERSION: &str = concat!("1.6.18-spinetail-", env!("CARGO_PKG_VERSION"));

/// Lines of `STAT name value`.
#[derive(Default)]
struct Stats(String);

impl Stats {
    fn put(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "STAT {name} {value}\r\n");
    }

    fn end(mut self, reply: &mut Vec<u8>) {
        self.0.push_str("END\r\n");
        reply.extend_from_slice(self.0.as_bytes());
    }
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Answers STATS and the words behind it.
    pub(super) fn memcached_stats(&mut self, line: &[u8], reply: &mut Vec<u8>) {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
        let mut stats = Stats::default();
        match words[..] {
            [] => self.general(&mut stats),
            [b"settings", ..] => self.settings(&mut stats),
            [b"items", ..] => self.items(&mut stats),
            [b"slabs", ..] => self.slabs(&mut stats),
            [b"sizes" | b"sizes_enable" | b"sizes_disable", ..] => stats.put("sizes_status", "disabled"),
            [b"conns", ..] => {}
            [b"reset", ..] => {
                self.forget_memcached_counters();
                return encode::line("RESET", reply);
            }
            [b"detail", how, ..] => return self.detail(how, reply),
            [b"detail"] => return self.detail(b"", reply),
            [b"cachedump", ..] => return encode::line("CLIENT_ERROR stats cachedump not allowed", reply),
            _ => return encode::line("ERROR", reply),
        }
        stats.end(reply);
    }

    fn general(&self, stats: &mut Stats) {
        let sums = self.memcached_sums();
        let of = |name: &str| sums.get(name).copied().unwrap_or_default();
        let (user, system) = process::cpu_seconds();
        let connections = self.sum("connections_opened").saturating_sub(self.sum("connections_closed"));
        stats.put("pid", std::process::id());
        stats.put("uptime", self.now.ms / 1000);
        stats.put("time", self.keys.unix_ms() / 1000);
        stats.put("version", VERSION);
        stats.put("libevent", "none");
        stats.put("pointer_size", usize::BITS);
        stats.put("rusage_user", format_args!("{user:.6}"));
        stats.put("rusage_system", format_args!("{system:.6}"));
        stats.put("max_connections", self.shared.resp.parameter("maxclients"));
        stats.put("curr_connections", connections);
        stats.put("total_connections", of("connections_opened"));
        stats.put("rejected_connections", 0);
        stats.put("connection_structures", connections);
        stats.put("cmd_get", of("get_hits") + of("get_misses"));
        stats.put("cmd_set", of("sets") + of("sets_unmet"));
        stats.put("cmd_flush", of("flushes"));
        stats.put("cmd_touch", of("touches") + of("touch_misses"));
        stats.put("cmd_meta", of("meta_debugs"));
        for (name, counter) in [
            ("get_hits", "get_hits"),
            ("get_misses", "get_misses"),
            ("get_expired", "gets_expired"),
            ("delete_misses", "delete_misses"),
            ("delete_hits", "deletes"),
            ("incr_misses", "increment_misses"),
            ("incr_hits", "increments"),
            ("decr_misses", "decrement_misses"),
            ("decr_hits", "decrements"),
            ("cas_misses", "cas_misses"),
            ("cas_hits", "cas_hits"),
            ("cas_badval", "cas_differs"),
            ("touch_hits", "touches"),
            ("touch_misses", "touch_misses"),
            ("store_too_large", "too_large"),
            ("store_no_memory", "refused_busy"),
        ] {
            stats.put(name, of(counter));
        }
        stats.put("auth_cmds", 0);
        stats.put("auth_errors", 0);
        stats.put("bytes_read", of("received_bytes"));
        stats.put("bytes_written", of("sent_bytes"));
        stats.put("limit_maxbytes", self.shared.resp.memory_bytes);
        stats.put("accepting_conns", 1);
        stats.put("listen_disabled_num", 0);
        stats.put("time_in_listen_disabled_us", 0);
        stats.put("threads", self.shared.counters.len());
        stats.put("conn_yields", 0);
        stats.put("hash_bytes", of("index_bytes"));
        stats.put("hash_is_expanding", 0);
        stats.put("malloc_fails", 0);
        stats.put("bytes", of("payload_bytes"));
        stats.put("curr_items", of("entries"));
        stats.put("total_items", of("sets"));
        stats.put("evictions", of("evicted"));
        stats.put("reclaimed", of("expired"));
        stats.put("lrutail_reflocked", 0);
    }

    fn settings(&self, stats: &mut Stats) {
        stats.put("maxbytes", self.shared.resp.memory_bytes);
        stats.put("maxconns", self.shared.resp.parameter("maxclients"));
        stats.put("verbosity", 0);
        stats.put("evictions", "on");
        stats.put("domain_socket", "NULL");
        stats.put("shutdown_command", "no");
        stats.put("num_threads", self.shared.counters.len());
        stats.put("stat_key_prefix", char::from(super::prefixes::DELIMITER));
        stats.put("detail_enabled", if self.shared.memcached.is_observed() { "yes" } else { "no" });
        stats.put("reqs_per_event", limits::REQUESTS_PER_TURN);
        stats.put("cas_enabled", "yes");
        stats.put("binding_protocol", "ascii");
        stats.put("auth_enabled_sasl", "no");
        stats.put("auth_enabled_ascii", "no");
        stats.put("item_size_max", self.keys.store.item_bytes_max());
        stats.put("slab_reassign", "no");
        stats.put("slab_automove", 0);
        stats.put("lru_crawler", "no");
        stats.put("flush_enabled", "yes");
        stats.put("dump_enabled", "no");
        stats.put("hash_algorithm", "xxh3");
        stats.put("lru_maintainer_thread", "no");
        stats.put("track_sizes", "no");
    }

    /// All items are of one class: there are no others.
    fn items(&self, stats: &mut Stats) {
        let sums = self.memcached_sums();
        let of = |name: &str| sums.get(name).copied().unwrap_or_default();
        if of("entries") == 0 {
            return;
        }
        for (name, value) in [
            ("number", of("entries")),
            ("age", 0),
            ("mem_requested", of("used_bytes")),
            ("evicted", of("evicted")),
            ("evicted_nonzero", 0),
            ("evicted_time", 0),
            ("outofmemory", 0),
            ("reclaimed", of("expired")),
        ] {
            stats.put(&format!("items:1:{name}"), value);
        }
    }

    /// A page is a segment, in which items of any size lie one behind the other.
    fn slabs(&self, stats: &mut Stats) {
        let sums = self.memcached_sums();
        let of = |name: &str| sums.get(name).copied().unwrap_or_default();
        let segment_bytes = self.keys.store.item_bytes_max() as u64;
        let free_pages = of("arena_bytes").saturating_sub(of("used_bytes")) / segment_bytes;
        for (name, value) in [
            ("chunk_size", segment_bytes),
            ("chunks_per_page", 1),
            ("total_pages", of("used_bytes") / segment_bytes),
            ("total_chunks", of("entries") + free_pages),
            ("used_chunks", of("entries")),
            ("free_chunks", free_pages),
            ("free_chunks_end", 0),
            ("get_hits", of("get_hits")),
            ("cmd_set", of("sets") + of("sets_unmet")),
            ("delete_hits", of("deletes")),
            ("incr_hits", of("increments")),
            ("decr_hits", of("decrements")),
            ("cas_hits", of("cas_hits")),
            ("cas_badval", of("cas_differs")),
            ("touch_hits", of("touches")),
        ] {
            stats.put(&format!("1:{name}"), value);
        }
        stats.put("active_slabs", 1);
        stats.put("total_malloced", of("arena_bytes"));
    }

    fn detail(&mut self, how: &[u8], reply: &mut Vec<u8>) {
        let shared = &self.shared.memcached;
        match how {
            b"on" | b"off" => {
                shared.observe(how == b"on");
                self.keep_time();
                encode::line("OK", reply);
            }
            b"dump" => shared.observer.dump(reply),
            _ => encode::line("CLIENT_ERROR usage: stats detail on|off|dump", reply),
        }
    }

    /// Sums of the shards' counters since the last `stats reset`; gauges as they are.
    fn memcached_sums(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for shard in &self.shared.counters {
            for (name, value) in shard.values() {
                *sums.entry(name).or_default() += value;
            }
        }
        // This shard knows better than what it left for readers a moment ago.
        let (mine, left) = (self.keys.store.stats(), self.counters());
        for (name, now, then) in [
            ("entries", mine.entries, left.entries.get()),
            ("used_bytes", mine.used_bytes, left.used_bytes.get()),
            ("arena_bytes", mine.arena_bytes, left.arena_bytes.get()),
            ("payload_bytes", mine.payload_bytes, left.payload_bytes.get()),
            ("index_bytes", mine.index_bytes, left.index_bytes.get()),
            ("evicted", mine.evicted, left.evicted.get()),
            ("expired", mine.expired, left.expired.get()),
        ] {
            let sum: &mut u64 = sums.entry(name).or_default();
            *sum = (*sum + now).saturating_sub(then);
        }
        for (name, before) in &*self.shared.memcached.forgotten() {
            if let Some(sum) = sums.get_mut(name) {
                *sum = sum.saturating_sub(*before);
            }
        }
        sums
    }

    /// One sum, never set back.
    fn sum(&self, name: &str) -> u64 {
        let values = self.shared.counters.iter().flat_map(|shard| shard.values());
        values.filter(|(known, _)| *known == name).map(|(_, value)| value).sum()
    }

    fn forget_memcached_counters(&mut self) {
        self.shared.memcached.forgotten().clear();
        let mut sums = self.memcached_sums();
        sums.retain(|name, _| !GAUGES.contains(name));
        *self.shared.memcached.forgotten() = sums;
        self.shared.memcached.observer.clear();
    }
}

/// What is as it is, and not counted.
const GAUGES: [&str; 5] = ["entries", "used_bytes", "arena_bytes", "payload_bytes", "index_bytes"];

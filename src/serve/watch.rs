//! Once a second: what the shards' counters say went wrong, as lines of the log.
//!
//! A shard counts and says nothing. What it counted is compared here with what it had counted a second before, by a
//! housekeeping thread: one line for each kind of trouble and each shard, with how often, and what to do.

use crate::serve::log::Line;

/// A counter that should not move.
struct Trouble {
    counter: &'static str,
    msg: &'static str,
    remedy: &'static str,
}

const TROUBLES: [Trouble; 7] = [
    Trouble {
        counter: "malformed",
        msg: "connections closed for bytes that made no sense",
        remedy: "see that clients speak the protocol of the port they connect to",
    },
    Trouble {
        counter: "connections_stalled",
        msg: "connections closed for taking nothing",
        remedy: "look for clients that hang or ask for more than they read",
    },
    Trouble {
        counter: "listeners_dropped",
        msg: "RESP clients closed for not reading what they were told",
        remedy: "let subscribers read faster, or listen to less",
    },
    Trouble {
        counter: "near_dropped",
        msg: "near caches closed for not reading what was pushed",
        remedy: "look for programs with a near cache that hang",
    },
    Trouble {
        counter: "refused_busy",
        msg: "requests refused for lack of buffer memory",
        remedy: "raise --memory, or lower what clients have under way",
    },
    Trouble {
        counter: "too_large",
        msg: "values refused for their size",
        remedy: "store them in parts, or raise --memory: a value fits a segment",
    },
    Trouble {
        counter: "refused",
        msg: "requests refused",
        remedy: "see what clients send: bad lengths, unknown commands or values too large",
    },
];

/// Counters whose sum is what clients asked for.
const REQUESTS: [&str; 6] = ["get_hits", "get_misses", "sets", "deletes", "increments", "touches"];

/// What one shard counted within a second that should not be. Names that `before` lacks count from zero.
pub fn notable(shard: usize, before: &[(&str, u64)], after: &[(&str, u64)]) -> Vec<Line> {
    let lines = TROUBLES.iter().filter_map(|trouble| {
        let count = grown(trouble.counter, before, after);
        let line = || Line::warn(trouble.msg).with("shard", shard).with("count", count).with("remedy", trouble.remedy);
        (count > 0).then(line)
    });
    lines.collect()
}

/// What is remembered from one second to the next.
#[derive(Default)]
pub struct Watch {
    before: Vec<Vec<(&'static str, u64)>>,
    /// Requests in the last second, all shards together.
    pub requests: u64,
    /// Entries at its end.
    pub entries: u64,
}

impl Watch {
    /// Takes the counters of all shards, once a second.
    pub fn second(&mut self, after: Vec<Vec<(&'static str, u64)>>) -> Vec<Line> {
        let mut lines = Vec::new();
        (self.requests, self.entries) = (0, 0);
        for (shard, after) in after.iter().enumerate() {
            let before = self.before.get(shard).map_or(&[][..], Vec::as_slice);
            lines.extend(notable(shard, before, after));
            self.requests += REQUESTS.iter().map(|name| grown(name, before, after)).sum::<u64>();
            self.entries += value("entries", after);
        }
        self.before = after;
        lines
    }
}

fn grown(name: &str, before: &[(&str, u64)], after: &[(&str, u64)]) -> u64 {
    // Clients may set counters back (CONFIG RESETSTAT): that is no trouble.
    value(name, after).saturating_sub(value(name, before))
}

fn value(name: &str, values: &[(&str, u64)]) -> u64 {
    values.iter().find(|(other, _)| *other == name).map_or(0, |(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::log::Format;

    #[test]
    fn what_has_grown_is_told_with_its_count_and_a_remedy() {
        let before = [("sets", 3), ("malformed", 2), ("near_dropped", 1), ("refused_busy", 9)];
        let after = [("sets", 90), ("malformed", 7), ("near_dropped", 1), ("refused_busy", 0)];
        let lines = notable(4, &before, &after);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let text = lines[0].text(Format::Logfmt, 0);
        assert!(text.contains("level=warn") && text.contains(" shard=4 count=5 remedy=\"see that"), "{text}");
        assert!(notable(4, &after, &after).is_empty());
    }

    #[test]
    fn kinds_differ_in_their_message_so_that_each_has_a_rate_of_its_own() {
        let after: Vec<(&str, u64)> = TROUBLES.iter().map(|trouble| (trouble.counter, 1)).collect();
        let mut kinds: Vec<&str> = notable(0, &[], &after).iter().map(Line::msg).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), TROUBLES.len());
    }

    /// A counter that is renamed must not fall silent here.
    #[test]
    fn every_counter_named_here_is_one_that_shards_have() {
        let page = include_str!("../observe/counters.rs");
        for name in TROUBLES.iter().map(|trouble| trouble.counter).chain(REQUESTS).chain(["entries"]) {
            assert!(page.contains(&format!("\n    {name},\n")), "no counter {name}");
        }
    }

    #[test]
    fn a_watch_sums_over_shards_and_remembers() {
        let mut watch = Watch::default();
        let shards = |sets, malformed| vec![vec![("sets", sets), ("malformed", malformed), ("entries", 10)]; 2];
        assert_eq!(watch.second(shards(5, 0)).len(), 0);
        assert_eq!((watch.requests, watch.entries), (10, 20));
        assert_eq!(watch.second(shards(8, 1)).len(), 2);
        assert_eq!(watch.requests, 6);
        assert_eq!(watch.second(shards(8, 1)).len(), 0);
        assert_eq!(watch.requests, 0);
    }
}

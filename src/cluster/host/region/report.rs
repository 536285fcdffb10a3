//! A region's part of a node that runs: what it says for its region, what it shows, what its socket may ask.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::id::SiteId;
use crate::cluster::Command;
use crate::cluster::host::region::{RegionHandle, Submit};
use crate::cluster::host::submit::Submitter;
use crate::cluster::region::{Expires, StrongOp, StrongReply};

/// Says what a leader says for its region, and says it again if that fails: whoever leads later says something later.
pub(in crate::cluster::host) fn submit_through(submitter: Submitter) -> Submit {
    Arc::new(move |command: Command| {
        let submitter = submitter.clone();
        tokio::spawn(async move {
            for _ in 0..ATTEMPTS {
                if submitter.submit(command.clone()).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    })
}

/// A submission waits for half a minute itself. Who leads a region is news for routes and status; nothing here hangs
/// on it.
const ATTEMPTS: usize = 5;

impl RegionHandle {
    /// How the region does, as this node sees it.
    pub fn report(&self) -> Value {
        let (homes, counters) = (self.leases(), self.counters());
        let served: Vec<u8> = homes.iter().filter(|home| home.left_ms > 0).map(|home| home.home).collect();
        let whole = homes.iter().filter(|home| home.is_whole).count();
        let refused: serde_json::Map<String, Value> =
            counters.refused.iter().map(|(node, count)| (node.to_string(), json!(count))).collect();
        json!({
            "site": self.site(), "homes": homes.len(), "homes_served": served, "homes_whole": whole,
            "homes_without_memory": self.lost_homes(), "elections": counters.elections, "reads": counters.reads,
            "writes": counters.writes, "unknown": counters.unknown, "fenced_off": counters.fenced_off,
            "refused_by_node": refused, "last_refused": counters.last_refused.map(|last| last.to_string()),
            "homes_lost": counters.homes_lost, "bad_messages": counters.bad_messages, "strangers": counters.strangers,
        })
    }

    /// The region's site.
    pub fn site(&self) -> SiteId {
        self.site
    }
}

/// What the control socket may ask of a strong key: for people and tests, so keys and values are text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrongAsk {
    /// Its value.
    Read,
    /// That it have this value.
    Set(String),
    /// That it have none.
    Delete,
    /// That its value, an integer, be greater by this.
    Increment(i64),
}

impl From<StrongAsk> for StrongOp {
    fn from(ask: StrongAsk) -> StrongOp {
        match ask {
            StrongAsk::Read => StrongOp::Read,
            StrongAsk::Set(value) => StrongOp::Set(value.into_bytes(), Expires::Never),
            StrongAsk::Delete => StrongOp::Delete,
            StrongAsk::Increment(by) => StrongOp::Increment(by),
        }
    }
}

/// What is answered to that.
pub fn shown(reply: StrongReply) -> Value {
    match reply {
        StrongReply::Value(value) => {
            json!({ "value": value.map(|value| String::from_utf8_lossy(&value).into_owned()) })
        }
        StrongReply::Seen(entry, _) => {
            json!({ "value": entry.value.map(|value| String::from_utf8_lossy(&value).into_owned()) })
        }
        StrongReply::Done => json!({ "done": true }),
        StrongReply::Was(was) => json!({ "was": was }),
        StrongReply::Sum(sum) => json!({ "sum": sum }),
        StrongReply::Refused(why) => json!({ "refused": why.to_string() }),
        StrongReply::Unknown => json!({ "unknown": true }),
    }
}

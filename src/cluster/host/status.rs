//! How a node does: for `cluster status`, for /metrics, for tests.
//!
//! [`Shared`] is written by the threads that know and read by whoever asks; nothing waits for it longer than a copy
//! takes. Parts that this file knows nothing of (Raft, replication, probes) fill in theirs through
//! [`Shared::add_part`], so that one answer has everything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::host::lock;
use crate::cluster::keys::hexadecimal as hex;
use crate::cluster::ordering::{Evidence, Executed};

/// How a node does. All of it is one JSON object; names are for scripts and stay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The cluster, hexadecimal.
    pub network: String,
    /// This node.
    pub node: u16,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: u8,
    /// Whether it votes for its site.
    pub votes: bool,
    /// How often this folder has been started.
    pub boot: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Sites.
    pub sites: usize,
    /// How many of them may lie.
    pub tolerates: usize,
    /// The last executed height.
    pub height: u64,
    /// The round under way at the next.
    pub round: u32,
    /// The site that proposes first.
    pub primary: u8,
    /// SHA-256 of the state, hexadecimal: equal at equal heights.
    pub state: String,
    /// Heights others are ahead by, as far as they say.
    pub behind: u64,
    /// Commands that wait here.
    pub pending: usize,
    /// The last heights, oldest first.
    pub executed: Vec<ExecutedReport>,
    /// Of heights executed since the start: how many were not decided in their first round.
    pub slow_heights: u64,
    /// From a command's submission at this node to its execution here, since the start.
    pub decision: Option<Quantiles>,
    /// Flushes of the write-ahead log since the start.
    pub flush: Option<Quantiles>,
    /// Links to the other nodes.
    pub links: Vec<LinkReport>,
    /// Who was caught, the last of them.
    pub evidence: Vec<EvidenceReport>,
    /// How many times somebody was caught.
    pub evidence_count: u64,
    /// Connections and frames refused, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Ordering messages refused, by reason.
    pub ordering_refusals: BTreeMap<String, u64>,
    /// Frames that nobody here had room for.
    pub dropped: u64,
    /// Of the region's Raft group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// The region's leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<u16>,
    /// How far replication streams to each node are behind, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<BTreeMap<u16, f64>>,
    /// What else parts have to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, serde_json::Value>,
}

/// A height that was executed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExecutedReport {
    /// Which.
    pub height: u64,
    /// In which round.
    pub round: u32,
    /// Who first proposed it.
    pub proposer: u8,
    /// Commands in it.
    pub commands: usize,
    /// SHA-256 of its value, hexadecimal.
    pub value: String,
}

/// A link to another node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkReport {
    /// The node.
    pub node: u16,
    /// Its site.
    pub site: u8,
    /// All groups of channels are connected.
    pub connected: bool,
    /// The smoothed round trip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// What nine of ten recent round trips did not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_p90_ms: Option<f64>,
    /// Part of recent probes without an answer, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// How far its clock is ahead of this node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<f64>,
    /// By how much that may be wrong, either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_error_ms: Option<f64>,
    /// Connections made so far.
    pub connections: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: usize,
    /// Bytes of messages sent.
    pub sent_bytes: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
}

/// Somebody who was caught.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvidenceReport {
    /// Who.
    pub culprit: u8,
    /// At which height.
    pub height: u64,
    /// In which round.
    pub round: u32,
    /// What was said twice.
    pub what: &'static str,
}

/// A distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// Of a hundred, all but one are below.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// A value for /metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its family.
    pub name: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// What the family is about.
    pub help: &'static str,
    /// What tells it from its kin.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

/// What a part adds to a status.
pub type Part = Box<dyn Fn(&mut Status) + Send + Sync>;

/// What a node's threads know of how it does.
pub struct Shared {
    began: Instant,
    facts: Mutex<Facts>,
    parts: Mutex<Vec<Part>>,
}

struct Facts {
    /// What does not fit elsewhere: written as it is shown.
    status: Status,
    executed: VecDeque<Executed>,
    evidence: VecDeque<Evidence>,
    evidence_count: u64,
    slow_heights: u64,
    decision_us: Histogram<u64>,
    flush_us: Histogram<u64>,
}

/// What the ordering thread knows after a step.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// The last executed height.
    pub height: u64,
    /// The round under way.
    pub round: u32,
    /// The site that proposes first.
    pub primary: u8,
    /// Whether this node votes.
    pub votes: bool,
    /// The highest height others say they have.
    pub highest_claimed: u64,
    /// Commands that wait.
    pub pending: usize,
    /// Messages refused, by reason.
    pub refusals: Vec<(&'static str, u64)>,
}

/// Heights that `status` shows.
const EXECUTED_SHOWN: usize = 64;

impl Shared {
    /// Of a node that has just started.
    pub fn new(status: Status) -> Shared {
        // Two significant digits, up to an hour in microseconds: some kilobytes.
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("bounds are fixed and valid");
        let facts = Facts {
            status,
            executed: VecDeque::new(),
            evidence: VecDeque::new(),
            evidence_count: 0,
            slow_heights: 0,
            decision_us: histogram(),
            flush_us: histogram(),
        };
        Shared { began: Instant::now(), facts: Mutex::new(facts), parts: Mutex::default() }
    }

    /// Lets a part fill in what it knows, whenever somebody asks.
    pub fn add_part(&self, part: Part) {
        lock(&self.parts).push(part);
    }

    /// Where the ordering stands.
    pub fn stands(&self, position: Position) {
        let mut facts = lock(&self.facts);
        let status = &mut facts.status;
        status.height = position.height;
        status.round = position.round;
        status.primary = position.primary;
        status.votes = position.votes;
        status.behind = position.highest_claimed.saturating_sub(position.height);
        status.pending = position.pending;
        status.ordering_refusals =
            position.refusals.into_iter().map(|(name, count)| (name.to_string(), count)).collect();
    }

    /// A height was executed.
    pub fn executed(&self, executed: Executed) {
        let mut facts = lock(&self.facts);
        facts.slow_heights += u64::from(executed.round > 0);
        facts.status.state = hex(&executed.state);
        if facts.executed.len() == EXECUTED_SHOWN {
            facts.executed.pop_front();
        }
        facts.executed.push_back(executed);
    }

    /// Somebody was caught.
    pub fn caught(&self, evidence: Evidence) {
        let mut facts = lock(&self.facts);
        facts.evidence_count += 1;
        if facts.evidence.len() == limits::CLUSTER_EVIDENCE_SHOWN {
            facts.evidence.pop_front();
        }
        facts.evidence.push_back(evidence);
    }

    /// A command submitted here was executed here after so long.
    pub fn decided_after(&self, duration: Duration) {
        lock(&self.facts).decision_us.saturating_record(duration.as_micros() as u64);
    }

    /// A flush took so long.
    pub fn flushed_in(&self, duration: Duration) {
        lock(&self.facts).flush_us.saturating_record(duration.as_micros().max(1) as u64);
    }

    /// All of it, but for links and what parts add: [`Shared::finish`] does that.
    pub fn status(&self) -> Status {
        let facts = lock(&self.facts);
        let mut status = facts.status.clone();
        status.uptime_s = self.began.elapsed().as_secs();
        status.executed = facts.executed.iter().map(ExecutedReport::of).collect();
        status.evidence = facts.evidence.iter().map(EvidenceReport::of).collect();
        status.evidence_count = facts.evidence_count;
        status.slow_heights = facts.slow_heights;
        status.decision = Quantiles::of(&facts.decision_us);
        status.flush = Quantiles::of(&facts.flush_us);
        status
    }

    /// Lets the parts add theirs.
    pub fn finish(&self, status: &mut Status) {
        lock(&self.parts).iter().for_each(|part| part(status));
    }
}

impl ExecutedReport {
    fn of(executed: &Executed) -> ExecutedReport {
        ExecutedReport {
            height: executed.height,
            round: executed.round,
            proposer: executed.proposer.0,
            commands: executed.commands,
            value: hex(&executed.value),
        }
    }
}

impl EvidenceReport {
    fn of(evidence: &Evidence) -> EvidenceReport {
        EvidenceReport {
            culprit: evidence.culprit.0,
            height: evidence.height,
            round: evidence.round,
            what: evidence.what,
        }
    }
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Option<Quantiles> {
        let ms = |us: u64| us as f64 / 1e3;
        (!histogram.is_empty()).then(|| Quantiles {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        })
    }
}

impl Status {
    /// The link to a node.
    pub fn link_mut(&mut self, node: NodeId) -> Option<&mut LinkReport> {
        self.links.iter_mut().find(|link| link.node == node.0)
    }

    /// All of it as values for /metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let mut put = |name, is_counter, help, labels: Vec<(&'static str, String)>, value: f64| {
            metrics.push(Metric { name, is_counter, help, labels, value });
        };
        let one = |name: &'static str, value: &dyn ToString| vec![(name, value.to_string())];
        put("spinetail_cluster_height", false, "Last executed height.", vec![], self.height as f64);
        put("spinetail_cluster_round", false, "Round under way.", vec![], self.round.into());
        put("spinetail_cluster_primary", false, "Site that proposes first.", vec![], self.primary.into());
        put("spinetail_cluster_behind", false, "Heights others say they are ahead.", vec![], self.behind as f64);
        put("spinetail_cluster_pending", false, "Commands that wait here.", vec![], self.pending as f64);
        put(
            "spinetail_cluster_slow_heights",
            true,
            "Heights not decided in their first round.",
            vec![],
            self.slow_heights as f64,
        );
        put("spinetail_cluster_dropped", true, "Frames without room.", vec![], self.dropped as f64);
        put("spinetail_cluster_evidence", true, "Times a site was caught.", vec![], self.evidence_count as f64);
        if let Some(term) = self.term {
            put("spinetail_cluster_term", false, "Term of the region's Raft group.", vec![], term as f64);
        }
        if let Some(leader) = self.leader {
            put("spinetail_cluster_leader", false, "Node that leads the region.", vec![], leader.into());
        }
        for (name, quantiles) in [("decision", self.decision), ("flush", self.flush)] {
            let Some(quantiles) = quantiles else { continue };
            for (quantile, ms) in [("0.5", quantiles.p50_ms), ("0.99", quantiles.p99_ms), ("1", quantiles.max_ms)] {
                let labels = vec![("of", name.to_string()), ("quantile", quantile.to_string())];
                put("spinetail_cluster_seconds", false, "Decisions and flushes since the start.", labels, ms / 1e3);
            }
        }
        for link in &self.links {
            let labels = || vec![("node", link.node.to_string()), ("site", link.site.to_string())];
            put("spinetail_cluster_link_up", false, "1 if connected.", labels(), f64::from(u8::from(link.connected)));
            if let Some(ms) = link.rtt_ms {
                put("spinetail_cluster_link_rtt_seconds", false, "Smoothed round trip.", labels(), ms / 1e3);
            }
            if let Some(ms) = link.clock_offset_ms {
                put("spinetail_cluster_clock_offset_seconds", false, "How far its clock is ahead.", labels(), ms / 1e3);
            }
            if let Some(ms) = link.rtt_p90_ms {
                put("spinetail_cluster_link_rtt_p90_seconds", false, "Nine of ten are below.", labels(), ms / 1e3);
            }
            if let Some(loss) = link.loss {
                put("spinetail_cluster_link_loss_ratio", false, "Part of recent probes missed.", labels(), loss);
            }
            if let Some(ms) = link.clock_error_ms {
                put("spinetail_cluster_clock_error_seconds", false, "How wrong that may be.", labels(), ms / 1e3);
            }
            let counters = [
                ("spinetail_cluster_link_connections", "connections made", link.connections),
                ("spinetail_cluster_link_sent_bytes", "bytes of messages sent", link.sent_bytes),
                ("spinetail_cluster_link_received_bytes", "bytes of messages received", link.received_bytes),
            ];
            for (name, help, value) in counters {
                put(name, true, help, labels(), value as f64);
            }
        }
        for (node, ms) in self.lag_ms.iter().flatten() {
            put("spinetail_cluster_lag_seconds", false, "How far a stream is behind.", one("node", node), ms / 1e3);
        }
        for (reason, count) in &self.refusals {
            put("spinetail_cluster_link_refusals", true, "Refused on links.", one("reason", reason), *count as f64);
        }
        for (reason, count) in &self.ordering_refusals {
            let help = "ordering messages refused";
            put("spinetail_cluster_ordering_refusals", true, help, one("reason", reason), *count as f64);
        }
        // A family's values must stand together.
        metrics.sort_by_key(|metric| metric.name);
        metrics
    }
}

/// The status, shared.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::SiteId;

    fn executed(height: u64, round: u32) -> Executed {
        Executed { height, round, value: [1; 32], proposer: SiteId(2), commands: 3, state: [9; 32] }
    }

    #[test]
    fn what_was_told_is_shown_and_bounded() {
        let shared = Shared::new(Status { node: 4, ..Status::default() });
        (1..=100).for_each(|height| shared.executed(executed(height, u32::from(height == 50))));
        for _ in 0..limits::CLUSTER_EVIDENCE_SHOWN + 5 {
            shared.caught(Evidence { culprit: SiteId(3), height: 7, round: 0, what: "prevote" });
        }
        shared.stands(Position { height: 100, highest_claimed: 103, ..Position::default() });
        shared.decided_after(Duration::from_millis(120));
        shared.add_part(Box::new(|status| status.term = Some(8)));
        let mut status = shared.status();
        shared.finish(&mut status);
        assert_eq!((status.executed.len(), status.slow_heights, status.behind), (EXECUTED_SHOWN, 1, 3));
        assert_eq!((status.evidence.len(), status.evidence_count), (limits::CLUSTER_EVIDENCE_SHOWN, 69));
        assert_eq!((status.term, status.decision.unwrap().count), (Some(8), 1));
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["evidence"][0]["culprit"], 3);
    }

    #[test]
    fn families_stand_together_and_every_field_has_one() {
        let link = LinkReport {
            node: 2,
            site: 2,
            connected: true,
            rtt_ms: Some(80.0),
            rtt_p90_ms: Some(81.0),
            loss: Some(0.0),
            clock_offset_ms: Some(-1.0),
            clock_error_ms: Some(40.0),
            connections: 3,
            waiting_bytes: 0,
            sent_bytes: 1,
            received_bytes: 2,
        };
        let status = Status {
            term: Some(1),
            leader: Some(2),
            lag_ms: Some(BTreeMap::from([(2, 4.0)])),
            links: vec![link.clone(), LinkReport { node: 3, ..link }],
            refusals: BTreeMap::from([("copied key".into(), 1)]),
            ..Status::default()
        };
        let metrics = status.metrics();
        let names: Vec<_> = metrics.iter().map(|metric| metric.name).collect();
        let mut seen = Vec::new();
        for name in names {
            if seen.last() != Some(&name) {
                assert!(!seen.contains(&name), "{name} stands in two places");
                seen.push(name);
            }
        }
        for name in ["term", "leader", "lag_seconds", "link_rtt_seconds", "clock_offset_seconds", "evidence"] {
            assert!(seen.contains(&format!("spinetail_cluster_{name}").as_str()), "{name}");
        }
    }
}

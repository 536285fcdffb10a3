//! What a node's links refuse: counted by reason, logged at a bounded rate.
//!
//! Whoever sends rubbish decides how often; so every refusal is counted and, for each reason, one line a second is
//! logged, with how many were not. A reason names the guilty party and says who acts next.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::limits;
use crate::cluster::host::news::{News, Weight};

/// Why a connection, or what came over it, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// It does not speak TLS 1.3, or not as this cluster does.
    NotTls = 1,
    /// It took too long, or said nothing.
    HalfOpen = 2,
    /// Too many connections were shaking hands.
    Crowded = 3,
    /// It showed no certificate.
    NoCertificate = 4,
    /// Its certificate is past its end, or not yet begun.
    ExpiredCertificate = 5,
    /// Another authority has signed its certificate.
    ForeignCertificate = 6,
    /// The authority has signed its certificate, and the cluster has agreed on another.
    UnknownCertificate = 7,
    /// It belongs to another cluster.
    WrongNetwork = 8,
    /// It speaks another version of this protocol.
    WrongVersion = 9,
    /// It says it is a node that its certificate is not.
    Impostor = 10,
    /// It was meant for another node.
    Misdirected = 11,
    /// The node has reached itself.
    SelfConnection = 12,
    /// Two processes have the same key.
    CopiedKey = 13,
    /// A folder of an earlier time: what it has signed since is not in it.
    StaleLog = 14,
    /// Bytes that are no greeting or no frame.
    Malformed = 15,
    /// A frame larger than its channel allows.
    Oversized = 16,
    /// Nothing came for too long.
    Silent = 17,
    /// It took nothing for too long.
    Slow = 18,
    /// The other side has refused this node.
    RefusedByPeer = 19,
}

/// Every reason.
pub const REFUSALS: [Refusal; 19] = [
    Refusal::NotTls,
    Refusal::HalfOpen,
    Refusal::Crowded,
    Refusal::NoCertificate,
    Refusal::ExpiredCertificate,
    Refusal::ForeignCertificate,
    Refusal::UnknownCertificate,
    Refusal::WrongNetwork,
    Refusal::WrongVersion,
    Refusal::Impostor,
    Refusal::Misdirected,
    Refusal::SelfConnection,
    Refusal::CopiedKey,
    Refusal::StaleLog,
    Refusal::Malformed,
    Refusal::Oversized,
    Refusal::Silent,
    Refusal::Slow,
    Refusal::RefusedByPeer,
];

/// A node's counters of refusals.
pub struct Refusals {
    counts: [AtomicU64; REFUSALS.len()],
    /// When a reason was logged last, and how many were not since.
    logged: Mutex<[(Option<Instant>, u64); REFUSALS.len()]>,
    news: Arc<dyn News>,
}

impl Refusals {
    /// Counters that tell `news`.
    pub fn new(news: Arc<dyn News>) -> Refusals {
        Refusals { counts: Default::default(), logged: Default::default(), news }
    }

    /// Counts a refusal and, if the last line of its kind is old enough, logs it. `whom` is as much as is known:
    /// a node, an address.
    pub fn note(&self, refusal: Refusal, whom: String, detail: String) {
        let index = refusal as usize - 1;
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        let unsaid = {
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            let (last, unsaid) = &mut logged[index];
            let pause = Duration::from_millis(limits::CLUSTER_REFUSAL_LOG_MS);
            if last.is_some_and(|last| last.elapsed() < pause) {
                *unsaid += 1;
                return;
            }
            *last = Some(Instant::now());
            std::mem::take(unsaid)
        };
        let mut fields = vec![("reason", refusal.name().to_string()), ("peer", whom), ("detail", detail)];
        fields.push(("remedy", refusal.remedy().to_string()));
        if unsaid > 0 {
            fields.push(("suppressed", unsaid.to_string()));
        }
        self.news.tell(Weight::Warn, "link refused", &fields);
    }

    /// How often each reason was met.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        REFUSALS.iter().map(|refusal| (refusal.name(), self.count(*refusal))).collect()
    }

    /// How often one reason was met.
    pub fn count(&self, refusal: Refusal) -> u64 {
        self.counts[refusal as usize - 1].load(Ordering::Relaxed)
    }
}

impl Refusal {
    /// The reason of that number.
    pub fn from_number(number: u8) -> Option<Refusal> {
        REFUSALS.into_iter().find(|refusal| *refusal as u8 == number)
    }

    /// As `status`, metrics and logs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NotTls => "not tls",
            Refusal::HalfOpen => "half open",
            Refusal::Crowded => "crowded",
            Refusal::NoCertificate => "no certificate",
            Refusal::ExpiredCertificate => "expired certificate",
            Refusal::ForeignCertificate => "foreign certificate",
            Refusal::UnknownCertificate => "unknown certificate",
            Refusal::WrongNetwork => "wrong network",
            Refusal::WrongVersion => "wrong version",
            Refusal::Impostor => "impostor",
            Refusal::Misdirected => "misdirected",
            Refusal::SelfConnection => "self connection",
            Refusal::CopiedKey => "copied key",
            Refusal::StaleLog => "stale log",
            Refusal::Malformed => "malformed",
            Refusal::Oversized => "oversized",
            Refusal::Silent => "silent",
            Refusal::Slow => "slow",
            Refusal::RefusedByPeer => "refused by peer",
        }
    }

    /// Who acts next, and how.
    pub fn remedy(self) -> &'static str {
        match self {
            Refusal::NotTls | Refusal::Malformed | Refusal::Oversized => "find out what connects from there",
            Refusal::HalfOpen | Refusal::Silent | Refusal::Slow => {
                "it is tried again; look at that host and the network"
            }
            Refusal::Crowded => "keep strangers off this port",
            Refusal::NoCertificate | Refusal::ForeignCertificate => "only nodes of this cluster may connect",
            Refusal::ExpiredCertificate => {
                "renew it: 'spinetail cluster join --renew' at that node, or set the clock that is wrong"
            }
            Refusal::UnknownCertificate => "the operator proposes it: 'spinetail cluster propose set-member'",
            Refusal::WrongNetwork => "give that node the cluster.toml of this cluster, or this one another address",
            Refusal::WrongVersion => "run the same release at both",
            Refusal::Impostor | Refusal::Misdirected => "compare 'address' and 'reach' of both nodes with cluster.toml",
            Refusal::SelfConnection => "an address in cluster.toml or node.toml leads to this node itself: correct it",
            Refusal::CopiedKey => {
                "stop the process with the copied folder; a node that lost its folder gets a new key: 'cluster join --renew'"
            }
            Refusal::StaleLog => {
                "that folder is an old copy and may not vote again: give the node a new key: 'cluster join --renew'"
            }
            Refusal::RefusedByPeer => "its log says more",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::host::news::Kept;

    #[test]
    fn a_thousand_refusals_are_one_line_and_all_counted() {
        let kept = Arc::new(Kept::default());
        let refusals = Refusals::new(kept.clone());
        for _ in 0..1000 {
            refusals.note(Refusal::NotTls, "1.2.3.4:5".into(), String::new());
        }
        refusals.note(Refusal::StaleLog, "node 3".into(), String::new());
        assert_eq!(refusals.count(Refusal::NotTls), 1000);
        assert_eq!(kept.lines().len(), 2, "{:?}", kept.lines());
        assert!(kept.lines()[1].contains("stale log") && kept.lines()[1].contains("node 3"));
    }

    #[test]
    fn every_reason_has_its_number() {
        for (index, refusal) in REFUSALS.into_iter().enumerate() {
            assert_eq!(refusal as usize, index + 1);
            assert_eq!(Refusal::from_number(refusal as u8), Some(refusal));
        }
        assert_eq!(Refusal::from_number(0), None);
    }
}

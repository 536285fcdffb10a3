//! Who begins: the sites, their nodes and keys, and the clockwork of the protocols.
//!
//! `cluster init` writes it once as `cluster.toml`, and every node has the same file. The digest of its canonical
//! bytes is the *network id*: it is part of everything that is signed and of every greeting between nodes, so that a
//! message of one cluster means nothing in another, also if both were made with the same keys.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::id::{NodeId, SiteId};

/// Which cluster a message belongs to: SHA-256 of its genesis.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId(pub [u8; 32]);

/// The beginning of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// A name for people.
    pub name: String,
    /// Chosen at random by `init`: two clusters made alike are still two.
    pub nonce: String,
    /// The operator's public key (ed25519, hexadecimal): signs membership and policy.
    pub operator: String,
    /// The authority whose certificates nodes show each other (PEM).
    pub authority: String,
    /// The clockwork.
    pub timing: Timing,
    /// Sites: 4, 7 or 10 of them, or 1 for a cluster within one region.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
    /// Nodes of these sites.
    #[serde(rename = "node")]
    pub members: Vec<Member>,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its number.
    pub id: SiteId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: SiteKind,
    /// The node that votes for it.
    pub validator: NodeId,
}

/// What a site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// It holds data and votes.
    Region,
    /// It only votes: three regions need a fourth site to outvote a liar.
    Witness,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where it stands.
    pub site: SiteId,
    /// Its name, also in its certificate.
    pub name: String,
    /// Where other nodes reach it, `host:port`.
    pub address: String,
    /// Where clients reach it, native protocol, `host:port`; a witness has none.
    #[serde(default)]
    pub clients: Option<String>,
    /// Where RESP clients reach it.
    #[serde(default)]
    pub resp: Option<String>,
    /// Its public key (ed25519, hexadecimal): signs votes and commands.
    pub key: String,
    /// SHA-256 of its certificate (hexadecimal): the only one it may show.
    pub certificate: String,
    /// It votes in its region's Raft group.
    pub voter: bool,
}

/// The clockwork, in milliseconds: the same everywhere, so that nobody gives up on what others still wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// How long a proposal may take before the round is given up; a few round trips between sites.
    pub propose_ms: u64,
    /// How long votes may take once there could be a decision.
    pub vote_ms: u64,
    /// An undecided round repeats its votes after this long.
    pub rebroadcast_ms: u64,
    /// Between two heartbeats of a Raft leader.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for this long (and up to half as long again) stands for election.
    pub election_ms: u64,
    /// How long a primary may serve on its lease.
    pub lease_ms: u64,
    /// Between two probes of a link.
    pub probe_ms: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            propose_ms: 1_000,
            vote_ms: 500,
            rebroadcast_ms: 2_000,
            heartbeat_ms: 30,
            election_ms: 120,
            lease_ms: 100,
            probe_ms: 500,
        }
    }
}

impl Genesis {
    /// The network it makes.
    pub fn network(&self) -> NetworkId {
        let bytes = postcard::to_allocvec(self).expect("plain data always encodes");
        let mut digest = Sha256::new();
        digest.update(b"spinetail/genesis/1");
        digest.update(bytes);
        NetworkId(digest.finalize().into())
    }

    /// How many lying sites it bears: ⌊(n − 1) / 3⌋.
    pub fn tolerates(&self) -> usize {
        self.sites.len().saturating_sub(1) / 3
    }

    /// A member by its number.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

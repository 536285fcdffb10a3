//! What can be agreed on.
//!
//! A command is signed by whoever asks for it and carries that author's next number, so a site that orders commands
//! can neither invent one nor bring an old one back: every node checks author, number and right before it executes
//! (`state`). Commands of a height travel as one batch, because heights are decided one after the other.

use serde::{Deserialize, Serialize};

use crate::base::id::{NodeId, SiteId};
use crate::cluster::genesis::{Member, NetworkId, Site};
use crate::cluster::keys::SecretKey;
use crate::replica::Namespace;

/// What can be agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Who proposes first from the next height on. Anybody may ask: a bad choice costs time and never safety.
    SetPrimary {
        /// The site.
        site: SiteId,
    },
    /// A node joins, or changes its addresses, key or certificate.
    SetMember {
        /// The node.
        member: Member,
    },
    /// A node leaves for good.
    RemoveMember {
        /// The node.
        node: NodeId,
    },
    /// The sites from the next height on: 1, 4, 7 or 10.
    SetSites {
        /// All of them.
        sites: Vec<Site>,
    },
    /// How keys with a prefix are kept.
    SetNamespace {
        /// The namespace; its epoch is the state's to know and ignored here.
        namespace: Namespace,
    },
    /// Keys with a prefix are no longer anything special.
    RemoveNamespace {
        /// The prefix.
        prefix: Vec<u8>,
    },
    /// Everything in a namespace is gone, everywhere.
    Purge {
        /// The prefix.
        prefix: Vec<u8>,
    },
    /// A tenant's policy; the cluster agrees on the bytes and asks nothing about them.
    SetTenant {
        /// Its name.
        name: String,
        /// Its policy; none removes it.
        policy: Option<Vec<u8>>,
    },
    /// The digest of a node's audit trail, so that it cannot be rewritten later.
    AuditRoot {
        /// Entries it covers.
        entries: u64,
        /// The digest.
        root: [u8; 32],
    },
    /// Which configuration the cluster runs.
    SetConfig {
        /// Its number, ever higher.
        version: u64,
        /// Its digest.
        digest: [u8; 32],
    },
    /// Who leads a region: said by that node.
    RegionLeader {
        /// The term of its election.
        term: u64,
    },
    /// The operator's key from the next command on.
    SetOperator {
        /// The public key, hexadecimal.
        key: String,
        /// What [`Command::handover`] says, signed with it: a key that nobody holds would lock everybody out.
        proof: Vec<u8>,
    },
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Author {
    /// The operator.
    Operator,
    /// A node.
    Node(NodeId),
}

/// A command as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Who asks.
    pub author: Author,
    /// The author's number for it: higher than that of every command of the author executed before.
    pub number: u64,
    /// What is asked.
    pub command: Command,
    /// ed25519 over [`Signed::bytes`], 64 bytes.
    pub signature: Vec<u8>,
}

impl Signed {
    /// A command, signed by its author.
    pub fn new(network: NetworkId, author: Author, number: u64, command: Command, key: &SecretKey) -> Signed {
        let signature = key.sign(&Signed::bytes(network, author, number, &command)).to_bytes().to_vec();
        Signed { author, number, command, signature }
    }

    /// What is signed: the network, the author, the number, the command.
    pub fn bytes(network: NetworkId, author: Author, number: u64, command: &Command) -> Vec<u8> {
        postcard::to_allocvec(&("spinetail/command/1", network, author, number, command))
            .expect("plain data always encodes")
    }
}

impl Command {
    /// Whether only the operator may ask for it.
    pub fn is_operators(&self) -> bool {
        match self {
            Command::SetPrimary { .. } | Command::AuditRoot { .. } | Command::RegionLeader { .. } => false,
            Command::SetMember { .. }
            | Command::RemoveMember { .. }
            | Command::SetSites { .. }
            | Command::SetNamespace { .. }
            | Command::RemoveNamespace { .. }
            | Command::Purge { .. }
            | Command::SetTenant { .. }
            | Command::SetConfig { .. }
            | Command::SetOperator { .. } => true,
        }
    }

    /// What the holder of the operator's next key signs: that it follows this one.
    pub fn handover(from: &str, to: &str) -> Vec<u8> {
        postcard::to_allocvec(&("spinetail/operator/1", from, to)).expect("plain data always encodes")
    }
}

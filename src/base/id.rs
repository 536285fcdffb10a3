//! Newtypes for identities, so that a shard number is never passed where a core number belongs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One shard of the appliance: a thread, its memory, its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A connection of one shard. The generation tells a reused slot from the one before it, so a
/// completion or a forwarded reply that arrives late finds nobody instead of a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Position in the shard's connection table.
    pub slot: u32,
    /// How often that position had been used before.
    pub generation: u32,
}

/// A site of the cluster: a region that holds data, or a witness that only votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteId(pub u8);

/// One appliance of the cluster: a process with keys and a disk of its own, at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

impl ConnectionId {
    /// Packs the id into 56 bits for a completion's user data: 24 of the slot, 32 of the generation.
    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 24 | u64::from(self.slot)
    }

    /// The inverse of [`ConnectionId::pack`]; the upper 8 bits are ignored.
    pub fn unpack(bits: u64) -> ConnectionId {
        ConnectionId { slot: bits as u32 & 0xff_ffff, generation: (bits >> 24) as u32 }
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_id_survives_packing() {
        let id = ConnectionId { slot: 0xabcdef, generation: 0x8123_4567 };
        assert_eq!(ConnectionId::unpack(id.pack() | 0x77 << 56), id);
    }
}

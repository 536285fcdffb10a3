//! How a simulated cluster begins: sites numbered from 0, each with one node of the same number.

use crate::base::id::{NodeId, SiteId};
use crate::cluster::genesis::{Genesis, Member, Timing};
use crate::cluster::keys::{SecretKey, hexadecimal};
use crate::sim::clients;

/// The key of a site; any 32 bytes are one.
pub fn key_of(index: usize) -> SecretKey {
    SecretKey::from([index as u8 + 1; 32])
}

/// The operator's key.
pub fn operator_key() -> SecretKey {
    SecretKey::from([200; 32])
}

/// The node of a site, with a key.
pub fn member(index: usize, key: &SecretKey) -> Member {
    Member {
        id: NodeId(index as u16),
        site: SiteId(index as u8),
        name: format!("node{index}"),
        address: format!("127.0.0.1:{}", 7800 + index),
        clients: None,
        resp: None,
        key: hexadecimal(key.public_key().as_bytes()),
        certificate: hexadecimal(&[index as u8 + 1; 32]),
        voter: true,
    }
}

/// The beginning of a simulated cluster.
pub fn genesis(sites: usize, nonce: &str) -> Genesis {
    Genesis {
        name: "simulated".to_string(),
        nonce: nonce.to_string(),
        operator: hexadecimal(operator_key().public_key().as_bytes()),
        authority: String::new(),
        timing: Timing { propose_ms: 300, vote_ms: 150, rebroadcast_ms: 600, ..Timing::default() },
        sites: (0..sites).map(clients::site).collect(),
        members: (0..sites).map(|index| member(index, &key_of(index))).collect(),
    }
}

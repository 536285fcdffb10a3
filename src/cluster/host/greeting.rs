//! What two nodes say first, and what tells a node from a copy of it.
//!
//!   dialer                                     acceptor
//!   TLS 1.3, both show certificates; the network's name is part of the handshake (ALPN)
//!   | label | version | length | greeting | ->
//!                                           <- | 0 | label | version | length | greeting |   welcome
//!                                           <- | number of a refusal |                       and the end
//!
//! A certificate proves a key, and a key can be copied together with its folder. Two processes that sign with one
//! key look like one that lies, and an honest site would be caught as a liar. So a greeting also says which folder
//! it comes from: an *instance* drawn when the folder was made, a *boot* count that is on the disk before the first
//! connection, and a *session* drawn when the process began. Whoever is greeted remembers, on its own disk, the last
//! of each for each certificate:
//!
//! - another instance under the same certificate: the key was copied into a folder of its own, or the folder was lost
//!   and made anew, which is as bad, since what the key has signed is forgotten;
//! - the same instance with fewer boots: a folder restored from an older copy, with a stale log;
//! - the same instance and boot in another session: the whole folder was copied.
//!
//! Each is refused until the cluster agrees on another key and certificate for the node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::genesis::NetworkId;
use crate::cluster::host::refusals::Refusal;

/// Which folder and which process of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Drawn when the folder was made.
    pub folder: [u8; 16],
    /// How often it has been started.
    pub boot: u64,
    /// Drawn when the process began.
    pub session: [u8; 16],
}

/// What a node says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Which cluster it means.
    pub network: NetworkId,
    /// Who it is; its certificate must agree.
    pub from: NodeId,
    /// Whom it means.
    pub to: NodeId,
    /// Which folder and process.
    pub instance: Instance,
    /// Which connection of the pair this is to be.
    pub group: u8,
    /// Only a sign of life: the node of the smaller number dials, and is asked to do so now.
    pub is_knock: bool,
}

/// What a node remembers of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// SHA-256 of the certificate, hexadecimal.
    pub certificate: String,
    /// The last that was welcome under it.
    pub instance: Instance,
}

/// What a node remembers of all others.
#[derive(Default)]
pub struct Book {
    known: BTreeMap<NodeId, Known>,
}

const LABEL: &[u8; 14] = b"spinetail-link";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = LABEL.len() + 4;

impl Greeting {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_allocvec(self).expect("plain data always encodes");
        let mut bytes = LABEL.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((body.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads one. Whatever comes, no more than a greeting's bytes are read or kept.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Greeting, ReadError> {
        let mut head = [0; HEAD_BYTES];
        stream.read_exact(&mut head).await.map_err(ReadError::Io)?;
        let (label, rest) = head.split_at(LABEL.len());
        if label != LABEL {
            return Err(ReadError::Refused(Refusal::Malformed));
        }
        if rest[..2] != VERSION.to_le_bytes() {
            return Err(ReadError::Refused(Refusal::WrongVersion));
        }
        let length = usize::from(u16::from_le_bytes([rest[2], rest[3]]));
        if length > limits::CLUSTER_GREETING_BYTES_MAX {
            return Err(ReadError::Refused(Refusal::Oversized));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.map_err(ReadError::Io)?;
        match postcard::take_from_bytes(&body) {
            Ok((greeting, [])) => Ok(greeting),
            _ => Err(ReadError::Refused(Refusal::Malformed)),
        }
    }
}

/// Why no greeting was read.
#[derive(Debug)]
pub enum ReadError {
    /// The connection ended or broke.
    Io(std::io::Error),
    /// Something else was.
    Refused(Refusal),
}

impl Book {
    /// What was remembered.
    pub fn new(known: impl IntoIterator<Item = (NodeId, Known)>) -> Book {
        Book { known: known.into_iter().collect() }
    }

    /// Whether a node with that certificate may be that instance. If so, and it is new, what to write down.
    pub fn meet(&mut self, node: NodeId, certificate: &str, instance: Instance) -> Result<Option<&Known>, Refusal> {
        if let Some(known) = self.known.get(&node).filter(|known| known.certificate == certificate) {
            let before = known.instance;
            if before.folder != instance.folder {
                return Err(Refusal::CopiedKey);
            }
            if instance.boot < before.boot {
                return Err(Refusal::StaleLog);
            }
            if instance.boot == before.boot && instance.session != before.session {
                return Err(Refusal::CopiedKey);
            }
            if instance == before {
                return Ok(None);
            }
        }
        self.known.insert(node, Known { certificate: certificate.to_string(), instance });
        Ok(self.known.get(&node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Instance = Instance { folder: [1; 16], boot: 5, session: [7; 16] };

    #[test]
    fn a_copy_is_told_from_a_restart() {
        let mut book = Book::default();
        let node = NodeId(3);
        assert!(book.meet(node, "c", FIRST).unwrap().is_some());
        assert!(book.meet(node, "c", FIRST).unwrap().is_none(), "another connection of the same process");
        let restarted = Instance { boot: 6, session: [8; 16], ..FIRST };
        assert!(book.meet(node, "c", restarted).unwrap().is_some());
        let copied_key = Instance { folder: [2; 16], boot: 1, session: [9; 16] };
        assert_eq!(book.meet(node, "c", copied_key), Err(Refusal::CopiedKey));
        let copied_folder = Instance { session: [9; 16], ..restarted };
        assert_eq!(book.meet(node, "c", copied_folder), Err(Refusal::CopiedKey));
        assert_eq!(book.meet(node, "c", FIRST), Err(Refusal::StaleLog));
        // What the cluster has agreed on anew begins anew.
        assert!(book.meet(node, "d", copied_key).unwrap().is_some());
    }

    #[test]
    fn hostile_greetings_are_refused_with_a_reason() {
        let greeting = Greeting {
            network: NetworkId([4; 32]),
            from: NodeId(1),
            to: NodeId(2),
            instance: FIRST,
            group: 0,
            is_knock: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = |bytes: &[u8]| runtime.block_on(Greeting::read(&mut &bytes[..]));
        let good = greeting.encode();
        assert!(good.len() <= HEAD_BYTES + limits::CLUSTER_GREETING_BYTES_MAX);
        assert_eq!(read(&good).unwrap(), greeting);
        for end in 0..good.len() {
            assert!(matches!(read(&good[..end]), Err(ReadError::Io(_))));
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                // Some flips make another greeting; none panics.
                if at < LABEL.len() {
                    assert!(matches!(read(&bad), Err(ReadError::Refused(Refusal::Malformed))));
                } else if at < LABEL.len() + 2 {
                    assert!(matches!(read(&bad), Err(ReadError::Refused(Refusal::WrongVersion))));
                } else {
                    let _ = read(&bad);
                }
            }
        }
        let mut large = good[..LABEL.len() + 2].to_vec();
        large.extend([0xff; 40]);
        assert!(matches!(read(&large), Err(ReadError::Refused(Refusal::Oversized))));
    }
}

//! Going on after a restart: the state from a snapshot and the blocks after it, the open height from its log.
//!
//!   snapshot ─> blocks ─> state, height h executed ─> log of height h + 1, replayed into the engine
//!
//! Everything is checked as if a stranger had sent it, because a disk is one. The log is replayed as it was written:
//! the engine, told the same in the same order, says the same again, and what it said before the crash comes from the
//! log with the signature it had. Records of executed heights are what a crash between storing a block and beginning
//! the log anew leaves behind, and are passed over. A log ahead of the blocks is not: then blocks are missing, and a
//! site that went on would not know what it has signed.

use std::fmt;

use crate::base::id::{NodeId, SiteId};
use crate::cluster::genesis::Genesis;
use crate::cluster::keys::SecretKey;
use crate::cluster::ordering::block::{Content, Snapshot};
use crate::cluster::ordering::codec::Record;
use crate::cluster::ordering::context::Voters;
use crate::cluster::ordering::engine::Halt;
use crate::cluster::ordering::validator::Validator;
use crate::cluster::ordering::{Block, Ordering};

/// Why a node cannot go on from what its disk has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// The snapshot does not hold.
    Snapshot {
        /// Its height.
        height: u64,
    },
    /// A block does not hold.
    Block {
        /// Its height.
        height: u64,
    },
    /// A block is missing.
    Missing {
        /// The height.
        height: u64,
    },
    /// A record of the log is none.
    Record {
        /// Which, from zero.
        index: usize,
    },
    /// The log is of a later height than the one after the last block.
    LogAhead {
        /// Of the log.
        log: u64,
        /// The open one.
        open: u64,
    },
    /// Replaying the log did not end where it must.
    Replay(Halt),
}

impl Validator {
    /// The part of a node that was there before: from its last snapshot, the blocks after it and the records of its
    /// log, each as it was given to be kept.
    pub fn recover(
        genesis: &Genesis,
        me: SiteId,
        node: NodeId,
        key: SecretKey,
        snapshot: Option<Snapshot>,
        blocks: impl IntoIterator<Item = Block>,
        records: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Validator, RecoverError> {
        let mut validator = Validator::new(genesis, me, node, key);
        if let Some(snapshot) = snapshot {
            validator.trust(&snapshot.bytes).ok_or(RecoverError::Snapshot { height: snapshot.height })?;
        }
        for block in blocks {
            let open = validator.state().height + 1;
            if block.height < open {
                continue; // kept from before the snapshot
            }
            // One that was sent as a snapshot stands where blocks were missed.
            let is_taken = match validator.trust(&block.bytes) {
                Some(()) => true,
                None if block.height > open => return Err(RecoverError::Missing { height: open }),
                None => validator.take_block(&block.bytes).is_some(),
            };
            if !is_taken {
                return Err(RecoverError::Block { height: block.height });
            }
        }
        // That was all done before.
        validator.out.clear();
        validator.replay(records)?;
        Ok(validator)
    }

    /// Takes a snapshot this node has kept: it must hold, and it was this node that decided once whom to believe.
    fn trust(&mut self, bytes: &[u8]) -> Option<()> {
        let Content::Snapshot(header, after, certificate) = Content::decode(self.network, bytes)? else { return None };
        self.signatures.commit(&certificate, &Voters::of(&after)).ok()?;
        let block = Block { height: header.height, bytes: bytes.to_vec() };
        self.adopt(block, header, certificate, *after, 0);
        Some(())
    }

    fn replay(&mut self, records: impl IntoIterator<Item = Vec<u8>>) -> Result<(), RecoverError> {
        let open = self.state().height + 1;
        let mut of_open = Vec::new();
        for (index, bytes) in records.into_iter().enumerate() {
            let record = Record::decode(self.network, &bytes).ok_or(RecoverError::Record { index })?;
            if record.height > open {
                return Err(RecoverError::LogAhead { log: record.height, open });
            }
            if record.height == open {
                of_open.push((bytes, record));
            }
        }
        if of_open.is_empty() || !self.is_voting() {
            return Ok(());
        }
        self.replay_open(of_open);
        match self.halted.take() {
            Some(halt) => Err(RecoverError::Replay(halt)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Snapshot { height } => write!(f, "the snapshot of height {height} does not hold")?,
            RecoverError::Block { height } => write!(f, "the block of height {height} does not hold")?,
            RecoverError::Missing { height } => write!(f, "the block of height {height} is missing")?,
            RecoverError::Record { index } => write!(f, "record {index} of the ordering's log is none")?,
            RecoverError::LogAhead { log, open } => {
                write!(f, "the ordering's log is of height {log} and the blocks end before {open}: they are stale")?;
            }
            RecoverError::Replay(halt) => write!(f, "replaying the ordering's log: {halt}")?,
        }
        f.write_str("; restore the node's directory whole, or set the node up anew with a new key")
    }
}

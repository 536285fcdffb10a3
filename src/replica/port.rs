//! What a shard and whoever carries its streams tell each other, over a ring each way.
//!
//! The shard never waits: what does not fit its ring is noted as a gap and left to repair. A question about many entries
//! comes in steps, each small enough for one turn.

use std::sync::Arc;

use crate::base::id::SiteId;
use crate::replica::counts::Counts;
use crate::replica::repair::{Named, Summary};
use crate::replica::rules::Rules;
use crate::replica::shard::Chunk;
use crate::replica::table::KeyId;
use crate::replica::versions::Buckets;

/// From a shard.
#[derive(Debug)]
pub enum FromShard {
    /// Records to be sent.
    Chunk(Chunk),
    /// The answer to a step of a question.
    Answer(u64, StepAnswer),
}

/// To a shard.
#[derive(Debug)]
pub enum ToShard {
    /// Records of another node, which have been looked through.
    Apply(Vec<u8>),
    /// The cluster has agreed on other rules.
    Rules(Arc<Rules>),
    /// The node has been compared with another one.
    Compared,
    /// What time it is, in Unix milliseconds: the host's clock may have been set since the shard was started.
    Clock(u64),
    /// A step of a question, by its number.
    Ask(u64, Step),
}

/// A step of a question.
#[derive(Clone, Debug)]
pub enum Step {
    /// Digests of all that a site may have.
    Summary {
        /// The site.
        to: SiteId,
    },
    /// Digests of a window's buckets, or of the counters'.
    Buckets {
        /// Of which set of regions.
        regions: Vec<SiteId>,
        /// Of which windows.
        windows: Vec<Option<u64>>,
    },
    /// What is in one bucket.
    List {
        /// Of which set of regions.
        regions: Vec<SiteId>,
        /// Which bucket.
        bucket: u8,
        /// Of which windows.
        windows: Vec<u64>,
        /// The counters as well.
        with_counters: bool,
    },
    /// Which of these are newer than what is here.
    Wanted(Vec<Named>),
    /// The records of these.
    Fetch {
        /// The names.
        ids: Vec<KeyId>,
        /// Who asks.
        to: SiteId,
    },
}

/// The answer to a step.
#[derive(Debug)]
pub enum StepAnswer {
    /// See [`Step::Summary`].
    Summary(Vec<(Vec<SiteId>, Summary)>, Box<Counts>),
    /// See [`Step::Buckets`].
    Buckets(Vec<Buckets>),
    /// See [`Step::List`].
    List(Vec<Named>),
    /// See [`Step::Wanted`].
    Wanted(Vec<KeyId>),
    /// See [`Step::Fetch`]: the records, and the names for which there was no room.
    Records(Vec<u8>, Vec<KeyId>),
}

/// The rings of all shards of a node, seen from the other side.
pub trait Ports: Send {
    /// How many shards there are.
    fn shard_count(&self) -> u16;
    /// Takes what a shard has left.
    fn receive(&mut self, shard: u16) -> Option<FromShard>;
    /// Gives a shard something, and wakes it. It comes back if there is no room.
    fn send(&mut self, shard: u16, message: ToShard) -> Result<(), ToShard>;
}

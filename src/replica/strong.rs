//! Entries of strong namespaces as they are kept: each with the version under which its writer wrote it.
//!
//! The keys of all strong namespaces are spread over *homes*; one node at a time, the holder, writes a home. Its right
//! to do so has a *token*, which only rises, and within a token it counts its writes. So two versions of a home are
//! never equal, the later writer's is always higher, and whoever has seen a token knows which writers are gone.
//!
//! The protocol (`cluster::region`) needs of a store what [`StrongStore`] says, and nothing about how it does that.

use serde::{Deserialize, Serialize};

use crate::base::limits;

/// Which write of a home: its writer's token, and that writer's count. Ordered as writes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StrongVersion {
    /// The writer's fencing token.
    pub token: u64,
    /// Its count of writes under this token, from 1.
    pub sequence: u64,
}

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrongEntry {
    /// Which write left it.
    pub version: StrongVersion,
    /// The value; none says that the key was deleted.
    pub value: Option<Vec<u8>>,
    /// When it expires, in milliseconds of Unix time by the clock of the home's holder; 0 for never.
    pub expires_ms: u64,
}

impl StrongEntry {
    /// Whether it is a value whose time has come. It is there all the same until its holder has written that it is gone:
    /// that it expires is a write like any other, so it cannot come back with a holder whose clock is behind.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.value.is_some() && self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

/// Some entries of a home, in the order of their versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrongPage {
    /// Keys and what they hold.
    pub entries: Vec<(Vec<u8>, StrongEntry)>,
    /// There are further ones.
    pub has_more: bool,
}

/// The store has no room: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrongFull;

/// Where a node keeps its copy of strong entries. What is in it must not be evicted: a strong namespace refuses writes
/// when it is full, because a missing entry would read as one that was deleted.
pub trait StrongStore: Send {
    /// What a key holds, a deletion that has not been forgotten included.
    fn get(&self, home: u8, key: &[u8]) -> Option<StrongEntry>;

    /// Lets a key hold a value, or the note that it was deleted, whatever it held before.
    fn put(&mut self, home: u8, key: &[u8], entry: StrongEntry) -> Result<(), StrongFull>;

    /// Forgets a key altogether.
    fn forget(&mut self, home: u8, key: &[u8]);

    /// The entries with versions after `version`, lowest first, until they make `bytes_max`; at least one.
    fn after(&self, home: u8, version: StrongVersion, bytes_max: usize) -> StrongPage;

    /// Some of the keys whose values are due at that time, the first due first, `count` at most.
    fn due(&self, home: u8, now_ms: u64, count: usize) -> Vec<Vec<u8>>;

    /// Every node of the region has everything up to `version`: notes of deletions up to there may be forgotten.
    fn settle(&mut self, home: u8, version: StrongVersion);

    /// Bytes held.
    fn bytes(&self) -> usize;

    /// Whether what was in it is still there after the process was started anew.
    fn is_durable(&self) -> bool;
}

/// The home of a key. The hash has no secret seed: every node and every client must find the same.
pub fn home_of(key: &[u8]) -> u8 {
    (xxhash_rust::xxh3::xxh3_64(key) >> 32) as u8 & (limits::REGION_HOMES - 1) as u8
}

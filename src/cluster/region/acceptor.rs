//! A node's copy of all homes, and whom it still listens to.
//!
//! For each home an acceptor has three things beside the entries:
//!
//! - the highest token it has heard of. Whoever comes with a lower one is refused, named and counted: that, and not a
//!   clock, keeps a writer out that was replaced. It is on disk before anything is done for it.
//! - up to which version it is *settled*: at some time every voter had the same, up to there. Entries after it may be on
//!   some nodes and not on others, whether they were acknowledged or not, and are what a new holder, or one that brings
//!   this node up to date, has to look at. While a voter is away nothing more is settled, and that part grows.
//! - whether it is intact. An acceptor whose store is in memory has nothing left after a restart, but may have been
//!   part of a majority before. Until a holder has brought it up to date, its voice counts for nothing: otherwise two
//!   nodes that were lost one after the other could take an acknowledged write with them. One that never heard of a
//!   token never acknowledged anything, and is intact although it is empty.

use std::collections::BTreeMap;

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::region::strong::{FencedOff, StrongResponse};
use crate::replica::{StrongEntry, StrongStore, StrongVersion};

/// A node's copy of all homes.
pub struct Acceptor {
    store: Box<dyn StrongStore>,
    homes: Vec<Home>,
    /// Refused for old tokens, by node.
    refused: BTreeMap<NodeId, u64>,
    last_refused: Option<FencedOff>,
}

#[derive(Clone, Copy, Default)]
struct Home {
    token: u64,
    settled: StrongVersion,
    is_intact: bool,
}

impl Acceptor {
    /// One that had heard of these tokens, one a home, before it was started anew; 0 where of none.
    pub fn new(store: Box<dyn StrongStore>, tokens: &[u64]) -> Acceptor {
        let durable = store.is_durable();
        let homes = (0..limits::REGION_HOMES)
            .map(|number| tokens.get(number).copied().unwrap_or(0))
            .map(|token| Home { token, settled: StrongVersion::default(), is_intact: durable || token == 0 })
            .collect();
        Acceptor { store, homes, refused: BTreeMap::new(), last_refused: None }
    }

    /// The highest token heard of for a home.
    pub fn token(&self, home: u8) -> u64 {
        self.homes.get(usize::from(home)).map_or(u64::MAX, |home| home.token)
    }

    /// Whether it has not lost its memory.
    pub fn is_intact(&self, home: u8) -> bool {
        self.homes.get(usize::from(home)).is_some_and(|home| home.is_intact)
    }

    /// Up to where every voter had the same.
    pub fn settled(&self, home: u8) -> StrongVersion {
        self.homes.get(usize::from(home)).map_or(StrongVersion::default(), |home| home.settled)
    }

    /// The entries.
    pub fn store(&self) -> &dyn StrongStore {
        &*self.store
    }

    /// The entries, for the holder of a home, which is this node.
    pub fn store_mut(&mut self) -> &mut dyn StrongStore {
        &mut *self.store
    }

    /// Homes in which it has lost its memory and was not brought up to date yet.
    pub fn lost_homes(&self) -> impl Iterator<Item = u8> {
        (0..).zip(&self.homes).filter(|(_, home)| !home.is_intact).map(|(number, _)| number)
    }

    /// How often each node was refused for an old token, and the last time.
    pub fn refused(&self) -> (&BTreeMap<NodeId, u64>, Option<FencedOff>) {
        (&self.refused, self.last_refused)
    }

    /// Whether a writer with this token is listened to; if so no older one is any more. Whoever calls has seen to it
    /// that the token is on disk.
    pub fn listen(&mut self, writer: NodeId, home: u8, token: u64) -> Result<(), StrongResponse> {
        let Some(place) = self.homes.get_mut(usize::from(home)) else { return Err(StrongResponse::Refused) };
        if token < place.token {
            *self.refused.entry(writer).or_default() += 1;
            self.last_refused = Some(FencedOff { writer, home, token, known: place.token });
            return Err(StrongResponse::Fenced { token: place.token });
        }
        place.token = token;
        Ok(())
    }

    /// Keeps an entry of the holder.
    pub fn replicate(&mut self, home: u8, key: &[u8], entry: StrongEntry, settled: StrongVersion) -> StrongResponse {
        let is_intact = self.is_intact(home);
        if self.store.get(home, key).is_none_or(|held| held.version < entry.version)
            && self.store.put(home, key, entry).is_err()
        {
            return StrongResponse::Full;
        }
        // What the holder knows of this node is only true while it has its memory.
        if is_intact {
            self.settle(home, settled);
        }
        StrongResponse::Kept { is_intact }
    }

    /// Every voter has the same, up to here.
    pub fn settle(&mut self, home: u8, settled: StrongVersion) {
        let place = &mut self.homes[usize::from(home)];
        if place.settled < settled {
            place.settled = settled;
            self.store.settle(home, settled);
        }
    }

    /// Shows what is here after `level` or after what is settled here, whichever is less. `from` is where a page ended.
    pub fn collect(&self, home: u8, level: StrongVersion, from: Option<StrongVersion>, values: bool) -> StrongResponse {
        let Home { settled, is_intact, .. } = self.homes[usize::from(home)];
        let mut page = self.store.after(home, from.unwrap_or(level.min(settled)), limits::STRONG_PAGE_BYTES);
        if !values {
            // What matters is which version there is, and whether there is a value: an empty one stands for it.
            page.entries.iter_mut().filter_map(|(_, entry)| entry.value.as_mut()).for_each(Vec::clear);
        }
        StrongResponse::Page { settled, is_intact, entries: page.entries, has_more: page.has_more }
    }

    /// Takes over what the holder has; with `done`, which says what is settled there, this node now has the same. Under the holder's own token the later version stays; what is older gives way
    /// even to something older still, because the holder has everything that was acknowledged and this was not.
    pub fn sync(
        &mut self,
        home: u8,
        token: u64,
        entries: Vec<(Vec<u8>, Option<StrongEntry>)>,
        done: Option<StrongVersion>,
    ) -> StrongResponse {
        for (key, entry) in entries {
            let held = self.store.get(home, &key).map(|held| held.version);
            let yields = held.is_none_or(|held| held.token < token);
            match entry {
                Some(entry) => {
                    let is_news = held != Some(entry.version) && (yields || held < Some(entry.version));
                    if is_news && self.store.put(home, &key, entry).is_err() {
                        return StrongResponse::Full;
                    }
                }
                None if yields => self.store.forget(home, &key),
                None => {}
            }
        }
        if let Some(settled) = done {
            self.homes[usize::from(home)].is_intact = true;
            self.settle(home, settled);
        }
        StrongResponse::Kept { is_intact: self.is_intact(home) }
    }

    /// This node, as the holder, has everything that was acknowledged before.
    pub fn complete(&mut self, home: u8) {
        self.homes[usize::from(home)].is_intact = true;
    }
}

//! Clients' own caches, RESP's way: CLIENT TRACKING.
//!
//! A shard remembers which clients have read which of its keys, and tells each once when a key is no longer what it
//! was. Clients that ask for broadcasts are told about every key with a prefix instead, read or not:
//!
//!   GET by a tracking client  ->  readers[key] += client
//!   any write                 ->  the readers of the key, and the broadcasts whose prefix it has: on the list
//!   end of the turn           ->  the list, in boxes to the shards where those clients are connected
//!
//! Unlike a near cache (`interest`), such a client holds a value until it hears of it, so an expiry must be told too:
//! keys that were read with one are looked at when it comes. What is remembered is bounded; a key that is forgotten
//! for room is told as changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use crate::base::hash::{BuildMix, KeyHash};
use crate::base::time::Instant;

/// Who is told about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The client that reads.
    pub client: u64,
    /// The client that is told: the same, or the one it named.
    pub receiver: u64,
    /// It is not told of what it changes itself.
    pub no_loop: bool,
}

/// Something to be told to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// These keys are not what they were.
    Keys(Vec<Vec<u8>>),
    /// No key is.
    Everything,
}

/// What clients have read of one shard.
pub struct Tracking {
    by_hash: HashMap<u64, Tracked, BuildMix>,
    /// Keys in the order in which they were first read, to forget the oldest.
    order: VecDeque<u64>,
    broadcasts: Vec<(Vec<u8>, Vec<Reader>)>,
    /// When a key that was read expires.
    expiries: BinaryHeap<Reverse<(u64, u64)>>,
    /// By the client that is told and the prefix by which, empty where it has read the key: what comes by different
    /// prefixes is told by itself.
    news: BTreeMap<(u64, Vec<u8>), News>,
    keys_max: usize,
    /// Readers in all entries.
    items: usize,
}

struct Tracked {
    key: Box<[u8]>,
    readers: Vec<Reader>,
}

impl Tracking {
    /// Remembers `keys_max` keys at most.
    pub fn new(keys_max: usize) -> Tracking {
        Tracking {
            by_hash: HashMap::default(),
            order: VecDeque::new(),
            broadcasts: Vec::new(),
            expiries: BinaryHeap::new(),
            news: BTreeMap::new(),
            keys_max,
            items: 0,
        }
    }

    /// Whether there is nobody to tell.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.by_hash.is_empty() && self.broadcasts.is_empty()
    }

    /// Whether something waits to be told.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Keys, readers of them, prefixes that are broadcast.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.by_hash.len(), self.items, self.broadcasts.len())
    }

    /// Remembers no more keys than this from now on.
    pub fn set_keys_max(&mut self, keys_max: usize) {
        self.keys_max = keys_max;
        self.forget_oldest();
    }

    /// Notes that a client has read a key, which may expire.
    pub fn note(&mut self, hash: KeyHash, key: &[u8], expires: Option<Instant>, reader: Reader) {
        let tracked = self.by_hash.entry(hash.0).or_insert_with(|| {
            self.order.push_back(hash.0);
            Tracked { key: key.into(), readers: Vec::new() }
        });
        // Two keys of one 64-bit hash do not meet; if they do, the first is told with the second.
        if tracked.readers.iter().all(|known| known.client != reader.client) {
            tracked.readers.push(reader);
            self.items += 1;
        }
        if let Some(expires) = expires
            && self.expiries.len() < 2 * self.keys_max
        {
            self.expiries.push(Reverse((expires.ms, hash.0)));
        }
        self.forget_oldest();
    }

    /// A key is no longer what it was, by what `writer` did.
    #[cold]
    pub fn changed(&mut self, hash: KeyHash, key: &[u8], writer: u64) {
        if let Some(tracked) = self.by_hash.remove(&hash.0) {
            self.items -= tracked.readers.len();
            tell(&mut self.news, &[], &tracked.readers, &tracked.key, writer);
        }
        for (prefix, readers) in &self.broadcasts {
            if key.starts_with(prefix) {
                tell(&mut self.news, prefix, readers, key, writer);
            }
        }
        if self.order.len() > 2 * self.by_hash.len() + ORDER_SLACK {
            let by_hash = &self.by_hash;
            self.order.retain(|hash| by_hash.contains_key(hash));
        }
    }

    /// No key is what it was.
    pub fn all_changed(&mut self) {
        let readers = self.by_hash.drain().flat_map(|(_, tracked)| tracked.readers);
        let listeners = self.broadcasts.iter().flat_map(|(_, readers)| readers.iter().copied());
        for reader in readers.chain(listeners) {
            self.news.insert((reader.receiver, Vec::new()), News::Everything);
        }
        (self.items, self.expiries, self.order) = (0, BinaryHeap::new(), VecDeque::new());
    }

    /// The next key whose time has come, as far as is known here.
    pub fn next_expired(&mut self, now: Instant) -> Option<(KeyHash, Vec<u8>)> {
        while let Some(&Reverse((at, hash))) = self.expiries.peek() {
            if at > now.ms {
                return None;
            }
            self.expiries.pop();
            if let Some(tracked) = self.by_hash.get(&hash) {
                return Some((KeyHash(hash), tracked.key.to_vec()));
            }
        }
        None
    }

    /// Tells a reader about all keys with `prefix` from now on.
    pub fn broadcast(&mut self, prefix: &[u8], reader: Reader) {
        let at = self.broadcasts.iter().position(|(known, _)| known == prefix).unwrap_or_else(|| {
            self.broadcasts.push((prefix.to_vec(), Vec::new()));
            self.broadcasts.len() - 1
        });
        let readers = &mut self.broadcasts[at].1;
        readers.retain(|known| known.client != reader.client);
        readers.push(reader);
    }

    /// Broadcasts nothing more to a client.
    pub fn end_broadcasts(&mut self, client: u64) {
        self.broadcasts.iter_mut().for_each(|(_, readers)| readers.retain(|reader| reader.client != client));
        self.broadcasts.retain(|(_, readers)| !readers.is_empty());
    }

    /// What waits to be told, by the number of the client and the prefix.
    pub fn take_news(&mut self) -> BTreeMap<(u64, Vec<u8>), News> {
        std::mem::take(&mut self.news)
    }

    fn forget_oldest(&mut self) {
        while self.by_hash.len() > self.keys_max
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(tracked) = self.by_hash.remove(&oldest) {
                self.items -= tracked.readers.len();
                tell(&mut self.news, &[], &tracked.readers, &tracked.key, 0);
            }
        }
    }
}

fn tell(news: &mut BTreeMap<(u64, Vec<u8>), News>, by: &[u8], readers: &[Reader], key: &[u8], writer: u64) {
    for reader in readers.iter().filter(|reader| !(reader.no_loop && reader.client == writer)) {
        match news.entry((reader.receiver, by.to_vec())).or_insert_with(|| News::Keys(Vec::new())) {
            News::Keys(keys) if keys.len() < KEYS_PER_NEWS => {
                if keys.last().is_none_or(|last| last != key) {
                    keys.push(key.to_vec());
                }
            }
            // Too much to list is told as everything.
            news => *news = News::Everything,
        }
    }
}

/// Keys that one client is told in one turn; beyond that it is told to forget everything.
const KEYS_PER_NEWS: usize = 4096;
/// Places in the order that may stand for keys already told, before they are cleared away.
const ORDER_SLACK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(client: u64) -> Reader {
        Reader { client, receiver: client, no_loop: false }
    }

    fn keys(names: &[&str]) -> News {
        News::Keys(names.iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    #[test]
    fn readers_are_told_once_and_writers_may_be_spared() {
        let mut tracking = Tracking::new(100);
        tracking.note(KeyHash(1), b"a", None, reader(7));
        tracking.note(KeyHash(1), b"a", None, reader(7));
        tracking.note(KeyHash(1), b"a", None, Reader { no_loop: true, ..reader(8) });
        assert_eq!(tracking.counts(), (1, 2, 0));
        tracking.changed(KeyHash(2), b"b", 0);
        assert!(!tracking.has_news());
        tracking.changed(KeyHash(1), b"a", 8);
        tracking.changed(KeyHash(1), b"a", 9);
        assert_eq!(tracking.take_news(), BTreeMap::from([((7, vec![]), keys(&["a"]))]));
        assert!(tracking.is_idle());
    }

    #[test]
    fn what_is_forgotten_for_room_is_told_and_so_is_what_expires() {
        let mut tracking = Tracking::new(2);
        for (hash, key) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            tracking.note(KeyHash(hash), key, Some(Instant::from_ms(hash * 10)), reader(7));
        }
        assert_eq!(tracking.take_news(), BTreeMap::from([((7, vec![]), keys(&["a"]))]));
        assert_eq!(tracking.next_expired(Instant::from_ms(15)), None);
        assert_eq!(tracking.next_expired(Instant::from_ms(25)), Some((KeyHash(2), b"b".to_vec())));
    }

    #[test]
    fn a_broadcast_goes_to_all_with_the_prefix() {
        let mut tracking = Tracking::new(2);
        tracking.broadcast(b"user:", reader(1));
        tracking.broadcast(b"", Reader { receiver: 5, ..reader(2) });
        tracking.changed(KeyHash(1), b"user:1", 0);
        tracking.changed(KeyHash(2), b"other", 0);
        assert_eq!(
            tracking.take_news(),
            BTreeMap::from([((1, b"user:".to_vec()), keys(&["user:1"])), ((5, vec![]), keys(&["user:1", "other"]))])
        );
        tracking.end_broadcasts(2);
        tracking.all_changed();
        assert_eq!(tracking.take_news(), BTreeMap::from([((1, vec![]), News::Everything)]));
        tracking.end_broadcasts(1);
        assert!(tracking.is_idle());
    }
}

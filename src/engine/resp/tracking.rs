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
use crate::base::limits;
use crate::base::time::Instant;

/// Whom news are for, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct To {
    /// The client that tracks. Whom it wants told in its place, and about what, is known where it is connected.
    pub client: u64,
    /// The prefix that is broadcast to it, if that is why.
    pub prefix: Option<Vec<u8>>,
    /// The client that has changed the keys; 0 for none.
    pub writer: u64,
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
    broadcasts: Vec<(Vec<u8>, Vec<u64>)>,
    /// Keys that somebody is to hear of when they expire, read or not: those with a prefix that is broadcast, or all.
    expiring: HashMap<u64, (Box<[u8]>, u64), BuildMix>,
    /// See `expiring`.
    pub tells_expiries: bool,
    /// When a key expires.
    expiries: BinaryHeap<Reverse<(u64, u64)>>,
    /// What comes by different prefixes is told by itself.
    news: BTreeMap<To, News>,
    /// Keys that are listed in them.
    news_keys: usize,
    /// Expiries of broadcast keys that there was no room to note: the first of them, and the last.
    unnoted: Option<(u64, u64)>,
    /// No key is what it was: all clients that track are to hear it, whatever they have read.
    pub was_flushed: bool,
    keys_max: usize,
    /// Readers in all entries, and bytes of their keys.
    items: usize,
    /// See `items`.
    key_bytes: usize,
}

struct Tracked {
    key: Box<[u8]>,
    readers: Vec<u64>,
    /// The expiry that was noted last, in milliseconds; 0 for none.
    expires: u64,
}

impl Tracking {
    /// Remembers `keys_max` keys at most.
    pub fn new(keys_max: usize) -> Tracking {
        Tracking {
            by_hash: HashMap::default(),
            order: VecDeque::new(),
            broadcasts: Vec::new(),
            expiring: HashMap::default(),
            tells_expiries: false,
            expiries: BinaryHeap::new(),
            news: BTreeMap::new(),
            news_keys: 0,
            unnoted: None,
            was_flushed: false,
            keys_max,
            items: 0,
            key_bytes: 0,
        }
    }

    /// Whether there is nobody to tell.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.by_hash.is_empty() && self.broadcasts.is_empty() && !self.tells_expiries
    }

    /// Whether something waits to be told.
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.news.is_empty() || self.was_flushed
    }

    fn bytes(&self) -> usize {
        self.by_hash.len() * ENTRY_BYTES + self.items * READER_BYTES + self.key_bytes
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
    pub fn note(&mut self, hash: KeyHash, key: &[u8], expires: Option<Instant>, client: u64) {
        let tracked = self.by_hash.entry(hash.0).or_insert_with(|| {
            self.order.push_back(hash.0);
            self.key_bytes += key.len();
            Tracked { key: key.into(), readers: Vec::new(), expires: 0 }
        });
        // Two keys of one 64-bit hash do not meet; if they do, the first is told with the second.
        if !tracked.readers.contains(&client) {
            tracked.readers.push(client);
            self.items += 1;
        }
        let noted = expires.map_or(0, |expires| expires.ms);
        if noted != 0 && tracked.expires != noted {
            tracked.expires = noted;
            if !self.push_expiry(noted, hash) {
                // No room to remember when: told now, and read again if it is wanted still.
                self.tell_readers(hash, 0);
            }
        }
        self.forget_oldest();
    }

    /// Whether anybody wants to hear of the expiry of keys that nobody has read.
    pub fn wants_expiries(&self) -> bool {
        self.tells_expiries || !self.broadcasts.is_empty()
    }

    /// Notes when a key will expire that was written just now.
    pub fn note_expiry(&mut self, hash: KeyHash, key: &[u8], expires: Instant) {
        let is_wanted = self.tells_expiries || self.broadcasts.iter().any(|(prefix, _)| key.starts_with(prefix));
        if !is_wanted || self.expiring.get(&hash.0).is_some_and(|(_, noted)| *noted == expires.ms) {
            return;
        }
        if self.expiring.len() < self.keys_max && self.push_expiry(expires.ms, hash) {
            self.expiring.insert(hash.0, (key.into(), expires.ms));
        } else {
            // Told as everything when they come.
            let (first, last) = self.unnoted.unwrap_or((expires.ms, expires.ms));
            self.unnoted = Some((first.min(expires.ms), last.max(expires.ms)));
        }
    }

    /// Remembers that a key expires. `false` if there is no room.
    fn push_expiry(&mut self, expires_ms: u64, hash: KeyHash) -> bool {
        if self.expiries.len() >= 2 * self.keys_max {
            // Most of them are of keys that have changed since.
            let (by_hash, expiring) = (&self.by_hash, &self.expiring);
            self.expiries.retain(|Reverse((at, hash))| {
                by_hash.get(hash).is_some_and(|tracked| tracked.expires == *at)
                    || expiring.get(hash).is_some_and(|(_, noted)| noted == at)
            });
        }
        let has_room = self.expiries.len() < 2 * self.keys_max;
        if has_room {
            self.expiries.push(Reverse((expires_ms, hash.0)));
        }
        has_room
    }

    /// A key is no longer what it was, by what `writer` did.
    #[cold]
    pub fn changed(&mut self, hash: KeyHash, key: &[u8], writer: u64) {
        self.tell_readers(hash, writer);
        self.tell_broadcasts(key, writer);
        if self.order.len() > 2 * self.by_hash.len() + ORDER_SLACK {
            let by_hash = &self.by_hash;
            self.order.retain(|hash| by_hash.contains_key(hash));
        }
    }

    /// Tells those who have read a key, and forgets them.
    pub fn tell_readers(&mut self, hash: KeyHash, writer: u64) {
        if let Some(tracked) = self.by_hash.remove(&hash.0) {
            self.items -= tracked.readers.len();
            self.key_bytes -= tracked.key.len();
            tell((&mut self.news, &mut self.news_keys), None, &tracked.readers, &tracked.key, writer);
        }
    }

    fn tell_broadcasts(&mut self, key: &[u8], writer: u64) {
        for (prefix, readers) in &self.broadcasts {
            if key.starts_with(prefix) {
                tell((&mut self.news, &mut self.news_keys), Some(prefix), readers, key, writer);
            }
        }
    }

    /// No key is what it was.
    pub fn all_changed(&mut self) {
        self.was_flushed = true;
        self.news.clear();
        self.news_keys = 0;
        // Those who are connected here are told in any case; those of other shards who have read here, by this.
        let readers = self.by_hash.drain().flat_map(|(_, tracked)| tracked.readers);
        let listeners = self.broadcasts.iter().flat_map(|(_, clients)| clients.iter().copied());
        for client in readers.chain(listeners) {
            self.news.insert(To { client, prefix: None, writer: 0 }, News::Everything);
        }
        (self.items, self.key_bytes) = (0, 0);
        (self.expiries, self.order) = (BinaryHeap::new(), VecDeque::new());
        self.expiring.clear();
    }

    /// The next key whose time has come, as far as is known here.
    pub fn next_expired(&mut self, now: Instant) -> Option<(KeyHash, Vec<u8>)> {
        if let Some((first, last)) = self.unnoted
            && first <= now.ms
        {
            // Some of those that were not noted have expired; others may in the next moments.
            let next = now.ms + UNNOTED_MS;
            self.unnoted = (now.ms < last).then_some((next.min(last), last));
            for client in self.broadcasts.iter().flat_map(|(_, clients)| clients.iter().copied()) {
                self.news.insert(To { client, prefix: None, writer: 0 }, News::Everything);
            }
        }
        while let Some(&Reverse((at, hash))) = self.expiries.peek() {
            if at > now.ms {
                return None;
            }
            self.expiries.pop();
            let read = self.by_hash.get(&hash).filter(|tracked| tracked.expires == at).map(|tracked| &tracked.key);
            let key = read.or_else(|| self.expiring.get(&hash).filter(|(_, noted)| *noted == at).map(|(key, _)| key));
            if let Some(key) = key {
                return Some((KeyHash(hash), key.to_vec()));
            }
        }
        None
    }

    /// Tells a client about all keys with `prefix` from now on.
    pub fn broadcast(&mut self, prefix: &[u8], client: u64) {
        let at = self.broadcasts.iter().position(|(known, _)| known == prefix).unwrap_or_else(|| {
            self.broadcasts.push((prefix.to_vec(), Vec::new()));
            self.broadcasts.len() - 1
        });
        let readers = &mut self.broadcasts[at].1;
        readers.retain(|known| *known != client);
        readers.push(client);
    }

    /// Broadcasts nothing more to a client.
    pub fn end_broadcasts(&mut self, client: u64) {
        self.broadcasts.iter_mut().for_each(|(_, readers)| readers.retain(|reader| *reader != client));
        self.broadcasts.retain(|(_, readers)| !readers.is_empty());
    }

    /// What waits to be told.
    pub fn take_news(&mut self) -> BTreeMap<To, News> {
        self.news_keys = 0;
        std::mem::take(&mut self.news)
    }

    /// A key whose expiry was noted is gone, or is there no longer with that expiry.
    pub fn forget_expiry(&mut self, hash: KeyHash) {
        self.expiring.remove(&hash.0);
    }

    fn forget_oldest(&mut self) {
        while (self.by_hash.len() > self.keys_max || self.bytes() > KEY_BYTES * self.keys_max)
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(tracked) = self.by_hash.remove(&oldest) {
                self.items -= tracked.readers.len();
                self.key_bytes -= tracked.key.len();
                tell((&mut self.news, &mut self.news_keys), None, &tracked.readers, &tracked.key, 0);
            }
        }
    }
}

fn tell(
    (news, listed): (&mut BTreeMap<To, News>, &mut usize),
    by: Option<&[u8]>,
    readers: &[u64],
    key: &[u8],
    writer: u64,
) {
    for &client in readers {
        let to = To { client, prefix: by.map(<[u8]>::to_vec), writer };
        match news.entry(to).or_insert_with(|| News::Keys(Vec::new())) {
            News::Keys(keys) if keys.len() < limits::NEWS_KEYS_PER_CLIENT_MAX && *listed < limits::NEWS_KEYS_MAX => {
                if keys.last().is_none_or(|last| last != key) {
                    keys.push(key.to_vec());
                    *listed += 1;
                }
            }
            // Too much to list is told as everything.
            news => *news = News::Everything,
        }
    }
}

/// How often clients are told of everything while keys expire that were not noted.
const UNNOTED_MS: u64 = 100;
/// Bytes that a key takes on average with its readers; more make it fewer keys.
pub const KEY_BYTES: usize = 128;
/// Bytes that a key takes beside its name: its place in the table, in the order, and among the expiries.
const ENTRY_BYTES: usize = 88;
/// Bytes that a reader takes in a list that grows by doubling.
const READER_BYTES: usize = 16;
/// Places in the order that may stand for keys already told, before they are cleared away.
const ORDER_SLACK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn to(client: u64, prefix: Option<&str>, writer: u64) -> To {
        To { client, prefix: prefix.map(|prefix| prefix.as_bytes().to_vec()), writer }
    }

    fn keys(names: &[&str]) -> News {
        News::Keys(names.iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    #[test]
    fn readers_are_told_once() {
        let mut tracking = Tracking::new(100);
        tracking.note(KeyHash(1), b"a", None, 7);
        tracking.note(KeyHash(1), b"a", None, 7);
        tracking.note(KeyHash(1), b"a", None, 8);
        assert_eq!(tracking.counts(), (1, 2, 0));
        tracking.changed(KeyHash(2), b"b", 0);
        assert!(!tracking.has_news());
        tracking.changed(KeyHash(1), b"a", 8);
        tracking.changed(KeyHash(1), b"a", 9);
        let expected = [(to(7, None, 8), keys(&["a"])), (to(8, None, 8), keys(&["a"]))];
        assert_eq!(tracking.take_news(), BTreeMap::from(expected));
        assert!(tracking.is_idle());
    }

    #[test]
    fn what_is_forgotten_for_room_is_told_and_so_is_what_expires() {
        let mut tracking = Tracking::new(2);
        for (hash, key) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            tracking.note(KeyHash(hash), key, Some(Instant::from_ms(hash * 10)), 7);
        }
        assert_eq!(tracking.take_news(), BTreeMap::from([(to(7, None, 0), keys(&["a"]))]));
        assert_eq!(tracking.next_expired(Instant::from_ms(15)), None);
        assert_eq!(tracking.next_expired(Instant::from_ms(25)), Some((KeyHash(2), b"b".to_vec())));
    }

    #[test]
    fn a_broadcast_goes_to_all_with_the_prefix() {
        let mut tracking = Tracking::new(2);
        tracking.broadcast(b"user:", 1);
        tracking.broadcast(b"", 2);
        tracking.changed(KeyHash(1), b"user:1", 0);
        tracking.changed(KeyHash(2), b"other", 0);
        let expected = [(to(1, Some("user:"), 0), keys(&["user:1"])), (to(2, Some(""), 0), keys(&["user:1", "other"]))];
        assert_eq!(tracking.take_news(), BTreeMap::from(expected));
        tracking.end_broadcasts(2);
        tracking.all_changed();
        assert!(tracking.was_flushed);
        assert_eq!(tracking.take_news(), BTreeMap::from([(to(1, None, 0), News::Everything)]));
        tracking.end_broadcasts(1);
        assert!(tracking.is_idle());
    }

    /// A hot key with a time to live is noted once, so that others' expiries find room.
    #[test]
    fn many_reads_of_one_key_take_no_room_from_others() {
        let mut tracking = Tracking::new(2);
        (0..1000).for_each(|_| tracking.note(KeyHash(1), b"a", Some(Instant::from_ms(9_000)), 7));
        tracking.note(KeyHash(2), b"b", Some(Instant::from_ms(5)), 7);
        assert_eq!((tracking.expiries.len(), tracking.take_news().len()), (2, 0));
        assert_eq!(tracking.next_expired(Instant::from_ms(5)), Some((KeyHash(2), b"b".to_vec())));
        // Expiries that change all the time are cleared away.
        (0..1000).for_each(|ms| tracking.note(KeyHash(1), b"a", Some(Instant::from_ms(10_000 + ms)), 7));
        assert!(tracking.expiries.len() <= 4 && tracking.take_news().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_in_bytes() {
        let mut tracking = Tracking::new(100);
        for client in 0..1000 {
            for key in 0..50u64 {
                tracking.note(KeyHash(key), &[b'k'; 500], None, client);
                assert!(tracking.bytes() <= 100 * KEY_BYTES + ENTRY_BYTES + 500);
            }
        }
        assert!(tracking.has_news(), "what was forgotten was told");
        tracking.all_changed();
        assert_eq!((tracking.bytes(), tracking.counts()), (0, (0, 0, 0)));
    }

    #[test]
    fn an_expiry_is_noted_only_where_somebody_is_to_hear_of_it() {
        let mut tracking = Tracking::new(10);
        tracking.note_expiry(KeyHash(1), b"user:1", Instant::from_ms(5));
        tracking.broadcast(b"user:", 1);
        tracking.note_expiry(KeyHash(2), b"other", Instant::from_ms(5));
        tracking.note_expiry(KeyHash(3), b"user:3", Instant::from_ms(5));
        assert_eq!(tracking.next_expired(Instant::from_ms(5)), Some((KeyHash(3), b"user:3".to_vec())));
        assert_eq!(tracking.next_expired(Instant::from_ms(5)), None);
        tracking.forget_expiry(KeyHash(3));
        assert!(tracking.expiring.is_empty());
    }
}

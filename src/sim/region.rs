//! One simulated region: a replica, the entries it stands beside, its streams to the others, and its questions.
//!
//! This does what `cluster::host` does with sockets and threads: cuts chunks into numbered frames, sends them until
//! they are taken, answers, and compares digests with one other region after the other. All bytes are the real ones.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::hash::HashSeed;
use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::ordering::codec;
use crate::replica::batch::{self, Frame};
use crate::replica::record::records;
use crate::replica::repair::{Answer, Question, Summary, lists};
use crate::replica::stream::{Receiver, Sender};
use crate::replica::table::KeyId;
use crate::replica::versions::{Buckets, Sum};
use crate::replica::{Config, Count, Entries, Found, Record, Replica, counter};

/// The seed of the key hash, the same everywhere.
pub const SEED: HashSeed = HashSeed(9);

/// Versions and counters a region remembers.
const VERSIONS_MAX: usize = 1024;
const COUNTERS_MAX: usize = 256;

/// What regions send each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Parcel {
    /// A frame of a stream.
    Frame(Vec<u8>),
    /// A question, by its number.
    Question(u64, Question),
    /// The answer to it.
    Answer(u64, Answer),
}

/// Entries in a map.
#[derive(Default)]
pub struct Shelf(pub BTreeMap<KeyId, Stored>);

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Entries for Shelf {
    fn look(&mut self, id: KeyId, visit: &mut dyn FnMut(&[u8], Found<'_>)) -> bool {
        let Some(stored) = self.0.get(&id) else { return false };
        visit(&stored.key, Found { value: &stored.value, ..Found::default() });
        true
    }

    fn put(&mut self, id: KeyId, key: &[u8], found: Found<'_>) -> bool {
        self.0.insert(id, Stored { key: key.to_vec(), value: found.value.to_vec() });
        true
    }

    fn remove(&mut self, id: KeyId, _: Option<&[u8]>) {
        self.0.remove(&id);
    }

    fn walk(&mut self, cursor: u32, visit: &mut dyn FnMut(KeyId, &[u8])) -> Option<u32> {
        self.0.iter().skip(cursor as usize).take(8).for_each(|(id, stored)| visit(*id, &stored.key));
        (cursor as usize + 8 < self.0.len()).then_some(cursor + 8)
    }
}

/// A region, which has one node with one shard.
pub struct Region {
    /// Its number.
    pub site: SiteId,
    /// Its replica.
    pub replica: Replica,
    /// Its entries.
    pub shelf: Shelf,
    /// What it sends to and has from each other region.
    peers: Vec<Peer>,
    now_ms: u64,
    questions: u64,
    incarnation: u64,
}

#[derive(Default)]
struct Peer {
    sender: Sender,
    receiver: Receiver,
    comparison: Option<Comparison>,
    /// Something is missing: compare all, and now.
    is_urgent: bool,
    compared_ms: u64,
}

/// A comparison under way: one question at a time.
struct Comparison {
    number: u64,
    asked_ms: u64,
    asked: Question,
    next: VecDeque<Question>,
    was_urgent: bool,
}

/// The key's name.
pub fn id(key: &[u8]) -> KeyId {
    KeyId::new(SEED, SEED.hash(key).0, key)
}

impl Region {
    /// A region that knows of nothing, among `regions`.
    pub fn new(number: usize, regions: usize, incarnation: u64) -> Region {
        let site = SiteId(number as u8);
        let config = Config {
            node: NodeId(number as u16),
            site,
            incarnation,
            seed: SEED,
            versions_max: VERSIONS_MAX,
            counters_max: COUNTERS_MAX,
        };
        let mut peers: Vec<Peer> = Vec::new();
        peers.resize_with(regions, Peer::default);
        // It was away, or is new: it does not wait for a gap to find out what it misses.
        peers.iter_mut().for_each(|peer| peer.is_urgent = true);
        // And it says that it was started, even if nobody writes here: others may miss what it had not sent them.
        peers.iter_mut().for_each(|peer| peer.sender.push(&[], 0));
        Region {
            site,
            replica: Replica::new(config),
            shelf: Shelf::default(),
            peers,
            now_ms: 0,
            // An answer to what it asked in a former life is not one to what it asks in this.
            questions: incarnation << 20,
            incarnation,
        }
    }

    /// What its clock shows now.
    pub fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.replica.set_time(now_ms);
    }

    /// A client sets a key.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        let found = Found { value, ..Found::default() };
        self.shelf.put(id(key), key, found);
        self.replica.changed(id(key), key, Some(found), None);
    }

    /// A client deletes a key.
    pub fn delete(&mut self, key: &[u8]) {
        self.shelf.remove(id(key), None);
        self.replica.changed(id(key), key, None, None);
    }

    /// A client counts.
    pub fn count(&mut self, key: &[u8], delta: i128) {
        // As the engine does it: what was evicted comes back first.
        if !self.shelf.0.contains_key(&id(key))
            && let Some((text, ..)) = self.replica.recall(id(key))
        {
            self.shelf.put(id(key), key, Found { value: text.as_bytes(), ..Found::default() });
        }
        let before = self.shelf.0.get(&id(key)).and_then(|stored| counter::parse(&stored.value));
        let text = (before.unwrap_or(0) + delta).to_string();
        let found = Found { value: text.as_bytes(), ..Found::default() };
        self.shelf.put(id(key), key, found);
        self.replica.changed(id(key), key, Some(found), Some(Count { before, is_initial: false }));
    }

    /// The cache evicts a key: nobody is told.
    pub fn evict(&mut self, key: &[u8]) {
        self.shelf.0.remove(&id(key));
    }

    /// The number a counter stands at, whether its entry was evicted or not.
    pub fn number(&self, key: &[u8]) -> Option<i128> {
        let stored = self.shelf.0.get(&id(key)).and_then(|stored| counter::parse(&stored.value));
        stored.or_else(|| self.replica.recall(id(key)).and_then(|(text, ..)| counter::parse(text.as_bytes())))
    }

    /// Time has passed: what is due is sent. `note` sees every chunk; `loses` says of each whether its ring was full.
    pub fn tick(
        &mut self,
        mut note: impl FnMut(&[u8]),
        mut loses: impl FnMut() -> bool,
        misroutes: bool,
        compares: bool,
        out: &mut Vec<(usize, Parcel)>,
    ) {
        self.replica.housekeep(&mut self.shelf);
        let me = usize::from(self.site.0);
        while let Some(chunk) = self.replica.next_chunk() {
            note(&chunk.bytes);
            let is_lost = chunk.is_gap || loses();
            for (to, peer) in self.peers.iter_mut().enumerate().filter(|(to, _)| *to != me) {
                let may = chunk.regions.is_empty() || chunk.regions.contains(&SiteId(to as u8)) || misroutes;
                match (may, is_lost) {
                    (true, false) => peer.sender.push(&chunk.bytes, self.now_ms),
                    (true, true) => peer.sender.skip(self.now_ms),
                    (false, _) => {}
                }
            }
        }
        let incarnation = self.incarnation;
        for (to, peer) in self.peers.iter_mut().enumerate().filter(|(to, _)| *to != me) {
            peer.sender.send_due(self.now_ms, |first, sequence, body| {
                let frame = Frame::Records { stream: 0, incarnation, first, sequence, body: body.clone() };
                out.push((to, Parcel::Frame(frame.encode().to_vec())));
                true
            });
            if let Some((incarnation, taken)) = peer.receiver.answer() {
                let frame = Frame::Taken { stream: 0, incarnation, taken };
                out.push((to, Parcel::Frame(frame.encode().to_vec())));
            }
        }
        if compares {
            self.compare(out);
        }
    }

    /// A parcel has arrived; what it is not supposed to be is an error.
    pub fn receive(&mut self, from: usize, parcel: Parcel, out: &mut Vec<(usize, Parcel)>) -> Result<(), String> {
        match parcel {
            Parcel::Frame(bytes) => self.receive_frame(from, bytes),
            Parcel::Question(number, question) => {
                if !question.is_modest() {
                    return Err(format!("region {from} asks for too much"));
                }
                let answer = self.answer(from, question);
                out.push((from, Parcel::Answer(number, answer)));
                Ok(())
            }
            Parcel::Answer(number, answer) => self.take_answer(from, number, answer, out),
        }
    }

    /// Digests of all that this region and another share.
    pub fn summaries(&self, to: SiteId) -> BTreeMap<Vec<SiteId>, Summary> {
        self.replica.summary(to).into_iter().collect()
    }

    fn receive_frame(&mut self, from: usize, bytes: Vec<u8>) -> Result<(), String> {
        let frame = Frame::decode(&Bytes::from(bytes)).map_err(|error| error.0.to_string())?;
        match frame {
            Frame::Records { incarnation, first, sequence, body, .. } => {
                let arrival = self.peers[from].receiver.arrived(incarnation, first, sequence);
                self.peers[from].is_urgent |= arrival.is_gap;
                if arrival.is_restart {
                    for peer in &mut self.peers {
                        peer.is_urgent = true;
                        peer.sender.skip(self.now_ms);
                    }
                }
                if arrival.is_new {
                    self.apply(&batch::unpack(&body).map_err(|error| error.0.to_string())?)?;
                    self.peers[from].receiver.take(sequence);
                }
            }
            Frame::Taken { incarnation, taken, .. } => {
                if incarnation == self.incarnation {
                    self.peers[from].sender.taken(&taken);
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        for record in records(bytes) {
            let record: Record<'_> = record.map_err(|error| error.0.to_string())?;
            self.replica.apply(&record, &mut self.shelf);
        }
        Ok(())
    }

    // --- Comparing ---

    fn compare(&mut self, out: &mut Vec<(usize, Parcel)>) {
        let me = usize::from(self.site.0);
        for to in (0..self.peers.len()).filter(|to| *to != me) {
            let peer = &mut self.peers[to];
            if let Some(comparison) = &peer.comparison {
                if comparison.asked_ms + limits::REPLICATION_QUESTION_MS > self.now_ms {
                    continue;
                }
                // No answer: what it was to find out is still to be found out.
                peer.is_urgent |= comparison.was_urgent;
                peer.comparison = None;
            }
            let is_due = peer.compared_ms + limits::REPLICATION_COMPARE_MS <= self.now_ms;
            if is_due {
                peer.compared_ms = self.now_ms;
                let next = VecDeque::from([Question::Summary { check: SEED.hash(b"").0 }]);
                // Taken now: a gap that is found while the question is under way is another one.
                let was_urgent = std::mem::take(&mut peer.is_urgent);
                self.ask(to, next, was_urgent, out);
            }
        }
    }

    fn ask(&mut self, to: usize, mut next: VecDeque<Question>, was_urgent: bool, out: &mut Vec<(usize, Parcel)>) {
        let Some(asked) = next.pop_front() else {
            self.peers[to].comparison = None;
            self.replica.has_compared();
            return;
        };
        self.questions += 1;
        let number = self.questions;
        out.push((to, Parcel::Question(number, asked.clone())));
        self.peers[to].comparison = Some(Comparison { number, asked_ms: self.now_ms, asked, next, was_urgent });
    }

    fn answer(&mut self, from: usize, question: Question) -> Answer {
        let to = SiteId(from as u8);
        match question {
            Question::Summary { .. } => Answer::Summary(self.replica.summary(to)),
            Question::Buckets { regions, windows } => Answer::Buckets(
                windows.into_iter().map(|window| self.replica.buckets(&regions, window).each.to_vec()).collect(),
            ),
            Question::List { regions, buckets } => Answer::List(
                buckets
                    .iter()
                    .flat_map(|list| self.replica.named(&regions, list.bucket, &list.windows, list.with_counters))
                    .collect(),
            ),
            Question::Fetch { ids } => {
                let mut bytes = Vec::new();
                ids.into_iter().for_each(|id| self.replica.fetch(id, to, &mut self.shelf, &mut bytes));
                Answer::Records(batch::pack(&bytes).to_vec(), Vec::new())
            }
        }
    }

    fn take_answer(
        &mut self,
        from: usize,
        number: u64,
        answer: Answer,
        out: &mut Vec<(usize, Parcel)>,
    ) -> Result<(), String> {
        let is_asked = self.peers[from].comparison.as_ref().is_some_and(|asked| asked.number == number);
        let Some(comparison) = self.peers[from].comparison.take_if(|_| is_asked) else { return Ok(()) };
        let (mut next, was_urgent) = (comparison.next, comparison.was_urgent);
        match (comparison.asked, answer) {
            (Question::Summary { .. }, Answer::Summary(theirs)) => {
                let mine = self.summaries(SiteId(from as u8));
                for (regions, theirs) in theirs {
                    let mine = mine.get(&regions).cloned().unwrap_or_default();
                    let windows = mine.differences(&theirs, self.now_ms, was_urgent);
                    if !windows.is_empty() {
                        next.push_back(Question::Buckets { regions, windows });
                    }
                }
            }
            (Question::Buckets { regions, windows }, Answer::Buckets(theirs)) => {
                let mine: Vec<Buckets> = windows.iter().map(|window| self.replica.buckets(&regions, *window)).collect();
                let theirs: Vec<Vec<Sum>> = theirs;
                next.extend(lists(&regions, &windows, &mine, &theirs));
            }
            (Question::List { .. }, Answer::List(named)) => {
                let ids: Vec<KeyId> =
                    named.iter().filter(|named| self.replica.wants(named)).map(|named| named.id).collect();
                next.extend(ids.chunks(limits::REPLICATION_FETCH_MAX).map(|ids| Question::Fetch { ids: ids.to_vec() }));
            }
            (Question::Fetch { .. }, Answer::Records(bytes, _)) => {
                self.apply(&batch::unpack(&bytes).map_err(|error| error.0.to_string())?)?;
            }
            (asked, answer) => return Err(format!("region {from} was asked {asked:?} and answers {answer:?}")),
        }
        self.ask(from, next, was_urgent, out);
        Ok(())
    }
}

/// A parcel's bytes.
pub fn encode(parcel: &Parcel) -> Vec<u8> {
    codec::encode(parcel)
}

/// The inverse.
pub fn decode(bytes: &[u8]) -> Option<Parcel> {
    codec::decode(bytes)
}

//! Rings, streams, frames: what moves between this node's shards and the other nodes.
//!
//! One task, one pass each millisecond, nothing in it waits. A chunk is queued and numbered for each node that may
//! have it. What arrives is looked through from end to end before any shard sees it: bytes that are no records are
//! counted against their sender and go no further. A frame whose records find a shard's queue full is not taken, so its
//! sender keeps it and sends it again: that is the back pressure, and it ends at the sender's bound.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::pull::{self, Request, Shards};
use super::{Replication, Setup};
use crate::base::hash::KeyHash;
use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::base::time::unix_ms;
use crate::cluster::genesis::SiteKind;
use crate::cluster::host::links::{Channel, Inbound, Links};
use crate::cluster::state::State;
use crate::replica::Rules;
use crate::replica::batch::{self, Frame};
use crate::replica::port::{FromShard, Ports, StepAnswer, ToShard};
use crate::replica::record::{Malformed, Record};
use crate::replica::stream::{Receiver, Sender};

/// Moves everything.
pub(super) struct Carrier {
    links: Links,
    inbox: mpsc::Receiver<Inbound>,
    state: watch::Receiver<Arc<State>>,
    ports: Box<dyn Ports>,
    setup: Setup,
    shards: Shards,
    asked: mpsc::Receiver<Request>,
    replication: Replication,
    peers: BTreeMap<NodeId, Peer>,
    /// What waits for room in each shard's ring.
    waiting: Vec<VecDeque<ToShard>>,
    /// Questions that shards are answering, and which question each step belongs to.
    open: HashMap<u64, Open>,
    steps: HashMap<u64, (u64, usize)>,
    next: u64,
    /// How comparisons ended.
    ended: (mpsc::Sender<pull::Ended>, mpsc::Receiver<pull::Ended>),
    has_compared: bool,
    /// What shards have been told last.
    rules: Option<Arc<Rules>>,
    reported_ms: u64,
    told_time_ms: u64,
}

/// Another node.
struct Peer {
    site: SiteId,
    /// By this node's shards.
    senders: Vec<Sender>,
    /// By its shards.
    receivers: BTreeMap<u16, Receiver>,
    /// Something is missing: compare everything, now.
    is_urgent: bool,
    is_comparing: bool,
    compare_at_ms: u64,
    round: u64,
}

/// A question that shards are answering.
struct Open {
    answers: Vec<Option<StepAnswer>>,
    left: usize,
    reply: oneshot::Sender<Vec<StepAnswer>>,
}

impl Carrier {
    pub(super) fn new(
        links: Links,
        state: watch::Receiver<Arc<State>>,
        ports: Box<dyn Ports>,
        setup: Setup,
        shards: Shards,
        asked: mpsc::Receiver<Request>,
        replication: Replication,
    ) -> Carrier {
        let count = ports.shard_count() as usize;
        Carrier {
            inbox: links.listen(Channel::Replication),
            links,
            state,
            ports,
            setup,
            shards,
            asked,
            replication,
            peers: BTreeMap::new(),
            waiting: (0..count).map(|_| VecDeque::new()).collect(),
            open: HashMap::new(),
            steps: HashMap::new(),
            next: 0,
            ended: mpsc::channel(limits::REPLICATION_PEERS_MAX),
            has_compared: false,
            rules: None,
            reported_ms: 0,
            told_time_ms: 0,
        }
    }

    /// Until the links are gone.
    pub(super) async fn run(mut self) {
        self.state.mark_changed();
        let began = Instant::now();
        let mut idle = 0;
        loop {
            // Not the time of day, which may be set: this only runs.
            let now_ms = began.elapsed().as_millis() as u64;
            if self.state.has_changed().unwrap_or(false) {
                self.heed_state(now_ms);
            }
            let mut worked = self.hear_shards(now_ms);
            worked |= self.hear_peers(now_ms);
            worked |= self.take_requests();
            self.tell_shards();
            self.tell_peers(now_ms);
            self.compare(now_ms);
            if now_ms - self.reported_ms >= REPORT_MS {
                self.reported_ms = now_ms;
                self.report(now_ms);
                self.tell_time(unix_ms());
            }
            if self.inbox.is_closed() {
                return;
            }
            idle = if worked { 0 } else { idle + 1 };
            tokio::time::sleep(if idle < IDLE_PASSES { PASS } else { IDLE_PASS }).await;
        }
    }

    /// Members have come or gone, or rules have changed.
    fn heed_state(&mut self, now_ms: u64) {
        let state = self.state.borrow_and_update().clone();
        let is_region = |site: SiteId| state.sites.get(&site).is_some_and(|site| site.kind == SiteKind::Region);
        let others = state.members.values().filter(|member| member.id != self.links.me && is_region(member.site));
        let others: BTreeMap<NodeId, SiteId> =
            others.take(limits::REPLICATION_PEERS_MAX).map(|member| (member.id, member.site)).collect();
        self.peers.retain(|node, peer| others.get(node) == Some(&peer.site));
        for (node, site) in others {
            // This node says that it was started, even if nobody writes here: others may miss what it had not sent them.
            let started = |_| {
                let mut sender = Sender::default();
                sender.push(&[], now_ms);
                sender
            };
            self.peers.entry(node).or_insert_with(|| Peer {
                site,
                senders: (0..self.ports.shard_count()).map(started).collect(),
                receivers: BTreeMap::new(),
                // Whatever it has written so far is not here.
                is_urgent: true,
                is_comparing: false,
                compare_at_ms: 0,
                round: 0,
            });
        }
        if self.peers.is_empty() {
            // Nobody else to learn from.
            self.tell_compared();
        }
        if self.rules.as_deref() == Some(&state.rules) {
            return;
        }
        let rules = Arc::new(state.rules.clone());
        self.rules = Some(rules.clone());
        for waiting in &mut self.waiting {
            // Of several that a shard has not taken only the last one counts.
            waiting.retain(|message| !matches!(message, ToShard::Rules(_)));
            waiting.push_front(ToShard::Rules(rules.clone()));
        }
    }

    fn hear_shards(&mut self, now_ms: u64) -> bool {
        let mut worked = false;
        for shard in 0..self.ports.shard_count() {
            for _ in 0..limits::REPLICATION_RING_SLOTS {
                match self.ports.receive(shard) {
                    None => break,
                    Some(FromShard::Chunk(chunk)) => {
                        for peer in self.peers.values_mut() {
                            if !(chunk.regions.is_empty() || chunk.regions.contains(&peer.site)) {
                                continue;
                            }
                            match chunk.is_gap {
                                true => peer.senders[shard as usize].skip(now_ms),
                                false => peer.senders[shard as usize].push(&chunk.bytes, now_ms),
                            }
                        }
                    }
                    Some(FromShard::Answer(step, answer)) => self.answered(step, answer),
                }
                worked = true;
            }
        }
        worked
    }

    fn answered(&mut self, step: u64, answer: StepAnswer) {
        let Some((question, place)) = self.steps.remove(&step) else { return };
        let Some(open) = self.open.get_mut(&question) else { return };
        open.answers[place] = Some(answer);
        open.left -= 1;
        if open.left == 0
            && let Some(open) = self.open.remove(&question)
        {
            // Whoever asked may have given up.
            let _ = open.reply.send(open.answers.into_iter().flatten().collect());
        }
    }

    fn hear_peers(&mut self, now_ms: u64) -> bool {
        let (mut worked, mut restarted) = (false, false);
        while let Ok(Inbound { from, bytes }) = self.inbox.try_recv() {
            worked = true;
            let Some(peer) = self.peers.get_mut(&from) else {
                self.replication.with(|report| report.strangers += 1);
                continue;
            };
            let malformed = match Frame::decode(&bytes) {
                Ok(Frame::Taken { stream, incarnation, taken }) => {
                    // What was said to this node before it was restarted means nothing now.
                    if incarnation == self.setup.incarnation
                        && let Some(sender) = peer.senders.get_mut(stream as usize)
                    {
                        sender.taken(&taken);
                    }
                    None
                }
                Ok(Frame::Records { stream, incarnation, first, sequence, body }) => {
                    if stream as usize >= limits::SHARD_COUNT_MAX {
                        Some(Malformed("a stream that no shard has"))
                    } else {
                        let receiver = peer.receivers.entry(stream).or_default();
                        let arrival = receiver.arrived(incarnation, first, sequence);
                        peer.is_urgent |= arrival.is_gap;
                        restarted |= arrival.is_restart;
                        match arrival.is_new.then(|| batch::unpack(&body)) {
                            None => None,
                            Some(Err(malformed)) => Some(malformed),
                            Some(Ok(records)) => match route(&records, &self.shards) {
                                Err(malformed) => Some(malformed),
                                Ok(parts) => {
                                    let is_taken = apply(&mut *self.ports, &self.waiting, parts);
                                    match is_taken {
                                        true => receiver.take(sequence),
                                        false => self.replication.with(|report| report.put_off += 1),
                                    }
                                    None
                                }
                            },
                        }
                    }
                }
                Err(malformed) => Some(malformed),
            };
            if let Some(Malformed(reason)) = malformed {
                self.replication.with(|report| report.malformed += 1);
                self.replication.with_peer(from, |report| report.trouble = Some(format!("sent {reason}")));
            }
        }
        if restarted {
            // What it had sent to some and not to others is missing at the others, and nobody's numbers tell. Nothing of
            // its former life is taken from now on; so the others compare with this node now, and not when they hear of
            // the restart, which may have been before the last of it arrived here. A hole in each stream tells them to.
            for peer in self.peers.values_mut() {
                peer.is_urgent = true;
                if let Some(sender) = peer.senders.first_mut() {
                    sender.skip(now_ms);
                }
            }
        }
        worked
    }

    fn take_requests(&mut self) -> bool {
        let mut worked = false;
        while let Ok(request) = self.asked.try_recv() {
            worked = true;
            match request {
                Request::Steps(steps, reply) => {
                    if steps.is_empty() {
                        let _ = reply.send(Vec::new());
                        continue;
                    }
                    self.next += 1;
                    let question = self.next;
                    let answers = steps.iter().map(|_| None).collect();
                    self.open.insert(question, Open { answers, left: steps.len(), reply });
                    for (place, (shard, step)) in steps.into_iter().enumerate() {
                        self.next += 1;
                        self.steps.insert(self.next, (question, place));
                        self.waiting[shard as usize].push_back(ToShard::Ask(self.next, step));
                    }
                }
                Request::Apply(records, reply) => {
                    let is_taken = match route(&records, &self.shards) {
                        Ok(parts) => Some(apply(&mut *self.ports, &self.waiting, parts)),
                        Err(_) => None,
                    };
                    let _ = reply.send(is_taken);
                }
            }
        }
        while let Ok(ended) = self.ended.1.try_recv() {
            worked = true;
            let Some(peer) = self.peers.get_mut(&ended.node) else { continue };
            peer.is_comparing = false;
            // What went wrong is tried again; a gap that came meanwhile counts as well.
            peer.is_urgent |= ended.was_urgent && !ended.is_done;
            if ended.is_done {
                self.tell_compared();
            }
        }
        worked
    }

    fn tell_compared(&mut self) {
        if !std::mem::replace(&mut self.has_compared, true) {
            self.waiting.iter_mut().for_each(|waiting| waiting.push_back(ToShard::Compared));
        }
    }

    fn tell_time(&mut self, unix_ms: u64) {
        if unix_ms.abs_diff(self.told_time_ms) >= CLOCK_MS {
            self.told_time_ms = unix_ms;
            for waiting in &mut self.waiting {
                // An older one says less and less.
                waiting.retain(|message| !matches!(message, ToShard::Clock(_)));
                waiting.push_back(ToShard::Clock(unix_ms));
            }
        }
    }

    fn tell_shards(&mut self) {
        for (shard, waiting) in self.waiting.iter_mut().enumerate() {
            while let Some(message) = waiting.pop_front() {
                if let Err(message) = self.ports.send(shard as u16, message) {
                    waiting.push_front(message);
                    break;
                }
            }
        }
    }

    fn tell_peers(&mut self, now_ms: u64) {
        for (node, peer) in &mut self.peers {
            for (stream, sender) in peer.senders.iter_mut().enumerate() {
                sender.send_due(now_ms, |first, sequence, body| {
                    let (stream, incarnation) = (stream as u16, self.setup.incarnation);
                    let frame = Frame::Records { stream, incarnation, first, sequence, body: body.clone() };
                    self.links.send(*node, Channel::Replication, frame.encode()).is_ok()
                });
            }
            for (stream, receiver) in &mut peer.receivers {
                if let Some((incarnation, taken)) = receiver.answer() {
                    let frame = Frame::Taken { stream: *stream, incarnation, taken };
                    // If it is lost, the frame comes again and is answered again.
                    let _ = self.links.send(*node, Channel::Replication, frame.encode());
                }
            }
        }
    }

    /// Begins the comparisons that are due.
    fn compare(&mut self, now_ms: u64) {
        for (node, peer) in &mut self.peers {
            if peer.is_comparing || now_ms < peer.compare_at_ms {
                continue;
            }
            peer.is_comparing = true;
            peer.compare_at_ms = now_ms + limits::REPLICATION_COMPARE_MS;
            peer.round += 1;
            let is_urgent = std::mem::take(&mut peer.is_urgent);
            let round = pull::Round {
                links: self.links.clone(),
                shards: self.shards.clone(),
                replication: self.replication.clone(),
                node: *node,
                site: peer.site,
                is_urgent,
                with_counters: is_urgent || peer.round.is_multiple_of(COUNTERS_EVERY),
            };
            let ended = self.ended.0.clone();
            tokio::spawn(async move {
                // There is room for one of each node.
                let _ = ended.send(round.run().await).await;
            });
        }
    }

    fn report(&self, now_ms: u64) {
        self.replication.with(|report| {
            report.peers.retain(|node, _| self.peers.contains_key(&NodeId(*node)));
            for (node, peer) in &self.peers {
                let of = report.peers.entry(node.0).or_default();
                let senders = || peer.senders.iter();
                of.lag_ms = senders().map(|sender| sender.lag_ms(now_ms)).max().unwrap_or(0);
                of.waiting_frames = senders().map(|sender| sender.waiting() as u64).sum();
                of.waiting_bytes = senders().map(|sender| sender.bytes() as u64).sum();
                of.let_go = senders().map(|sender| sender.let_go).sum();
                of.sent_again = senders().map(|sender| sender.sent_again).sum();
                of.repeated = peer.receivers.values().map(|receiver| receiver.repeated).sum();
                of.gaps = peer.receivers.values().map(|receiver| receiver.gaps).sum();
            }
        });
    }
}

/// The records of a frame by the shard that has their keys. Nothing is passed on of a frame that is not whole.
fn route(bytes: &[u8], shards: &Shards) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut parts: Vec<Vec<u8>> = (0..shards.count).map(|_| Vec::new()).collect();
    let mut left = bytes;
    while !left.is_empty() {
        let begin = left;
        let hash = match Record::decode(&mut left)? {
            Record::Gone { id, .. } => KeyHash(id.hash),
            Record::Value { key, .. } | Record::Counter { key, .. } => shards.seed.hash(key),
        };
        let record = &begin[..begin.len() - left.len()];
        parts[hash.shard(shards.count).0 as usize].extend_from_slice(record);
    }
    Ok(parts)
}

/// Gives shards their parts. Answers whether all had room; those that had apply theirs, and once more if it comes again.
fn apply(ports: &mut dyn Ports, waiting: &[VecDeque<ToShard>], parts: Vec<Vec<u8>>) -> bool {
    let mut is_taken = true;
    for (shard, part) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
        // What waits there came first, rules above all.
        is_taken &= waiting[shard].is_empty() && ports.send(shard as u16, ToShard::Apply(part)).is_ok();
    }
    is_taken
}

/// Between two passes, and between two while nothing happens.
const PASS: Duration = Duration::from_millis(1);
/// See [`PASS`].
const IDLE_PASS: Duration = Duration::from_millis(5);
/// Passes without work before the longer pause.
const IDLE_PASSES: u32 = 50;
/// Between two reports.
const REPORT_MS: u64 = 100;
/// Between two times that shards are told what time it is.
const CLOCK_MS: u64 = 1_000;
/// Counters change all the time, so they are compared unasked in every so many rounds only.
const COUNTERS_EVERY: u64 = 10;

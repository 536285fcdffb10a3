//! What several shards do as one: EXEC, MSETNX, RENAME, COPY.
//!
//! The shard whose client asks leads. It holds the shards whose keys are touched, does its work in rounds, and lets
//! them go with the last:
//!
//!   leader   ── Begin: checks ──> each touched shard    serves nobody but the leader from here …
//!            <── replies ────────
//!            ── Keep: parts ────>                       … does its parts …
//!            ── End: parts ─────>                       … and serves everybody again
//!
//! This is two-phase locking with shards for locks: nobody sees one shard after and another before. Only one
//! transaction holds shards at a time in a process (`RespShared::transaction`), so there is no deadlock; whoever finds it
//! taken tries again next turn. What touches one shard alone, its leader's or another, needs no holding: a shard does
//! one thing at a time. A held shard loses some microseconds (two trips through the mailboxes), clients that do not
//! use transactions never wait for more than that.

use std::collections::{BTreeSet, VecDeque};
use std::ops::DerefMut;
use std::sync::atomic::Ordering;

use crate::base::hash::KeyHash;
use crate::base::id::{ConnectionId, ShardId};
use crate::engine::batch::Served;
use crate::engine::core::Core;
use crate::engine::post::{Caller, Errand, Hold, Letter};
use crate::engine::resp::client::{Client, WatchedKey};
use crate::engine::resp::gather::{self, Gather, Merge, Step};
use crate::engine::resp::parts;
use crate::engine::resp::tasks::{Move, Spread, Task, part};
use crate::engine::session::{Bound, Session};
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::encode;

/// Work of one client that is under way.
pub struct Transaction {
    connection: ConnectionId,
    /// Where its reply goes.
    sequence: u32,
    caller: Caller,
    /// Replies are elements of one array.
    is_array: bool,
    commands: usize,
    shards: BTreeSet<u16>,
    holds: bool,
    has_begun: bool,
    has_ended: bool,
    work: VecDeque<Work>,
    /// The round under way: its replies, and what to make of them.
    round: Option<(Gather, Vec<Work>)>,
    waiting: usize,
    out: Vec<u8>,
    /// A watched key has changed: nothing is done.
    is_void: bool,
}

/// One thing to be done.
pub enum Work {
    /// Whether watched keys are as they were.
    Check(Vec<WatchedKey>),
    /// A task from the beginning.
    Task(Task),
    /// The second half of an MSETNX.
    Store(Vec<(Vec<u8>, Vec<u8>)>),
    /// The second half of a RENAME or COPY: the value, and when it expires.
    Put(Move, Vec<u8>, i64),
}

impl Work {
    /// The parts of its next round.
    fn parts(&self, spread: &Spread) -> Vec<(ShardId, Vec<u8>)> {
        let at = |key: &[u8]| spread.of(key).1;
        match self {
            Work::Check(keys) => keys
                .iter()
                .map(|it| (at(&it.key), part(&[parts::CHECK, &it.key, it.token.to_string().as_bytes()])))
                .collect(),
            Work::Task(Task::Plain { parts, .. }) => parts.clone(),
            Work::Task(Task::Local(_)) => Vec::new(),
            Work::Task(Task::StoreAll(pairs)) => {
                pairs.iter().map(|(key, _)| (at(key), part(&[b"exists", key]))).collect()
            }
            Work::Task(Task::Move(it)) => {
                vec![(at(&it.from), part(&[parts::WHOLE, &it.from])), (at(&it.to), part(&[b"exists", &it.to]))]
            }
            Work::Task(Task::Watch(keys)) => keys.iter().map(|key| (at(key), part(&[parts::WATCH, key]))).collect(),
            Work::Store(pairs) => pairs.iter().map(|(key, value)| (at(key), part(&[b"set", key, value]))).collect(),
            Work::Put(it, value, expiry) => {
                let expiry = expiry.to_string();
                let mut parts = vec![(at(&it.to), part(&[parts::RESTORE, &it.to, value, expiry.as_bytes()]))];
                if !it.copies {
                    parts.push((at(&it.from), part(&[b"del", &it.from])));
                }
                parts
            }
        }
    }

    /// The shards that it touches in all its rounds.
    fn shards(&self, spread: &Spread) -> Vec<u16> {
        self.parts(spread).into_iter().map(|(shard, _)| shard.0).collect()
    }

    /// Whether what is done next depends on what its parts are answered.
    fn is_question(&self) -> bool {
        matches!(self, Work::Check(_) | Work::Task(Task::StoreAll(_) | Task::Move(_)))
    }

    /// Whether it is done by the leader, when its turn comes.
    fn is_local(&self) -> bool {
        matches!(self, Work::Task(Task::Local(_)))
    }
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Does `work` as one and answers. With several shards that takes until later; meanwhile the connection waits.
    pub(super) fn begin(
        &mut self,
        session: &mut Session,
        out: &mut Vec<u8>,
        caller: Caller,
        work: Vec<Work>,
        is_array: bool,
    ) -> Served {
        let spread = self.spread();
        let shards: BTreeSet<u16> = work.iter().flat_map(|work| work.shards(&spread)).collect();
        let others: Vec<ShardId> = shards.iter().copied().map(ShardId).filter(|shard| *shard != self.id).collect();
        // One message to one shard is one step by itself.
        let is_one_message = shards.len() <= 1 && !work.iter().any(|it| it.is_question() || it.is_local());
        let is_watch = work.iter().all(|it| matches!(it, Work::Task(Task::Watch(_))));
        let holds = !others.is_empty() && !is_one_message && !is_watch;
        if !others.is_empty() {
            if self.transaction.is_some() {
                session.blocked = Some(Bound::Hold);
                return Served::Blocked;
            }
            if self.output_bytes >= self.buffer_bytes_max / 2 {
                session.blocked = Some(Bound::Memory);
                return Served::Blocked;
            }
            if !others.iter().all(|shard| self.post.has_room(*shard, 0)) {
                return Served::Blocked;
            }
            let me = u32::from(self.id.0) + 1;
            let token = &self.shared.resp.transaction;
            if holds && token.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
                session.blocked = Some(Bound::Hold);
                return Served::Blocked;
            }
        }
        let commands = work.iter().filter(|work| !matches!(work, Work::Check(_))).count();
        let mut transaction = Box::new(Transaction {
            connection: session.id,
            sequence: 0,
            caller,
            is_array,
            commands,
            shards,
            holds,
            has_begun: false,
            has_ended: false,
            work: work.into(),
            round: None,
            waiting: 0,
            out: Vec::new(),
            is_void: false,
        });
        if others.is_empty() {
            let is_done = self.advance(&mut transaction, session);
            debug_assert!(is_done, "nobody else is asked");
            session.reply(out, |to| transaction.write_to(to));
            return Served::Done;
        }
        transaction.sequence = session.await_remote(1);
        session.waits = true;
        if holds {
            self.holder = Some(self.id);
        }
        let is_done = self.advance(&mut transaction, session);
        debug_assert!(!is_done, "somebody else is asked");
        self.transaction = Some(transaction);
        Served::Done
    }

    /// Another shard has answered the round under way.
    pub(in crate::engine) fn transaction_answered(&mut self, from: ShardId, replies: Vec<u8>) {
        let Some(mut transaction) = self.transaction.take() else { return };
        if let Some((gather, _)) = &mut transaction.round {
            gather.add(from, replies);
        }
        transaction.waiting -= 1;
        if transaction.waiting > 0 {
            self.transaction = Some(transaction);
            return;
        }
        let id = transaction.connection;
        let session = self.session(id);
        let is_there = session.is_some();
        let mut session = session.unwrap_or_default();
        if !self.advance(&mut transaction, &mut session) {
            self.transaction = Some(transaction);
        } else {
            if transaction.holds {
                self.holder = None;
                self.shared.resp.transaction.store(0, Ordering::Release);
            }
            if is_there {
                let mut reply = Vec::new();
                transaction.write_to(&mut reply);
                let before = session.output_bytes();
                session.answer(transaction.sequence, self.id, reply);
                self.output_bytes += session.output_bytes() - before;
                session.waits = false;
                session.blocked = None;
                session.held = false;
                // A command in it may have changed how the connection is read.
                session.is_stateful = self.clients.get(&session.client).is_some_and(Client::is_stateful);
            }
        }
        if is_there {
            let waits = session.waits;
            self.sessions[id.slot as usize] = Some(session);
            if !waits {
                self.answered.push(id);
                self.hold(id);
            }
        }
    }

    /// Goes on until another shard must be waited for. Answers whether everything is done.
    fn advance(&mut self, transaction: &mut Transaction, session: &mut Session) -> bool {
        loop {
            if let Some((mut gather, work)) = transaction.round.take() {
                self.take_round(transaction, session, &mut gather, work);
            }
            // What the leader does itself.
            while let Some(Work::Task(Task::Local(words))) = transaction.work.front() {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                let mut reply = Vec::new();
                self.local(session, &words, transaction.caller, &mut reply);
                transaction.out.extend_from_slice(&reply);
                transaction.work.pop_front();
            }
            if transaction.work.is_empty() && (!transaction.holds || transaction.has_ended) {
                return true;
            }
            self.start_round(transaction);
            if transaction.waiting > 0 {
                return false;
            }
        }
    }

    /// Asks all that can be asked together: tasks up to the first whose answer decides what is next.
    fn start_round(&mut self, transaction: &mut Transaction) {
        let spread = self.spread();
        let mut work = Vec::new();
        while let Some(next) = transaction.work.front()
            && !next.is_local()
        {
            let is_question = next.is_question();
            work.extend(transaction.work.pop_front());
            if is_question {
                break;
            }
        }
        let is_end = transaction.work.is_empty() && !work.iter().any(Work::is_question);
        // Of several others none may go before all have been held: then the end is a round of its own.
        let others = transaction.shards.iter().filter(|shard| **shard != self.id.0).count();
        let is_last = is_end && (transaction.has_begun || others < 2);
        let is_resp3 = transaction.caller.is_resp3;
        let mut frames: Vec<(ShardId, Vec<u8>)> =
            transaction.shards.iter().map(|&shard| (ShardId(shard), Vec::new())).collect();
        let mut steps = Vec::new();
        for it in &work {
            let parts = it.parts(&spread);
            for (shard, part) in &parts {
                let frame = frames.iter_mut().find(|(known, _)| known == shard).expect("its shards were counted in");
                frame.1.extend_from_slice(part);
            }
            let merge = if let Work::Task(Task::Plain { merge, .. }) = it { merge.clone() } else { Merge::Array };
            steps.push(Step { merge, shards: parts.iter().map(|(shard, _)| *shard).collect(), is_resp3 });
        }
        let hold = match (transaction.holds, is_last, transaction.has_begun) {
            // A round that neither begins nor ends anything is answered to us all the same.
            (false, ..) | (true, true, _) => Hold::End,
            (true, false, false) => Hold::Begin,
            (true, false, true) => Hold::Keep,
        };
        transaction.has_begun = true;
        transaction.has_ended |= is_last;
        let mut gather = Gather::new(steps, false, 0);
        for (shard, frame) in frames {
            if shard == self.id {
                let mut replies = Vec::new();
                self.do_parts(&frame, transaction.caller, &mut replies);
                gather.add(shard, replies);
            } else if transaction.holds || !frame.is_empty() {
                let letter = Letter {
                    errand: Errand::Parts(hold),
                    caller: transaction.caller,
                    asked: None,
                    connection: transaction.connection,
                    sequence: transaction.sequence,
                    hash: KeyHash(0),
                    frame: &frame,
                };
                let is_sent = self.post.send(shard, letter);
                assert!(is_sent, "room was there at the beginning, and nobody else sends meanwhile");
                transaction.waiting += 1;
            }
        }
        transaction.round = Some((gather, work));
    }

    /// Makes of a round's replies what they mean.
    fn take_round(
        &mut self,
        transaction: &mut Transaction,
        session: &mut Session,
        gather: &mut Gather,
        work: Vec<Work>,
    ) {
        let is_resp3 = transaction.caller.is_resp3;
        let mut next = Vec::new();
        for (it, replies) in work.into_iter().zip(gather.parts()) {
            let out = &mut transaction.out;
            let is_one = |reply: &Vec<u8>| gather::number(reply) == Some(1);
            match it {
                Work::Check(_) => {
                    if !replies.iter().all(is_one) {
                        transaction.is_void = true;
                        transaction.work.clear();
                    }
                }
                Work::Task(Task::Plain { merge, .. }) => gather::merge(&merge, replies, is_resp3, out),
                Work::Task(Task::Local(_)) => {}
                Work::Task(Task::StoreAll(pairs)) => match replies.iter().any(is_one) {
                    true => encode::integer(0, out),
                    false => next.push(Work::Store(pairs)),
                },
                Work::Store(_) => gather::merge(&Merge::Number(1), replies, is_resp3, out),
                Work::Task(Task::Move(it)) => {
                    let (whole, is_taken) = (&replies[0], is_one(&replies[1]));
                    let elements = gather::elements(whole);
                    match (gather::is_null(whole), is_taken && !it.replaces, elements.as_slice()) {
                        (true, ..) if it.copies => encode::integer(0, out),
                        (true, ..) => encode::error("ERR no such key", out),
                        (false, true, _) => encode::integer(0, out),
                        // The same key: nothing changes.
                        (false, false, _) if it.from == it.to => encode::simple("OK", out),
                        (false, false, [value, expiry]) => {
                            let (value, expiry) = (gather::payload(value).to_vec(), gather::number(expiry));
                            next.push(Work::Put(it, value, expiry.unwrap_or(-1)));
                        }
                        _ => encode::error("ERR the value could not be moved", out),
                    }
                }
                Work::Put(it, ..) => match it.command {
                    Cmd::Rename => gather::merge(&Merge::Ok, replies[..1].to_vec(), is_resp3, out),
                    _ => gather::merge(&Merge::Number(1), replies[..1].to_vec(), is_resp3, out),
                },
                Work::Task(Task::Watch(keys)) => {
                    let tokens: Vec<Option<i64>> = replies.iter().map(|reply| gather::number(reply)).collect();
                    let watched = keys.iter().zip(&tokens).filter_map(|(key, token)| {
                        let hash = self.shared.seed.hash(key);
                        token.map(|token| WatchedKey { key: key.clone(), hash, token: token as u64 })
                    });
                    let watched: Vec<WatchedKey> = watched.collect();
                    match self.clients.get_mut(&session.client) {
                        Some(client) if tokens.iter().all(Option::is_some) => {
                            client.rare.watched.extend(watched);
                            encode::simple("OK", out);
                        }
                        _ => {
                            let bytes = keys.iter().map(|key| WatchedKey::bytes_of(key)).sum();
                            self.release(session.client, bytes);
                            self.unwatch(watched);
                            let refused = replies.iter().find(|reply| gather::number(reply).is_none());
                            out.extend_from_slice(refused.map_or(b"+OK\r\n", Vec::as_slice));
                        }
                    }
                }
            }
        }
        for it in next.into_iter().rev() {
            transaction.work.push_front(it);
        }
    }
}

impl Transaction {
    fn write_to(&self, to: &mut Vec<u8>) {
        if self.is_void {
            return encode::null_array(self.caller.is_resp3, to);
        }
        if self.is_array {
            encode::array(self.commands, to);
        }
        to.extend_from_slice(&self.out);
    }
}

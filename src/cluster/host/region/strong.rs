//! Operations on strong keys: done by the holder of the key's home, or sent on to it.
//!
//! One lock guards the node's copy and all homes it holds. It is taken for a few map operations and never across an
//! await. Operations on one key wait for each other, those on different keys do not: a write is sent to all nodes that
//! can take it, and done when a majority has it, in whatever order the answers come.
//!
//! A read looks at its lease after it has the value. If the lease runs then, nobody else had begun to serve when the
//! value was read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::base::id::NodeId;
use crate::base::limits;
use crate::base::time::unix_ms;
use crate::cluster::host::links::{CallError, Channel, Links};
use crate::cluster::host::region::{Shared, lock};
use crate::cluster::region::acceptor::Acceptor;
use crate::cluster::region::holder::{Holder, Phase};
use crate::cluster::region::strong::{Decision, FencedOff, StrongRequest, StrongResponse};
use crate::cluster::region::{RegionCommand, StrongOp, StrongRefused, StrongReply};
use crate::replica::strong::home_of;
use crate::replica::{StrongEntry, StrongStore};

/// A node's copy of all homes, and those it holds.
pub(super) struct Strong {
    inner: Mutex<Inner>,
    /// Somebody lags; there is something to collect.
    pub(super) lags: Notify,
}

pub(super) struct Inner {
    pub(super) acceptor: Acceptor,
    pub(super) held: Vec<Option<Held>>,
    /// The highest token under which each home was taken, or may have been taken before the process was started anew:
    /// a token's writes are counted from 1, so it is never taken twice.
    pub(super) taken: Vec<u64>,
    /// The highest token under which each home was let go of, and with which it cannot be served any more: by a process
    /// that is no more, for another node that then did not take it.
    let_go: Vec<u64>,
    under_way: usize,
}

/// A home that this node holds.
pub(super) struct Held {
    pub(super) holder: Holder,
    /// Writes that no majority has yet.
    writes: HashMap<u64, Write>,
    /// Keys of these, and who waits for them.
    busy: HashMap<Vec<u8>, Vec<oneshot::Sender<()>>>,
}

struct Write {
    key: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// What comes next for an operation.
enum Step {
    Reply(StrongReply),
    /// Another one on the same key is under way.
    Wait(oneshot::Receiver<()>),
    /// It is a write that has begun.
    Sent {
        done: oneshot::Receiver<()>,
        reply: StrongReply,
        messages: Vec<(NodeId, StrongRequest)>,
        sequence: u64,
    },
}

impl Strong {
    pub(super) fn new(store: Box<dyn StrongStore>, tokens: &[u64]) -> Strong {
        let homes = limits::REGION_HOMES;
        let inner = Inner {
            acceptor: Acceptor::new(store, tokens),
            held: (0..homes).map(|_| None).collect(),
            taken: tokens.to_vec(),
            let_go: tokens.to_vec(),
            under_way: 0,
        };
        Strong { inner: Mutex::new(inner), lags: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(super) fn is_whole(&self, home: u8) -> bool {
        let inner = self.lock();
        inner.held.get(usize::from(home)).and_then(Option::as_ref).is_some_and(|held| held.holder.is_whole())
    }

    /// Of these homes, those that this node cannot serve under these tokens.
    pub(super) fn unable(&self, homes: impl Iterator<Item = (u8, u64)>) -> Vec<(u8, u64)> {
        let inner = self.lock();
        homes.filter(|(home, token)| inner.let_go.get(usize::from(*home)) >= Some(token)).collect()
    }

    pub(super) fn lost_homes(&self) -> usize {
        self.lock().acceptor.lost_homes().count()
    }

    pub(super) fn refused(&self) -> (BTreeMap<NodeId, u64>, Option<FencedOff>) {
        let inner = self.lock();
        let (refused, last) = inner.acceptor.refused();
        (refused.clone(), last)
    }
}

impl Inner {
    /// The home, if it is held under this token.
    pub(super) fn held(&mut self, home: u8, token: u64) -> Option<&mut Held> {
        let held = self.held.get_mut(usize::from(home))?.as_mut();
        held.filter(|held| held.holder.token() == token)
    }

    /// Lets go of a home. Whoever waits for a write of it does not learn what became of it.
    pub(super) fn drop_home(&mut self, home: u8, token: u64) -> bool {
        let is_held = self.held(home, token).is_some();
        if is_held && let Some(held) = self.held[usize::from(home)].take() {
            self.under_way -= held.writes.len();
            self.lets_go(home, token);
        }
        is_held
    }

    /// A home is not served under this token any more.
    pub(super) fn lets_go(&mut self, home: u8, token: u64) {
        if let Some(let_go) = self.let_go.get_mut(usize::from(home)) {
            *let_go = token.max(*let_go);
        }
    }

    /// A majority has these writes.
    pub(super) fn done(&mut self, home: u8, token: u64, sequences: &[u64]) {
        let mut done = 0;
        if let Some(held) = self.held(home, token) {
            for write in sequences.iter().filter_map(|sequence| held.writes.remove(sequence)).collect::<Vec<_>>() {
                done += 1;
                let _ = write.done.send(());
                for waiter in held.busy.remove(&write.key).unwrap_or_default() {
                    let _ = waiter.send(());
                }
            }
        }
        self.under_way -= done;
    }
}

impl Held {
    pub(super) fn new(holder: Holder) -> Held {
        Held { holder, writes: HashMap::new(), busy: HashMap::new() }
    }
}

impl Shared {
    /// Does an operation, wherever its holder is, until the deadline.
    pub(super) async fn execute(self: &Arc<Shared>, key: Vec<u8>, op: StrongOp, deadline: Instant) -> StrongReply {
        let home = usize::from(home_of(&key));
        loop {
            let holder = self.homes.borrow().homes[home].holder;
            let reply = match holder {
                Some(holder) if holder == self.me => self.execute_here(&key, &op, deadline).await,
                Some(holder) => tokio::select! {
                    reply = send_on(&self.links, holder, &key, &op, deadline) => reply,
                    // It lost the home before it answered, as when it died: there is no point in waiting longer.
                    () = self.has_lost(home, holder) => no_answer(&op),
                },
                None => StrongReply::Refused(StrongRefused::Unreachable),
            };
            if !is_worth_a_try(&reply, deadline) {
                return reply;
            }
            // A lease that is renewed, a home that is taken: both are told.
            let _ = tokio::time::timeout(RETRY, self.renewed.notified()).await;
        }
    }

    /// Waits until a home has gone from a node to another, and then a little for what that node may yet answer.
    async fn has_lost(&self, home: usize, holder: NodeId) {
        let mut homes = self.homes.clone();
        // Without the store that tells there are no changes to wait for; the deadline ends it.
        if homes.wait_for(|agreed| agreed.homes[home].holder != Some(holder)).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(self.timing.heartbeat_ms)).await;
    }

    /// Does an operation as the holder of its key's home.
    pub(super) async fn execute_here(self: &Arc<Shared>, key: &[u8], op: &StrongOp, deadline: Instant) -> StrongReply {
        let home = home_of(key);
        let token = self.homes.borrow().homes[usize::from(home)].token;
        loop {
            match self.step(home, token, key, op) {
                Step::Reply(reply) => return reply,
                Step::Wait(free) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if tokio::time::timeout(left, free).await.is_err() {
                        return StrongReply::Refused(StrongRefused::Unreachable);
                    }
                }
                Step::Sent { done, reply, messages, sequence } => {
                    for (node, message) in messages {
                        tokio::spawn(self.clone().replicate(node, home, token, sequence, message));
                    }
                    let left = deadline.saturating_duration_since(Instant::now());
                    return match tokio::time::timeout(left, done).await {
                        Ok(Ok(())) => {
                            self.counters.writes.fetch_add(1, Ordering::Relaxed);
                            reply
                        }
                        // It would have written that the value has expired, and so will the next who asks.
                        _ if !op.is_write() => StrongReply::Refused(StrongRefused::Unreachable),
                        _ => {
                            self.counters.unknown.fetch_add(1, Ordering::Relaxed);
                            StrongReply::Unknown
                        }
                    };
                }
            }
        }
    }

    fn step(&self, home: u8, token: u64, key: &[u8], op: &StrongOp) -> Step {
        let refused = |why| Step::Reply(StrongReply::Refused(why));
        let mut inner = self.strong.lock();
        let Inner { acceptor, held, under_way, .. } = &mut *inner;
        let held = held[usize::from(home)].as_mut().filter(|held| held.holder.token() == token);
        let Some(held) = held else { return refused(StrongRefused::NotReady) };
        if held.holder.phase() != Phase::Serving {
            return refused(StrongRefused::NotReady);
        }
        if let Some(waiters) = held.busy.get_mut(key) {
            if waiters.len() >= limits::STRONG_WAITERS_PER_KEY_MAX {
                return refused(StrongRefused::Busy);
            }
            let (waiter, free) = oneshot::channel();
            waiters.push(waiter);
            return Step::Wait(free);
        }
        let current = acceptor.store().get(home, key);
        let decision = op.decide(current.as_ref(), held.holder.next_version(), unix_ms());
        // Asked after the value was read.
        if !lock(&self.lease).is_held(home, token, self.now_us()) {
            return refused(StrongRefused::NotHolder);
        }
        let (value, expires_ms, reply) = match decision {
            Decision::Answer(reply) => {
                self.counters.reads.fetch_add(1, Ordering::Relaxed);
                return Step::Reply(reply);
            }
            Decision::Write(value, expires_ms, reply) => (value, expires_ms, reply),
        };
        if *under_way >= limits::STRONG_WRITES_MAX {
            return refused(StrongRefused::Busy);
        }
        let entry = StrongEntry { version: held.holder.next_version(), value, expires_ms };
        if acceptor.store_mut().put(home, key, entry.clone()).is_err() {
            return refused(StrongRefused::Full);
        }
        let sequence = held.holder.write_begins();
        let settled = held.holder.settled();
        acceptor.settle(home, settled);
        let receivers: Vec<NodeId> = held.holder.receivers().collect();
        let messages = receivers.into_iter().map(|node| {
            let (key, entry) = (key.to_vec(), entry.clone());
            (node, StrongRequest::Replicate { home, token, key, entry, settled })
        });
        let messages = messages.collect();
        let (sender, done) = oneshot::channel();
        held.writes.insert(sequence, Write { key: key.to_vec(), done: sender });
        held.busy.insert(key.to_vec(), Vec::new());
        *under_way += 1;
        if held.holder.kept(self.me, sequence, true) {
            inner.done(home, token, &[sequence]);
        }
        Step::Sent { done, reply, messages, sequence }
    }

    /// As the holder of homes: writes that values have expired which nobody asks for. Reading one does it.
    pub(super) async fn sweep(self: &Arc<Shared>) {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::STRONG_SWEEP_MS)).await;
            let due = self.due();
            let deadline = Instant::now() + self.call_deadline();
            let mut sweeps = JoinSet::new();
            for key in due {
                let shared = self.clone();
                sweeps.spawn(async move { shared.execute_here(&key, &StrongOp::Read, deadline).await });
            }
            // What was not done is due again.
            while sweeps.join_next().await.is_some() {}
        }
    }

    fn due(&self) -> Vec<Vec<u8>> {
        let now_ms = unix_ms();
        let inner = self.strong.lock();
        let serving = inner
            .held
            .iter()
            .zip(0..)
            .filter(|(held, _)| held.as_ref().is_some_and(|held| held.holder.phase() == Phase::Serving));
        let due = serving.flat_map(|(_, home)| inner.acceptor.store().due(home, now_ms, SWEPT_OF_A_HOME));
        due.take(limits::STRONG_SWEPT_MAX).collect()
    }

    /// Sends a write to one node.
    async fn replicate(self: Arc<Shared>, node: NodeId, home: u8, token: u64, sequence: u64, message: StrongRequest) {
        let answer = ask(&self.links, node, &message, self.call_deadline()).await;
        let mut inner = self.strong.lock();
        let Some(held) = inner.held(home, token) else { return };
        match answer {
            Ok(StrongResponse::Kept { is_intact }) => {
                let is_done = held.holder.kept(node, sequence, is_intact);
                if is_done {
                    inner.done(home, token, &[sequence]);
                }
                if !is_intact {
                    self.strong.lags.notify_one();
                }
            }
            Ok(StrongResponse::Fenced { .. }) => {
                drop(inner);
                self.fenced_off(home, token);
            }
            _ => {
                held.holder.failed(node);
                self.strong.lags.notify_one();
            }
        }
    }

    /// Somebody has heard of a later token: this node holds the home no longer, whatever its lease says.
    pub(super) fn fenced_off(&self, home: u8, token: u64) {
        lock(&self.lease).release(home, token);
        if self.strong.lock().drop_home(home, token) {
            self.counters.fenced_off.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long a voter may take to answer before it is treated as lagging.
    pub(super) fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.timing.election_ms)
    }

    /// Sees to it that a token is on disk before it is listened to.
    pub(super) async fn write_down(&self, home: u8, token: u64) -> bool {
        // The usual case: it has been there for long.
        if self.strong.lock().acceptor.token(home) >= token {
            return true;
        }
        self.store.promise(home, token).await
    }

    /// As leader: lets the most laden nodes give some homes to the least laden ones, those that are whole.
    pub(super) async fn even_out(self: &Arc<Shared>, present: &BTreeSet<NodeId>) -> Option<RegionCommand> {
        let mut planned = self.homes.borrow().as_ref().clone();
        let mut moves = Vec::new();
        while let Some((home, token, from, to)) =
            planned.uneven(present).filter(|_| moves.len() < limits::REGION_MOVES_AT_ONCE)
        {
            let released = match from == self.me {
                true => self.release(home, token),
                false => {
                    let message = StrongRequest::Release { home, token };
                    ask(&self.links, from, &message, self.call_deadline()).await == Ok(StrongResponse::Released)
                }
            };
            if !released {
                break;
            }
            moves.push((home, token, to));
            planned.apply(&RegionCommand::Move { homes: vec![(home, token, to)] });
        }
        (!moves.is_empty()).then_some(RegionCommand::Move { homes: moves })
    }

    /// Lets go of a home for another node, if every node has everything and nothing is under way.
    fn release(&self, home: u8, token: u64) -> bool {
        let mut inner = self.strong.lock();
        let is_free = |held: &&mut Held| held.holder.is_whole() && held.holder.pending() == 0;
        if inner.held(home, token).filter(is_free).is_none() {
            return false;
        }
        lock(&self.lease).release(home, token);
        inner.drop_home(home, token)
    }
}

/// Answers a message of another node.
pub(super) async fn answer(shared: &Arc<Shared>, from: NodeId, bytes: Bytes) -> Bytes {
    let response = match postcard::from_bytes::<StrongRequest>(&bytes) {
        Ok(request) => respond(shared, from, request).await,
        Err(_) => {
            shared.counters.bad_messages();
            StrongResponse::Refused
        }
    };
    postcard::to_allocvec(&response).expect("plain data always encodes").into()
}

async fn respond(shared: &Arc<Shared>, from: NodeId, request: StrongRequest) -> StrongResponse {
    let is_voter = shared.raft_configs().iter().any(|set| set.contains(&from));
    let (home, token) = match &request {
        StrongRequest::Execute { key, op } => {
            let is_member = shared.state.borrow().members.contains_key(&from);
            if !op.fits(key) {
                return StrongResponse::Executed(StrongReply::Refused(StrongRefused::TooLarge));
            }
            if !is_member {
                shared.counters.strangers();
                return StrongResponse::Executed(StrongReply::Refused(StrongRefused::Stranger));
            }
            let deadline = Instant::now() + FORWARD;
            // A voter asks whom it believes to be the holder; others may ask anybody.
            let reply = match is_voter {
                true => shared.execute_here(key, op, deadline).await,
                false => shared.execute(key.clone(), op.clone(), deadline).await,
            };
            return StrongResponse::Executed(reply);
        }
        StrongRequest::Release { home, token } => {
            let is_leader = shared.raft.server_metrics().borrow().current_leader == Some(u64::from(from.0));
            return match is_leader && shared.release(*home, *token) {
                true => StrongResponse::Released,
                false => StrongResponse::Refused,
            };
        }
        StrongRequest::Lost { homes } if is_voter => {
            let mut inner = shared.strong.lock();
            for home in homes {
                if let Some(held) = inner.held.get_mut(usize::from(*home)).and_then(Option::as_mut) {
                    held.holder.failed(from);
                }
            }
            shared.strong.lags.notify_one();
            return StrongResponse::Kept { is_intact: false };
        }
        StrongRequest::Lost { .. } => {
            shared.counters.strangers();
            return StrongResponse::Refused;
        }
        StrongRequest::Replicate { home, token, .. }
        | StrongRequest::Collect { home, token, .. }
        | StrongRequest::Sync { home, token, .. } => (*home, *token),
    };
    if !is_voter && !shared.is_of_region(from) {
        shared.counters.strangers();
        return StrongResponse::Refused;
    }
    if !shared.write_down(home, token).await {
        return StrongResponse::Refused;
    }
    let mut inner = shared.strong.lock();
    let response = match inner.acceptor.listen(from, home, token) {
        Err(refused) => return refused,
        Ok(()) => match request {
            StrongRequest::Replicate { key, entry, settled, .. } => {
                inner.acceptor.replicate(home, &key, entry, settled)
            }
            StrongRequest::Collect { level, from, values, .. } => inner.acceptor.collect(home, level, from, values),
            StrongRequest::Sync { entries, done, .. } => inner.acceptor.sync(home, token, entries, done),
            _ => StrongResponse::Refused,
        },
    };
    // A home of this node's that somebody now holds under a later token is this node's no longer: from this moment on,
    // because what was just kept here is not its own.
    let older = inner.held[usize::from(home)].as_ref().map(|held| held.holder.token()).filter(|mine| *mine < token);
    if let Some(older) = older {
        inner.drop_home(home, older);
        drop(inner);
        lock(&shared.lease).release(home, older);
        shared.counters.fenced_off.fetch_add(1, Ordering::Relaxed);
    }
    response
}

/// Asks another node something about a home.
pub(super) async fn ask(
    links: &Links,
    node: NodeId,
    request: &StrongRequest,
    deadline: Duration,
) -> Result<StrongResponse, CallError> {
    let bytes = postcard::to_allocvec(request).expect("plain data always encodes");
    let answer = links.call(node, Channel::Strong, bytes.into(), deadline).await?;
    postcard::from_bytes(&answer).map_err(|_| CallError::Timeout)
}

/// Sends an operation to the node that should do it.
async fn send_on(links: &Links, node: NodeId, key: &[u8], op: &StrongOp, deadline: Instant) -> StrongReply {
    let request = StrongRequest::Execute { key: key.to_vec(), op: op.clone() };
    let left = deadline.saturating_duration_since(Instant::now()).min(FORWARD + FORWARD / 2);
    match ask(links, node, &request, left).await {
        Ok(StrongResponse::Executed(reply)) => reply,
        // It did not even leave.
        Err(CallError::NotSent(_)) => StrongReply::Refused(StrongRefused::Unreachable),
        Err(CallError::Busy) => StrongReply::Refused(StrongRefused::Busy),
        Ok(_) | Err(CallError::Timeout) => no_answer(op),
    }
}

/// It was sent, and nothing came back.
fn no_answer(op: &StrongOp) -> StrongReply {
    match op.is_write() {
        true => StrongReply::Unknown,
        false => StrongReply::Refused(StrongRefused::Unreachable),
    }
}

/// As a node that is no voter: asks one voter after the other.
pub(super) async fn ask_voters(
    links: &Links,
    voters: &BTreeSet<NodeId>,
    key: Vec<u8>,
    op: StrongOp,
    deadline: Instant,
) -> StrongReply {
    loop {
        for node in voters {
            let reply = send_on(links, *node, &key, &op, deadline).await;
            if !is_worth_a_try(&reply, deadline) {
                return reply;
            }
        }
        if Instant::now() + RETRY >= deadline {
            return StrongReply::Refused(StrongRefused::Unreachable);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether the operation surely was not done, and might be if it is tried again.
fn is_worth_a_try(reply: &StrongReply, deadline: Instant) -> bool {
    use StrongRefused::{NotHolder, NotReady, Unreachable};
    matches!(reply, StrongReply::Refused(NotHolder | NotReady | Unreachable)) && Instant::now() + RETRY < deadline
}

/// Of one home at once, so that the others have their turn.
const SWEPT_OF_A_HOME: usize = limits::STRONG_SWEPT_MAX / 8;

/// Between two attempts. Whatever they wait for takes some milliseconds: a commit, a round of messages.
const RETRY: Duration = Duration::from_millis(3);

/// How long a node tries an operation that another has sent on to it.
const FORWARD: Duration = Duration::from_millis(limits::STRONG_DEADLINE_MS / 4);

//! Elections, promises, the leader's round, leases: what keeps time in a region.
//!
//!   every voter    hears nobody for election_ms, or a half more -> would a majority vote for me? -> openraft elects
//!   the leader     every heartbeat_ms: promises of a majority -> assured; the absent lose their homes
//!   every voter    every heartbeat_ms: its lease
//!
//! openraft's own election clock is off. It ticks at one and a half heartbeats, draws its patience once for ever, and
//! lets a node that was away depose a healthy leader, all of which would cost time here; and a vote must not be given
//! against a promise, which openraft knows nothing about. The lock around [`Shared::vote`], [`Shared::promise`] and
//! [`Shared::stand`] is what makes that so: within it, openraft's vote and our promise change together.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::error::RaftError;
use openraft::raft::{VoteRequest, VoteResponse};
use openraft::storage::RaftLogStorage;
use openraft::{EmptyNode, LogId, ServerState, Vote};

use crate::base::id::NodeId;
use crate::base::prng::Prng;
use crate::cluster::Command;
use crate::cluster::host::region::raft::{RaftAsk, RaftSay, ask};
use crate::cluster::host::region::{Shared, lock};
use crate::cluster::region::lease::Assurance;
use crate::cluster::region::{RegionCommand, majority};

/// What a leader knows; everybody has one, for the book of leases it has given.
#[derive(Default)]
pub(super) struct Reign {
    assurance: Assurance,
    /// When each node was last heard.
    heard: BTreeMap<NodeId, Instant>,
    /// This node is leader and has applied everything that was decided before: leases may be given.
    is_ready: bool,
    /// What holders have said of their homes: everything is here, and nothing can be served.
    settled: BTreeMap<u8, u64>,
    unable: BTreeMap<u8, (u64, NodeId)>,
}

impl Shared {
    /// A vote is asked for: not before the promise is over.
    pub(super) async fn vote(&self, rpc: VoteRequest<u64>) -> Result<VoteResponse<u64>, RaftError<u64>> {
        let promise = self.promise.lock().await;
        if promise.stands(self.now_us()) {
            // Not granted; nothing is said about a vote that might make the asker change its own.
            return Ok(VoteResponse { vote: Vote::default(), vote_granted: false, last_log_id: None });
        }
        // Held until openraft has written down what it says, so that no promise is given meanwhile.
        let answer = self.raft.vote(rpc).await;
        if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
            // Whoever got it is given the time to reign.
            *lock(&self.heard_leader) = Instant::now();
        }
        drop(promise);
        answer
    }

    /// A leader asks for a promise.
    pub(super) async fn promise(&self, leader: NodeId, term: u64) -> bool {
        let mut promise = self.promise.lock().await;
        let Ok(mine) = self.raft.with_raft_state(|state| *state.vote_ref()).await else { return false };
        if (term, u64::from(leader.0)) < (mine.leader_id.term, mine.leader_id.node_id) {
            return false;
        }
        promise.give(self.now_us(), self.promise_us());
        *lock(&self.heard_leader) = Instant::now();
        true
    }

    /// Somebody considers standing.
    pub(super) async fn would_vote(&self, last: Option<LogId<u64>>) -> bool {
        // Heard of a leader, or voted for one: give it the time to reign.
        let has_heard = lock(&self.heard_leader).elapsed() < Duration::from_millis(self.timing.election_ms / 2);
        !has_heard && !self.promise.lock().await.stands(self.now_us()) && last >= self.last_log_id().await
    }

    /// Somebody asks for a lease, or this node itself does.
    pub(super) fn lease_for(&self, node: NodeId, settled: &[(u8, u64)], unable: &[(u8, u64)]) -> RaftSay {
        let mut reign = lock(&self.reign);
        reign.heard.insert(node, Instant::now());
        if !reign.is_ready {
            return RaftSay::No;
        }
        reign.settled.extend(settled.iter().copied());
        reign.unable.extend(unable.iter().map(|(home, token)| (*home, (*token, node))));
        match reign.assurance.lease(node, self.now_us()) {
            Some(left_us) => RaftSay::Lease { left_us, homes: self.homes.borrow().held_by(node).collect() },
            None => RaftSay::No,
        }
    }

    /// Founds the region. openraft then stands for election at once, so not against a promise: whoever that was given to
    /// has founded the region already.
    pub(super) async fn initialize(&self, nodes: BTreeMap<u64, EmptyNode>) {
        let promise = self.promise.lock().await;
        if !promise.stands(self.now_us()) && self.raft.initialize(nodes).await.is_ok() {
            let _ = self.raft.with_raft_state(|_| ()).await;
        }
    }

    async fn last_log_id(&self) -> Option<LogId<u64>> {
        self.store.clone().get_log_state().await.ok().and_then(|state| state.last_log_id)
    }

    /// Until a command is applied here, what this node knows of homes may be old: no leases from now on. Under the same
    /// lock it is looked at once more whether those who are about to lose their homes have none; false if one has.
    fn begins_to_change(&self, command: &RegionCommand) -> bool {
        let mut reign = lock(&self.reign);
        if let RegionCommand::Place { present, .. } = command {
            let now_us = self.now_us();
            let holders: BTreeSet<NodeId> = self.homes.borrow().homes.iter().filter_map(|home| home.holder).collect();
            if !holders.difference(present).all(|node| reign.assurance.is_over(*node, now_us)) {
                return false;
            }
        }
        reign.is_ready = false;
        true
    }

    fn leads_in(&self, term: u64) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        metrics.state == ServerState::Leader && metrics.vote.leader_id.term == term
    }

    fn promise_us(&self) -> u64 {
        self.timing.lease_ms * 1000
    }

    /// Stands for election, if a majority would vote for this node.
    async fn stand(self: &Arc<Shared>) {
        let begun = Instant::now();
        let configs = self.raft_configs();
        let last = self.last_log_id().await;
        let deadline = Duration::from_millis(self.timing.election_ms / 2);
        let mut asked = tokio::task::JoinSet::new();
        for node in union(&configs).into_iter().filter(|node| *node != self.me) {
            let shared = self.clone();
            asked.spawn(async move { (node, ask(&shared.links, node, &RaftAsk::WouldVote { last }, deadline).await) });
        }
        let mut would = BTreeSet::from([self.me]);
        while !is_quorum(&configs, &would) {
            match asked.join_next().await {
                Some(Ok((node, Ok(RaftSay::Yes)))) => _ = would.insert(node),
                Some(_) => {}
                None => return,
            }
        }
        let promise = self.promise.lock().await;
        if promise.stands(self.now_us()) || *lock(&self.heard_leader) > begun {
            return;
        }
        self.counters.elections.fetch_add(1, Ordering::Relaxed);
        if self.raft.trigger().elect().await.is_ok() {
            // openraft takes one thing after the other: when this is answered, it has voted for itself.
            let _ = self.raft.with_raft_state(|_| ()).await;
        }
    }
}

/// Stands for election when no leader is heard.
pub(super) async fn watch_the_leader(shared: Arc<Shared>, seed: u64) {
    let mut random = Prng::new(seed);
    let election = Duration::from_millis(shared.timing.election_ms);
    let pause = Duration::from_millis(shared.timing.heartbeat_ms);
    let mut since = Instant::now();
    let mut patience = election + election.mul_f64(random.unit() / 2.0);
    loop {
        let heard = *lock(&shared.heard_leader);
        if heard > since {
            since = heard;
            patience = election + election.mul_f64(random.unit() / 2.0);
        }
        let is_leader = shared.raft.server_metrics().borrow().state == ServerState::Leader;
        if is_leader || !union(&shared.raft_configs()).contains(&shared.me) {
            since = Instant::now();
            tokio::time::sleep(pause).await;
        } else if let Some(left) = patience.checked_sub(since.elapsed()) {
            tokio::time::sleep(left.min(pause)).await;
        } else {
            shared.stand().await;
            // Whoever lost waits less than before: nobody holds a promise any more.
            since = Instant::now();
            patience = election.mul_f64(0.25 + 0.5 * random.unit());
        }
    }
}

/// Reigns whenever openraft says that this node is leader.
pub(super) async fn reign(shared: Arc<Shared>) {
    let mut metrics = shared.raft.server_metrics();
    loop {
        let (is_leader, term) = {
            let metrics = metrics.borrow_and_update();
            (metrics.state == ServerState::Leader, metrics.vote.leader_id.term)
        };
        if is_leader {
            reign_for(&shared, term).await;
            let mut reign = lock(&shared.reign);
            reign.is_ready = false;
            reign.assurance.lost();
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

async fn reign_for(shared: &Arc<Shared>, term: u64) {
    lock(&shared.reign).heard.clear();
    let heartbeat = Duration::from_millis(shared.timing.heartbeat_ms);
    // The first round also says who is there. Whoever is, answers at once; the dead are not waited for long.
    let _ = tokio::time::timeout(heartbeat / 2, tokio::spawn(round(shared.clone(), term))).await;
    // Later ones go on whatever this task waits for.
    let _beat = EndsWith(tokio::spawn(beat(shared.clone(), term)));
    let mut every = tokio::time::interval(heartbeat);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_first = true;
    let mut evened = Instant::now();
    loop {
        every.tick().await;
        if !shared.leads_in(term) {
            return;
        }
        let Some(voters) = shared.raft_configs().pop() else { continue };
        let silence = shared.timing.election_ms;
        let Some(present) = present(shared, &voters, Duration::from_millis(silence)) else { continue };
        let (settled, unable) = {
            let mut reign = lock(&shared.reign);
            (mem::take(&mut reign.settled), mem::take(&mut reign.unable))
        };
        let mut command = None;
        if is_first || shared.homes.borrow().would_change(&present, &voters) {
            command = Some(RegionCommand::Place { leader: shared.me, is_first, present, voters: voters.clone() });
        } else if !unable.is_empty() {
            let agreed = shared.homes.borrow();
            let moves = unable.iter().map(|(home, (token, node))| (*home, *token, agreed.instead_of(*node, &present)));
            command = Some(RegionCommand::Move { homes: moves.collect() });
        } else if !settled.is_empty() && shared.homes.borrow().homes.iter().any(|home| home.sets.len() > 1) {
            command = Some(RegionCommand::Settled { homes: settled.into_iter().collect() });
        } else if evened.elapsed() > Duration::from_millis(shared.timing.election_ms) {
            evened = Instant::now();
            command = shared.even_out(&present).await;
        }
        let Some(command) = command else { continue };
        if !shared.begins_to_change(&command) {
            continue;
        }
        let patience = Duration::from_millis(shared.timing.election_ms * 4);
        match tokio::time::timeout(patience, shared.raft.client_write(command)).await {
            Ok(Ok(_)) => {
                lock(&shared.reign).is_ready = true;
                shared.renew.notify_one();
                if is_first {
                    is_first = false;
                    let term = shared.homes.borrow().reign;
                    (shared.submit)(Command::RegionLeader { term });
                }
            }
            // It may be applied yet: everything is placed anew before a lease is given.
            _ => is_first = true,
        }
    }
}

/// A round every heartbeat, for as long as this node leads.
async fn beat(shared: Arc<Shared>, term: u64) {
    let mut every = tokio::time::interval(Duration::from_millis(shared.timing.heartbeat_ms));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shared.leads_in(term) {
        // Those that are not answered end at their deadline, three or four rounds later.
        tokio::spawn(round(shared.clone(), term));
        every.tick().await;
    }
}

/// A task that ends with what needs it.
struct EndsWith(tokio::task::JoinHandle<()>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who is heard; none without a majority.
fn present(shared: &Shared, voters: &BTreeSet<NodeId>, silence: Duration) -> Option<BTreeSet<NodeId>> {
    let reign = lock(&shared.reign);
    let is_heard =
        |node: &NodeId| *node == shared.me || reign.heard.get(node).is_some_and(|heard| heard.elapsed() < silence);
    let present: BTreeSet<NodeId> = voters.iter().copied().filter(is_heard).collect();
    (present.len() >= majority(voters.len())).then_some(present)
}

/// One round: asks for promises; with those of a majority this node is assured from before it asked.
async fn round(shared: Arc<Shared>, term: u64) {
    let configs = shared.raft_configs();
    let asked_us = shared.now_us();
    // This node is a voter too: it promises itself to itself.
    if !shared.promise(shared.me, term).await {
        return;
    }
    let deadline = Duration::from_millis(shared.timing.lease_ms);
    let mut asked = tokio::task::JoinSet::new();
    for node in union(&configs).into_iter().filter(|node| *node != shared.me) {
        let shared = shared.clone();
        asked.spawn(async move { (node, ask(&shared.links, node, &RaftAsk::Promise { term }, deadline).await) });
    }
    let mut promised = BTreeSet::from([shared.me]);
    loop {
        if is_quorum(&configs, &promised) {
            lock(&shared.reign).assurance.won(asked_us, shared.promise_us());
        }
        match asked.join_next().await {
            Some(Ok((node, Ok(RaftSay::Yes)))) => {
                lock(&shared.reign).heard.insert(node, Instant::now());
                promised.insert(node);
            }
            Some(_) => {}
            None => return,
        }
    }
}

/// Whether these make a majority of every set: while voters change there are two, as in Raft's joint consensus.
fn is_quorum(configs: &[BTreeSet<NodeId>], nodes: &BTreeSet<NodeId>) -> bool {
    configs.iter().all(|set| set.intersection(nodes).count() >= majority(set.len()))
}

fn union(configs: &[BTreeSet<NodeId>]) -> BTreeSet<NodeId> {
    configs.iter().flatten().copied().collect()
}

/// Asks for this node's lease, again and again.
pub(super) async fn renew_the_lease(shared: Arc<Shared>) {
    let pause = Duration::from_millis(shared.timing.heartbeat_ms);
    loop {
        let leader = shared.raft.server_metrics().borrow().current_leader;
        if let Some(leader) = leader.and_then(|leader| u16::try_from(leader).ok()).map(NodeId) {
            let settled = shared.settled_homes();
            let unable = shared.strong.unable(shared.homes.borrow().held_by(shared.me));
            let asked_us = shared.now_us();
            let answer = if leader == shared.me {
                Ok(shared.lease_for(shared.me, &settled, &unable))
            } else {
                ask(&shared.links, leader, &RaftAsk::Renew { settled, unable }, 2 * pause).await
            };
            if let Ok(RaftSay::Lease { left_us, homes }) = answer {
                lock(&shared.lease).renewed(asked_us, left_us, &homes);
                shared.renewed.notify_waiters();
            }
        }
        let _ = tokio::time::timeout(pause, shared.renew.notified()).await;
    }
}

//! A new holder collects, a lagging node is brought up to date: the two ways in which entries travel in bulk.
//!
//! Both go page by page, and both may be broken off at any point and begun again: pages only bring a store nearer to
//! what was acknowledged, and nothing counts before the last one. See `region::holder` for why they suffice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::host::region::Shared;
use crate::cluster::host::region::strong::{Held, ask};
use crate::cluster::region::holder::{Collected, Holder, Phase};
use crate::cluster::region::strong::{StrongRequest, StrongResponse};
use crate::replica::{StrongEntry, StrongVersion};

/// Takes homes that were granted to this node, drops those that were granted to others.
pub(super) async fn take_homes(shared: Arc<Shared>) {
    let mut homes = shared.store.homes();
    loop {
        let agreed = homes.borrow_and_update().clone();
        // Granted homes also want a lease.
        shared.renew.notify_one();
        for (number, home) in agreed.homes.iter().enumerate() {
            let number = number as u8;
            let mut inner = shared.strong.lock();
            let older = inner.held[usize::from(number)].as_ref().map(|held| held.holder.token());
            if let Some(older) = older.filter(|older| *older < home.token) {
                inner.drop_home(number, older);
            }
            if home.holder == Some(shared.me) && inner.taken[usize::from(number)] < home.token {
                inner.taken[usize::from(number)] = home.token;
                drop(inner);
                tokio::spawn(take(shared.clone(), number, home.token, home.sets.clone()));
            }
        }
        if homes.changed().await.is_err() {
            return;
        }
    }
}

/// Takes one home: this node listens to no older token either, and asks everybody what they have.
async fn take(shared: Arc<Shared>, home: u8, token: u64, sets: Vec<BTreeSet<NodeId>>) {
    if !shared.write_down(home, token).await {
        return shared.strong.lock().lets_go(home, token);
    }
    let peers: Vec<NodeId> = {
        let mut inner = shared.strong.lock();
        if inner.taken[usize::from(home)] != token || inner.acceptor.listen(shared.me, home, token).is_err() {
            return inner.lets_go(home, token);
        }
        let holder = Holder::new(shared.me, token, sets, inner.acceptor.is_intact(home));
        let peers = holder.everybody().filter(|node| *node != shared.me).collect();
        inner.held[usize::from(home)] = Some(Held::new(holder));
        peers
    };
    go_on_if_collected(&shared, home, token);
    for node in peers {
        tokio::spawn(collect(shared.clone(), home, token, node));
    }
}

/// Collects from one node until that has succeeded or is no longer wanted.
async fn collect(shared: Arc<Shared>, home: u8, token: u64, node: NodeId) {
    let mut from = None;
    loop {
        let level = {
            let mut inner = shared.strong.lock();
            let is_wanted = inner.held(home, token).is_some_and(|held| held.holder.phase() == Phase::Collecting);
            if !is_wanted {
                return;
            }
            inner.acceptor.settled(home)
        };
        let message = StrongRequest::Collect { home, token, level, from, values: true };
        match ask(&shared.links, node, &message, shared.call_deadline()).await {
            Ok(StrongResponse::Page { is_intact, entries, has_more, .. }) => {
                from = entries.last().map(|(_, entry)| entry.version).or(from);
                if !keep_collected(&shared, home, token, entries) {
                    tokio::time::sleep(Duration::from_millis(limits::STRONG_BACKOFF_MS_MAX)).await;
                    from = None;
                } else if !has_more {
                    if let Some(held) = shared.strong.lock().held(home, token) {
                        held.holder.answered(node, is_intact);
                    }
                    go_on_if_collected(&shared, home, token);
                    return;
                }
            }
            Ok(StrongResponse::Fenced { .. }) => return shared.fenced_off(home, token),
            _ => tokio::time::sleep(Duration::from_millis(shared.timing.heartbeat_ms)).await,
        }
    }
}

/// Keeps what is newer than what is here. False if there is no room.
fn keep_collected(shared: &Shared, home: u8, token: u64, entries: Vec<(Vec<u8>, StrongEntry)>) -> bool {
    let mut inner = shared.strong.lock();
    if inner.held(home, token).is_none_or(|held| held.holder.phase() != Phase::Collecting) {
        return true;
    }
    let store = inner.acceptor.store_mut();
    entries.into_iter().all(|(key, entry)| {
        let is_newer = store.get(home, &key).is_none_or(|held| held.version < entry.version);
        !is_newer || store.put(home, &key, entry).is_ok()
    })
}

fn go_on_if_collected(shared: &Shared, home: u8, token: u64) {
    let mut inner = shared.strong.lock();
    let Some(held) = inner.held(home, token).filter(|held| held.holder.phase() == Phase::Collecting) else { return };
    let collected = held.holder.collected();
    if collected == Collected::NotYet {
        return;
    }
    held.holder.spread();
    inner.acceptor.complete(home);
    if collected == Collected::WhatIsLeft {
        shared.counters.homes_lost.fetch_add(1, Ordering::Relaxed);
    }
    drop(inner);
    shared.strong.lags.notify_one();
    shared.renewed.notify_waiters();
}

/// Brings lagging nodes up to date: one task for each node that lags.
pub(super) async fn keep_in_step(shared: Arc<Shared>) {
    let mut workers: BTreeMap<NodeId, tokio::task::JoinHandle<()>> = BTreeMap::new();
    loop {
        workers.retain(|_, worker| !worker.is_finished());
        let lagging: Vec<NodeId> = {
            let inner = shared.strong.lock();
            inner.held.iter().flatten().flat_map(|held| held.holder.lagging()).collect()
        };
        for node in lagging {
            workers.entry(node).or_insert_with(|| tokio::spawn(bring_up(shared.clone(), node)));
        }
        tell_holders(&shared);
        let pause = Duration::from_millis(shared.timing.heartbeat_ms);
        let _ = tokio::time::timeout(pause, shared.strong.lags.notified()).await;
    }
}

/// Tells the holders of homes that this node has lost its memory of; again, until they have brought it up to date.
fn tell_holders(shared: &Arc<Shared>) {
    let agreed = shared.homes.borrow().clone();
    let mut lost: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    for home in shared.strong.lock().acceptor.lost_homes() {
        if let Some(holder) = agreed.homes[usize::from(home)].holder.filter(|holder| *holder != shared.me) {
            lost.entry(holder).or_default().push(home);
        }
    }
    for (holder, homes) in lost {
        let shared = shared.clone();
        tokio::spawn(async move {
            // If it is not heard it is said again.
            let _ = ask(&shared.links, holder, &StrongRequest::Lost { homes }, shared.call_deadline()).await;
        });
    }
}

/// Brings one node up to date in all homes in which it lags; ends when there is none, or it does not answer.
async fn bring_up(shared: Arc<Shared>, node: NodeId) {
    let mut pause_ms = shared.timing.heartbeat_ms;
    loop {
        let lagging: Vec<(u8, u64)> = {
            let inner = shared.strong.lock();
            let held = inner.held.iter().enumerate().filter_map(|(home, held)| Some((home as u8, held.as_ref()?)));
            let lags = held.filter(|(_, held)| held.holder.lagging().any(|lagging| lagging == node));
            lags.map(|(home, held)| (home, held.holder.token())).collect()
        };
        if lagging.is_empty() {
            return;
        }
        // All homes at once: each takes a few messages one after the other, most of them hardly larger than an address.
        let homes: Vec<_> = lagging
            .into_iter()
            .map(|(home, token)| tokio::spawn(bring_up_home(shared.clone(), node, home, token)))
            .collect();
        let mut succeeded = true;
        for home in homes {
            succeeded &= home.await.unwrap_or(false);
        }
        if succeeded {
            pause_ms = shared.timing.heartbeat_ms;
        } else {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(limits::STRONG_BACKOFF_MS_MAX);
        }
    }
}

async fn bring_up_home(shared: Arc<Shared>, node: NodeId, home: u8, token: u64) -> bool {
    if !shared.strong.lock().held(home, token).is_some_and(|held| held.holder.sync_begins(node)) {
        return true;
    }
    let succeeded = sync(&shared, node, home, token).await;
    {
        let mut inner = shared.strong.lock();
        let Some(held) = inner.held(home, token) else { return succeeded };
        let before = held.holder.phase();
        let done = held.holder.sync_ended(node, succeeded);
        let now_serves = before != held.holder.phase();
        inner.done(home, token, &done);
        drop(inner);
        if now_serves {
            shared.renewed.notify_waiters();
            // The leader would like to know, when it is next asked for a lease.
            shared.renew.notify_one();
        }
    }
    succeeded
}

async fn sync(shared: &Shared, node: NodeId, home: u8, token: u64) -> bool {
    // Which entries it has after what is settled at both.
    let level = shared.strong.lock().acceptor.settled(home);
    let (mut theirs, mut from): (Vec<Vec<u8>>, Option<StrongVersion>) = (Vec::new(), None);
    let start = loop {
        let message = StrongRequest::Collect { home, token, level, from, values: false };
        match ask(&shared.links, node, &message, shared.call_deadline()).await {
            Ok(StrongResponse::Page { settled, entries, has_more, .. }) => {
                from = entries.last().map(|(_, entry)| entry.version).or(from);
                theirs.extend(entries.into_iter().map(|(key, _)| key));
                if !has_more {
                    break level.min(settled);
                }
            }
            Ok(StrongResponse::Fenced { .. }) => {
                shared.fenced_off(home, token);
                return false;
            }
            _ => return false,
        }
    };
    // What is here of that.
    for keys in theirs.chunks(limits::STRONG_KEYS_PER_MESSAGE) {
        let entries = {
            let mut inner = shared.strong.lock();
            // Once another holder writes here, this is no longer what this one had.
            if inner.held(home, token).is_none() {
                return false;
            }
            keys.iter().map(|key| (key.clone(), inner.acceptor.store().get(home, key))).collect()
        };
        if !send(shared, node, home, token, entries, None).await {
            return false;
        }
    }
    // And everything else that is here.
    let mut from = start;
    loop {
        let page = {
            let mut inner = shared.strong.lock();
            if inner.held(home, token).is_none() {
                return false;
            }
            inner.acceptor.store().after(home, from, limits::STRONG_PAGE_BYTES)
        };
        from = page.entries.last().map_or(from, |(_, entry)| entry.version);
        let entries = page.entries.into_iter().map(|(key, entry)| (key, Some(entry))).collect();
        if !send(shared, node, home, token, entries, (!page.has_more).then_some(level)).await {
            return false;
        }
        if !page.has_more {
            return true;
        }
    }
}

async fn send(
    shared: &Shared,
    node: NodeId,
    home: u8,
    token: u64,
    entries: Vec<(Vec<u8>, Option<StrongEntry>)>,
    done: Option<StrongVersion>,
) -> bool {
    let message = StrongRequest::Sync { home, token, entries, done };
    match ask(&shared.links, node, &message, shared.call_deadline()).await {
        Ok(StrongResponse::Kept { .. }) => true,
        Ok(StrongResponse::Fenced { .. }) => {
            shared.fenced_off(home, token);
            false
        }
        _ => false,
    }
}

impl Shared {
    /// Homes this node serves whose earlier sets of voters need not be asked again.
    pub(super) fn settled_homes(&self) -> Vec<(u8, u64)> {
        let inner = self.strong.lock();
        let held = inner.held.iter().enumerate().filter_map(|(home, held)| Some((home as u8, held.as_ref()?)));
        let settled = held.filter(|(_, held)| held.holder.has_earlier_sets() && held.holder.phase() == Phase::Serving);
        settled.map(|(home, held)| (home, held.holder.token())).collect()
    }
}

//! The strong protocol without a network: acceptors and holders that exchange messages which are lost, late and out of
//! order, nodes that forget everything but their tokens, holders that are replaced while they believe they serve.
//! One key after the other is written; what was acknowledged must be what every later holder reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::NodeId;
use crate::base::prng::Prng;
use crate::cluster::region::acceptor::Acceptor;
use crate::cluster::region::holder::{Collected, Holder, Phase};
use crate::cluster::region::memory::MemoryStore;
use crate::cluster::region::strong::StrongResponse;
use crate::replica::{StrongEntry, StrongVersion};

const HOME: u8 = 9;
const KEYS: u64 = 4;

/// A region: every node's acceptor, and the tokens it has on disk.
struct World {
    acceptors: BTreeMap<NodeId, Acceptor>,
    random: Prng,
    /// One in so many messages is lost.
    lossy: u64,
    /// The latest version of each key that was acknowledged or read.
    known: BTreeMap<Vec<u8>, StrongVersion>,
    /// What no register would do.
    wrong: Vec<String>,
    /// The control: nodes that have lost their memory count as if they had not.
    trusts_the_lost: bool,
    /// Versions that are deletions.
    deleted: BTreeSet<(StrongVersion, Vec<u8>)>,
}

/// A holder as it runs: writes that are sent and not yet answered wait here.
struct Run {
    me: NodeId,
    holder: Holder,
    sent: Vec<(NodeId, u64, Vec<u8>, StrongEntry, StrongVersion)>,
    writes: BTreeMap<u64, (Vec<u8>, StrongVersion)>,
    is_over: bool,
}

fn acceptor(tokens: &[u64]) -> Acceptor {
    Acceptor::new(Box::new(MemoryStore::new(1 << 20)), tokens)
}

impl World {
    fn is_lost(&mut self) -> bool {
        self.random.below(self.lossy) == 0
    }

    /// A node takes the home under a token and goes as far as messages let it.
    fn take(&mut self, me: NodeId, token: u64) -> Option<Run> {
        let nodes: BTreeSet<NodeId> = self.acceptors.keys().copied().collect();
        let own = self.acceptors.get_mut(&me).unwrap();
        own.listen(me, HOME, token).ok()?;
        let mut holder = Holder::new(me, token, vec![nodes.clone()], own.is_intact(HOME));
        let mut collected = holder.collected();
        for node in nodes.iter().copied().filter(|node| *node != me) {
            if collected != Collected::NotYet {
                break;
            }
            let level = self.acceptors[&me].settled(HOME);
            if self.is_lost() {
                continue;
            }
            let other = self.acceptors.get_mut(&node).unwrap();
            other.listen(me, HOME, token).ok()?;
            let StrongResponse::Page { is_intact, entries, .. } = other.collect(HOME, level, None, true) else {
                panic!()
            };
            if self.is_lost() {
                continue;
            }
            let store = self.acceptors.get_mut(&me).unwrap().store_mut();
            for (key, entry) in entries {
                if store.get(HOME, &key).is_none_or(|held| held.version < entry.version) {
                    store.put(HOME, &key, entry).unwrap();
                }
            }
            collected = holder.answered(node, is_intact || self.trusts_the_lost);
        }
        if collected != Collected::Everything {
            return None;
        }
        holder.spread();
        self.acceptors.get_mut(&me).unwrap().complete(HOME);
        Some(Run { me, holder, sent: Vec::new(), writes: BTreeMap::new(), is_over: false })
    }

    /// Brings a lagging node up to date; false if the holder is fenced off.
    fn sync(&mut self, run: &mut Run, node: NodeId) -> bool {
        if !run.holder.sync_begins(node) {
            return true;
        }
        let (me, token) = (run.me, run.holder.token());
        let other = self.acceptors.get_mut(&node).unwrap();
        if other.listen(me, HOME, token).is_err() {
            return false;
        }
        let level = self.acceptors[&me].settled(HOME);
        let asked = self.acceptors[&node].collect(HOME, level, None, false);
        let StrongResponse::Page { settled, entries, .. } = asked else { panic!() };
        let own = self.acceptors[&me].store();
        let mut differ: Vec<_> = entries.into_iter().map(|(key, _)| (key.clone(), own.get(HOME, &key))).collect();
        differ.extend(
            own.after(HOME, level.min(settled), usize::MAX).entries.into_iter().map(|(key, entry)| (key, Some(entry))),
        );
        // Writes that were sent may arrive between what was read and its arrival.
        if self.random.below(2) == 0 && !self.deliver(run) {
            return false;
        }
        let arrives = !self.is_lost();
        if arrives {
            let other = self.acceptors.get_mut(&node).unwrap();
            if other.listen(me, HOME, token).is_err() {
                return false;
            }
            other.sync(HOME, token, differ, Some(level));
        }
        let is_told = arrives && !self.is_lost();
        let done = run.holder.sync_ended(node, is_told);
        self.acknowledge(run, &done);
        true
    }

    /// One of the writes under way arrives, or is lost; false if the holder is fenced off.
    fn deliver(&mut self, run: &mut Run) -> bool {
        if run.sent.is_empty() {
            return true;
        }
        let at = self.random.below(run.sent.len() as u64) as usize;
        let (node, sequence, key, entry, settled) = run.sent.swap_remove(at);
        if self.is_lost() {
            run.holder.failed(node);
            return true;
        }
        let other = self.acceptors.get_mut(&node).unwrap();
        if other.listen(run.me, HOME, run.holder.token()).is_err() {
            return false;
        }
        let StrongResponse::Kept { is_intact } = other.replicate(HOME, &key, entry, settled) else { panic!() };
        if self.is_lost() {
            run.holder.failed(node);
        } else if run.holder.kept(node, sequence, is_intact) {
            self.acknowledge(run, &[sequence]);
        }
        true
    }

    fn acknowledge(&mut self, run: &mut Run, sequences: &[u64]) {
        for sequence in sequences {
            // Nobody waits any more where the holder has been told that it is over.
            let Some((key, version)) = run.writes.remove(sequence) else { continue };
            self.settle(&key, version, false);
        }
    }

    /// A replaced holder that does not know: it serves on, as far as it is let.
    fn go_on(&mut self, old: &mut Run) -> bool {
        if old.is_over {
            return true;
        }
        if old.holder.phase() == Phase::Serving && self.random.below(2) == 0 {
            self.write(old);
        }
        let lagging = old.holder.lagging().next();
        match lagging {
            Some(node) => self.sync(old, node),
            None => true,
        }
    }

    /// A write of a holder that is no more arrives, and whether it is kept matters to nobody there.
    fn arrive_late(&mut self, old: &mut Run) {
        let Some((node, _, key, entry, settled)) = old.sent.pop() else { return };
        let other = self.acceptors.get_mut(&node).unwrap();
        if other.listen(old.me, HOME, old.holder.token()).is_ok() {
            other.replicate(HOME, &key, entry, settled);
        }
    }

    /// A version was acknowledged, or read if `is_read`: what is read is never older than either.
    fn settle(&mut self, key: &[u8], version: StrongVersion, is_read: bool) {
        let known = self.known.entry(key.to_vec()).or_default();
        if is_read && version < *known {
            self.wrong.push(format!("key {key:?}: read {version:?}, while {known:?} was known"));
        }
        *known = version.max(*known);
    }

    fn write(&mut self, run: &mut Run) {
        let key = vec![self.random.below(KEYS) as u8];
        // One at a time on a key, as the driver has it.
        if run.writes.values().any(|(busy, _)| *busy == key) {
            return;
        }
        let version = run.holder.next_version();
        let entry = StrongEntry { version, value: (self.random.below(4) != 0).then(|| vec![7]), expires_ms: 0 };
        self.deleted.extend(entry.value.is_none().then(|| (version, key.clone())));
        let own = self.acceptors.get_mut(&run.me).unwrap();
        own.store_mut().put(HOME, &key, entry.clone()).unwrap();
        let sequence = run.holder.write_begins();
        let settled = run.holder.settled();
        own.settle(HOME, settled);
        run.writes.insert(sequence, (key.clone(), version));
        for node in run.holder.receivers().collect::<Vec<_>>() {
            run.sent.push((node, sequence, key.clone(), entry.clone(), settled));
        }
        if run.holder.kept(run.me, sequence, true) {
            self.acknowledge(run, &[sequence]);
        }
    }

    /// What a holder that serves would answer.
    fn read(&mut self, run: &Run) {
        let key = vec![self.random.below(KEYS) as u8];
        if run.writes.values().all(|(busy, _)| *busy != key) {
            match self.acceptors[&run.me].store().get(HOME, &key) {
                Some(entry) => self.settle(&key, entry.version, true),
                // Never written, or deleted so long ago that everybody knows.
                None => {
                    let known = self.known.get(&key).copied().unwrap_or_default();
                    let last =
                        self.deleted.iter().rev().find(|(_, deleted)| *deleted == key).map(|(version, _)| *version);
                    if known != StrongVersion::default() && last < Some(known) {
                        self.wrong.push(format!("key {key:?} is gone, while {known:?} was known"));
                    }
                }
            }
        }
    }
}

/// One history; returns how many holders served, and what was wrong.
fn history(seed: u64, nodes: u16, trusts_the_lost: bool) -> (u64, Vec<String>) {
    let mut random = Prng::new(seed);
    let lossy = [3, 6, 20, u64::MAX][random.below(4) as usize];
    let acceptors = (1..=nodes).map(|node| (NodeId(node), acceptor(&[]))).collect();
    let mut world = World {
        acceptors,
        random,
        lossy,
        known: BTreeMap::new(),
        deleted: BTreeSet::new(),
        wrong: Vec::new(),
        trusts_the_lost,
    };
    let mut served = 0;
    let mut replaced: Vec<Run> = Vec::new();
    let mut lost: Option<NodeId> = None;
    for token in 1..=40 {
        let me = NodeId(world.random.below(u64::from(nodes)) as u16 + 1);
        let Some(mut run) = world.take(me, token) else { continue };
        for _ in 0..world.random.below(60) {
            let lagging: Vec<NodeId> = run.holder.lagging().collect();
            let goes_on = match world.random.below(6) {
                0 | 1 if !lagging.is_empty() => {
                    let node = lagging[world.random.below(lagging.len() as u64) as usize];
                    world.sync(&mut run, node)
                }
                0..3 if run.holder.phase() == Phase::Serving => {
                    world.write(&mut run);
                    true
                }
                3 if run.holder.phase() == Phase::Serving => {
                    world.read(&run);
                    true
                }
                // A holder that was replaced does not know, and goes on.
                4 if !replaced.is_empty() => {
                    let at = world.random.below(replaced.len() as u64) as usize;
                    let mut old = replaced.swap_remove(at);
                    // Once its own node listens to another it is told at once; what it has sent is still under way.
                    let knows = world.acceptors[&old.me].token(HOME) > old.holder.token();
                    if knows {
                        world.arrive_late(&mut old);
                    } else if !world.deliver(&mut old) || !world.go_on(&mut old) {
                        old.writes.clear();
                        old.is_over = true;
                    }
                    if !old.sent.is_empty() || !knows {
                        replaced.push(old);
                    }
                    true
                }
                _ => world.deliver(&mut run),
            };
            assert!(goes_on, "the newest holder is fenced off by an older one");
        }
        served += u64::from(run.holder.phase() == Phase::Serving);
        // A node forgets everything but its tokens, if the last one that did was brought up to date since.
        let is_in_step = lost.is_none_or(|node| world.acceptors[&node].is_intact(HOME));
        if is_in_step && world.random.below(3) == 0 {
            let node = NodeId(world.random.below(u64::from(nodes)) as u16 + 1);
            let mut tokens = vec![0; usize::from(HOME) + 1];
            tokens[usize::from(HOME)] = world.acceptors[&node].token(HOME);
            world.acceptors.insert(node, acceptor(&tokens));
            lost = Some(node);
            // It held the home as a process that is no more.
            replaced.retain(|old| old.me != node);
            if me != node {
                replaced.push(run);
            }
        } else {
            replaced.push(run);
        }
    }
    (served, world.wrong)
}

#[test]
fn what_was_acknowledged_or_read_is_what_every_later_holder_has() {
    let mut served = 0;
    // Some thousands take a minute and have found nothing more since marks were given up, see `acceptor`.
    for seed in 0..400 {
        let (more, wrong) = history(seed, if seed % 3 == 0 { 5 } else { 3 }, false);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
        served += more;
    }
    assert!(served > 2_000, "only {served} holders served: the test sees little");
}

#[test]
fn it_would_be_seen_if_nodes_without_memory_had_a_voice() {
    assert!((0..400).any(|seed| !history(seed, 3, true).1.is_empty()));
}

#[test]
fn an_older_writer_is_refused_named_and_counted() {
    let mut acceptor = acceptor(&[]);
    acceptor.listen(NodeId(2), HOME, 7).unwrap();
    let refused = acceptor.listen(NodeId(1), HOME, 6);
    assert_eq!(refused, Err(StrongResponse::Fenced { token: 7 }));
    assert_eq!(acceptor.listen(NodeId(1), 64, 9), Err(StrongResponse::Refused), "no such home");
    let (counts, last) = acceptor.refused();
    assert_eq!(counts, &BTreeMap::from([(NodeId(1), 1)]));
    let text = last.unwrap().to_string();
    assert_eq!(text, "node 1 wrote home 9 under token 6, which 7 has replaced: refused");
}

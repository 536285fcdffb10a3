//! For tests: validators in one room. A loop that carries messages, timers and disks, in an order drawn from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arc_malachitebft_core_consensus::Input;

use crate::base::id::{NodeId, SiteId};
use crate::base::prng::Prng;
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::genesis::{Genesis, Member, Site, SiteKind, Timing};
use crate::cluster::keys::{self, SecretKey};
use crate::cluster::ordering::codec::{Message, Record};
use crate::cluster::ordering::{Block, Effect, Evidence, Executed, Ordering, TimerId, Validator};

pub fn node_key(node: u16) -> SecretKey {
    SecretKey::from([node as u8 + 1; 32])
}

pub fn operator_key() -> SecretKey {
    SecretKey::from([200; 32])
}

/// `n` sites, numbered from 1, each with its validator, of the same number.
pub fn genesis(n: u8) -> Genesis {
    let member = |id: u8| Member {
        id: NodeId(id.into()),
        site: SiteId(id),
        name: format!("node{id}"),
        address: format!("127.0.0.1:{id}"),
        clients: None,
        resp: None,
        key: keys::hexadecimal(node_key(id.into()).public_key().as_bytes()),
        certificate: "ab".repeat(32),
        voter: true,
    };
    let site = |id: u8| Site {
        id: SiteId(id),
        name: format!("site{id}"),
        kind: SiteKind::Region,
        validator: NodeId(id.into()),
    };
    Genesis {
        name: "test".to_string(),
        nonce: "1".to_string(),
        operator: keys::hexadecimal(operator_key().public_key().as_bytes()),
        authority: String::new(),
        timing: Timing { propose_ms: 300, vote_ms: 150, rebroadcast_ms: 500, ..Timing::default() },
        sites: (1..=n).map(site).collect(),
        members: (1..=n).map(member).collect(),
    }
}

#[derive(Default, Clone)]
pub struct Disk {
    pub blocks: Vec<Block>,
    pub log: Vec<Vec<u8>>,
    pub flushed: usize,
}

pub enum Event {
    Message { from: NodeId, to: NodeId, bytes: Vec<u8> },
    Timer { node: NodeId, timer: TimerId, setting: u64 },
}

/// What a node does with a message it is about to send: nothing, or something in its place.
pub type Tamper = Box<dyn FnMut(NodeId, NodeId, Vec<u8>) -> Option<Vec<u8>>>;

pub struct Room {
    pub genesis: Genesis,
    pub nodes: BTreeMap<NodeId, Validator>,
    pub disks: BTreeMap<NodeId, Disk>,
    pub events: BTreeMap<(u64, u64), Event>,
    pub timers: BTreeMap<(NodeId, TimerId), u64>,
    pub now_ms: u64,
    pub count: u64,
    pub prng: Prng,
    pub silent: BTreeSet<NodeId>,
    pub tamper: Tamper,
    pub executed: BTreeMap<NodeId, Vec<Executed>>,
    pub evidence: Vec<(NodeId, Evidence)>,
    pub heard: VecDeque<(NodeId, Vec<u8>)>,
    pub numbers: BTreeMap<Author, u64>,
    /// Effects until a node's power fails, between one and the next.
    pub fuses: BTreeMap<NodeId, u64>,
}

impl Room {
    pub fn new(n: u8, seed: u64) -> Room {
        let genesis = genesis(n);
        let ids: Vec<NodeId> = genesis.members.iter().map(|member| member.id).collect();
        let node = |id: NodeId| Validator::new(&genesis, SiteId(id.0 as u8), id, node_key(id.0));
        let mut room = Room {
            nodes: ids.iter().map(|id| (*id, node(*id))).collect(),
            disks: ids.iter().map(|id| (*id, Disk::default())).collect(),
            genesis: genesis.clone(),
            events: BTreeMap::new(),
            timers: BTreeMap::new(),
            now_ms: 0,
            count: 0,
            prng: Prng::new(seed),
            silent: BTreeSet::new(),
            tamper: Box::new(|_, _, bytes| Some(bytes)),
            executed: BTreeMap::new(),
            evidence: Vec::new(),
            heard: VecDeque::new(),
            numbers: BTreeMap::new(),
            fuses: BTreeMap::new(),
        };
        for id in ids {
            let effects = room.nodes.get_mut(&id).unwrap().start();
            room.carry_out(id, effects);
        }
        room
    }

    pub fn at(&mut self, delay_ms: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.now_ms + delay_ms, self.count), event);
    }

    pub fn send(&mut self, from: NodeId, to: NodeId, bytes: Vec<u8>) {
        if self.silent.contains(&from) || self.silent.contains(&to) {
            return;
        }
        if let Some(bytes) = (self.tamper)(from, to, bytes) {
            let delay_ms = 5 + self.prng.below(20);
            self.at(delay_ms, Event::Message { from, to, bytes });
        }
    }

    pub fn carry_out(&mut self, node: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(left) = self.fuses.get_mut(&node) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    return self.crash(node.0);
                }
            }
            let disk = self.disks.get_mut(&node).unwrap();
            match effect {
                Effect::Broadcast(bytes) => {
                    assert_eq!(disk.log.len(), disk.flushed, "something was said before it was on the disk");
                    let network = self.genesis.network();
                    if let Ok(Message::Vote(vote)) = Message::decode(network, &bytes)
                        && self.nodes[&node].is_voting()
                    {
                        let is_it = |record: &Vec<u8>| match Record::decode(network, record).unwrap().input {
                            Input::Vote(logged) => logged == vote,
                            _ => false,
                        };
                        assert!(disk.log.iter().any(is_it), "a vote was said and is not in the log");
                    }
                    let validators: Vec<NodeId> =
                        self.nodes[&node].state().sites.values().map(|site| site.validator).collect();
                    for to in validators.into_iter().filter(|to| *to != node) {
                        self.send(node, to, bytes.clone());
                    }
                }
                Effect::Send(to, bytes) => self.send(node, to, bytes),
                Effect::Append(record) => disk.log.push(record),
                Effect::Flush => disk.flushed = disk.log.len(),
                Effect::Store(block) => {
                    disk.blocks.push(block);
                    disk.log.clear();
                    disk.flushed = 0;
                }
                Effect::SetTimer(timer, ms) => {
                    self.count += 1;
                    let setting = self.count;
                    self.timers.insert((node, timer), setting);
                    self.at(ms, Event::Timer { node, timer, setting });
                }
                Effect::StopTimer(timer) => {
                    self.timers.remove(&(node, timer));
                }
                Effect::StopTimers => self.timers.retain(|(owner, _), _| *owner != node),
                Effect::Executed(executed) => self.executed.entry(node).or_default().push(executed),
                Effect::Evidence(evidence) => self.evidence.push((node, evidence)),
            }
        }
    }

    /// Lets that much time pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(((at, _), _)) = self.events.first_key_value()
            && *at <= end
        {
            let ((at, _), event) = self.events.pop_first().unwrap();
            self.now_ms = at;
            match event {
                Event::Message { from, to, bytes } => {
                    if self.heard.len() >= 4096 {
                        self.heard.pop_front();
                    }
                    self.heard.push_back((from, bytes.clone()));
                    if let Some(node) = self.nodes.get_mut(&to) {
                        let effects = node.receive(from, &bytes);
                        self.carry_out(to, effects);
                    }
                }
                Event::Timer { node, timer, setting } => {
                    if self.timers.get(&(node, timer)) == Some(&setting) {
                        self.timers.remove(&(node, timer));
                        let effects = self.nodes.get_mut(&node).map(|one| one.timeout(timer)).unwrap_or_default();
                        self.carry_out(node, effects);
                    }
                }
            }
        }
        self.now_ms = end;
    }

    pub fn command(&mut self, author: Author, command: Command) -> Signed {
        let number = self.numbers.entry(author).or_default();
        *number += 1;
        let key = match author {
            Author::Operator => operator_key(),
            Author::Node(node) => node_key(node.0),
        };
        Signed::new(self.genesis.network(), author, *number, command, &key)
    }

    pub fn submit(&mut self, node: u16, author: Author, command: Command) {
        let signed = self.command(author, command);
        let effects = self.nodes.get_mut(&NodeId(node)).unwrap().submit(signed).unwrap();
        self.carry_out(NodeId(node), effects);
    }

    /// A tenant is set by the operator at a node, which nobody confuses with another.
    pub fn set_tenant(&mut self, node: u16, name: &str) {
        self.submit(node, Author::Operator, Command::SetTenant { name: name.to_string(), policy: Some(vec![1]) });
    }

    pub fn node(&self, node: u16) -> &Validator {
        &self.nodes[&NodeId(node)]
    }

    pub fn heights(&self) -> Vec<u64> {
        self.nodes.values().map(|node| node.state().height).collect()
    }

    pub fn crash(&mut self, node: u16) {
        let id = NodeId(node);
        self.fuses.remove(&id);
        self.nodes.remove(&id);
        self.timers.retain(|(owner, _), _| *owner != id);
        let disk = self.disks.get_mut(&id).unwrap();
        // Of what was not flushed, some may be there all the same.
        let unflushed = (disk.log.len() - disk.flushed) as u64;
        disk.log.truncate(disk.flushed + self.prng.below(unflushed + 1) as usize);
        disk.flushed = disk.log.len();
    }

    pub fn restart(&mut self, node: u16) {
        let id = NodeId(node);
        let disk = self.disks[&id].clone();
        let recovered =
            Validator::recover(&self.genesis, SiteId(node as u8), id, node_key(node), None, disk.blocks, disk.log);
        self.nodes.insert(id, recovered.unwrap());
        let effects = self.nodes.get_mut(&id).unwrap().start();
        self.carry_out(id, effects);
    }

    /// Every node has executed the same heights, as far as it has come, and none has halted.
    pub fn check(&self) {
        let mut order: BTreeMap<u64, ([u8; 32], [u8; 32])> = BTreeMap::new();
        for (node, executed) in &self.executed {
            for one in executed {
                let said = (one.value, one.state);
                assert_eq!(*order.entry(one.height).or_insert(said), said, "{node:?} at height {}", one.height);
            }
        }
        for (id, node) in &self.nodes {
            assert_eq!(node.halted(), None, "{id:?}");
        }
    }
}

//! Sites that order commands, played from a seed.
//!
//!   0 s           faults: loss, cuts, crashes, lies            healing                       done, or too late
//!   |--------------------------------------------------------------|---------------------------------|
//!   commands …  …  …  …  …  …  …  …  …  …  …  …  …  …  …  …  …  more commands
//!
//! The validators, the framing of the log and the encoding of messages are the real ones. What is simulated is what
//! the host does: links, disks, clocks, and carrying out effects one after the other, where a crash may come between
//! any two. What happens is shown to the invariants (`invariants`), which end the seed at the first violation.

use std::sync::Arc;

use crate::base::id::{NodeId, SiteId};
use crate::cluster::command::{Author, Signed};
use crate::cluster::genesis::{Genesis, Member, NetworkId};
use crate::cluster::keys::{SecretKey, hexadecimal};
use crate::cluster::ordering::signatures::Signatures;
use crate::cluster::ordering::{Effect, Ordering, SubmitRefused, TimerId};
use crate::sim::behaviours::{self, Message, Outbox, Tools};
use crate::sim::clients::{self, Client};
use crate::sim::clock::Clock;
use crate::sim::forge::{self, Stored};
use crate::sim::genesis::{genesis, key_of, member, operator_key};
use crate::sim::invariants::{self, End, Invariant, Seen, Setup, Violation};
use crate::sim::link::Links;
use crate::sim::report::{Counts, Outcome};
use crate::sim::scenarios::{Change, DiskFaults, Scenario};
use crate::sim::site::SimSite;
use crate::sim::world::World;

/// Plays a seed of a scenario.
pub fn play(scenario: &'static Scenario, seed: u64) -> Outcome {
    let mut cluster = Cluster::new(scenario, seed);
    cluster.run();
    cluster.counts.events = cluster.world.taken();
    cluster.counts.messages = cluster.links.sent;
    cluster.counts.lost = cluster.links.lost;
    let digest = cluster.world.digest();
    Outcome { scenario: scenario.name, seed, violation: cluster.violation, digest, counts: cluster.counts }
}

/// Something to come.
enum Event {
    /// A message arrives; a site of several faces sent it with this one.
    Deliver { from: usize, face: usize, to: usize, message: Message },
    /// A timer runs out, if it is still the one that was set.
    Timer { site: usize, face: usize, timer: TimerId, setting: u64 },
    /// A client hands in its command.
    Client(usize),
    /// A site will crash after so many more effects.
    Crash { site: usize, effects: u32 },
    /// A site comes back.
    Restart(usize),
    /// Sites are cut off from each other.
    Partition,
    /// They are not any more.
    Mend,
    /// From here on everything works.
    Heal,
    /// A guilty site may speak up.
    Tick(usize),
}

/// The earliest and the latest healing.
const HEALING_US: (u64, u64) = (5_000_000, 12_000_000);
/// How long after the healing everything must be executed. Rounds that failed before it have lengthened the timers,
/// and a slow clock stretches them once more.
const LIVE_US: u64 = 180_000_000;
/// Commands of each site's node before the healing.
const COMMANDS_BEFORE: u64 = 2;
/// A client hands its command in again after so long, and a little.
const RETRY_US: u64 = 4_000_000;
/// A flush of a disk.
const FLUSH_US: (u64, u64) = (100, 2_000);
/// A site is down for so long.
const DOWN_US: (u64, u64) = (1_000, 1_500_000);
/// Sites that join in [`Change::Grow`].
const NEWCOMERS: usize = 3;
/// Events of a seed; a scenario needs a fraction of it, and a loop without end should end.
const EVENTS_MAX: u64 = 2_000_000;

struct Cluster {
    scenario: &'static Scenario,
    world: World<Event>,
    links: Links,
    sites: Vec<SimSite>,
    genesis: Genesis,
    network: NetworkId,
    clients: Vec<Client>,
    /// Commands handed in at honest sites, by client: they must get executed.
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    counts: Counts,
    settings: u64,
    /// Something has changed that liveness may depend on.
    is_changed: bool,
    healed_at_us: u64,
    /// A key a site is to take when its state says so.
    next_key: Option<(usize, SecretKey)>,
}

impl Cluster {
    fn new(scenario: &'static Scenario, seed: u64) -> Cluster {
        let mut world = World::new(seed);
        let genesis = genesis(scenario.sites, "1");
        let newcomers = if scenario.change == Change::Grow { NEWCOMERS } else { 0 };
        let count = scenario.sites + newcomers;
        let guilty = draw_guilty(&mut world, scenario);
        let halves = draw_halves(&mut world, count, &guilty);
        let signatures = Arc::new(Signatures::new(genesis.network()));
        let mut sites = Vec::with_capacity(count);
        for index in 0..count {
            let clock = Clock::new(&mut world, scenario.clocks);
            let lie = guilty.iter().position(|&site| site == index).map(|position| scenario.guilty[position]);
            let behaviour = lie.map(|lie| behaviours::of(lie, &halves));
            sites.push(SimSite::new(&genesis, index, key_of(index), clock, behaviour, &signatures));
        }
        let mut links = Links::new(count, scenario.links);
        if scenario.honest_are_split {
            let honest: Vec<usize> = (0..count).filter(|site| !guilty.contains(site)).collect();
            for (&a, &b) in honest.iter().flat_map(|a| honest.iter().map(move |b| (a, b))) {
                if halves[a] != halves[b] {
                    links.sever(a, b);
                }
            }
        }
        let forgetful = if scenario.disk == DiskFaults::Lost {
            let honest: Vec<usize> = (0..scenario.sites).filter(|site| !guilty.contains(site)).collect();
            let site = honest[world.between(0, honest.len() as u64 - 1) as usize];
            sites[site].loses_disk = true;
            vec![SiteId(site as u8)]
        } else {
            Vec::new()
        };
        let setup = Setup {
            genesis: genesis.clone(),
            guilty: guilty.iter().map(|&site| SiteId(site as u8)).collect(),
            forgetful,
        };
        let mut cluster = Cluster {
            scenario,
            world,
            links,
            sites,
            clients: Vec::new(),
            invariants: invariants::all(&setup),
            violation: None,
            counts: Counts::default(),
            settings: 0,
            is_changed: false,
            healed_at_us: 0,
            next_key: None,
            network: genesis.network(),
            genesis,
        };
        cluster.draw_clients();
        cluster.draw_faults();
        cluster
    }

    /// A client for each site's node, and the operator. A guilty site's node has one at each of its faces, so that
    /// these have different things to tell.
    fn draw_clients(&mut self) {
        let network = self.network;
        let newcomers: Vec<Member> = match self.scenario.change {
            Change::Grow => {
                (self.scenario.sites..self.sites.len()).map(|index| member(index, &key_of(index))).collect()
            }
            Change::Key => {
                let honest: Vec<usize> = (0..self.sites.len()).filter(|&site| self.sites[site].is_honest()).collect();
                let site = honest[self.world.between(0, honest.len() as u64 - 1) as usize];
                let key = SecretKey::from([100 + site as u8; 32]);
                let member = member(site, &key);
                self.next_key = Some((site, key));
                vec![member]
            }
            Change::Policy | Change::Primary => Vec::new(),
        };
        for index in 0..self.scenario.sites {
            let plan = clients::node_plan(&mut self.world, COMMANDS_BEFORE + 1);
            let author = Author::Node(NodeId(index as u16));
            self.clients.push(Client::new(author, index, key_of(index), network, plan));
        }
        let plan = clients::operator_plan(&mut self.world, self.scenario.change, self.scenario.sites, &newcomers);
        let home = self.honest_site();
        self.clients.push(Client::new(Author::Operator, home, operator_key(), network, plan));
        for client in 0..self.clients.len() {
            let at_us = self.world.between(0, 1_000_000);
            self.world.plan(at_us, Event::Client(client));
        }
    }

    fn draw_faults(&mut self) {
        let heal_at_us = self.world.between(HEALING_US.0, HEALING_US.1);
        self.world.plan(heal_at_us, Event::Heal);
        if self.scenario.partitions {
            let at_us = self.world.between(50_000, 2_000_000);
            self.world.plan(at_us, Event::Partition);
        }
        let honest: Vec<usize> = (0..self.sites.len()).filter(|&site| self.sites[site].is_honest()).collect();
        for _ in 0..self.scenario.crashes {
            let at_us = self.world.between(10_000, heal_at_us);
            let site = honest[self.world.between(0, honest.len() as u64 - 1) as usize];
            // The next effects are an append, a flush, a send: any of them may be the last.
            let effects = self.world.between(0, 5) as u32;
            self.world.plan(at_us, Event::Crash { site, effects });
        }
        for site in (0..self.sites.len()).filter(|&site| !self.sites[site].is_honest()) {
            self.world.plan(behaviours::TICK_US, Event::Tick(site));
        }
    }

    fn run(&mut self) {
        for site in 0..self.sites.len() {
            for face in 0..self.sites[site].faces.len() {
                let effects = match &mut self.sites[site].faces[face].validator {
                    Some(validator) => validator.start(),
                    None => Vec::new(),
                };
                self.carry_out(site, face, effects);
            }
        }
        let mut until_us = u64::MAX;
        while self.violation.is_none() && self.world.taken() < EVENTS_MAX {
            if self.links.is_healed() {
                until_us = self.healed_at_us + LIVE_US;
                if std::mem::take(&mut self.is_changed) && self.is_live() {
                    self.counts.healed_ms_max = (self.world.now_us() - self.healed_at_us) / 1000;
                    return;
                }
            }
            let Some(event) = self.world.next(until_us) else { break };
            self.happen(event);
        }
        if self.violation.is_none() {
            self.end();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, face, to, message } => self.deliver(from, face, to, message),
            Event::Timer { site, face, timer, setting } => {
                let place = &mut self.sites[site].faces[face];
                if place.timers.get(&timer) != Some(&setting) {
                    return;
                }
                if place.busy_until_us > self.world.now_us() {
                    let at_us = place.busy_until_us;
                    return self.world.plan(at_us, Event::Timer { site, face, timer, setting });
                }
                place.timers.remove(&timer);
                let Some(validator) = &mut place.validator else { return };
                let effects = validator.timeout(timer);
                self.carry_out(site, face, effects);
            }
            Event::Client(client) => self.hand_in(client),
            Event::Crash { site, effects } => {
                if !self.links.is_healed() && self.sites[site].faces[0].validator.is_some() {
                    self.sites[site].crash_after = Some(effects);
                }
            }
            Event::Restart(site) => self.restart(site),
            Event::Partition => {
                if !self.links.is_healed() {
                    self.links.partition(&mut self.world);
                    self.counts.partitions += 1;
                    let for_us = self.world.between(100_000, 2_000_000);
                    self.world.plan_in(for_us, Event::Mend);
                }
            }
            Event::Mend => {
                self.links.mend();
                let for_us = self.world.between(100_000, 1_000_000);
                self.world.plan_in(for_us, Event::Partition);
            }
            Event::Heal => {
                self.links.heal();
                self.healed_at_us = self.world.now_us();
                self.is_changed = true;
                self.sites.iter_mut().for_each(|site| site.crash_after = None);
            }
            Event::Tick(site) => {
                let mut outbox = Outbox::new();
                self.with_behaviour(site, 0, |behaviour, tools| behaviour.tick(tools, &mut outbox));
                self.post(site, 0, outbox);
                self.world.plan_in(behaviours::TICK_US, Event::Tick(site));
            }
        }
    }

    fn deliver(&mut self, from: usize, face: usize, to: usize, message: Message) {
        let hears = self.sites[to].face_for(from, self.sites[from].faces.len(), face);
        let now_us = self.world.now_us();
        let place = &mut self.sites[to].faces[hears];
        if place.busy_until_us > now_us {
            let at_us = place.busy_until_us;
            return self.world.plan(at_us, Event::Deliver { from, face, to, message });
        }
        if place.validator.is_none() {
            return; // it is down
        }
        self.world.fold((from as u64) << 32 | to as u64);
        self.world.fold_bytes(&message);
        if !self.sites[to].is_honest() {
            let mut outbox = Outbox::new();
            self.with_behaviour(to, hears, |behaviour, tools| behaviour.hear(tools, from, &message, &mut outbox));
            self.post(to, hears, outbox);
        }
        let sender = self.sites[from].node;
        let Some(validator) = &mut self.sites[to].faces[hears].validator else { return };
        let effects = validator.receive(sender, &message);
        self.carry_out(to, hears, effects);
    }

    /// Carries out effects one after the other; a crash may come before any of them.
    fn carry_out(&mut self, site: usize, face: usize, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(left) = self.sites[site].crash_after {
                if left == 0 {
                    return self.crash(site);
                }
                self.sites[site].crash_after = Some(left - 1);
            }
            self.carry_out_one(site, face, effect);
            if self.violation.is_some() {
                return;
            }
        }
    }

    fn carry_out_one(&mut self, site: usize, face: usize, effect: Effect) {
        match effect {
            Effect::Broadcast(bytes) => {
                self.show_signed(site, &bytes);
                let message: Message = bytes.into();
                for to in self.peers_of(site, face) {
                    self.say(site, face, to, &message);
                }
            }
            Effect::Send(node, bytes) => {
                self.show_signed(site, &bytes);
                let message: Message = bytes.into();
                let to = usize::from(node.0);
                if to < self.sites.len() && to != site {
                    self.say(site, face, to, &message);
                }
            }
            Effect::Append(record) => self.sites[site].faces[face].disk.append(&record),
            Effect::Flush => {
                let for_us = self.world.between(FLUSH_US.0, FLUSH_US.1);
                let now_us = self.world.now_us();
                let place = &mut self.sites[site].faces[face];
                place.disk.flush();
                place.busy_until_us = place.busy_until_us.max(now_us) + for_us;
            }
            Effect::Store(block) => {
                let for_us = self.world.between(FLUSH_US.0, FLUSH_US.1);
                let now_us = self.world.now_us();
                let place = &mut self.sites[site].faces[face];
                place.disk.store(block);
                place.busy_until_us = place.busy_until_us.max(now_us) + for_us;
            }
            Effect::SetTimer(timer, timer_ms) => {
                self.settings += 1;
                let setting = self.settings;
                let for_us = self.sites[site].clock.timer_us(timer_ms);
                self.sites[site].faces[face].timers.insert(timer, setting);
                self.world.plan_in(for_us, Event::Timer { site, face, timer, setting });
            }
            Effect::StopTimer(timer) => {
                self.sites[site].faces[face].timers.remove(&timer);
            }
            Effect::StopTimers => self.sites[site].faces[face].timers.clear(),
            Effect::Executed(executed) => {
                self.world.fold(executed.height ^ u64::from(executed.round) << 48);
                self.world.fold_bytes(&executed.value);
                if !self.sites[site].is_honest() {
                    return;
                }
                let id = self.sites[site].id;
                let network = self.network;
                let content = self.sites[site].faces[face].disk.blocks().last();
                let content = content.and_then(|block| forge::content_of(network, block));
                let is_first = executed.height > self.counts.heights;
                if is_first {
                    self.counts.heights = executed.height;
                    self.counts.late_rounds += u64::from(executed.round > 0);
                }
                match content {
                    Some(Stored::Commands(commands)) => {
                        self.counts.commands += if is_first { commands.len() as u64 } else { 0 };
                        self.show(&Seen::Executed(id, &executed, &commands));
                    }
                    Some(Stored::State(state)) => self.show(&Seen::Adopted(id, &executed, &state.numbers)),
                    None => {
                        let what = format!("site {id} executed height {}, whose block is none", executed.height);
                        self.violate("durability", what, false);
                    }
                }
                self.prune(site, face);
                self.after_execution(site);
            }
            Effect::Evidence(evidence) => {
                if self.sites[site].is_honest() {
                    self.counts.accusations += 1;
                    let id = self.sites[site].id;
                    self.show(&Seen::Accused(id, &evidence));
                }
            }
        }
    }

    /// Now and then a site keeps a snapshot and forgets the blocks up to it.
    fn prune(&mut self, site: usize, face: usize) {
        if self.scenario.crashes == 0 || !self.world.happens(100) {
            return;
        }
        let place = &mut self.sites[site].faces[face];
        let snapshot = place.validator.as_ref().and_then(|validator| validator.snapshot());
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.height <= place.disk.height()) {
            place.disk.keep_snapshot(snapshot);
        }
    }

    /// Whom a broadcast of this face reaches: everybody who may vote, as far as it knows.
    fn peers_of(&self, site: usize, face: usize) -> Vec<usize> {
        let Some(validator) = &self.sites[site].faces[face].validator else { return Vec::new() };
        let voters = validator.state().sites.values().map(|site| usize::from(site.validator.0));
        voters.filter(|&to| to != site && to < self.sites.len()).collect()
    }

    /// A face wants to say something to a site; if it is guilty, its behaviour has a word in it.
    fn say(&mut self, site: usize, face: usize, to: usize, message: &Message) {
        if self.sites[site].is_honest() {
            return self.put_on_link(site, face, to, message.clone());
        }
        let faces = self.sites[site].faces.len();
        let speaks = self.sites[to].faces.len() > 1 || self.sites[site].face_for(to, 1, 0) == face;
        if faces > 1 && !speaks {
            return; // that site knows the other face
        }
        let mut outbox = Outbox::new();
        self.with_behaviour(site, face, |behaviour, tools| behaviour.send(tools, to, message, &mut outbox));
        self.post(site, face, outbox);
    }

    fn post(&mut self, site: usize, face: usize, outbox: Outbox) {
        for (to, message) in outbox {
            if to < self.sites.len() && to != site {
                self.put_on_link(site, face, to, message);
            }
        }
    }

    fn put_on_link(&mut self, site: usize, face: usize, to: usize, message: Message) {
        let sent_at_us = self.world.now_us().max(self.sites[site].faces[face].busy_until_us);
        for delay_us in self.links.send(&mut self.world, site, to).into_iter().flatten() {
            let message = message.clone();
            self.world.plan(sent_at_us + delay_us, Event::Deliver { from: site, face, to, message });
        }
    }

    fn with_behaviour(
        &mut self,
        site: usize,
        face: usize,
        act: impl FnOnce(&mut dyn behaviours::Behaviour, &mut Tools<'_>),
    ) {
        let sites = self.sites.len();
        let place = &mut self.sites[site];
        let (Some(behaviour), Some(validator)) = (&mut place.behaviour, &place.faces[face].validator) else { return };
        let (height, round) = validator.position();
        let (state, forge) = (validator.state(), &place.forge);
        let mut tools = Tools { random: self.world.random(), me: site, sites, forge, state, height, round };
        act(behaviour.as_mut(), &mut tools);
    }

    /// A client hands its command in at its home, or hears that it is executed and goes on with the next.
    fn hand_in(&mut self, client: usize) {
        let is_operator = self.clients[client].author == Author::Operator;
        if self.clients[client].waiting.is_some() && is_operator && self.clients[client].attempts > 0 {
            self.clients[client].home = self.honest_site();
        }
        // Executed while its home was down: nobody has told it.
        let home = self.clients[client].home;
        if self.sites[home].state().is_some_and(|state| self.clients[client].is_executed_in(state)) {
            self.clients[client].waiting = None;
            self.is_changed = true;
        }
        let Some(signed) = self.clients[client].command() else { return };
        let home = self.clients[client].home;
        let retry_us = RETRY_US + self.world.between(0, 1_000_000);
        self.world.plan_in(retry_us, Event::Client(client));
        if self.sites[home].is_honest() {
            self.show(&Seen::Submitted(&signed));
            self.submit(home, 0, signed);
            return;
        }
        for face in 0..self.sites[home].faces.len() {
            let mut other = signed.clone();
            if face > 0 {
                let plan = clients::node_plan(&mut self.world, 1);
                let command = plan.into_iter().next().expect("a plan of one");
                let key = self.sites[home].forge.key.clone();
                other = Signed::new(self.network, signed.author, signed.number, command, &key);
            }
            self.submit(home, face, other);
        }
    }

    fn submit(&mut self, site: usize, face: usize, signed: Signed) {
        let place = &mut self.sites[site].faces[face];
        let Some(validator) = &mut place.validator else { return };
        match validator.submit(signed) {
            Ok(effects) => self.carry_out(site, face, effects),
            // Executed meanwhile, or to be tried again later, when the site knows more.
            Err(SubmitRefused::Replayed | SubmitRefused::Full | SubmitRefused::Senseless(_) | SubmitRefused::Right) => {
            }
            Err(refused @ (SubmitRefused::Signature | SubmitRefused::TooLarge)) => {
                let what = format!("site {site} refuses a good command: {refused:?}");
                if self.sites[site].is_honest() && self.next_key.is_none() {
                    self.violate("submission", what, false);
                }
            }
        }
    }

    fn honest_site(&mut self) -> usize {
        let honest: Vec<usize> = (0..self.scenario.sites).filter(|&site| self.sites[site].is_honest()).collect();
        honest[self.world.between(0, honest.len() as u64 - 1) as usize]
    }

    /// A site has executed a height: clients there go on, and a site whose key the cluster has changed takes it.
    fn after_execution(&mut self, site: usize) {
        self.is_changed = true;
        for client in 0..self.clients.len() {
            let Some(state) = self.sites[site].state() else { return };
            let asks = &mut self.clients[client];
            if asks.home == site && asks.waiting.is_some() && asks.is_executed_in(state) {
                asks.waiting = None;
                let pause_us = self.world.between(0, 1_500_000);
                self.world.plan_in(pause_us, Event::Client(client));
            }
        }
        if let Some((who, key)) = self.next_key.clone()
            && who == site
            && let Some(state) = self.sites[site].state()
        {
            let wanted = hexadecimal(key.public_key().as_bytes());
            let node = self.sites[site].node;
            if state.members.get(&node).is_some_and(|member| member.key == wanted) {
                self.clients[site].rekey(key.clone());
                self.sites[site].forge.key = key;
                self.next_key = None;
                self.sites[site].crash_after = Some(0);
            }
        }
    }

    fn crash(&mut self, site: usize) {
        let lost = self.sites[site].loses_disk;
        let faults = match self.scenario.disk {
            DiskFaults::Lost if !lost => DiskFaults::TornTail,
            faults => faults,
        };
        self.sites[site].loses_disk = false;
        self.sites[site].crash_after = None;
        let stored = self.sites[site].faces[0].disk.height();
        let id = self.sites[site].id;
        self.counts.crashes += 1;
        for face in &mut self.sites[site].faces {
            face.validator = None;
            face.timers.clear();
            face.busy_until_us = 0;
            self.counts.torn += u64::from(face.disk.crash(&mut self.world, faults));
        }
        self.show(&Seen::Crashed(id, stored));
        if faults == DiskFaults::Lost {
            self.show(&Seen::LostDisk(id));
        }
        let down_us = if faults == DiskFaults::LogForgotten {
            // Quickly, while the height is still open: that is when forgetting hurts.
            self.world.between(1_000, 20_000)
        } else {
            self.world.between(DOWN_US.0, DOWN_US.1)
        };
        self.world.plan_in(down_us, Event::Restart(site));
    }

    fn restart(&mut self, site: usize) {
        self.is_changed = true;
        for face in 0..self.sites[site].faces.len() {
            match self.sites[site].recover(&self.genesis, face) {
                Ok(effects) => {
                    let id = self.sites[site].id;
                    // What it decides anew from its log it has yet to store and to tell of.
                    let height = self.sites[site].faces[face].disk.height();
                    self.show(&Seen::Restarted(id, height));
                    self.carry_out(site, face, effects);
                }
                Err(error) => return self.violate("recovery", format!("site {site}: {error}"), false),
            }
        }
    }

    /// Shows what an honest site has signed itself; what it relays was signed by others.
    fn show_signed(&mut self, site: usize, bytes: &[u8]) {
        if self.sites[site].is_honest() {
            let id = self.sites[site].id;
            if let Some(statement) = forge::statement_of(self.network, bytes)
                && statement.signer == id
            {
                self.show(&Seen::Signed(id, statement));
            }
        }
    }

    fn show(&mut self, seen: &Seen<'_>) {
        let violated = self.invariants.iter_mut().find_map(|invariant| {
            let what = invariant.see(seen).err()?;
            Some((invariant.name(), what))
        });
        if let Some((invariant, what)) = violated {
            self.violate(invariant, what, false);
        }
    }

    fn violate(&mut self, invariant: &'static str, what: String, liveness: bool) {
        let at_us = self.world.now_us();
        self.violation.get_or_insert(Violation { invariant, what, at_us, liveness });
    }

    /// Whether every honest site is at the same height and has executed everything.
    fn is_live(&self) -> bool {
        let is_guilty = |client: &Client| !self.sites[client.home].is_honest();
        if !self.clients.iter().all(|client| client.is_done() || is_guilty(client)) {
            return false;
        }
        let mut height = None;
        self.sites
            .iter()
            .filter(|site| site.is_honest())
            .all(|site| site.state().is_some_and(|state| *height.get_or_insert(state.height) == state.height))
    }

    fn end(&mut self) {
        let honest = || self.sites.iter().filter(|site| site.is_honest());
        let heights: Vec<(SiteId, u64)> =
            honest().map(|site| (site.id, site.state().map_or(0, |state| state.height))).collect();
        let is_honest = |client: &&Client| self.sites[client.home].is_honest();
        let missing: Vec<String> = self
            .clients
            .iter()
            .filter(is_honest)
            .filter(|client| {
                !client.is_done() || honest().any(|site| site.state().is_none_or(|state| !client.is_executed_in(state)))
            })
            .map(Client::says)
            .collect();
        let healed_ms = (self.world.now_us() - self.healed_at_us) / 1000;
        let end = End { heights: &heights, missing: &missing, healed_ms };
        let violated = self.invariants.iter_mut().find_map(|invariant| {
            let what = invariant.end(&end).err()?;
            Some((invariant.name(), what))
        });
        if let Some((invariant, what)) = violated {
            self.violate(invariant, what, true);
        }
    }
}

/// Which sites are guilty, in the order of the scenario's lies.
fn draw_guilty(world: &mut World<Event>, scenario: &Scenario) -> Vec<usize> {
    let mut left: Vec<usize> = (0..scenario.sites).collect();
    let mut guilty = Vec::new();
    for position in 0..scenario.guilty.len() {
        // Site 0 is the first primary.
        let at = if position == 0 && scenario.primary_is_guilty {
            0
        } else {
            world.between(0, left.len() as u64 - 1) as usize
        };
        guilty.push(left.remove(at));
    }
    guilty
}

/// Two halves of the honest sites, as equal as can be; a guilty site belongs to both.
fn draw_halves(world: &mut World<Event>, count: usize, guilty: &[usize]) -> Vec<usize> {
    let first = world.between(0, 1) as usize;
    let mut next = first;
    (0..count)
        .map(|site| {
            if !guilty.contains(&site) {
                next = 1 - next;
            }
            next
        })
        .collect()
}

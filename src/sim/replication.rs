//! Regions that replicate what they cache, played from a seed.
//!
//!   0 s     clients write; loss, cuts, evictions, restarts         healing, and nobody writes     digests equal, or too late
//!   |------------------------------------------------------------------|--------------------------------|
//!
//! Three regions take writes of the same few keys. Every value is written once in a seed, so a value that is seen says
//! which write it is of, and the versions under which writes travel say which of them must win.
//!
//! - `convergence`: within the bound after the healing all digests are equal, and so are the entries
//! - `last-write`: what stands in the end is the write with the latest version, or nothing if entries are evicted
//! - `resurrection`: what a region once showed a later write of, it does not show an earlier one of again
//! - `increments`: a counter that was only counted stands at the sum of all that was added
//! - `residency`: a key of a pinned namespace is in no parcel to, and not stored in, another region

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::id::SiteId;
use crate::replica::batch::{self, Frame};
use crate::replica::record::records;
use crate::replica::repair::Answer;
use crate::replica::versions::Sum;
use crate::replica::{Namespace, Record, Rules, Version};
use crate::sim::clock::{Clock, ClockFaults};
use crate::sim::invariants::Violation;
use crate::sim::link::{LinkFaults, Links};
use crate::sim::region::{self, Parcel, Region};
use crate::sim::report::{Counts, Outcome};
use crate::sim::world::World;

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What goes wrong.
    pub about: &'static str,
    /// What links do.
    pub links: LinkFaults,
    /// How wrong clocks are.
    pub clocks: ClockFaults,
    /// Whether regions are cut off from each other.
    pub partitions: bool,
    /// Whether the cache evicts.
    pub evictions: bool,
    /// Restarts of a region, which comes back with nothing.
    pub restarts: u32,
    /// Of a thousand chunks, so many find no room.
    pub full_per_mille: u32,
    /// Whether one region sends everything everywhere, whatever is pinned.
    pub misroutes: bool,
    /// Whether regions compare digests; without that what is lost stays lost.
    pub compares: bool,
    /// How long after the healing digests must be equal.
    pub bound_ms: u64,
}

const CLEAN: Scenario = Scenario {
    name: "replication",
    about: "three regions write the same keys, links lose, regions are cut off",
    links: LinkFaults { delay_us: 40_000, ..LinkFaults::LOSSY },
    clocks: ClockFaults { offset_us: 200_000, drift_per_mille: 1 },
    partitions: true,
    evictions: false,
    restarts: 0,
    full_per_mille: 0,
    misroutes: false,
    compares: true,
    bound_ms: 5_000,
};

/// All that must pass.
pub const ALL: &[Scenario] = &[
    CLEAN,
    Scenario {
        name: "replication-gaps",
        about: "streams let go of frames, entries are evicted, a region sends pinned keys everywhere",
        evictions: true,
        full_per_mille: 150,
        misroutes: true,
        ..CLEAN
    },
    Scenario { name: "replication-restarts", about: "regions restart with nothing", restarts: 3, ..CLEAN },
];

/// The negative controls, which must fail: none on the command line.
pub const CONTROLS: &[Scenario] = &[];

/// Plays a seed of a scenario.
pub fn play(scenario: &Scenario, seed: u64) -> Outcome {
    let mut regions = Regions::new(*scenario, seed);
    regions.run();
    regions.counts.events = regions.world.taken();
    regions.counts.messages = regions.links.sent;
    regions.counts.lost = regions.links.lost;
    let digest = regions.world.digest();
    Outcome { scenario: regions.scenario.name, seed, violation: regions.violation, digest, counts: regions.counts }
}

enum Event {
    Write(usize),
    Tick(usize),
    Deliver { from: usize, to: usize, bytes: Rc<[u8]> },
    Restart(usize),
    Partition,
    Mend,
    Heal,
}

const REGIONS: usize = 3;
/// The pinned namespace is kept in these.
const HOME: [SiteId; 2] = [SiteId(0), SiteId(1)];
const START_MS: u64 = 1_800_000_000_000;
/// Once a millisecond in the server; every tenth is enough for streams that wait 400 ms.
const TICK_US: u64 = 10_000;
const WRITE_US: (u64, u64) = (1_000, 120_000);
const HEALING_US: (u64, u64) = (3_000_000, 8_000_000);

struct Regions {
    scenario: Scenario,
    world: World<Event>,
    links: Links,
    regions: Vec<Region>,
    clocks: Vec<Clock>,
    /// Every write that has travelled: its version by key and value; no value is a delete.
    written: BTreeMap<(Vec<u8>, Option<Vec<u8>>), Version>,
    /// The latest write of each key.
    latest: BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)>,
    /// The latest write that each region has shown of each key.
    shown: BTreeMap<(usize, Vec<u8>), Version>,
    counted: BTreeMap<Vec<u8>, i128>,
    writes: u64,
    violation: Option<Violation>,
    counts: Counts,
    healed_at_us: u64,
}

impl Regions {
    fn new(scenario: Scenario, seed: u64) -> Regions {
        let mut world = World::new(seed);
        let clocks: Vec<Clock> = (0..REGIONS).map(|_| Clock::new(&mut world, scenario.clocks)).collect();
        let mut rules = Rules::default();
        rules.set(Namespace { prefix: b"p:".to_vec(), regions: HOME.to_vec(), ..Namespace::default_one() });
        let rules = Arc::new(rules);
        let mut regions: Vec<Region> = (0..REGIONS).map(|number| Region::new(number, REGIONS, 1)).collect();
        for (region, clock) in regions.iter_mut().zip(&clocks) {
            region.set_time(START_MS + clock.shows_us(0) / 1000);
            region.replica.set_rules(rules.clone());
        }
        let heal_at_us = world.between(HEALING_US.0, HEALING_US.1);
        world.plan(heal_at_us, Event::Heal);
        for number in 0..REGIONS {
            world.plan(number as u64, Event::Tick(number));
            world.plan(1_000, Event::Write(number));
        }
        if scenario.partitions {
            let at_us = world.between(10_000, 2_000_000);
            world.plan(at_us, Event::Partition);
        }
        for _ in 0..scenario.restarts {
            let (number, at_us) = (world.between(0, REGIONS as u64 - 1) as usize, world.between(10_000, heal_at_us));
            world.plan(at_us, Event::Restart(number));
        }
        Regions {
            links: Links::new(REGIONS, scenario.links),
            scenario,
            world,
            regions,
            clocks,
            written: BTreeMap::new(),
            latest: BTreeMap::new(),
            shown: BTreeMap::new(),
            counted: BTreeMap::new(),
            writes: 0,
            violation: None,
            counts: Counts::default(),
            healed_at_us: 0,
        }
    }

    fn run(&mut self) {
        let mut until_us = u64::MAX;
        while self.violation.is_none() {
            let Some(event) = self.world.next(until_us) else { break };
            let is_tick = matches!(event, Event::Tick(0));
            self.happen(event);
            if self.links.is_healed() {
                until_us = self.healed_at_us + self.scenario.bound_ms * 1000;
                if is_tick && self.difference().is_none() {
                    self.counts.healed_ms_max = (self.world.now_us() - self.healed_at_us) / 1000;
                    return self.end();
                }
            }
        }
        if self.violation.is_none() {
            let difference = self.difference().unwrap_or_default();
            let ms = self.scenario.bound_ms;
            self.violate("convergence", format!("{ms} ms after the healing {difference}"), true);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Write(number) => {
                if !self.links.is_healed() {
                    self.write(number);
                    let pause_us = self.world.between(WRITE_US.0, WRITE_US.1);
                    self.world.plan_in(pause_us, Event::Write(number));
                }
            }
            Event::Tick(number) => {
                self.tick(number);
                self.world.plan_in(TICK_US, Event::Tick(number));
            }
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::Restart(number) => {
                let incarnation = 2 + self.world.taken();
                let rules = self.rules();
                self.counts.crashes += 1;
                self.regions[number] = Region::new(number, REGIONS, incarnation);
                self.set_time(number);
                self.regions[number].replica.set_rules(rules);
                // A cache that starts empty may hear of writes in any order: what it shows is counted from here on.
                self.shown.retain(|(region, _), _| *region != number);
            }
            Event::Partition => {
                if !self.links.is_healed() {
                    self.links.partition(&mut self.world);
                    self.counts.partitions += 1;
                    let for_us = self.world.between(100_000, 3_000_000);
                    self.world.plan_in(for_us, Event::Mend);
                }
            }
            Event::Mend => {
                self.links.mend();
                let for_us = self.world.between(50_000, 1_000_000);
                self.world.plan_in(for_us, Event::Partition);
            }
            Event::Heal => {
                self.links.heal();
                self.healed_at_us = self.world.now_us();
            }
        }
    }

    fn rules(&self) -> Arc<Rules> {
        let mut rules = Rules::default();
        rules.set(Namespace { prefix: b"p:".to_vec(), regions: HOME.to_vec(), ..Namespace::default_one() });
        Arc::new(rules)
    }

    fn set_time(&mut self, number: usize) {
        let shows_us = self.clocks[number].shows_us(self.world.now_us());
        self.regions[number].set_time(START_MS + shows_us / 1000);
    }

    fn write(&mut self, number: usize) {
        self.set_time(number);
        self.writes += 1;
        self.counts.heights += 1;
        let value = format!("v{}", self.writes).into_bytes();
        let plain = format!("k:{}", self.world.between(0, 11)).into_bytes();
        let pinned = format!("p:{}", self.world.between(0, 3)).into_bytes();
        let counter = format!("c:{}", self.world.between(0, 3)).into_bytes();
        let delta = self.world.between(0, 8) as i128 - 3;
        match self.world.between(0, 11) {
            0..4 => self.regions[number].set(&plain, &value),
            4 => self.regions[number].delete(&plain),
            5 if number < HOME.len() => self.regions[number].delete(&pinned),
            5..7 if number < HOME.len() => self.regions[number].set(&pinned, &value),
            5..10 => {
                self.regions[number].count(&counter, delta);
                *self.counted.entry(counter).or_default() += delta;
            }
            10 if self.scenario.evictions => self.regions[number].evict(&plain),
            11 if self.scenario.evictions => self.regions[number].evict(&counter),
            _ => self.regions[number].set(&plain, &value),
        }
    }

    fn tick(&mut self, number: usize) {
        self.set_time(number);
        let (mut out, mut chunks) = (Vec::new(), Vec::new());
        let is_full = self.world.happens(self.scenario.full_per_mille) && !self.links.is_healed();
        let misroutes = self.scenario.misroutes && number == 0;
        let note = |bytes: &[u8]| chunks.push(bytes.to_vec());
        self.regions[number].tick(note, || is_full, misroutes, self.scenario.compares, &mut out);
        chunks.iter().for_each(|bytes| self.note(bytes));
        self.show_all(number);
        self.post(number, out);
    }

    /// Remembers the versions of writes.
    fn note(&mut self, bytes: &[u8]) {
        for record in records(bytes).flatten() {
            let (key, value, version) = match &record {
                Record::Value { key, found, version, .. } => (key.to_vec(), Some(found.value.to_vec()), *version),
                Record::Gone { key: Some(key), version, .. } => (key.to_vec(), None, *version),
                _ => continue,
            };
            let latest = self.latest.entry(key.clone()).or_insert((version, value.clone()));
            if version > latest.0 {
                *latest = (version, value.clone());
            }
            self.written.insert((key, value), version);
        }
    }

    fn post(&mut self, from: usize, out: Vec<(usize, Parcel)>) {
        for (to, parcel) in out {
            if !(self.scenario.misroutes && from == 0) {
                self.check_residency(to, &parcel);
            }
            let bytes: Rc<[u8]> = region::encode(&parcel).into();
            for delay_us in self.links.send(&mut self.world, from, to).into_iter().flatten() {
                self.world.plan_in(delay_us, Event::Deliver { from, to, bytes: bytes.clone() });
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.world.fold((from as u64) << 32 | to as u64);
        self.world.fold_bytes(bytes);
        self.set_time(to);
        let mut out = Vec::new();
        let received = match region::decode(bytes) {
            Some(parcel) => self.regions[to].receive(from, parcel, &mut out),
            None => Err("a parcel is not read as it was written".to_string()),
        };
        if let Err(what) = received {
            return self.violate("encoding", what, false);
        }
        self.show_all(to);
        self.post(to, out);
    }

    /// What a region shows now of every key that was only ever set and deleted.
    fn show_all(&mut self, number: usize) {
        let mut wrong = None;
        for stored in self.regions[number].shelf.0.values().filter(|stored| !stored.key.starts_with(b"c:")) {
            if stored.key.starts_with(b"p:") && number >= HOME.len() {
                wrong = Some(("residency", format!("region {number} stores {:?}", text(&stored.key))));
                break;
            }
            let write = (stored.key.clone(), Some(stored.value.clone()));
            // Not sent yet: it is this region's own, and later than all it knows of.
            let Some(&version) = self.written.get(&write) else { continue };
            let shown = self.shown.entry((number, stored.key.clone())).or_insert(version);
            if version < *shown {
                let what = format!("region {number} shows {:?} of {version:?} after {shown:?}", text(&stored.value));
                wrong = Some(("resurrection", what));
                break;
            }
            *shown = version;
        }
        if let Some((invariant, what)) = wrong {
            self.violate(invariant, what, false);
        }
    }

    /// A parcel to a region must not speak of keys that may not be there.
    fn check_residency(&mut self, to: usize, parcel: &Parcel) {
        if to < HOME.len() {
            return;
        }
        let body = match parcel {
            Parcel::Frame(bytes) => match Frame::decode(&bytes.clone().into()) {
                Ok(Frame::Records { body, .. }) => body.to_vec(),
                _ => return,
            },
            Parcel::Answer(_, Answer::Records(body, _)) => body.clone(),
            _ => return,
        };
        let Ok(bytes) = batch::unpack(&body) else { return };
        let speaks = records(&bytes).flatten().any(|record| match record {
            Record::Gone { key, id, .. } => {
                key.is_some_and(|key| key.starts_with(b"p:"))
                    || (0..4).any(|number| region::id(format!("p:{number}").as_bytes()) == id)
            }
            Record::Value { key, .. } | Record::Counter { key, .. } => key.starts_with(b"p:"),
        });
        if speaks {
            self.violate("residency", format!("a parcel to region {to} holds a key that may not be there"), false);
        }
    }

    /// Two regions whose digests or entries differ, in words.
    fn difference(&self) -> Option<String> {
        for a in 0..REGIONS {
            for b in a + 1..REGIONS {
                let (of_a, of_b) =
                    (self.regions[a].summaries(SiteId(b as u8)), self.regions[b].summaries(SiteId(a as u8)));
                let scopes = of_a.keys().chain(of_b.keys());
                for scope in scopes.filter(|scope| scope.is_empty() || [a, b].iter().all(|&site| is_in(scope, site))) {
                    let sum = |of: &BTreeMap<Vec<SiteId>, crate::replica::repair::Summary>| {
                        of.get(scope).map_or(Sum::default(), |summary| summary.digest(0))
                    };
                    if sum(&of_a) != sum(&of_b) {
                        return Some(format!("the digests of regions {a} and {b} differ"));
                    }
                }
            }
        }
        None
    }

    /// Digests are equal: what they are digests of must be what was written.
    fn end(&mut self) {
        let (mut wrong, mut standing) = (None, BTreeMap::new());
        for (number, region) in self.regions.iter().enumerate() {
            if let Err(what) = region.replica.check() {
                wrong = Some(("convergence", format!("region {number}: {what}")));
            }
            for (key, (version, value)) in &self.latest {
                if key.starts_with(b"c:") || (key.starts_with(b"p:") && number >= HOME.len()) {
                    continue;
                }
                let stored = region.shelf.0.get(&region::id(key)).map(|stored| &stored.value);
                if self.scenario.restarts > 0 {
                    // The latest write may have died with a memory before anybody heard of it. Then some other one
                    // stands, the same everywhere.
                    if let Some(value) = stored
                        && *standing.entry(key).or_insert(value) != value
                    {
                        let what =
                            format!("region {number} has {:?} under {:?}, others do not", text(value), text(key));
                        wrong.get_or_insert(("last-write", what));
                    }
                    continue;
                }
                if stored != value.as_ref() && !(stored.is_none() && self.scenario.evictions) {
                    let what = format!(
                        "region {number} has {:?} under {:?}, the latest write is {:?} of {version:?}",
                        stored.map(|value| text(value)),
                        text(key),
                        value.as_deref().map(text)
                    );
                    wrong.get_or_insert(("last-write", what));
                }
            }
            // What a region counted and nobody else had heard of dies with its memory.
            for (key, sum) in self.counted.iter().filter(|_| self.scenario.restarts == 0) {
                let number_there = region.number(key);
                if number_there != Some(*sum) {
                    let what =
                        format!("region {number} has {number_there:?} under {:?}, {sum} was added in all", text(key));
                    wrong.get_or_insert(("increments", what));
                }
            }
        }
        if let Some((invariant, what)) = wrong {
            self.violate(invariant, what, false);
        }
    }

    fn violate(&mut self, invariant: &'static str, what: String, liveness: bool) {
        let at_us = self.world.now_us();
        self.violation.get_or_insert(Violation { invariant, what, at_us, liveness });
    }
}

fn is_in(scope: &[SiteId], site: usize) -> bool {
    scope.contains(&SiteId(site as u8))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_comparing_digests_what_streams_let_go_of_is_seen_to_be_missing() {
        const DEAF: Scenario = Scenario { name: "deaf", compares: false, full_per_mille: 150, ..CLEAN };
        let seen = (0..10)
            .filter(|&seed| play(&DEAF, seed).violation.is_some_and(|violation| violation.invariant == "convergence"));
        assert!(seen.count() >= 8);
    }

    #[test]
    fn without_the_rule_a_pinned_key_is_seen_to_leave() {
        let mut seen = 0;
        for seed in 0..5 {
            let mut regions = Regions::new(CLEAN, seed);
            let everywhere = Arc::new(Rules::default());
            regions.regions.iter_mut().for_each(|region| region.replica.set_rules(everywhere.clone()));
            regions.run();
            seen += u32::from(regions.violation.is_some_and(|violation| violation.invariant == "residency"));
        }
        assert_eq!(seen, 5);
    }
}

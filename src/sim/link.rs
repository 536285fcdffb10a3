//! Links between nodes: what is sent may come late, twice, in another order, or not at all.
//!
//!   before the healing:  delay + jitter, some held up for long (so that later ones overtake), some twice, some lost,
//!                        and directions cut: one way or both ways
//!   after the healing:   delay + jitter, and nothing else
//!
//! The healing is the "global stabilization time" of the literature \[1\]: liveness is promised from then on only, and
//! safety always.
//!
//! 1. C. Dwork, N. Lynch, L. Stockmeyer: Consensus in the Presence of Partial Synchrony. JACM 35 (1988).

use crate::sim::world::World;

/// What links do to messages.
#[derive(Clone, Copy, Debug)]
pub struct LinkFaults {
    /// One way, at least.
    pub delay_us: u64,
    /// And up to so much more.
    pub jitter_us: u64,
    /// Of a thousand messages, so many are lost.
    pub drop_per_mille: u32,
    /// Of a thousand messages, so many arrive twice.
    pub duplicate_per_mille: u32,
    /// Of a thousand messages, so many are held up for up to [`HELD_UP_US`].
    pub reorder_per_mille: u32,
}

/// How long a message that is held up may take.
pub const HELD_UP_US: u64 = 3_000_000;

impl LinkFaults {
    /// Links as between sites of one continent, without a fault.
    pub const CLEAN: LinkFaults = LinkFaults {
        delay_us: 10_000,
        jitter_us: 5_000,
        drop_per_mille: 0,
        duplicate_per_mille: 0,
        reorder_per_mille: 0,
    };
    /// Links as they are on bad days.
    pub const LOSSY: LinkFaults =
        LinkFaults { drop_per_mille: 150, duplicate_per_mille: 50, reorder_per_mille: 50, ..LinkFaults::CLEAN };
}

/// The links among some nodes, numbered from 0.
pub struct Links {
    faults: LinkFaults,
    nodes: usize,
    /// Directions that nothing passes, `from * nodes + to`.
    cut: Vec<bool>,
    /// Directions that nothing will ever pass.
    severed: Vec<bool>,
    healed: bool,
    /// Messages sent, and those lost.
    pub sent: u64,
    /// Messages lost, to chance or to a cut.
    pub lost: u64,
}

impl Links {
    /// Links among `nodes` nodes.
    pub fn new(nodes: usize, faults: LinkFaults) -> Links {
        Links {
            faults,
            nodes,
            cut: vec![false; nodes * nodes],
            severed: vec![false; nodes * nodes],
            healed: false,
            sent: 0,
            lost: 0,
        }
    }

    /// How long a message takes: none, one or two deliveries.
    pub fn send<E>(&mut self, world: &mut World<E>, from: usize, to: usize) -> [Option<u64>; 2] {
        self.sent += 1;
        let at = from * self.nodes + to;
        let faults = self.faults;
        if self.cut[at] || self.severed[at] || (!self.healed && world.happens(faults.drop_per_mille)) {
            self.lost += 1;
            return [None, None];
        }
        let mut delay = faults.delay_us + world.between(0, faults.jitter_us);
        if self.healed {
            return [Some(delay), None];
        }
        if world.happens(faults.reorder_per_mille) {
            delay += world.between(0, HELD_UP_US);
        }
        let again = world.happens(faults.duplicate_per_mille).then(|| delay + world.between(0, HELD_UP_US));
        [Some(delay), again]
    }

    /// Cuts the links between two random groups, in one direction or in both.
    pub fn partition<E>(&mut self, world: &mut World<E>) {
        let group: Vec<bool> = (0..self.nodes).map(|_| world.between(0, 1) == 1).collect();
        let one_way = world.between(0, 2) == 0;
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let apart = group[from] != group[to];
                self.cut[from * self.nodes + to] = apart && (!one_way || group[from]);
            }
        }
    }

    /// Mends what `partition` cut.
    pub fn mend(&mut self) {
        self.cut.fill(false);
    }

    /// Cuts both directions between two nodes for good; not even the healing mends that.
    pub fn sever(&mut self, a: usize, b: usize) {
        self.severed[a * self.nodes + b] = true;
        self.severed[b * self.nodes + a] = true;
    }

    /// From here on nothing is lost, held up or doubled.
    pub fn heal(&mut self) {
        self.mend();
        self.healed = true;
    }

    /// Whether they are healed.
    pub fn is_healed(&self) -> bool {
        self.healed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_often_as_said_and_end_with_the_healing() {
        let mut world: World<()> = World::new(3);
        let mut links = Links::new(2, LinkFaults::LOSSY);
        let count = |links: &mut Links, world: &mut World<()>| {
            let sent: Vec<_> = (0..10_000).map(|_| links.send(world, 0, 1)).collect();
            let lost = sent.iter().filter(|times| times[0].is_none()).count();
            let twice = sent.iter().filter(|times| times[1].is_some()).count();
            let late = sent.iter().flatten().flatten().filter(|&&delay| delay > 15_000).count();
            (lost, twice, late)
        };
        let (lost, twice, late) = count(&mut links, &mut world);
        assert!((1_300..1_700).contains(&lost) && (300..500).contains(&twice) && late > 300, "{lost} {twice} {late}");
        links.heal();
        assert_eq!(count(&mut links, &mut world), (0, 0, 0));
    }

    #[test]
    fn a_partition_cuts_one_way_or_both_and_is_mended() {
        let mut world: World<()> = World::new(5);
        let mut links = Links::new(4, LinkFaults::CLEAN);
        let (mut one_way, mut both_ways) = (false, false);
        for _ in 0..50 {
            links.partition(&mut world);
            for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
                let there = links.send(&mut world, from, to)[0].is_none();
                let back = links.send(&mut world, to, from)[0].is_none();
                one_way |= there != back;
                both_ways |= there && back;
            }
        }
        assert!(one_way && both_ways);
        links.mend();
        assert!(links.send(&mut world, 0, 1)[0].is_some());
        links.sever(0, 1);
        links.heal();
        assert!(links.send(&mut world, 1, 0)[0].is_none() && links.send(&mut world, 1, 2)[0].is_some());
    }
}

//! Which node holds which home: the state machine of a region's Raft group.
//!
//! A leader begins its reign with `Place`: it says which nodes it hears, and homes whose holders it does not hear go to
//! those it does, the least laden first. Every change of hands takes the next token, one count for all homes, so a
//! token never comes twice and a later one is always higher.
//!
//! A home also remembers the set of voters it was granted under, and earlier ones until its holder has said that it is
//! `Settled`: two majorities of different sets need not meet, so a new holder asks a majority of each of these sets.
//!
//!   Place   {A, B, C}: home 7 -> A, token 1                       sets [{A B C}]
//!   Place   {B, C}:    home 7 -> B, token 65                      sets [{A B C}]
//!   Place   five voters: home 7 -> B, token 129                   sets [{A B C}, {A B C D E}]
//!   Settled home 7, token 129                                     sets [{A B C D E}]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::id::NodeId;
use crate::base::limits;

/// What a region agrees on by Raft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionCommand {
    /// Who is there: homes of others are given to them.
    Place {
        /// The leader who says so.
        leader: NodeId,
        /// It says so for the first time since its election.
        is_first: bool,
        /// Nodes it hears, itself among them.
        present: BTreeSet<NodeId>,
        /// Voters of the region.
        voters: BTreeSet<NodeId>,
    },
    /// Holders have let go of homes for others to take.
    Move {
        /// Homes, the tokens they were held under, and who takes them; nothing happens to one held under another.
        homes: Vec<(u8, u64, NodeId)>,
    },
    /// Holders have everything that was acknowledged under earlier tokens.
    Settled {
        /// Homes and the tokens they are held under.
        homes: Vec<(u8, u64)>,
    },
}

/// One home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Who holds it.
    pub holder: Option<NodeId>,
    /// Under which token; 0 before it was ever held.
    pub token: u64,
    /// Sets of voters of which a new holder must ask a majority each; the last one takes the writes.
    pub sets: Vec<BTreeSet<NodeId>>,
}

/// What a region has agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Homes {
    /// How many leaders there have been.
    pub reign: u64,
    /// The last of them.
    pub leader: Option<NodeId>,
    /// The highest token given.
    pub token: u64,
    /// All homes.
    pub homes: Vec<Home>,
}

impl Default for Homes {
    fn default() -> Homes {
        Homes { reign: 0, leader: None, token: 0, homes: vec![Home::default(); limits::REGION_HOMES] }
    }
}

impl Homes {
    /// Executes a command; the same everywhere.
    pub fn apply(&mut self, command: &RegionCommand) {
        match command {
            RegionCommand::Place { leader, is_first, present, voters } => {
                self.reign += u64::from(*is_first);
                self.leader = Some(*leader);
                self.place(present, voters);
            }
            RegionCommand::Move { homes } => {
                for (home, token, to) in homes {
                    if self.homes.get(usize::from(*home)).is_some_and(|held| held.token == *token) {
                        self.grant(usize::from(*home), *to);
                    }
                }
            }
            RegionCommand::Settled { homes } => {
                for (home, token) in homes {
                    if let Some(held) = self.homes.get_mut(usize::from(*home)).filter(|held| held.token == *token) {
                        held.sets.drain(..held.sets.len().saturating_sub(1));
                    }
                }
            }
        }
    }

    /// Whether `Place` would change anything.
    pub fn would_change(&self, present: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) -> bool {
        present.iter().any(|node| voters.contains(node))
            && self.homes.iter().any(|home| !stays(home, present, voters) || home.sets.last() != Some(voters))
    }

    /// A home to move from the most laden present node to the least, if they are more than one apart.
    pub fn uneven(&self, present: &BTreeSet<NodeId>) -> Option<(u8, u64, NodeId, NodeId)> {
        let load = self.load(present);
        let (most, most_homes) = load.iter().max_by_key(|(_, homes)| **homes)?;
        let (least, least_homes) = load.iter().min_by_key(|(_, homes)| **homes)?;
        if most_homes - least_homes < 2 {
            return None;
        }
        let home = self.homes.iter().position(|home| home.holder == Some(*most))?;
        Some((home as u8, self.homes[home].token, *most, *least))
    }

    /// Who should take a home instead of a node: the least laden present one, that node only if there is no other.
    pub fn instead_of(&self, node: NodeId, present: &BTreeSet<NodeId>) -> NodeId {
        let load = self.load(present).into_iter().filter(|(other, _)| *other != node);
        load.min_by_key(|(_, homes)| *homes).map_or(node, |(other, _)| other)
    }

    /// Homes a node holds, with their tokens.
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = (u8, u64)> {
        let homes = self.homes.iter().enumerate().filter(move |(_, home)| home.holder == Some(node));
        homes.map(|(number, home)| (number as u8, home.token))
    }

    fn place(&mut self, present: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) {
        let present: BTreeSet<NodeId> = present.intersection(voters).copied().collect();
        if present.is_empty() {
            return;
        }
        let mut load = self.load(&present);
        for number in 0..self.homes.len() {
            let keeps = stays(&self.homes[number], &present, voters);
            let same_set = self.homes[number].sets.last() == Some(voters);
            if keeps && same_set {
                continue;
            }
            let to = match self.homes[number].holder.filter(|_| keeps) {
                Some(holder) => holder,
                None => {
                    let (node, homes) =
                        load.iter_mut().min_by_key(|(_, homes)| **homes).expect("somebody is present, see above");
                    *homes += 1;
                    *node
                }
            };
            if !same_set {
                self.homes[number].sets.push(voters.clone());
            }
            self.grant(number, to);
        }
    }

    fn grant(&mut self, number: usize, to: NodeId) {
        self.token += 1;
        self.homes[number].holder = Some(to);
        self.homes[number].token = self.token;
    }

    fn load(&self, present: &BTreeSet<NodeId>) -> BTreeMap<NodeId, usize> {
        let mut load: BTreeMap<NodeId, usize> = present.iter().map(|node| (*node, 0)).collect();
        for holder in self.homes.iter().filter_map(|home| home.holder) {
            if let Some(homes) = load.get_mut(&holder) {
                *homes += 1;
            }
        }
        load
    }
}

fn stays(home: &Home, present: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) -> bool {
    home.holder.is_some_and(|holder| present.contains(&holder) && voters.contains(&holder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u16]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| NodeId(*number)).collect()
    }

    fn place(homes: &mut Homes, present: &[u16], voters: &[u16]) {
        let (present, voters) = (nodes(present), nodes(voters));
        homes.apply(&RegionCommand::Place { leader: NodeId(1), is_first: true, present, voters });
    }

    #[test]
    fn homes_are_spread_evenly_and_those_of_the_absent_go_to_the_present() {
        let mut homes = Homes::default();
        place(&mut homes, &[1, 2, 3], &[1, 2, 3]);
        assert!(homes.load(&nodes(&[1, 2, 3])).values().all(|count| (21..=22).contains(count)));
        let before = homes.clone();
        place(&mut homes, &[2, 3], &[1, 2, 3]);
        assert_eq!(homes.load(&nodes(&[2, 3])).values().sum::<usize>(), limits::REGION_HOMES);
        for (old, new) in before.homes.iter().zip(&homes.homes) {
            assert_eq!(old.holder == Some(NodeId(1)), new.token > before.token, "only what moved has a new token");
        }
        assert!(!homes.would_change(&nodes(&[2, 3]), &nodes(&[1, 2, 3])));
        assert_eq!(homes.uneven(&nodes(&[1, 2, 3])).map(|(_, _, _, to)| to), Some(NodeId(1)));
    }

    #[test]
    fn tokens_only_rise_and_none_comes_twice() {
        let mut homes = Homes::default();
        let mut seen = BTreeSet::new();
        let mut last = vec![0; limits::REGION_HOMES];
        let mut random = crate::base::prng::Prng::new(7);
        for _ in 0..200 {
            let bits = random.below(32) as u16;
            let present: Vec<u16> = (1..=5).filter(|node| bits >> (node - 1) & 1 == 1).collect();
            let voters: &[u16] = if random.below(4) == 0 { &[1, 2, 3, 4, 5] } else { &[1, 2, 3] };
            place(&mut homes, &present, voters);
            for (home, last) in homes.homes.iter().zip(&mut last) {
                assert!(home.token >= *last);
                assert!(home.token == *last || seen.insert(home.token), "a token came twice");
                *last = home.token;
            }
        }
    }

    #[test]
    fn earlier_sets_are_asked_until_the_holder_has_settled() {
        let mut homes = Homes::default();
        place(&mut homes, &[1, 2, 3], &[1, 2, 3]);
        place(&mut homes, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        assert_eq!(homes.homes[0].sets, [nodes(&[1, 2, 3]), nodes(&[1, 2, 3, 4, 5])]);
        assert_eq!(homes.homes[0].holder, Some(NodeId(1)), "a present holder stays");
        homes.apply(&RegionCommand::Settled { homes: vec![(0, homes.homes[0].token - 1), (99, 1)] });
        assert_eq!(homes.homes[0].sets.len(), 2, "an old token settles nothing");
        homes.apply(&RegionCommand::Settled { homes: vec![(0, homes.homes[0].token)] });
        assert_eq!(homes.homes[0].sets, [nodes(&[1, 2, 3, 4, 5])]);
    }
}

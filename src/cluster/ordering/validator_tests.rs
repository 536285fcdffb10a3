//! Validators in one room: what they decide, and what they bear.

use super::*;
use crate::base::prng::Prng;
use crate::cluster::command::{Author, Command};
use crate::cluster::keys;
use crate::cluster::ordering::RecoverError;
use crate::cluster::ordering::lie::Liar;
use crate::cluster::ordering::refusal::Refusal;
use crate::cluster::ordering::room::{Disk, Room, node_key};

#[test]
fn a_command_submitted_anywhere_is_executed_everywhere_and_then_all_rest() {
    for n in [1, 4, 7, 10] {
        for at in 1..=u16::from(n.min(4)) {
            let mut room = Room::new(n, u64::from(at));
            room.set_tenant(at, "alpha");
            room.run(400);
            room.check();
            for node in room.nodes.values() {
                assert!(node.state().tenants.contains_key("alpha"), "{n} sites, submitted at {at}");
                assert_eq!(node.state().digest(), room.node(1).state().digest());
                assert!(!node.is_awake());
            }
            let heights = room.heights();
            room.run(60_000);
            assert_eq!(room.heights(), heights, "an idle cluster does not count heights");
        }
    }
}

#[test]
fn a_batch_is_executed_in_the_same_order_everywhere_and_digests_are_equal() {
    let mut room = Room::new(4, 7);
    for round in 0..20u64 {
        for node in 1..=4 {
            let root = [node as u8; 32];
            room.submit(node, Author::Node(NodeId(node)), Command::AuditRoot { entries: round + 1, root });
        }
        room.set_tenant(1, &format!("tenant{round}"));
        room.run(round % 3 * 40);
    }
    room.run(3_000);
    room.check();
    assert!(room.nodes.values().all(|node| node.pending() == 0));
    let digest = room.node(1).state().digest();
    assert!(room.nodes.values().all(|node| node.state().digest() == digest));
    assert_eq!(room.node(3).state().numbers[&Author::Node(NodeId(4))], 20);
    let commands: usize = room.executed[&NodeId(1)].iter().map(|one| one.commands).sum();
    assert_eq!(commands, 100);
    assert!(room.heights()[0] < 60, "commands are batched: {} heights", room.heights()[0]);
}

#[test]
fn a_silent_primary_costs_one_slow_height_and_is_replaced() {
    for n in [4, 7, 10] {
        let mut room = Room::new(n, 3);
        room.set_tenant(2, "before");
        room.run(500);
        room.silent.insert(NodeId(1));
        let before = room.node(2).state().height;
        for index in 0..10 {
            room.set_tenant(3, &format!("t{index}"));
            room.run(1_500);
        }
        room.check();
        let executed = &room.executed[&NodeId(3)];
        let slow: Vec<_> = executed.iter().filter(|one| one.height > before && one.round > 0).collect();
        assert_eq!(slow.len(), 1, "{n} sites: {slow:?}");
        assert_eq!(room.node(3).state().tenants.len(), 11);
        assert_eq!(room.node(3).state().primary, SiteId(2));
        // The first in turn had the command already: nobody proposed an empty batch.
        assert!(executed.iter().all(|one| one.commands > 0), "{n} sites");
    }
}

#[test]
fn two_silent_sites_of_four_stop_the_order_and_it_goes_on_when_one_returns() {
    let mut room = Room::new(4, 5);
    room.silent.extend([NodeId(3), NodeId(4)]);
    room.set_tenant(1, "a");
    room.run(20_000);
    assert_eq!(room.heights(), [0; 4]);
    room.silent.remove(&NodeId(3));
    room.run(20_000);
    room.check();
    assert_eq!(room.heights()[..3], [1; 3]);
    room.silent.clear();
    room.run(5_000);
    assert_eq!(room.heights(), [1; 4], "the last one has caught up though all rest");
}

#[test]
fn set_primary_is_obeyed_from_the_next_height_on() {
    let mut room = Room::new(4, 9);
    room.submit(3, Author::Node(NodeId(3)), Command::SetPrimary { site: SiteId(4) });
    room.run(500);
    room.set_tenant(2, "a");
    room.run(500);
    room.check();
    let proposers: Vec<_> = room.executed[&NodeId(1)].iter().map(|one| one.proposer).collect();
    assert_eq!(proposers, [SiteId(1), SiteId(4)]);
    assert!(room.executed[&NodeId(1)].iter().all(|one| one.round == 0));
}

#[test]
fn an_equivocating_site_leaves_evidence_that_names_it_and_nobody_else() {
    for (n, liar, seed) in [(4, 1, 1), (4, 3, 2), (7, 2, 3), (10, 10, 4)] {
        let mut room = Room::new(n, seed);
        let network = room.genesis.network();
        let lies = Liar::new(network, node_key(liar));
        // Half of the others hear the opposite of what the other half hears.
        room.tamper = Box::new(move |from, to, bytes| {
            let is_lied_to = from == NodeId(liar) && to.0 % 2 == 0;
            Some(is_lied_to.then(|| lies.opposite(&bytes)).flatten().unwrap_or(bytes))
        });
        for index in 0..12 {
            room.set_tenant(5 - liar.min(4), &format!("t{index}"));
            room.run(2_000);
        }
        room.silent.insert(NodeId(liar)); // it does not vote for its own lies in the last heights' digests
        room.run(10_000);
        let honest: Vec<_> = room.nodes.iter().filter(|(id, _)| **id != NodeId(liar)).collect();
        for (id, node) in &honest {
            assert_eq!(node.halted(), None);
            assert_eq!(node.state().tenants.len(), 12, "{n} sites, {id:?}");
            assert_eq!(node.state().digest(), honest[0].1.state().digest());
        }
        let by_honest: Vec<_> = room.evidence.iter().filter(|(id, _)| *id != NodeId(liar)).collect();
        assert!(!by_honest.is_empty());
        assert!(by_honest.iter().all(|(_, evidence)| evidence.culprit == SiteId(liar as u8)), "{by_honest:?}");
        let key = node_key(liar).public_key();
        for (_, node) in honest {
            assert!(node.proofs().all(|proof| proof.holds(&key)));
            assert!(node.proofs().all(|proof| !proof.holds(&node_key(liar + 1).public_key())));
        }
    }
}

#[test]
fn every_site_restarts_from_its_log_at_any_moment_and_nobody_says_a_second_thing() {
    for seed in 0..40 {
        let mut room = Room::new(4, seed);
        for index in 0..6 {
            room.set_tenant(1 + (index % 4), &format!("t{index}"));
            room.run(seed * 7 % 60);
            // Between any two effects, wherever the fuse ends.
            let node = 1 + (seed as u16 + index) % 4;
            room.fuses.insert(NodeId(node), 1 + (seed * 31 + u64::from(index) * 17) % 60);
            room.run(seed * 13 % 400 + 50);
            room.fuses.clear();
            if !room.nodes.contains_key(&NodeId(node)) {
                room.restart(node);
            }
            room.run(10);
        }
        room.run(10_000);
        room.check();
        assert!(room.evidence.is_empty(), "seed {seed}: {:?}", room.evidence);
        let heights = room.heights();
        assert!(heights.iter().all(|height| *height == heights[0]), "seed {seed}: {heights:?}");
        for node in room.nodes.values() {
            assert_eq!(node.counters().refused(Refusal::CopiedKey), 0);
        }
    }
}

#[test]
fn all_sites_lose_power_at_once_and_go_on() {
    for seed in 0..20 {
        let mut room = Room::new(4, seed);
        room.set_tenant(2, "a");
        room.run(seed * 5);
        (1..=4).for_each(|node| room.crash(node));
        room.events.clear();
        (1..=4).for_each(|node| room.restart(node));
        room.set_tenant(3, "b");
        room.run(10_000);
        room.check();
        assert!(room.evidence.is_empty());
        assert!(room.nodes.values().all(|node| node.state().tenants.contains_key("b")), "seed {seed}");
    }
}

#[test]
fn a_laggard_catches_up_from_blocks_and_a_stranger_to_all_of_them_from_a_snapshot() {
    let mut room = Room::new(4, 11);
    room.silent.insert(NodeId(4));
    for index in 0..40 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(200);
    }
    assert_eq!(room.heights(), [40, 40, 40, 0]);
    room.silent.clear();
    room.run(3_000);
    room.check();
    assert_eq!(room.heights(), [40; 4]);
    assert_eq!(room.node(4).counters().synced, 40);

    // The others have the last heights only, as after many more of them.
    room.crash(4);
    *room.disks.get_mut(&NodeId(4)).unwrap() = Disk::default();
    for node in room.nodes.values_mut() {
        let block = Block { height: 40, bytes: node.snapshot().unwrap().bytes };
        node.catch_up.restart(block);
    }
    room.restart(4);
    room.run(3_000);
    room.check();
    assert_eq!(room.heights(), [40; 4]);
    assert_eq!(room.node(4).state(), room.node(1).state());
    // What it stored in the place of the blocks is what it begins from.
    room.crash(4);
    room.restart(4);
    assert_eq!(room.node(4).state().height, 40);
    room.set_tenant(4, "more");
    room.run(1_000);
    room.check();
    assert_eq!(room.heights(), [41; 4]);
}

#[test]
fn a_snapshot_and_the_blocks_after_it_are_the_same_as_all_blocks() {
    let mut room = Room::new(4, 12);
    for index in 0..5 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(300);
    }
    let snapshot = room.node(1).snapshot().unwrap();
    for index in 5..8 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(300);
    }
    let blocks = room.disks[&NodeId(1)].blocks.clone();
    let genesis = room.genesis.clone();
    let recover = |snapshot, blocks: Vec<Block>, records| {
        Validator::recover(&genesis, SiteId(1), NodeId(1), node_key(1), snapshot, blocks, records)
    };
    let whole = recover(None, blocks.clone(), vec![]).unwrap();
    let after = recover(Some(snapshot.clone()), blocks.clone(), vec![]).unwrap();
    assert_eq!(whole.state(), after.state());
    assert_eq!(after.state(), room.node(1).state());
    // And what does not hold is named.
    let missing = recover(None, blocks[1..].to_vec(), vec![]).err();
    assert_eq!(missing, Some(RecoverError::Missing { height: 1 }));
    let mut forged = snapshot.clone();
    let last = forged.bytes.len() - 1;
    forged.bytes[last] ^= 1;
    assert_eq!(recover(Some(forged), vec![], vec![]).err(), Some(RecoverError::Snapshot { height: 5 }));
    let mut damaged = blocks.clone();
    damaged[3].bytes[40] ^= 1;
    assert_eq!(recover(None, damaged, vec![]).err(), Some(RecoverError::Block { height: 4 }));
    assert_eq!(recover(None, vec![], vec![vec![9; 20]]).err(), Some(RecoverError::Record { index: 0 }));
    let timeout = types::Timeout::propose(Round::new(0));
    let record = Record { height: 7, input: Input::TimeoutElapsed(timeout) }.encode().unwrap();
    let ahead = recover(None, blocks[..2].to_vec(), vec![record.clone()]).err();
    assert_eq!(ahead, Some(RecoverError::LogAhead { log: 7, open: 3 }));
    assert!(recover(None, blocks, vec![record]).is_ok(), "a log of an executed height is passed over");
}

#[test]
fn a_membership_change_takes_effect_at_the_next_height() {
    let mut room = Room::new(4, 13);
    let mut member = room.genesis.members[3].clone();
    (member.id, member.name) = (NodeId(14), "node14".to_string());
    member.key = keys::hexadecimal(node_key(14).public_key().as_bytes());
    room.submit(1, Author::Operator, Command::SetMember { member });
    room.run(500);
    let mut sites = room.genesis.sites.clone();
    sites[3].validator = NodeId(14);
    room.submit(1, Author::Operator, Command::SetSites { sites });
    room.run(500);
    room.check();
    assert!(!room.node(4).is_voting(), "the old validator of site 4 only watches now");
    // The new one begins from nothing and learns everything.
    let newcomer = Validator::new(&room.genesis, SiteId(4), NodeId(14), node_key(14));
    room.nodes.insert(NodeId(14), newcomer);
    room.disks.insert(NodeId(14), Disk::default());
    let effects = room.nodes.get_mut(&NodeId(14)).unwrap().start();
    room.carry_out(NodeId(14), effects);
    room.run(3_000);
    assert!(room.node(14).is_voting());
    room.silent.insert(NodeId(2));
    room.set_tenant(1, "needs the newcomer's vote");
    room.run(3_000);
    room.check();
    assert_eq!(room.node(14).state().tenants.len(), 1);
    assert_eq!(room.node(4).state().tenants.len(), 1, "the old one follows");
}

#[test]
fn a_node_that_does_not_vote_follows_its_site_and_hands_on_commands() {
    let mut room = Room::new(4, 14);
    let mut member = room.genesis.members[1].clone();
    (member.id, member.name) = (NodeId(22), "node22".to_string());
    member.key = keys::hexadecimal(node_key(22).public_key().as_bytes());
    room.submit(1, Author::Operator, Command::SetMember { member });
    room.run(500);
    room.nodes.insert(NodeId(22), Validator::new(&room.genesis, SiteId(2), NodeId(22), node_key(22)));
    room.disks.insert(NodeId(22), Disk::default());
    let effects = room.nodes.get_mut(&NodeId(22)).unwrap().start();
    room.carry_out(NodeId(22), effects);
    room.run(1_000);
    assert_eq!(room.node(22).state().height, 1);
    room.submit(22, Author::Node(NodeId(22)), Command::RegionLeader { term: 3 });
    room.run(1_000);
    room.check();
    assert_eq!(room.node(4).state().leaders[&SiteId(2)], (NodeId(22), 3));
    assert_eq!(room.node(22).state().height, 2, "it hears of the height from its site's validator");
    assert!(!room.node(22).is_awake());
}

#[test]
fn a_primary_that_suppresses_a_site_loses_its_place() {
    let mut room = Room::new(4, 15);
    // The primary never hears of what site 3 wants.
    let network = room.genesis.network();
    room.tamper = Box::new(move |_, to, bytes| {
        let is_theirs = match Message::decode(network, &bytes) {
            Ok(Message::Forward(commands)) => commands.iter().any(|one| one.author == Author::Node(NodeId(3))),
            _ => false,
        };
        (!(is_theirs && to == NodeId(1))).then_some(bytes)
    });
    room.submit(3, Author::Node(NodeId(3)), Command::RegionLeader { term: 1 });
    for index in 0..30 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(200);
    }
    room.run(3_000);
    room.check();
    assert_eq!(room.node(1).state().leaders.get(&SiteId(3)), Some(&(NodeId(3), 1)));
    assert_ne!(room.node(1).state().primary, SiteId(1));
    assert!(room.node(2).counters().suppressions > 0);
}

#[test]
fn a_lossy_network_with_crashes_delays_commands_and_loses_none() {
    for (n, seed) in (0..24).map(|seed| (if seed % 4 == 3 { 7 } else { 4 }, seed)) {
        let mut room = Room::new(n, seed);
        let mut dice = Prng::new(seed + 1_000);
        room.tamper = Box::new(move |_, _, bytes| (dice.below(10) >= 3).then_some(bytes));
        for index in 0..10u16 {
            // Each by its own author, at different nodes: the network may change their order.
            let node = 1 + index % 4;
            room.submit(
                node,
                Author::Node(NodeId(node)),
                Command::AuditRoot { entries: u64::from(index) + 1, root: [1; 32] },
            );
            room.run(seed * 31 % 700);
            if index % 3 == 0 {
                let victim = 1 + (index + seed as u16) % u16::from(n);
                room.crash(victim);
                room.run(seed * 17 % 900);
                room.restart(victim);
            }
        }
        room.tamper = Box::new(|_, _, bytes| Some(bytes));
        room.set_tenant(2, "after all");
        room.run(30_000);
        room.check();
        assert!(room.nodes.values().all(|node| node.state().tenants.contains_key("after all")), "seed {seed}");
        assert!(room.evidence.is_empty(), "seed {seed}: {:?}", room.evidence);
        let heights = room.heights();
        assert!(heights.iter().all(|height| *height == heights[0]), "seed {seed}: {heights:?}");
        assert!(room.nodes.values().all(|node| !node.is_awake()), "seed {seed}: nobody can rest");
    }
}

/// The negative control: the rule about the log is what keeps honest sites honest, and its breach is seen.
#[test]
fn a_site_that_loses_its_log_says_a_second_thing_and_both_it_and_the_others_notice() {
    let (mut accused, mut noticed) = (0, 0);
    for seed in 0..60 {
        let mut room = Room::new(4, seed);
        room.set_tenant(1, "a");
        room.run(seed % 30);
        room.crash(1);
        let disk = room.disks.get_mut(&NodeId(1)).unwrap();
        *disk = Disk { blocks: disk.blocks.clone(), ..Disk::default() };
        room.set_tenant(2, "b");
        room.restart(1);
        room.set_tenant(1, "c");
        room.run(3_000);
        assert!(room.evidence.iter().all(|(_, evidence)| evidence.culprit == SiteId(1)), "seed {seed}");
        accused += usize::from(!room.evidence.is_empty());
        noticed += room.node(1).counters().refused(Refusal::CopiedKey);
    }
    assert!(accused > 0 && noticed > 0, "{accused} {noticed}");
}

/// Found by the simulation (scenario `membership`, seed 1004): a snapshot of the very height that changes who votes was
/// sealed by those who voted before, so nobody could trust it, and a node that kept one could not start again.
#[test]
fn a_snapshot_holds_also_when_the_last_height_has_changed_who_votes() {
    let mut room = Room::new(4, 5);
    room.set_tenant(1, "a");
    room.run(2_000);
    let before = room.node(1).snapshot().unwrap();
    // Its old key is worth nothing from then on, so it is down while it is given the new one.
    room.crash(4);
    let mut member = room.genesis.members[3].clone();
    member.key = keys::hexadecimal(SecretKey::from([77; 32]).public_key().as_bytes());
    room.submit(1, Author::Operator, Command::SetMember { member });
    room.run(2_000);
    let snapshot = room.node(1).snapshot().unwrap();
    assert_eq!(snapshot, before, "the change itself is sealed by those who voted before it");
    let blocks = room.disks[&NodeId(1)].blocks.clone();
    let recovered =
        Validator::recover(&room.genesis, SiteId(1), NodeId(1), node_key(1), Some(snapshot), blocks, Vec::new());
    assert_eq!(recovered.unwrap().state(), room.node(1).state());
    // With three of four voting, the next height is sealed by the new voters, and its snapshot is one again.
    room.set_tenant(1, "b");
    room.run(5_000);
    let snapshot = room.node(1).snapshot().unwrap();
    assert_eq!(snapshot.height, room.node(1).state().height);
    let recovered =
        Validator::recover(&room.genesis, SiteId(1), NodeId(1), node_key(1), Some(snapshot), Vec::new(), Vec::new());
    assert_eq!(recovered.unwrap().state(), room.node(1).state());
}

/// Found by the simulation (scenario `mixed-7`, seeds 8707 and 9345): the log did not say at which height a value had
/// been proposed, and it was read back as the one the value itself names. Replayed, a liar's proposal of another
/// height's value was no longer that round's invalid one, and the vote for nothing no longer followed from it.
#[test]
fn a_value_of_another_height_is_refused_again_when_the_log_is_replayed() {
    // Of the past, of the future, of nowhere near.
    for named in [0, 1, 3, 1_000] {
        let mut room = Room::new(4, 16);
        room.set_tenant(1, "a");
        room.run(500);
        room.check();
        assert_eq!(room.heights(), [1; 4]);
        let (network, height) = (room.genesis.network(), Height(2));
        let liar = Liar::new(network, node_key(1));
        let propose = |named, after| {
            let value = Value::new(network, named, SiteId(1), 0, after, Arc::from(&b"\0"[..]));
            liar.proposal(Proposal { height, round: Round::new(0), value, pol_round: Round::Nil, site: SiteId(1) })
        };
        let after = room.node(2).state().execute_height(2, SiteId(1), &[]).unwrap().digest();
        let votes = |effects: &[Effect]| -> Vec<_> {
            let said = effects.iter().filter_map(|effect| match effect {
                Effect::Broadcast(bytes) => Message::decode(network, bytes).ok(),
                _ => None,
            });
            said.filter_map(|message| if let Message::Vote(vote) = message { Some(vote) } else { None }).collect()
        };
        // First what nobody may propose, then something good, which comes too late: the vote is cast.
        let node = room.nodes.get_mut(&NodeId(2)).unwrap();
        let mut effects = node.receive(NodeId(1), &propose(named, [0; 32]));
        effects.extend(node.receive(NodeId(1), &propose(2, after)));
        let before = votes(&effects);
        assert_eq!(before.len(), 1);
        assert_eq!(before[0].message.value, types::NilOrVal::Nil);

        room.carry_out(NodeId(2), effects);
        let records: Vec<_> = room.disks[&NodeId(2)].log.clone();
        let blocks = room.disks[&NodeId(2)].blocks.clone();
        let recovered = Validator::recover(&room.genesis, SiteId(2), NodeId(2), node_key(2), None, blocks, records)
            .map(|mut node| {
                let effects = node.start();
                assert!(!node.engine.awaits_proposal());
                votes(&effects)
            });
        // What was said is said again, signature and all, and nothing else.
        assert_eq!(recovered, Ok(before), "a value that names height {named}");
    }
}

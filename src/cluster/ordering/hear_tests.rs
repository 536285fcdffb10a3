//! What is refused, and why.

use types::{NilOrVal, Round, SignedMessage, VoteType};

use super::*;
use crate::base::prng::Prng;
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::genesis::NetworkId;
use crate::cluster::keys::{self, SecretKey};
use crate::cluster::ordering::block::{Seal, Snapshot};
use crate::cluster::ordering::codec;
use crate::cluster::ordering::context::{Height, Proposal, Value, Vote};
use crate::cluster::ordering::lie::Liar;
use crate::cluster::ordering::room::{Room, node_key, operator_key};
use crate::cluster::ordering::{Block, Ordering};
use crate::cluster::state::State;

/// A room of four that has executed three heights and rests at the fourth.
fn rested() -> Room {
    let mut room = Room::new(4, 1);
    for index in 0..3 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(500);
    }
    room.check();
    assert_eq!(room.heights(), [3; 4]);
    room
}

fn vote(height: u64, round: u32, site: u8) -> Vote {
    let (height, round) = (Height(height), Round::new(round));
    Vote { kind: VoteType::Prevote, height, round, value: NilOrVal::Nil, site: SiteId(site) }
}

/// Node 2 hears something from `from`; the one reason it gives for refusing, if it does.
fn refusal(room: &mut Room, from: u16, bytes: &[u8]) -> Option<Refusal> {
    let node = room.nodes.get_mut(&NodeId(2)).unwrap();
    let before = node.counters().clone();
    let (state, is_awake) = (node.state().clone(), node.is_awake());
    let effects = node.receive(NodeId(from), bytes);
    let after = node.counters();
    let refused: Vec<_> =
        before.refusals().zip(after.refusals()).filter(|(a, b)| a.1 != b.1).map(|(_, (reason, _))| reason).collect();
    assert!(refused.len() <= 1, "{refused:?}");
    if !refused.is_empty() {
        assert_eq!((node.state(), node.is_awake()), (&state, is_awake), "what is refused changes nothing");
        let is_quiet = |effect: &Effect| matches!(effect, Effect::Send(..) | Effect::SetTimer(..));
        assert!(effects.iter().all(is_quiet), "{effects:?}");
    }
    refused.first().copied()
}

#[test]
fn every_kind_of_bad_message_is_refused_for_its_own_reason() {
    let mut room = rested();
    let network = room.genesis.network();
    let other = NetworkId([9; 32]);
    let (one, three) = (Liar::new(network, node_key(1)), Liar::new(network, node_key(3)));
    let good = three.vote(vote(4, 0, 3));

    let mut long = good.clone();
    long.resize(limits::ORDERING_SMALL_BYTES_MAX + 1, 0);
    assert_eq!(refusal(&mut room, 3, &long), Some(Refusal::Oversized));
    let huge = vec![1; limits::ORDERING_MESSAGE_BYTES_MAX + 1];
    assert_eq!(refusal(&mut room, 3, &huge), Some(Refusal::Oversized));
    for bad in [&good[..0], &good[..1], &good[..20], &good[..good.len() - 1], &[&good[..], &[0]].concat()] {
        assert_eq!(refusal(&mut room, 3, bad), Some(Refusal::Malformed));
    }
    let mut kind = good.clone();
    kind[1] = 77;
    assert_eq!(refusal(&mut room, 3, &kind), Some(Refusal::Malformed));
    let mut version = good.clone();
    version[0] = 2;
    assert_eq!(refusal(&mut room, 3, &version), Some(Refusal::WrongVersion));
    let foreign = Liar::new(other, node_key(3)).vote(vote(4, 0, 3));
    assert_eq!(refusal(&mut room, 3, &foreign), Some(Refusal::WrongNetwork));
    // The other cluster's vote with this one's name on it: the name is signed too.
    let mut renamed = foreign.clone();
    renamed[2..34].copy_from_slice(&network.0);
    assert_eq!(refusal(&mut room, 3, &renamed), Some(Refusal::BadSignature));

    assert_eq!(refusal(&mut room, 99, &good), Some(Refusal::UnknownSigner));
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(4, 0, 9))), Some(Refusal::NotAValidator));
    assert_eq!(refusal(&mut room, 3, &one.vote(vote(4, 0, 3))), Some(Refusal::BadSignature));
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(1, 0, 3))), Some(Refusal::TooOld));
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(6, 0, 3))), Some(Refusal::TooFarAhead));
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(u64::MAX, 0, 3))), Some(Refusal::TooFarAhead));
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(4, 11, 3))), Some(Refusal::TooFarAhead));
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(4, u32::MAX, 3))), Some(Refusal::Malformed));
    // Said with this node's own key, and it never did.
    let own = Liar::new(network, node_key(2));
    assert_eq!(refusal(&mut room, 3, &own.vote(vote(4, 0, 2))), Some(Refusal::CopiedKey));

    let value = Value::new(network, 4, SiteId(3), 0, [0; 32], Vec::new().into());
    let mut proposal =
        Proposal { height: Height(4), round: Round::new(0), value, pol_round: Round::Nil, site: SiteId(3) };
    assert_eq!(refusal(&mut room, 3, &three.proposal(proposal.clone())), Some(Refusal::NotItsTurn));
    proposal.site = SiteId(1);
    assert_eq!(refusal(&mut room, 1, &three.proposal(proposal.clone())), Some(Refusal::BadSignature));
    proposal.pol_round = Round::new(0); // a proof of lock of its own round, which the engine asserts never comes
    assert_eq!(refusal(&mut room, 1, &one.proposal(proposal)), Some(Refusal::Malformed));

    // Sync: not asked for.
    let blocks = vec![room.disks[&NodeId(1)].blocks[0].bytes.clone()];
    let response = Message::SyncResponse(blocks).encode(network);
    assert_eq!(refusal(&mut room, 1, &response), Some(Refusal::ForgedSync));
    assert_eq!(refusal(&mut room, 1, &Message::SyncRequest(9).encode(network)), Some(Refusal::TooFarAhead));

    // Nothing of all this has woken anybody; the good one does.
    assert!(!room.node(2).is_awake());
    assert_eq!(refusal(&mut room, 3, &good), None);
    assert!(room.node(2).is_awake());
}

#[test]
fn a_command_that_was_executed_or_is_nobodys_is_not_taken_from_others() {
    let mut room = rested();
    let network = room.genesis.network();
    let set = |name: &str| Command::SetTenant { name: name.to_string(), policy: Some(vec![2]) };
    let mut forward = |signed: Signed| {
        let bytes = Message::Forward(vec![signed]).encode(network);
        refusal(&mut room, 1, &bytes)
    };
    let replayed = Signed::new(network, Author::Operator, 2, set("t1"), &operator_key());
    assert_eq!(forward(replayed), Some(Refusal::Replayed));
    let forged = Signed::new(network, Author::Operator, 9, set("x"), &node_key(1));
    assert_eq!(forward(forged), Some(Refusal::BadSignature));
    let foreign = Signed::new(NetworkId([9; 32]), Author::Operator, 9, set("x"), &operator_key());
    assert_eq!(forward(foreign), Some(Refusal::BadSignature));
    let mut fat = Signed::new(network, Author::Operator, 9, set("x"), &operator_key());
    fat.signature = vec![0; limits::COMMAND_BYTES_MAX];
    assert_eq!(forward(fat), Some(Refusal::Oversized));
}

#[test]
fn a_primary_that_proposes_what_cannot_be_executed_gets_no_vote_and_loses_its_place() {
    // A batch that leads elsewhere, a forged command, a command from the past, no batch at all.
    for lie in 0..4 {
        let mut room = rested();
        let network = room.genesis.network();
        let state = room.node(1).state().clone();
        let forged = |key: &SecretKey, number| {
            let command = Command::SetTenant { name: "lie".to_string(), policy: Some(vec![1]) };
            Signed::new(network, Author::Operator, number, command, key)
        };
        let (commands, after) = match lie {
            0 => (vec![forged(&operator_key(), 9)], [7; 32]),
            1 => (vec![forged(&node_key(1), 9)], state.digest()),
            _ => (vec![forged(&operator_key(), 2)], state.digest()),
        };
        let batch = if lie == 3 { vec![0xff; 40] } else { codec::encode(&commands) };
        let value = Value::new(network, 4, SiteId(1), 0, after, batch.into());
        let (height, round, pol_round) = (Height(4), Round::new(0), Round::Nil);
        let proposal = Proposal { height, round, value, pol_round, site: SiteId(1) };
        let bytes = Liar::new(network, node_key(1)).proposal(proposal);
        room.nodes.remove(&NodeId(1)); // the liar says this and nothing else
        for node in 2..=4 {
            room.send(NodeId(1), NodeId(node), bytes.clone());
        }
        room.run(3_000);
        room.check();
        let executed = room.executed[&NodeId(2)].last().unwrap().clone();
        assert_eq!((executed.height, executed.round, executed.proposer), (4, 1, SiteId(2)), "lie {lie}");
        assert!(!room.node(2).state().tenants.contains_key("lie"));
        assert_eq!(room.node(2).state().primary, SiteId(2));
    }
}

#[test]
fn a_liar_that_makes_many_proposals_is_executed_twice_and_no_more() {
    let mut room = rested();
    let network = room.genesis.network();
    let one = Liar::new(network, node_key(1));
    for index in 0..50u8 {
        let batch = codec::encode(&Vec::<Signed>::new());
        let value = Value::new(network, 4, SiteId(1), 0, [index; 32], batch.into());
        let (height, round, pol_round) = (Height(4), Round::new(0), Round::Nil);
        let proposal = Proposal { height, round, value, pol_round, site: SiteId(1) };
        assert_eq!(refusal(&mut room, 1, &one.proposal(proposal)), None);
    }
    let node = room.node(2);
    assert_eq!(node.proofs().count(), 1);
    assert!(node.proofs().all(|proof| proof.holds(&node_key(1).public_key())));
    assert_eq!(node.counters().relayed, relayed_before_and(&rested(), 2 * 2), "two of them go to two others each");
}

/// What node 2 has relayed so far, and `more`.
fn relayed_before_and(room: &Room, more: u64) -> u64 {
    room.node(2).counters().relayed + more
}

#[test]
fn answers_to_one_node_have_a_bound_until_the_next_status() {
    let mut room = rested();
    let request = Message::SyncRequest(1).encode(room.genesis.network());
    for _ in 0..limits::SYNC_ANSWERS_MAX {
        assert_eq!(refusal(&mut room, 3, &request), None);
    }
    assert_eq!(refusal(&mut room, 3, &request), Some(Refusal::Full));
    assert_eq!(refusal(&mut room, 4, &request), None);
    room.run(600);
    assert_eq!(refusal(&mut room, 3, &request), None);
}

#[test]
fn early_messages_have_a_bound_for_each_site() {
    let mut room = rested();
    let three = Liar::new(room.genesis.network(), node_key(3));
    for round in 0..limits::EARLY_MESSAGES_PER_SITE_MAX as u32 {
        assert_eq!(refusal(&mut room, 3, &three.vote(vote(5, round, 3))), None);
    }
    assert_eq!(refusal(&mut room, 3, &three.vote(vote(5, 99, 3))), Some(Refusal::Full));
    let four = Liar::new(room.genesis.network(), node_key(4));
    assert_eq!(refusal(&mut room, 4, &four.vote(vote(5, 0, 4))), None, "another's bound is its own");
}

#[test]
fn a_certificate_needs_a_quorum_of_true_votes() {
    let mut room = rested();
    let network = room.genesis.network();
    let signed = |site: u8, key: u16| {
        let vote = vote(4, 0, site);
        let signature = node_key(key).sign(&context::vote_bytes(network, &vote));
        SignedMessage::new(vote, signature)
    };
    let certificate = |votes| {
        let kind = types::RoundCertificateType::Skip;
        let one = types::RoundCertificate::new_from_votes(Height(4), Round::new(0), kind, votes);
        Message::Round(one).encode(network)
    };
    for (height, reason) in [(1, Refusal::TooOld), (6, Refusal::TooFarAhead), (u64::MAX, Refusal::TooFarAhead)] {
        let (round, value_id) = (Round::new(0), context::ValueId([1; 32]));
        let empty = types::PolkaCertificate { height: Height(height), round, value_id, polka_signatures: vec![] };
        assert_eq!(refusal(&mut room, 3, &Message::Polka(empty).encode(network)), Some(reason));
    }
    assert_eq!(refusal(&mut room, 3, &Message::Status(u64::MAX).encode(network)), None);
    assert_eq!(room.node(2).highest_claimed(), 3, "one may lie");
    assert_eq!(refusal(&mut room, 3, &certificate(vec![signed(3, 3)])), Some(Refusal::BadSignature), "too few");
    assert_eq!(refusal(&mut room, 3, &certificate(vec![signed(3, 3); 3])), Some(Refusal::BadSignature), "one thrice");
    let forged = certificate(vec![signed(3, 3), signed(4, 3)]);
    assert_eq!(refusal(&mut room, 3, &forged), Some(Refusal::BadSignature));
    assert_eq!(refusal(&mut room, 3, &certificate(vec![signed(3, 3), signed(9, 3)])), Some(Refusal::NotAValidator));
}

#[test]
fn a_second_vote_inside_a_certificate_is_evidence_too() {
    let mut room = rested();
    let network = room.genesis.network();
    let signed = |site: u8, value| {
        let vote = Vote { value, ..vote(4, 0, site) };
        let signature = node_key(site.into()).sign(&context::vote_bytes(network, &vote));
        SignedMessage::new(vote, signature)
    };
    let nil = Message::Vote(signed(3, NilOrVal::Nil)).encode(network);
    assert_eq!(refusal(&mut room, 3, &nil), None);
    let value_id = context::ValueId([5; 32]);
    let votes = [1, 3, 4].map(|site| signed(site, NilOrVal::Val(value_id)));
    let certificate = types::PolkaCertificate::new(Height(4), Round::new(0), value_id, votes.to_vec());
    let bytes = Message::Polka(certificate).encode(network);
    let effects = room.nodes.get_mut(&NodeId(2)).unwrap().receive(NodeId(4), &bytes);
    let evidence: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Evidence(_))).collect();
    assert_eq!(evidence.len(), 1, "{evidence:?}");
    let proof = room.node(2).proofs().next().unwrap();
    assert!(proof.holds(&node_key(3).public_key()));
    // Once is enough, and the certificate's other votes are still news when they come by themselves.
    let again = room.nodes.get_mut(&NodeId(2)).unwrap().receive(NodeId(1), &bytes);
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Evidence(_))));
    let relayed = room.node(2).counters().relayed;
    let direct = Message::Vote(signed(1, NilOrVal::Val(value_id))).encode(network);
    assert_eq!(refusal(&mut room, 1, &direct), None);
    assert!(room.node(2).counters().relayed > relayed);
}

#[test]
fn forged_blocks_are_refused_and_somebody_else_is_asked() {
    let mut room = Room::new(4, 2);
    room.silent.insert(NodeId(4));
    for index in 0..4 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(500);
    }
    // Two of three answer with forgeries: another height's block, a damaged one, one signed by too few.
    let network = room.genesis.network();
    let mut count = 0;
    room.tamper = Box::new(move |from, _, bytes| match Message::decode(network, &bytes) {
        Ok(Message::SyncResponse(mut blocks)) if from != NodeId(3) && !blocks.is_empty() => {
            count += 1;
            match count % 3 {
                0 => blocks.rotate_left(1),
                1 => blocks[0][60] ^= 1,
                _ => {
                    let last = blocks[0].len() - 1;
                    blocks[0][last] ^= 1;
                }
            }
            Some(Message::SyncResponse(blocks).encode(network))
        }
        _ => Some(bytes),
    });
    room.silent.clear();
    room.run(10_000);
    room.check();
    assert_eq!(room.heights(), [4; 4]);
    assert!(room.node(4).counters().refused(Refusal::ForgedSync) > 0);
    assert_eq!(room.node(4).state(), room.node(3).state());
}

#[test]
fn a_snapshot_is_believed_only_if_enough_known_sites_vouch_for_it() {
    let room = rested();
    let mut fresh = Room::new(4, 3);
    let snapshot = room.node(1).snapshot().unwrap();
    let node = fresh.nodes.get_mut(&NodeId(1)).unwrap();
    assert!(node.take_block(&snapshot.bytes).is_some());
    assert_eq!(node.state(), room.node(1).state());
    // Strangers call themselves this cluster: a state with their keys, properly sealed by all of them. Their quorum
    // vouches for it; nobody known here does.
    let mut state = room.node(1).state().clone();
    for member in state.members.values_mut() {
        member.key = keys::hexadecimal(node_key(member.id.0 + 50).public_key().as_bytes());
    }
    let network = state.network;
    let forge = |state: &State, key: &dyn Fn(u8) -> u16| {
        let value = Value::new(network, state.height, SiteId(1), 0, state.digest(), Vec::new().into());
        let id = types::Value::id(&value);
        let votes = (1..=3).map(|site| {
            let (kind, value) = (VoteType::Precommit, NilOrVal::Val(id));
            let vote = Vote { kind, value, ..vote(state.height, 0, site) };
            let signature = node_key(key(site)).sign(&context::vote_bytes(network, &vote));
            SignedMessage::new(vote, signature)
        });
        let certificate = types::CommitCertificate::new(Height(state.height), Round::new(0), id, votes.collect());
        Snapshot::of(&Seal { header: value.header, certificate }, state).bytes
    };
    let mut fresh = Room::new(4, 4);
    let node = fresh.nodes.get_mut(&NodeId(1)).unwrap();
    assert!(node.take_block(&forge(&state, &|site| u16::from(site) + 50)).is_none());
    // One known site, a liar, has changed sides: still no more than may lie.
    let liar = state.members.get_mut(&NodeId(1)).unwrap();
    liar.key = keys::hexadecimal(node_key(1).public_key().as_bytes());
    assert!(node.take_block(&forge(&state, &|site| if site == 1 { 1 } else { u16::from(site) + 50 })).is_none());
    // With a second one, at least one honest site vouches.
    let second = state.members.get_mut(&NodeId(2)).unwrap();
    second.key = keys::hexadecimal(node_key(2).public_key().as_bytes());
    assert!(
        node.take_block(&forge(&state, &|site| if site < 3 { site.into() } else { u16::from(site) + 50 })).is_some()
    );
}

#[test]
fn relayed_copies_cost_a_hash_and_no_signature() {
    let mut room = Room::new(10, 5);
    for index in 0..10 {
        room.set_tenant(1, &format!("t{index}"));
        room.run(1_000);
    }
    room.check();
    let counters = room.node(5).counters();
    let counts = room.node(5).signature_counts();
    // A height has a proposal, two votes of each of ten sites and a command; nearly all arrive from nine others.
    assert!(counts.computed <= 10 * 22, "{counts:?}");
    assert!(counters.copies > 10 * 21 * 4, "{counters:?}");
}

/// 100,000 messages: random bytes, and real ones with bits flipped, cut, spliced.
#[test]
fn no_bytes_make_a_validator_panic_or_stop() {
    let mut room = Room::new(4, 6);
    for index in 0..6 {
        room.set_tenant(1 + index % 4, &format!("t{index}"));
        if index == 3 {
            room.silent.insert(NodeId(1)); // certificates, rounds, catching up
        }
        room.run(2_000);
    }
    room.silent.clear();
    room.run(2_000);
    room.set_tenant(2, "open");
    room.run(15);
    let samples: Vec<Vec<u8>> = room.heard.iter().map(|(_, bytes)| bytes.clone()).collect();
    let kinds: std::collections::BTreeSet<u8> = samples.iter().map(|bytes| bytes[1]).collect();
    assert!(kinds.len() >= 7, "samples of {kinds:?} only");
    let digest = room.node(3).state().digest();
    let height = room.node(3).state().height;
    let node = room.nodes.get_mut(&NodeId(3)).unwrap();
    let mut prng = Prng::new(42);
    for _ in 0..100_000 {
        let mut bytes = samples[prng.below(samples.len() as u64) as usize].clone();
        match prng.below(8) {
            0 => bytes = (0..prng.below(300)).map(|_| prng.next_u64() as u8).collect(),
            1 => bytes.truncate(prng.below(bytes.len() as u64) as usize),
            2 => {
                let other = &samples[prng.below(samples.len() as u64) as usize];
                let at = prng.below(bytes.len().min(other.len()) as u64) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at..]);
            }
            _ => {
                for _ in 0..=prng.below(3) {
                    // Behind the network's name, most of the time: the rest is refused at once.
                    let first = if prng.below(8) == 0 { 0 } else { 34.min(bytes.len() as u64 - 1) };
                    let at = first + prng.below(bytes.len() as u64 - first);
                    bytes[at as usize] ^= 1 << prng.below(8);
                }
            }
        }
        let from = NodeId(1 + prng.below(4) as u16);
        node.receive(from, &bytes);
        if prng.below(64) == 0 {
            node.timeout(crate::cluster::ordering::TimerId(prng.next_u64()));
        }
    }
    assert_eq!(node.halted(), None);
    let total: u64 = node.counters().refusals().map(|(_, count)| count).sum();
    assert!(total > 50_000, "{:?}", node.counters());
    if node.state().height == height {
        assert_eq!(node.state().digest(), digest);
    }
    // Records and blocks are read from disks, which are strangers too.
    let network = room.genesis.network();
    let disk = room.disks[&NodeId(2)].clone();
    let records: Vec<_> =
        disk.log.into_iter().chain(disk.blocks.into_iter().map(|Block { bytes, .. }| bytes)).collect();
    for _ in 0..20_000 {
        let mut bytes = records[prng.below(records.len() as u64) as usize].clone();
        let at = prng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << prng.below(8);
        let _ = crate::cluster::ordering::codec::Record::decode(network, &bytes);
        let _ = crate::cluster::ordering::block::Content::decode(network, &bytes);
    }
}

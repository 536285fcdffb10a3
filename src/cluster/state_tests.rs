//! Who may do what, and what it does.

use super::*;
use crate::cluster::ordering::room::{genesis, node_key, operator_key};

struct Desk {
    state: State,
}

impl Desk {
    fn new() -> Desk {
        Desk { state: State::new(&genesis(4)) }
    }

    fn operator(&mut self, command: Command) -> Result<(), Refused> {
        self.with_key(Author::Operator, command, &operator_key())
    }

    fn node(&mut self, node: u16, command: Command) -> Result<(), Refused> {
        self.with_key(Author::Node(NodeId(node)), command, &node_key(node))
    }

    fn with_key(&mut self, author: Author, command: Command, key: &keys::SecretKey) -> Result<(), Refused> {
        let number = self.state.numbers.get(&author).copied().unwrap_or(0) + 1;
        let before = self.state.digest();
        let outcome = self.state.execute(&Signed::new(self.state.network, author, number, command, key));
        assert_eq!(outcome.is_err(), self.state.digest() == before, "refused means unchanged, executed means changed");
        outcome
    }

    fn member(&self, id: u16, site: u8) -> Member {
        let mut member = self.state.members[&NodeId(1)].clone();
        (member.id, member.site, member.name) = (NodeId(id), SiteId(site), format!("node{id}"));
        member.key = keys::hexadecimal(node_key(id).public_key().as_bytes());
        member
    }
}

fn senseless(outcome: Result<(), Refused>) -> bool {
    matches!(outcome, Err(Refused::Senseless(_)))
}

#[test]
fn a_command_needs_its_authors_key_and_a_rising_number() {
    let mut desk = Desk::new();
    let command = Command::SetConfig { version: 1, digest: [1; 32] };
    let wrong_key = desk.with_key(Author::Operator, command.clone(), &node_key(1));
    assert_eq!(wrong_key, Err(Refused::Signature));
    let stranger = Author::Node(NodeId(77));
    assert_eq!(
        desk.with_key(stranger, Command::RegionLeader { term: 1 }, &node_key(77)),
        Err(Refused::UnknownAuthor { author: stranger })
    );
    let signed = Signed::new(desk.state.network, Author::Operator, 5, command.clone(), &operator_key());
    assert_eq!(desk.state.execute(&signed), Ok(()));
    assert_eq!(desk.state.execute(&signed), Err(Refused::Number { number: 5, last: 5 }));
    let older = Signed::new(desk.state.network, Author::Operator, 3, command.clone(), &operator_key());
    assert_eq!(desk.state.execute(&older), Err(Refused::Number { number: 3, last: 5 }));
    // What is signed is the command and the number, not only that there is one.
    let mut altered = Signed::new(desk.state.network, Author::Operator, 6, command, &operator_key());
    altered.number = 7;
    assert_eq!(desk.state.execute(&altered), Err(Refused::Signature));
}

#[test]
fn rights_are_the_operators_the_validators_and_the_nodes_own() {
    let mut desk = Desk::new();
    let member = desk.member(21, 1);
    assert_eq!(desk.node(1, Command::SetMember { member: member.clone() }), Err(Refused::Right));
    assert_eq!(desk.node(1, Command::Purge { prefix: vec![] }), Err(Refused::Right));
    assert_eq!(desk.operator(Command::SetMember { member }), Ok(()));
    assert_eq!(desk.node(21, Command::SetPrimary { site: SiteId(3) }), Err(Refused::Right), "it does not vote");
    assert_eq!(desk.node(1, Command::SetPrimary { site: SiteId(3) }), Ok(()));
    assert_eq!(desk.state.primary, SiteId(3));
    assert!(senseless(desk.node(1, Command::SetPrimary { site: SiteId(9) })));
    assert_eq!(desk.operator(Command::RegionLeader { term: 1 }), Err(Refused::Right));
    assert_eq!(desk.operator(Command::AuditRoot { entries: 1, root: [0; 32] }), Err(Refused::Right));
}

#[test]
fn a_leader_speaks_for_its_own_region_and_terms_only_rise() {
    let mut desk = Desk::new();
    let member = desk.member(21, 1);
    desk.operator(Command::SetMember { member }).unwrap();
    assert_eq!(desk.node(21, Command::RegionLeader { term: 4 }), Ok(()));
    assert_eq!(desk.state.leaders[&SiteId(1)], (NodeId(21), 4));
    assert!(senseless(desk.node(1, Command::RegionLeader { term: 4 })));
    assert_eq!(desk.node(1, Command::RegionLeader { term: 5 }), Ok(()));
    assert_eq!(desk.node(2, Command::RegionLeader { term: 1 }), Ok(()), "another region's terms are its own");
    assert_eq!(desk.state.leaders[&SiteId(1)], (NodeId(1), 5));
}

#[test]
fn audit_trails_and_configurations_only_grow() {
    let mut desk = Desk::new();
    assert_eq!(desk.node(1, Command::AuditRoot { entries: 10, root: [1; 32] }), Ok(()));
    assert!(senseless(desk.node(1, Command::AuditRoot { entries: 10, root: [2; 32] })));
    assert!(senseless(desk.node(1, Command::AuditRoot { entries: 9, root: [2; 32] })));
    assert_eq!(desk.state.audits[&NodeId(1)], (10, [1; 32]));
    assert_eq!(desk.operator(Command::SetConfig { version: 3, digest: [3; 32] }), Ok(()));
    assert!(senseless(desk.operator(Command::SetConfig { version: 3, digest: [4; 32] })));
}

#[test]
fn there_are_one_four_seven_or_ten_sites_and_their_validators_are_members() {
    let mut desk = Desk::new();
    let sites: Vec<Site> = desk.state.sites.values().cloned().collect();
    assert!(senseless(desk.operator(Command::SetSites { sites: sites[..3].to_vec() })));
    assert!(senseless(desk.operator(Command::SetSites { sites: vec![] })));
    let twice = vec![sites[0].clone(); 4];
    assert!(senseless(desk.operator(Command::SetSites { sites: twice })));
    let mut more = sites.clone();
    more.extend((5..=7).map(|id| Site { id: SiteId(id), validator: NodeId(id.into()), ..sites[0].clone() }));
    assert!(senseless(desk.operator(Command::SetSites { sites: more.clone() })), "no such nodes yet");
    for id in 5..=7 {
        let member = desk.member(id, id as u8);
        desk.operator(Command::SetMember { member }).unwrap();
    }
    assert_eq!(desk.operator(Command::SetSites { sites: more }), Ok(()));
    assert_eq!(desk.state.sites.len(), 7);
    // Back to one, without the primary.
    assert_eq!(desk.operator(Command::SetSites { sites: sites[2..3].to_vec() }), Ok(()));
    assert_eq!(desk.state.primary, SiteId(3));
}

#[test]
fn members_are_who_they_say_and_validators_cannot_be_removed_from_under_their_site() {
    let mut desk = Desk::new();
    assert!(senseless(desk.operator(Command::RemoveMember { node: NodeId(2) })));
    assert!(senseless(desk.operator(Command::RemoveMember { node: NodeId(50) })));
    let copied = Member { key: desk.state.members[&NodeId(2)].key.to_uppercase(), ..desk.member(21, 1) };
    assert!(senseless(desk.operator(Command::SetMember { member: copied })), "a copied key");
    let keyless = Member { key: "00".to_string(), ..desk.member(21, 1) };
    assert!(senseless(desk.operator(Command::SetMember { member: keyless })));
    let nameless = Member { name: String::new(), ..desk.member(21, 1) };
    assert!(senseless(desk.operator(Command::SetMember { member: nameless })));
    let moved = Member { site: SiteId(1), ..desk.state.members[&NodeId(2)].clone() };
    assert!(senseless(desk.operator(Command::SetMember { member: moved })));
    let member = desk.member(21, 1);
    desk.operator(Command::SetMember { member: member.clone() }).unwrap();
    desk.node(21, Command::RegionLeader { term: 1 }).unwrap();
    desk.operator(Command::RemoveMember { node: NodeId(21) }).unwrap();
    assert!(!desk.state.leaders.contains_key(&SiteId(1)));
    // Back again: its old commands stay used up.
    desk.operator(Command::SetMember { member }).unwrap();
    let old =
        Signed::new(desk.state.network, Author::Node(NodeId(21)), 1, Command::RegionLeader { term: 1 }, &node_key(21));
    assert_eq!(desk.state.execute(&old), Err(Refused::Number { number: 1, last: 1 }));
}

#[test]
fn namespaces_are_sensible_and_an_epoch_never_falls_back() {
    let mut desk = Desk::new();
    let strong = Namespace { prefix: b"s:".to_vec(), mode: Mode::Strong, ..Namespace::default_one() };
    assert!(senseless(desk.operator(Command::SetNamespace { namespace: strong.clone() })), "strong without a home");
    let homed = Namespace { home: Some(SiteId(2)), epoch: 99, ..strong };
    assert_eq!(desk.operator(Command::SetNamespace { namespace: homed.clone() }), Ok(()));
    assert_eq!(desk.state.rules.named(b"s:").unwrap().epoch, 0, "the epoch is the state's to know");
    let elsewhere = Namespace { regions: vec![SiteId(1)], ..homed.clone() };
    assert!(senseless(desk.operator(Command::SetNamespace { namespace: elsewhere })));
    let nowhere = Namespace { regions: vec![SiteId(9)], home: None, mode: Mode::Eventual, ..homed.clone() };
    assert!(senseless(desk.operator(Command::SetNamespace { namespace: nowhere })));
    let long = Namespace { prefix: vec![b'x'; limits::PREFIX_BYTES_MAX + 1], ..homed.clone() };
    assert!(senseless(desk.operator(Command::SetNamespace { namespace: long })));

    assert!(senseless(desk.operator(Command::Purge { prefix: b"none".to_vec() })));
    let purge = Command::Purge { prefix: b"s:".to_vec() };
    let epoch = |desk: &Desk| desk.state.rules.named(b"s:").unwrap().epoch;
    for expected in 1..=3 {
        desk.operator(purge.clone()).unwrap();
        assert_eq!(epoch(&desk), expected);
    }
    desk.operator(Command::SetNamespace { namespace: homed.clone() }).unwrap();
    assert_eq!(epoch(&desk), 3, "setting a namespace does not bring back what was purged");
    // Removed and made anew: the next purge is above every epoch there ever was.
    desk.state.height = 50;
    desk.operator(Command::RemoveNamespace { prefix: b"s:".to_vec() }).unwrap();
    desk.operator(Command::SetNamespace { namespace: homed }).unwrap();
    assert_eq!(epoch(&desk), 0);
    desk.operator(purge).unwrap();
    assert_eq!(epoch(&desk), 50);
}

#[test]
fn counts_and_sizes_have_bounds() {
    let mut desk = Desk::new();
    let set = |name: String, bytes: usize| Command::SetTenant { name, policy: Some(vec![0; bytes]) };
    assert!(senseless(desk.operator(set("fat".to_string(), limits::POLICY_BYTES_MAX + 1))));
    assert!(senseless(desk.operator(set("x".repeat(limits::NAME_BYTES_MAX + 1), 1))));
    for index in 0..limits::TENANTS_MAX {
        desk.operator(set(format!("t{index}"), 1)).unwrap();
    }
    assert!(senseless(desk.operator(set("one more".to_string(), 1))));
    assert_eq!(desk.operator(set("t0".to_string(), 2)), Ok(()), "one that is there may change");
    assert_eq!(desk.operator(Command::SetTenant { name: "t0".to_string(), policy: None }), Ok(()));
    assert_eq!(desk.operator(set("one more".to_string(), 1)), Ok(()));
}

#[test]
fn a_height_is_executed_whole_or_not_at_all_and_names_the_culprit() {
    let desk = Desk::new();
    let set = |number, policy| {
        let command = Command::SetTenant { name: "a".to_string(), policy: Some(vec![policy]) };
        Signed::new(desk.state.network, Author::Operator, number, command, &operator_key())
    };
    let next = desk.state.execute_height(1, SiteId(2), &[set(1, 1), set(2, 2)]).unwrap();
    assert_eq!((next.height, next.primary, next.tenants["a"].clone()), (1, SiteId(2), vec![2]));
    let refused = desk.state.execute_height(1, SiteId(2), &[set(2, 2), set(1, 1)]);
    assert_eq!(refused, Err((1, Refused::Number { number: 1, last: 2 })));
}

#[test]
fn a_state_survives_its_bytes_and_only_its_own() {
    let mut desk = Desk::new();
    desk.operator(Command::SetTenant { name: "a".to_string(), policy: Some(vec![1]) }).unwrap();
    let bytes = desk.state.encode();
    assert_eq!(State::decode(&bytes), Some(desk.state.clone()));
    assert_eq!(State::decode(&[&bytes[..], &[0]].concat()), None);
    assert_eq!(State::decode(&bytes[..bytes.len() - 1]), None);
    let other = Desk::new().state;
    assert_ne!(other.digest(), desk.state.digest());
}

#[test]
fn the_operators_key_is_handed_over_by_both_keys_and_the_old_one_is_worth_nothing() {
    let mut desk = Desk::new();
    let public = |key: &keys::SecretKey| keys::hexadecimal(key.public_key().as_bytes());
    let next = keys::SecretKey::from([201; 32]);
    let handover = |desk: &Desk, to: &keys::SecretKey, by: &keys::SecretKey| Command::SetOperator {
        key: public(to),
        proof: by.sign(&Command::handover(&desk.state.operator, &public(to))).to_bytes().to_vec(),
    };
    let refused = Err(Refused::Signature);
    let command = handover(&desk, &next, &next);
    assert_eq!(desk.with_key(Author::Operator, command.clone(), &next), refused, "who has not got it cannot take it");
    assert_eq!(desk.node(1, command.clone()), Err(Refused::Right));
    let command = handover(&desk, &next, &operator_key());
    assert_eq!(desk.operator(command), refused, "the next key's holder has not agreed");
    assert_eq!(desk.operator(Command::SetOperator { key: "no key".into(), proof: vec![] }), refused);
    let command = handover(&desk, &node_key(2), &node_key(2));
    assert!(senseless(desk.operator(command)), "a node is no operator");

    let command = handover(&desk, &next, &next);
    assert_eq!(desk.operator(command.clone()), Ok(()));
    assert_eq!(desk.state.operator, public(&next));
    let configure = || Command::SetConfig { version: 9, digest: [9; 32] };
    assert_eq!(desk.operator(configure()), refused, "the old one is worth nothing");
    assert_eq!(desk.with_key(Author::Operator, configure(), &next), Ok(()));
    // Handed back, and the proof of the first time taken out again.
    let back = handover(&desk, &operator_key(), &operator_key());
    assert_eq!(desk.with_key(Author::Operator, back, &next), Ok(()));
    assert_eq!(desk.operator(command), Ok(()), "both keys have signed just that");
}

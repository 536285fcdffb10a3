//! Tests of `profile`: what auto chooses, what validation refuses, and that the profiles shipped hold.

use std::path::{Path, PathBuf};

use super::*;
use crate::host::topology::{Core, Node, parse_cpu_list};

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn recorded(name: &str) -> Topology {
    Topology::detect(&shipped("tests/fixtures/host").join(name)).unwrap()
}

/// A bare-metal machine with one thread a core, its cores dealt to `nodes` in order.
fn machine(cores: usize, nodes: usize) -> Topology {
    let node_of = |id: usize| id * nodes / cores;
    let core = |id| Core { id, package: node_of(id), core_id: id, node: node_of(id), ..Core::default() };
    let node = |id| Node {
        id,
        cores: (0..cores).filter(|&core| node_of(core) == id).collect(),
        memory_bytes: Some((768 << 30) / nodes as u64),
        ..Node::default()
    };
    Topology {
        cores: (0..cores).map(core).collect(),
        nodes: (0..nodes).map(node).collect(),
        memory_total_bytes: Some(768 << 30),
        memory_available_bytes: Some(700 << 30),
        transparent: Some(TransparentMode::Madvise),
        ..Topology::default()
    }
}

fn auto(machine: &Topology) -> Profile {
    let profile = Profile::auto(machine, &machine.core_ids());
    profile.validate(machine).unwrap();
    profile
}

#[test]
fn two_sockets_get_one_shard_per_physical_core_but_the_first() {
    let profile = auto(&recorded("two-socket-smt"));
    assert_eq!(profile.cores.data, (1..16).collect::<Vec<_>>());
    assert_eq!(profile.data_cores(), profile.cores.data);
    assert_eq!(profile.cores.housekeeping, [0]);
    assert_eq!(profile.network.poll, Poll::Spin);
    // 1 GiB over 15 shards: 35 pages each, 245 and 280; node 1 has 256 free.
    assert_eq!(profile.memory.total_bytes, 1 << 30);
    assert_eq!(profile.memory.pages, PageWish::Transparent);
}

#[test]
fn huge_pages_are_taken_where_every_node_has_its_share() {
    let mut machine = recorded("two-socket-smt");
    let share = auto(&machine).node_shares(&machine)[1];
    assert_eq!((share.node, share.shards, share.huge_pages()), (1, 8, 280));
    machine.nodes[1].huge_pages_free = 280;
    assert_eq!(auto(&machine).memory.pages, PageWish::Huge2M);
    machine.nodes[1].huge_pages_free = 279;
    assert_eq!(auto(&machine).memory.pages, PageWish::Transparent);
    machine.transparent = Some(TransparentMode::Never);
    assert_eq!(auto(&machine).memory.pages, PageWish::Small);
}

#[test]
fn small_vm_gets_one_shard_and_leaves_a_core_to_clients() {
    let profile = auto(&recorded("vm-2core"));
    assert_eq!(profile.cores.data, [0]);
    assert_eq!(profile.cores.housekeeping, Vec::<usize>::new());
    assert_eq!(profile.network.poll, Poll::Park);
    assert_eq!(profile.memory.total_bytes, 1 << 30); // half of the control group's 2 GiB
}

#[test]
fn auto_holds_on_machines_of_every_size() {
    for cores in [1, 2, 3, 4, 5, 64, 256, 512] {
        for nodes in [1, 2] {
            if nodes > cores {
                continue;
            }
            for available_bytes in [1 << 20, 100 << 20, 8 << 30, 700 << 30] {
                let mut machine = machine(cores, nodes);
                machine.memory_available_bytes = Some(available_bytes);
                let profile = auto(&machine);
                let parks = profile.network.poll == Poll::Park;
                assert_eq!(parks, cores < 4, "{cores} cores");
                assert_eq!(profile.cores.housekeeping.len(), usize::from(cores >= 4));
            }
        }
    }
}

#[test]
fn auto_stays_within_the_allowed_cores_and_the_quota() {
    let mut machine = machine(16, 2);
    let profile = Profile::auto(&machine, &[5, 6, 7, 8, 9]);
    assert_eq!((&profile.cores.housekeeping[..], &profile.cores.data[..]), (&[5][..], &[6, 7, 8, 9][..]));
    assert_eq!(Profile::auto(&machine, &[5, 6]).cores.data, [5]);
    machine.control_group.cpu_cores = Some(2.5);
    let profile = auto(&machine);
    assert_eq!(profile.cores.data, [1, 2]);
    assert_eq!(profile.network.poll, Poll::Park);
    machine.control_group.cpu_cores = Some(0.2);
    assert_eq!(auto(&machine).cores.data, [1]);
}

#[test]
fn auto_takes_half_of_a_small_control_group() {
    let mut machine = machine(4, 1);
    machine.control_group.memory_bytes = Some(256 << 20);
    assert_eq!(auto(&machine).memory.total_bytes, 128 << 20);
}

#[test]
fn core_that_is_not_there_is_refused() {
    let machine = machine(4, 1);
    let mut profile = auto(&machine);
    profile.cores.data = vec![2, 3, 4, 5];
    let error = profile.validate(&machine).unwrap_err();
    assert_eq!(error.key.as_deref(), Some("cores.data"));
    assert!(error.message.contains("core 4-5") && error.message.contains("0-3"), "{error}");
    profile.cores.data = vec![2];
    profile.cores.housekeeping = vec![9];
    assert_eq!(profile.validate(&machine).unwrap_err().key.as_deref(), Some("cores.housekeeping"));
}

#[test]
fn core_with_two_jobs_is_refused() {
    let machine = machine(4, 1);
    let mut profile = auto(&machine);
    profile.cores.housekeeping = vec![0, 1];
    let error = profile.validate(&machine).unwrap_err();
    assert!(error.to_string().starts_with("cores.housekeeping: core 1 is in cores.data too"), "{error}");
}

#[test]
fn no_core_and_too_many_cores_are_refused() {
    let mut profile = auto(&machine(4, 1));
    profile.cores.data = vec![];
    assert!(profile.validate_alone().unwrap_err().message.contains("at least one"));
    profile.cores.data = (1..=SHARD_COUNT_MAX + 1).collect();
    assert!(profile.validate_alone().unwrap_err().message.contains("the most"));
}

#[test]
fn memory_the_machine_lacks_is_refused() {
    let mut machine = machine(4, 1);
    let mut profile = auto(&machine);
    profile.memory.total_bytes = (768 << 30) + 1;
    assert!(profile.validate(&machine).unwrap_err().message.contains("this machine has"));
    profile.memory.total_bytes = 2 << 30;
    machine.control_group.memory_bytes = Some(1 << 30);
    assert!(profile.validate(&machine).unwrap_err().message.contains("control group"));
    profile.memory.total_bytes = 3 * SHARD_MEMORY_BYTES_MIN - 1;
    let error = profile.validate(&machine).unwrap_err();
    assert_eq!(error.key.as_deref(), Some("memory.total"));
    assert!(error.message.contains("too little for 3 shards"), "{error}");
}

#[test]
fn profiles_shipped_hold_on_their_machines() {
    let vm = Profile::read(&shipped("hw-profiles/generic-vm.toml")).unwrap();
    vm.validate(&recorded("vm-2core")).unwrap();

    let epyc = Profile::read(&shipped("hw-profiles/epyc-9004-two-socket.toml")).unwrap();
    let machine = machine(128, 2);
    epyc.validate(&machine).unwrap();
    assert_eq!(epyc.cores.data, parse_cpu_list("1-63,65-127").unwrap());
    let shares = epyc.node_shares(&machine);
    assert!(shares.iter().all(|share| share.shards == 63 && share.bytes == 252 << 30), "{shares:?}");
    assert!(epyc.validate(&recorded("vm-2core")).is_err());
}

#[test]
fn every_profile_shipped_explains_every_key() {
    let mut count = 0;
    for entry in std::fs::read_dir(shipped("hw-profiles")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let keys: Vec<usize> =
            (0..lines.len()).filter(|&i| lines[i].contains(" = ") && !lines[i].starts_with('#')).collect();
        assert_eq!(keys.len(), 10, "{} leaves keys to their defaults", path.display());
        for i in keys {
            assert!(i > 0 && lines[i - 1].starts_with('#'), "{}:{}: no comment", path.display(), i + 1);
        }
    }
    assert!(count >= 2);
}

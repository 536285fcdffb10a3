//! Tests of `profile`: what auto chooses, what validation refuses, and that the profiles shipped hold.

use std::path::{Path, PathBuf};

use super::*;
use crate::host::topology::{Core, Node};

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
    placed(machine, &profile);
    profile
}

fn placed(machine: &Topology, profile: &Profile) -> Placement {
    place(machine, &machine.core_ids(), profile).unwrap()
}

fn data(profile: &Profile) -> &[usize] {
    let CoreWish::List(data) = &profile.cores.data else { panic!("auto names its cores") };
    data
}

fn total_bytes(profile: &Profile) -> u64 {
    let Some(MemoryWish::Bytes(bytes)) = profile.memory.total else { panic!("auto names an amount") };
    bytes
}

fn refusal(machine: &Topology, profile: &Profile) -> ProfileError {
    profile.validate(machine, &machine.core_ids()).unwrap_err()
}

#[test]
fn two_sockets_get_one_shard_per_physical_core_but_the_first() {
    let profile = auto(&recorded("two-socket-smt"));
    assert_eq!(data(&profile), (1..16).collect::<Vec<_>>());
    assert_eq!(profile.cores.housekeeping, CoreWish::List(vec![0]));
    assert_eq!(profile.network.poll, Poll::Spin);
    // 1 GiB over 15 shards: 35 pages each, 245 and 280; node 1 has 256 free.
    assert_eq!(total_bytes(&profile), 1 << 30);
    assert_eq!(profile.memory.pages, PageWish::Transparent);
}

#[test]
fn huge_pages_are_taken_where_every_node_has_its_share() {
    let mut machine = recorded("two-socket-smt");
    let share = placed(&machine, &auto(&machine)).node_shares()[1];
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
    assert_eq!(data(&profile), [0]);
    assert!(profile.cores.housekeeping.is_none());
    assert_eq!(profile.network.poll, Poll::Park);
    assert_eq!(total_bytes(&profile), 1 << 30); // half of the control group's 2 GiB
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
                assert_eq!(profile.cores.housekeeping.is_none(), cores < 4);
            }
        }
    }
}

#[test]
fn auto_stays_within_the_allowed_cores_and_the_quota() {
    let mut machine = machine(16, 2);
    let profile = Profile::auto(&machine, &[5, 6, 7, 8, 9]);
    assert_eq!((&profile.cores.housekeeping, data(&profile)), (&CoreWish::List(vec![5]), &[6, 7, 8, 9][..]));
    assert_eq!(data(&Profile::auto(&machine, &[5, 6])), [5]);
    machine.control_group.cpu_cores = Some(2.5);
    let profile = auto(&machine);
    assert_eq!(data(&profile), [1, 2]);
    assert_eq!(profile.network.poll, Poll::Park);
    machine.control_group.cpu_cores = Some(0.2);
    assert_eq!(data(&auto(&machine)), [1]);
}

#[test]
fn auto_takes_half_of_a_small_control_group() {
    let mut machine = machine(4, 1);
    machine.control_group.memory_bytes = Some(256 << 20);
    assert_eq!(total_bytes(&auto(&machine)), 128 << 20);
}

#[test]
fn core_that_is_not_there_is_refused() {
    let machine = machine(4, 1);
    let mut profile = auto(&machine);
    profile.cores.data = CoreWish::List(vec![2, 3, 4, 5]);
    let error = refusal(&machine, &profile);
    assert_eq!(error.key.as_deref(), Some("cores.data"));
    assert!(error.message.contains("core 4-5") && error.message.contains("0-3"), "{error}");
    profile.cores.data = CoreWish::List(vec![2]);
    profile.cores.housekeeping = CoreWish::List(vec![9]);
    assert_eq!(refusal(&machine, &profile).key.as_deref(), Some("cores.housekeeping"));
}

#[test]
fn core_with_two_jobs_is_refused() {
    let machine = machine(4, 1);
    let mut profile = auto(&machine);
    profile.cores.housekeeping = CoreWish::List(vec![0, 1]);
    let error = refusal(&machine, &profile);
    assert!(error.to_string().starts_with("cores.housekeeping: core 1 is in cores.data too"), "{error}");
}

#[test]
fn no_core_and_too_many_cores_are_refused() {
    let mut profile = auto(&machine(4, 1));
    profile.cores.data = CoreWish::List(vec![]);
    assert!(profile.validate_alone().unwrap_err().message.contains("at least one"));
    profile.cores.data = CoreWish::List((1..=SHARD_COUNT_MAX + 1).collect());
    assert!(profile.validate_alone().unwrap_err().message.contains("the most"));
}

#[test]
fn memory_the_machine_lacks_is_refused() {
    let mut machine = machine(4, 1);
    let mut profile = auto(&machine);
    let with = |bytes| Some(MemoryWish::Bytes(bytes));
    profile.memory.total = with((768 << 30) + 1);
    assert!(refusal(&machine, &profile).message.contains("this machine has"));
    profile.memory.total = with(2 << 30);
    machine.control_group.memory_bytes = Some(1 << 30);
    assert!(refusal(&machine, &profile).message.contains("control group"));
    profile.memory.total = with(3 * SHARD_MEMORY_BYTES_MIN - 1);
    let error = refusal(&machine, &profile);
    assert_eq!(error.key.as_deref(), Some("memory.total"));
    assert!(error.message.contains("too little for 3 shards"), "{error}");
    profile.memory.total = Some(MemoryWish::Percent(50));
    assert_eq!(placed(&machine, &profile).memory_bytes, 512 << 20, "of what the control group allows");
    profile.memory = Memory { total: None, per_shard_bytes: Some(1 << 30), ..profile.memory };
    let error = refusal(&machine, &profile);
    assert!(error.to_string().starts_with("memory.per_shard: 3.0 GiB is more than the 1.0 GiB"), "{error}");
    profile.memory.per_shard_bytes = Some(1 << 20);
    assert!(refusal(&machine, &profile).message.contains("too little for a shard"));
}

#[test]
fn parameter_that_is_a_path_is_refused() {
    let mut profile = auto(&machine(4, 1));
    for name in ["../../etc/passwd", "vm..x", ".vm", "vm.", "a b", "", "net/../x"] {
        profile.sysctl = [(name.to_owned(), "1".to_owned())].into();
        assert!(profile.validate_alone().unwrap_err().message.contains("sysctl -a"), "{name}");
    }
    profile.sysctl = [("net.ipv4.tcp_max_syn_backlog".to_owned(), "1".to_owned())].into();
    profile.validate_alone().unwrap();
}

#[test]
fn another_kind_of_machine_is_told_apart() {
    let vm = recorded("vm-2core");
    let matches = Match {
        architecture: Some("aarch64".to_owned()),
        processor: Some("EPYC|Opteron".to_owned()),
        sockets: Some(2),
        virtualised: Some(false),
        limited: Some(false),
    };
    let differences = matches.differences(&vm);
    assert_eq!(differences.len(), 5, "{differences:?}");
    assert_eq!(differences[2], "the number of sockets is 1, the profile is for 2");
    let matches = Match {
        architecture: Some("x86_64".to_owned()),
        processor: Some("EPYC|Xeon".to_owned()),
        sockets: Some(1),
        virtualised: Some(true),
        limited: Some(true),
    };
    assert_eq!(matches.differences(&vm), Vec::<String>::new());
    assert_eq!(Match::default().differences(&vm), Vec::<String>::new());
}

#[test]
fn shipped_profiles_explain_every_key_they_have() {
    for (name, text) in SHIPPED {
        let profile = Profile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(profile.machine.name, name);
        assert!(!profile.machine.description.is_empty(), "{name}");
        let lines: Vec<&str> = text.lines().collect();
        let keys = (0..lines.len()).filter(|&i| lines[i].contains(" = ") && !lines[i].starts_with('#'));
        for i in keys {
            let is_explained = lines[..i].iter().rev().find(|line| !line.contains(" = ") || line.starts_with('#'));
            let is_explained = is_explained.is_some_and(|line| line.starts_with('#'));
            assert!(is_explained, "{name}:{}: no comment above '{}'", i + 1, lines[i]);
        }
    }
    let folder = std::fs::read_dir(shipped("hw-profiles")).unwrap();
    let files =
        folder.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "toml"));
    assert_eq!(files.count(), SHIPPED.len(), "every file in hw-profiles/ is known to 'host detect'");
}

//! Tests of `placement`: ten thousand random machines against the rules, and what is refused with which words.

use std::collections::BTreeMap;

use super::*;
use crate::base::prng::Prng;
use crate::host::memory::PageWish;
use crate::host::profile::{Cores, Memory, NicWish};
use crate::host::topology::{ControlGroup, Irq, RxQueue, TxQueue};

const MACHINES: u64 = 10_000;

/// A machine nobody has built, but somebody could.
fn random_machine(prng: &mut Prng) -> Topology {
    let sockets = 1 + prng.below(4) as usize;
    let nodes_a_socket = 1 + prng.below(4) as usize;
    let cores_a_node = 1 + prng.below(9) as usize;
    let threads = [1, 1, 2, 2, 2, 4][prng.below(6) as usize];
    let is_hybrid = prng.below(8) == 0;
    let physical = sockets * nodes_a_socket * cores_a_node;
    // Either the threads of a core follow one another, or all second threads come after all first ones.
    let is_adjacent = prng.below(2) == 0;
    let id_of =
        |core: usize, thread: usize| if is_adjacent { core * threads + thread } else { thread * physical + core };
    let mut cores: Vec<Core> = Vec::new();
    for core in 0..physical {
        // On a hybrid machine the second half is small cores, which have one thread each.
        let is_small = is_hybrid && core >= physical.div_ceil(2);
        let threads_here = if is_small { 1 } else { threads };
        for thread in 0..threads_here {
            cores.push(Core {
                id: id_of(core, thread),
                package: core / (nodes_a_socket * cores_a_node),
                core_id: core,
                node: core / cores_a_node,
                siblings: (0..threads_here).filter(|&other| other != thread).map(|other| id_of(core, other)).collect(),
                kind: match (is_hybrid, is_small) {
                    (false, _) => CoreKind::Alike,
                    (true, false) => CoreKind::Performance,
                    (true, true) => CoreKind::Efficient,
                },
                ..Core::default()
            });
        }
    }
    // Some are switched off, but one stays.
    if prng.below(3) == 0 {
        let kept = prng.below(cores.len() as u64) as usize;
        let mut number = 0;
        cores.retain(|_| {
            number += 1;
            number - 1 == kept || prng.below(5) > 0
        });
        let online: Vec<usize> = cores.iter().map(|core| core.id).collect();
        cores.iter_mut().for_each(|core| core.siblings.retain(|sibling| online.contains(sibling)));
    }
    cores.iter_mut().for_each(|core| core.siblings.sort_unstable());
    cores.sort_by_key(|core| core.id);

    let node_count = sockets * nodes_a_socket + usize::from(prng.below(10) == 0); // the last one has memory only
    let node_bytes = (1 + prng.below(512)) << 30;
    let node = |id: usize| Node {
        id,
        cores: cores.iter().filter(|core| core.node == id).map(|core| core.id).collect(),
        memory_bytes: Some(node_bytes),
        ..Node::default()
    };
    let nodes: Vec<Node> = (0..node_count).map(node).collect();
    let control_group = ControlGroup {
        cpu_cores: (prng.below(6) == 0).then(|| 0.5 + prng.below(8) as f64),
        memory_bytes: (prng.below(6) == 0).then(|| (1 + prng.below(8)) << 30),
        ..ControlGroup::default()
    };
    let online: Vec<usize> = cores.iter().map(|core| core.id).collect();
    let nics = (0..prng.below(4)).map(|number| random_nic(prng, number, node_count, &online)).collect();
    Topology {
        cores,
        nodes,
        nics,
        control_group,
        memory_total_bytes: Some(node_bytes * node_count as u64),
        memory_available_bytes: Some(node_bytes * node_count as u64),
        ..Topology::default()
    }
}

fn random_nic(prng: &mut Prng, number: u64, node_count: usize, online: &[usize]) -> Nic {
    let (rx, tx) = (1 + prng.below(16) as usize, 1 + prng.below(16) as usize);
    let irq = |queue: usize| Irq {
        number: 100 * (1 + number as usize) + queue,
        affinity: online.to_vec(),
        queue: (queue < rx).then_some(queue), // the last is for the card itself
        ..Irq::default()
    };
    Nic {
        name: format!("eth{number}"),
        node: (prng.below(3) > 0).then(|| prng.below(node_count as u64) as usize),
        up: prng.below(5) > 0,
        physical: prng.below(5) > 0,
        rx_queues: (0..rx).map(|index| RxQueue { index, ..RxQueue::default() }).collect(),
        tx_queues: (0..tx).map(|index| TxQueue { index, ..TxQueue::default() }).collect(),
        irqs: (0..=rx).map(irq).collect(),
        ..Nic::default()
    }
}

/// Some of the numbers around those that are online, most of them existing.
fn random_list(prng: &mut Prng, machine: &Topology, count_max: u64) -> CoreWish {
    let ids = machine.core_ids();
    let mut list: Vec<usize> =
        (0..prng.below(count_max + 1)).map(|_| ids[prng.below(ids.len() as u64) as usize]).collect();
    if prng.below(20) == 0 {
        list.push(ids[ids.len() - 1] + 1 + prng.below(3) as usize);
    }
    list.sort_unstable();
    list.dedup();
    CoreWish::List(list)
}

fn random_wish(prng: &mut Prng, machine: &Topology) -> CoreWish {
    match prng.below(4) {
        0 => random_list(prng, machine, 3),
        1 => CoreWish::default(),
        2 => CoreWish::PerSocket(1 + prng.below(3) as usize),
        _ => CoreWish::PerNode(1 + prng.below(3) as usize),
    }
}

fn random_profile(prng: &mut Prng, machine: &Topology) -> Profile {
    let data = match prng.below(5) {
        0 => random_list(prng, machine, 12),
        1 if prng.below(2) == 0 => CoreWish::PerSocket(1 + prng.below(12) as usize),
        1 => CoreWish::PerNode(1 + prng.below(6) as usize),
        _ => CoreWish::Rest,
    };
    let cores = Cores {
        data,
        housekeeping: random_wish(prng, machine),
        irq: random_wish(prng, machine),
        siblings: prng.below(5) == 0,
    };
    let (total, per_shard_bytes) = match prng.below(3) {
        0 => (Some(MemoryWish::Percent(1 + prng.below(90) as u8)), None),
        1 => (Some(MemoryWish::Bytes((1 + prng.below(64)) << 28)), None),
        _ => (None, Some((1 + prng.below(16)) << 26)),
    };
    let base = rules();
    Profile {
        cores,
        memory: Memory {
            total,
            per_shard_bytes,
            bind: prng.below(5) > 0,
            remote: prng.below(5) == 0,
            ..base.memory.clone()
        },
        nic: NicWish {
            interfaces: ["", "eth*", "eth0,eth2", "wlan0"][prng.below(4) as usize].to_owned(),
            queue_cores: match (prng.below(6), random_list(prng, machine, 4)) {
                (0, CoreWish::List(list)) if !list.is_empty() => QueueCores::List(list),
                _ => QueueCores::Auto,
            },
            ..NicWish::default()
        },
        ..base
    }
}

/// A profile that leaves everything to the rules.
fn rules() -> Profile {
    Profile::parse(
        "[machine]\nname = \"x\"\n[cores]\ndata = \"rest\"\nhousekeeping = \"1/node\"\nirq = \"1/node\"\n\
         [memory]\ntotal = \"50%\"\n",
    )
    .unwrap()
}

fn assert_rules_hold(machine: &Topology, allowed: &[usize], profile: &Profile, placed: &Placement) {
    let data = placed.data_cores();
    // 1: every core online once, and nothing else.
    let mut jobs: BTreeMap<usize, &str> = BTreeMap::new();
    let mut give = |cores: &[usize], job: &'static str| {
        for core in cores {
            let before = jobs.insert(*core, job);
            let both_jobs = before == Some("housekeeping") && job == "irq";
            assert!(before.is_none() || both_jobs, "core {core}: {before:?} and {job}");
        }
    };
    give(&data, "data");
    give(&placed.housekeeping, "housekeeping");
    give(&placed.irq, "irq");
    give(&placed.idle, "idle");
    give(&placed.system, "system");
    assert_eq!(jobs.keys().copied().collect::<Vec<_>>(), machine.core_ids(), "every core has one job");
    assert!(!data.is_empty() && data.len() <= SHARD_COUNT_MAX);
    for core in data.iter().chain(&placed.housekeeping) {
        assert!(allowed.contains(core), "core {core} is not allowed");
    }
    // 2: no shard beside another unless told.
    if !profile.cores.siblings {
        for core in &data {
            let siblings = &machine.core(*core).unwrap().siblings;
            assert!(!siblings.iter().any(|sibling| data.contains(sibling)), "core {core} shares with a shard");
        }
    }
    // Rules choose untouched physical cores only, so that nothing else shares with a shard either.
    let by_rule = |wish: &CoreWish| !matches!(wish, CoreWish::List(_));
    let cores = &profile.cores;
    if by_rule(&cores.data) && by_rule(&cores.housekeeping) && by_rule(&cores.irq) && !cores.siblings {
        let shares = |core: &usize| {
            let siblings = &machine.core(*core).unwrap().siblings;
            siblings.iter().any(|sibling| data.contains(sibling))
        };
        assert!(!placed.housekeeping.iter().any(shares), "the house shares with a shard");
        // Interrupts do only where every core that is left would.
        let others = machine.core_ids();
        let all_share = others.iter().filter(|core| !data.contains(core)).all(shares);
        assert!(all_share || !placed.irq.iter().any(shares), "interrupts share with a shard");
    }
    // 3 and 5: interrupts.
    for nic in &placed.nics {
        let card = machine.nics.iter().find(|card| card.name == nic.name).unwrap();
        assert!(profile.nic.means(&nic.name, card.physical && card.up));
        assert_eq!(nic.queues.len(), card.rx_queues.len().max(card.tx_queues.len()));
        let mut dealt: Vec<usize> = nic.queues.iter().flat_map(|queue| queue.irqs.clone()).collect();
        dealt.extend(nic.others.iter().map(|(irq, _)| irq));
        dealt.sort_unstable();
        let no_core = placed.irq.is_empty() && profile.nic.queue_cores == QueueCores::Auto;
        if !no_core {
            assert_eq!(dealt, card.irqs.iter().map(|irq| irq.number).collect::<Vec<_>>(), "each interrupt once");
        }
        let irq_cores: Vec<usize> = nic.queues.iter().filter_map(|queue| queue.irq_core).collect();
        assert_eq!(irq_cores.is_empty(), no_core);
        for core in irq_cores.iter().chain(nic.others.iter().map(|(_, core)| core)) {
            assert!(!data.contains(core), "an interrupt on data core {core}");
            assert!(machine.core(*core).is_some());
            let node = machine.core(*core).unwrap().node;
            let is_local_possible = placed.irq.iter().any(|irq| Some(machine.core(*irq).unwrap().node) == nic.node);
            if profile.nic.queue_cores == QueueCores::Auto && is_local_possible {
                assert_eq!(Some(node), nic.node, "an interrupt on another node than the card's");
            }
        }
        // Every shard sends on one queue.
        let mut senders: Vec<usize> = nic.queues.iter().flat_map(|queue| queue.shards.clone()).collect();
        senders.sort_unstable();
        assert_eq!(senders, (0..placed.shards.len()).collect::<Vec<_>>());
        for queue in &nic.queues {
            assert!(queue.shards.iter().all(|&shard| queue.xps_cores.contains(&data[shard])));
        }
    }
    // 4: memory local, and enough of it.
    assert!(placed.memory_bytes <= machine.memory_total_bytes.unwrap());
    assert!(machine.control_group.memory_bytes.is_none_or(|bytes| placed.memory_bytes <= bytes));
    let sum: u64 = placed.shards.iter().map(|shard| shard.memory_bytes).sum();
    assert!(sum <= placed.memory_bytes && placed.memory_bytes - sum < placed.shards.len() as u64);
    for shard in &placed.shards {
        assert_eq!(shard.node, machine.core(shard.core).unwrap().node, "its memory is where its core is");
        assert!(shard.memory_bytes >= SHARD_MEMORY_BYTES_MIN);
    }
    if profile.memory.bind && !profile.memory.remote {
        for share in placed.node_shares() {
            let node = machine.nodes.iter().find(|node| node.id == share.node).unwrap();
            assert!(share.bytes <= node.memory_bytes.unwrap() || machine.nodes.len() == 1, "{share:?}");
        }
    }
}

#[test]
fn rules_hold_on_ten_thousand_random_machines() {
    let (mut placed_count, mut refused) = (0, BTreeMap::<String, u64>::new());
    for seed in 0..MACHINES {
        let mut prng = Prng::new(seed);
        let machine = random_machine(&mut prng);
        let profile = random_profile(&mut prng, &machine);
        let mut allowed = machine.core_ids();
        if prng.below(4) == 0 {
            let kept = prng.below(allowed.len() as u64) as usize;
            let kept = allowed[kept];
            allowed.retain(|&core| core == kept || prng.below(3) > 0);
        }
        let outcome = std::panic::catch_unwind(|| {
            let placed = place(&machine, &allowed, &profile);
            if let Ok(placed) = &placed {
                assert_rules_hold(&machine, &allowed, &profile, placed);
                assert_eq!(place(&machine, &allowed, &profile).as_ref(), Ok(placed), "a pure function");
            }
            placed
        });
        match outcome.unwrap_or_else(|_| panic!("seed {seed}: {profile:#?}")) {
            Ok(_) => placed_count += 1,
            Err(error) => {
                let key = error.key.expect("a refusal names its key");
                assert!(error.message.contains(':'), "seed {seed}: no remedy in '{}'", error.message);
                *refused.entry(key).or_default() += 1;
            }
        }
    }
    eprintln!("{placed_count} placed, refused by key: {refused:?}");
    assert!(placed_count > MACHINES / 2, "{placed_count} placed");
    for key in ["cores.data", "cores.housekeeping", "cores.irq", "memory.total", "memory.per_shard", "nic.queue_cores"]
    {
        assert!(refused.contains_key(key), "no machine tested what {key} refuses: {refused:?}");
    }
}

#[test]
fn rules_alone_are_never_refused() {
    for seed in 0..MACHINES {
        let mut prng = Prng::new(seed);
        let machine = random_machine(&mut prng);
        let profile = rules();
        let placed = place(&machine, &[], &profile).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_rules_hold(&machine, &machine.core_ids(), &profile, &placed);
        let full_node = machine.nodes.iter().find(|node| machine.one_per_physical_core(&node.cores).len() > 2);
        if machine.control_group.cpu_cores.is_none() && machine.cores.iter().all(|core| core.kind == CoreKind::Alike) {
            // Nothing is wasted: three physical cores of a node are one for interrupts, one for the house, one shard.
            if let Some(node) = full_node {
                let physical = machine.one_per_physical_core(&node.cores).len();
                let shards = placed.shards.iter().filter(|shard| shard.node == node.id).count();
                assert!(shards == physical - 2 || placed.shards.len() == SHARD_COUNT_MAX, "seed {seed}");
            }
        }
    }
}

/// One node, cores 0 to 3 with second threads 4 to 7.
fn small_machine() -> Topology {
    let core = |id: usize| Core { id, core_id: id % 4, siblings: vec![(id + 4) % 8], ..Core::default() };
    Topology {
        cores: (0..8).map(core).collect(),
        nodes: vec![Node { id: 0, cores: (0..8).collect(), memory_bytes: Some(8 << 30), ..Node::default() }],
        memory_total_bytes: Some(8 << 30),
        ..Topology::default()
    }
}

fn with(data: CoreWish, housekeeping: CoreWish, irq: CoreWish) -> Profile {
    let profile = rules();
    Profile { cores: Cores { data, housekeeping, irq, siblings: false }, ..profile }
}

fn refusal(machine: &Topology, profile: &Profile) -> String {
    place(machine, &[], profile).unwrap_err().to_string()
}

#[test]
fn rest_is_one_thread_of_each_core_that_is_left() {
    let placed = place(&small_machine(), &[], &rules()).unwrap();
    assert_eq!((&placed.irq[..], &placed.housekeeping[..]), (&[0][..], &[1][..]));
    assert_eq!(placed.data_cores(), [2, 3]);
    assert_eq!((&placed.idle[..], &placed.system[..]), (&[6, 7][..], &[4, 5][..]));
    assert_eq!(placed.memory_bytes, 4 << 30);
    let both = Profile { cores: Cores { siblings: true, ..rules().cores }, ..rules() };
    assert_eq!(place(&small_machine(), &[], &both).unwrap().data_cores(), [2, 3, 4, 5, 6, 7]);
}

#[test]
fn hybrid_machine_keeps_house_on_small_cores_and_runs_shards_on_large_ones() {
    let mut machine = small_machine();
    for core in &mut machine.cores {
        core.siblings.clear();
        core.kind = if core.id < 4 { CoreKind::Performance } else { CoreKind::Efficient };
    }
    let placed = place(&machine, &[], &rules()).unwrap();
    assert_eq!((placed.irq, placed.housekeeping), (vec![4], vec![5]));
    assert_eq!(placed.shards.iter().map(|shard| shard.core).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(placed.system, [6, 7]);
}

#[test]
fn interrupts_go_where_no_shard_is_when_nobody_says_where() {
    let none = CoreWish::default;
    let placed = place(&small_machine(), &[], &with(CoreWish::List(vec![1, 2]), none(), none())).unwrap();
    assert_eq!(placed.irq, [0, 3, 4, 7], "neither the shards' cores nor their siblings");
    let placed = place(&small_machine(), &[], &with(CoreWish::List(vec![0, 1, 2, 3]), none(), none())).unwrap();
    assert_eq!(placed.irq, [4, 5, 6, 7], "siblings where there is nothing else");
}

#[test]
fn wrong_cores_are_refused_with_a_remedy() {
    let machine = small_machine();
    let list = |cores: &[usize]| CoreWish::List(cores.to_vec());
    let none = CoreWish::default;
    let refused = refusal(&machine, &with(list(&[2, 6]), none(), none()));
    assert!(
        refused.starts_with("cores.data: cores 2 and 6 are two threads") && refused.contains("take 6 out"),
        "{refused}"
    );
    let refused = refusal(&machine, &with(list(&[2, 9]), none(), none()));
    assert!(refused.starts_with("cores.data: core 9 is not online, this machine has 0-7"), "{refused}");
    let refused = refusal(&machine, &with(list(&[2]), none(), list(&[2])));
    assert!(refused.starts_with("cores.irq: core 2 is in cores.data too"), "{refused}");
    let error = place(&machine, &[0, 1], &with(list(&[2]), none(), none())).unwrap_err();
    assert!(error.message.contains("core 2 is not among those this process may use (0-1)"), "{error}");
    let refused = refusal(&machine, &with(CoreWish::Rest, CoreWish::Rest, none()));
    assert!(refused.starts_with("cores.housekeeping: \"rest\" is for cores.data"), "{refused}");
}

#[test]
fn memory_beyond_a_node_is_refused_unless_it_may_be_remote() {
    let mut machine = small_machine();
    machine.nodes.push(Node { id: 1, cores: vec![], memory_bytes: Some(8 << 30), ..Node::default() });
    machine.memory_total_bytes = Some(16 << 30);
    let mut profile = with(CoreWish::List(vec![1, 2]), CoreWish::default(), CoreWish::default());
    profile.memory.total = Some(MemoryWish::Bytes(9 << 30));
    let refused = refusal(&machine, &profile);
    assert!(
        refused.starts_with("memory.total: 9.0 GiB for the 2 shards of node 0 is more than the 8.0 GiB"),
        "{refused}"
    );
    assert!(refused.contains("memory.remote = true"), "{refused}");
    profile.memory.remote = true;
    place(&machine, &[], &profile).unwrap();
    profile.memory = Memory { bind: false, remote: false, ..profile.memory };
    place(&machine, &[], &profile).unwrap();
    assert_eq!(profile.memory.pages, PageWish::Transparent);
}

#[test]
fn command_line_has_its_lists_filled_in() {
    let mut profile = rules();
    profile.kernel.cmdline = ["isolcpus=domain,{data}", "rcu_nocbs={data}", "irqaffinity={irq}", "mitigations=auto"]
        .map(str::to_owned)
        .into();
    let placed = place(&small_machine(), &[], &profile).unwrap();
    assert_eq!(
        placed.command_line(&profile),
        ["isolcpus=domain,2-3", "rcu_nocbs=2-3", "irqaffinity=0", "mitigations=auto"]
    );
}

/// Data, housekeeping and interrupt cores, nodes with their shards, MiB of memory, and each card's interrupt cores.
type Expected =
    (&'static str, &'static str, &'static str, &'static [(usize, usize)], u64, &'static [(&'static str, &'static str)]);

#[test]
fn recorded_machines_are_placed_as_their_profiles_say() {
    let cases: [(&str, &str, Expected); 8] = [
        (
            "epyc-two-socket",
            "epyc-two-socket",
            (
                "2-15,18-31",
                "1,17",
                "0,16",
                &[(0, 2), (1, 4), (2, 4), (3, 4), (4, 2), (5, 4), (6, 4), (7, 4)],
                28 * 4096,
                &[("enp161s0f0np0", "16")],
            ),
        ),
        (
            "two-socket-smt",
            "xeon-two-socket",
            ("2-7,10-15", "1,9", "0,8", &[(0, 6), (1, 6)], 12 * 4096, &[("ens1f0np0", "0"), ("ens2f0", "8")]),
        ),
        ("graviton-metal", "graviton-metal", ("3-15", "2", "0-1", &[(0, 13)], 13 * 1536, &[("eth0", "0-1")])),
        ("hybrid-desktop", "desktop", ("0,2,4,6,8,10,12,14", "16", "16", &[(0, 8)], 16_015, &[("enp5s0", "16")])),
        // Two cores of quota of the four in the cpuset; sixty hundredths of a GiB.
        ("container-v2", "container", ("2-3", "", "0-1,4-7", &[(0, 2)], 614, &[])),
        ("container-v1", "container", ("1", "", "0,2-3", &[(0, 1)], 307, &[])),
        ("vm-2core", "generic-vm", ("1", "0", "0", &[(0, 1)], 1024, &[("eth0", "0")])),
        // A kernel without NUMA is one node; the efficient cores keep house.
        ("board-without-numa", "generic-vm", ("4-7", "0", "0", &[(0, 4)], 7_812, &[("eth0", "0")])),
    ];
    for (tree, profile, (data, housekeeping, irq, nodes, mib, nics)) in cases {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/host/{tree}.tree"));
        let machine = Topology::detect(&root).unwrap();
        let profile = Profile::read(std::path::Path::new(profile)).unwrap();
        let allowed = machine.control_group.cpuset.clone().unwrap_or_else(|| machine.core_ids());
        let placed = place(&machine, &allowed, &profile).unwrap();
        assert_rules_hold(&machine, &allowed, &profile, &placed);
        assert_eq!(format_cpu_list(&placed.data_cores()), data, "{tree}: data");
        assert_eq!(format_cpu_list(&placed.housekeeping), housekeeping, "{tree}: housekeeping");
        assert_eq!(format_cpu_list(&placed.irq), irq, "{tree}: interrupts");
        let shards: Vec<(usize, usize)> = placed.node_shares().iter().map(|share| (share.node, share.shards)).collect();
        assert_eq!(shards, nodes, "{tree}: shards by node");
        assert_eq!(placed.memory_bytes >> 20, mib, "{tree}: memory");
        let of_card = |nic: &NicPlace| {
            let cores: Vec<usize> = nic.queues.iter().filter_map(|queue| queue.irq_core).collect();
            (nic.name.clone(), format_cpu_list(&cores))
        };
        let cards: Vec<(String, String)> = placed.nics.iter().map(of_card).collect();
        let expected: Vec<(String, String)> =
            nics.iter().map(|(name, cores)| (name.to_string(), cores.to_string())).collect();
        assert_eq!(cards, expected, "{tree}: cards");
    }
}

#[test]
fn shipped_profiles_know_their_machines() {
    let known = |tree: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/host/{tree}.tree"));
        Profile::shipped_for(&Topology::detect(&root).unwrap())
    };
    assert_eq!(known("epyc-two-socket"), ["epyc-two-socket"]);
    assert_eq!(known("two-socket-smt"), ["xeon-two-socket"]);
    assert_eq!(known("graviton-metal"), ["graviton-metal"]);
    assert_eq!(known("hybrid-desktop"), ["desktop"]);
    assert_eq!(known("container-v2"), ["container", "generic-vm"]);
    assert_eq!(known("vm-2core"), ["container", "generic-vm"], "a guest with a quota is both");
}

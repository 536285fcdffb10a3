//! Tests of `topology`: each recorded machine is read with the figures it was made with; what is missing is
//! ordinary, what is senseless is refused with its file. The machines stand in `tests/fixtures/host`.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::host::files::Recording;

fn recorded(name: &str) -> Topology {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host").join(name);
    Topology::detect(&root).unwrap()
}

fn of_tree(text: &str) -> Result<Topology, String> {
    Topology::read(&Files::recorded(Path::new("some.tree"), Recording::parse(text).unwrap()))
}

fn list(text: &str) -> Vec<usize> {
    parse_cpu_list(text).unwrap()
}

/// Level, kind and bytes of a core's caches, and how many other cores share each.
fn caches(core: &Core) -> Vec<(u32, CacheKind, u64, usize)> {
    core.caches.iter().map(|cache| (cache.level, cache.kind, cache.bytes, cache.shared_with.len())).collect()
}

/// Number, queue, and the cores it may and does interrupt.
fn irqs(nic: &Nic) -> Vec<(usize, Option<usize>, String, String)> {
    let of = |irq: &Irq| (irq.number, irq.queue, format_cpu_list(&irq.affinity), format_cpu_list(&irq.effective));
    nic.irqs.iter().map(of).collect()
}

/// A directory of this test's own that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, files: &[(&str, &str)]) -> Scratch {
        let root = std::env::temp_dir().join(format!("spinetail-topology-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Scratch(root)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn two_sockets_are_read_with_threads_and_nodes() {
    let machine = recorded("two-socket-smt");
    assert_eq!(machine.core_ids(), (0..32).collect::<Vec<_>>());
    let core = machine.core(9).unwrap();
    assert_eq!((core.package, core.core_id, core.node, &core.siblings[..]), (1, 1, 1, &[25][..]));
    assert_eq!(core.governor.as_deref(), Some("powersave"));
    assert_eq!(machine.core(24).unwrap().siblings, [8]);
    assert_eq!(machine.nodes.len(), 2);
    assert_eq!(machine.nodes[1].cores, list("8-15,24-31"));
    assert_eq!(machine.nodes[1].memory_bytes, Some(66_048_000 * 1024));
    assert_eq!(machine.nodes[1].memory_free_bytes, Some(60_000_000 * 1024));
    assert_eq!((machine.nodes[1].huge_pages_total, machine.nodes[1].huge_pages_free), (512, 256));
    assert_eq!((machine.nodes[0].giant_pages_total, machine.nodes[0].giant_pages_free), (4, 2));
    assert_eq!(machine.nodes[1].distances, [(0, 20), (1, 10)]);
    assert_eq!(machine.isolated, list("1-7,9-15"));
    assert_eq!(machine.nohz_full, machine.isolated);
    assert_eq!(machine.transparent, Some(TransparentMode::Madvise));
    assert_eq!(machine.clocksource.as_deref(), Some("tsc"));
    assert_eq!(machine.clocksources_available, ["tsc", "hpet", "acpi_pm"]);
    assert_eq!((machine.invariant_tsc, machine.smt_active), (Some(true), Some(true)));
    assert_eq!(machine.control_group, ControlGroup { hierarchy: Some(Hierarchy::Unified), ..ControlGroup::default() });
    assert_eq!((machine.virtualised, machine.hypervisor.as_deref()), (false, None));
    assert_eq!(machine.system_product.as_deref(), Some("PowerEdge R650"));
    assert!(machine.command_line.unwrap().contains("nohz_full=1-7,9-15"));
    assert_eq!(machine.rps_sock_flow_entries, Some(32_768));
}

#[test]
fn a_socket_of_xeons_is_one_complex_with_its_caches_clocks_and_idle_states() {
    let machine = recorded("two-socket-smt");
    assert_eq!((machine.sockets(), machine.dies()), (vec![0, 1], vec![(0, 0), (1, 0)]));
    assert_eq!(machine.complexes(), [list("0-7,16-23"), list("8-15,24-31")]);
    let core = machine.core(17).unwrap();
    assert_eq!((core.complex, core.kind, core.capacity), (0, CoreKind::Alike, None));
    assert_eq!(
        caches(core),
        [
            (1, CacheKind::Data, 48 << 10, 1),
            (1, CacheKind::Instruction, 32 << 10, 1),
            (2, CacheKind::Unified, 1280 << 10, 1),
            (3, CacheKind::Unified, 18 << 20, 15),
        ]
    );
    assert_eq!((core.caches[0].line_bytes, &core.caches[0].shared_with[..]), (Some(64), &[1][..]));
    let frequency = machine.core(8).unwrap().frequency.clone().unwrap();
    assert_eq!(frequency.driver.as_deref(), Some("intel_pstate"));
    assert_eq!((frequency.min_khz, frequency.max_khz), (Some(800_000), Some(3_700_000)));
    assert_eq!(frequency.epp.as_deref(), Some("balance_performance"));
    let deepest = |id: usize| machine.core(id).unwrap().idle_states[3].clone();
    let state = IdleState { index: 3, name: "C6".to_owned(), exit_latency_us: 170, disabled: true };
    assert_eq!(deepest(0), state);
    assert_eq!(deepest(8), IdleState { disabled: false, ..state });
}

#[test]
fn cards_are_read_with_node_queues_and_interrupts() {
    let machine = recorded("two-socket-smt");
    assert_eq!(machine.nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>(), ["ens1f0np0", "ens2f0", "lo"]);
    let mlx5 = machine.nic("ens1f0np0").unwrap();
    assert_eq!((mlx5.driver.as_deref(), mlx5.node, mlx5.speed_mbps), (Some("mlx5_core"), Some(0), Some(100_000)));
    assert_eq!((mlx5.up, mlx5.physical, mlx5.mtu), (true, true, 9000));
    assert_eq!((mlx5.rx_queues.len(), mlx5.tx_queues.len(), mlx5.irqs.len()), (8, 8, 9));
    assert_eq!(mlx5.tx_queues[3].xps_cpus, [3, 19]);
    assert_eq!(irqs(mlx5)[0], (60, None, "0-7,16-23".to_owned(), "0".to_owned()));
    assert_eq!(irqs(mlx5)[4], (64, Some(3), "3".to_owned(), "3".to_owned()));
    assert_eq!(mlx5.irqs[4].name, "mlx5_comp3@pci:0000:17:00.0");
    assert_eq!(mlx5.rings, Some(Rings { rx: 1024, rx_max: 8192, tx: 1024, tx_max: 8192 }));
    assert_eq!(mlx5.channels.unwrap().combined_max, 63);
    assert!(mlx5.coalesce.unwrap().adaptive_rx && mlx5.offloads.unwrap().gro && !mlx5.offloads.unwrap().ntuple);
    let ice = machine.nic("ens2f0").unwrap();
    assert_eq!((ice.driver.as_deref(), ice.node), (Some("ice"), Some(1)));
    assert_eq!(irqs(ice)[8], (88, Some(7), "0-31".to_owned(), "15".to_owned()));
    assert_eq!((&ice.rx_queues[7].rps_cpus, ice.rx_queues[7].rps_flow_cnt), (&list("8-15"), 4096));
    assert_eq!((ice.gro_flush_timeout_ns, ice.napi_defer_hard_irqs), (Some(200_000), Some(2)));
    let lo = machine.nic("lo").unwrap();
    assert_eq!((lo.physical, lo.up, lo.driver.as_deref(), lo.irqs.len(), lo.rings), (false, true, None, 0, None));
}

#[test]
fn disks_are_read_and_loop_devices_left_out() {
    let machine = recorded("two-socket-smt");
    let disk = |disk: &Disk| (disk.name.clone(), disk.node, disk.queues, disk.scheduler.clone().unwrap());
    assert_eq!(
        machine.disks.iter().map(disk).collect::<Vec<_>>(),
        [
            ("nvme0n1".to_owned(), Some(0), 32, "none".to_owned()),
            ("nvme1n1".to_owned(), Some(1), 32, "mq-deadline".to_owned()),
        ]
    );
    assert_eq!(machine.disks[0].bytes, 1_920_383_410_176);
    // Two controllers lead to one disk, which stands among the virtual devices.
    let behind_two = &recorded("epyc-two-socket").disks[0];
    assert_eq!((behind_two.node, behind_two.rotational), (Some(2), false));
    assert_eq!(behind_two.model.as_deref(), Some("SAMSUNG MZQL23T8HCLS-00A07"));
}

#[test]
fn epyc_has_a_complex_for_each_ccd_and_a_node_for_each_in_nps4() {
    let machine = recorded("epyc-two-socket");
    assert_eq!((machine.cores.len(), machine.offline.clone()), (63, vec![63]));
    assert_eq!(machine.present, (0..64).collect::<Vec<_>>());
    assert_eq!((machine.sockets(), machine.nodes.len()), (vec![0, 1], 8));
    let complexes = machine.complexes();
    assert_eq!(complexes.len(), 8);
    assert_eq!(complexes[0], list("0-3,32-35"));
    assert_eq!(complexes[7], list("28-31,60-62")); // 63 is off
    for (node, complex) in machine.nodes.iter().zip(&complexes) {
        assert_eq!(&node.cores, complex);
    }
    let core = machine.core(53).unwrap();
    assert_eq!((core.package, core.complex, core.node, core.core_id), (1, 20, 5, 5));
    assert_eq!(caches(core)[3], (3, CacheKind::Unified, 16 << 20, 7));
    assert!(machine.core(31).unwrap().siblings.is_empty());
    let distances: Vec<u32> = machine.nodes[5].distances.iter().map(|(_, distance)| *distance).collect();
    assert_eq!(distances, [32, 32, 32, 32, 12, 10, 12, 12]);
    assert_eq!(machine.nodes.iter().map(|node| node.giant_pages_total).collect::<Vec<_>>(), [8, 0, 0, 0, 8, 0, 0, 0]);
    // Isolated by a partition of control groups, not by the kernel's command line.
    assert_eq!((machine.isolated, machine.nohz_full), (list("44-47"), vec![]));
    assert_eq!(machine.control_group.cpuset, Some(list("0-62")));
    let (first, second) = (&machine.nics[0], &machine.nics[1]);
    assert_eq!((first.node, first.channels.unwrap().combined, first.irqs.len()), (Some(5), 8, 8));
    assert_eq!(irqs(first)[4], (124, Some(4), "20-23,52-55".to_owned(), "52".to_owned()));
    // No link, so no speed; a driver that answers nothing leaves no rings.
    assert_eq!((second.up, second.physical, second.speed_mbps, second.rings), (false, true, None, None));
}

#[test]
fn metal_of_a_cloud_is_no_virtual_machine() {
    let machine = recorded("graviton-metal");
    assert_eq!(machine.architecture, "aarch64");
    assert_eq!(machine.cpu_model.as_deref(), Some("Neoverse-V1"));
    assert_eq!((machine.virtualised, machine.hypervisor.as_deref()), (false, None));
    assert_eq!((machine.smt_active, machine.invariant_tsc), (Some(false), Some(true)));
    assert_eq!(machine.complexes(), [list("0-15")]);
    let core = machine.core(3).unwrap();
    assert_eq!((core.kind, core.capacity, core.frequency.as_ref()), (CoreKind::Alike, Some(1024), None));
    assert_eq!(core.idle_states.len(), 1);
    let ena = machine.nic("eth0").unwrap();
    assert_eq!((ena.driver.as_deref(), ena.node, ena.speed_mbps), (Some("ena"), Some(0), None));
    assert_eq!(ena.irqs[0].queue, None);
    assert_eq!(irqs(ena)[8], (38, Some(7), "7".to_owned(), "7".to_owned()));
    assert_eq!((ena.rings.unwrap().tx_max, ena.offloads.unwrap().tso), (1024, false));
}

#[test]
fn hybrid_desktop_has_two_kinds_of_cores_in_one_complex() {
    let machine = recorded("hybrid-desktop");
    let of_kind = |kind| {
        let cores: Vec<usize> = machine.cores.iter().filter(|core| core.kind == kind).map(|core| core.id).collect();
        format_cpu_list(&cores)
    };
    assert_eq!((of_kind(CoreKind::Performance), of_kind(CoreKind::Efficient)), ("0-15".to_owned(), "16-23".to_owned()));
    assert_eq!(machine.complexes(), [list("0-23")]);
    // Four efficient cores share a second level, two threads of a performance core do.
    assert_eq!(caches(machine.core(20).unwrap())[2], (2, CacheKind::Unified, 2 << 20, 3));
    assert_eq!(caches(machine.core(2).unwrap())[2], (2, CacheKind::Unified, 1280 << 10, 1));
    let fastest = |id: usize| machine.core(id).unwrap().frequency.as_ref().unwrap().hardware_max_khz;
    assert_eq!((fastest(0), fastest(16)), (Some(5_100_000), Some(3_900_000)));
    assert_eq!(machine.core(0).unwrap().idle_states[4].exit_latency_us, 680);
    let igc = machine.nic("enp5s0").unwrap();
    assert_eq!((igc.node, igc.irqs[0].queue, igc.irqs[4].queue), (None, None, Some(3)));
    assert!(machine.disks[1].rotational && !machine.disks[0].rotational);
}

#[test]
fn board_without_numa_is_one_node_and_its_capacities_tell_its_kinds() {
    let machine = recorded("board-without-numa");
    assert_eq!(machine.nodes.len(), 1);
    let node = &machine.nodes[0];
    assert_eq!((node.cores.clone(), node.huge_pages_total, node.huge_pages_free), (list("0-7"), 16, 8));
    assert_eq!((node.memory_bytes, node.distances.len()), (Some(16_000_000 * 1024), 0));
    assert_eq!(machine.core(3).unwrap().kind, CoreKind::Efficient);
    assert_eq!((machine.core(4).unwrap().kind, machine.core(4).unwrap().capacity), (CoreKind::Performance, Some(1024)));
    let clock = |id: usize| machine.core(id).unwrap().frequency.as_ref().unwrap().max_khz;
    assert_eq!((clock(3), clock(5), clock(7)), (Some(1_800_000), Some(2_400_000), Some(2_400_000)));
    assert_eq!(machine.transparent, Some(TransparentMode::Always));
    // No message-signalled interrupts: found by the interface's name, and eth00 is another.
    assert_eq!(machine.nic("eth0").unwrap().irqs.iter().map(|irq| irq.number).collect::<Vec<_>>(), [80]);
    assert_eq!(machine.nic("eth0").unwrap().channels.unwrap().rx, 2);
    assert_eq!(machine.disks[0].name, "mmcblk0");
}

#[test]
fn small_vm_is_read_with_its_hypervisor_and_its_control_group() {
    let machine = recorded("vm-2core");
    assert_eq!(machine.core_ids(), [0, 1]);
    assert_eq!((machine.virtualised, machine.hypervisor.as_deref()), (true, Some("KVM")));
    assert_eq!(machine.steal_share, Some(0.05));
    assert_eq!(machine.nodes.len(), 1);
    assert_eq!(machine.memory_total_bytes, Some(24_684_096 * 1024));
    assert_eq!(machine.cpu_model.as_deref(), Some("Intel(R) Xeon(R) Processor"));
    assert_eq!(machine.swap_bytes, 0);
    // The quota stands in the group itself, the memory limit in its parent.
    assert_eq!(machine.control_group.cpu_cores, Some(1.5));
    assert_eq!(machine.control_group.cpu_period_us, Some(100_000));
    assert_eq!(machine.control_group.memory_bytes, Some(2 << 30));
    assert_eq!(machine.control_group.hierarchy, Some(Hierarchy::Unified));
    // The virtio device knows neither its node nor its interrupts: the PCI device above does.
    let eth0 = machine.nic("eth0").unwrap();
    assert_eq!((eth0.driver.as_deref(), eth0.node, eth0.speed_mbps), (Some("virtio_net"), Some(0), None));
    assert_eq!(eth0.irqs.iter().map(|irq| irq.queue).collect::<Vec<_>>(), [None, Some(0), Some(0)]);
    assert_eq!((machine.disks[0].node, machine.disks[0].rotational), (None, true));
}

#[test]
fn container_is_read_without_sysfs() {
    let machine = recorded("container-v2");
    assert_eq!((machine.cores.len(), machine.nodes.len()), (8, 1));
    assert_eq!(machine.architecture, "x86_64");
    assert_eq!((machine.virtualised, machine.hypervisor.as_deref(), machine.steal_share), (true, None, Some(0.04)));
    let group = &machine.control_group;
    assert_eq!(
        (group.cpu_cores, group.memory_bytes, group.cpuset.clone()),
        (Some(2.5), Some(1 << 30), Some(list("2-5")))
    );
    assert_eq!(machine.complexes(), [list("0-7")]); // nothing is known, so a socket is one
    assert!(machine.nics.is_empty() && machine.disks.is_empty());
    assert_eq!((machine.smt_active, machine.busy_read_us, machine.transparent), (None, None, None));
}

#[test]
fn first_version_of_control_groups_is_read_too() {
    let machine = recorded("container-v1");
    let group = &machine.control_group;
    assert_eq!(group.hierarchy, Some(Hierarchy::Hybrid));
    assert_eq!((group.cpu_cores, group.cpu_period_us), (Some(1.5), Some(50_000)));
    // The group itself shows "no limit" as a number; its parent has one.
    assert_eq!(group.memory_bytes, Some(512 << 20));
    assert_eq!(group.cpuset, Some(vec![1, 2]));
    assert_eq!(machine.hypervisor.as_deref(), Some("Amazon EC2"));
}

#[test]
fn machine_that_shows_only_cpuinfo_is_one_node() {
    let scratch = Scratch::new("bare", &[("proc/cpuinfo", "processor : 0\n\nprocessor : 1\n")]);
    let machine = Topology::detect(&scratch.0).unwrap();
    assert_eq!(machine.core_ids(), [0, 1]);
    assert_eq!((machine.present.clone(), machine.offline.len()), (vec![0, 1], 0));
    assert_eq!(machine.nodes.len(), 1);
    assert_eq!(machine.nodes[0].cores, [0, 1]);
    assert_eq!(machine.memory_total_bytes, None);
    assert_eq!(machine.transparent, None);
    assert_eq!((machine.architecture.as_str(), machine.invariant_tsc), ("unknown", None));
    assert_eq!(machine.control_group, ControlGroup::default());
    assert!(machine.cores.iter().all(|core| core.siblings.is_empty() && core.governor.is_none()));
}

#[test]
fn second_level_shared_by_cores_is_a_complex_and_one_of_its_own_is_none() {
    let shared = "== sys/devices/system/cpu/online\n0-3\n== sys/devices/system/cpu/cpu{0-3}/cache/index2/level\n2\n";
    let of = |lists: &str| of_tree(&format!("{shared}{lists}")).unwrap().complexes();
    let list = |cores: &str, shared: &str| {
        format!("== sys/devices/system/cpu/cpu{{{cores}}}/cache/index2/shared_cpu_list\n{shared}\n")
    };
    assert_eq!(of(&(list("0-1", "0-1") + &list("2-3", "2-3"))), [[0, 1], [2, 3]]);
    // Graviton and many virtual machines show no third level: their second says nothing about the rest.
    assert_eq!(of(&(0..4).map(|id| list(&id.to_string(), &id.to_string())).collect::<String>()), [[0, 1, 2, 3]]);
}

#[test]
fn favoured_cores_of_one_kind_are_alike() {
    let tree = "== sys/devices/system/cpu/online\n0-1\n== sys/devices/system/cpu/cpu0/cpu_capacity\n1024\n";
    let kind = |capacity: u32| {
        let tree = format!("{tree}== sys/devices/system/cpu/cpu1/cpu_capacity\n{capacity}\n");
        of_tree(&tree).unwrap().cores[1].kind
    };
    assert_eq!(kind(980), CoreKind::Alike);
    assert_eq!(kind(700), CoreKind::Efficient);
}

#[test]
fn empty_tree_is_refused_with_what_to_mount() {
    let scratch = Scratch::new("empty", &[]);
    let complaint = Topology::detect(&scratch.0).unwrap_err();
    assert!(complaint.contains("/sys") && complaint.contains("/proc"), "{complaint}");
}

#[test]
fn senseless_core_list_is_refused_with_its_file() {
    let scratch = Scratch::new("senseless", &[("sys/devices/system/cpu/online", "0-x\n")]);
    let complaint = Topology::detect(&scratch.0).unwrap_err();
    assert!(complaint.contains("cpu/online") && complaint.contains("0-x"), "{complaint}");
}

#[test]
fn senseless_files_are_refused_with_their_names() {
    let whole = "== sys/devices/system/cpu/online\n0-1\n== proc/self/cgroup\n0::/\n4:memory:/\n3:cpuset:/\n2:cpu:/\n\
        == sys/class/net/eth0 -> ../../devices/pci0/0000:00:03.0/net/eth0\n\
        == sys/class/net/eth0/device -> ../../../0000:00:03.0\n\
        == sys/devices/pci0/0000:00:03.0/msi_irqs/7\nmsix\n== proc/interrupts\nCPU0 CPU1\n7: 0 0 chip 0-edge eth0\n\
        == sys/block/vda -> ../devices/pci0/0000:00:02.0/virtio1/block/vda\n\
        == sys/devices/system/cpu/cpu0/cache/index0/level\n1\n== sys/devices/system/cpu/cpu1/cpuidle/state0/name\nC1\n";
    assert!(of_tree(whole).is_ok());
    for file in [
        "sys/devices/system/cpu/present",
        "sys/devices/system/cpu/isolated",
        "sys/devices/system/cpu/nohz_full",
        "sys/devices/system/cpu/smt/active",
        "sys/devices/system/cpu/cpu0/topology/physical_package_id",
        "sys/devices/system/cpu/cpu0/topology/die_id",
        "sys/devices/system/cpu/cpu0/topology/core_id",
        "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
        "sys/devices/system/cpu/cpu1/cpu_capacity",
        "sys/devices/system/cpu/cpu0/cache/index0/size",
        "sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_list",
        "sys/devices/system/cpu/cpu1/cpuidle/state0/latency",
        "sys/devices/system/cpu/cpu1/cpuidle/state0/disable",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq",
        "sys/devices/cpu_core/cpus",
        "sys/devices/system/node/node0/cpulist",
        "sys/devices/system/node/node0/distance",
        "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/free_hugepages",
        "sys/fs/cgroup/cpuset.cpus.isolated",
        "sys/fs/cgroup/cpuset.cpus.effective",
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us",
        "sys/fs/cgroup/cpuset/cpuset.cpus",
        "proc/sys/net/core/busy_poll",
        "sys/class/net/eth0/mtu",
        "sys/class/net/eth0/queues/rx-0/rps_cpus",
        "sys/class/net/eth0/queues/tx-0/xps_cpus",
        "sys/devices/pci0/0000:00:03.0/numa_node",
        "proc/irq/7/smp_affinity_list",
        "spinetail/ethtool/eth0",
        "sys/block/vda/size",
        "sys/block/vda/queue/rotational",
    ] {
        let complaint = of_tree(&format!("{whole}== {file}\nx\n")).unwrap_err();
        assert!(complaint.starts_with(file) && complaint.contains("'x'"), "{file}: {complaint}");
    }
}

#[test]
fn distances_to_fewer_nodes_than_there_are_are_refused() {
    let tree = "== sys/devices/system/cpu/online\n0\n== sys/devices/system/node/node{0-1}/distance\n10\n";
    assert!(of_tree(tree).unwrap_err().contains("node0/distance"));
}

#[test]
fn null_list_of_tickless_cores_is_none() {
    let files = [("sys/devices/system/cpu/online", "0\n"), ("sys/devices/system/cpu/nohz_full", "(null)\n")];
    let scratch = Scratch::new("null", &files);
    assert_eq!(Topology::detect(&scratch.0).unwrap().nohz_full, Vec::<usize>::new());
}

#[test]
fn this_machine_can_be_read() {
    let machine = Topology::detect(Path::new("/")).unwrap();
    assert!(!machine.cores.is_empty() && !machine.nodes.is_empty());
    assert_eq!(machine.architecture, std::env::consts::ARCH);
}

#[test]
fn recording_of_this_machine_is_this_machine() {
    let files = Files::open(Path::new("/")).unwrap().remembering();
    let machine = Topology::read(&files).unwrap();
    let text = files.recording().to_text();
    let again = Files::recorded(Path::new("this.tree"), Recording::parse(&text).unwrap()).remembering();
    assert_eq!(Topology::read(&again).unwrap(), machine);
    // And what is read of a recording is all that it holds.
    assert_eq!(again.recording().to_text(), text);
}

#[test]
fn recordings_of_recorded_machines_are_these_machines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host");
    let trees = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let trees: Vec<PathBuf> = trees.filter(|path| path.extension().is_some_and(|suffix| suffix == "tree")).collect();
    assert_eq!(trees.len(), 8);
    for tree in trees {
        let files = Files::open(&tree).unwrap().remembering();
        let machine = Topology::read(&files).unwrap();
        let recording = files.recording();
        assert_eq!(Topology::read(&Files::recorded(&tree, recording.clone())).unwrap(), machine, "{}", tree.display());
        // A fixture holds no file that nobody reads: `Recording::paths` of both are the same.
        let whole = Recording::parse(&fs::read_to_string(&tree).unwrap()).unwrap();
        let unread: Vec<&str> = whole.paths().filter(|path| !recording.paths().any(|read| read == *path)).collect();
        assert!(unread.is_empty(), "{} holds what is never read: {unread:?}", tree.display());
    }
}

#[test]
fn one_thread_is_kept_of_each_physical_core() {
    let machine = recorded("two-socket-smt");
    assert_eq!(machine.one_per_physical_core(&[0, 16, 17, 1, 8]), [0, 17, 8]);
}

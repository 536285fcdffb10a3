//! What a profile comes to on a machine of eight cores, two nodes, one card; made of files, so that all of it is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::host::placement::place;
use crate::host::tune::write::NoRings;

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let root = std::env::temp_dir().join(format!("spinetail-plan-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let tree = Tree(root);
        let cpu = "sys/devices/system/cpu";
        tree.put("proc/cpuinfo", &(0..8).map(|core| format!("processor : {core}\n")).collect::<String>());
        tree.put("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 15000000 kB\n");
        tree.put("proc/sys/kernel/random/boot_id", "first\n");
        tree.put("proc/cmdline", "quiet nohz_full=5\n");
        tree.put(&format!("{cpu}/online"), "0-7\n");
        tree.put(&format!("{cpu}/present"), "0-7\n");
        for core in 0..8 {
            tree.put(&format!("{cpu}/cpu{core}/topology/thread_siblings_list"), &format!("{core}\n"));
            for (state, name, us) in [(0, "POLL", 0), (1, "C1", 1), (2, "C6", 170)] {
                let folder = format!("{cpu}/cpu{core}/cpuidle/state{state}");
                tree.put(&format!("{folder}/name"), &format!("{name}\n"));
                tree.put(&format!("{folder}/latency"), &format!("{us}\n"));
                tree.put(&format!("{folder}/disable"), "0\n");
            }
        }
        for (policy, cores) in [(0, "0 1 2 3"), (4, "4 5 6 7")] {
            let folder = format!("{cpu}/cpufreq/policy{policy}");
            tree.put(&format!("{folder}/affected_cpus"), &format!("{cores}\n"));
            tree.put(&format!("{folder}/scaling_governor"), "powersave\n");
            tree.put(&format!("{folder}/scaling_available_governors"), "performance powersave\n");
            tree.put(&format!("{folder}/energy_performance_preference"), "balance_performance\n");
            tree.put(&format!("{folder}/energy_performance_available_preferences"), "performance power\n");
        }
        for (node, cores) in [(0, "0-3"), (1, "4-7")] {
            let folder = format!("sys/devices/system/node/node{node}");
            tree.put(&format!("{folder}/cpulist"), &format!("{cores}\n"));
            tree.put(&format!("{folder}/meminfo"), &format!("Node {node} MemTotal: 8000000 kB\n"));
            tree.put(&format!("{folder}/hugepages/hugepages-2048kB/nr_hugepages"), "8\n");
            tree.put(&format!("{folder}/hugepages/hugepages-2048kB/free_hugepages"), "2\n");
        }
        tree.put("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
        tree.put("sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise madvise [never]\n");
        tree.put("proc/sys/vm/swappiness", "60\n");
        tree.put("proc/sys/net/core/rps_sock_flow_entries", "0\n");
        tree.put("proc/irq/default_smp_affinity", "ff\n");
        tree.put("sys/devices/virtual/workqueue/cpumask", "ff\n");
        tree.put("sys/bus/workqueue/devices/writeback/cpumask", "ff\n");
        let mut interrupts = "            CPU0\n".to_owned();
        for (irq, name, cores) in [
            (9, "acpi", "0-7"),
            (10, "timer", "0-1"),
            (11, "only-data", "4"),
            (40, "eth0-TxRx-0", "0-7"),
            (41, "eth0-TxRx-1", "0-7"),
        ] {
            tree.put(&format!("proc/irq/{irq}/smp_affinity_list"), &format!("{cores}\n"));
            tree.put(&format!("proc/irq/{irq}/effective_affinity_list"), &format!("{cores}\n"));
            fs::create_dir_all(tree.0.join(format!("proc/irq/{irq}/{name}"))).unwrap();
            interrupts.push_str(&format!(" {irq}:   1   PCI-MSIX-0000:00:03.0   0-edge   {name}\n"));
        }
        tree.put("proc/interrupts", &interrupts);
        let device = "sys/devices/pci0000:00/0000:00:03.0";
        let card = format!("{device}/net/eth0");
        for (file, text) in [
            ("flags", "0x1003"),
            ("carrier", "1"),
            ("mtu", "1500"),
            ("gro_flush_timeout", "0"),
            ("napi_defer_hard_irqs", "0"),
        ] {
            tree.put(&format!("{card}/{file}"), &format!("{text}\n"));
        }
        for queue in 0..2 {
            tree.put(&format!("{card}/queues/rx-{queue}/rps_cpus"), "ff\n");
            tree.put(&format!("{card}/queues/rx-{queue}/rps_flow_cnt"), "0\n");
            tree.put(&format!("{card}/queues/tx-{queue}/xps_cpus"), "00\n");
            tree.put(&format!("{device}/msi_irqs/{}", 40 + queue), "msix\n");
        }
        tree.put(&format!("{device}/numa_node"), "0\n");
        tree.put("spinetail/ethtool/eth0", "rx=256\nrx_max=1024\ntx=256\ntx_max=4096\n");
        fs::create_dir_all(tree.0.join("sys/class/net")).unwrap();
        symlink("../../devices/pci0000:00/0000:00:03.0/net/eth0", tree.0.join("sys/class/net/eth0")).unwrap();
        symlink("../..", tree.0.join(&card).join("device")).unwrap();
        tree.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n");
        fs::create_dir_all(tree.0.join(units::UNITS)).unwrap();
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn plan(&self, profile: &str) -> Plan {
        self.plan_with(profile, &[])
    }

    /// The same with kernel parameters that the reader of files would have refused.
    fn plan_with(&self, profile: &str, sysctl: &[&str]) -> Plan {
        let machine = Topology::detect(&self.0).unwrap();
        let mut profile = Profile::parse(profile).unwrap();
        let placement = place(&machine, &[], &profile).unwrap();
        profile.sysctl.extend(sysctl.iter().map(|name| ((*name).to_owned(), "1".to_owned())));
        plan(&machine, &placement, &profile, &Untouched::open(&self.0, &NoRings).unwrap())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SMALL: &str = "[machine]\nname = \"t\"\n[cores]\ndata = \"2-5\"\nhousekeeping = \"1\"\nirq = \"0\"\n\
                     [memory]\nper_shard = \"64MiB\"\npages = \"4KiB\"\n";

fn wants<'p>(plan: &'p Plan, path: &str) -> Option<&'p str> {
    plan.changes.iter().find(|change| change.path == path).map(|change| change.want.as_str())
}

fn is_left_out(plan: &Plan, what: &str, why: &str) -> bool {
    plan.left_out.iter().any(|left| left.what.contains(what) && left.why.contains(why))
}

#[test]
fn a_profile_that_wishes_nothing_moves_interrupts_and_no_more() {
    let tree = Tree::new("nothing");
    let plan = tree.plan(SMALL);
    for (path, want) in [
        ("proc/irq/9/smp_affinity_list", "0-1,6-7"),
        ("proc/irq/11/smp_affinity_list", "0"),
        ("proc/irq/40/smp_affinity_list", "0"),
        ("proc/irq/41/smp_affinity_list", "0"),
        ("proc/irq/default_smp_affinity", "c3"),
        ("sys/devices/virtual/workqueue/cpumask", "c3"),
        ("sys/bus/workqueue/devices/writeback/cpumask", "c3"),
    ] {
        assert_eq!(wants(&plan, path), Some(want), "{path}");
    }
    assert_eq!(wants(&plan, "proc/irq/10/smp_affinity_list"), None, "is on no data core");
    let others =
        plan.changes.iter().filter(|change| !change.path.contains("irq") && !change.path.contains("workqueue"));
    assert_eq!(others.map(|change| change.kind).collect::<Vec<_>>(), [Kind::File], "the service's drop-in");
    assert!(plan.changes.iter().all(|change| !change.reason.is_empty()));
}

#[test]
fn huge_pages_are_what_shards_need_beside_others_and_never_fewer() {
    let tree = Tree::new("huge");
    let profile = SMALL.replace("4KiB", "2MiB");
    let plan = tree.plan(&profile);
    // Two shards of 64 MiB on each node, and six pages that others hold.
    for node in 0..2 {
        let path = format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages");
        assert_eq!(wants(&plan, &path), Some("70"), "{path}");
    }
    assert!(plan.changes[0].path.contains("hugepages"), "first, while memory is in one piece");
    assert_eq!(wants(&plan, "sys/kernel/mm/transparent_hugepage/enabled"), Some("madvise"));
    assert_eq!(wants(&plan, "sys/kernel/mm/transparent_hugepage/defrag"), Some("madvise"));
    tree.put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "500\n");
    tree.put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "500\n");
    let plan = tree.plan(&profile);
    assert_eq!(wants(&plan, "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"), Some("500"));
    // Pages beyond the pool are counted in it, and would be in it for good once that count is written back.
    tree.put("sys/devices/system/node/node1/hugepages/hugepages-2048kB/surplus_hugepages", "6\n");
    let plan = tree.plan(&profile);
    assert_eq!(wants(&plan, "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"), None);
    assert!(is_left_out(&plan, "node 1", "6 pages are beyond the pool"), "{:?}", plan.left_out);
}

#[test]
fn huge_pages_that_our_own_server_may_hold_are_not_counted_twice() {
    let tree = Tree::new("held");
    let profile = SMALL.replace("4KiB", "2MiB");
    let folder = |node: u32| format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
    let wish = |plan: &Plan, node| wants(plan, &format!("{}/nr_hugepages", folder(node))).map(str::to_owned);
    // Set aside at boot, 64 for the shards of each node; all of node 0's are held.
    for (node, free) in [(0, "0\n"), (1, "64\n")] {
        tree.put(&format!("{}/nr_hugepages", folder(node)), "64\n");
        tree.put(&format!("{}/free_hugepages", folder(node)), free);
    }
    let plan = tree.plan(&profile);
    assert_eq!((wish(&plan, 0), wish(&plan, 1).as_deref()), (None, Some("64")));
    assert!(is_left_out(&plan, "node 0", "all 64 pages there are held"), "{:?}", plan.left_out);
    // Some are free, and a server runs: this very command, or a load, is none.
    tree.put(&format!("{}/free_hugepages", folder(0)), "4\n");
    tree.put("proc/78/comm", "spinetail\n");
    tree.put("proc/78/cmdline", "spinetail\0host\0apply\0");
    assert_eq!(wish(&tree.plan(&profile), 0).as_deref(), Some("124"));
    tree.put("proc/79/comm", "spinetail\n");
    tree.put("proc/79/cmdline", "/usr/bin/spinetail\0serve\0--profile\0auto\0");
    let plan = tree.plan(&profile);
    assert_eq!(wish(&plan, 0), None);
    assert!(is_left_out(&plan, "node 0", "process 79"), "{:?}", plan.left_out);
}

#[test]
fn sysctl_names_become_paths_below_proc_sys_and_nothing_else() {
    let tree = Tree::new("sysctl");
    let profile = format!("{SMALL}[sysctl]\n\"vm.swappiness\" = 1\n\"net/ipv4/conf/eth0.7/rp_filter\" = 0\n");
    let plan = tree.plan_with(&profile, &["a/../../x", "a..b", "net.ipv4.conf.eth0/8.rp_filter"]);
    assert_eq!(wants(&plan, "proc/sys/vm/swappiness"), Some("1"));
    for name in ["eth0.7", "eth0.8"] {
        assert!(wants(&plan, &format!("proc/sys/net/ipv4/conf/{name}/rp_filter")).is_some(), "{:?}", plan.changes);
    }
    assert!(is_left_out(&plan, "a/../../x", "no name") && is_left_out(&plan, "a..b", "no name"), "{:?}", plan.left_out);
    assert!(plan.changes.iter().all(|change| !change.path.contains("..")));
}

#[test]
fn a_cards_queues_are_dealt_as_the_placement_says() {
    let tree = Tree::new("card");
    let plan = tree.plan(&format!(
        "{SMALL}[nic]\nxps = true\nrps = false\nrfs_entries = 4096\nrx_ring = 2048\ntx_ring = 512\n\
         gro_flush_timeout_ns = 200000\nnapi_defer_hard_irqs = 2\n"
    ));
    // Shards are on cores 2 to 5; the card is on node 0, so that 2 and 3 come first.
    for (path, want) in [
        ("proc/sys/net/core/rps_sock_flow_entries", "4096"),
        ("sys/class/net/eth0", "rx 1024 tx 512"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
        ("sys/class/net/eth0/queues/rx-1/rps_flow_cnt", "2048"),
        ("sys/class/net/eth0/queues/tx-0/xps_cpus", "14"),
        ("sys/class/net/eth0/queues/tx-1/xps_cpus", "28"),
        ("sys/class/net/eth0/gro_flush_timeout", "200000"),
        ("sys/class/net/eth0/napi_defer_hard_irqs", "2"),
    ] {
        assert_eq!(wants(&plan, path), Some(want), "{path}: {:#?}", plan.changes);
    }
    assert!(is_left_out(&plan, "rings of eth0", "rx 1024"), "{:?}", plan.left_out);
    let place_of = |path: &str| plan.changes.iter().position(|change| change.path == path).unwrap();
    let first = place_of("proc/irq/40/smp_affinity_list").min(place_of("proc/irq/9/smp_affinity_list"));
    assert!(place_of("sys/class/net/eth0") < first, "new rings may mean new interrupts");
    let plan = tree.plan(&format!("{SMALL}[nic]\nrps = true\n"));
    assert_eq!(wants(&plan, "sys/class/net/eth0/queues/rx-0/rps_cpus"), Some("1"));
    let plan = tree.plan(&format!("{SMALL}[nic]\ninterfaces = \"ens*\"\nxps = true\n"));
    assert!(is_left_out(&plan, "ens*", "no card"), "{:?}", plan.left_out);
}

#[test]
fn only_data_cores_are_kept_awake() {
    let tree = Tree::new("power");
    let plan = tree.plan(&format!(
        "{}[power]\ngovernor = \"performance\"\nidle_us_max = 1\n",
        SMALL.replace("data = \"2-5\"", "data = \"2-3\"")
    ));
    let cpu = "sys/devices/system/cpu";
    assert_eq!(wants(&plan, &format!("{cpu}/cpufreq/policy0/scaling_governor")), Some("performance"));
    assert_eq!(wants(&plan, &format!("{cpu}/cpufreq/policy4/scaling_governor")), None);
    let disabled: Vec<&str> =
        plan.changes.iter().map(|change| change.path.as_str()).filter(|path| path.ends_with("disable")).collect();
    assert_eq!(disabled, [2, 3].map(|core| format!("{cpu}/cpu{core}/cpuidle/state2/disable")));
    let place_of = |name: &str| plan.changes.iter().position(|change| change.path.ends_with(name)).unwrap();
    assert!(
        place_of("energy_performance_preference") < place_of("scaling_governor"),
        "so that undo meets the old governor"
    );
    let plan = tree.plan(&format!("{SMALL}[power]\ngovernor = \"schedutil\"\n"));
    assert!(is_left_out(&plan, "schedutil", "performance powersave"), "{:?}", plan.left_out);
}

#[test]
fn a_partition_leaves_a_core_to_the_system_or_is_none() {
    let tree = Tree::new("partition");
    let service = "etc/systemd/system/spinetail.service.d/50-host.conf";
    let slice = "etc/systemd/system/spinetail.slice.d/50-host.conf";
    let partition = "[kernel]\npartition = true\n";
    let plan = tree.plan(&format!("{SMALL}{partition}"));
    let text = wants(&plan, service).unwrap();
    assert!(text.contains("\nCPUAffinity=1-5\n") && text.contains("\nSlice=spinetail.slice\n"), "{text}");
    assert!(text.contains("\nExecStartPre=-+/bin/sh -c 'echo isolated > /sys/fs/cgroup/spinetail.slice/"), "{text}");
    assert!(text.contains("\nLimitMEMLOCK=67108864\n"), "{text}");
    assert!(wants(&plan, slice).unwrap().contains("\nAllowedCPUs=1-5\n"));
    // Two cores of housekeeping hold threads that somebody has to balance.
    let plan = tree.plan(&format!("{}{partition}", SMALL.replace("housekeeping = \"1\"", "housekeeping = \"1,6\"")));
    assert!(wants(&plan, service).unwrap().contains("'echo root > "));
    let all =
        SMALL.replace("data = \"2-5\"", "data = \"2-7\"").replace("housekeeping = \"1\"", "housekeeping = \"0-1\"");
    let plan = tree.plan(&format!("{all}{partition}"));
    assert!(is_left_out(&plan, "kernel.partition", "core of its own"), "{:?}", plan.left_out);
    assert!(wants(&plan, slice).is_none() && !wants(&plan, service).unwrap().contains("Slice="));
    // Nobody keeps house: its threads run beside the shards, on any core that is left.
    let plan = tree.plan(&format!("{}{partition}", SMALL.replace("housekeeping = \"1\"\n", "")));
    let roomy = plan.changes.iter().find(|change| change.path == service).map(|change| change.want.clone()).unwrap();
    assert!(roomy.contains("\nCPUAffinity=0-7\n") && !roomy.contains("Slice="), "{roomy}");
    assert!(is_left_out(&plan, "kernel.partition", "cores.housekeeping is empty"), "{:?}", plan.left_out);
    fs::remove_dir_all(tree.0.join("etc")).unwrap();
    let plan = tree.plan(&format!("{SMALL}{partition}"));
    assert!(is_left_out(&plan, "kernel.partition", "no systemd"), "{:?}", plan.left_out);
    assert!(wants(&plan, service).is_none());
}

#[test]
fn every_core_a_shard_leaves_interrupts_where_they_are() {
    let tree = Tree::new("full");
    let plan = tree
        .plan("[machine]\nname = \"t\"\n[cores]\ndata = \"0-7\"\n[memory]\nper_shard = \"64MiB\"\npages = \"4KiB\"\n");
    assert!(is_left_out(&plan, "interrupts", "every core"), "{:?}", plan.left_out);
    assert!(plan.changes.iter().all(|change| !change.path.starts_with("proc/irq")));
}

#[test]
fn the_command_line_is_compared_word_by_word() {
    let tree = Tree::new("words");
    let plan = tree
        .plan(&format!("{SMALL}[kernel]\ncmdline = [\"nohz_full={{data}}\", \"quiet\", \"irqaffinity={{irq}}\"]\n"));
    assert_eq!(plan.command_line.missing, ["nohz_full=2-5", "irqaffinity=0"]);
    assert_eq!(plan.command_line.replaced, ["nohz_full=5"]);
}

#[test]
fn irqbalance_is_told_of() {
    let tree = Tree::new("balance");
    assert!(tree.plan(SMALL).notes.is_empty());
    tree.put("proc/77/comm", "irqbalance\n");
    assert!(tree.plan(SMALL).notes[0].contains("process 77"));
}

#[test]
fn a_plan_made_after_apply_is_the_plan_made_before() {
    use crate::host::tune::apply::{Apply, apply};
    use crate::host::tune::journal::Lock;
    let tree = Tree::new("again");
    fs::remove_file(tree.0.join("spinetail/ethtool/eth0")).unwrap(); // rings have no file that could be written
    let profile = format!(
        "{}[nic]\nxps = true\nrps = false\n[power]\ngovernor = \"performance\"\nidle_us_max = 1\n[kernel]\npartition = true\n\
         [sysctl]\n\"vm.swappiness\" = 1\n",
        SMALL.replace("4KiB", "2MiB")
    );
    let before = tree.plan(&profile);
    let lock = Lock::take(&tree.0).unwrap();
    let what = Apply { root: &tree.0, rings: &NoRings, profile: "t", changes: &before.changes, now_s: 1 };
    let report = apply(&lock, what).unwrap();
    assert_eq!(report.troubles().count(), 0, "{report:#?}");
    assert_eq!(tree.plan(&profile), before);
}

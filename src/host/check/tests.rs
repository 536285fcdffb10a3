//! Tests of `check`: each line as wanted, at a price, and refused, on the recorded machines.

use std::path::Path;

use super::*;
use crate::host::calibration::Figures;
use crate::host::files::Files;
use crate::host::memory::PageWish;
use crate::host::placement::place;
use crate::host::process::Limits;
use crate::host::profile::{CoreWish, Io, MemoryWish, Poll, Profile};
use crate::host::topology::{Topology, TransparentMode};

fn files(name: &str) -> Files {
    Files::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host").join(name)).unwrap()
}

fn recorded(name: &str) -> Topology {
    Topology::read(&files(name)).unwrap()
}

fn generous(machine: &Topology) -> Limits {
    Limits { memlock_bytes: None, nofile: 1 << 20, allowed_cores: machine.core_ids(), io_uring: Ok(()) }
}

/// Two sockets, the profile detected on them, and limits that allow all of it.
fn two_sockets() -> (Topology, Limits, Profile) {
    let machine = recorded("two-socket-smt");
    let limits = generous(&machine);
    let profile = Profile::auto(&machine, &limits.allowed_cores);
    (machine, limits, profile)
}

fn lines_with(machine: &Topology, limits: &Limits, profile: &Profile, figures: Option<&Figures>) -> Vec<Line> {
    let files = files("two-socket-smt");
    check(&Subject { machine, files: &files, limits, profile, figures }).unwrap()
}

fn lines(machine: &Topology, limits: &Limits, profile: &Profile) -> Vec<Line> {
    lines_with(machine, limits, profile, None)
}

fn line(item: &str, machine: &Topology, limits: &Limits, profile: &Profile) -> Line {
    lines(machine, limits, profile).into_iter().find(|line| line.item == item).unwrap()
}

fn list(cores: &[usize]) -> CoreWish {
    CoreWish::List(cores.to_vec())
}

#[test]
fn tuned_machine_scores_in_full() {
    let (mut machine, limits, profile) = two_sockets();
    machine.swap_bytes = 0;
    machine.isolated = (1..16).chain(17..32).collect();
    machine.cores.iter_mut().for_each(|core| core.governor = Some("performance".to_owned()));
    machine
        .nics
        .iter_mut()
        .flat_map(|nic| &mut nic.irqs)
        .for_each(|irq| (irq.affinity, irq.effective) = (vec![0], vec![0]));
    let found = lines(&machine, &limits, &profile);
    let faults: Vec<&Line> = found.iter().filter(|line| line.verdict != Verdict::Ok).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(score(&found), (found.len(), found.len()));
}

#[test]
fn every_fault_has_a_cost_and_a_remedy_and_nothing_else_has() {
    let (machine, limits, profile) = two_sockets();
    let vm = recorded("vm-2core");
    let poor = Limits { memlock_bytes: Some(0), nofile: 100, allowed_cores: vec![], io_uring: Err("why: how".into()) };
    let of_vm = Profile::auto(&vm, &[]);
    for found in [lines(&machine, &limits, &profile), lines(&vm, &poor, &of_vm), lines(&machine, &poor, &profile)] {
        for line in &found {
            assert_eq!(line.verdict == Verdict::Ok, line.cost.is_empty(), "{line:?}");
            assert_eq!(line.verdict == Verdict::Ok, line.remedy.is_empty(), "{line:?}");
            assert!(!line.have.is_empty() && !line.want.is_empty(), "{line:?}");
        }
        let (ok, total) = score(&found);
        assert!(ok < total);
    }
}

#[test]
fn recorded_faults_are_found() {
    let (machine, limits, profile) = two_sockets();
    let faults: Vec<String> = lines(&machine, &limits, &profile)
        .into_iter()
        .filter(|line| line.verdict == Verdict::Costs)
        .map(|line| line.item)
        .collect();
    assert_eq!(
        faults,
        [
            "siblings of data cores",
            "isolated cores",
            "frequency governor",
            "swap",
            "ens1f0np0: interrupts",
            "ens2f0: interrupts"
        ]
    );
}

#[test]
fn missing_io_uring_costs_or_refuses_as_the_profile_says() {
    let (machine, mut limits, mut profile) = two_sockets();
    limits.io_uring = Err("the reason: the remedy".to_owned());
    let verdict = |profile: &Profile| line("io_uring", &machine, &limits, profile);
    assert_eq!(verdict(&profile).verdict, Verdict::Costs);
    assert!(verdict(&profile).cost.contains("10 %"));
    assert_eq!(verdict(&profile).remedy, "the reason: the remedy");
    profile.network.io = Io::IoUring;
    assert_eq!(verdict(&profile).verdict, Verdict::Refused);
    profile.network.io = Io::Epoll;
    assert_eq!(verdict(&profile).verdict, Verdict::Ok);
}

#[test]
fn profile_that_cannot_be_placed_is_refused_before_any_line() {
    let (machine, limits, mut profile) = two_sockets();
    profile.cores.data = list(&[7, 99]);
    let files = files("two-socket-smt");
    let subject = Subject { machine: &machine, files: &files, limits: &limits, profile: &profile, figures: None };
    let error = check(&subject).unwrap_err();
    assert!(error.to_string().starts_with("cores.data: core 99 is not online"), "{error}");
}

#[test]
fn another_kind_of_machine_costs_a_line() {
    let (machine, limits, mut profile) = two_sockets();
    assert_eq!(line("kind of machine", &machine, &limits, &profile).verdict, Verdict::Ok);
    profile.matches.sockets = Some(1);
    let line = line("kind of machine", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.cost.contains("sockets is 2"), "{line:?}");
}

#[test]
fn cards_are_held_against_their_wishes_queue_by_queue() {
    let (mut machine, limits, mut profile) = two_sockets();
    profile.nic.xps = true;
    profile.nic.rps = Some(false);
    profile.nic.rx_ring = Some(100_000);
    profile.nic.gro_flush_timeout_ns = Some(200_000);
    profile.nic.busy_poll_us = Some(50);
    profile.nic.rfs_entries = Some(0);
    let found = |machine: &Topology, what: &str| line(&format!("ens1f0np0: {what}"), machine, &limits, &profile);
    let of_card = |machine: &Topology| {
        ["interrupts", "send queues (XPS)", "receive steering (RPS)", "rings", "deferred interrupts"]
            .map(|what| found(machine, what).verdict)
    };
    use Verdict::{Costs, Ok};
    assert_eq!(of_card(&machine), [Costs, Costs, Ok, Costs, Costs]);
    // More than the card has cannot be had.
    let rings = machine.nic("ens1f0np0").unwrap().rings.unwrap();
    assert!(rings.rx < rings.rx_max && rings.rx_max < 100_000);
    assert!(found(&machine, "rings").want.contains(&format!("rx {}", rings.rx_max)));

    let placed = place(&machine, &limits.allowed_cores, &profile).unwrap();
    let place = placed.nics.iter().find(|nic| nic.name == "ens1f0np0").unwrap();
    let nic = machine.nics.iter_mut().find(|nic| nic.name == "ens1f0np0").unwrap();
    nic.irqs.iter_mut().for_each(|irq| (irq.affinity, irq.effective) = (vec![0], vec![0]));
    // A move that waits for the next interrupt counts as made.
    nic.irqs[1].effective = vec![5];
    nic.rx_queues[1].rps_cpus = vec![3];
    nic.gro_flush_timeout_ns = Some(200_000);
    nic.rings.as_mut().unwrap().rx = rings.rx_max;
    for queue in &mut nic.tx_queues {
        queue.xps_cpus = place.queues[queue.index].xps_cores.clone();
    }
    assert_eq!(of_card(&machine), [Ok, Ok, Costs, Ok, Ok]);
    assert_eq!(found(&machine, "receive steering (RPS)").have, "rx-1: 3");
}

#[test]
fn housekeeping_is_missed() {
    let (machine, limits, mut profile) = two_sockets();
    assert_eq!(line("housekeeping cores", &machine, &limits, &profile).verdict, Verdict::Ok);
    profile.cores.housekeeping = CoreWish::default();
    assert_eq!(line("housekeeping cores", &machine, &limits, &profile).verdict, Verdict::Costs);
    // Interrupts still have somewhere to go.
    assert_eq!(line("interrupt cores", &machine, &limits, &profile).verdict, Verdict::Ok);
}

#[test]
fn sibling_with_a_job_of_its_own_is_named() {
    let (machine, limits, mut profile) = two_sockets();
    profile.cores.data = list(&[1, 17]);
    profile.cores.siblings = true;
    let line = line("siblings of data cores", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.remedy.contains("take 1,17 out"), "{line:?}");
}

#[test]
fn a_calibrated_cost_says_when_it_was_measured() {
    let (mut machine, limits, mut profile) = two_sockets();
    profile.network.poll = Poll::Park;
    profile.memory.bind = false;
    machine.clocksource = Some("acpi_pm".to_owned());
    let figures = Figures {
        taken: "2026-01-02T03:04:05Z".to_owned(),
        wake_us: Some(58.4),
        dram_ns: Some(96.0),
        dram_remote_ns: Some(161.0),
        clock_ns: Some(740.0),
        ..Figures::default()
    };
    let with = lines_with(&machine, &limits, &profile, Some(&figures));
    let without = lines(&machine, &limits, &profile);
    for (item, says) in [
        ("poll mode", "a wake-up, 58 µs"),
        ("memory per node", "65 ns more for each load"),
        ("clock source", "740 ns for each reading"),
    ] {
        let find = |lines: &[Line]| lines.iter().find(|line| line.item == item).unwrap().clone();
        let (with, without) = (find(&with), find(&without));
        assert!(with.cost.contains(says), "{with:?}");
        assert_eq!(with.source, Source::Calibrated("2026-01-02T03:04:05Z".to_owned()));
        assert!(with.cost_text().ends_with("(measured here, 2026-01-02T03:04:05Z)"), "{}", with.cost_text());
        assert!(matches!(without.source, Source::NotMeasured | Source::Measured(_)), "{without:?}");
    }
}

#[test]
fn no_number_stands_without_a_source() {
    let (machine, limits, profile) = two_sockets();
    let vm = recorded("vm-2core");
    let poor = Limits { memlock_bytes: Some(0), nofile: 100, allowed_cores: vec![], io_uring: Err("why: how".into()) };
    for line in [lines(&machine, &limits, &profile), lines(&vm, &poor, &Profile::auto(&vm, &[]))].concat() {
        if line.source == Source::NotMeasured {
            let has_figure = line.cost.split_whitespace().any(|word| word.parse::<f64>().is_ok());
            assert!(!has_figure || line.cost.contains("4 KiB"), "{line:?}");
        }
    }
}

#[test]
fn parameters_and_command_line_are_compared_word_by_word() {
    let (mut machine, limits, mut profile) = two_sockets();
    profile.sysctl = [("no.such.parameter".to_owned(), "1".to_owned())].into();
    let unknown = line("no.such.parameter", &machine, &limits, &profile);
    assert_eq!((unknown.verdict, &unknown.have[..]), (Verdict::Ok, "not recorded"));
    profile.sysctl = [("vm.swapiness".to_owned(), "1".to_owned())].into();
    let misspelt = line("vm.swapiness", &machine, &limits, &profile);
    assert_eq!((misspelt.verdict, &misspelt.remedy[..]), (Verdict::Costs, "did you mean vm.swappiness?"));
    profile.kernel.cmdline = vec!["nohz_full={data}".to_owned(), "nosmt".to_owned()];
    machine.command_line = Some("quiet nohz_full=1-15 nosmt=force".to_owned());
    let missing = line("kernel command line", &machine, &limits, &profile);
    assert_eq!((missing.verdict, &missing.have[..]), (Verdict::Costs, "1 of 2 words"));
    assert!(missing.remedy.ends_with(": nosmt"), "{missing:?}");
    machine.command_line = Some("nosmt nohz_full=1-15".to_owned());
    assert_eq!(line("kernel command line", &machine, &limits, &profile).verdict, Verdict::Ok);
}

#[test]
fn cores_not_isolated_are_named() {
    let (mut machine, limits, profile) = two_sockets();
    machine.isolated = (1..15).collect();
    let line = line("isolated cores", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert_eq!(line.remedy, "boot with isolcpus=15 nohz_full=15, or set kernel.partition = true and apply");
}

#[test]
fn nobody_is_told_to_isolate_the_boot_core() {
    let (mut machine, limits, mut profile) = two_sockets();
    machine.isolated = vec![];
    profile.cores.data = list(&[0, 2]);
    profile.cores.housekeeping = list(&[1]);
    let remedy = line("isolated cores", &machine, &limits, &profile).remedy;
    assert_eq!(
        remedy,
        "move the shard from core 0 to another core; boot with isolcpus=2 nohz_full=2, or set kernel.partition = true and apply"
    );
}

#[test]
fn quota_below_the_shards_costs_the_rest_of_its_period() {
    let vm = recorded("vm-2core");
    let limits = generous(&vm);
    let mut profile = Profile::auto(&vm, &limits.allowed_cores);
    assert_eq!(line("core time quota", &vm, &limits, &profile).verdict, Verdict::Ok);
    profile.cores.data = list(&[0, 1]);
    let line = line("core time quota", &vm, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.cost.contains("100 ms"), "{line:?}");
}

#[test]
fn memory_beyond_what_is_free_costs() {
    let (machine, limits, mut profile) = two_sockets();
    profile.memory.total = Some(MemoryWish::Bytes(120 << 30));
    assert_eq!(line("memory", &machine, &limits, &profile).verdict, Verdict::Costs);
    profile.memory.total = Some(MemoryWish::Bytes(1 << 30));
    assert_eq!(line("memory", &machine, &limits, &profile).verdict, Verdict::Ok);
}

#[test]
fn node_that_cannot_hold_its_share_costs_where_that_is_allowed() {
    let (machine, limits, mut profile) = two_sockets();
    assert_eq!(line("memory per node", &machine, &limits, &profile).verdict, Verdict::Ok);
    profile.cores.data = list(&[1, 2, 3]);
    profile.memory.total = Some(MemoryWish::Bytes(90 << 30));
    assert!(profile.memory.remote, "auto runs anywhere");
    assert_eq!(line("memory per node", &machine, &limits, &profile).verdict, Verdict::Costs);
}

#[test]
fn short_huge_pages_are_asked_for_where_they_lack() {
    let (machine, limits, mut profile) = two_sockets();
    profile.memory.pages = PageWish::Huge2M;
    let line = line("2 MiB pages set aside", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    // 280 wanted on node 1, where 256 of 512 are free: 24 more.
    assert_eq!((&line.have[..], &line.want[..]), ("node 0: 512, node 1: 256", "node 0: 245, node 1: 280"));
    assert!(
        line.remedy.starts_with("'spinetail host apply', or write 536 to") && line.remedy.contains("node1"),
        "{line:?}"
    );
    assert!(!line.remedy.contains("node0"), "{line:?}");
    // Enough, and all held: most likely by the server that runs. Nobody is told to double them.
    let mut held = machine.clone();
    held.nodes.iter_mut().for_each(|node| node.huge_pages_free = 0);
    let line = self::line("2 MiB pages set aside", &held, &limits, &profile);
    assert!(line.have.ends_with("in all, none free") && !line.remedy.contains("write"), "{line:?}");
}

#[test]
fn transparent_pages_set_to_never_cost_only_those_who_want_them() {
    let (mut machine, limits, mut profile) = two_sockets();
    machine.transparent = Some(TransparentMode::Never);
    assert_eq!(line("transparent huge pages", &machine, &limits, &profile).verdict, Verdict::Costs);
    profile.memory.pages = PageWish::Small;
    assert_eq!(line("transparent huge pages", &machine, &limits, &profile).verdict, Verdict::Ok);
}

#[test]
fn locked_memory_below_one_executor_costs_a_ring_and_refuses_who_demands_it() {
    let (machine, mut limits, mut profile) = two_sockets();
    for (kib, auto, demanded, epoll) in [
        (0, Verdict::Costs, Verdict::Refused, Verdict::Ok),
        (511, Verdict::Costs, Verdict::Refused, Verdict::Ok),
        (512, Verdict::Costs, Verdict::Costs, Verdict::Ok),
        (512 * 15, Verdict::Ok, Verdict::Ok, Verdict::Ok),
    ] {
        limits.memlock_bytes = Some(kib << 10);
        for (io, verdict) in [(Io::Auto, auto), (Io::IoUring, demanded), (Io::Epoll, epoll)] {
            profile.network.io = io;
            assert_eq!(line("locked memory", &machine, &limits, &profile).verdict, verdict, "{kib} KiB, {io:?}");
        }
    }
}

#[test]
fn few_files_cost_connections() {
    let (machine, mut limits, profile) = two_sockets();
    limits.nofile = 2024;
    let line = line("open files", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.cost.contains("1000 connections"), "{line:?}");
}

#[test]
fn verdicts_are_named_alike_in_tables_and_json() {
    for verdict in [Verdict::Ok, Verdict::Costs, Verdict::Refused] {
        assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{}\"", verdict.name()));
    }
}

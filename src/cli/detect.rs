//! `spinetail host detect`: what this machine is, printed for people or as JSON, and recorded for others.
//!
//!   facts ── sockets → dies → complexes → cores ── caches ── clocks ── nodes ── network ── disks ── profile
//!
//! What is alike is said once: a machine of 256 cores fits a screen or two.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use spinetail::base::units::format_bytes;
use spinetail::host::files::Files;
use spinetail::host::probe::IoUringFeatures;
use spinetail::host::process::Limits;
use spinetail::host::check;
use spinetail::host::placement::place;
use spinetail::host::profile::{Poll, Profile, SHIPPED};
use spinetail::host::topology::{
    CacheKind, Core, CoreKind, Disk, Hierarchy, Nic, Node, Topology, TransparentMode, format_cpu_list,
};

use crate::cli::host::{EXIT_FAILED, print};

/// Print what this machine has, and write a profile for it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  spinetail host detect --write my.toml\n  \
    spinetail host detect --record my.tree      (look through it before you send it: it names devices and boot options)\n  \
    spinetail host detect --root my.tree")]
pub struct DetectArguments {
    /// Write the detected profile to FILE, replacing what is there
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read another machine: a directory that holds its sys and proc, or a recording
    #[arg(long, value_name = "DIR|FILE", default_value = "/")]
    root: PathBuf,
    /// Record every file that was read, and what the cards' drivers answered, in FILE
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// What is true of this process and its kernel, and of no recorded machine.
struct Process {
    limits: Limits,
    io_uring: IoUringFeatures,
}

/// Runs the command. The error is an exit status and the reason.
pub fn run(arguments: &DetectArguments) -> Result<(), (u8, String)> {
    let failed = |reason| (EXIT_FAILED, reason);
    let files = Files::open(&arguments.root).map_err(failed)?.remembering();
    let machine = Topology::read(&files).map_err(failed)?;
    let process = files.live().then(|| Process { limits: Limits::read(), io_uring: IoUringFeatures::read() });
    let allowed = match &process {
        Some(process) => process.limits.allowed_cores.clone(),
        None => machine.control_group.cpuset.clone().unwrap_or_else(|| machine.core_ids()),
    };
    let profile = Profile::auto(&machine, &allowed);
    if arguments.record.is_some() {
        // So that the recording can be checked against any profile that is shipped.
        let shipped = SHIPPED.iter().filter_map(|(_, text)| Profile::parse(text).ok());
        shipped.flat_map(|shipped| shipped.sysctl.into_keys()).for_each(|name| drop(check::parameter(&files, &name)));
    }
    let mut written = String::new();
    for (path, what, text) in [
        (&arguments.write, "profile", profile.to_toml_text()),
        (&arguments.record, "recording", files.recording().to_text()),
    ] {
        if let Some(path) = path {
            write(path, &text)?;
            let _ = writeln!(written, "\n{what} written to {}", path.display());
        }
    }
    if arguments.json {
        let (limits, io_uring) = process.map(|process| (process.limits, process.io_uring)).unzip();
        let all = json!({ "topology": machine, "limits": limits, "io_uring": io_uring, "profile": profile });
        return print(&format!("{all:#}\n"));
    }
    print(&format!("{}{written}", describe(&machine, process.as_ref(), &profile)))
}

fn write(path: &Path, text: &str) -> Result<(), (u8, String)> {
    std::fs::write(path, text).map_err(|error| (EXIT_FAILED, format!("{} cannot be written: {error}", path.display())))
}

fn describe(machine: &Topology, process: Option<&Process>, profile: &Profile) -> String {
    let mut text = String::new();
    for (name, value) in facts(machine).into_iter().chain(process.map(process_facts).unwrap_or_default()) {
        let _ = writeln!(text, "{name:<18} {value}");
    }
    describe_cores(&mut text, machine);
    describe_power(&mut text, machine);
    text.push_str("\nnodes\n");
    for node in &machine.nodes {
        let _ = writeln!(text, "  {}", describe_node(node));
    }
    if !machine.nics.is_empty() {
        text.push_str("\nnetwork\n");
        for nic in &machine.nics {
            describe_nic(&mut text, nic);
        }
    }
    if !machine.disks.is_empty() {
        text.push_str("\ndisks\n");
        for disk in &machine.disks {
            let _ = writeln!(text, "  {}", describe_disk(disk));
        }
    }
    let shipped = Profile::shipped_for(machine);
    let shipped = if shipped.is_empty() { "none".to_owned() } else { shipped.join(", ") };
    let _ = writeln!(text, "\nshipped profiles for such a machine: {shipped}");
    let allowed = process.map(|process| process.limits.allowed_cores.clone()).unwrap_or_default();
    let Ok(placed) = place(machine, &allowed, profile) else { return text };
    let _ = writeln!(
        text,
        "profile 'auto': shards on {}, housekeeping on {}, {} in {} pages, {}",
        list(&placed.data_cores()),
        list(&placed.housekeeping),
        format_bytes(placed.memory_bytes),
        profile.memory.pages.name(),
        match profile.network.poll {
            Poll::Spin => "spinning",
            Poll::Adaptive => "spinning while busy",
            Poll::Park => "parking when idle",
        }
    );
    text
}

fn facts(machine: &Topology) -> Vec<(&'static str, String)> {
    let physical = machine.one_per_physical_core(&machine.core_ids()).len();
    let system = [&machine.system_vendor, &machine.system_product].into_iter().flatten().cloned();
    let system = system.collect::<Vec<_>>().join(" ");
    let virtualised = match (&machine.hypervisor, machine.virtualised) {
        (Some(name), true) => format!("yes, {name}"),
        (_, yes) => if yes { "yes" } else { "no" }.to_owned(),
    };
    let steal = machine.steal_share.map_or("not shown".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let threads = match machine.smt_active {
        Some(true) => ", several threads a core",
        Some(false) => ", one thread a core",
        None => "",
    };
    let counter = match machine.invariant_tsc {
        Some(true) => "at one rate",
        Some(false) => "at a rate that changes",
        None => "not shown",
    };
    let others = machine.clocksources_available.iter().filter(|name| Some(*name) != machine.clocksource.as_ref());
    let others = others.cloned().collect::<Vec<_>>().join(", ");
    let others = if others.is_empty() { others } else { format!(" (also {others})") };
    let transparent = match machine.transparent {
        Some(TransparentMode::Always) => "always",
        Some(TransparentMode::Madvise) => "madvise",
        Some(TransparentMode::Never) => "never",
        None => "not in this kernel",
    };
    let number = |number: Option<u64>, unit: &str| number.map_or("not shown".to_owned(), |n| format!("{n}{unit}"));
    vec![
        ("processor", or_not_shown(&machine.cpu_model)),
        ("architecture", machine.architecture.clone()),
        ("system", if system.is_empty() { "not shown".to_owned() } else { system }),
        ("kernel", or_not_shown(&machine.kernel)),
        ("command line", or_not_shown(&machine.command_line)),
        ("virtual", virtualised),
        ("stolen since boot", steal),
        ("cores", format!("{} ({physical} physical{threads})", list(&machine.core_ids()))),
        ("offline", list(&machine.offline)),
        ("isolated", list(&machine.isolated)),
        ("nohz_full", list(&machine.nohz_full)),
        ("memory", format!("{}, {} available", size(machine.memory_total_bytes), size(machine.memory_available_bytes))),
        ("swap", if machine.swap_bytes == 0 { "off".to_owned() } else { format_bytes(machine.swap_bytes) }),
        ("transparent pages", transparent.to_owned()),
        ("clock source", format!("{}{others}", or_not_shown(&machine.clocksource))),
        ("counter", counter.to_owned()),
        ("control group", describe_control_group(machine)),
        ("busy polling", {
            let (read, poll) = (number(machine.busy_read_us, " us"), number(machine.busy_poll_us, " us"));
            format!("read {read}, poll {poll}")
        }),
        ("flow steering", number(machine.rps_sock_flow_entries, " flows")),
    ]
}

fn describe_control_group(machine: &Topology) -> String {
    let group = &machine.control_group;
    let version = match group.hierarchy {
        Some(Hierarchy::Unified) => "version 2",
        Some(Hierarchy::Legacy) => "version 1",
        Some(Hierarchy::Hybrid) => "versions 1 and 2",
        None => return "none".to_owned(),
    };
    format!(
        "{version}: core time {}, memory {}, cores {}",
        group.cpu_cores.map_or("unlimited".to_owned(), |cores| format!("{cores:.2} cores")),
        group.memory_bytes.map_or("unlimited".to_owned(), format_bytes),
        group.cpuset.as_deref().map_or("not said".to_owned(), list)
    )
}

fn process_facts(process: &Process) -> Vec<(&'static str, String)> {
    let Process { limits, io_uring } = process;
    let said = |answers: &BTreeMap<&'static str, bool>| {
        let with = |wanted: bool| answers.iter().filter(move |(_, is)| **is == wanted).map(|(name, _)| *name);
        let without: Vec<&str> = with(false).collect();
        let missing = if without.is_empty() { String::new() } else { format!("; not {}", without.join(", ")) };
        format!("{}{missing}", with(true).collect::<Vec<_>>().join(", "))
    };
    let yes = |is: bool| if is { "yes" } else { "no" };
    vec![
        ("allowed cores", list(&limits.allowed_cores)),
        ("locked memory", limits.memlock_bytes.map_or("unlimited".to_owned(), format_bytes)),
        ("open files", limits.nofile.to_string()),
        ("io_uring", limits.io_uring.as_ref().map_or_else(Clone::clone, |()| "available".to_owned())),
        ("  switched off", io_uring.disabled.map_or("the kernel has no switch".to_owned(), |level| level.to_string())),
        ("  ring flags", said(&io_uring.setup)),
        ("  ring features", said(&io_uring.features)),
        ("  operations", said(&io_uring.operations)),
        ("  buffer rings", yes(io_uring.buffer_rings).to_owned()),
        ("  polls cards", yes(io_uring.napi).to_owned()),
    ]
}

/// Sockets, their dies, their complexes with physical cores (threads joined by +), then caches.
fn describe_cores(text: &mut String, machine: &Topology) {
    text.push('\n');
    for (package, die) in machine.dies() {
        if machine.dies().iter().find(|(other, _)| *other == package) == Some(&(package, die)) {
            let _ = writeln!(text, "socket {package}");
        }
        let _ = writeln!(text, "  die {die}");
        for cores in machine.complexes() {
            let of: Vec<&Core> = cores.iter().filter_map(|id| machine.core(*id)).collect();
            let of: Vec<&Core> = of.into_iter().filter(|core| (core.package, core.die) == (package, die)).collect();
            if of.is_empty() {
                continue;
            }
            let nodes: BTreeSet<usize> = of.iter().map(|core| core.node).collect();
            let last = of[0].caches.iter().rfind(|cache| cache.kind != CacheKind::Instruction);
            let last = last.map_or(String::new(), |cache| format!(", L{} {}", cache.level, format_bytes(cache.bytes)));
            let nodes = format_cpu_list(&nodes.into_iter().collect::<Vec<_>>());
            let _ = writeln!(text, "    complex {} (node {nodes}{last})", of[0].complex);
            for kind in [CoreKind::Performance, CoreKind::Efficient, CoreKind::Alike] {
                let of_kind: Vec<usize> = of.iter().filter(|core| core.kind == kind).map(|core| core.id).collect();
                if of_kind.is_empty() {
                    continue;
                }
                let physical = machine.one_per_physical_core(&of_kind).into_iter().filter_map(|id| machine.core(id));
                let joined: Vec<String> = physical
                    .map(|core| {
                        let threads = [core.id].into_iter().chain(core.siblings.iter().copied());
                        threads.map(|id| id.to_string()).collect::<Vec<_>>().join("+")
                    })
                    .collect();
                let _ = writeln!(text, "      {:<12}{}", kind_name(kind), joined.join(" "));
            }
        }
    }
    // Instances of each cache: one has as many cores as it is shared by, its lowest core stands for it.
    let mut caches: BTreeMap<(u32, &str, u64, usize), BTreeSet<usize>> = BTreeMap::new();
    for core in &machine.cores {
        for cache in &core.caches {
            let kind = match cache.kind {
                CacheKind::Data => "data",
                CacheKind::Instruction => "instructions",
                CacheKind::Unified => "",
            };
            let lowest = cache.shared_with.iter().copied().chain([core.id]).min().unwrap_or(core.id);
            let key = (cache.level, kind, cache.bytes, cache.shared_with.len() + 1);
            caches.entry(key).or_default().insert(lowest);
        }
    }
    if !caches.is_empty() {
        text.push_str("\ncaches\n");
    }
    for ((level, kind, bytes, cores), instances) in caches {
        let size = format_bytes(bytes);
        let count = instances.len();
        let _ = writeln!(text, "  L{level} {kind:<13}{count:>4} × {size}, each for {cores} {}", plural(cores, "core"));
    }
}

fn kind_name(kind: CoreKind) -> &'static str {
    match kind {
        CoreKind::Performance => "performance",
        CoreKind::Efficient => "efficient",
        CoreKind::Alike => "cores",
    }
}

/// Clocks and idle states, once for all cores that have the same.
fn describe_power(text: &mut String, machine: &Topology) {
    let clocks = alike(machine.cores.iter().filter_map(|core| Some((core.frequency.as_ref()?, core.id))));
    let idle = machine.cores.iter().filter(|core| !core.idle_states.is_empty());
    let idle = alike(idle.map(|core| (&core.idle_states, core.id)));
    if clocks.is_empty() && idle.is_empty() {
        return;
    }
    text.push_str("\nclocks and idle states\n");
    let ghz = |khz: Option<u64>| khz.map_or("?".to_owned(), |khz| format!("{:.2}", khz as f64 / 1e6));
    for (frequency, cores) in clocks {
        let _ = writeln!(
            text,
            "  cores {}: {} {}, {} to {} of {} GHz{}",
            list(&cores),
            or_not_shown(&frequency.driver),
            or_not_shown(&frequency.governor),
            ghz(frequency.min_khz),
            ghz(frequency.max_khz),
            ghz(frequency.hardware_max_khz),
            frequency.epp.as_ref().map_or(String::new(), |epp| format!(", prefers {epp}"))
        );
    }
    for (states, cores) in idle {
        let states: Vec<String> = states
            .iter()
            .map(|state| {
                format!("{} {} µs{}", state.name, state.exit_latency_us, if state.disabled { " (off)" } else { "" })
            })
            .collect();
        let _ = writeln!(text, "  cores {}: {}", list(&cores), states.join(", "));
    }
}

fn describe_node(node: &Node) -> String {
    let distances: Vec<String> = node.distances.iter().map(|(to, distance)| format!("{to}:{distance}")).collect();
    format!(
        "node {}: cores {}, {} ({} free), 2 MiB pages {} of {} free, 1 GiB pages {} of {} free{}",
        node.id,
        list(&node.cores),
        size(node.memory_bytes),
        size(node.memory_free_bytes),
        node.huge_pages_free,
        node.huge_pages_total,
        node.giant_pages_free,
        node.giant_pages_total,
        if distances.is_empty() { String::new() } else { format!(", distances {}", distances.join(" ")) }
    )
}

fn describe_nic(text: &mut String, nic: &Nic) {
    let mut words = vec![nic.driver.clone().unwrap_or_else(|| "no device".to_owned())];
    words.extend(nic.node.map(|node| format!("node {node}")));
    words.push(if nic.up { "up" } else { "down" }.to_owned());
    words.extend(nic.speed_mbps.map(|speed| format!("{speed} Mb/s")));
    words.push(format!("packets of {} B", nic.mtu));
    let (receive, send) = (nic.rx_queues.len(), nic.tx_queues.len());
    words.push(format!("{receive} {} in, {send} out", plural(receive, "queue")));
    let _ = writeln!(text, "  {}: {}", nic.name, words.join(", "));
    if !nic.physical {
        return;
    }
    if let Some(rings) = nic.rings {
        let of = |have: u32, most: u32| format!("{have} of {most}");
        let (rx, tx) = (of(rings.rx, rings.rx_max), of(rings.tx, rings.tx_max));
        let _ = writeln!(text, "    rings       {rx} in, {tx} out");
    }
    if let Some(channels) = nic.channels {
        let kinds = [
            ("combined", channels.combined, channels.combined_max),
            ("in", channels.rx, channels.rx_max),
            ("out", channels.tx, channels.tx_max),
        ];
        let kinds = kinds.iter().filter(|(_, _, most)| *most > 0);
        let kinds: Vec<String> = kinds.map(|(kind, have, most)| format!("{have} of {most} {kind}")).collect();
        let _ = writeln!(text, "    channels    {}", kinds.join(", "));
    }
    if let Some(coalesce) = nic.coalesce {
        let adaptive = |is: bool| if is { " (adaptive)" } else { "" };
        let _ = writeln!(
            text,
            "    coalescing  {} µs in{}, {} µs out{}",
            coalesce.rx_usecs,
            adaptive(coalesce.adaptive_rx),
            coalesce.tx_usecs,
            adaptive(coalesce.adaptive_tx)
        );
    }
    if let Some(has) = nic.offloads {
        let all = [
            ("gro", has.gro),
            ("gso", has.gso),
            ("tso", has.tso),
            ("lro", has.lro),
            ("rx_csum", has.rx_csum),
            ("tx_csum", has.tx_csum),
            ("ntuple", has.ntuple),
        ];
        let of = |wanted: bool| {
            let names: Vec<&str> = all.iter().filter(|(_, is)| *is == wanted).map(|(name, _)| *name).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(" ") }
        };
        let _ = writeln!(text, "    offloads    on: {}; off: {}", of(true), of(false));
    }
    if let (Some(flush), Some(defer)) = (nic.gro_flush_timeout_ns, nic.napi_defer_hard_irqs) {
        let _ = writeln!(text, "    polling     {defer} empty polls before interrupts, packets joined for {flush} ns");
    }
    let handed = nic.rx_queues.iter().filter(|queue| !queue.rps_cpus.is_empty() || queue.rps_flow_cnt > 0);
    for ((cores, flows), queues) in alike(handed.map(|queue| ((&queue.rps_cpus, queue.rps_flow_cnt), queue.index))) {
        let _ = writeln!(text, "    queue {:<6}in: handed to cores {}, {flows} flows", list(&queues), list(cores));
    }
    let chosen = nic.tx_queues.iter().filter(|queue| !queue.xps_cpus.is_empty());
    for (cores, queues) in alike(chosen.map(|queue| (&queue.xps_cpus, queue.index))) {
        let _ = writeln!(text, "    queue {:<6}out: from cores {}", list(&queues), list(cores));
    }
    for irq in &nic.irqs {
        let queue = irq.queue.map_or(String::new(), |queue| format!(", queue {queue}"));
        let (may, does) = (list(&irq.affinity), list(&irq.effective));
        let _ = writeln!(text, "    irq {:<8}{}{queue}: core {does} of {may}", irq.number, irq.name);
    }
}

fn describe_disk(disk: &Disk) -> String {
    let mut words = Vec::new();
    words.extend(disk.model.clone());
    words.push(format_bytes(disk.bytes));
    words.extend(disk.node.map(|node| format!("node {node}")));
    words.push(format!("{} {}", disk.queues, plural(disk.queues, "queue")));
    words.extend(disk.scheduler.as_ref().map(|scheduler| format!("scheduler {scheduler}")));
    words.push(if disk.rotational { "rotational" } else { "not rotational" }.to_owned());
    format!("{}: {}", disk.name, words.join(", "))
}

/// Each value once, with the numbers of all that have it.
fn alike<T: PartialEq>(pairs: impl Iterator<Item = (T, usize)>) -> Vec<(T, Vec<usize>)> {
    let mut groups: Vec<(T, Vec<usize>)> = Vec::new();
    for (value, number) in pairs {
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, numbers)) => numbers.push(number),
            None => groups.push((value, vec![number])),
        }
    }
    groups
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or("not shown".to_owned(), format_bytes)
}

fn or_not_shown(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "not shown".to_owned())
}

fn list(cores: &[usize]) -> String {
    if cores.is_empty() { "none".to_owned() } else { format_cpu_list(cores) }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

//! The machine and the process against a profile, line by line: what there is, what is wanted,
//! what the difference costs and who can change it.
//!
//! A cost is a number only where this project has measured it; elsewhere it says so. An invented
//! percentage would be believed, and somebody would spend a day on it.

use serde::Serialize;

use crate::base::limits::CONNECTION_COUNT_MAX;
use crate::base::units::format_bytes;
use crate::host::memory::PageWish;
use crate::host::process::Limits;
use crate::host::profile::{Io, NodeShare, Poll, Profile};
use crate::host::topology::{Topology, TransparentMode, format_cpu_list};

/// Locked memory below which glommio 0.9 refuses to start an executor, in bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Files a process may need beside its connections: listeners, rings, logs, the control side.
const FILES_BESIDE_CONNECTIONS: u64 = 1024;

/// What stands where a cost is known to exist and its size is not.
const NOT_MEASURED: &str = "not measured here";

/// How a line came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As wanted.
    Ok,
    /// Works, at a price.
    Costs,
    /// Does not work: the appliance would not start, or not as the profile demands.
    Refused,
}

impl Verdict {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Costs => "costs",
            Verdict::Refused => "refused",
        }
    }
}

/// One line of the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at.
    pub item: String,
    /// What this machine has.
    pub have: String,
    /// What the profile wants.
    pub want: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What the difference costs; empty when there is none.
    pub cost: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

impl Line {
    fn ok(item: &str, have: impl Into<String>, want: impl Into<String>) -> Line {
        Line {
            item: item.to_owned(),
            have: have.into(),
            want: want.into(),
            verdict: Verdict::Ok,
            cost: String::new(),
            remedy: String::new(),
        }
    }

    fn costs(self, cost: impl Into<String>, remedy: impl Into<String>) -> Line {
        Line { verdict: Verdict::Costs, cost: cost.into(), remedy: remedy.into(), ..self }
    }

    fn refused(self, cost: impl Into<String>, remedy: impl Into<String>) -> Line {
        Line { verdict: Verdict::Refused, ..self.costs(cost, remedy) }
    }
}

/// Holds `machine` and `limits` against `profile`. The same lines in the same order every time.
pub fn check(machine: &Topology, limits: &Limits, profile: &Profile) -> Vec<Line> {
    vec![
        io_uring(limits, profile),
        data_cores(machine, limits, profile),
        housekeeping_cores(machine, profile),
        siblings(machine, profile),
        isolation(machine, profile),
        core_quota(machine, profile),
        poll_mode(profile),
        governor(machine, profile),
        clock_source(machine),
        virtualisation(machine),
        memory(machine, profile),
        node_memory(machine, profile),
        huge_pages(machine, profile),
        transparent_pages(machine, profile),
        swap(machine),
        locked_memory(limits, profile),
        open_files(limits, profile),
    ]
}

/// Lines that are as wanted, and all of them.
pub fn score(lines: &[Line]) -> (usize, usize) {
    (lines.iter().filter(|line| line.verdict == Verdict::Ok).count(), lines.len())
}

fn io_uring(limits: &Limits, profile: &Profile) -> Line {
    let have = if limits.io_uring.is_ok() { "available" } else { "not available" };
    match (&limits.io_uring, profile.network.io) {
        (_, Io::Epoll) => Line::ok("io_uring", have, "not wanted"),
        (Ok(()), _) => Line::ok("io_uring", have, "available"),
        (Err(refusal), Io::Auto) => Line::ok("io_uring", have, "available")
            .costs("epoll instead: at most 10 % more core time per request", refusal.clone()),
        (Err(refusal), Io::IoUring) => Line::ok("io_uring", have, "available")
            .refused("no start: network.io demands it", format!("{refusal}; or set network.io = \"auto\"")),
    }
}

fn data_cores(machine: &Topology, limits: &Limits, profile: &Profile) -> Line {
    let data = &profile.cores.data;
    let allowed: Vec<usize> = limits.allowed_cores.iter().copied().filter(|&id| machine.core(id).is_some()).collect();
    let have = format!("may run on {}", or_none(&allowed));
    let line = Line::ok("data cores", have, format_cpu_list(data));
    if data.is_empty() {
        return line.refused("no start: no shard has a core", "name cores in cores.data");
    }
    let absent: Vec<usize> = data.iter().copied().filter(|&id| machine.core(id).is_none()).collect();
    if !absent.is_empty() {
        let remedy = format!("take {} out of cores.data, or use the profile 'auto'", format_cpu_list(&absent));
        return line.refused("no start: such a core is not online", remedy);
    }
    let forbidden: Vec<usize> = data.iter().copied().filter(|id| !allowed.contains(id)).collect();
    if !forbidden.is_empty() {
        let remedy = format!("allow {} (taskset, cpuset, CPUAffinity=)", format_cpu_list(&forbidden));
        return line.refused("no start: a shard cannot be pinned there", remedy);
    }
    line
}

fn housekeeping_cores(machine: &Topology, profile: &Profile) -> Line {
    let (data, housekeeping) = (&profile.cores.data, &profile.cores.housekeeping);
    let line = Line::ok("housekeeping cores", or_none(housekeeping), "one or more apart from data cores");
    let absent: Vec<usize> = housekeeping.iter().copied().filter(|&id| machine.core(id).is_none()).collect();
    if !absent.is_empty() {
        let remedy = format!("take {} out of cores.housekeeping", format_cpu_list(&absent));
        return line.refused("no start: such a core is not online", remedy);
    }
    if housekeeping.iter().any(|id| data.contains(id)) {
        return line.refused("no start: a core has two jobs", "remove it from one of the two lists");
    }
    if housekeeping.is_empty() {
        let cost = format!("admin work interrupts shards: {NOT_MEASURED}");
        return line.costs(cost, "name a core in cores.housekeeping that is not in cores.data");
    }
    line
}

fn siblings(machine: &Topology, profile: &Profile) -> Line {
    let named = |id: &usize| profile.cores.data.contains(id) || profile.cores.housekeeping.contains(id);
    let mut siblings: Vec<usize> =
        profile.cores.data.iter().filter_map(|&id| machine.core(id)).flat_map(|core| core.siblings.clone()).collect();
    siblings.sort_unstable();
    siblings.dedup();
    let used: Vec<usize> = siblings.iter().copied().filter(named).collect();
    let open: Vec<usize> = siblings.iter().copied().filter(|id| !machine.isolated.contains(id)).collect();
    let shared_cost = format!("two threads share one physical core's caches and units: {NOT_MEASURED}");
    let have = if siblings.is_empty() { "none online".to_owned() } else { format_cpu_list(&siblings) };
    let line = Line::ok("siblings of data cores", have, "idle");
    if !used.is_empty() {
        line.costs(shared_cost, format!("take {} out of the profile's lists", format_cpu_list(&used)))
    } else if !open.is_empty() {
        let remedy = format!("switch SMT off, or boot with isolcpus={}", format_cpu_list(&open));
        line.costs(format!("whatever the kernel puts there; {shared_cost}"), remedy)
    } else {
        line
    }
}

fn isolation(machine: &Topology, profile: &Profile) -> Line {
    let open: Vec<usize> = profile.cores.data.iter().copied().filter(|id| !machine.isolated.contains(id)).collect();
    let line = Line::ok("isolated cores", or_none(&machine.isolated), format_cpu_list(&profile.cores.data));
    if open.is_empty() {
        return line;
    }
    // Core 0 boots the machine and keeps its time: the kernel wants at least that one for itself.
    let (boot, others): (Vec<usize>, Vec<usize>) = open.iter().partition(|&&id| id == 0);
    let list = format_cpu_list(&others);
    let mut steps = Vec::new();
    if !boot.is_empty() {
        steps.push("move the shard from core 0 to another core".to_owned());
    }
    if !others.is_empty() {
        steps.push(format!("boot with isolcpus={list} nohz_full={list}"));
    }
    line.costs(format!("other threads' time slices in the tail: {NOT_MEASURED}"), steps.join("; "))
}

fn core_quota(machine: &Topology, profile: &Profile) -> Line {
    let shards = profile.cores.data.len();
    let want = format!("none, or {shards} or more");
    let Some(quota) = machine.control_group.cpu_cores else { return Line::ok("core time quota", "none", want) };
    let line = Line::ok("core time quota", format!("{quota:.2} cores"), want);
    if quota >= shards as f64 {
        return line;
    }
    let cost = machine
        .control_group
        .cpu_period_us
        .map_or(format!("all threads are stopped when it is used up: {NOT_MEASURED}"), |period_us| {
            format!("all threads are stopped when it is used up, for up to {} ms", period_us / 1000)
        });
    line.costs(cost, format!("raise cpu.max (the container's CPU limit) to {shards} cores, or remove it"))
}

fn poll_mode(profile: &Profile) -> Line {
    match profile.network.poll {
        Poll::Spin => Line::ok("poll mode", "spin", "spin"),
        Poll::Adaptive => Line::ok("poll mode", "adaptive", "spin").costs(
            "a wake-up for the first request after a pause of 2 ms or more",
            "set network.poll = \"spin\" where data cores are the shards' own",
        ),
        Poll::Park => Line::ok("poll mode", "park", "spin").costs(
            "about 70 µs to wake an idle shard (measured on a 2-core virtual machine)",
            "set network.poll = \"spin\" where data cores are the shards' own",
        ),
    }
}

fn governor(machine: &Topology, profile: &Profile) -> Line {
    let mut governors: Vec<&str> =
        profile.cores.data.iter().filter_map(|&id| machine.core(id)?.governor.as_deref()).collect();
    governors.sort_unstable();
    governors.dedup();
    if governors.is_empty() {
        // Virtual machines show none, the host below decides; there is nothing to do from inside.
        return Line::ok("frequency governor", "not shown", "performance");
    }
    let line = Line::ok("frequency governor", governors.join(", "), "performance");
    if governors == ["performance"] {
        return line;
    }
    line.costs(
        format!("requests after a pause meet a slow core: {NOT_MEASURED}"),
        "cpupower frequency-set -g performance",
    )
}

fn clock_source(machine: &Topology) -> Line {
    let Some(source) = machine.clocksource.as_deref() else {
        return Line::ok("clock source", "not shown", "tsc");
    };
    let line = Line::ok("clock source", source, "tsc");
    match source {
        "tsc" | "arch_sys_counter" => line, // the second is ARM's, read without a system call like the first
        _ => line.costs(
            format!("each reading of the clock is slower: {NOT_MEASURED}"),
            "boot with clocksource=tsc; on a virtual machine ask for an invariant TSC",
        ),
    }
}

fn virtualisation(machine: &Topology) -> Line {
    let have = if machine.virtualised { "virtual machine" } else { "bare metal, as far as the processor tells" };
    let line = Line::ok("virtualisation", have, "bare metal");
    if !machine.virtualised {
        return line;
    }
    line.costs(
        format!("the hypervisor takes time (steal) and handles interrupts: {NOT_MEASURED}"),
        "a dedicated host, or virtual cores pinned one to one",
    )
}

fn memory(machine: &Topology, profile: &Profile) -> Line {
    let want_bytes = profile.memory.total_bytes;
    // Pages set aside are not among what the kernel calls available, though they are ours to take.
    let set_aside = match profile.memory.pages {
        PageWish::Huge2M => machine.nodes.iter().map(|node| node.huge_pages_free << 21).sum(),
        _ => 0u64,
    };
    let available = machine.memory_available_bytes.map(|bytes| bytes.saturating_add(set_aside));
    let bound = [machine.memory_total_bytes, machine.control_group.memory_bytes].into_iter().flatten().min();
    let have = available.or(bound).map_or("not shown".to_owned(), |bytes| {
        format!("{} available", format_bytes(bound.map_or(bytes, |bound| bound.min(bytes))))
    });
    let line = Line::ok("memory", have, format_bytes(want_bytes));
    if let Some(bound) = bound.filter(|&bound| want_bytes > bound) {
        let cost = format!("no start: the machine or its control group ends at {}", format_bytes(bound));
        return line.refused(cost, "lower memory.total");
    }
    if available.is_some_and(|available| want_bytes > available) {
        return line.costs("swapping, or the kernel kills a process", "lower memory.total or free memory");
    }
    line
}

fn node_memory(machine: &Topology, profile: &Profile) -> Line {
    if machine.nodes.len() == 1 {
        return Line::ok("memory per node", "1 node", "not needed");
    }
    let shares = profile.node_shares(machine);
    let size = |id: usize| machine.nodes.iter().find(|node| node.id == id).and_then(|node| node.memory_bytes);
    let list = |text: &dyn Fn(usize, u64) -> String| {
        shares.iter().map(|share| text(share.node, share.bytes)).collect::<Vec<_>>().join(", ")
    };
    let have = list(&|id, _| format!("node {id}: {}", size(id).map_or("not shown".to_owned(), format_bytes)));
    let want = list(&|id, bytes| format!("node {id}: {}", format_bytes(bytes)));
    let line = Line::ok("memory per node", have, want);
    let fits = shares.iter().all(|share| size(share.node).is_none_or(|bytes| share.bytes <= bytes));
    let remedy = "lower memory.total, or deal cores.data more evenly to the nodes";
    match (fits, profile.memory.bind) {
        (true, true) => line,
        (false, true) => line.refused("no start: memory is bound to its node", remedy),
        (false, false) => line.costs(format!("memory from the other node: {NOT_MEASURED}"), remedy),
        (true, false) => {
            line.costs(format!("nothing keeps memory on its node: {NOT_MEASURED}"), "set memory.bind = true")
        }
    }
}

fn huge_pages(machine: &Topology, profile: &Profile) -> Line {
    let free: u64 = machine.nodes.iter().map(|node| node.huge_pages_free).sum();
    if profile.memory.pages != PageWish::Huge2M {
        return Line::ok("2 MiB pages set aside", format!("{free} free"), "not wanted");
    }
    let shares = profile.node_shares(machine);
    let free_on = |id: usize| machine.nodes.iter().find(|node| node.id == id).map_or(0, |node| node.huge_pages_free);
    let have: Vec<String> =
        shares.iter().map(|share| format!("node {}: {}", share.node, free_on(share.node))).collect();
    let want: Vec<String> = shares.iter().map(|share| format!("node {}: {}", share.node, share.huge_pages())).collect();
    let line = Line::ok("2 MiB pages set aside", have.join(", "), want.join(", "));
    let short: Vec<_> = shares.iter().filter(|share| free_on(share.node) < share.huge_pages()).collect();
    if short.is_empty() {
        return line;
    }
    let write = |share: &NodeShare| {
        let path = format!("/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages", share.node);
        let total = machine.nodes.iter().find(|node| node.id == share.node).map_or(0, |node| node.huge_pages_total);
        format!("write {} to {path}", total + share.huge_pages() - free_on(share.node))
    };
    let remedy: Vec<String> = short.into_iter().map(write).collect();
    line.costs(format!("transparent or 4 KiB pages instead: {NOT_MEASURED}"), remedy.join("; "))
}

fn transparent_pages(machine: &Topology, profile: &Profile) -> Line {
    let have = match machine.transparent {
        Some(TransparentMode::Always) => "always",
        Some(TransparentMode::Madvise) => "madvise",
        Some(TransparentMode::Never) => "never",
        None => "not in this kernel",
    };
    if profile.memory.pages == PageWish::Small {
        return Line::ok("transparent huge pages", have, "not wanted");
    }
    let line = Line::ok("transparent huge pages", have, "madvise or always");
    match machine.transparent {
        Some(TransparentMode::Always | TransparentMode::Madvise) => line,
        Some(TransparentMode::Never) => line.costs(
            format!("4 KiB pages wherever none is set aside: {NOT_MEASURED}"),
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        None => line.costs(
            format!("4 KiB pages wherever none is set aside: {NOT_MEASURED}"),
            "set 2 MiB pages aside (vm.nr_hugepages), or use a kernel built with them",
        ),
    }
}

fn swap(machine: &Topology) -> Line {
    let have = if machine.swap_bytes == 0 { "off".to_owned() } else { format_bytes(machine.swap_bytes) };
    let line = Line::ok("swap", have, "off");
    if machine.swap_bytes == 0 {
        return line;
    }
    line.costs(format!("an entry swapped out is read from disk: {NOT_MEASURED}"), "swapoff -a, and out of /etc/fstab")
}

fn locked_memory(limits: &Limits, profile: &Profile) -> Line {
    let want_bytes = MEMLOCK_BYTES_MIN * profile.cores.data.len().max(1) as u64;
    let have = limits.memlock_bytes.map_or("unlimited".to_owned(), format_bytes);
    let line = Line::ok("locked memory", have, format!("{} (512 KiB an executor)", format_bytes(want_bytes)));
    let remedy = format!("ulimit -l {}, or LimitMEMLOCK= in the systemd unit", want_bytes >> 10);
    match limits.memlock_bytes {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => line.refused("no start: an executor refuses below 512 KiB", remedy),
        Some(bytes) if bytes < want_bytes => {
            line.costs("executors compete for it; registering buffers may fail", remedy)
        }
        _ => line,
    }
}

fn open_files(limits: &Limits, profile: &Profile) -> Line {
    let shards = profile.cores.data.len().max(1) as u64;
    let want = CONNECTION_COUNT_MAX as u64 * shards + FILES_BESIDE_CONNECTIONS;
    let have = if limits.nofile == u64::MAX { "unlimited".to_owned() } else { limits.nofile.to_string() };
    let line = Line::ok("open files", have, want.to_string());
    if limits.nofile >= want {
        return line;
    }
    let connections = limits.nofile.saturating_sub(FILES_BESIDE_CONNECTIONS);
    line.costs(
        format!("no more than about {connections} connections"),
        format!("ulimit -n {want}, or LimitNOFILE= in the systemd unit"),
    )
}

fn or_none(cores: &[usize]) -> String {
    if cores.is_empty() { "none".to_owned() } else { format_cpu_list(cores) }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

//! Amounts, nodes, pages, limits.

use crate::base::limits::CONNECTION_COUNT_MAX;
use crate::base::units::format_bytes;
use crate::host::check::line::{Line, Source, calibrated};
use crate::host::check::subject::Subject;
use crate::host::memory::PageWish;
use crate::host::placement::{NodeShare, Placement};
use crate::host::process::Limits;
use crate::host::profile::Io;
use crate::host::topology::{HUGE_PAGE_BYTES, Topology, TransparentMode};

/// Locked memory below which glommio 0.9 refuses to start an executor, in bytes.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Files a process may need beside its connections: listeners, rings, logs, the control side.
const FILES_BESIDE_CONNECTIONS: u64 = 1024;

/// What the process is denied rather than the machine lacks.
pub(super) fn denied(subject: &Subject<'_>, placed: &Placement) -> Vec<Line> {
    vec![locked_memory(subject, placed), open_files(subject.limits, placed), transparent_pages(subject)]
}

pub(super) fn lines(subject: &Subject<'_>, placed: &Placement) -> Vec<Line> {
    vec![
        memory(subject, placed),
        node_memory(subject, placed),
        huge_pages(subject, placed),
        transparent_pages(subject),
        swap(subject.machine),
        locked_memory(subject, placed),
        open_files(subject.limits, placed),
    ]
}

fn memory(subject: &Subject<'_>, placed: &Placement) -> Line {
    let machine = subject.machine;
    let want_bytes = placed.memory_bytes;
    // Pages set aside are not among what the kernel calls available, though they are ours to take.
    let set_aside = match subject.profile.memory.pages {
        PageWish::Huge2M => machine
            .nodes
            .iter()
            .fold(0u64, |bytes, node| bytes.saturating_add(node.huge_pages_free.saturating_mul(HUGE_PAGE_BYTES))),
        _ => 0u64,
    };
    let available = machine.memory_available_bytes.map(|bytes| bytes.saturating_add(set_aside));
    let bound = [machine.memory_total_bytes, machine.control_group.memory_bytes].into_iter().flatten().min();
    let have = available.or(bound).map_or("not shown".to_owned(), |bytes| {
        format!("{} available", format_bytes(bound.map_or(bytes, |bound| bound.min(bytes))))
    });
    let line = Line::ok("memory", have, format_bytes(want_bytes));
    if available.is_some_and(|available| want_bytes > available) {
        let cost = "swapping, or the kernel kills a process";
        return line.costs(cost, Source::Follows, "lower the profile's memory, or free some");
    }
    line
}

fn node_memory(subject: &Subject<'_>, placed: &Placement) -> Line {
    let (machine, memory) = (subject.machine, &subject.profile.memory);
    if machine.nodes.len() == 1 {
        return Line::ok("memory per node", "1 node", "not needed");
    }
    let shares = placed.node_shares();
    let size = |id: usize| machine.nodes.iter().find(|node| node.id == id).and_then(|node| node.memory_bytes);
    let have = by_node(&shares, |share| size(share.node).map_or("not shown".to_owned(), format_bytes));
    let want = by_node(&shares, |share| format_bytes(share.bytes));
    let line = Line::ok("memory per node", have, want);
    let fits = shares.iter().all(|share| size(share.node).is_none_or(|bytes| share.bytes <= bytes));
    let (cost, source) = calibrated(
        subject.figures,
        |figures| Some(figures.dram_remote_ns? - figures.dram_ns?),
        |ns| format!("{ns:.0} ns more for each load from the other node's memory"),
        "loads from the other node's memory",
    );
    if !fits {
        return line.costs(cost, source, "lower the profile's memory, or deal cores.data more evenly to the nodes");
    }
    if !memory.bind {
        return line.costs(format!("nothing keeps memory on its node: {cost}"), source, "set memory.bind = true");
    }
    line
}

/// What holds of each node, said once where it is the same for all.
fn by_node(shares: &[NodeShare], text: impl Fn(&NodeShare) -> String) -> String {
    let texts: Vec<String> = shares.iter().map(text).collect();
    match texts.split_first() {
        Some((first, others)) if !others.is_empty() && others.iter().all(|other| other == first) => {
            format!("{first} on each of {} nodes", texts.len())
        }
        _ => {
            let named = shares.iter().zip(&texts).map(|(share, text)| format!("node {}: {text}", share.node));
            named.collect::<Vec<_>>().join(", ")
        }
    }
}

fn huge_pages(subject: &Subject<'_>, placed: &Placement) -> Line {
    let machine = subject.machine;
    let free = machine.nodes.iter().fold(0u64, |free, node| free.saturating_add(node.huge_pages_free));
    if subject.profile.memory.pages != PageWish::Huge2M {
        return Line::ok("2 MiB pages set aside", format!("{free} free"), "not wanted");
    }
    let shares = placed.node_shares();
    let node = |id: usize| machine.nodes.iter().find(|node| node.id == id);
    let free_on = |id: usize| node(id).map_or(0, |node| node.huge_pages_free);
    let have = by_node(&shares, |share| free_on(share.node).to_string());
    let want = by_node(&shares, |share| share.huge_pages().to_string());
    let line = Line::ok("2 MiB pages set aside", have, want);
    let short: Vec<_> = shares.iter().filter(|share| free_on(share.node) < share.huge_pages()).collect();
    if short.is_empty() {
        return line;
    }
    // A server that runs already holds its pages: they are not free, and there are enough.
    let total_on = |id: usize| node(id).map_or(0, |node| node.huge_pages_total);
    let all_held = |share: &NodeShare| free_on(share.node) == 0 && total_on(share.node) >= share.huge_pages();
    if shares.iter().all(all_held) {
        return Line {
            have: format!("{} in all, none free", by_node(&shares, |share| total_on(share.node).to_string())),
            ..line
        }
        .costs(
            "transparent or 4 KiB pages for whoever starts next to the present holder",
            Source::NotMeasured,
            "none if the holder is the server that runs; else see who holds them (grep -s HugetlbPages /proc/*/status)",
        );
    }
    let write = |share: &NodeShare| {
        let path = format!("/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages", share.node);
        let total = node(share.node).map_or(0, |node| node.huge_pages_total);
        format!("write {} to {path}", total.saturating_add(share.huge_pages()).saturating_sub(free_on(share.node)))
    };
    let remedy: Vec<String> = short.into_iter().map(write).collect();
    line.costs(
        "transparent or 4 KiB pages instead: address translations in a large cache",
        Source::NotMeasured,
        format!("'spinetail host apply', or {}", remedy.join("; ")),
    )
}

fn transparent_pages(subject: &Subject<'_>) -> Line {
    let have = match subject.machine.transparent {
        Some(TransparentMode::Always) => "always",
        Some(TransparentMode::Madvise) => "madvise",
        Some(TransparentMode::Never) => "never",
        None => "not in this kernel",
    };
    if subject.profile.memory.pages == PageWish::Small {
        return Line::ok("transparent huge pages", have, "not wanted");
    }
    let line = Line::ok("transparent huge pages", have, "madvise or always");
    let cost = "4 KiB pages wherever none is set aside: address translations in a large cache";
    match subject.machine.transparent {
        Some(TransparentMode::Always | TransparentMode::Madvise) => line,
        Some(TransparentMode::Never) => line.costs(
            cost,
            Source::NotMeasured,
            "'spinetail host apply', or echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        None => line.costs(
            cost,
            Source::NotMeasured,
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
    let cost = "an entry swapped out is read from disk";
    line.costs(cost, Source::NotMeasured, "swapoff -a, and out of /etc/fstab")
}

fn locked_memory(subject: &Subject<'_>, placed: &Placement) -> Line {
    let (limits, io) = (subject.limits, subject.profile.network.io);
    let want_bytes = MEMLOCK_BYTES_MIN * placed.shards.len() as u64;
    let have = limits.memlock_bytes.map_or("unlimited".to_owned(), format_bytes);
    let line = Line::ok("locked memory", have, format!("{} (512 KiB an executor)", format_bytes(want_bytes)));
    let remedy = format!("ulimit -l {}, or LimitMEMLOCK= in the systemd unit", want_bytes >> 10);
    match limits.memlock_bytes {
        // Only an executor's ring locks memory.
        _ if io == Io::Epoll => line,
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN && io == Io::IoUring => {
            line.refused("no start: an executor refuses below 512 KiB, and network.io demands one", remedy)
        }
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => line.costs(
            "epoll instead of io_uring, whose executor refuses below 512 KiB: at most 10 % more core time a request",
            Source::Measured("a 2-core virtual machine, scripts/drivers".to_owned()),
            remedy,
        ),
        Some(bytes) if bytes < want_bytes => {
            line.costs("executors compete for it; registering buffers may fail", Source::Follows, remedy)
        }
        _ => line,
    }
}

fn open_files(limits: &Limits, placed: &Placement) -> Line {
    let want = CONNECTION_COUNT_MAX as u64 * placed.shards.len() as u64 + FILES_BESIDE_CONNECTIONS;
    let have = if limits.nofile == u64::MAX { "unlimited".to_owned() } else { limits.nofile.to_string() };
    let line = Line::ok("open files", have, want.to_string());
    if limits.nofile >= want {
        return line;
    }
    let connections = limits.nofile.saturating_sub(FILES_BESIDE_CONNECTIONS);
    line.costs(
        format!("no more than about {connections} connections"),
        Source::Follows,
        format!("ulimit -n {want}, or LimitNOFILE= in the systemd unit"),
    )
}

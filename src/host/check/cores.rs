//! Whose cores are whose, and who else runs there.

use crate::host::check::line::{Line, Source};
use crate::host::check::subject::Subject;
use crate::host::placement::Placement;
use crate::host::topology::{Topology, format_cpu_list};

pub(super) fn lines(subject: &Subject<'_>, placed: &Placement) -> Vec<Line> {
    let machine = subject.machine;
    vec![
        data_cores(subject, placed),
        housekeeping_cores(placed),
        interrupt_cores(placed),
        siblings(machine, placed),
        isolation(subject, placed),
        core_quota(machine, placed),
    ]
}

fn data_cores(subject: &Subject<'_>, placed: &Placement) -> Line {
    let have = format!("may run on {}", or_none(&subject.limits.allowed_cores));
    Line::ok("data cores", have, placed.data_list())
}

fn housekeeping_cores(placed: &Placement) -> Line {
    let line = Line::ok("housekeeping cores", or_none(&placed.housekeeping), "one or more apart from data cores");
    if placed.housekeeping.is_empty() {
        return line.costs(
            "admin work interrupts shards",
            Source::NotMeasured,
            "name a core in cores.housekeeping that is not in cores.data",
        );
    }
    line
}

fn interrupt_cores(placed: &Placement) -> Line {
    let line = Line::ok("interrupt cores", or_none(&placed.irq), "one or more apart from data cores");
    if placed.irq.is_empty() {
        return line.costs(
            "every interrupt stops a shard",
            Source::NotMeasured,
            "leave a core out of cores.data and name it in cores.irq",
        );
    }
    line
}

fn siblings(machine: &Topology, placed: &Placement) -> Line {
    let data = placed.data_cores();
    let mut siblings: Vec<usize> =
        data.iter().filter_map(|&id| machine.core(id)).flat_map(|core| core.siblings.clone()).collect();
    siblings.sort_unstable();
    siblings.dedup();
    let named = |id: &usize| data.contains(id) || placed.housekeeping.contains(id) || placed.irq.contains(id);
    let used: Vec<usize> = siblings.iter().copied().filter(named).collect();
    let open: Vec<usize> = siblings.iter().copied().filter(|id| !machine.isolated.contains(id)).collect();
    let shared = "two threads share one physical core's caches and units";
    let have = if siblings.is_empty() { "none online".to_owned() } else { format_cpu_list(&siblings) };
    let line = Line::ok("siblings of data cores", have, "idle");
    if !used.is_empty() {
        let remedy = format!("take {} out of the profile's lists", format_cpu_list(&used));
        line.costs(shared, Source::NotMeasured, remedy)
    } else if !open.is_empty() {
        let remedy = format!(
            "echo off > /sys/devices/system/cpu/smt/control, or boot with nosmt or isolcpus={}",
            format_cpu_list(&open)
        );
        line.costs(format!("whatever the kernel puts there: {shared}"), Source::NotMeasured, remedy)
    } else {
        line
    }
}

fn isolation(subject: &Subject<'_>, placed: &Placement) -> Line {
    let machine = subject.machine;
    let open: Vec<usize> = placed.data_cores().into_iter().filter(|id| !machine.isolated.contains(id)).collect();
    let line = Line::ok("isolated cores", or_none(&machine.isolated), placed.data_list());
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
        steps.push(format!("boot with isolcpus={list} nohz_full={list}, or set kernel.partition = true and apply"));
    }
    let hiccups = subject.figures.and_then(|figures| {
        let (lost, worst) = (figures.lost_share?, figures.hiccup_max_us?);
        let cost = format!("others took {:.3} % of the cores' time, {worst:.0} µs at most in one piece", 100.0 * lost);
        Some((cost, Source::Calibrated(figures.taken.clone())))
    });
    let (cost, source) =
        hiccups.unwrap_or_else(|| ("other threads' time slices in the tail".to_owned(), Source::NotMeasured));
    line.costs(cost, source, steps.join("; "))
}

pub(super) fn core_quota(machine: &Topology, placed: &Placement) -> Line {
    let shards = placed.shards.len();
    let want = format!("none, or {shards} or more");
    let Some(quota) = machine.control_group.cpu_cores else { return Line::ok("core time quota", "none", want) };
    let line = Line::ok("core time quota", format!("{quota:.2} cores"), want);
    if quota >= shards as f64 {
        return line;
    }
    let stopped = "all threads are stopped when it is used up";
    let (cost, source) = match machine.control_group.cpu_period_us {
        Some(period_us) => (format!("{stopped}, for up to {} ms", period_us / 1000), Source::Follows),
        None => (stopped.to_owned(), Source::NotMeasured),
    };
    line.costs(cost, source, format!("raise cpu.max (the container's CPU limit) to {shards} cores, or remove it"))
}

pub(super) fn or_none(cores: &[usize]) -> String {
    if cores.is_empty() { "none".to_owned() } else { format_cpu_list(cores) }
}

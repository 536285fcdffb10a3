//! io_uring, clocks, frequency and sleep, parameters, command line.

use crate::host::check::line::{Line, Source, calibrated};
use crate::host::check::subject::Subject;
use crate::host::files::Files;
use crate::host::placement::Placement;
use crate::host::profile::{Io, Poll};
use crate::host::profile_file::closest;
use crate::host::topology::{Topology, format_cpu_list};

/// Where this project measured what it says of `epoll` and of waking up.
const MEASURED_ON: &str = "a 2-core virtual machine";

/// What it costs not to have a kernel parameter as these profiles wish it.
const PARAMETERS: [(&str, &str); 8] = [
    ("kernel.numa_balancing", "pages are unmapped to see who faults on them, and shards do"),
    ("kernel.timer_migration", "timers of idle cores move to busy ones, which are the shards'"),
    ("kernel.nmi_watchdog", "an interrupt on each core now and then, and a hardware counter less"),
    ("vm.stat_interval", "a kernel thread folds memory statistics on each core, as often"),
    ("vm.swappiness", "idle entries are swapped out before the page cache is dropped"),
    ("net.core.somaxconn", "connections are refused when many clients come back at once"),
    ("net.ipv4.tcp_max_syn_backlog", "handshakes are dropped when many clients come back at once"),
    ("kernel.io_uring_disabled", "epoll instead: more core time a request"),
];

pub(super) fn lines(subject: &Subject<'_>, placed: &Placement) -> Vec<Line> {
    let machine = subject.machine;
    [
        Some(poll_mode(subject)),
        governor(subject, placed),
        idle_states(subject, placed),
        Some(clock_source(subject)),
        counter(machine),
        Some(virtualisation(machine)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn io_uring(subject: &Subject<'_>) -> Line {
    let have = if subject.limits.io_uring.is_ok() { "available" } else { "not available" };
    let line = Line::ok("io_uring", have, "available");
    match (&subject.limits.io_uring, subject.profile.network.io) {
        (_, Io::Epoll) => Line::ok("io_uring", have, "not wanted"),
        (Ok(()), _) => line,
        (Err(refusal), Io::Auto) => line.costs(
            "epoll instead: at most 10 % more core time a request",
            Source::Measured(format!("{MEASURED_ON}, scripts/drivers: 0.97 to 1.06 times the ring's")),
            refusal.clone(),
        ),
        (Err(refusal), Io::IoUring) => {
            line.refused("no start: network.io demands it", format!("{refusal}; or set network.io = \"auto\""))
        }
    }
}

fn poll_mode(subject: &Subject<'_>) -> Line {
    let wake_up = |before: &str| {
        let known =
            calibrated(subject.figures, |figures| figures.wake_us, |us| format!("{before}a wake-up, {us:.0} µs"), "");
        match known.1 {
            Source::NotMeasured => (
                format!("{before}a wake-up, 97 µs more at the median"),
                Source::Measured(format!("{MEASURED_ON}, scripts/pollmodes; the table in README")),
            ),
            _ => known,
        }
    };
    let remedy = "set network.poll = \"spin\" where data cores are the shards' own";
    match subject.profile.network.poll {
        Poll::Spin => Line::ok("poll mode", "spin", "spin"),
        Poll::Adaptive => {
            let (cost, source) = wake_up("for the first request after a pause of 2 ms or more: ");
            Line::ok("poll mode", "adaptive", "spin").costs(cost, source, remedy)
        }
        Poll::Park => {
            let (cost, source) = wake_up("for every request to an idle shard: ");
            Line::ok("poll mode", "park", "spin").costs(cost, source, remedy)
        }
    }
}

fn governor(subject: &Subject<'_>, placed: &Placement) -> Option<Line> {
    let wanted = subject.profile.power.governor.as_deref().unwrap_or("performance");
    let of_core = |shard: &crate::host::placement::ShardPlace| subject.machine.core(shard.core)?.governor.as_deref();
    let mut governors: Vec<&str> = placed.shards.iter().filter_map(of_core).collect();
    governors.sort_unstable();
    governors.dedup();
    if governors.is_empty() {
        // Virtual machines show none, the host below decides; there is nothing to do from inside.
        return Some(Line::ok("frequency governor", "not shown", wanted));
    }
    let line = Line::ok("frequency governor", governors.join(", "), wanted);
    if governors == [wanted] {
        return Some(line);
    }
    Some(line.costs(
        "requests after a pause meet a slow core",
        Source::NotMeasured,
        format!("'spinetail host apply' with power.governor set, or cpupower frequency-set -g {wanted}"),
    ))
}

/// How long an idle data core may need to wake, by the table of its driver.
fn idle_states(subject: &Subject<'_>, placed: &Placement) -> Option<Line> {
    let cores = placed.shards.iter().filter_map(|shard| subject.machine.core(shard.core));
    let states: Vec<_> = cores.flat_map(|core| &core.idle_states).filter(|state| !state.disabled).collect();
    let wanted_us = subject.profile.power.idle_us_max.map(u64::from);
    let want = wanted_us.map_or("as they are".to_owned(), |us| format!("{us} µs or less to wake"));
    let Some(deepest) = states.iter().max_by_key(|state| state.exit_latency_us) else {
        return wanted_us.map(|_| Line::ok("idle states", "not shown", want));
    };
    let have = format!("{}: {} µs to wake", deepest.name, deepest.exit_latency_us);
    let line = Line::ok("idle states", have, want);
    if wanted_us.is_none_or(|us| deepest.exit_latency_us <= us) {
        return Some(line);
    }
    Some(line.costs(
        format!("up to {} µs before a parked shard runs", deepest.exit_latency_us),
        Source::Cited("the kernel's table, /sys/devices/system/cpu/cpu*/cpuidle".to_owned()),
        "'spinetail host apply' switches deeper states off, core by core",
    ))
}

fn clock_source(subject: &Subject<'_>) -> Line {
    let Some(source) = subject.machine.clocksource.as_deref() else {
        return Line::ok("clock source", "not shown", "tsc");
    };
    let line = Line::ok("clock source", source, "tsc");
    match source {
        // The second is Arm's, read without a system call like the first; so are those of some hypervisors.
        "tsc" | "arch_sys_counter" | "kvm-clock" | "hyperv_clocksource_tsc_page" => line,
        _ => {
            let (cost, how) = calibrated(
                subject.figures,
                |figures| figures.clock_ns,
                |ns| format!("{ns:.0} ns for each reading of the clock"),
                "each reading of the clock is a system call",
            );
            let has = subject.machine.clocksources_available.iter().any(|known| known == "tsc");
            let remedy = if has {
                "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
            } else {
                "boot with clocksource=tsc; on a virtual machine ask for an invariant TSC"
            };
            line.costs(cost, how, remedy)
        }
    }
}

fn counter(machine: &Topology) -> Option<Line> {
    let invariant = machine.invariant_tsc?;
    let line = Line::ok("invariant counter", if invariant { "yes" } else { "no" }, "yes");
    if invariant {
        return Some(line);
    }
    Some(line.costs(
        "the kernel will not keep time by it, and reading another clock takes a system call",
        Source::NotMeasured,
        "on a virtual machine ask for an invariant TSC; on bare metal look for it in the firmware",
    ))
}

fn virtualisation(machine: &Topology) -> Line {
    let name = machine.hypervisor.as_deref().unwrap_or("virtual machine");
    let have = match (machine.virtualised, machine.steal_share) {
        (false, _) => "bare metal, as far as the processor tells".to_owned(),
        (true, Some(share)) => format!("{name}, {:.2} % of its time stolen since boot", 100.0 * share),
        (true, None) => name.to_owned(),
    };
    let line = Line::ok("virtualisation", have, "bare metal");
    if !machine.virtualised {
        return line;
    }
    line.costs(
        "the hypervisor takes time (steal) and handles interrupts",
        Source::NotMeasured,
        "a dedicated host, or virtual cores pinned one to one",
    )
}

/// The value of a kernel parameter, by its sysctl name.
pub fn parameter(files: &Files, name: &str) -> Option<String> {
    files.text(&crate::host::system::parameter_path(name))
}

/// A line for each kernel parameter of the profile.
pub(super) fn parameters(subject: &Subject<'_>) -> Vec<Line> {
    let line = |(name, wanted): (&String, &String)| {
        let Some(have) = parameter(subject.files, name) else {
            let have = if subject.files.live() { "not in this kernel" } else { "not recorded" };
            let line = Line::ok(name, have, wanted);
            // Many a kernel lacks a parameter and does without; one that nobody has ever heard of is misspelt.
            let known = PARAMETERS.iter().map(|(known, _)| *known).find(|known| known == name);
            return match closest(name, PARAMETERS.iter().map(|(known, _)| *known)) {
                Some(near) if known.is_none() => {
                    let remedy = format!("did you mean {near}?");
                    line.costs("a wish that nobody hears", Source::Follows, remedy)
                }
                _ => line,
            };
        };
        let line = Line::ok(name, have.clone(), wanted);
        if have.split_whitespace().eq(wanted.split_whitespace()) {
            return line;
        }
        let known = PARAMETERS.iter().find(|(known, _)| known == name);
        let what = known.map_or("whatever the profile wishes it for", |(_, cost)| cost);
        line.costs(what, Source::NotMeasured, format!("'spinetail host apply', or sysctl -w {name}='{wanted}'"))
    };
    subject.profile.sysctl.iter().map(line).collect()
}

/// Words that the kernel's command line should have, if the profile wishes any.
pub(super) fn command_line(subject: &Subject<'_>, placed: &Placement) -> Option<Line> {
    let wanted = placed.command_line(subject.profile);
    if wanted.is_empty() {
        return None;
    }
    let Some(line) = subject.machine.command_line.as_deref() else {
        return Some(Line::ok("kernel command line", "not shown", wanted.join(" ")));
    };
    let missing: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|word| !line.split_whitespace().any(|has| has == *word)).collect();
    let have = format!("{} of {} words", wanted.len() - missing.len(), wanted.len());
    let line = Line::ok("kernel command line", have, wanted.join(" "));
    if missing.is_empty() {
        return Some(line);
    }
    Some(line.costs(
        format!("timer ticks, deferred work and other threads on data cores {}", format_cpu_list(&placed.data_cores())),
        Source::NotMeasured,
        format!("add to the boot loader's kernel command line: {}", missing.join(" ")),
    ))
}

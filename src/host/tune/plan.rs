//! Which changes a profile means on this machine, in the order in which they are to be made.
//!
//!   memory      huge pages first: while memory is in one piece
//!   sysctl      the profile's own table
//!   rings       of the cards the profile means: their interrupts are dealt anew when these change
//!   interrupts  away from data cores, and the kernel's unbound work with them
//!   network     queues of the cards the profile means
//!   power       frequency and sleep of data cores
//!   units       systemd's part
//!
//! A plan is made for the machine as it was before the first apply, and touches nothing. What the profile says
//! nothing about is not in it; what it wishes and this machine cannot have is in `left_out`, with the reason.

use std::fs;

use serde::Serialize;

use crate::host::memory::PageWish;
use crate::host::placement::Placement;
use crate::host::profile::Profile;
use crate::host::topology::Topology;
use crate::host::tune::apply::Untouched;
use crate::host::tune::change::{Change, Kind};
use crate::host::tune::cmdline::{Advice, advise};
use crate::host::tune::{interrupts, network, parameters, power, units};

/// What is to be done to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Changes, in order; no path twice.
    pub changes: Vec<Change>,
    /// What the profile wishes and this machine cannot have, or does not need.
    pub left_out: Vec<LeftOut>,
    /// What the kernel's command line lacks.
    pub command_line: Advice,
    /// What else whoever applies should know.
    pub notes: Vec<String>,
}

/// A wish without a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What was wished.
    pub what: String,
    /// Why nothing comes of it.
    pub why: String,
}

/// A plan in the making, and what it is made from.
pub(super) struct Draft<'d> {
    pub(super) machine: &'d Topology,
    pub(super) placement: &'d Placement,
    pub(super) profile: &'d Profile,
    pub(super) untouched: &'d Untouched<'d>,
    /// Cores that run a shard, ascending.
    pub(super) data: Vec<usize>,
    changes: Vec<Change>,
    left_out: Vec<LeftOut>,
    notes: Vec<String>,
}

/// Makes the plan of `profile`, placed on `machine`.
pub fn plan(machine: &Topology, placement: &Placement, profile: &Profile, untouched: &Untouched<'_>) -> Plan {
    let mut data = placement.data_cores();
    data.sort_unstable();
    let (changes, left_out, notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut draft = Draft { machine, placement, profile, untouched, data, changes, left_out, notes };
    memory(&mut draft);
    parameters::draft(&mut draft);
    network::draft_rings(&mut draft);
    interrupts::draft(&mut draft);
    network::draft(&mut draft);
    power::draft(&mut draft);
    units::draft(&mut draft);
    if untouched.is_hidden() {
        draft.note(
            "the journal of an earlier apply cannot be read by this user, so what that changed counts as having been so \
             always: run as root to see what an apply would do",
        );
    }
    Plan {
        changes: draft.changes,
        left_out: draft.left_out,
        notes: draft.notes,
        command_line: advise(untouched.root(), machine.command_line.as_deref(), placement.command_line(profile)),
    }
}

impl Draft<'_> {
    /// Adds a change. A path that has one already keeps it: the more particular section comes first.
    pub(super) fn change(&mut self, kind: Kind, path: &str, want: impl Into<String>, reason: impl Into<String>) {
        let want = want.into();
        if let Some(first) = self.changes.iter().find(|change| change.path == path) {
            if !kind.same(first.want.as_bytes(), want.as_bytes()) {
                let why = format!("another key of the profile makes it {}", kind.shown(first.want.as_bytes()));
                self.leave_out(format!("/{path} = {}", kind.shown(want.as_bytes())), why);
            }
            return;
        }
        self.changes.push(Change::new(kind, path, want, reason));
    }

    pub(super) fn leave_out(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left_out.push(LeftOut { what: what.into(), why: why.into() });
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Cores of `cores` that run no shard; those for interrupts if none is left.
    pub(super) fn away_from_data(&self, cores: &[usize]) -> Vec<usize> {
        let kept: Vec<usize> = cores.iter().copied().filter(|core| !self.data.contains(core)).collect();
        if kept.is_empty() { self.placement.irq.clone() } else { kept }
    }

    /// Processes whose program has this name.
    pub(super) fn processes(&self, program: &str) -> Vec<String> {
        let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        let mut processes: Vec<String> = self.names("proc").into_iter().filter(is_number).collect();
        processes.retain(|process| {
            let name = fs::read_to_string(self.untouched.root().join("proc").join(process).join("comm"));
            name.is_ok_and(|name| name.trim() == program)
        });
        processes
    }

    /// Names in a folder below the root, in the order of the numbers in them.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let Ok(found) = fs::read_dir(self.untouched.root().join(folder)) else { return Vec::new() };
        let mut names: Vec<String> = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        let number = |name: &String| name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0u64);
        names.sort_by(|left, right| number(left).cmp(&number(right)).then_with(|| left.cmp(right)));
        names
    }
}

fn memory(draft: &mut Draft<'_>) {
    let pages = draft.profile.memory.pages;
    if pages == PageWish::Huge2M {
        huge_pages(draft);
    }
    if pages == PageWish::Small {
        return;
    }
    let folder = "sys/kernel/mm/transparent_hugepage";
    let chosen = |name: &str| {
        let text = draft.untouched.text(&format!("{folder}/{name}"))?;
        Some(Kind::Choice.shown(text.as_bytes()))
    };
    let (enabled, defrag) = (chosen("enabled"), chosen("defrag"));
    // 'always' serves the arenas as well, and is none of ours to take from other programs.
    if enabled.as_deref() == Some("never") {
        let reason = "arenas ask for huge pages (madvise), and 'never' answers with 4 KiB";
        draft.change(Kind::Choice, &format!("{folder}/enabled"), "madvise", reason);
    }
    if enabled.is_some() && matches!(defrag.as_deref(), Some("never" | "defer")) {
        let reason = "arenas are touched at the start, when there is time to make room for a huge page at once";
        draft.change(Kind::Choice, &format!("{folder}/defrag"), "madvise", reason);
    }
}

/// Raises each node's huge pages to what its shards need beside those that others hold. Never lowers them: pages that
/// are there have an owner, or will have one.
fn huge_pages(draft: &mut Draft<'_>) {
    for share in draft.placement.node_shares() {
        let of_node = format!("sys/devices/system/node/node{}/hugepages/hugepages-2048kB", share.node);
        let of_all = "sys/kernel/mm/hugepages/hugepages-2048kB".to_owned();
        let known = |folder: &String| draft.untouched.text(&format!("{folder}/nr_hugepages")).is_some();
        let Some(folder) = [of_node, of_all].into_iter().find(known) else {
            draft.leave_out("memory.pages = \"2MiB\"", "this kernel has no huge pages of 2 MiB");
            return;
        };
        let path = format!("{folder}/nr_hugepages");
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let first = number(draft.untouched.text(&path));
        let now = number(draft.untouched.text_now(&path));
        let free = number(draft.untouched.text_now(&format!("{folder}/free_hugepages")));
        let surplus = number(draft.untouched.text_now(&format!("{folder}/surplus_hugepages")));
        if surplus > 0 && !draft.untouched.is_touched(&path) {
            // The kernel counts them in nr_hugepages until their holder lets go. Written back by undo, that number would
            // make them part of the pool for good.
            let what = format!("{} pages of 2 MiB on node {}", share.huge_pages(), share.node);
            draft.leave_out(what, format!("{surplus} pages are beyond the pool (surplus): stop what holds them first"));
            continue;
        }
        // Once applied, a server may hold what others seem to: then only what is there is known.
        let held_by_others = if draft.untouched.is_touched(&path) { 0 } else { now.saturating_sub(free) };
        if let Some(why) = may_be_ours(draft, held_by_others, now >= share.huge_pages() && free == 0) {
            draft.leave_out(format!("{} pages of 2 MiB on node {}", share.huge_pages(), share.node), why);
            continue;
        }
        let want = (held_by_others + share.huge_pages()).max(now).max(first);
        let reason =
            format!("{} shards of node {} need {} pages of 2 MiB", share.shards, share.node, share.huge_pages());
        draft.change(Kind::Value, &path, want.to_string(), reason);
    }
}

/// Why pages that are held may be our own server's, which would be counted a second time: they were set aside by
/// somebody else (at boot), and it has them already.
fn may_be_ours(draft: &Draft<'_>, held: u64, all_and_enough: bool) -> Option<String> {
    if held == 0 {
        return None;
    }
    // This very command has the server's name, and another word behind it.
    let serves = |process: &String| {
        let line = fs::read(draft.untouched.root().join("proc").join(process).join("cmdline"));
        line.map_or(true, |line| line.split(|&byte| byte == 0).any(|word| word == b"serve"))
    };
    if let Some(server) = draft.processes("spinetail").into_iter().find(serves) {
        return Some(format!(
            "{held} pages are held, and a server runs (process {server}) whose they may be: stop it first if it lacks any"
        ));
    }
    let why =
        format!("all {held} pages there are held, which is as many as the shards need: stop what holds them first");
    all_and_enough.then_some(why)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

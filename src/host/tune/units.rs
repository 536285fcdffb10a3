//! systemd's part: drop-ins that let the service reach its cores, and keep everybody else off them.
//!
//!   spinetail.service.d/50-host.conf   CPUAffinity=, LimitMEMLOCK=; with a partition Slice= and ExecStartPre=
//!   spinetail.slice.d/50-host.conf     AllowedCPUs=, with a partition only
//!
//! A partition (cgroup v2 cpuset, Documentation/admin-guide/cgroup-v2.rst, "cpuset.cpus.partition") takes the slice's cores
//! out of the scheduler's domain without a boot. `isolated` also ends load balancing among them, which is right for
//! pinned shards and one core of housekeeping; several cores of housekeeping hold threads that nobody pins, so
//! these get `root`, which keeps strangers out all the same and balances within.
//!
//! They are files and not settings, so they outlive a reboot; undo removes them, and with them the folders that were made.

use crate::base::limits::SHARD_COUNT_MAX;
use crate::base::units::exact_bytes;
use crate::host::topology::format_cpu_list;
use crate::host::tune::change::Kind;
use crate::host::tune::plan::Draft;

/// Where an administrator's units live.
pub(super) const UNITS: &str = "etc/systemd/system";

/// Where the slice's control group is, seen from the machine.
const SLICE_GROUP: &str = "/sys/fs/cgroup/spinetail.slice";

/// Locked memory of an executor, and as much again to register buffers.
const MEMLOCK_BYTES_PER_SHARD: u64 = 1 << 20;

/// What the unit we ship has; no less.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;

pub(super) fn draft(draft: &mut Draft<'_>) {
    if !draft.untouched.root().join(UNITS).is_dir() {
        if draft.profile.kernel.partition {
            draft.leave_out("kernel.partition", format!("there is no /{UNITS}: no systemd here"));
        }
        return;
    }
    let ours = our_cores(draft);
    let partition = draft.profile.kernel.partition && can_partition(draft, &ours);
    let service = service_text(&ours, draft.data.len(), partition.then(|| mode(draft)));
    let reason = "the service reaches its cores and may lock the memory its executors need";
    draft.change(Kind::File, &format!("{UNITS}/spinetail.service.d/50-host.conf"), service, reason);
    if partition {
        let reason = "nobody else is scheduled on the appliance's cores";
        draft.change(Kind::File, &format!("{UNITS}/spinetail.slice.d/50-host.conf"), slice_text(&ours), reason);
    }
}

/// Data and housekeeping cores. Without any of the latter the appliance's other threads run wherever no shard does,
/// and then every core is one that it must reach.
fn our_cores(draft: &Draft<'_>) -> Vec<usize> {
    if draft.placement.housekeeping.is_empty() {
        return draft.machine.core_ids();
    }
    let mut cores = [&draft.data[..], &draft.placement.housekeeping].concat();
    cores.sort_unstable();
    cores.dedup();
    cores
}

fn can_partition(draft: &mut Draft<'_>, ours: &[usize]) -> bool {
    let controllers = draft.untouched.text("sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if !controllers.split_whitespace().any(|controller| controller == "cpuset") {
        draft.leave_out("kernel.partition", "the cpuset controller of control groups, version 2, is not here");
        return false;
    }
    if draft.placement.housekeeping.is_empty() {
        let why = "cores.housekeeping is empty: what else the appliance does would be shut in with its shards";
        draft.leave_out("kernel.partition", why);
        return false;
    }
    let left = draft.machine.core_ids().into_iter().filter(|core| !ours.contains(core)).count();
    if left == 0 {
        draft.leave_out(
            "kernel.partition",
            "the system needs a core of its own, one that is neither in cores.data nor in cores.housekeeping",
        );
    }
    left > 0
}

/// How the partition treats its own cores, see above.
fn mode(draft: &Draft<'_>) -> &'static str {
    if draft.placement.housekeeping.len() > 1 { "root" } else { "isolated" }
}

fn service_text(cores: &[usize], shards: usize, partition: Option<&str>) -> String {
    let memlock_bytes = (MEMLOCK_BYTES_PER_SHARD * shards as u64).max(MEMLOCK_BYTES_MIN);
    let mut text = format!(
        "# Written by 'spinetail host apply'; 'spinetail host undo' removes it. Changes are better made in a file of\n\
         # its own beside this one, with a later name.\n\
         [Service]\n\
         # Data and housekeeping cores (all, where none is named for the house): others cannot be pinned to.\n\
         CPUAffinity={}\n\
         # {} for each shard's executor and its buffers, and no less than the unit has.\n\
         LimitMEMLOCK={memlock_bytes}\n",
        format_cpu_list(cores),
        exact_bytes(MEMLOCK_BYTES_PER_SHARD),
    );
    if let Some(mode) = partition {
        text.push_str(&format!(
            "# Its cores are its slice's alone (spinetail.slice.d/50-host.conf). The line runs with full rights ('+'),\n\
             # and where the kernel refuses a partition the service starts without ('-').\n\
             Slice=spinetail.slice\n\
             ExecStartPre=-+/bin/sh -c 'echo {mode} > {SLICE_GROUP}/cpuset.cpus.partition'\n"
        ));
    }
    text
}

fn slice_text(cores: &[usize]) -> String {
    format!(
        "# Written by 'spinetail host apply'; 'spinetail host undo' removes it.\n\
         [Slice]\n\
         # Data and housekeeping cores; the service makes them a partition when it starts.\n\
         AllowedCPUs={}\n",
        format_cpu_list(cores)
    )
}

const _: () = assert!(MEMLOCK_BYTES_PER_SHARD * SHARD_COUNT_MAX as u64 <= 1 << 30, "a limit, not a licence");

//! What the control group of this process allows: core time, memory, cores.
//!
//! Two versions of the hierarchy are about, and both at once:
//!
//! ```text
//! version 2         sys/fs/cgroup/PATH/{cpu.max, memory.max, cpuset.cpus.effective}
//! version 1         sys/fs/cgroup/CONTROLLER/PATH/{cpu.cfs_quota_us, memory.limit_in_bytes, cpuset.cpus}
//! hybrid            version 1 for the controllers, version 2 in sys/fs/cgroup/unified
//! ```
//!
//! `proc/self/cgroup` names the group of each: `0::PATH` is version 2, `4:memory:PATH` version 1. A parent's
//! limit binds its children, so the tightest of each kind along the way to the top counts. In a container
//! PATH may be the host's, of which nothing is mounted; then only the top is found, which is the container's.

use serde::Serialize;

use crate::host::files::Files;

/// What the control group of this process allows, the tightest along its path.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ControlGroup {
    /// Which files hold the limits, and so where one would change them; `None` without control groups.
    pub hierarchy: Option<Hierarchy>,
    /// Core time per second (`cpu.max`), in cores: 1.5 is one and a half.
    pub cpu_cores: Option<f64>,
    /// Period over which that core time is counted, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Memory in bytes (`memory.max`).
    pub memory_bytes: Option<u64>,
    /// Cores the group may use, ascending, where it says so.
    pub cpuset: Option<Vec<usize>>,
}

/// Versions of the control groups' file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hierarchy {
    /// Version 2.
    Unified,
    /// Version 1.
    Legacy,
    /// Version 1 with an empty version 2 beside it.
    Hybrid,
}

const MOUNT: &str = "sys/fs/cgroup";

/// What version 1 shows for "no limit" is the largest number of whole pages, whatever a page has: at least
/// this many bytes.
const MEMORY_UNLIMITED_BYTES_MIN: u64 = i64::MAX as u64 & !0xf_ffff;

/// Reads the limits of the group that this process is in.
pub(crate) fn read(files: &Files) -> Result<ControlGroup, String> {
    let membership = files.text("proc/self/cgroup").unwrap_or_default();
    let mut group = ControlGroup::default();
    let (mut unified, mut legacy) = (false, false);
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            unified = true;
            for mount in [MOUNT.to_owned(), format!("{MOUNT}/unified")] {
                for directory in upwards(&mount, path) {
                    read_unified(files, &directory, &mut group)?;
                }
            }
            continue;
        }
        for controller in controllers.split(',').filter(|name| ["cpu", "memory", "cpuset"].contains(name)) {
            legacy = true;
            // Mounted under all the names together, with a link for each; containers may lack the links.
            let together = format!("{MOUNT}/{controllers}");
            let alone = format!("{MOUNT}/{controller}");
            let mounts = if together == alone { vec![alone] } else { vec![together, alone] };
            for directory in mounts.iter().flat_map(|mount| upwards(mount, path)) {
                read_legacy(files, controller, &directory, &mut group)?;
            }
        }
    }
    group.hierarchy = match (unified, legacy) {
        (true, true) => Some(Hierarchy::Hybrid),
        (true, false) => Some(Hierarchy::Unified),
        (false, true) => Some(Hierarchy::Legacy),
        (false, false) => None,
    };
    Ok(group)
}

/// Directories from a group up to the mount.
fn upwards(mount: &str, path: &str) -> Vec<String> {
    // A path that climbs out of the mount ("/../x", seen from a foreign namespace) names nothing here.
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    let mut directories = Vec::new();
    loop {
        directories.push([mount].iter().chain(&parts).copied().collect::<Vec<_>>().join("/"));
        if parts.pop().is_none() {
            return directories;
        }
    }
}

fn read_unified(files: &Files, directory: &str, group: &mut ControlGroup) -> Result<(), String> {
    let memory = files.text(&format!("{directory}/memory.max")).and_then(|text| text.parse::<u64>().ok());
    tighten_memory(group, memory);
    tighten_cpu(group, files.text(&format!("{directory}/cpu.max")).and_then(|text| parse_cpu_max(&text)));
    let cpuset = files.list(&format!("{directory}/cpuset.cpus.effective"))?;
    tighten_cpuset(group, cpuset);
    Ok(())
}

fn read_legacy(files: &Files, controller: &str, directory: &str, group: &mut ControlGroup) -> Result<(), String> {
    match controller {
        "cpu" => {
            let quota_us = files.number(&format!("{directory}/cpu.cfs_quota_us"))?;
            let period_us = files.number(&format!("{directory}/cpu.cfs_period_us"))?;
            let quota = quota_us.zip(period_us).filter(|(_, period_us)| *period_us > 0);
            tighten_cpu(group, quota.map(|(quota_us, period_us)| (quota_us as f64 / period_us as f64, period_us)));
        }
        "memory" => {
            let memory = files.number(&format!("{directory}/memory.limit_in_bytes"))?;
            tighten_memory(group, memory.filter(|&bytes| bytes < MEMORY_UNLIMITED_BYTES_MIN));
        }
        _ => {
            let effective = files.list(&format!("{directory}/cpuset.effective_cpus"))?;
            let cpuset = match effective {
                Some(cores) => Some(cores),
                None => files.list(&format!("{directory}/cpuset.cpus"))?,
            };
            tighten_cpuset(group, cpuset);
        }
    }
    Ok(())
}

fn tighten_memory(group: &mut ControlGroup, bytes: Option<u64>) {
    group.memory_bytes = [group.memory_bytes, bytes].into_iter().flatten().min();
}

fn tighten_cpu(group: &mut ControlGroup, quota: Option<(f64, u64)>) {
    if let Some((cores, period_us)) = quota
        && group.cpu_cores.is_none_or(|known| cores < known)
    {
        group.cpu_cores = Some(cores);
        group.cpu_period_us = Some(period_us);
    }
}

/// The smaller of two sets: a group's cores are some of its parent's.
fn tighten_cpuset(group: &mut ControlGroup, cpuset: Option<Vec<usize>>) {
    if let Some(cores) = cpuset
        && !cores.is_empty()
        && group.cpuset.as_ref().is_none_or(|known| cores.len() < known.len())
    {
        group.cpuset = Some(cores);
    }
}

/// Reads `150000 100000` (microseconds of quota and period) as 1.5 cores; `max` is no limit.
fn parse_cpu_max(text: &str) -> Option<(f64, u64)> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    (period > 0).then(|| (quota as f64 / period as f64, period))
}

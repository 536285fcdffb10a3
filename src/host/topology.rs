//! The machine as sysfs and procfs describe it. Everything is read below a root, `/` in production and a
//! recorded machine in tests, so that the two-socket machine nobody has at hand can be tested too: see
//! [`Files`], which is the only way to a file here.
//!
//! ```text
//! Topology ─┬─ cores     socket, die, complex, siblings, caches; clock and idle states
//!           ├─ nodes     memory, huge pages, distances
//!           ├─ nics      queues, interrupts, rings, offloads        ├─ disks
//!           └─ system    processor, kernel, clocks, hypervisor      └─ control_group
//! ```
//!
//! A file that is missing is an ordinary answer (containers hide half of sysfs): the fact becomes
//! `None`, or one node that holds everything. A file that is there and makes no sense is an error,
//! because guessing would pin threads to the wrong cores.

use std::path::Path;

use serde::Serialize;

pub use crate::host::cgroup::{ControlGroup, Hierarchy};
pub use crate::host::cores::{Cache, CacheKind, Core, CoreKind};
pub(crate) use crate::host::cpu_list::CORE_ID_MAX;
pub use crate::host::cpu_list::{format_cpu_list, parse_cpu_list};
pub use crate::host::disks::Disk;
pub use crate::host::ethtool::{Channels, Coalesce, Offloads, Rings};
pub use crate::host::nics::{Irq, Nic, RxQueue, TxQueue};
pub use crate::host::nodes::Node;
pub use crate::host::power::{Frequency, IdleState};

use crate::host::cores::distinct;
use crate::host::files::Files;
use crate::host::nodes::meminfo_bytes;
use crate::host::system::{self, CpuInfo};
use crate::host::{cgroup, cores, disks, nics, nodes};

/// Bytes of the huge pages this product asks for.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// When the kernel backs ordinary memory with huge pages by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransparentMode {
    /// Everywhere.
    Always,
    /// Where a program asks for it, as the arena does.
    Madvise,
    /// Nowhere.
    Never,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Topology {
    /// Cores online, ascending by number. Never empty once detected.
    pub cores: Vec<Core>,
    /// Cores that are there and switched off, ascending.
    pub offline: Vec<usize>,
    /// Cores that are there, ascending; those online where the machine does not say.
    pub present: Vec<usize>,
    /// NUMA nodes, ascending. Never empty once detected.
    pub nodes: Vec<Node>,
    /// Memory of the machine in bytes.
    pub memory_total_bytes: Option<u64>,
    /// What could be handed out without swapping, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Swap space in bytes, zero when there is none.
    pub swap_bytes: u64,
    /// Transparent huge pages for anonymous memory; `None` if the kernel has none.
    pub transparent: Option<TransparentMode>,
    /// Instruction set as Rust names it: `x86_64`, `aarch64`; `unknown` where nothing tells.
    pub architecture: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// What the kernel was started with.
    pub command_line: Option<String>,
    /// It runs under a hypervisor, by its processor's or its firmware's word.
    pub virtualised: bool,
    /// Which hypervisor, where told.
    pub hypervisor: Option<String>,
    /// Share of all core time since boot that the hypervisor gave to others: 0.01 is one percent.
    pub steal_share: Option<f64>,
    /// Who built the machine, by its firmware.
    pub system_vendor: Option<String>,
    /// What they call it; a cloud's name for the kind of instance.
    pub system_product: Option<String>,
    /// Model name of the first processor.
    pub cpu_model: Option<String>,
    /// Physical cores run several threads at once; `None` where the kernel does not say.
    pub smt_active: Option<bool>,
    /// Limits of the control group.
    pub control_group: ControlGroup,
    /// Cores the scheduler leaves alone, ascending: by `isolcpus`, or by an isolated partition of control groups.
    pub isolated: Vec<usize>,
    /// Cores without a timer tick while one thread runs (`nohz_full`).
    pub nohz_full: Vec<usize>,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
    /// Those it could use.
    pub clocksources_available: Vec<String>,
    /// The processor's counter runs at one rate whatever its clock does, and goes on in every idle state.
    pub invariant_tsc: Option<bool>,
    /// Network interfaces, ascending by name.
    pub nics: Vec<Nic>,
    /// How long a read waits for packets by itself (`net.core.busy_read`), in microseconds.
    pub busy_read_us: Option<u64>,
    /// How long `poll` and `select` do (`net.core.busy_poll`), in microseconds.
    pub busy_poll_us: Option<u64>,
    /// Flows the kernel remembers for receive flow steering; 0 is off.
    pub rps_sock_flow_entries: Option<u64>,
    /// Disks, ascending by name.
    pub disks: Vec<Disk>,
}

impl Topology {
    /// Reads the machine below `root`: `/` for the one this runs on, otherwise a directory or a recording.
    ///
    /// Fails when no core is found, or when a list or number that is there cannot be read.
    pub fn detect(root: &Path) -> Result<Topology, String> {
        Topology::read(&Files::open(root)?)
    }

    /// Reads the machine whose files these are.
    pub fn read(files: &Files) -> Result<Topology, String> {
        let cpuinfo = CpuInfo::read(files);
        let online = online_cores(files, &cpuinfo)?;
        let meminfo = files.text("proc/meminfo").unwrap_or_default();
        let nodes = nodes::read(files, &online, &meminfo)?;
        let present = files.list("sys/devices/system/cpu/present")?.unwrap_or_else(|| online.clone());
        let mut isolated = files.list("sys/devices/system/cpu/isolated")?.unwrap_or_default();
        isolated.extend(files.list("sys/fs/cgroup/cpuset.cpus.isolated")?.unwrap_or_default());
        isolated.sort_unstable();
        isolated.dedup();
        let architecture = cpuinfo.architecture(files);
        let system_vendor = files.text("sys/class/dmi/id/sys_vendor");
        let system_product = files.text("sys/class/dmi/id/product_name");
        let hypervisor = system::hypervisor(files, &cpuinfo, system_vendor.as_deref(), system_product.as_deref());
        let clocksources = "sys/devices/system/clocksource/clocksource0";
        let available = files.text(&format!("{clocksources}/available_clocksource")).unwrap_or_default();
        Ok(Topology {
            cores: cores::read(files, &online, &nodes)?,
            offline: present.iter().copied().filter(|core| !online.contains(core)).collect(),
            present,
            nodes,
            memory_total_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable")
                .or_else(|| meminfo_bytes(&meminfo, "MemFree")),
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or(0),
            transparent: files
                .text("sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| parse_transparent_mode(&text)),
            kernel: files.text("proc/sys/kernel/osrelease"),
            command_line: files.text("proc/cmdline"),
            virtualised: cpuinfo.has_flag("hypervisor") || hypervisor.is_some(),
            hypervisor,
            steal_share: system::steal_share(&files.text("proc/stat").unwrap_or_default()),
            system_vendor,
            system_product,
            cpu_model: cpuinfo.model(),
            smt_active: files.switch("sys/devices/system/cpu/smt/active")?,
            control_group: cgroup::read(files)?,
            isolated,
            nohz_full: files.list("sys/devices/system/cpu/nohz_full")?.unwrap_or_default(),
            clocksource: files.text(&format!("{clocksources}/current_clocksource")),
            clocksources_available: available.split_whitespace().map(str::to_owned).collect(),
            invariant_tsc: cpuinfo.invariant_counter(&architecture),
            architecture,
            nics: nics::read(files)?,
            busy_read_us: files.number("proc/sys/net/core/busy_read")?,
            busy_poll_us: files.number("proc/sys/net/core/busy_poll")?,
            rps_sock_flow_entries: files.number("proc/sys/net/core/rps_sock_flow_entries")?,
            disks: disks::read(files)?,
        })
    }

    /// The core with this number, if it is online.
    pub fn core(&self, id: usize) -> Option<&Core> {
        self.cores.binary_search_by_key(&id, |core| core.id).ok().map(|index| &self.cores[index])
    }

    /// Numbers of the cores online, ascending.
    pub fn core_ids(&self) -> Vec<usize> {
        self.cores.iter().map(|core| core.id).collect()
    }

    /// Numbers of the sockets, ascending.
    pub fn sockets(&self) -> Vec<usize> {
        distinct(&self.cores, |core| core.package)
    }

    /// Socket and number of every die, ascending.
    pub fn dies(&self) -> Vec<(usize, usize)> {
        distinct(&self.cores, |core| (core.package, core.die))
    }

    /// Cores of every complex, ascending by their first: those that share the last level of cache.
    pub fn complexes(&self) -> Vec<Vec<usize>> {
        let of = |complex| self.cores.iter().filter(move |core| core.complex == complex).map(|core| core.id);
        distinct(&self.cores, |core| core.complex).into_iter().map(|complex| of(complex).collect()).collect()
    }

    /// The interface of this name.
    pub fn nic(&self, name: &str) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.name == name)
    }

    /// The first hardware thread of each physical core among `cores`, in their order.
    pub fn one_per_physical_core(&self, cores: &[usize]) -> Vec<usize> {
        let mut kept: Vec<usize> = Vec::new();
        for &id in cores {
            let siblings = self.core(id).map_or(&[][..], |core| &core.siblings);
            if !kept.iter().any(|k| *k == id || siblings.contains(k)) {
                kept.push(id);
            }
        }
        kept
    }
}

/// Reads the bracketed word of `always [madvise] never`.
pub(crate) fn parse_transparent_mode(text: &str) -> Option<TransparentMode> {
    let chosen = text.split_once('[')?.1.split_once(']')?.0;
    match chosen {
        "always" => Some(TransparentMode::Always),
        "madvise" => Some(TransparentMode::Madvise),
        "never" => Some(TransparentMode::Never),
        _ => None,
    }
}

fn online_cores(files: &Files, cpuinfo: &CpuInfo) -> Result<Vec<usize>, String> {
    let mut online = files.list("sys/devices/system/cpu/online")?.unwrap_or_default();
    if online.is_empty() {
        online = cpuinfo.processors();
    }
    if online.is_empty() {
        let root = files.root();
        return Err(format!("no cores found below {root}: mount sysfs on /sys or procfs on /proc"));
    }
    Ok(online)
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;

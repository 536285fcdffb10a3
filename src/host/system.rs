//! What is true of the machine as a whole: its processor's shape, its counter, who runs it.
//!
//! `proc/cpuinfo` is written for people and has a shape of its own on every architecture; the shape is also
//! what tells the architecture of a recorded machine:
//!
//! ```text
//! x86      processor, vendor_id, model name, flags: … lm constant_tsc nonstop_tsc hypervisor
//! Arm      processor, Features, CPU implementer, CPU architecture: 8
//! RISC-V   processor, hart, isa: rv64…
//! ```
//!
//! That there is a hypervisor an x86 processor says itself. An Arm processor does not; there it is the
//! firmware's word (DMI, or the device tree), and a cloud's machines without one are told by their names.

use crate::host::cpu_list::parse_core;
use crate::host::files::Files;

/// The text of `proc/cpuinfo`.
#[derive(Debug)]
pub(crate) struct CpuInfo {
    text: String,
}

impl CpuInfo {
    pub(crate) fn read(files: &Files) -> CpuInfo {
        CpuInfo { text: files.text("proc/cpuinfo").unwrap_or_default() }
    }

    fn values<'t>(&'t self, key: &'t str) -> impl Iterator<Item = &'t str> {
        self.text.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then_some(value.trim())
        })
    }

    /// Numbers of the processors, ascending.
    pub(crate) fn processors(&self) -> Vec<usize> {
        let mut processors: Vec<usize> = self.values("processor").filter_map(parse_core).collect();
        processors.sort_unstable();
        processors.dedup();
        processors
    }

    /// The first processor has this flag.
    pub(crate) fn has_flag(&self, wanted: &str) -> bool {
        self.values("flags").next().unwrap_or_default().split_whitespace().any(|flag| flag == wanted)
    }

    /// Model name of the first processor. Arm has numbers only, of which those of servers are known here.
    pub(crate) fn model(&self) -> Option<String> {
        if let Some(name) = self.values("model name").next() {
            return Some(name.to_owned());
        }
        let implementer = self.values("CPU implementer").next()?;
        let part = self.values("CPU part").next()?;
        let known = ARM_PARTS.iter().find(|(i, p, _)| (*i, *p) == (implementer, part));
        Some(known.map_or_else(|| format!("Arm {implementer}/{part}"), |(_, _, name)| (*name).to_owned()))
    }

    /// The architecture as Rust names it.
    pub(crate) fn architecture(&self, files: &Files) -> String {
        let has = |key: &str| self.values(key).next().is_some();
        let name = if has("flags") {
            if self.has_flag("lm") { "x86_64" } else { "x86" }
        } else if has("CPU implementer") {
            if self.values("CPU architecture").next() == Some("8") { "aarch64" } else { "arm" }
        } else if self.values("isa").next().is_some_and(|isa| isa.starts_with("rv64")) {
            "riscv64"
        } else if files.live() {
            std::env::consts::ARCH
        } else {
            "unknown"
        };
        name.to_owned()
    }

    /// Whether the counter keeps its rate and never stops. On 64-bit Arm the architecture demands both of the
    /// generic timer; x86 says it with two flags.
    pub(crate) fn invariant_counter(&self, architecture: &str) -> Option<bool> {
        match architecture {
            "aarch64" => Some(true),
            _ if self.values("flags").next().is_some() => {
                Some(self.has_flag("constant_tsc") && self.has_flag("nonstop_tsc"))
            }
            _ => None,
        }
    }
}

/// Implementer, part and name of the Arm cores that servers have.
/// From Linux, arch/arm64/include/asm/cputype.h.
const ARM_PARTS: [(&str, &str, &str); 7] = [
    ("0x41", "0xd08", "Cortex-A72"),
    ("0x41", "0xd0c", "Neoverse-N1"),
    ("0x41", "0xd40", "Neoverse-V1"),
    ("0x41", "0xd49", "Neoverse-N2"),
    ("0x41", "0xd4f", "Neoverse-V2"),
    ("0xc0", "0xac3", "Ampere-1"),
    ("0xc0", "0xac4", "Ampere-1a"),
];

/// The hypervisor below this machine, where anything tells it.
pub(crate) fn hypervisor(
    files: &Files,
    cpuinfo: &CpuInfo,
    vendor: Option<&str>,
    product: Option<&str>,
) -> Option<String> {
    if let Some(kind) = files.text("sys/hypervisor/type") {
        return Some(kind);
    }
    // An x86 processor's own word stands above its firmware's, which a cloud's metal shares with its machines.
    if cpuinfo.values("flags").next().is_some() && !cpuinfo.has_flag("hypervisor") {
        return None;
    }
    let (vendor, product) = (vendor.unwrap_or_default(), product.unwrap_or_default());
    let told = match vendor {
        "QEMU" => Some("QEMU"),
        "Amazon EC2" if !product.contains("metal") => Some("Amazon EC2"),
        "Google" if product == "Google Compute Engine" => Some("Google Compute Engine"),
        "Microsoft Corporation" if product == "Virtual Machine" => Some("Hyper-V"),
        "VMware, Inc." => Some("VMware"),
        "innotek GmbH" => Some("VirtualBox"),
        "Xen" => Some("Xen"),
        "Parallels International GmbH." => Some("Parallels"),
        _ if product.starts_with("KVM") || product.starts_with("Standard PC") => Some("KVM"),
        _ => None,
    };
    if let Some(name) = told {
        return Some(name.to_owned());
    }
    if let Some(compatible) = files.text("proc/device-tree/hypervisor/compatible") {
        return Some(compatible.trim_end_matches('\0').to_owned());
    }
    // Each offers a clock of its own to the machines it runs.
    let clocks = files.text("sys/devices/system/clocksource/clocksource0/available_clocksource")?;
    clocks.split_whitespace().find_map(|clock| match clock {
        "kvm-clock" => Some("KVM".to_owned()),
        "xen" => Some("Xen".to_owned()),
        _ if clock.starts_with("hyperv_clocksource") => Some("Hyper-V".to_owned()),
        _ => None,
    })
}

/// Where a kernel parameter is, below a root. As sysctl(8) has it: a name whose first separator is a slash is a path
/// as it stands; in any other dots separate, and a slash stands for a dot that belongs to a name, like that of a
/// virtual network in `net.ipv4.conf.eth0/7.rp_filter`.
pub(crate) fn parameter_path(name: &str) -> String {
    let is_path = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let swapped = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path = if is_path { name.to_owned() } else { name.chars().map(swapped).collect() };
    format!("proc/sys/{path}")
}

/// Steal among the first eight numbers of `cpu user nice system idle iowait irq softirq steal …`: what comes
/// behind them is counted in the first two already.
pub(crate) fn steal_share(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|number| number.parse().ok()).collect();
    let all = ticks.iter().fold(0u64, |all, &ticks| all.saturating_add(ticks));
    (ticks.len() == 8 && all > 0).then(|| ticks[7] as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_are_paths_as_sysctl_has_it() {
        for (name, path) in [
            ("vm.swappiness", "vm/swappiness"),
            ("vm/swappiness", "vm/swappiness"),
            ("net.ipv4.conf.eth0/7.rp_filter", "net/ipv4/conf/eth0.7/rp_filter"),
            ("net/ipv4/conf/eth0.7/rp_filter", "net/ipv4/conf/eth0.7/rp_filter"),
            ("alone", "alone"),
        ] {
            assert_eq!(parameter_path(name), format!("proc/sys/{path}"));
        }
    }
}

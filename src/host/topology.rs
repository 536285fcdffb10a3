//! The machine as sysfs and procfs describe it: cores, NUMA nodes, memory, pages, clocks, limits
//! of the control group. Everything is read below a root directory, `/` in production and a
//! recorded tree in tests, so that the two-socket machine nobody has at hand can be tested too.
//!
//! A file that is missing is an ordinary answer (containers hide half of sysfs): the fact becomes
//! `None`, or one node that holds everything. A file that is there and makes no sense is an error,
//! because guessing would pin threads to the wrong cores.
//!
//! Control groups are read in version 2 only; under version 1 the limits stay unknown.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Largest core number a list may hold: the kernel's own bound (`NR_CPUS`) on x86.
pub(crate) const CORE_ID_MAX: usize = 8191;

/// Bytes of the huge pages this product asks for.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// One core as the kernel numbers it: a hardware thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Core {
    /// The kernel's number, what affinity calls take.
    pub id: usize,
    /// Socket.
    pub package: usize,
    /// Number of the physical core, unique within the socket at best.
    pub core_id: usize,
    /// NUMA node.
    pub node: usize,
    /// The other hardware threads of the same physical core, ascending.
    pub siblings: Vec<usize>,
    /// Frequency governor, where the machine shows one.
    pub governor: Option<String>,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The kernel's number.
    pub id: usize,
    /// Cores online on this node, ascending; empty for memory without cores.
    pub cores: Vec<usize>,
    /// Memory in bytes, where known.
    pub memory_bytes: Option<u64>,
    /// 2 MiB huge pages set aside on this node.
    pub huge_pages_total: u64,
    /// Those of them nobody holds yet.
    pub huge_pages_free: u64,
}

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

/// What the control group of this process allows, the tightest along its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ControlGroup {
    /// Core time per second (`cpu.max`), in cores: 1.5 is one and a half.
    pub cpu_cores: Option<f64>,
    /// Period over which that core time is counted, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Memory in bytes (`memory.max`).
    pub memory_bytes: Option<u64>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Topology {
    /// Cores online, ascending by number. Never empty.
    pub cores: Vec<Core>,
    /// NUMA nodes, ascending. Never empty.
    pub nodes: Vec<Node>,
    /// Memory of the machine in bytes.
    pub memory_total_bytes: Option<u64>,
    /// What could be handed out without swapping, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Swap space in bytes, zero when there is none.
    pub swap_bytes: u64,
    /// Transparent huge pages for anonymous memory; `None` if the kernel has none.
    pub transparent: Option<TransparentMode>,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// The processor says that it runs under a hypervisor.
    pub virtualised: bool,
    /// Model name of the first processor.
    pub cpu_model: Option<String>,
    /// Limits of the control group.
    pub control_group: ControlGroup,
    /// Cores the scheduler leaves alone (`isolcpus`).
    pub isolated: Vec<usize>,
    /// Cores without a timer tick while one thread runs (`nohz_full`).
    pub nohz_full: Vec<usize>,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
}

impl Topology {
    /// Reads the machine below `root` (`/` for the one this runs on).
    ///
    /// Fails when no core is found, or when a list or number that is there cannot be read.
    pub fn detect(root: &Path) -> Result<Topology, String> {
        let files = Files { root };
        let cpuinfo = files.text("proc/cpuinfo").unwrap_or_default();
        let online = online_cores(&files, &cpuinfo)?;
        let meminfo = files.text("proc/meminfo").unwrap_or_default();
        let memory_total_bytes = meminfo_bytes(&meminfo, "MemTotal");
        let nodes = read_nodes(&files, &online, memory_total_bytes)?;
        let flags = cpuinfo_value(&cpuinfo, "flags").unwrap_or_default();
        Ok(Topology {
            cores: read_cores(&files, &online, &nodes)?,
            nodes,
            memory_total_bytes,
            memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable")
                .or_else(|| meminfo_bytes(&meminfo, "MemFree")),
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or(0),
            transparent: files
                .text("sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| parse_transparent_mode(&text)),
            kernel: files.text("proc/sys/kernel/osrelease"),
            virtualised: flags.split_whitespace().any(|flag| flag == "hypervisor")
                || files.text("sys/hypervisor/type").is_some(),
            cpu_model: cpuinfo_value(&cpuinfo, "model name").map(str::to_owned),
            control_group: read_control_group(&files),
            isolated: files.list("sys/devices/system/cpu/isolated")?.unwrap_or_default(),
            nohz_full: files.list("sys/devices/system/cpu/nohz_full")?.unwrap_or_default(),
            clocksource: files.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
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

/// Reads a list of cores as the kernel and people write it: `0-3,8`. Ascending, each core once;
/// an empty text is an empty list.
pub fn parse_cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let complaint = || format!("'{text}' is not a list of cores: write numbers and ranges, like 0-3,8");
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let part = part.trim();
        if part.is_empty() && text.trim().is_empty() {
            continue;
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = parse_core(first).ok_or_else(complaint)?;
        let last = parse_core(last).ok_or_else(complaint)?;
        if first > last {
            return Err(complaint());
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

/// Writes a list of cores the way [`parse_cpu_list`] reads it: `0-3,8`.
pub fn format_cpu_list(cores: &[usize]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    let ranges = cores.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [only] => only.to_string(),
        _ => format!("{}-{}", range[0], range[range.len() - 1]),
    });
    ranges.collect::<Vec<_>>().join(",")
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

fn parse_core(text: &str) -> Option<usize> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None; // `parse` alone would take "+3"
    }
    text.parse().ok().filter(|&core| core <= CORE_ID_MAX)
}

/// The files below one root.
struct Files<'r> {
    root: &'r Path,
}

impl Files<'_> {
    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The text without surrounding space; `None` when missing, unreadable or empty.
    fn text(&self, relative: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(relative)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn number(&self, relative: &str) -> Result<Option<usize>, String> {
        let Some(text) = self.text(relative) else { return Ok(None) };
        // The kernel writes -1 where the firmware told it nothing.
        if text == "-1" {
            return Ok(None);
        }
        let number = text.parse().map_err(|_| self.senseless(relative, &text, "a number"))?;
        Ok(Some(number))
    }

    fn list(&self, relative: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(text) = self.text(relative) else { return Ok(None) };
        // Some kernels print a null pointer where nothing is configured.
        if text == "(null)" {
            return Ok(None);
        }
        let list = parse_cpu_list(&text).map_err(|_| self.senseless(relative, &text, "a list of cores"))?;
        Ok(Some(list))
    }

    fn senseless(&self, relative: &str, text: &str, wanted: &str) -> String {
        let path = self.path(relative);
        format!("{} holds '{text}', which is not {wanted}: is the right sysfs mounted there?", path.display())
    }

    /// Numbers N of the entries `prefixN` in a directory, ascending.
    fn numbered(&self, directory: &str, prefix: &str) -> Vec<usize> {
        let Ok(entries) = fs::read_dir(self.path(directory)) else { return Vec::new() };
        let mut numbers: Vec<usize> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn online_cores(files: &Files<'_>, cpuinfo: &str) -> Result<Vec<usize>, String> {
    let mut online = files.list("sys/devices/system/cpu/online")?.unwrap_or_default();
    if online.is_empty() {
        online = cpuinfo_values(cpuinfo, "processor").filter_map(|number| number.parse().ok()).collect();
        online.sort_unstable();
        online.dedup();
    }
    if online.is_empty() {
        let root = files.root.display();
        return Err(format!("no cores found below {root}: mount sysfs on /sys or procfs on /proc"));
    }
    Ok(online)
}

fn read_cores(files: &Files<'_>, online: &[usize], nodes: &[Node]) -> Result<Vec<Core>, String> {
    let governors = read_governors(files);
    let read_core = |&id: &usize| {
        let topology = format!("sys/devices/system/cpu/cpu{id}/topology");
        let mut siblings = files.list(&format!("{topology}/thread_siblings_list"))?.unwrap_or_default();
        siblings.retain(|other| *other != id && online.contains(other));
        Ok(Core {
            id,
            package: files.number(&format!("{topology}/physical_package_id"))?.unwrap_or(0),
            core_id: files.number(&format!("{topology}/core_id"))?.unwrap_or(id),
            node: nodes.iter().find(|node| node.cores.contains(&id)).map_or(nodes[0].id, |node| node.id),
            siblings,
            governor: governors.get(&id).cloned(),
        })
    };
    online.iter().map(read_core).collect()
}

/// Governors by core. A policy governs one core or several, and lists them with spaces between.
fn read_governors(files: &Files<'_>) -> BTreeMap<usize, String> {
    let directory = "sys/devices/system/cpu/cpufreq";
    let mut governors = BTreeMap::new();
    for policy in files.numbered(directory, "policy") {
        let Some(governor) = files.text(&format!("{directory}/policy{policy}/scaling_governor")) else { continue };
        let cores = files.text(&format!("{directory}/policy{policy}/affected_cpus")).unwrap_or_default();
        for core in cores.split_whitespace().filter_map(parse_core) {
            governors.insert(core, governor.clone());
        }
    }
    governors
}

fn read_nodes(files: &Files<'_>, online: &[usize], memory_total_bytes: Option<u64>) -> Result<Vec<Node>, String> {
    let mut nodes = Vec::new();
    for id in files.numbered("sys/devices/system/node", "node") {
        let directory = format!("sys/devices/system/node/node{id}");
        let mut cores = files.list(&format!("{directory}/cpulist"))?.unwrap_or_default();
        cores.retain(|core| online.contains(core));
        let meminfo = files.text(&format!("{directory}/meminfo")).unwrap_or_default();
        let pages = format!("{directory}/hugepages/hugepages-2048kB");
        nodes.push(Node {
            id,
            cores,
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            huge_pages_total: files.number(&format!("{pages}/nr_hugepages"))?.unwrap_or(0) as u64,
            huge_pages_free: files.number(&format!("{pages}/free_hugepages"))?.unwrap_or(0) as u64,
        });
    }
    if nodes.is_empty() {
        let pages = "sys/kernel/mm/hugepages/hugepages-2048kB";
        nodes.push(Node {
            id: 0,
            cores: online.to_vec(),
            memory_bytes: memory_total_bytes,
            huge_pages_total: files.number(&format!("{pages}/nr_hugepages"))?.unwrap_or(0) as u64,
            huge_pages_free: files.number(&format!("{pages}/free_hugepages"))?.unwrap_or(0) as u64,
        });
    }
    Ok(nodes)
}

/// Follows the group of this process from its own directory up to the top: a parent's limit
/// binds its children, so the tightest of each kind counts.
fn read_control_group(files: &Files<'_>) -> ControlGroup {
    let mut tightest = ControlGroup::default();
    let membership = files.text("proc/self/cgroup").unwrap_or_default();
    let Some(path) = membership.lines().find_map(|line| line.strip_prefix("0::")) else { return tightest };
    // A path that climbs out of the mount ("/../x", seen from a foreign namespace) names nothing here.
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    loop {
        let directory = ["sys/fs/cgroup"].iter().chain(&parts).copied().collect::<Vec<_>>().join("/");
        let memory = files.text(&format!("{directory}/memory.max")).and_then(|text| text.parse::<u64>().ok());
        tightest.memory_bytes = [tightest.memory_bytes, memory].into_iter().flatten().min();
        let quota = files.text(&format!("{directory}/cpu.max")).and_then(|text| parse_cpu_max(&text));
        if let Some((cores, period_us)) = quota
            && tightest.cpu_cores.is_none_or(|known| cores < known)
        {
            tightest.cpu_cores = Some(cores);
            tightest.cpu_period_us = Some(period_us);
        }
        if parts.pop().is_none() {
            return tightest;
        }
    }
}

/// Reads `150000 100000` (microseconds of quota and period) as 1.5 cores; `max` is no limit.
fn parse_cpu_max(text: &str) -> Option<(f64, u64)> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    (period > 0).then(|| (quota as f64 / period as f64, period))
}

/// The value of `MemTotal:  16 kB` in bytes, also behind `Node 0`.
fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.split_whitespace().next_back()? != key {
            return None;
        }
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    })
}

fn cpuinfo_values<'t>(text: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

fn cpuinfo_value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    cpuinfo_values(text, key).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str) -> Topology {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host").join(name);
        Topology::detect(&root).unwrap()
    }

    /// A directory of this test's own that is gone when the test is.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, files: &[(&str, &str)]) -> Scratch {
            let root = std::env::temp_dir().join(format!("spinetail-topology-{name}-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Scratch(root)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn two_sockets_are_read_with_threads_and_nodes() {
        let machine = recorded("two-socket-smt");
        assert_eq!(machine.core_ids(), (0..32).collect::<Vec<_>>());
        let core = machine.core(9).unwrap();
        assert_eq!((core.package, core.core_id, core.node, &core.siblings[..]), (1, 1, 1, &[25][..]));
        assert_eq!(core.governor.as_deref(), Some("powersave"));
        assert_eq!(machine.core(24).unwrap().siblings, [8]);
        assert_eq!(machine.nodes.len(), 2);
        assert_eq!(machine.nodes[1].cores, parse_cpu_list("8-15,24-31").unwrap());
        assert_eq!(machine.nodes[1].memory_bytes, Some(66_048_000 * 1024));
        assert_eq!((machine.nodes[1].huge_pages_total, machine.nodes[1].huge_pages_free), (512, 256));
        assert_eq!(machine.isolated, parse_cpu_list("1-7,9-15").unwrap());
        assert_eq!(machine.nohz_full, machine.isolated);
        assert_eq!(machine.transparent, Some(TransparentMode::Madvise));
        assert_eq!(machine.clocksource.as_deref(), Some("tsc"));
        assert_eq!(machine.control_group, ControlGroup::default());
        assert!(!machine.virtualised);
    }

    #[test]
    fn small_vm_is_read_with_its_hypervisor_and_its_control_group() {
        let machine = recorded("vm-2core");
        assert_eq!(machine.core_ids(), [0, 1]);
        assert!(machine.virtualised);
        assert_eq!(machine.nodes.len(), 1);
        assert_eq!(machine.memory_total_bytes, Some(24_684_096 * 1024));
        assert_eq!(machine.cpu_model.as_deref(), Some("Intel(R) Xeon(R) Processor"));
        assert_eq!(machine.swap_bytes, 0);
        // The quota stands in the group itself, the memory limit in its parent.
        assert_eq!(machine.control_group.cpu_cores, Some(1.5));
        assert_eq!(machine.control_group.cpu_period_us, Some(100_000));
        assert_eq!(machine.control_group.memory_bytes, Some(2 << 30));
    }

    #[test]
    fn machine_that_shows_only_cpuinfo_is_one_node() {
        let scratch = Scratch::new("bare", &[("proc/cpuinfo", "processor : 0\n\nprocessor : 1\n")]);
        let machine = Topology::detect(&scratch.0).unwrap();
        assert_eq!(machine.core_ids(), [0, 1]);
        assert_eq!(machine.nodes.len(), 1);
        assert_eq!(machine.nodes[0].cores, [0, 1]);
        assert_eq!(machine.memory_total_bytes, None);
        assert_eq!(machine.transparent, None);
        assert!(machine.cores.iter().all(|core| core.siblings.is_empty() && core.governor.is_none()));
    }

    #[test]
    fn empty_tree_is_refused_with_what_to_mount() {
        let scratch = Scratch::new("empty", &[]);
        let complaint = Topology::detect(&scratch.0).unwrap_err();
        assert!(complaint.contains("/sys") && complaint.contains("/proc"), "{complaint}");
    }

    #[test]
    fn senseless_core_list_is_refused_with_its_file() {
        let scratch = Scratch::new("senseless", &[("sys/devices/system/cpu/online", "0-x\n")]);
        let complaint = Topology::detect(&scratch.0).unwrap_err();
        assert!(complaint.contains("cpu/online") && complaint.contains("0-x"), "{complaint}");
    }

    #[test]
    fn null_list_of_tickless_cores_is_none() {
        let files = [("sys/devices/system/cpu/online", "0\n"), ("sys/devices/system/cpu/nohz_full", "(null)\n")];
        let scratch = Scratch::new("null", &files);
        assert_eq!(Topology::detect(&scratch.0).unwrap().nohz_full, Vec::<usize>::new());
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Topology::detect(Path::new("/")).unwrap();
        assert!(!machine.cores.is_empty() && !machine.nodes.is_empty());
    }

    #[test]
    fn one_thread_is_kept_of_each_physical_core() {
        let machine = recorded("two-socket-smt");
        assert_eq!(machine.one_per_physical_core(&[0, 16, 17, 1, 8]), [0, 17, 8]);
    }

    #[test]
    fn core_lists_are_read_and_written_alike() {
        for (text, cores) in [("", vec![]), ("5", vec![5]), ("0-3,8", vec![0, 1, 2, 3, 8])] {
            assert_eq!(parse_cpu_list(text), Ok(cores.clone()));
            assert_eq!(format_cpu_list(&cores), text);
        }
        assert_eq!(parse_cpu_list(" 3, 1-2,2\n"), Ok(vec![1, 2, 3]));
    }

    #[test]
    fn core_lists_that_are_none_are_refused() {
        for text in ["a", "3-1", "1-2-3", "-1", "1,,2", ",", "1,", "+1", "0-99999999999", "0x1"] {
            assert!(parse_cpu_list(text).is_err(), "{text}");
        }
    }
}

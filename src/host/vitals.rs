//! How the host treats this process: time stolen from its cores, threads taken off them, pages and where they lie.
//!
//! All of it is what procfs says, read by whoever watches, never by a shard. Time that the hypervisor gives to others
//! (steal) and threads that the scheduler takes off a core they were pinned to (involuntary switches) are the usual causes
//! of a bad tail on a host that is not as dedicated as it was thought to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::host::process::{TICKS_PER_SECOND, page_bytes};

/// How one core and the thread pinned to it were treated, since the start of the machine and of the thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoreVitals {
    /// Seconds that the hypervisor gave to others.
    pub steal_s: f64,
    /// Times the thread was taken off the core while it wanted to run.
    pub involuntary: u64,
    /// Times it went to sleep.
    pub voluntary: u64,
}

/// What the process has of the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessVitals {
    /// Processor time used, in seconds.
    pub cpu_s: f64,
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// Files that are open, and how many may be.
    pub open_files: u64,
    /// See `open_files`; 0 is without limit.
    pub open_files_max: u64,
    /// When it started, in seconds of Unix time.
    pub started_unix_s: f64,
}

/// How its memory lies. Reading this walks page tables, and keeps whoever maps memory meanwhile waiting: once a minute is
/// enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryVitals {
    /// Bytes in huge pages of any kind.
    pub huge_bytes: u64,
    /// Bytes by NUMA node; empty where the kernel does not say.
    pub node_bytes: BTreeMap<usize, u64>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Vitals {
    proc: PathBuf,
    /// It is the kernel's own, not a record of one.
    is_live: bool,
}

impl Vitals {
    /// Of this process.
    pub fn of_this_process() -> Vitals {
        Vitals { is_live: true, ..Vitals::below(Path::new("/proc")) }
    }

    /// Of what is recorded below a folder.
    pub fn below(proc: &Path) -> Vitals {
        Vitals { proc: proc.to_path_buf(), is_live: false }
    }

    /// The number of this process's thread of that name, or of that name and a suffix behind a hyphen, as executors give
    /// it. Of several it is the first that was started; the others are its helpers.
    pub fn thread(&self, name: &str) -> Option<u32> {
        let entries = fs::read_dir(self.proc.join("self/task")).ok()?;
        let named = entries.flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let found = fs::read_to_string(entry.path().join("comm")).ok()?;
            let rest = found.trim_end().strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('-')).then_some(number)
        });
        named.min()
    }

    /// How cores and the threads on them were treated, in the order given.
    pub fn cores(&self, pinned: &[(usize, Option<u32>)]) -> Vec<CoreVitals> {
        let stat = self.read("stat");
        let of = |&(core, thread): &(usize, Option<u32>)| {
            let (voluntary, involuntary) = thread.map_or((0, 0), |thread| self.switches(thread));
            CoreVitals { steal_s: steal_seconds(&stat, core), involuntary, voluntary }
        };
        pinned.iter().map(of).collect()
    }

    /// What the process has.
    pub fn process(&self) -> ProcessVitals {
        let stat = self.read("self/stat");
        // The name, which may hold spaces, ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let machine = self.read("stat");
        let boot = machine.lines().find_map(|line| line.strip_prefix("btime "));
        let limits = self.read("self/limits");
        let open_max = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        ProcessVitals {
            cpu_s: (field(11) + field(12)) / TICKS_PER_SECOND,
            resident_bytes: field(21) as u64 * page_bytes(),
            open_files: self.open_files(),
            open_files_max: open_max.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0),
            started_unix_s: boot.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(0.0)
                + field(19) / TICKS_PER_SECOND,
        }
    }

    /// How its memory lies.
    pub fn memory(&self) -> MemoryVitals {
        if self.is_live && !Path::new(SECOND_NODE).exists() {
            // All of it is where it can be.
            let node_bytes = BTreeMap::from([(0, self.process().resident_bytes)]);
            return MemoryVitals { huge_bytes: self.huge_bytes(), node_bytes };
        }
        let mut node_bytes = BTreeMap::new();
        for line in self.read("self/numa_maps").lines() {
            let words = || line.split_whitespace();
            let page_kib = words().find_map(|word| word.strip_prefix("kernelpagesize_kB="));
            let page_bytes = page_kib.and_then(|text| text.parse::<u64>().ok()).unwrap_or(4) << 10;
            for word in words() {
                if let Some((node, pages)) = word.strip_prefix('N').and_then(|rest| rest.split_once('='))
                    && let (Ok(node), Ok(pages)) = (node.parse(), pages.parse::<u64>())
                {
                    *node_bytes.entry(node).or_default() += pages * page_bytes;
                }
            }
        }
        MemoryVitals { huge_bytes: self.huge_bytes(), node_bytes }
    }

    fn huge_bytes(&self) -> u64 {
        self.read("self/smaps_rollup").lines().map(huge_bytes).sum()
    }

    /// Linux has the number of open files as the size of their folder, from 6.2 on; else they are counted.
    fn open_files(&self) -> u64 {
        let folder = self.proc.join("self/fd");
        let size = fs::metadata(&folder).map_or(0, |folder| folder.len());
        if self.is_live && size > 0 {
            return size;
        }
        fs::read_dir(folder).map_or(0, |entries| entries.count() as u64)
    }

    fn switches(&self, thread: u32) -> (u64, u64) {
        let status = self.read(&format!("self/task/{thread}/status"));
        let of = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        (of("voluntary_ctxt_switches:"), of("nonvoluntary_ctxt_switches:"))
    }

    /// A file below procfs; one that is not there says nothing.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.proc.join(path)).unwrap_or_default()
    }
}

/// Where there is one, memory may be far.
const SECOND_NODE: &str = "/sys/devices/system/node/node1";

/// `cpu3 user nice system idle iowait irq softirq steal …`, in ticks.
fn steal_seconds(stat: &str, core: usize) -> f64 {
    let name = format!("cpu{core} ");
    let fields = stat.lines().find_map(|line| line.strip_prefix(&name));
    let ticks = fields.and_then(|fields| fields.split_whitespace().nth(7)?.parse::<f64>().ok());
    ticks.unwrap_or(0.0) / TICKS_PER_SECOND
}

/// The bytes in a line of smaps that tells of huge pages, transparent or set aside; of others 0.
fn huge_bytes(line: &str) -> u64 {
    let Some((name, rest)) = line.split_once(':') else { return 0 };
    let is_huge =
        matches!(name, "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" | "Shared_Hugetlb" | "Private_Hugetlb");
    let kib = rest.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if is_huge { kib << 10 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A procfs of two nodes, with time stolen and huge pages of two kinds.
    fn recorded() -> (PathBuf, Vitals) {
        let folder = std::env::temp_dir().join(format!("spinetail-vitals-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "stat",
            "cpu  1 2 3 4 5 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 50 0 0\ncpu12 1 2 3 4 5 6 7 1234 0 0\nbtime 1700000000\n",
        );
        write("self/stat", "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 5 0 4200 999 100 0\n");
        write("self/limits", "Max open files            1024                 20000                files\n");
        write("self/task/79/comm", "shard-0-1\n");
        write("self/task/78/comm", "shard-0-1\n");
        write("self/task/78/status", "Name:\tshard-0\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t42\n");
        write("self/fd/0", "");
        write("self/smaps_rollup", "Rss: 9 kB\nAnonHugePages:      2048 kB\nPrivate_Hugetlb:    4096 kB\n");
        write(
            "self/numa_maps",
            "7f00 default anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4\n7f10 bind:1 huge anon=2 N1=2 kernelpagesize_kB=2048\n",
        );
        (folder.clone(), Vitals::below(&folder))
    }

    #[test]
    fn what_procfs_says_is_read() {
        let (folder, vitals) = recorded();
        let thread = vitals.thread("shard-0");
        assert_eq!((thread, vitals.thread("shard-00"), vitals.thread("shard")), (Some(78), None, Some(78)));
        let cores = vitals.cores(&[(12, thread), (3, None)]);
        assert_eq!(cores[0], CoreVitals { steal_s: 12.34, involuntary: 42, voluntary: 7 });
        assert_eq!(cores[1], CoreVitals::default());
        let process = vitals.process();
        assert_eq!((process.cpu_s, process.open_files, process.open_files_max), (2.0, 1, 1024));
        assert_eq!((process.resident_bytes, process.started_unix_s), (100 * page_bytes(), 1_700_000_042.0));
        let memory = vitals.memory();
        assert_eq!(memory.huge_bytes, 6 << 20);
        assert_eq!(memory.node_bytes, BTreeMap::from([(0, 2 * 4096), (1, 4096 + (4 << 20))]));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn this_process_has_a_past_and_memory() {
        let vitals = Vitals::of_this_process();
        let process = vitals.process();
        assert!(process.resident_bytes > 0 && process.open_files > 0 && process.started_unix_s > 1.6e9, "{process:?}");
    }

    #[test]
    fn where_nothing_is_said_nothing_is_claimed() {
        let vitals = Vitals::below(Path::new("/no/such/folder"));
        assert_eq!(vitals.process(), ProcessVitals::default());
        assert_eq!(vitals.memory(), MemoryVitals::default());
        assert_eq!(vitals.thread("shard-0"), None);
    }
}

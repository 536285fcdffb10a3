//! What this process may do, apart from what the machine has: limits, allowed cores, io_uring.

use std::ffi::c_ulong;
use std::fs;
use std::io;

use serde::Serialize;

use crate::host::topology::Topology;
use crate::host::{probe, topology};

/// Limits of this process, soft ones where there are two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Memory it may lock, in bytes; `None` is unlimited.
    pub memlock_bytes: Option<u64>,
    /// Files it may have open.
    pub nofile: u64,
    /// Cores the calling thread may run on, ascending.
    pub allowed_cores: Vec<usize>,
    /// Whether a ring as the shards use it can be built; otherwise why not and what to do.
    pub io_uring: Result<(), String>,
}

impl Limits {
    /// Those of this process on the machine it runs on; on a recorded one, none but its control group's cores.
    pub fn of(machine: &Topology, is_live: bool) -> Limits {
        if is_live {
            return Limits::read();
        }
        let allowed_cores = machine.control_group.cpuset.clone().unwrap_or_else(|| machine.core_ids());
        Limits { memlock_bytes: None, nofile: u64::MAX, allowed_cores, io_uring: Ok(()) }
    }

    /// Reads the limits of the running process. A limit that cannot be read counts as zero, so
    /// that a check complains rather than approves what it has not seen.
    pub fn read() -> Limits {
        // procfs rather than getrlimit(2): the same numbers without unsafe code.
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Limits {
            memlock_bytes: soft_limit(&limits, "Max locked memory").unwrap_or(Some(0)),
            nofile: soft_limit(&limits, "Max open files").unwrap_or(Some(0)).unwrap_or(u64::MAX),
            allowed_cores: allowed_cores(),
            io_uring: probe::io_uring_refusal().map_or(Ok(()), Err),
        }
    }
}

/// Raises the number of files this process may have open to the most it may raise it to; each connection
/// is one. What it is then.
#[expect(unsafe_code, reason = "getrlimit and setrlimit have no name in std")]
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one live rlimit is passed to each call.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return 0;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 { raised.rlim_cur } else { limit.rlim_cur }
    }
}

/// Gives the pages of code and constants back to the page cache, from which those that are still needed come again at
/// the first touch. What only a start runs (detection, profiles, configuration, the loader) would stay resident for good:
/// 1.5 MiB of 17 with `--memory 16MiB`, and an operator plans resident memory.
#[expect(unsafe_code, reason = "madvise on one's own code has no safe face")]
pub fn forget_code_of_the_start() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, end) in code_in_maps(&maps) {
        // SAFETY: 1. The range is a mapping of this process, as the kernel has just listed it. 2. It is mapped from a
        // file, and nothing ever wrote to it (see `code_in_maps`), so no page of it holds anything that the file does
        // not: dropping one changes nothing that can be read. A refusal leaves everything as it was.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Ranges that hold what their files do: of each file its executable part, and what lies before that and cannot be
/// written, which is constants. What lies behind it may have been written before it was protected: the loader puts
/// addresses there.
fn code_in_maps(maps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // Constants of a file whose code has not come yet.
    let mut before: Vec<(usize, usize)> = Vec::new();
    let mut file = "";
    for line in maps.lines() {
        // start-end rights offset device inode path
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights), Some(path)) = (words.next(), words.next(), words.nth(3)) else { continue };
        let ends = range.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        if path != file {
            (file, before) = (path, Vec::new());
        }
        match (rights, ends) {
            ("r--p", Some(ends)) if path.starts_with('/') => before.push(ends),
            ("r-xp", Some(ends)) if path.starts_with('/') => {
                found.append(&mut before);
                found.push(ends);
            }
            _ => before.clear(),
        }
        if rights == "rw-p" {
            // Nothing behind what can be written is taken for constants, whatever comes.
            file = "";
        }
    }
    found
}

/// Keeps the calling thread, and the threads it makes from now on, to these cores. A thread may leave them again for
/// any core that the cpuset allows, which is how shards reach theirs.
#[expect(unsafe_code, reason = "sched_setaffinity has no name in std")]
pub fn keep_to_cores(cores: &[usize]) -> io::Result<()> {
    let nonsense = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let highest = *cores.iter().max().ok_or_else(|| nonsense("no core is named"))?;
    if highest > topology::CORE_ID_MAX {
        return Err(nonsense("no core has such a number"));
    }
    // As many words as the highest core needs: libc's `cpu_set_t` ends at core 1,023, the kernel does not.
    const BITS: usize = c_ulong::BITS as usize;
    let mut mask: Vec<c_ulong> = vec![0; highest / BITS + 1];
    for core in cores {
        mask[core / BITS] |= 1 << (core % BITS);
    }
    // SAFETY: 1. The kernel reads as many bytes as it is told, and `mask` has them: it lives until the call returns.
    // 2. The call writes nothing of ours. 3. The pointer's type promises more bytes than there may be, but nobody
    // on this side looks through it: libc hands length and pointer on. 4. Zero is the calling thread, whoever it is.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(mask.as_slice()), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The user whose rights this process has.
#[expect(unsafe_code, reason = "geteuid has no name in std")]
pub fn effective_user() -> u32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Bytes of memory that this process has in use, as the kernel counts; 0 where it does not say.
pub fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    pages * page_bytes()
}

/// Seconds of processor time that this process has used: its own, and the kernel's for it.
pub fn cpu_seconds() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, which may hold spaces, ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) / TICKS_PER_SECOND, ticks(12) / TICKS_PER_SECOND)
}

/// Bytes of a page.
#[expect(unsafe_code, reason = "sysconf has no name in std")]
pub(super) fn page_bytes() -> u64 {
    // SAFETY: the call takes a number and touches nothing of ours.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// What the kernel counts processor time in, on every architecture Linux has today (USER_HZ).
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

/// The soft limit in a line of `/proc/self/limits`; the inner `None` is unlimited.
fn soft_limit(text: &str, name: &str) -> Option<Option<u64>> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn allowed_cores() -> Vec<usize> {
    if let Some(cores) = core_affinity::get_core_ids() {
        return cores.into_iter().map(|core| core.id).collect();
    }
    // The affinity call above holds 1,024 cores and fails on kernels built for more.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    topology::parse_cpu_list(list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 20000                files
Max locked memory         unlimited            unlimited            bytes
";

    #[test]
    fn soft_limits_are_read() {
        assert_eq!(soft_limit(RECORDED, "Max open files"), Some(Some(1024)));
        assert_eq!(soft_limit(RECORDED, "Max locked memory"), Some(None));
    }

    #[test]
    fn only_what_nobody_can_have_written_is_forgotten() {
        let maps = "55d0-55d8 r--p 00000000 fe:00 1 /bin/own\n55d8-66d8 r-xp 00008000 fe:00 1 /bin/own\n\
                    66d8-66e8 r--p 00000000 fe:00 1 /bin/own\n66e8-66f8 rw-p 00000000 fe:00 1 /bin/own\n\
                    66f8-6708 rw-p 00000000 00:00 0 [heap]\n7e00-7e10 rwxp 00000000 fe:00 1 /bin/jit\n\
                    7f00-7f10 r-xp 00000000 fe:00 2 /lib/libc.so.6\n7f10-7f20 r--p 00000000 fe:00 2 /lib/libc.so.6\n\
                    7f20-7f30 r--s 00000000 fe:00 3 /data\n7fff-8000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(code_in_maps(maps), [(0x55d0, 0x55d8), (0x55d8, 0x66d8), (0x7f00, 0x7f10)]);
        // And it runs on.
        forget_code_of_the_start();
        assert!(Limits::read().nofile > 0);
    }

    #[test]
    fn missing_limit_is_not_taken_for_unlimited() {
        assert_eq!(soft_limit(RECORDED, "Max stack size"), None);
        assert_eq!(soft_limit("", "Max open files"), None);
    }

    /// In a thread of its own, which nobody misses.
    #[test]
    fn a_thread_is_kept_to_its_cores_and_leaves_them_for_one_it_is_pinned_to() {
        let allowed = allowed_cores();
        let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
        let thread = std::thread::spawn(move || {
            keep_to_cores(&[first]).unwrap();
            assert_eq!(allowed_cores(), [first]);
            // What a shard does whose parent was kept away from its core.
            std::thread::spawn(move || {
                assert_eq!(allowed_cores(), [first]);
                assert!(core_affinity::set_for_current(core_affinity::CoreId { id: last }));
                assert_eq!(allowed_cores(), [last]);
            })
            .join()
            .unwrap();
            // A core that is not there is no harm among others, and an error alone: above 1,023 too.
            keep_to_cores(&[first, topology::CORE_ID_MAX]).unwrap();
            assert_eq!(allowed_cores(), [first]);
            assert!(keep_to_cores(&[topology::CORE_ID_MAX]).is_err());
        });
        thread.join().unwrap();
        assert!(keep_to_cores(&[]).is_err() && keep_to_cores(&[usize::MAX]).is_err());
    }

    #[test]
    fn this_process_may_run_somewhere() {
        let limits = Limits::read();
        assert!(!limits.allowed_cores.is_empty());
        assert!(limits.nofile > 0);
    }
}

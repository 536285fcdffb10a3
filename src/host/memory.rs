//! A shard's memory: one mapping, in the largest pages the machine grants, on the shard's node.
//!
//!   transparent:  | slack | arena, aligned to 2 MiB … | slack |     mapped 2 MiB larger than asked
//!   2 MiB, 4 KiB: | arena …                                   |
//!
//! Why anonymous memory and not yet a memfd, which could be handed to the next process: a memfd is
//! shared memory, and shared memory gets transparent huge pages only where the administrator set
//! /sys/kernel/mm/transparent_hugepage/shmem_enabled. That file says `never` on the machines this
//! was built on, as it does by default, while `enabled` says `madvise`: anonymous memory that asks
//! gets huge pages without anybody's help. Until there is a handoff between processes, a memfd
//! would cost every host its huge pages and buy nothing. It comes with the handoff, and changes
//! only the call that maps.
//!
//! Why pages are populated with MADV_POPULATE_WRITE after the advice and the binding, not with
//! MAP_POPULATE: that flag fills the mapping before either can be said, so it would settle for
//! 4 KiB pages on whichever node the caller happens to run. And a huge page that the node cannot
//! supply raises SIGBUS at the touch; the advice returns an error, and there is something to fall
//! back to. Explicit huge pages are populated always for that reason: they were set aside
//! for us at the mapping, so it costs time and no memory.
#![expect(unsafe_code, reason = "mbind(2) has no safe wrapper among our dependencies")]

use std::ops::{Deref, DerefMut, Range};
use std::path::Path;
use std::{fs, io};

use memmap2::{Advice, MmapMut, MmapOptions};
use serde::{Deserialize, Serialize};

use crate::base::units::format_bytes;
use crate::host::numa::Whereabouts;
use crate::host::topology::{self, TransparentMode};

const HUGE_PAGE_BYTES: usize = topology::HUGE_PAGE_BYTES as usize;
const HUGE_PAGE_BITS: u8 = HUGE_PAGE_BYTES.trailing_zeros() as u8;
const SMALL_PAGE_BYTES: usize = 4096;

/// Words of the node mask given to mbind(2): 1,024 nodes, the most any kernel is built for.
const NODE_MASK_WORDS: usize = 16;

const _: () = assert!(1 << HUGE_PAGE_BITS == HUGE_PAGE_BYTES, "a page is a power of two");

/// Pages that memory is wished in. Each falls back to the next one down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageWish {
    /// 2 MiB pages set aside by the administrator: certain, and never swapped.
    #[serde(rename = "2MiB")]
    Huge2M,
    /// 2 MiB pages where the kernel finds them, asked for by madvise.
    #[default]
    #[serde(rename = "transparent")]
    Transparent,
    /// 4 KiB pages.
    #[serde(rename = "4KiB")]
    Small,
}

impl PageWish {
    /// The name in a profile.
    pub fn name(self) -> &'static str {
        match self {
            PageWish::Huge2M => "2MiB",
            PageWish::Transparent => "transparent",
            PageWish::Small => "4KiB",
        }
    }
}

/// A shard's node, and what happens if its memory cannot be had there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The node of the shard's core.
    pub node: usize,
    /// Whether memory of another node will do.
    pub remote_allowed: bool,
}

/// Zeroed, owned memory; a slice of bytes that is unmapped when dropped.
#[derive(Debug)]
pub struct Arena {
    map: MmapMut,
    range: Range<usize>,
    granted: PageWish,
    node: Option<usize>,
    shortfalls: Vec<String>,
}

impl Arena {
    /// Maps `bytes` of zeroed memory in the wished pages or the next that are granted, on NUMA
    /// node `node` if one is named and the machine has more than one. With `populate` every page
    /// is touched before this returns, so that no request pays for it.
    ///
    /// What was wished and not granted is told by [`Arena::shortfalls`], it is no error. Errors:
    /// zero bytes, a node that does not exist, memory that the kernel refuses.
    pub fn reserve(bytes: usize, wish: PageWish, node: Option<usize>, populate: bool) -> Result<Arena, String> {
        if bytes == 0 {
            return Err("an arena needs at least one byte: raise memory.total".to_owned());
        }
        let node = node_to_bind(node, &nodes_with_memory())?;
        let mut shortfalls = Vec::new();
        if wish == PageWish::Huge2M {
            match Arena::reserve_huge(bytes, node) {
                Ok(arena) => return Ok(arena),
                Err(shortfall) => shortfalls.push(shortfall),
            }
        }
        if wish != PageWish::Small {
            match transparent_refusal() {
                None => return Arena::reserve_advised(bytes, node, populate, shortfalls),
                Some(shortfall) => shortfalls.push(shortfall),
            }
        }
        let map = map(bytes, SMALL_PAGE_BYTES)?;
        let mut arena = Arena { map, range: 0..bytes, granted: PageWish::Small, node: None, shortfalls };
        arena.settle(node, populate)?;
        Ok(arena)
    }

    /// The same on the node `home` names, and looked after once it has been touched: memory that lies on another node
    /// is an error, or a shortfall where that is allowed.
    pub fn reserve_at(bytes: usize, wish: PageWish, home: Option<Home>, populate: bool) -> Result<Arena, String> {
        let mut arena = Arena::reserve(bytes, wish, home.map(|home| home.node), populate)?;
        let Some(home) = home else { return Ok(arena) };
        if !populate && arena.granted != PageWish::Huge2M {
            let node = home.node;
            arena.shortfalls.push(format!(
                "whether memory lies on node {node} is not known before it is touched: set memory.populate = true"
            ));
            return Ok(arena);
        }
        arena.shortfalls.extend(settle_at(home, Whereabouts::of(&arena))?);
        Ok(arena)
    }

    /// In pages from the pool; the error is a shortfall, told to whoever reads it later.
    fn reserve_huge(bytes: usize, node: Option<usize>) -> Result<Arena, String> {
        let pages = bytes.div_ceil(HUGE_PAGE_BYTES);
        let short = |error: &io::Error| {
            let place = node.map_or("vm.nr_hugepages".to_owned(), |node| {
                format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages")
            });
            format!("{pages} huge pages of 2 MiB were not granted ({error}): add that many to {place}")
        };
        let whole = round_up(bytes, HUGE_PAGE_BYTES)?;
        let map = MmapOptions::new().len(whole).huge(Some(HUGE_PAGE_BITS)).map_anon().map_err(|error| short(&error))?;
        let mut arena = Arena { map, range: 0..bytes, granted: PageWish::Huge2M, node: None, shortfalls: Vec::new() };
        arena.bind(node);
        // Not `settle`: touching page by page would meet the SIGBUS that this call turns into an error.
        arena.map.advise(Advice::PopulateWrite).map_err(|error| short(&error))?;
        Ok(arena)
    }

    /// In ordinary memory that asks for transparent huge pages.
    fn reserve_advised(
        bytes: usize,
        node: Option<usize>,
        populate: bool,
        shortfalls: Vec<String>,
    ) -> Result<Arena, String> {
        // One page more than asked: the kernel aligns a mapping to 4 KiB, and a huge page can only
        // lie at a multiple of its own size. The slack is never touched, it costs addresses only.
        let mapped = round_up(bytes, HUGE_PAGE_BYTES)?;
        let map = map(mapped.saturating_add(HUGE_PAGE_BYTES), HUGE_PAGE_BYTES)?;
        let start = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // What is left behind the last whole huge page lies in small ones: a huge page there would make up to 2 MiB
        // resident that nobody planned, in each shard, and where the administrator wrote 'always' it comes unasked.
        let whole = (bytes / HUGE_PAGE_BYTES).max(1) * HUGE_PAGE_BYTES;
        let advised = map.advise_range(Advice::HugePage, start, whole);
        if whole < mapped {
            // Refused only by kernels without huge pages, which cannot give one there.
            let _ = map.advise_range(Advice::NoHugePage, start + whole, mapped - whole);
        }
        let range = start..start + bytes;
        let mut arena = Arena { map, range, granted: PageWish::Transparent, node: None, shortfalls };
        if let Err(error) = advised {
            arena.fall_to_small(format!("transparent huge pages were refused ({error}): build the kernel with them"));
        }
        arena.settle(node, populate)?;
        if populate && arena.granted == PageWish::Transparent && arena.huge_bytes() == Some(0) {
            arena.fall_to_small(
                "transparent huge pages were allowed but none was free in one piece: set huge pages aside at boot \
                 (vm.nr_hugepages) and ask for pages = \"2MiB\""
                    .to_owned(),
            );
        }
        Ok(arena)
    }

    /// Binds to the node, then touches every page, in this order.
    fn settle(&mut self, node: Option<usize>, populate: bool) -> Result<(), String> {
        self.bind(node);
        if !populate {
            return Ok(());
        }
        // The end of the last page, not of the last byte; the map ends on a page as well.
        let bytes = round_up(self.range.len(), SMALL_PAGE_BYTES)?.min(self.map.len() - self.range.start);
        match self.map.advise_range(Advice::PopulateWrite, self.range.start, bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // Linux before 5.14 does not know the advice.
                self.iter_mut().step_by(SMALL_PAGE_BYTES).for_each(|byte| *byte = 0);
                Ok(())
            }
            Err(error) => Err(format!(
                "{} of memory could not be populated ({error}): lower memory.total or free memory{}",
                format_bytes(bytes as u64),
                self.node.map_or(String::new(), |node| format!(" on node {node}"))
            )),
        }
    }

    /// Binds the mapping to `node`. A refusal is a shortfall: the first touch of a pinned thread
    /// puts pages on its own node anyway, only without a promise.
    fn bind(&mut self, node: Option<usize>) {
        let Some(node) = node else { return };
        match bind_to_node(self.map.as_mut_ptr(), self.map.len(), node) {
            Ok(()) => self.node = Some(node),
            Err(error) => self.shortfalls.push(format!(
                "memory was not bound to node {node} ({error}): allow mbind in the container's seccomp profile, or \
                 set memory.bind = false"
            )),
        }
    }

    fn fall_to_small(&mut self, shortfall: String) {
        self.granted = PageWish::Small;
        self.shortfalls.push(shortfall);
    }

    /// The pages that were got. `Transparent` without `populate` means allowed and asked for; with
    /// it, that at least one was found (see [`Arena::huge_bytes`]).
    pub fn granted(&self) -> PageWish {
        self.granted
    }

    /// The node this memory is bound to, if it is bound.
    pub fn bound_node(&self) -> Option<usize> {
        self.node
    }

    /// What was wished and not granted, each with its remedy; empty when all was.
    pub fn shortfalls(&self) -> &[String] {
        &self.shortfalls
    }

    /// Bytes of this arena that lie in huge pages now; `None` where procfs does not say. The
    /// kernel counts neighbouring mappings of one kind together, so between two arenas side by
    /// side this is an upper bound.
    pub fn huge_bytes(&self) -> Option<u64> {
        let smaps = fs::read_to_string("/proc/self/smaps").ok()?;
        let start = self.as_ptr() as usize;
        let found = huge_bytes_in_smaps(&smaps, start..start + self.range.len())?;
        Some(found.min(self.range.len().next_multiple_of(HUGE_PAGE_BYTES) as u64))
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.range.clone()]
    }
}

/// What to make of where memory was found: nothing, a shortfall, or a refusal to start.
fn settle_at(home: Home, found: io::Result<Whereabouts>) -> Result<Option<String>, String> {
    let node = home.node;
    let found = match found {
        Ok(found) => found,
        // Whoever may not ask cannot be refused for the answer.
        Err(error) => {
            return Ok(Some(format!(
                "whether memory lies on node {node} is not known ({error}): allow move_pages in the container's \
                 seccomp profile"
            )));
        }
    };
    let Some(stray) = found.stray(node) else { return Ok(None) };
    let remedy = format!(
        "free memory on node {node} ('numactl -H' shows it), set huge pages aside there, or lower the profile's memory"
    );
    if home.remote_allowed {
        return Ok(Some(format!(
            "memory for node {node} lies elsewhere ({stray}), each access crosses over: {remedy}"
        )));
    }
    Err(format!("memory for node {node} lies elsewhere ({stray}): {remedy}; memory.remote = true starts all the same"))
}

fn round_up(bytes: usize, page_bytes: usize) -> Result<usize, String> {
    bytes
        .checked_next_multiple_of(page_bytes)
        .filter(|&whole| whole <= isize::MAX as usize - HUGE_PAGE_BYTES)
        .ok_or_else(|| format!("{bytes} B is more than a process can address: lower memory.total"))
}

fn map(bytes: usize, page_bytes: usize) -> Result<MmapMut, String> {
    MmapOptions::new().len(round_up(bytes, page_bytes)?).map_anon().map_err(|error| {
        format!(
            "{} of memory could not be mapped ({error}): lower memory.total, or look at vm.overcommit_memory and \
             'ulimit -v'",
            format_bytes(bytes as u64)
        )
    })
}

/// Nodes that own memory; empty where sysfs does not say, which counts as one node.
fn nodes_with_memory() -> Vec<usize> {
    let directory = Path::new("/sys/devices/system/node");
    let lists = ["has_memory", "online"].iter().filter_map(|file| fs::read_to_string(directory.join(file)).ok());
    lists.filter_map(|list| topology::parse_cpu_list(&list).ok()).find(|nodes| !nodes.is_empty()).unwrap_or_default()
}

/// The node to bind to: none on a machine of one, an error for a node that owns no memory.
fn node_to_bind(node: Option<usize>, nodes: &[usize]) -> Result<Option<usize>, String> {
    match node {
        None => Ok(None),
        Some(_) if nodes.len() <= 1 => Ok(None),
        Some(node) if nodes.contains(&node) => Ok(Some(node)),
        Some(node) => Err(format!(
            "node {node} has no memory on this machine, nodes {} have: place the shard on a core of one of them, or \
             set memory.bind = false",
            topology::format_cpu_list(nodes)
        )),
    }
}

/// Why transparent huge pages will not come, if that is known beforehand: madvise succeeds either way.
fn transparent_refusal() -> Option<String> {
    let directory = Path::new("/sys/kernel/mm/transparent_hugepage");
    let enabled = fs::read_to_string(directory.join("enabled")).ok();
    let sized = fs::read_to_string(directory.join("hugepages-2048kB/enabled")).ok();
    transparent_refusal_of(enabled.as_deref(), sized.as_deref())
}

/// The same for the texts of `enabled` and, since Linux 6.8, `hugepages-2048kB/enabled`, which
/// overrides the first unless it says `inherit`.
fn transparent_refusal_of(enabled: Option<&str>, sized: Option<&str>) -> Option<String> {
    let Some(enabled) = enabled else {
        return Some(
            "this kernel has no transparent huge pages: set 2 MiB pages aside with vm.nr_hugepages".to_owned(),
        );
    };
    let path = "/sys/kernel/mm/transparent_hugepage";
    let refusal = |file: &str, word: &str| {
        Some(format!("transparent huge pages are set to 'never': write '{word}' to {path}/{file} as root"))
    };
    match sized {
        Some(text) if text.contains("[never]") => refusal("hugepages-2048kB/enabled", "inherit"),
        Some(text) if !text.contains("[inherit]") => None,
        _ => match topology::parse_transparent_mode(enabled) {
            Some(TransparentMode::Never) => refusal("enabled", "madvise"),
            _ => None,
        },
    }
}

/// `AnonHugePages` of all mappings that overlap `range`, in bytes; `None` if no mapping does.
fn huge_bytes_in_smaps(smaps: &str, range: Range<usize>) -> Option<u64> {
    let mut inside = false;
    let mut found = None;
    for line in smaps.lines() {
        let Some((first, rest)) = line.split_once([' ', ':']) else { continue };
        let addresses = first.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        if let Some((start, end)) = addresses {
            inside = start < range.end && range.start < end;
        } else if inside && first == "AnonHugePages" {
            let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
            found = Some(found.unwrap_or(0) + kib * 1024);
        }
    }
    found
}

/// Binds every page of a mapping of the caller's to `node`; pages touched before stay where they are.
pub(super) fn bind_to_node(start: *mut u8, bytes: usize, node: usize) -> io::Result<()> {
    let mut mask = [0u64; NODE_MASK_WORDS];
    let word = mask.get_mut(node / 64).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    *word = 1 << (node % 64);
    // The kernel reads one bit less than it is told, an old slip that has become the interface.
    let mask_bits = (NODE_MASK_WORDS * 64 + 1) as libc::c_ulong;
    // SAFETY:
    // 1. The kernel checks the address and the length: what is no mapping is refused.
    // 2. mbind changes where pages will come from, never their content or their validity.
    // 3. The mask outlives the call and holds the 1,024 bits that the kernel reads of it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            bytes as libc::c_ulong,
            libc::c_long::from(libc::MPOL_BIND),
            mask.as_ptr(),
            mask_bits,
            0 as libc::c_ulong,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD_BYTES: usize = 3 * HUGE_PAGE_BYTES + 12_345;

    #[test]
    fn arena_is_zeroed_owned_and_as_long_as_asked() {
        for wish in [PageWish::Huge2M, PageWish::Transparent, PageWish::Small] {
            for populate in [false, true] {
                let mut arena = Arena::reserve(ODD_BYTES, wish, Some(0), populate).unwrap();
                assert_eq!(arena.len(), ODD_BYTES);
                assert!(arena.iter().all(|&byte| byte == 0));
                arena[0] = 1;
                arena[ODD_BYTES - 1] = 2;
                assert_eq!((arena[0], arena[ODD_BYTES - 1]), (1, 2));
            }
        }
    }

    #[test]
    fn every_step_down_is_told_and_none_goes_up() {
        for wish in [PageWish::Huge2M, PageWish::Transparent, PageWish::Small] {
            let arena = Arena::reserve(ODD_BYTES, wish, None, true).unwrap();
            assert!(arena.granted() as u8 >= wish as u8, "{:?} for {wish:?}", arena.granted());
            let steps = arena.granted() as usize - wish as usize;
            assert_eq!(arena.shortfalls().len(), steps, "{:?}", arena.shortfalls());
            assert!(arena.shortfalls().iter().all(|shortfall| shortfall.contains(": ")));
        }
    }

    #[test]
    fn transparent_arena_lies_at_a_huge_page() {
        let arena = Arena::reserve(ODD_BYTES, PageWish::Transparent, None, true).unwrap();
        if arena.granted() == PageWish::Transparent {
            assert_eq!(arena.as_ptr() as usize % HUGE_PAGE_BYTES, 0);
            let whole = (ODD_BYTES / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES) as u64;
            assert!(arena.huge_bytes().is_none_or(|bytes| 0 < bytes && bytes <= whole), "{:?}", arena.huge_bytes());
        }
    }

    #[test]
    fn empty_and_impossible_arenas_are_refused() {
        assert!(Arena::reserve(0, PageWish::Small, None, false).unwrap_err().contains("memory.total"));
        for wish in [PageWish::Huge2M, PageWish::Transparent, PageWish::Small] {
            for bytes in [usize::MAX, isize::MAX as usize, 1 << 50] {
                let complaint = Arena::reserve(bytes, wish, None, false).unwrap_err();
                assert!(complaint.contains("lower memory.total"), "{complaint}");
            }
        }
    }

    #[test]
    fn node_is_skipped_on_a_machine_of_one_and_checked_on_others() {
        assert_eq!(node_to_bind(Some(7), &[0]), Ok(None));
        assert_eq!(node_to_bind(Some(7), &[]), Ok(None));
        assert_eq!(node_to_bind(None, &[0, 1]), Ok(None));
        assert_eq!(node_to_bind(Some(1), &[0, 1]), Ok(Some(1)));
        assert!(node_to_bind(Some(2), &[0, 1]).unwrap_err().contains("nodes 0-1"));
    }

    #[test]
    fn memory_on_its_node_is_found_there() {
        let home = Some(Home { node: 0, remote_allowed: false });
        let arena = Arena::reserve_at(ODD_BYTES, PageWish::Small, home, true);
        // On a machine of several nodes the first may lack room; here it is the only one, or has some.
        let arena = arena.unwrap();
        match Whereabouts::of(&arena) {
            Ok(found) => assert!(found.stray(0).is_none() && found.absent == 0, "{found:?}"),
            Err(error) => assert!(arena.shortfalls().iter().any(|told| told.contains("is not known")), "{error}"),
        }
    }

    #[test]
    fn memory_on_another_node_is_refused_or_told() {
        let found = || Ok(Whereabouts { pages: [(0, 750), (1, 250)].into(), absent: 0 });
        let home = |remote_allowed| Home { node: 0, remote_allowed };
        let refusal = settle_at(home(false), found()).unwrap_err();
        assert!(refusal.starts_with("memory for node 0 lies elsewhere (25.0 % on node 1): "), "{refusal}");
        assert!(refusal.contains("memory.remote = true"), "{refusal}");
        let told = settle_at(home(true), found()).unwrap().unwrap();
        assert!(told.contains("25.0 % on node 1") && told.contains("numactl -H"), "{told}");
        let at_home = Ok(Whereabouts { pages: [(0, 750)].into(), absent: 3 });
        assert_eq!(settle_at(home(false), at_home), Ok(None));
        // A container that forbids the question is no reason not to start.
        let refused = Err(io::Error::from_raw_os_error(libc::EPERM));
        assert!(settle_at(home(false), refused).unwrap().unwrap().contains("move_pages"));
    }

    #[test]
    fn kernel_takes_the_node_mask() {
        let mut map = map(SMALL_PAGE_BYTES, SMALL_PAGE_BYTES).unwrap();
        match bind_to_node(map.as_mut_ptr(), map.len(), 0) {
            Ok(()) => map[0] = 1,
            // A container may forbid the call or a kernel lack it; it must not find the call malformed.
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)), "{error}"),
        }
        assert!(bind_to_node(map.as_mut_ptr(), map.len(), NODE_MASK_WORDS * 64).is_err());
    }

    #[test]
    fn transparent_pages_set_to_never_are_told_with_their_file() {
        assert!(transparent_refusal_of(None, None).unwrap().contains("vm.nr_hugepages"));
        assert!(transparent_refusal_of(Some("always madvise [never]"), None).unwrap().contains("'madvise'"));
        let inherit = Some("always [inherit] madvise never");
        assert!(transparent_refusal_of(Some("always madvise [never]"), inherit).is_some());
        let never = Some("always inherit madvise [never]");
        assert!(transparent_refusal_of(Some("[always] madvise never"), never).unwrap().contains("'inherit'"));
        assert_eq!(transparent_refusal_of(Some("always [madvise] never"), None), None);
        let always = Some("[always] inherit madvise never");
        assert_eq!(transparent_refusal_of(Some("always madvise [never]"), always), None);
    }

    #[test]
    fn huge_bytes_are_counted_for_overlapping_mappings_only() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0 \nSize: 4 kB\nAnonHugePages:      2048 kB\n\
                     2000-4000 rw-p 00000000 00:00 0 \nAnonHugePages:      4096 kB\n";
        assert_eq!(huge_bytes_in_smaps(smaps, 0x2000..0x3000), Some(4096 * 1024));
        assert_eq!(huge_bytes_in_smaps(smaps, 0x1800..0x3000), Some(6144 * 1024));
        assert_eq!(huge_bytes_in_smaps(smaps, 0x9000..0xa000), None);
    }
}

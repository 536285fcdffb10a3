//! On which NUMA node memory lies, once it has been touched.
//!
//! Binding is a wish with exceptions: a page that was there before stays where it was, a container's filter may refuse
//! mbind(2), a cpuset may name other nodes (the kernel then takes the intersection, or ignores the binding), and a
//! huge page from the pool comes from whichever node has one left if nobody bound it. So what was asked for is not
//! believed: after the touch the kernel is asked where the pages are, by move_pages(2) without a destination, which
//! moves nothing. It answers for a process's own memory without privileges.
//!
//! Not every page is asked about: `SAMPLES_MAX` of them, evenly spread, which takes some milliseconds for an arena of
//! any size. A node that was full gave the last part of an arena elsewhere, not one page in ten thousand.
#![expect(unsafe_code, reason = "move_pages(2) has no safe wrapper among our dependencies")]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::io;

/// Pages of one arena that are asked about.
const SAMPLES_MAX: usize = 65_536;

/// Pages asked about in one call.
const BATCH: usize = 4096;

const SMALL_PAGE_BYTES: usize = 4096;

/// Where pages of some memory were found: sampled pages by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Sampled pages by node.
    pub pages: BTreeMap<usize, u64>,
    /// Sampled pages that are not in memory: nobody has touched them, or they are swapped out.
    pub absent: u64,
}

impl Whereabouts {
    /// Asks the kernel. The error is its refusal; containers may forbid the call.
    pub fn of(memory: &[u8]) -> io::Result<Whereabouts> {
        let pages = memory.len().div_ceil(SMALL_PAGE_BYTES);
        let stride_bytes = pages.div_ceil(SAMPLES_MAX).max(1) * SMALL_PAGE_BYTES;
        let mut found = Whereabouts::default();
        let mut addresses = (0..memory.len()).step_by(stride_bytes).map(|at| memory[at..].as_ptr().cast::<c_void>());
        loop {
            let batch: Vec<*const c_void> = addresses.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(found);
            }
            for status in nodes_of(&batch)? {
                match usize::try_from(status) {
                    Ok(node) => *found.pages.entry(node).or_default() += 1,
                    Err(_) => found.absent += 1,
                }
            }
        }
    }

    /// What lies elsewhere than on `node`, in words; `None` if nothing does.
    pub fn stray(&self, node: usize) -> Option<String> {
        let sum: u64 = self.pages.values().sum();
        let elsewhere: Vec<String> = self
            .pages
            .iter()
            .filter(|&(&on, &count)| on != node && count > 0)
            .map(|(on, &count)| format!("{:.1} % on node {on}", 100.0 * count as f64 / sum as f64))
            .collect();
        (!elsewhere.is_empty()).then(|| elsewhere.join(", "))
    }
}

/// The node of each page, or a negative error number for one that is not in memory.
fn nodes_of(pages: &[*const c_void]) -> io::Result<Vec<c_int>> {
    let mut status: Vec<c_int> = vec![0; pages.len()];
    // SAFETY: 1. `pages` holds as many addresses and `status` takes as many numbers as the call is told; both live
    // through it. 2. Without a list of nodes nothing is moved, the kernel only looks the addresses up, and answers
    // with an error number for one that is not mapped.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0 as libc::pid_t,
            pages.len() as libc::c_ulong,
            pages.as_ptr(),
            std::ptr::null::<c_int>(),
            status.as_mut_ptr(),
            0 as c_int,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pages: &[(usize, u64)]) -> Whereabouts {
        Whereabouts { pages: pages.iter().copied().collect(), absent: 0 }
    }

    #[test]
    fn what_lies_elsewhere_is_told_in_shares() {
        assert_eq!(found(&[(1, 500)]).stray(1), None);
        assert_eq!(found(&[]).stray(0), None);
        assert_eq!(found(&[(0, 1), (1, 999)]).stray(1).as_deref(), Some("0.1 % on node 0"));
        assert_eq!(
            found(&[(0, 250), (1, 500), (2, 250)]).stray(1).as_deref(),
            Some("25.0 % on node 0, 25.0 % on node 2")
        );
    }

    #[test]
    fn touched_memory_is_found_on_a_node_of_this_machine() {
        let mut memory = vec![0u8; 8 << 20];
        memory.iter_mut().step_by(SMALL_PAGE_BYTES).for_each(|byte| *byte = 1);
        let found = match Whereabouts::of(&memory) {
            Ok(found) => found,
            Err(error) => return eprintln!("skipped: move_pages is refused here: {error}"),
        };
        assert_eq!(found.pages.values().sum::<u64>(), 2048, "{found:?}");
        assert_eq!(found.absent, 0, "{found:?}");
        let machine = crate::host::topology::Topology::detect(std::path::Path::new("/")).unwrap();
        assert!(found.pages.keys().all(|node| machine.nodes.iter().any(|known| known.id == *node)), "{found:?}");
    }

    #[test]
    fn untouched_memory_is_nowhere() {
        let memory = memmap2::MmapOptions::new().len(1 << 20).map_anon().unwrap();
        if let Ok(found) = Whereabouts::of(&memory) {
            assert_eq!((found.absent, found.pages.len()), (256, 0), "{found:?}");
        }
    }
}

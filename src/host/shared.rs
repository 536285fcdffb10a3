//! Memory that other processes may read and this one alone may write.
//!
//! A memory file, sealed: nobody can shrink it under a reader, and nobody can map it for writing any more but
//! by the mapping that exists already (F_SEAL_FUTURE_WRITE). A descriptor of it may be given to anybody:
//! opening it anew through /proc, writing to it, mapping or remapping it writable are all refused by the
//! kernel, whoever asks.

#![expect(unsafe_code, reason = "memfd_create, fcntl and words in memory that other processes see")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::host::memory::{PageWish, bind_to_node};

/// A memory file and this process's writable mapping of it.
pub struct SharedMemory {
    file: OwnedFd,
    map: MmapRaw,
    granted: PageWish,
    shortfall: Option<String>,
}

/// A mapping of somebody else's file, for reading.
pub struct SharedView {
    map: MmapRaw,
}

/// Who may write to a memory file once it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Its maker.
    Maker,
    /// Everybody who gets it.
    All,
}

impl SharedMemory {
    /// Makes a file of `bytes` zeros in the wished pages, or the next that are granted, on `node`.
    pub fn create(name: &str, bytes: usize, wish: PageWish, node: Option<usize>, writers: Writers) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(SMALL_PAGE_BYTES);
        if wish == PageWish::Huge2M && bytes >= HUGE_PAGE_BYTES {
            let whole = bytes.next_multiple_of(HUGE_PAGE_BYTES);
            match Self::create_in(name, whole, libc::MFD_HUGETLB | libc::MFD_HUGE_2MB, node, writers) {
                Ok(memory) => return Ok(SharedMemory { granted: PageWish::Huge2M, ..memory }),
                Err(error) => {
                    let mut memory = Self::create_in(name, bytes, 0, node, writers)?;
                    memory.shortfall = Some(format!(
                        "{} huge pages of 2 MiB were not granted for shared memory ({error}): add that many to \
                         vm.nr_hugepages",
                        whole / HUGE_PAGE_BYTES
                    ));
                    return Ok(memory);
                }
            }
        }
        let mut memory = Self::create_in(name, bytes, 0, node, writers)?;
        if wish == PageWish::Transparent && bytes >= HUGE_PAGE_BYTES {
            match transparent_for_shared_memory() {
                true => memory.granted = PageWish::Transparent,
                false => {
                    memory.shortfall = Some(
                        "shared memory is in 4 KiB pages: write 'advise' to \
                         /sys/kernel/mm/transparent_hugepage/shmem_enabled, or set 2 MiB pages aside"
                            .to_string(),
                    );
                }
            }
        }
        Ok(memory)
    }

    fn create_in(name: &str, bytes: usize, flags: u32, node: Option<usize>, writers: Writers) -> io::Result<Self> {
        let name = std::ffi::CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a terminated name is passed, and lives through the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours alone.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(bytes as u64)?;
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        if let Some(node) = node {
            // A refusal leaves first-touch placement, as with anonymous memory.
            let _ = bind_to_node(map.as_mut_ptr(), map.len(), node);
        }
        if flags == 0 {
            // Advice only: where it is not taken, small pages it is.
            let _ = map.advise(Advice::HugePage);
        }
        // Touched now: a write to a page that huge memory cannot supply would be a SIGBUS later.
        match map.advise(Advice::PopulateWrite) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => {}
        }
        let keep = if writers == Writers::Maker { F_SEAL_FUTURE_WRITE } else { 0 };
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL | keep;
        // SAFETY: no memory is passed.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(SharedMemory { file: file.into(), map, granted: PageWish::Small, shortfall: None })
    }

    /// The file, to be given away.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The memory.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: 1. the mapping is live as long as `self`, a whole number of words long, aligned to a page.
        // 2. whoever else maps the file touches it by atomic operations, or garbles only what is his to write.
        // 3. the seals keep the file from shrinking, so no page of it can go.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / 8) }
    }

    /// The pages that were got.
    pub fn granted(&self) -> PageWish {
        self.granted
    }

    /// What was wished and not granted.
    pub fn shortfall(&self) -> Option<&str> {
        self.shortfall.as_deref()
    }
}

impl SharedView {
    /// Maps a file for reading, or for both if it is one that this process may write.
    pub fn map(file: BorrowedFd<'_>, writable: bool) -> io::Result<SharedView> {
        let file = File::from(file.try_clone_to_owned()?);
        // SAFETY: no memory is passed.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            let words = "the shared memory is not sealed: its owner could shrink it under us";
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let bytes = file.metadata()?.len() as usize;
        let options = || {
            let mut options = MmapOptions::new();
            options.len(bytes);
            options
        };
        let map = if writable { options().map_raw(&file)? } else { options().map_raw_read_only(&file)? };
        Ok(SharedView { map })
    }

    /// The memory. Of a mapping for reading the words may be loaded only, in relaxed order.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: as in `SharedMemory::words`; relaxed loads are what Rust allows on memory that cannot be written.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / 8) }
    }
}

/// Whether shared memory that asks for huge pages gets them.
fn transparent_for_shared_memory() -> bool {
    let directory = std::path::Path::new("/sys/kernel/mm/transparent_hugepage");
    let allows = |file: &str| {
        let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        ["[advise]", "[always]", "[within_size]", "[force]"].iter().any(|word| text.contains(word))
    };
    allows("shmem_enabled") || allows("hugepages-2048kB/shmem_enabled")
}

/// Linux 5.1; libc does not name it for every target.
const F_SEAL_FUTURE_WRITE: libc::c_int = 0x10;
const SMALL_PAGE_BYTES: usize = 4096;
const HUGE_PAGE_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering;

    #[test]
    fn readers_see_what_the_maker_writes_and_cannot_write() {
        let memory = SharedMemory::create("test", 100, PageWish::Small, Some(0), Writers::Maker).unwrap();
        let view = SharedView::map(memory.file(), false).unwrap();
        memory.words()[3].store(7, Ordering::Relaxed);
        assert_eq!((view.words()[3].load(Ordering::Relaxed), view.words().len()), (7, 512));
        assert!(SharedView::map(memory.file(), true).is_err(), "mapped for writing");
        let file = File::from(memory.file().try_clone_to_owned().unwrap());
        assert!(file.write_at(b"x", 0).is_err(), "written by descriptor");
        assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err(), "resized");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        if let Ok(again) = File::options().read(true).write(true).open(path) {
            assert!(SharedView::map(again.as_fd(), true).is_err(), "opened anew and mapped for writing");
            assert!(again.write_at(b"x", 0).is_err(), "opened anew and written");
        }
        // SAFETY: the view's own pages, which nothing writes to.
        let changed = unsafe { libc::mprotect(view.map.as_mut_ptr().cast(), 4096, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(changed, -1, "remapped for writing");
        assert_eq!(memory.words()[0].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_all_may_write_is_written_by_both() {
        let memory = SharedMemory::create("test", 4096, PageWish::Small, None, Writers::All).unwrap();
        let view = SharedView::map(memory.file(), true).unwrap();
        view.words()[9].store(3, Ordering::Relaxed);
        assert_eq!(memory.words()[9].load(Ordering::Relaxed), 3);
    }

    #[test]
    fn huge_pages_that_are_not_there_are_told_with_the_remedy() {
        let memory = SharedMemory::create("test", 4 << 20, PageWish::Huge2M, None, Writers::Maker).unwrap();
        assert!(memory.granted() == PageWish::Huge2M || memory.shortfall().unwrap().contains("vm.nr_hugepages"));
    }
}

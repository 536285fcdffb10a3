//! How a reader knows, with one load, that the shard it reads from lives.
//!
//!   line of a shard:   | thread id of its owner u32, a futex word | zeros … |      64 bytes
//!
//! A killed server can clear nothing. Its table stays as it was in every reader's mapping, while a successor
//! may already acknowledge writes that those readers do not see. Leases would close that gap at the price of a
//! clock reading in every look-up; asking the socket, at that of a system call. The kernel does it for nothing:
//! when a thread ends, however it ends, it marks every futex word on the thread's robust list as left by a dead
//! owner (1). It does so before it closes the process's files; so before a successor can listen where the dead
//! one did, every reader finds another word here than its owner's id.
//!
//! A reader looks after it has copied a value: if the owner lived then, the value was current then.
//!
//! (1) get_robust_list(2); Documentation/locking/robust-futexes.rst of the kernel. glibc uses the list for
//!     robust mutexes of the thread, of which a shard has none; this one takes its place.

#![expect(unsafe_code, reason = "set_robust_list has no safe wrapper, and the kernel keeps the pointer")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `set_robust_list` is told, as the kernel's ABI has it.
#[repr(C)]
struct RobustListHead {
    /// The first entry; the list is circular and ends at its head.
    list: *const RobustList,
    /// From an entry to its futex word, in bytes.
    futex_offset: libc::c_long,
    list_op_pending: *const RobustList,
}

#[repr(C)]
struct RobustList {
    next: *const RobustList,
}

/// Marks the calling thread as the owner of `shard` until it ends. Answers the mark that readers must find.
pub fn mark(words: &'static [AtomicU64], shard: u16) -> io::Result<u32> {
    let word = &words[at(shard)];
    // SAFETY: no memory is passed.
    let thread = unsafe { libc::gettid() } as u32;
    word.store(thread.into(), Ordering::SeqCst);
    // The kernel follows these after everything of this thread is gone: they are never freed.
    let head: &'static mut RobustListHead = Box::leak(Box::new(RobustListHead {
        list: std::ptr::null(),
        futex_offset: 0,
        list_op_pending: std::ptr::null(),
    }));
    let head_at: *const RobustListHead = std::ptr::from_ref(head);
    let entry: &'static RobustList = Box::leak(Box::new(RobustList { next: head_at.cast() }));
    head.list = entry;
    head.futex_offset = (word.as_ptr() as isize).wrapping_sub(std::ptr::from_ref(entry) as isize) as libc::c_long;
    // SAFETY: 1. the head, its entry and, by the caller's 'static, the word stay valid as long as the process.
    // 2. the list is circular: head -> entry -> head. 3. the word holds this thread's id, so the kernel writes
    // to it when the thread ends and at no other time; the low half of the word, on this little-endian machine.
    let result =
        unsafe { libc::syscall(libc::SYS_set_robust_list, std::ptr::from_ref(head), size_of::<RobustListHead>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(thread) }
}

/// Says that the shard has ended in peace; its thread's end will change nothing any more.
pub fn unmark(words: &[AtomicU64], shard: u16) {
    words[at(shard)].store(0, Ordering::SeqCst);
}

/// The word of a shard.
pub fn at(shard: u16) -> usize {
    shard as usize * LINE_WORDS
}

/// Bytes of the file for so many shards.
pub fn bytes(shard_count: u16) -> usize {
    shard_count as usize * LINE_WORDS * 8
}

const LINE_WORDS: usize = 8;

#[cfg(not(target_endian = "little"))]
compile_error!("the futex word must be the low half of its word");

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> &'static [AtomicU64] {
        Vec::leak((0..64).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    #[cfg_attr(miri, ignore = "a system call")]
    fn a_thread_that_ends_is_marked_dead_by_the_kernel() {
        let words = words();
        let (sender, receiver) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            sender.send(mark(words, 2).unwrap()).unwrap();
            let _ = stopped.recv();
        });
        let owner = receiver.recv().unwrap();
        assert_eq!(words[at(2)].load(Ordering::Relaxed), u64::from(owner));
        drop(stop);
        thread.join().unwrap();
        // Joined when the thread's id is cleared, which the kernel does right after walking the list.
        assert_ne!(words[at(2)].load(Ordering::Relaxed), u64::from(owner));
        assert_eq!(words[at(1)].load(Ordering::Relaxed), 0);
    }
}

//! A word of shared memory, and the fences between words: the only thing that readers and the
//! publisher of a table have in common.
//!
//! Everything above is written against this trait, so that the model checker (`tests/l0_model.rs`)
//! runs the very code that ships, over words of its own that try every order the memory model allows.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Eight bytes that one thread writes and others read.
pub trait Word {
    /// Reads, in no order with anything else.
    fn load(&self) -> u64;

    /// Writes, in no order with anything else.
    fn store(&self, value: u64);

    /// Reads before this stay before everything after it.
    fn acquire();

    /// Writes after this stay after everything before it.
    fn release();
}

/// Relaxed loads are the ones that Rust allows on memory mapped without the right to write; the order comes
/// from the fences, which cost no instruction on x86.
impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn acquire() {
        fence(Ordering::Acquire);
    }

    #[inline(always)]
    fn release() {
        fence(Ordering::Release);
    }
}

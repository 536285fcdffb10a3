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

    /// Copies lines of eight words to the front of `out`, each word read as by `load`.
    fn copy(from: &[Self], lines: usize, out: &mut [u64])
    where
        Self: Sized,
    {
        for (out, word) in out.iter_mut().zip(&from[..lines * 8]) {
            *out = word.load();
        }
    }

    /// Reads before this stay before everything after it.
    fn acquire();

    /// Writes after this stay after everything before it.
    fn release();

    /// Between two tries of a reader: lets the writer get on.
    #[inline(always)]
    fn pause() {
        std::hint::spin_loop();
    }
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

    /// Sixteen bytes at a time: 8 instructions for a line in place of 40, which is half of a hit on a hot set.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector loads of words that another process writes")]
    fn copy(from: &[AtomicU64], lines: usize, out: &mut [u64]) {
        let (from, out) = (&from[..lines * 8], &mut out[..lines * 8]);
        for line in 0..lines {
            // SAFETY: 1. both addresses lie in slices of `lines` times eight words, checked above. 2. other
            // threads may write the words meanwhile. In Rust's model that would be a race for a vector load;
            // written as assembly it is what the processor makes of it: every aligned eight bytes are read
            // whole, in no order, as relaxed loads would. The caller's sequence check throws away what was torn.
            unsafe {
                std::arch::asm!(
                    "movups {a}, [{from}]",
                    "movups {b}, [{from} + 16]",
                    "movups {c}, [{from} + 32]",
                    "movups {d}, [{from} + 48]",
                    "movups [{out}], {a}",
                    "movups [{out} + 16], {b}",
                    "movups [{out} + 32], {c}",
                    "movups [{out} + 48], {d}",
                    from = in(reg) from.as_ptr().add(line * 8),
                    out = in(reg) out.as_mut_ptr().add(line * 8),
                    a = out(xmm_reg) _,
                    b = out(xmm_reg) _,
                    c = out(xmm_reg) _,
                    d = out(xmm_reg) _,
                    options(nostack, preserves_flags),
                );
            }
        }
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

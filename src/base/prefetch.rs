//! Asking for a cache line before it is needed.

/// Begins to load the line at `at`, for reading or writing soon. Nothing happens outside of `memory`, or on
/// machines for which this crate has no instruction for it.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the instruction takes an address"))]
pub fn line(memory: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = memory.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: 1. The address is that of a byte of a live slice. 2. A prefetch reads nothing that the
        // program can see and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (memory, at);
}

/// Begins to load the line of `value`, for reading soon.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the instruction takes an address"))]
pub fn value<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `line`.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_place_may_be_asked_for() {
        let memory = [1u8; 100];
        [0, 99, 100, usize::MAX].into_iter().for_each(|at| super::line(&memory, at));
        assert!(memory.iter().all(|&byte| byte == 1));
    }
}

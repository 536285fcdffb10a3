//! Receive buffers lent to the kernel: a provided-buffer ring.
//!
//!   ring page:  | addr len id | addr len id | … |     tail in the first entry's spare field
//!   buffers:    | 4 KiB | 4 KiB | … |
//!
//! The kernel takes a buffer when bytes arrive and names it in the completion; after the bytes are
//! read it is given back. No buffer belongs to an idle connection.

#![expect(unsafe_code, reason = "the buffer ring is memory shared with the kernel, addressed by raw pointers")]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{Submitter, types::BufRingEntry};
use memmap2::{MmapMut, MmapOptions};

use crate::base::limits::{RECEIVE_BUFFER_BYTES, RECEIVE_BUFFER_COUNT};

pub struct ReceiveBuffers {
    ring: MmapMut,
    buffers: MmapMut,
    tail: u16,
}

impl ReceiveBuffers {
    /// The buffer group these are registered as.
    pub const GROUP: u16 = 0;

    /// Maps the buffers and lends them all to the ring behind `submitter`. They must be dropped
    /// after it: see `RingNetwork`, whose fields are in that order.
    pub fn register(submitter: &Submitter<'_>) -> io::Result<ReceiveBuffers> {
        let ring_bytes = RECEIVE_BUFFER_COUNT as usize * size_of::<BufRingEntry>();
        let ring = MmapOptions::new().len(ring_bytes).map_anon()?;
        let buffers = MmapOptions::new().len(RECEIVE_BUFFER_COUNT as usize * RECEIVE_BUFFER_BYTES).map_anon()?;
        // SAFETY: 1. the mapping is page-aligned and holds RECEIVE_BUFFER_COUNT entries. 2. it lives
        // as long as the ring, by the order of fields in RingNetwork.
        unsafe {
            let address = ring.as_ptr() as u64;
            submitter.register_buf_ring_with_flags(address, RECEIVE_BUFFER_COUNT, ReceiveBuffers::GROUP, 0)?;
        }
        let mut this = ReceiveBuffers { ring, buffers, tail: 0 };
        for id in 0..RECEIVE_BUFFER_COUNT {
            this.give_back(id);
        }
        this.publish();
        Ok(this)
    }

    /// The first `length` bytes of buffer `id`, which a completion has named.
    #[inline]
    pub fn filled(&self, id: u16, length: usize) -> &[u8] {
        let start = id as usize * RECEIVE_BUFFER_BYTES;
        &self.buffers[start..start + length]
    }

    /// Lends buffer `id` again; the kernel sees it after [`ReceiveBuffers::publish`].
    #[inline]
    pub fn give_back(&mut self, id: u16) {
        let address = self.buffers.as_ptr() as u64 + u64::from(id) * RECEIVE_BUFFER_BYTES as u64;
        let position = (self.tail & (RECEIVE_BUFFER_COUNT - 1)) as usize;
        // SAFETY: 1. position is below RECEIVE_BUFFER_COUNT, the number of entries mapped. 2. the
        // kernel does not read entries at or past the published tail, and there are never more than
        // RECEIVE_BUFFER_COUNT out, so this entry is ours.
        let entry = unsafe { &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(position) };
        entry.set_addr(address);
        entry.set_len(RECEIVE_BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what has been given back.
    #[inline]
    pub fn publish(&self) {
        // SAFETY: 1. the ring's address is that of its first entry. 2. the field is two-byte aligned
        // and only ever accessed atomically once registered.
        let tail = unsafe { &*BufRingEntry::tail(self.ring.as_ptr().cast()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

//! Receive buffers from which the kernel chooses when bytes arrive, so that idle connections hold none.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::limits::{RECV_BUFFER_BYTES, RECV_BUFFERS};
use crate::buf::AlignedBuf;

/// Buffer group of a ring's provided buffers. There is only one.
pub(super) const RECV_GROUP: u16 = 0;

/// Invariant: a buffer belongs either to the kernel (published in the ring) or to this side (as marked in `ours`). Only buffers of
/// this side are read.
pub(super) struct RecvBuffers {
    entries: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    tail: u16,
    ours: Vec<bool>,
    /// Owns the memory that `entries` and `data` point into. Not accessed otherwise, because the kernel writes there.
    memory: (AlignedBuf, AlignedBuf),
}

impl RecvBuffers {
    /// Registers buffers with a ring. They must outlive it.
    pub(super) fn register(uring: &IoUring) -> io::Result<Self> {
        let mut entries = AlignedBuf::zeroed(size_of::<BufRingEntry>() * usize::from(RECV_BUFFERS));
        let mut data = AlignedBuf::new(RECV_BUFFER_BYTES * usize::from(RECV_BUFFERS));
        let entries_at = NonNull::from(&mut entries[..]).cast::<BufRingEntry>();
        let data_at = NonNull::from(&mut data[..]).cast::<u8>();
        // SAFETY: page-aligned memory for that many entries, owned by the returned value, which outlives the ring.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                entries_at.as_ptr() as u64,
                RECV_BUFFERS,
                RECV_GROUP,
                0,
            )?;
        }
        let ours = vec![true; usize::from(RECV_BUFFERS)];
        let mut buffers = Self { entries: entries_at, data: data_at, tail: 0, ours, memory: (entries, data) };
        for id in 0..RECV_BUFFERS {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    /// Returns the bytes that a completion put into a buffer. The buffer belongs to this side until it is given back.
    pub(super) fn take(&mut self, id: u16, bytes: usize) -> &[u8] {
        assert!(!self.ours[usize::from(id)], "the kernel filled buffer {id}, which does not belong to it");
        assert!(bytes <= RECV_BUFFER_BYTES, "buffer {id} cannot hold {bytes} bytes");
        self.ours[usize::from(id)] = true;
        // SAFETY: within the data memory. The kernel has handed over the buffer and does not access it before it is given back,
        // which the borrow prevents.
        unsafe {
            let at = self.data.add(usize::from(id) * RECV_BUFFER_BYTES);
            std::slice::from_raw_parts(at.as_ptr(), bytes)
        }
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(self.ours[usize::from(id)], "buffer {id} already belongs to the kernel");
        self.ours[usize::from(id)] = false;
        let index = usize::from(self.tail & (RECV_BUFFERS - 1));
        // SAFETY: `index` is within the entries and not published yet, so the kernel does not access it. Fields are written one by
        // one: the first entry's reserved field is the ring's tail.
        unsafe {
            let data = self.data.add(usize::from(id) * RECV_BUFFER_BYTES);
            let entry = &mut *self.entries.add(index).as_ptr();
            entry.set_addr(data.as_ptr() as u64);
            entry.set_len(RECV_BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's tail is a separate, aligned u16, which only this thread writes and the kernel reads.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    /// Leaks the memory, for a ring with operations that could not be ended.
    pub(super) fn leak(self) {
        std::mem::forget(self.memory);
    }
}

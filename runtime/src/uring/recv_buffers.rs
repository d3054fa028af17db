//! Receive buffers that the kernel picks from when bytes arrive, so that idle connections hold none.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::limits::{RECV_BUFFER_BYTES, RECV_BUFFERS};
use crate::buf::AlignedBuf;

/// The group of the only provided buffers of a ring.
pub(super) const RECV_GROUP: u16 = 0;

/// Invariant: a buffer is either the kernel's (published in the ring) or ours (`ours` says so); only ours are read.
pub(super) struct RecvBuffers {
    entries: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    tail: u16,
    ours: Vec<bool>,
    /// Own the memory that `entries` and `data` point into; not looked at otherwise, since the kernel writes there.
    memory: (AlignedBuf, AlignedBuf),
}

impl RecvBuffers {
    /// Buffers for a ring. They have to outlive it.
    pub(super) fn register(uring: &IoUring) -> io::Result<Self> {
        let mut entries = AlignedBuf::zeroed(size_of::<BufRingEntry>() * usize::from(RECV_BUFFERS));
        let mut data = AlignedBuf::new(RECV_BUFFER_BYTES * usize::from(RECV_BUFFERS));
        let entries_at = NonNull::from(&mut entries[..]).cast::<BufRingEntry>();
        let data_at = NonNull::from(&mut data[..]).cast::<u8>();
        // SAFETY: page-aligned memory of that many entries, owned by the value that is returned, which outlives the ring.
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

    /// The bytes that a completion says are in a buffer, which is ours until it is given back.
    pub(super) fn take(&mut self, id: u16, bytes: usize) -> &[u8] {
        assert!(!self.ours[usize::from(id)], "the kernel filled buffer {id}, which it does not have");
        assert!(bytes <= RECV_BUFFER_BYTES, "{bytes} bytes cannot be in buffer {id}");
        self.ours[usize::from(id)] = true;
        // SAFETY: within the data memory; the kernel has handed the buffer over and will not touch it before it is given back, for
        // which the borrow has to have ended.
        unsafe {
            let at = self.data.add(usize::from(id) * RECV_BUFFER_BYTES);
            std::slice::from_raw_parts(at.as_ptr(), bytes)
        }
    }

    /// Lets the kernel have a buffer again.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(self.ours[usize::from(id)], "buffer {id} is the kernel's already");
        self.ours[usize::from(id)] = false;
        let place = usize::from(self.tail & (RECV_BUFFERS - 1));
        // SAFETY: `place` is within the entries and not yet published, so the kernel does not look at it. Fields are written one
        // by one: the first entry's reserved field is the ring's tail.
        unsafe {
            let data = self.data.add(usize::from(id) * RECV_BUFFER_BYTES);
            let entry = &mut *self.entries.add(place).as_ptr();
            entry.set_addr(data.as_ptr() as u64);
            entry.set_len(RECV_BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's tail is a u16 of its own, aligned, which only this thread writes and the kernel reads.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    /// Leaves the memory to the kernel for good: for a ring that could not be emptied.
    pub(super) fn leak(self) {
        std::mem::forget(self.memory);
    }
}

//! A minimal io_uring ring with the plane's setup flags.

use std::io;

use io_uring::{IoUring, opcode, squeue, types};

use crate::uring::build_ring;

/// A completion: the operation's id and its result.
pub(super) type Done = (u64, i32);

/// Id of the operation that cancels all others. No other operation has it.
const CANCEL: u64 = u64::MAX;

pub(super) struct Ring {
    uring: IoUring,
    in_flight: usize,
}

impl Ring {
    /// Creates a ring. Must be called on the thread that will use it.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        Ok(Self { uring: build_ring(entries)?, in_flight: 0 })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues an operation with this id.
    ///
    /// # Safety
    /// The memory and the file that the entry refers to must stay valid, and memory that the kernel writes to must not be accessed,
    /// until the completion has been taken or this ring has been dropped.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, name: u64) -> io::Result<()> {
        let entry = entry.user_data(name);
        // SAFETY: the caller keeps what the entry refers to valid.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Submits queued operations, sleeps until at least one has completed, and appends the completions to `done`.
    pub(super) fn wait(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        loop {
            match self.uring.submit_and_wait(1) {
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(e) => return Err(e),
                Ok(_) => break,
            }
        }
        let before = done.len();
        done.extend(self.uring.completion().map(|cqe| (cqe.user_data(), cqe.result())));
        self.in_flight -= done.len() - before;
        Ok(())
    }
}

impl Drop for Ring {
    /// Cancels operations in flight and waits for them, because the memory that they use may be freed after the ring.
    fn drop(&mut self) {
        if self.in_flight == 0 {
            return;
        }
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        let mut done = Vec::new();
        // SAFETY: the operation refers to no memory.
        let mut result = unsafe { self.push(cancel, CANCEL) };
        while result.is_ok() && self.in_flight > 0 {
            result = self.wait(&mut done);
        }
        result.expect("a ring that accepts operations returns their completions");
    }
}

/// Checks that an operation processed all of its bytes.
pub(super) fn all_of(result: i32, bytes: usize) -> io::Result<()> {
    let done = outcome(result)?;
    if done == bytes {
        return Ok(());
    }
    Err(io::Error::other(format!("{done} of {bytes} bytes")))
}

/// Converts a completion's result.
pub(super) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

//! An io_uring ring: operations in, completions out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::{EnterFlags, IoUring, cqueue, squeue, types};

use super::limits::COMPLETIONS_PER_SUBMISSION;
use super::token::Op;

/// A completion, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub(super) op: Op,
    pub(super) result: i32,
    flags: u32,
}

impl Cqe {
    /// Returns whether the operation continues and will complete again.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// Returns the provided buffer that was filled, if any.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    pub(super) fn outcome(self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

/// Creates a ring that one thread submits to, and whose completions are processed only when that thread asks for them. The
/// preflight check uses it too.
pub(crate) fn build(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(entries.next_power_of_two() * COMPLETIONS_PER_SUBMISSION)
        .build(entries)
}

pub(super) struct Ring {
    uring: IoUring,
    /// Completions that were taken out of the ring early, to make space while submitting.
    taken: VecDeque<Cqe>,
    /// Operations whose last completion has not been taken yet.
    in_flight: usize,
}

impl Ring {
    /// Creates a ring. Must be called on the thread that will use it.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        Ok(Self { uring: build(entries)?, taken: VecDeque::new(), in_flight: 0 })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// The memory and the file that the entry refers to must stay valid, and memory that the kernel writes to must not be accessed,
    /// until the last completion of `op` has been taken with [`pop`](Self::pop).
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, op: Op) {
        let mut entry = entry.user_data(op.pack());
        if op.is_awaited() {
            self.in_flight += 1;
        } else {
            entry = entry.flags(Flags::SKIP_SUCCESS);
        }
        // SAFETY: the caller keeps what the entry refers to valid.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.submit();
        }
    }

    /// Returns whether a system call would have an effect.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Submits queued operations, and lets the kernel post completions.
    pub(super) fn submit(&mut self) {
        if !self.has_work() {
            return;
        }
        match self.uring.submit() {
            Ok(_) => {}
            Err(e) => self.recover(&e),
        }
    }

    /// Like [`submit`](Self::submit), but sleeps until an operation completes or the timeout expires.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) {
        let timespec = timeout.map(types::Timespec::from);
        let args = types::SubmitArgs::new();
        let args = timespec.as_ref().map_or(args, |timespec| args.timespec(timespec));
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.uring.params().is_feature_no_iowait() {
            // A shard that waits for clients is idle and does not count as waiting for I/O.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let queued = self.uring.submission().len() as u32;
        // SAFETY: the entries are valid (see `push`), and the argument has the type that the flag announces.
        let result = unsafe { self.uring.submitter().enter(queued, 1, flags.bits(), Some(&args)) };
        match result {
            Err(e) if e.raw_os_error() == Some(libc::ETIME) => {}
            Err(e) => self.recover(&e),
            Ok(_) => {}
        }
    }

    /// Handles a failed submission: a signal is ignored; otherwise completions have to be taken first.
    fn recover(&mut self, e: &io::Error) {
        match e.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {
                while let Some(cqe) = self.pop_ring() {
                    self.taken.push_back(cqe);
                }
            }
            _ => panic!("io_uring_enter failed: {e}"),
        }
    }

    /// Removes and returns the next completion.
    pub(super) fn pop(&mut self) -> Option<Cqe> {
        let cqe = self.taken.pop_front().or_else(|| self.pop_ring())?;
        if cqe.op.is_awaited() && !cqe.more() {
            self.in_flight -= 1;
        }
        Some(cqe)
    }

    fn pop_ring(&mut self) -> Option<Cqe> {
        let entry = self.uring.completion().next()?;
        Some(Cqe { op: Op::unpack(entry.user_data()), result: entry.result(), flags: entry.flags() })
    }

    /// Returns whether completions are waiting, in the ring or in the kernel.
    pub(super) fn is_ready(&mut self) -> bool {
        !self.taken.is_empty() || !self.uring.completion().is_empty() || self.has_work()
    }

    /// Keeps this file open until the kernel has ended the ring's last operation, even if the process is killed first.
    pub(super) fn keep_open(&self, file: RawFd) -> io::Result<()> {
        self.uring.submitter().register_files(&[file])
    }

    /// Makes completions signal this eventfd between [`enable_eventfd`](Self::enable_eventfd) and
    /// [`disable_eventfd`](Self::disable_eventfd).
    pub(super) fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd)?;
        self.disable_eventfd();
        Ok(())
    }

    /// Enables the eventfd. Check [`is_ready`](Self::is_ready) afterwards: earlier completions gave no signal.
    pub(super) fn enable_eventfd(&mut self) {
        self.uring.completion().enable_eventfd();
        // The kernel updates the ring and then reads the flag; this thread sets the flag and then reads the ring.
        fence(Ordering::SeqCst);
    }

    pub(super) fn disable_eventfd(&mut self) {
        self.uring.completion().disable_eventfd();
    }
}

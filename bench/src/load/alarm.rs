//! A timer with microsecond resolution. Tokio's timers have millisecond resolution, which is coarser than the latencies measured.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::net::unix::pipe::Receiver;

/// A kernel timer (timerfd). Tokio treats its descriptor as the reading end of a pipe and only polls it for readability.
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: Receiver,
    /// The time for which it is set, on the caller's clock.
    set_for: Option<u64>,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd: Receiver::from_owned_fd_unchecked(fd)?, set_for: None })
    }

    /// Wakes the task at time `at`, which is after `now`. Both are nanoseconds. Ready if the timer has expired.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: u64, now: u64) -> Poll<io::Result<()>> {
        if self.set_for != Some(at) {
            let wait = Duration::from_nanos(at.saturating_sub(now).max(1));
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec {
                it_interval: zero,
                it_value: Timespec {
                    tv_sec: wait.as_secs().cast_signed(),
                    tv_nsec: wait.subsec_nanos().into(),
                },
            };
            rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
            self.set_for = Some(at);
        }
        let ready = self.fd.poll_read_ready(cx)?;
        if ready.is_ready() {
            self.set_for = None;
            // The timer need not be read, as setting it again resets it. But tokio's readiness must be cleared.
            let _ = self.fd.try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        ready.map(Ok)
    }
}

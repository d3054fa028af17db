//! A timer of microseconds. Tokio's own go by milliseconds, which is longer than what is to be measured.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::net::unix::pipe::Receiver;

/// One timer of the kernel. Tokio knows its descriptor as the reading end of a pipe: all that is asked of it is whether it is readable.
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: Receiver,
    /// The moment it is set for, as its user counts.
    set_for: Option<u64>,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd: Receiver::from_owned_fd_unchecked(fd)?, set_for: None })
    }

    /// Wakes the task at the moment `at`, which is behind `now`. Ready if that came in between.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: u64, now: u64) -> Poll<io::Result<()>> {
        if self.set_for != Some(at) {
            let wait = Duration::from_nanos(at.saturating_sub(now).max(1));
            let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec {
                it_interval: nothing,
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
            // Not read: setting it anew resets it. Only what tokio remembers has to go.
            let _ = self.fd.try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        ready.map(Ok)
    }
}

//! One connection: what it is waiting for, and what to receive next.
//!
//! ```text
//!            FIN, sends left            sent / too slow
//!   Open ------------------> Flushing(Peer) ----------> Dead
//!    |  \--- FIN, nothing left / error / close(Now) ----> Dead --- no operation left ---> gone
//!    |                                                     ^
//!    |  close(AfterSends)               sent               | FIN / LINGER_TIME_MAX
//!    +-----------------> Flushing(Local) ----> Lingering --+
//!    |  migrate
//!    +-----------------> Moving --- no operation left ---> another shard
//! ```
//!
//! `on_closed` is told on the way into Dead, or into Lingering.

use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::limits::{BULK_COPY_BYTES_MAX, HELLO_RECV_BYTES_MAX, PROBE_RECV_BYTES, PROBES_MAX};
use super::send::SendQueue;
use crate::buf::AlignedBuf;
use crate::plane::{Ends, ListenerId, ShardIndex};

/// The receive that is in the kernel. There is never more than one, so that bytes stay in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    Nothing,
    /// Once, into a provided buffer.
    Once,
    /// Into provided buffers, for as long as it lasts.
    Ahead,
    /// Straight into the bulk.
    Bulk,
}

/// The receive that should be in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Nothing,
    Once { bytes_max: u32 },
    Ahead,
    Bulk,
}

/// What to do so that the right receive is in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Wait,
    Start(Wanted),
    Cancel,
}

pub(super) enum State<M> {
    Open,
    /// What is queued is sent, then the connection ends.
    Flushing(FlushFor),
    /// All is said; what still comes is discarded until the other side ends, too.
    Lingering,
    /// Waits for its operations to end.
    Dead,
    /// Waits for its sends to end, then moves. Boxed: rare.
    Moving(Box<Move<M>>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlushFor {
    /// The other side has finished.
    Peer,
    /// This side closes.
    Local,
}

pub(super) struct Move<M> {
    pub(super) to: ShardIndex,
    pub(super) baggage: M,
    pub(super) unread: Bytes,
}

/// A frame that is received in place.
pub(super) struct Bulk {
    pub(super) buf: AlignedBuf,
    pub(super) filled: usize,
    pub(super) end: usize,
}

impl Bulk {
    pub(super) fn missing(&self) -> usize {
        self.end - self.filled
    }

    /// Takes what belongs to it from the front of `data`; returns the rest.
    pub(super) fn copy_from<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let (ours, rest) = data.split_at(data.len().min(self.missing()));
        self.buf[self.filled..self.filled + ours.len()].copy_from_slice(ours);
        self.filled += ours.len();
        rest
    }
}

#[allow(clippy::struct_excessive_bools)] // independent facts; the states that exclude each other are in `State`
pub(super) struct Conn<M> {
    pub(super) socket: OwnedFd,
    pub(super) listener: ListenerId,
    pub(super) ends: Ends,
    pub(super) state: State<M>,
    /// One small receive at a time, so that it can still move.
    pub(super) hello: bool,
    pub(super) paused: bool,
    /// The other side has sent its last byte.
    pub(super) finished: bool,
    /// Sending failed; what was received before may still be told.
    pub(super) broken: Option<String>,
    pub(super) receiving: Receiving,
    pub(super) receive_cancelled: bool,
    /// Receives that still look for a bulk's header before receiving ahead again.
    probes_left: u8,
    pub(super) bulk: Option<Bulk>,
    pub(super) out: SendQueue,
    pub(super) sending: bool,
    /// In the list of connections with something to send.
    pub(super) listed: bool,
    /// The scatter list of the send in flight; made when first needed.
    pub(super) scatter: Option<Box<Scatter>>,
}

/// What a `sendmsg` in flight points to.
pub(super) struct Scatter {
    pub(super) pieces: Vec<libc::iovec>,
    pub(super) header: libc::msghdr,
}

impl<M> Conn<M> {
    pub(super) fn new(socket: OwnedFd, listener: ListenerId, ends: Ends) -> Self {
        Self {
            socket,
            listener,
            ends,
            state: State::Open,
            hello: true,
            paused: false,
            finished: false,
            broken: None,
            receiving: Receiving::Nothing,
            receive_cancelled: false,
            probes_left: 0,
            bulk: None,
            out: SendQueue::default(),
            sending: false,
            listed: false,
            scatter: None,
        }
    }

    /// Whether the application may still hear of it and speak to it.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Open | State::Flushing(FlushFor::Peer))
    }

    /// Whether nothing of it is in the kernel.
    pub(super) fn is_quiet(&self) -> bool {
        self.receiving == Receiving::Nothing && !self.sending
    }

    fn wanted(&self) -> Wanted {
        if self.finished {
            return Wanted::Nothing;
        }
        match &self.state {
            State::Dead | State::Moving(_) | State::Flushing(FlushFor::Peer) => return Wanted::Nothing,
            State::Lingering | State::Flushing(FlushFor::Local) => {
                return Wanted::Once { bytes_max: HELLO_RECV_BYTES_MAX };
            }
            State::Open if self.paused => return Wanted::Nothing,
            State::Open => {}
        }
        if self.bulk.is_some() {
            Wanted::Bulk
        } else if self.hello {
            Wanted::Once { bytes_max: HELLO_RECV_BYTES_MAX }
        } else if self.probes_left > 0 {
            Wanted::Once { bytes_max: PROBE_RECV_BYTES }
        } else {
            Wanted::Ahead
        }
    }

    /// What to do so that the right receive is in the kernel.
    pub(super) fn step(&self) -> Step {
        let wanted = self.wanted();
        match self.receiving {
            Receiving::Nothing if wanted == Wanted::Nothing => Step::Wait,
            Receiving::Nothing => Step::Start(wanted),
            _ if self.receive_cancelled => Step::Wait,
            Receiving::Once if wanted == Wanted::Nothing => Step::Cancel,
            // A single receive ends by itself, and a bulk has its memory already.
            Receiving::Once | Receiving::Bulk => Step::Wait,
            Receiving::Ahead => match wanted {
                Wanted::Nothing => Step::Cancel,
                Wanted::Bulk if self.bulk.as_ref().is_some_and(|b| b.missing() > BULK_COPY_BYTES_MAX) => {
                    Step::Cancel
                }
                _ => Step::Wait,
            },
        }
    }

    /// A single receive was told to the application: is it still worth looking for a bulk's header?
    pub(super) fn note_probe(&mut self, bytes: usize) {
        if self.probes_left == 0 || self.bulk.is_some() {
            return;
        }
        self.probes_left -= 1;
        if bytes >= PROBE_RECV_BYTES as usize {
            // Small frames queue up behind each other.
            self.probes_left = 0;
        }
    }

    /// The bulk if it is complete. Where one came another is likely to follow: its header is looked for with small receives, so that
    /// little of it has to be copied.
    pub(super) fn take_full_bulk(&mut self) -> Option<AlignedBuf> {
        if self.bulk.as_ref()?.missing() > 0 {
            return None;
        }
        let receiving_ahead = self.receiving == Receiving::Ahead && !self.receive_cancelled;
        self.probes_left = if receiving_ahead { 0 } else { PROBES_MAX };
        self.bulk.take().map(|bulk| bulk.buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn() -> Conn<()> {
        let file = std::fs::File::open("/dev/null").expect("/dev/null");
        let address = ([127, 0, 0, 1], 1).into();
        Conn::new(file.into(), ListenerId(0), Ends::new(address, address))
    }

    fn bulk(missing: usize) -> Bulk {
        let buf = AlignedBuf::new(missing);
        Bulk { buf, filled: 0, end: missing }
    }

    const HELLO: Step = Step::Start(Wanted::Once { bytes_max: HELLO_RECV_BYTES_MAX });
    const PROBE: Step = Step::Start(Wanted::Once { bytes_max: PROBE_RECV_BYTES });
    const AHEAD: Step = Step::Start(Wanted::Ahead);

    #[test]
    fn a_connection_receives_little_until_its_hello_is_over_and_ahead_afterwards() {
        let mut c = conn();
        assert_eq!(c.step(), HELLO);
        c.receiving = Receiving::Once;
        c.hello = false;
        assert_eq!(c.step(), Step::Wait, "the receive in flight serves either way");
        c.receiving = Receiving::Nothing;
        assert_eq!(c.step(), AHEAD);
    }

    #[test]
    fn a_large_bulk_ends_receiving_ahead_and_a_small_rest_does_not() {
        let mut c = conn();
        c.hello = false;
        c.receiving = Receiving::Ahead;
        c.bulk = Some(bulk(BULK_COPY_BYTES_MAX));
        assert_eq!(c.step(), Step::Wait);
        c.bulk = Some(bulk(BULK_COPY_BYTES_MAX + 1));
        assert_eq!(c.step(), Step::Cancel);
        c.receive_cancelled = true;
        assert_eq!(c.step(), Step::Wait);
        c.receiving = Receiving::Nothing;
        assert_eq!(c.step(), Step::Start(Wanted::Bulk));
    }

    #[test]
    fn after_a_bulk_small_receives_look_for_the_next_until_small_frames_come() {
        let mut c = conn();
        c.hello = false;
        c.bulk = Some(bulk(5));
        assert!(c.take_full_bulk().is_none());
        let rest = c.bulk.as_mut().expect("bulk").copy_from(b"hello, you");
        assert_eq!(rest, b", you");
        let buf = c.take_full_bulk().expect("full");
        assert_eq!(buf[..5], *b"hello");
        for _ in 0..PROBES_MAX {
            assert_eq!(c.step(), PROBE);
            c.note_probe(40);
        }
        assert_eq!(c.step(), AHEAD);
        c.bulk = Some(bulk(0));
        c.take_full_bulk().expect("full");
        c.note_probe(PROBE_RECV_BYTES as usize);
        assert_eq!(c.step(), AHEAD);
    }

    #[test]
    fn nothing_is_received_while_paused_and_only_to_be_discarded_while_closing() {
        let mut c = conn();
        c.paused = true;
        assert_eq!(c.step(), Step::Wait);
        c.receiving = Receiving::Ahead;
        assert_eq!(c.step(), Step::Cancel);
        c.receiving = Receiving::Nothing;
        c.state = State::Lingering;
        assert_eq!(c.step(), HELLO);
        c.finished = true;
        assert_eq!(c.step(), Step::Wait);
    }
}

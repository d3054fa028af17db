//! A connection: its state, and what to receive next.
//!
//! ```text
//!   Connecting --- failed / close / timeout --> Dead, after `on_connected`
//!    | connected
//!    v       FIN, sends remain         sent / timeout
//!   Open ------------------> Flushing(Peer) ----------> Dead
//!    |  \--- FIN, none remain / error / close(Now) -----> Dead --- no operation left ---> removed
//!    |                                                     ^
//!    |  close(AfterSends)               sent               | FIN / LINGER_TIME_MAX
//!    +-----------------> Flushing(Local) ----> Lingering --+
//!    |  migrate
//!    +-----------------> Moving --- no operation left ---> another shard
//! ```
//!
//! `on_closed` is called when a connection becomes Dead or Lingering.

use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::connect::Connect;
use super::limits::{BULK_COPY_BYTES_MAX, HELLO_RECV_BYTES_MAX, PROBE_RECV_BYTES, PROBES_MAX};
use super::send::SendQueue;
use crate::buf::AlignedBuf;
use crate::plane::{Endpoints, ListenerId, ShardIndex};

/// The receive operation in flight. There is never more than one, so that bytes stay in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    Nothing,
    /// One receive into a provided buffer.
    Once,
    /// A multishot receive into provided buffers.
    Ahead,
    /// A receive directly into the bulk.
    Bulk,
}

/// The receive operation that should be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Nothing,
    Once { bytes_max: u32 },
    Ahead,
    Bulk,
}

/// What to do to get from the receive operation in flight to the wanted one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Wait,
    Start(Wanted),
    Cancel,
}

pub(super) enum State<M> {
    /// This side opens the connection, and the outcome is not known.
    Connecting,
    Open,
    /// The connection ends once everything queued is sent.
    Flushing(FlushFor),
    /// Everything is sent; data that still arrives is discarded until the peer closes too.
    Lingering,
    /// Waits for its operations to end.
    Dead,
    /// Waits for its sends to end, then moves. Boxed because it is rare.
    Moving(Box<Move<M>>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlushFor {
    /// The peer has finished.
    Peer,
    /// This side is closing.
    Local,
}

pub(super) struct Move<M> {
    pub(super) to: ShardIndex,
    pub(super) payload: M,
    pub(super) unread: Bytes,
}

/// A message that is received in place.
pub(super) struct Bulk {
    pub(super) buf: AlignedBuf,
    pub(super) filled: usize,
    pub(super) end: usize,
}

impl Bulk {
    pub(super) fn missing(&self) -> usize {
        self.end - self.filled
    }

    /// Moves bytes that belong to the bulk from the front of `data`. Returns the rest.
    pub(super) fn copy_from<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let (ours, rest) = data.split_at(data.len().min(self.missing()));
        self.buf[self.filled..self.filled + ours.len()].copy_from_slice(ours);
        self.filled += ours.len();
        rest
    }
}

#[allow(clippy::struct_excessive_bools)] // independent flags; mutually exclusive states are in `State`
pub(super) struct Conn<M> {
    pub(super) socket: OwnedFd,
    /// `None` if this side has opened the connection.
    pub(super) listener: Option<ListenerId>,
    pub(super) endpoints: Endpoints,
    pub(super) state: State<M>,
    /// The connect in flight.
    pub(super) connect: Option<Box<Connect>>,
    /// One small receive at a time, so that the connection can still move.
    pub(super) hello: bool,
    pub(super) paused: bool,
    /// The peer has sent its last byte.
    pub(super) finished: bool,
    /// Sending failed; data received before may still be delivered.
    pub(super) broken: Option<String>,
    pub(super) receiving: Receiving,
    pub(super) receive_cancelled: bool,
    /// Remaining small receives that look for a bulk's header, before the connection receives ahead again.
    probes_left: u8,
    pub(super) bulk: Option<Bulk>,
    pub(super) out: SendQueue,
    pub(super) sending: bool,
    /// Whether it is in the list of connections with data to send.
    pub(super) listed: bool,
    /// Scatter list of the send in flight, allocated on first use.
    pub(super) scatter: Option<Box<Scatter>>,
}

/// Memory that a `sendmsg` in flight refers to.
pub(super) struct Scatter {
    pub(super) chunks: Vec<libc::iovec>,
    pub(super) header: libc::msghdr,
}

impl<M> Conn<M> {
    /// Creates an accepted connection.
    pub(super) fn accepted(socket: OwnedFd, listener: ListenerId, endpoints: Endpoints) -> Self {
        Self { listener: Some(listener), ..Self::new(socket, endpoints) }
    }

    /// Creates a connection that this side opens.
    pub(super) fn connecting(socket: OwnedFd, endpoints: Endpoints, connect: Box<Connect>) -> Self {
        Self {
            state: State::Connecting,
            connect: Some(connect),
            hello: false,
            ..Self::new(socket, endpoints)
        }
    }

    fn new(socket: OwnedFd, endpoints: Endpoints) -> Self {
        Self {
            socket,
            listener: None,
            endpoints,
            state: State::Open,
            connect: None,
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

    /// Returns whether the application may still use the connection and get its events.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Open | State::Flushing(FlushFor::Peer))
    }

    /// Returns whether no operation of the connection is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.receiving == Receiving::Nothing && !self.sending && self.connect.is_none()
    }

    fn wanted(&self) -> Wanted {
        if self.finished {
            return Wanted::Nothing;
        }
        match &self.state {
            State::Connecting | State::Dead | State::Moving(_) | State::Flushing(FlushFor::Peer) => {
                return Wanted::Nothing;
            }
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

    /// Returns what to do so that the wanted receive is in flight.
    pub(super) fn step(&self) -> Step {
        let wanted = self.wanted();
        match self.receiving {
            Receiving::Nothing if wanted == Wanted::Nothing => Step::Wait,
            Receiving::Nothing => Step::Start(wanted),
            _ if self.receive_cancelled => Step::Wait,
            Receiving::Once if wanted == Wanted::Nothing => Step::Cancel,
            // A single receive ends by itself, and a bulk already has its memory.
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

    /// Counts a single receive that was delivered, and decides whether to keep looking for a bulk's header.
    pub(super) fn count_probe(&mut self, bytes: usize) {
        if self.probes_left == 0 || self.bulk.is_some() {
            return;
        }
        self.probes_left -= 1;
        if bytes >= PROBE_RECV_BYTES as usize {
            // Small messages are queueing up.
            self.probes_left = 0;
        }
    }

    /// Returns the bulk if it is complete. Another bulk is likely to follow, so its header is looked for with small receives, of
    /// which little has to be copied.
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
        Conn::accepted(file.into(), ListenerId(0), Endpoints::new(address, address))
    }

    fn bulk(missing: usize) -> Bulk {
        let buf = AlignedBuf::new(missing);
        Bulk { buf, filled: 0, end: missing }
    }

    const HELLO: Step = Step::Start(Wanted::Once { bytes_max: HELLO_RECV_BYTES_MAX });
    const PROBE: Step = Step::Start(Wanted::Once { bytes_max: PROBE_RECV_BYTES });
    const AHEAD: Step = Step::Start(Wanted::Ahead);

    #[test]
    fn a_connection_receives_little_in_hello_mode_and_ahead_afterwards() {
        let mut c = conn();
        assert_eq!(c.step(), HELLO);
        c.receiving = Receiving::Once;
        c.hello = false;
        assert_eq!(c.step(), Step::Wait, "the receive in flight serves either way");
        c.receiving = Receiving::Nothing;
        assert_eq!(c.step(), AHEAD);
    }

    #[test]
    fn a_large_bulk_ends_receiving_ahead_and_a_small_remainder_does_not() {
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
    fn after_a_bulk_small_receives_look_for_the_next_until_small_messages_arrive() {
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
            c.count_probe(40);
        }
        assert_eq!(c.step(), AHEAD);
        c.bulk = Some(bulk(0));
        c.take_full_bulk().expect("full");
        c.count_probe(PROBE_RECV_BYTES as usize);
        assert_eq!(c.step(), AHEAD);
    }

    #[test]
    fn nothing_is_received_while_paused_and_only_to_discard_it_while_closing() {
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

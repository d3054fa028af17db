//! Connections that the application opens because a client asks for it.
//!
//! The client is sent the outcome of the connect as a line: `connected` with the address of this side, `refused`, `timed out`, `closed`,
//! or another error. `how` is one of:
//!
//! | how | what happens |
//! |---|---|
//! | `R` | bytes are relayed between the client and the opened connection; the client is sent how that ended, on a line |
//! | `P` | the same, and the opened connection is paused at intervals |
//! | `X` | large messages are exchanged with the other end (`Q`) in both directions at once; then the client is sent "exchanged" |
//! | `C` | the connection is closed in the call that has opened it |
//! | `L` | the connection is closed two milliseconds later |

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::app::{Behaviour, Ctx, TestPlane};
use super::pattern;
use crate::buf::AlignedBuf;
use crate::plane::{Close, CloseReason, ConnId, ConnectError, ConnectFailure, Instant};

/// Lengths of the messages of an exchange.
const EXCHANGED: [usize; 7] = [100_000, 1, 1 << 20, 65_536, 3, 700_001, 8192];

const LENGTH_BYTES: usize = 4;

/// A relay pauses after this many bytes.
const PAUSE_AFTER_BYTES: usize = 40_000;

/// The client's connection.
pub(super) struct Opener {
    how: u8,
    within: Duration,
    to: SocketAddr,
    opened: Option<(ConnId, Instant)>,
    has_outcome: bool,
    is_open: bool,
    /// What the client has sent before there was an outcome.
    early: Vec<u8>,
}

impl Opener {
    /// Parses what follows the letter. Returns also how many bytes it used.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let line = bytes.iter().position(|byte| *byte == b'\n').filter(|line| *line > 3)?;
        let within = Duration::from_millis(u16::from_le_bytes([bytes[1], bytes[2]]).into());
        let address = std::str::from_utf8(&bytes[3..line]).expect("the address is text");
        let opener = Self {
            how: bytes[0],
            within,
            to: address.parse().expect("the address can be parsed"),
            opened: None,
            has_outcome: false,
            is_open: false,
            early: Vec::new(),
        };
        Some((opener, line + 1))
    }

    fn open(&mut self, ctx: &mut Ctx<'_, '_>) {
        let conn = ctx.plane.connect(self.to, self.within, ctx.token(0));
        self.opened = Some((conn, ctx.plane.now()));
        assert_eq!(ctx.plane.local_addr(conn), None, "it cannot be connected yet");
        assert_eq!(ctx.plane.send_queue_bytes(conn), 0);
        match self.how {
            b'C' => ctx.plane.close(conn, Close::AfterSends),
            b'L' => ctx.plane.set_timer(ctx.plane.now().after(Duration::from_millis(2)), ctx.token(1)),
            _ => {}
        }
    }
}

impl Behaviour for Opener {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, data: &[u8]) {
        match self.opened {
            None => {
                self.open(ctx);
                self.early.extend_from_slice(data);
            }
            Some((conn, _)) if self.is_open => ctx.plane.send(conn, Bytes::copy_from_slice(data)),
            Some(_) => self.early.extend_from_slice(data),
        }
    }

    fn timer(&mut self, ctx: &mut Ctx<'_, '_>, _: u32) {
        let (conn, _) = self.opened.expect("it was opened before the timer was set");
        ctx.plane.close(conn, Close::Now);
        // A second close has no effect.
        ctx.plane.close(conn, Close::Now);
    }

    fn connected(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        conn: ConnId,
        outcome: Result<(), ConnectError>,
    ) -> Option<Box<dyn Behaviour>> {
        let (opened, since) = self.opened.expect("a connect was started");
        assert_eq!(conn, opened, "the outcome belongs to the connection");
        assert!(!std::mem::replace(&mut self.has_outcome, true), "a connect has one outcome");
        if let Err(error) = outcome {
            assert_eq!(error.to, self.to, "the error says where the connection was to go");
            let line = match error.why {
                ConnectFailure::Refused => "refused\n".to_owned(),
                ConnectFailure::Closed => "closed\n".to_owned(),
                ConnectFailure::TimedOut(after) => {
                    assert_eq!(after, self.within);
                    assert!(ctx.plane.now().since(since) >= self.within, "the connect was given up early");
                    "timed out\n".to_owned()
                }
                _ => format!("{error}\n"),
            };
            ctx.reply(line);
            return None;
        }
        self.is_open = true;
        let local = ctx.plane.local_addr(conn).expect("it is open");
        ctx.reply(format!("connected {local}\n"));
        if self.how == b'X' {
            ctx.plane.send(conn, Bytes::from_static(b"Q"));
            let mut exchange = Exchange { client: Some(ctx.conn), ..Exchange::default() };
            exchange.begin(ctx.plane, conn);
            return Some(Box::new(exchange));
        }
        ctx.plane.send(conn, std::mem::take(&mut self.early).into());
        Some(Box::new(Relay { client: ctx.conn, pauses: self.how == b'P', received: 0 }))
    }

    fn ended(&mut self, plane: &mut TestPlane<'_>, _: &CloseReason) {
        if let Some((conn, _)) = self.opened {
            plane.close(conn, Close::AfterSends);
        }
    }
}

/// The opened connection of a relay.
struct Relay {
    client: ConnId,
    pauses: bool,
    /// Bytes since the last pause.
    received: usize,
}

impl Behaviour for Relay {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, data: &[u8]) {
        ctx.plane.send(self.client, Bytes::copy_from_slice(data));
        let before = self.received;
        self.received += data.len();
        if self.pauses && before < PAUSE_AFTER_BYTES && self.received >= PAUSE_AFTER_BYTES {
            ctx.plane.pause(ctx.conn);
            ctx.plane.set_timer(ctx.plane.now().after(Duration::from_micros(300)), ctx.token(0));
        }
    }

    fn timer(&mut self, ctx: &mut Ctx<'_, '_>, _: u32) {
        self.received = 0;
        ctx.plane.resume(ctx.conn);
    }

    fn ended(&mut self, plane: &mut TestPlane<'_>, reason: &CloseReason) {
        let end = match reason {
            CloseReason::Peer => "end: peer\n",
            CloseReason::Local => "end: local\n",
            CloseReason::Error(_) => "end: error\n",
        };
        plane.send(self.client, Bytes::from_static(end.as_bytes()));
        plane.close(self.client, Close::AfterSends);
    }
}

/// One end of an exchange: it sends all messages at once, and receives those of the other end in place.
#[derive(Default)]
pub(super) struct Exchange {
    /// Whom to tell when everything was sent and received, if this is the end that was opened.
    client: Option<ConnId>,
    has_begun: bool,
    unsent_bytes: usize,
    length: Vec<u8>,
    /// Length of the message that is being received in place.
    bulk_bytes: usize,
    received: usize,
    has_reported: bool,
}

impl Exchange {
    fn begin(&mut self, plane: &mut TestPlane<'_>, conn: ConnId) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        // The end that was opened has sent the letter that chose the behaviour of the other.
        self.unsent_bytes = usize::from(self.client.is_some());
        for bytes in EXCHANGED {
            let payload: Vec<u8> = (0..bytes as u64).map(pattern).collect();
            plane.send(conn, Bytes::copy_from_slice(&(bytes as u32).to_le_bytes()));
            plane.send(conn, payload.into());
            self.unsent_bytes += LENGTH_BYTES + bytes;
        }
    }

    fn received(&mut self, ctx: &mut Ctx<'_, '_>, message: &[u8]) {
        assert_eq!(message.len(), EXCHANGED[self.received], "message {}", self.received);
        for (at, byte) in (0..).zip(message) {
            assert_eq!(*byte, pattern(at), "byte {at} of message {}", self.received);
        }
        self.received += 1;
        self.report(ctx);
    }

    fn report(&mut self, ctx: &mut Ctx<'_, '_>) {
        if self.received == EXCHANGED.len()
            && self.unsent_bytes == 0
            && let Some(client) = self.client
        {
            assert_eq!(ctx.plane.send_queue_bytes(ctx.conn), 0, "everything was reported as sent");
            assert!(!std::mem::replace(&mut self.has_reported, true), "the exchange goes on after its end");
            ctx.plane.send(client, Bytes::from_static(b"exchanged\n"));
        }
    }
}

impl Behaviour for Exchange {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, mut data: &[u8]) {
        self.begin(ctx.plane, ctx.conn);
        while !data.is_empty() {
            let (length, rest) = data.split_at(data.len().min(LENGTH_BYTES - self.length.len()));
            self.length.extend_from_slice(length);
            let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(&self.length[..]) else { return };
            self.length.clear();
            let bytes = u32::from_le_bytes(length) as usize;
            let (ours, rest) = rest.split_at(rest.len().min(bytes));
            let mut buf = AlignedBuf::new(bytes);
            buf[..ours.len()].copy_from_slice(ours);
            if rest.is_empty() {
                self.bulk_bytes = bytes;
                return ctx.plane.recv_into(ctx.conn, buf, ours.len(), bytes);
            }
            self.received(ctx, &buf[..bytes]);
            data = rest;
        }
    }

    fn bulk(&mut self, ctx: &mut Ctx<'_, '_>, buf: AlignedBuf) {
        let bytes = self.bulk_bytes;
        self.received(ctx, &buf[..bytes]);
    }

    fn sent(&mut self, ctx: &mut Ctx<'_, '_>, bytes: usize) {
        assert!(bytes <= self.unsent_bytes, "{bytes} bytes were sent of {}", self.unsent_bytes);
        self.unsent_bytes -= bytes;
        self.report(ctx);
    }
}

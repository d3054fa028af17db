//! How connections end, and what the other side observes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{Behaviour, Ctx};
use super::pattern;
use crate::buf::AlignedBuf;
use crate::plane::{Close, CloseReason};

/// How labelled connections ended.
#[derive(Default)]
pub(super) struct Observed {
    ends: BTreeMap<u8, &'static str>,
}

impl Observed {
    pub(super) fn closed(&mut self, label: u8, reason: &CloseReason) {
        let what = match reason {
            CloseReason::Peer => "peer.",
            CloseReason::Local => "local.",
            CloseReason::Error(why) => {
                assert!(!why.is_empty(), "an error has a text");
                "error."
            }
        };
        assert!(self.ends.insert(label, what).is_none(), "a connection ends once");
    }
}

/// Sends bytes and closes; or reads and discards until the other side closes.
pub(super) struct Closing {
    label: u8,
    how: Option<Close>,
    bytes: u64,
    closed: bool,
}

impl Closing {
    pub(super) fn new(label: u8, how: Option<Close>, bytes: u64) -> Self {
        Self { label, how, bytes, closed: false }
    }
}

impl Behaviour for Closing {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        assert!(!self.closed, "received on a connection that was being closed");
        let Some(how) = self.how else { return };
        let data: Vec<u8> = (0..self.bytes).map(pattern).collect();
        for part in data.chunks(10_000) {
            ctx.reply(part.to_vec());
        }
        ctx.plane.close(ctx.conn, how);
        // A second close has no effect.
        ctx.plane.close(ctx.conn, Close::AfterSends);
        self.closed = true;
    }

    fn sent(&mut self, _: &mut Ctx<'_, '_>, _: usize) {
        assert!(!self.closed, "on_sent for a connection that was being closed");
    }

    fn label(&self) -> Option<u8> {
        Some(self.label)
    }
}

/// How a [`Vanishing`] connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vanish {
    /// In the same call that requested the bulk.
    AtOnce,
    /// While the bulk is being received.
    Soon,
    /// While the bulk is being received, after pausing the connection.
    Paused,
    /// First after sends, which takes too long, and then immediately.
    AfterSendsThenNow,
}

/// Requests a bulk and closes before it has arrived: the plane must own the memory until nothing writes to it any more.
pub(super) struct Vanishing {
    label: u8,
    how: Vanish,
    closed: bool,
}

impl Vanishing {
    pub(super) fn new(label: u8, how: u8) -> Self {
        let how = match how {
            b'O' => Vanish::AtOnce,
            b'S' => Vanish::Soon,
            b'P' => Vanish::Paused,
            b'I' => Vanish::AfterSendsThenNow,
            other => panic!("vanish how? {}", char::from(other)),
        };
        Self { label, how, closed: false }
    }

    fn close(&mut self, ctx: &mut Ctx<'_, '_>, how: Close) {
        self.closed = true;
        ctx.plane.close(ctx.conn, how);
    }
}

impl Behaviour for Vanishing {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        assert!(!self.closed, "received on a connection that was being closed");
        let buf = AlignedBuf::new(8 << 20);
        let end = buf.len();
        ctx.plane.recv_into(ctx.conn, buf, 0, end);
        match self.how {
            Vanish::AtOnce => return self.close(ctx, Close::Now),
            Vanish::Soon => {}
            Vanish::Paused => ctx.plane.pause(ctx.conn),
            Vanish::AfterSendsThenNow => {
                ctx.reply(vec![0; 64 << 20]);
                self.close(ctx, Close::AfterSends);
            }
        }
        let at = ctx.plane.now().after(Duration::from_millis(2));
        ctx.plane.set_timer(at, ctx.token(0));
    }

    fn timer(&mut self, ctx: &mut Ctx<'_, '_>, _: u32) {
        self.close(ctx, Close::Now);
    }

    fn label(&self) -> Option<u8> {
        Some(self.label)
    }
}

/// Reports how another connection ended.
pub(super) struct Observer {
    label: u8,
    reported: bool,
}

impl Observer {
    pub(super) fn new(label: u8) -> Self {
        Self { label, reported: false }
    }
}

impl Behaviour for Observer {
    fn recv(&mut self, _: &mut Ctx<'_, '_>, _: &[u8]) {}

    fn turn_end(&mut self, ctx: &mut Ctx<'_, '_>, observed: &Observed) {
        if let Some(end) = observed.ends.get(&self.label).filter(|_| !self.reported) {
            ctx.reply(*end);
            self.reported = true;
        }
    }
}

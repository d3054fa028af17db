//! How connections end, and who notices.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{Behaviour, Ctx};
use super::pattern;
use crate::buf::AlignedBuf;
use crate::plane::{Close, ClosedBecause};

/// How labelled connections have ended.
#[derive(Default)]
pub(super) struct Observed {
    ends: BTreeMap<u8, &'static str>,
}

impl Observed {
    pub(super) fn closed(&mut self, label: u8, because: &ClosedBecause) {
        let what = match because {
            ClosedBecause::Peer => "peer.",
            ClosedBecause::Local => "local.",
            ClosedBecause::Error(why) => {
                assert!(!why.is_empty(), "an error says what it is");
                "error."
            }
        };
        assert!(self.ends.insert(label, what).is_none(), "a connection ends once");
    }
}

/// Sends something and closes; or reads and discards until the other side does.
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
        // A second time changes nothing.
        ctx.plane.close(ctx.conn, Close::AfterSends);
        self.closed = true;
    }

    fn sent(&mut self, _: &mut Ctx<'_, '_>, _: usize) {
        assert!(!self.closed, "told of sends on a connection that was being closed");
    }

    fn label(&self) -> Option<u8> {
        Some(self.label)
    }
}

/// How a [`Vanishing`] connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vanish {
    /// In the very call that asked for the bulk.
    AtOnce,
    /// While the bulk is being received.
    Soon,
    /// The same, after a pause.
    Paused,
    /// In an orderly way that takes too long, and then at once.
    Impatiently,
}

/// Asks for a bulk and closes before it is there: the memory must stay the plane's until nothing writes to it any more.
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
            b'I' => Vanish::Impatiently,
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
            Vanish::Impatiently => {
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

/// Tells how another connection has ended.
pub(super) struct Observer {
    label: u8,
    told: bool,
}

impl Observer {
    pub(super) fn new(label: u8) -> Self {
        Self { label, told: false }
    }
}

impl Behaviour for Observer {
    fn recv(&mut self, _: &mut Ctx<'_, '_>, _: &[u8]) {}

    fn turn_end(&mut self, ctx: &mut Ctx<'_, '_>, observed: &Observed) {
        if let Some(end) = observed.ends.get(&self.label).filter(|_| !self.told) {
            ctx.reply(*end);
            self.told = true;
        }
    }
}

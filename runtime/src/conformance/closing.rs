//! How connections end, and who notices.

use std::collections::BTreeMap;

use super::app::{Behaviour, Ctx};
use super::pattern;
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

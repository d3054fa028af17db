//! Small behaviours: variations of an echo.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::app::{Behaviour, Ctx};
use super::closing::Observed;

/// Sends back what it receives.
pub(super) struct Echo;

impl Behaviour for Echo {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, data: &[u8]) {
        ctx.reply(Bytes::copy_from_slice(data));
    }
}

/// Sends the address that its client connected to, on a line, for every `on_recv`.
pub(super) struct LocalAddress;

impl Behaviour for LocalAddress {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        let local = ctx.plane.local_addr(ctx.conn).expect("an open connection has a local address");
        ctx.reply(format!("{local}\n"));
    }
}

/// Sends the address of its client, on a line, for every `on_recv`.
pub(super) struct PeerAddress {
    peer: SocketAddr,
}

impl PeerAddress {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { peer }
    }
}

impl Behaviour for PeerAddress {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        ctx.reply(format!("{}\n", self.peer));
    }
}

/// Sends its location, then echoes.
pub(super) struct Who {
    moves: u8,
    replied: bool,
}

impl Who {
    pub(super) fn new(moves: u8) -> Self {
        Self { moves, replied: false }
    }
}

impl Behaviour for Who {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, data: &[u8]) {
        if !std::mem::replace(&mut self.replied, true) {
            let shard = ctx.plane.shard() as u8;
            ctx.reply(vec![shard, ctx.listener.0 as u8, self.moves]);
        }
        ctx.reply(Bytes::copy_from_slice(data));
    }
}

/// Echoes, and pauses receiving at intervals.
pub(super) struct Paused {
    quota: usize,
    since_resume: usize,
    pauses: u32,
}

impl Paused {
    pub(super) fn new(quota: usize) -> Self {
        Self { quota, since_resume: 0, pauses: 0 }
    }
}

impl Behaviour for Paused {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, data: &[u8]) {
        ctx.reply(Bytes::copy_from_slice(data));
        let before = self.since_resume;
        self.since_resume += data.len();
        if before < self.quota && self.since_resume >= self.quota {
            ctx.plane.pause(ctx.conn);
            self.pauses += 1;
            let at = ctx.plane.now().after(Duration::from_micros(300));
            ctx.plane.set_timer(at, ctx.token(self.pauses));
        }
    }

    fn timer(&mut self, ctx: &mut Ctx<'_, '_>, token: u32) {
        assert_eq!(token, self.pauses, "one pause at a time");
        self.since_resume = 0;
        ctx.plane.resume(ctx.conn);
    }
}

/// Echoes at the end of the turn. If a plane slept without ending the turn, no reply would be sent.
#[derive(Default)]
pub(super) struct InTurnEnd {
    received: Vec<u8>,
}

impl Behaviour for InTurnEnd {
    fn recv(&mut self, _: &mut Ctx<'_, '_>, data: &[u8]) {
        self.received.extend_from_slice(data);
    }

    fn turn_end(&mut self, ctx: &mut Ctx<'_, '_>, _: &Observed) {
        if !self.received.is_empty() {
            ctx.reply(std::mem::take(&mut self.received));
        }
    }
}

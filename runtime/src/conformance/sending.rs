//! Sends many bytes and counts those reported as sent.

use bytes::Bytes;

use super::app::{Behaviour, Ctx};
use super::pattern;

pub(super) const ALL_SENT: &[u8] = b"all sent";

pub(super) struct Sending {
    bytes: u64,
    begun: bool,
    sent: u64,
    trailer_queued: bool,
}

impl Sending {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, begun: false, sent: 0, trailer_queued: false }
    }

    /// Checks that the plane reports no more queued bytes than were queued and not yet reported as sent.
    fn check_queue(&self, ctx: &Ctx<'_, '_>, queued: u64) {
        let unsent = queued - self.sent;
        let reported = ctx.plane.send_queue_bytes(ctx.conn) as u64;
        assert!(
            reported <= unsent,
            "{reported} bytes are queued, but only {unsent} were not reported as sent"
        );
    }
}

impl Behaviour for Sending {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let data: Bytes = (0..self.bytes).map(pattern).collect::<Vec<u8>>().into();
        let (mut at, mut step) = (0, 1);
        while at < data.len() {
            // Lengths from one byte to a hundred thousand.
            step = step * 7 % 100_003;
            let to = (at + step).min(data.len());
            ctx.reply(data.slice(at..to));
            at = to;
        }
        self.check_queue(ctx, self.bytes);
    }

    fn sent(&mut self, ctx: &mut Ctx<'_, '_>, bytes: usize) {
        assert!(bytes > 0, "on_sent without bytes");
        self.sent += bytes as u64;
        let queued = self.bytes + if self.trailer_queued { ALL_SENT.len() as u64 } else { 0 };
        assert!(self.sent <= queued, "{} bytes were sent but only {queued} queued", self.sent);
        self.check_queue(ctx, queued);
        if self.sent == self.bytes && !std::mem::replace(&mut self.trailer_queued, true) {
            assert_eq!(ctx.plane.send_queue_bytes(ctx.conn), 0);
            ctx.reply(ALL_SENT);
        }
    }
}

//! Messages between shards.

use std::collections::{BTreeMap, BTreeSet};

use super::app::{Behaviour, Ctx, TestMessage};
use crate::plane::ShardIndex;

pub(super) const IN_ORDER: &[u8] = b"in order";

/// Sends a sequence of messages to every shard and waits until each has counted them.
pub(super) struct MeshCheck {
    count: u32,
    begun: bool,
    waiting_for: BTreeSet<ShardIndex>,
}

impl MeshCheck {
    pub(super) fn new(count: u32) -> Self {
        Self { count, begun: false, waiting_for: BTreeSet::new() }
    }
}

impl Behaviour for MeshCheck {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        self.waiting_for = (0..ctx.plane.shards()).collect();
        let (number, of) = (ctx.number, self.count);
        for n in 0..of {
            for shard in 0..ctx.plane.shards() {
                ctx.plane.post(shard, TestMessage::Count { number, n, of });
            }
        }
    }

    fn counted(&mut self, ctx: &mut Ctx<'_, '_>, from: ShardIndex) {
        assert!(self.waiting_for.remove(&from), "shard {from} counted twice");
        if self.waiting_for.is_empty() {
            ctx.reply(IN_ORDER);
        }
    }
}

/// The receiving side: how many messages of each sequence have arrived.
#[derive(Default)]
pub(super) struct Counts {
    next: BTreeMap<(ShardIndex, u32), u32>,
}

impl Counts {
    /// Checks that a message is the next of its sequence. Returns whether it is the last.
    pub(super) fn count(&mut self, from: ShardIndex, number: u32, n: u32, of: u32) -> bool {
        let next = self.next.entry((from, number)).or_default();
        assert_eq!(n, *next, "messages of shard {from} were reordered or lost");
        *next += 1;
        *next == of
    }
}

//! Producer ids, from blocks that shard 0 reserves for this shard.

use std::ops::Range;

use highwater_protocol::ids::ProducerId;

use super::context::Context;
use super::long_answers::AnswerTo;
use crate::api::{ApiError, ReserveProducerIds};
use crate::{kafka, native};

/// The producer ids of this shard, and the clients that wait for more.
pub(super) struct ProducerIds {
    /// Ids that have not been assigned.
    left: Range<ProducerId>,
    waiting: Vec<AnswerTo>,
    /// Whether a request for a block is in flight.
    is_requested: bool,
}

impl Default for ProducerIds {
    fn default() -> Self {
        Self { left: ProducerId(0)..ProducerId(0), waiting: Vec::new(), is_requested: false }
    }
}

impl ProducerIds {
    pub(super) fn wait(&mut self, who: AnswerTo) {
        self.waiting.push(who);
    }

    /// Takes a client that waits, and an id for it.
    fn assign(&mut self) -> Option<(AnswerTo, ProducerId)> {
        if self.left.is_empty() {
            return None;
        }
        let who = self.waiting.pop()?;
        let id = self.left.start;
        self.left.start = ProducerId(id.0 + 1);
        Some((who, id))
    }

    /// Returns whether to request a block from shard 0.
    fn wants_block(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_requested, true)
    }
}

impl Context<'_> {
    /// Assigns ids to clients that wait, and requests a block if there are too few.
    pub(super) fn assign_producer_ids(&mut self) {
        while let Some((who, id)) = self.producer_ids.assign() {
            reply(self, who, Ok(id));
        }
        if self.producer_ids.wants_block() {
            self.ask_for_shard(ReserveProducerIds, handle_block);
        }
    }
}

/// Handles the reply to a request for a block. Clients for which it has no id get an error.
fn handle_block(context: &mut Context<'_>, block: Result<Range<ProducerId>, ApiError>) {
    context.producer_ids.is_requested = false;
    let error = match block {
        Ok(block) => {
            context.producer_ids.left = block;
            while let Some((who, id)) = context.producer_ids.assign() {
                reply(context, who, Ok(id));
            }
            ApiError::ProducerIdsTaken
        }
        Err(error) => error,
    };
    for who in std::mem::take(&mut context.producer_ids.waiting) {
        reply(context, who, Err(error.clone()));
    }
}

fn reply(context: &mut Context<'_>, to: AnswerTo, given: Result<ProducerId, ApiError>) {
    match to {
        AnswerTo::Native(call) => native::reply_producer_id(context, call, given),
        AnswerTo::Kafka(call) => kafka::answer_producer_id(context, call, given),
    }
}

#[cfg(test)]
mod tests {
    use highwater_net::ReplyQueue;
    use highwater_protocol::native::MessageKind;
    use highwater_runtime::plane::ConnId;

    use super::*;

    #[test]
    fn one_block_is_requested_at_a_time_and_its_ids_are_assigned_in_order() {
        let mut queue = ReplyQueue::default();
        let mut who = |id| {
            let slot = queue.open(MessageKind::InitProducer, id, 0, 0);
            AnswerTo::Native(native::Call { conn: ConnId(1), slot })
        };
        let mut ids = ProducerIds::default();
        assert!(!ids.wants_block(), "no client waits");
        ids.wait(who(1));
        ids.wait(who(2));
        assert!(ids.assign().is_none() && ids.wants_block() && !ids.wants_block());
        ids.left = ProducerId(1000)..ProducerId(1002);
        let given: Vec<_> = std::iter::from_fn(|| ids.assign()).map(|(_, id)| id.0).collect();
        assert_eq!(given, [1000, 1001]);
        ids.wait(who(3));
        assert!(ids.assign().is_none());
    }
}

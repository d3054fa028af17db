//! Ids for idempotent producers, out of blocks that shard 0 reserves for this shard.

use std::ops::Range;

use highwater_protocol::ids::ProducerId;

use super::context::Context;
use super::long_answers::AnswerTo;
use crate::api::{ApiError, ReserveProducerIds};
use crate::{kafka, native};

/// Producer ids of this shard's own, and who waits for more.
#[derive(Default)]
pub(super) struct ProducerIds {
    /// Ids that were not given yet.
    left: Range<i64>,
    waiting: Vec<AnswerTo>,
    /// Whether shard 0 has been asked for a block.
    is_asked: bool,
}

impl ProducerIds {
    pub(super) fn wait(&mut self, who: AnswerTo) {
        self.waiting.push(who);
    }

    /// Who gets an id, and that.
    fn give(&mut self) -> Option<(AnswerTo, ProducerId)> {
        if self.left.is_empty() {
            return None;
        }
        let who = self.waiting.pop()?;
        self.left.next().map(|id| (who, ProducerId(id)))
    }

    /// Whether shard 0 has to be asked for a block.
    fn ask(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_asked, true)
    }
}

impl Context<'_> {
    /// Gives ids to those who wait, as far as there are any, and asks for more if they are too few.
    pub(super) fn give_producer_ids(&mut self) {
        while let Some((who, id)) = self.producer_ids.give() {
            reply(self, who, Ok(id));
        }
        if self.producer_ids.ask() {
            self.ask_for_shard(ReserveProducerIds, handle_block);
        }
    }
}

/// Shard 0 has reserved a block, or has not. Who gets no id of it is refused.
fn handle_block(context: &mut Context<'_>, block: Result<Range<ProducerId>, ApiError>) {
    context.producer_ids.is_asked = false;
    let error = match block {
        Ok(block) => {
            context.producer_ids.left = block.start.0..block.end.0;
            while let Some((who, id)) = context.producer_ids.give() {
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
    fn a_block_is_asked_for_once_and_given_out_id_by_id() {
        let mut queue = ReplyQueue::default();
        let mut who = |id| {
            let slot = queue.open(MessageKind::InitProducer, id, 0, 0);
            AnswerTo::Native(native::Call { conn: ConnId(1), slot })
        };
        let mut ids = ProducerIds::default();
        assert!(!ids.ask(), "nobody waits");
        ids.wait(who(1));
        ids.wait(who(2));
        assert!(ids.give().is_none() && ids.ask() && !ids.ask());
        ids.left = 1000..1002;
        let given: Vec<_> = std::iter::from_fn(|| ids.give()).map(|(_, id)| id.0).collect();
        assert_eq!(given, [1000, 1001]);
        ids.wait(who(3));
        assert!(ids.give().is_none());
    }
}

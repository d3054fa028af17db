//! Producer ids, from blocks that shard 0 reserves for this shard.

use std::ops::Range;

use highwater_protocol::ids::ProducerId;

use super::Context;
use crate::api::{ApiError, ReserveProducerIds};

/// Answers a client with its producer id or an error.
type Answer = Box<dyn FnOnce(&mut Context<'_>, Result<ProducerId, ApiError>)>;

/// The producer ids of this shard, and the clients that wait for more.
pub(crate) struct ProducerIds {
    /// Ids that have not been assigned.
    left: Range<ProducerId>,
    waiting: Vec<Answer>,
    /// Whether a request for a block is in flight.
    is_requested: bool,
}

impl Default for ProducerIds {
    fn default() -> Self {
        Self { left: ProducerId(0)..ProducerId(0), waiting: Vec::new(), is_requested: false }
    }
}

impl ProducerIds {
    fn wait(&mut self, answer: Answer) {
        self.waiting.push(answer);
    }

    /// Takes a client that waits, and an id for it.
    fn assign(&mut self) -> Option<(Answer, ProducerId)> {
        if self.left.is_empty() {
            return None;
        }
        let answer = self.waiting.pop()?;
        let id = self.left.start;
        self.left.start = ProducerId(id.0 + 1);
        Some((answer, id))
    }

    /// Returns whether to request a block from shard 0.
    fn wants_block(&mut self) -> bool {
        !self.waiting.is_empty() && !std::mem::replace(&mut self.is_requested, true)
    }
}

impl Context<'_> {
    /// Assigns a producer id, now or when shard 0 has reserved more.
    pub(crate) fn assign_producer_id(
        &mut self,
        answer: impl FnOnce(&mut Context<'_>, Result<ProducerId, ApiError>) + 'static,
    ) {
        self.parts.producer_ids.wait(Box::new(answer));
        self.assign_producer_ids();
        if self.parts.producer_ids.wants_block() {
            self.ask_for_shard(ReserveProducerIds, handle_block);
        }
    }

    /// Assigns ids to clients that wait.
    fn assign_producer_ids(&mut self) {
        while let Some((answer, id)) = self.parts.producer_ids.assign() {
            answer(self, Ok(id));
        }
    }
}

/// Handles the reply to a request for a block. Clients for which it has no id get an error.
fn handle_block(context: &mut Context<'_>, block: Result<Range<ProducerId>, ApiError>) {
    context.parts.producer_ids.is_requested = false;
    let error = match block {
        Ok(block) => {
            context.parts.producer_ids.left = block;
            context.assign_producer_ids();
            ApiError::ProducerIdsTaken
        }
        Err(error) => error,
    };
    for answer in std::mem::take(&mut context.parts.producer_ids.waiting) {
        answer(context, Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_is_requested_at_a_time_and_its_ids_are_assigned_in_order() {
        let answer = || Box::new(|_: &mut Context<'_>, _: Result<ProducerId, ApiError>| {});
        let mut ids = ProducerIds::default();
        assert!(!ids.wants_block(), "no client waits");
        ids.wait(answer());
        ids.wait(answer());
        assert!(ids.assign().is_none() && ids.wants_block() && !ids.wants_block());
        ids.left = ProducerId(1000)..ProducerId(1002);
        let given: Vec<_> = std::iter::from_fn(|| ids.assign()).map(|(_, id)| id.0).collect();
        assert_eq!(given, [1000, 1001]);
        ids.wait(answer());
        assert!(ids.assign().is_none());
    }
}

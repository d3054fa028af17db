//! What only shard 0 does: it has the controller and the consumers' positions.

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::Shard;
use super::setup::{OpenError, ShardSetup};
use super::stores::{META_SPACE, OFFSETS_SPACE};
use crate::controller::{Action, Controller};
use crate::data_dir::{META, OFFSETS};
use crate::message::{Answer, Ask, Message, Ticket};
use crate::positions_log::PositionsLog;

pub(super) struct Lead {
    pub(super) controller: Controller,
    pub(super) positions: PositionsLog,
    ready: bool,
}

impl Lead {
    pub(super) fn open(
        plane: &mut dyn Plane<Message>,
        setup: &ShardSetup,
        warnings: &mut Vec<String>,
    ) -> Result<Self, OpenError> {
        let (log, recovered) = setup.open_log(plane, META, *b"META", META_SPACE, warnings)?;
        let controller = Controller::new(log, &recovered, usize::from(setup.stores), setup.shards)?;
        let metadata = controller.tip();
        let homeless = metadata.topics().find(|t| t.stores.iter().any(|s| s.0 >= setup.stores));
        if let Some(topic) = homeless {
            return Err(OpenError::Incomplete(format!(
                "topic {} has partitions in a store whose directory is missing from {}; restore the missing store-… directory",
                topic.name,
                setup.data_dir.display()
            )));
        }
        let (log, recovered) = setup.open_log(plane, OFFSETS, *b"OFFS", OFFSETS_SPACE, warnings)?;
        let mut positions = PositionsLog::new(log, &recovered)?;
        positions.retain_topics(|id| metadata.topic_by_id(id).is_some());
        Ok(Self { controller, positions, ready: false })
    }

    fn ask(&mut self, to: (ShardIndex, Ticket), ask: Ask, mut random: impl FnMut() -> u64) -> Option<Reply> {
        if !self.ready {
            return Some(Reply::error(ErrorCode::Unavailable, "the broker is starting; try again"));
        }
        match ask {
            Ask::CreateTopic(request) => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&random().to_le_bytes());
                id[8..].copy_from_slice(&random().to_le_bytes());
                let id = *uuid::Builder::from_random_bytes(id).as_uuid().as_bytes();
                self.controller.create_topic(to, &request, TopicId(id));
            }
            Ask::DeleteTopic(request) => {
                if let Some(topic) = self.controller.delete_topic(to, &request) {
                    self.positions.delete_topic(topic);
                }
            }
            Ask::AlterTopic(request) => self.controller.alter_topic(to, &request),
            Ask::ProducerIds => self.controller.producer_ids(to),
            Ask::CommitOffsets(request) => {
                if self.controller.tip().topic_by_id(request.topic).is_none() {
                    let text = format!("there is no topic with id {}", request.topic);
                    return Some(Reply::error(ErrorCode::UnknownTopic, text));
                }
                self.positions.commit(to, request);
            }
            Ask::ReadOffsets(request) => self.positions.read(to, &request),
        }
        None
    }
}

impl Shard {
    pub(super) fn on_ask(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        ask: Ask,
    ) {
        let Some(lead) = &mut self.lead else { return };
        if let Some(reply) = lead.ask((from, ticket), ask, || plane.random_u64()) {
            plane.post(from, Message::Answer(ticket, Answer::Reply(reply)));
        }
    }

    /// Makes durable what was decided, and tells those concerned what is.
    pub(super) fn run_lead(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(lead) = &mut self.lead else { return };
        lead.controller.flush(plane);
        lead.positions.flush(plane);
        while let Some(action) = lead.controller.poll() {
            match action {
                Action::Publish(metadata, changes) => {
                    lead.ready = true;
                    for shard in 0..plane.shards() {
                        let message =
                            Message::Publish { metadata: metadata.clone(), changes: changes.clone() };
                        plane.post(shard, message);
                    }
                }
                Action::Answer(shard, ticket, answer) => {
                    plane.post(shard, Message::Answer(ticket, answer));
                }
                Action::Ready(report) => (self.setup.on_ready)(report),
            }
        }
        while let Some(((shard, ticket), reply)) = lead.positions.poll() {
            plane.post(shard, Message::Answer(ticket, Answer::Reply(reply)));
        }
    }
}

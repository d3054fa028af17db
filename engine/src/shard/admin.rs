//! Requests that concern more than one partition: answered from the metadata, by shard 0, or by asking every shard concerned.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces, Reply, SlotId};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{
    LeaderEpoch, NodeId, PartitionIndex, ProducerId, ShardId, TopicId, TopicPartition,
};
use highwater_protocol::native::{
    DeleteRecordsRequest, DescribeTopicReply, DescribeTopicRequest, InitProducerReply, ListOffsetsReply,
    ListOffsetsRequest, ListedOffset, PartitionDetail, PartitionInfo,
};
use highwater_runtime::plane::{ConnId, Plane, ShardIndex};

use super::Shard;
use super::kafka::{Call, Part};
use super::long_answers::AnswerTo;
use crate::message::{Answer, Ask, FoundOffset, Message, NewStart, Query, QueryAnswer, RequestId, Ticket};
use crate::meta::{Topic, configs};

/// A question that this shard has asked others.
pub(super) enum Asked {
    /// Shard 0, for a client.
    Client(ConnId, SlotId),
    /// Shard 0, for producer ids.
    ProducerIds,
    /// Anybody, for a part of a Kafka client's request.
    Kafka { request: RequestId, part: u32 },
    /// Shards that have partitions, for a client.
    Partitions { conn: ConnId, slot: SlotId, missing: usize, gathered: Gathered },
}

/// Answers so far.
pub(super) enum Gathered {
    Offsets(Vec<ListedOffset>),
    Details { topic: Arc<Topic>, details: Vec<Option<PartitionDetail>> },
    DeleteRecords(Result<(), (ErrorCode, String)>),
}

/// Who wants a producer id.
#[derive(Clone, Copy, Debug)]
pub(super) enum WantsProducerId {
    Native(ConnId, SlotId),
    Kafka(Call),
}

/// Producer ids of this shard's own, and who waits for more.
#[derive(Default)]
pub(super) struct ProducerIds {
    next: i64,
    end: i64,
    waiting: Vec<WantsProducerId>,
    asked: bool,
}

impl Shard {
    /// Asks shard 0 on behalf of a client.
    pub(super) fn ask(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, slot: SlotId, ask: Ask) {
        let ticket = self.open_ticket(Asked::Client(conn, slot));
        plane.post(0, Message::Ask(ticket, Box::new(ask)));
    }

    pub(super) fn ask_about_topic(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: SlotId,
        topic: TopicId,
        ask: Ask,
    ) {
        if self.metadata.as_ref().is_none_or(|m| m.topic_by_id(topic).is_none()) {
            let text = format!("there is no topic with id {topic}");
            return self.reply(conn, slot, Reply::error(ErrorCode::UnknownTopic, text));
        }
        self.ask(plane, conn, slot, ask);
    }

    pub(super) fn open_ticket(&mut self, asked: Asked) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.asked.insert(ticket, asked);
        ticket
    }

    pub(super) fn on_answer(&mut self, plane: &mut dyn Plane<Message>, ticket: Ticket, answer: Answer) {
        match (self.asked.remove(&ticket), answer) {
            (Some(Asked::Client(conn, slot)), Answer::Reply(reply)) => self.reply(conn, slot, reply),
            (Some(Asked::ProducerIds), answer) => self.on_producer_ids(answer),
            (Some(Asked::Kafka { request, part }), answer) => {
                self.on_kafka_part(plane, request, part, Part::Lead(answer));
            }
            _ => {}
        }
    }

    pub(super) fn init_producer(&mut self, plane: &mut dyn Plane<Message>, who: WantsProducerId) {
        self.producer_ids.waiting.push(who);
        if self.producer_ids.next < self.producer_ids.end {
            self.give_producer_ids();
        }
        if !self.producer_ids.waiting.is_empty() && !self.producer_ids.asked {
            self.producer_ids.asked = true;
            let ticket = self.open_ticket(Asked::ProducerIds);
            plane.post(0, Message::Ask(ticket, Box::new(Ask::ProducerIds)));
        }
    }

    fn on_producer_ids(&mut self, answer: Answer) {
        self.producer_ids.asked = false;
        match answer {
            Answer::ProducerIds(start, end) => {
                self.producer_ids.next = start;
                self.producer_ids.end = end;
                self.give_producer_ids();
                let text = "producer ids are used up for the moment; try again";
                self.refuse_producers(&Reply::error(ErrorCode::Overloaded, text));
            }
            Answer::Reply(reply) => self.refuse_producers(&reply),
            Answer::Group(_) => unreachable!("nothing about groups was asked"),
        }
    }

    fn give_producer_ids(&mut self) {
        while self.producer_ids.next < self.producer_ids.end
            && let Some(who) = self.producer_ids.waiting.pop()
        {
            let producer = ProducerId(self.producer_ids.next);
            self.producer_ids.next += 1;
            match who {
                WantsProducerId::Native(conn, slot) => {
                    self.reply(conn, slot, Reply::body(&InitProducerReply { producer, epoch: 0 }));
                }
                WantsProducerId::Kafka(call) => self.give_kafka_producer_id(call, Ok(producer)),
            }
        }
    }

    fn refuse_producers(&mut self, reply: &Reply) {
        for who in std::mem::take(&mut self.producer_ids.waiting) {
            match (who, reply) {
                (WantsProducerId::Native(conn, slot), Reply::Error { code, text }) => {
                    self.reply(conn, slot, Reply::error(*code, text.clone()));
                }
                (WantsProducerId::Kafka(call), Reply::Error { code, .. }) => {
                    self.give_kafka_producer_id(call, Err((*code).into()));
                }
                (_, _) => unreachable!("who is refused gets an error"),
            }
        }
    }

    pub(super) fn list_offsets(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: SlotId,
        request: &ListOffsetsRequest,
    ) {
        let mut by_shard: BTreeMap<ShardIndex, Vec<_>> = BTreeMap::new();
        let mut offsets = Vec::with_capacity(request.partitions.len());
        let topic = self.metadata.as_ref().and_then(|m| m.topic_by_id(request.topic));
        let unknown = if topic.is_some() { ErrorCode::UnknownPartition } else { ErrorCode::UnknownTopic };
        let stores = topic.map_or(&[][..], |topic| &topic.stores[..]);
        for (number, (partition, start)) in (0_u32..).zip(&request.partitions) {
            let tp = TopicPartition { topic: request.topic, partition: *partition };
            offsets.push(ListedOffset { partition: *partition, found: Err(unknown) });
            if let Some(store) = stores.get(partition.0 as usize) {
                by_shard.entry(self.shard_of(*store).0).or_default().push((number, tp, *start));
            }
        }
        let queries = by_shard.into_iter().map(|(shard, list)| (shard, Query::Offsets(list))).collect();
        self.gather(plane, conn, slot, Gathered::Offsets(offsets), queries);
    }

    pub(super) fn describe_topic(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: SlotId,
        request: &DescribeTopicRequest,
    ) {
        let Some(topic) = self.metadata.as_ref().and_then(|m| m.topic(&request.name)).cloned() else {
            let text = format!("there is no topic {}", request.name);
            return self.reply(conn, slot, Reply::error(ErrorCode::UnknownTopic, text));
        };
        let mut by_shard: BTreeMap<ShardIndex, Vec<_>> = BTreeMap::new();
        for (tp, store) in topic.partitions() {
            by_shard.entry(self.shard_of(store).0).or_default().push((tp.partition.0, tp));
        }
        let queries = by_shard.into_iter().map(|(shard, list)| (shard, Query::Details(list))).collect();
        let details = vec![None; topic.stores.len()];
        self.gather(plane, conn, slot, Gathered::Details { topic, details }, queries);
    }

    pub(super) fn delete_records(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: SlotId,
        request: &DeleteRecordsRequest,
    ) {
        let mut by_shard: BTreeMap<ShardIndex, Vec<_>> = BTreeMap::new();
        let topic = self.metadata.as_ref().and_then(|m| m.topic_by_id(request.topic));
        let stores = topic.map_or(&[][..], |topic| &topic.stores[..]);
        for (partition, offset) in &request.partitions {
            let tp = TopicPartition { topic: request.topic, partition: *partition };
            let Some(store) = stores.get(partition.0 as usize) else {
                let (code, text) = self.unknown(tp);
                return self.reply(conn, slot, Reply::Error { code, text });
            };
            let shard = self.shard_of(*store).0;
            by_shard.entry(shard).or_default().push(NewStart { number: 0, tp, to: Some(*offset) });
        }
        let queries = by_shard.into_iter().map(|(shard, list)| (shard, Query::DeleteRecords(list))).collect();
        self.gather(plane, conn, slot, Gathered::DeleteRecords(Ok(())), queries);
    }

    fn unknown(&self, tp: TopicPartition) -> (ErrorCode, String) {
        match self.metadata.as_ref().and_then(|m| m.topic_by_id(tp.topic)) {
            Some(topic) => {
                let text = format!("topic {} has no partition {}", topic.name, tp.partition);
                (ErrorCode::UnknownPartition, text)
            }
            None => (ErrorCode::UnknownTopic, format!("there is no topic with id {}", tp.topic)),
        }
    }

    fn gather(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: SlotId,
        gathered: Gathered,
        queries: Vec<(ShardIndex, Query)>,
    ) {
        if queries.is_empty() {
            return self.finish_gathering(conn, slot, gathered);
        }
        let ticket = self.open_ticket(Asked::Partitions { conn, slot, missing: queries.len(), gathered });
        for (shard, query) in queries {
            plane.post(shard, Message::Query(ticket, query));
        }
    }

    pub(super) fn on_query_answer(
        &mut self,
        plane: &mut dyn Plane<Message>,
        ticket: Ticket,
        answer: QueryAnswer,
    ) {
        if let Some(Asked::Kafka { request, part }) = self.asked.get(&ticket) {
            let (request, part) = (*request, *part);
            self.asked.remove(&ticket);
            return self.on_kafka_part(plane, request, part, Part::Owner(answer));
        }
        let Some(Asked::Partitions { missing, gathered, .. }) = self.asked.get_mut(&ticket) else { return };
        *missing -= 1;
        match (gathered, answer) {
            (Gathered::Offsets(offsets), QueryAnswer::Offsets(found)) => {
                for (number, found) in found {
                    if let Some(offset) = offsets.get_mut(number as usize) {
                        offset.found = found;
                    }
                }
            }
            (Gathered::Details { details, .. }, QueryAnswer::Details(found)) => {
                for (number, detail) in found {
                    if let Some(place) = details.get_mut(number as usize) {
                        *place = Some(detail);
                    }
                }
            }
            (Gathered::DeleteRecords(all), QueryAnswer::DeleteRecords(outcomes)) => {
                if let Some((_, Err(error))) = outcomes.into_iter().find(|(_, outcome)| outcome.is_err()) {
                    *all = Err(error);
                }
            }
            _ => unreachable!("a question is answered in its own kind"),
        }
        if *missing == 0
            && let Some(Asked::Partitions { conn, slot, gathered, .. }) = self.asked.remove(&ticket)
        {
            self.finish_gathering(conn, slot, gathered);
        }
    }

    fn finish_gathering(&mut self, conn: ConnId, slot: SlotId, gathered: Gathered) {
        let reply = match gathered {
            Gathered::Offsets(partitions) => Reply::body(&ListOffsetsReply { partitions }),
            Gathered::Details { topic, details } => {
                return self.answer_details(conn, slot, &topic, details);
            }
            Gathered::DeleteRecords(Ok(())) => Reply::Empty,
            Gathered::DeleteRecords(Err((code, text))) => Reply::Error { code, text },
        };
        self.reply(conn, slot, reply);
    }

    fn answer_details(
        &mut self,
        conn: ConnId,
        slot: SlotId,
        topic: &Topic,
        details: Vec<Option<PartitionDetail>>,
    ) {
        let Some(partitions) = details.into_iter().collect::<Option<Vec<_>>>() else {
            // A shard that does not know a partition any more: the topic was deleted meanwhile.
            let text = format!("there is no topic {} any more", topic.name);
            return self.reply(conn, slot, Reply::error(ErrorCode::UnknownTopic, text));
        };
        let configs = configs::describe(&topic.configs);
        let reply = DescribeTopicReply { id: topic.id, configs, partitions: Vec::new() };
        let mut front = BytesMut::new();
        reply.put_front(partitions.len(), &mut front);
        let pieces = Pieces::new(front.freeze(), Details(partitions), Bytes::new());
        self.answer_in_pieces(AnswerTo::Native(conn, slot), pieces);
    }

    /// What the metadata says of a partition of this node.
    pub(super) fn info(&self, partition: PartitionIndex, leader_epoch: LeaderEpoch) -> PartitionInfo {
        let leader: NodeId = self.setup.identity.node;
        PartitionInfo { index: partition, leader, shard: ShardId(self.me), leader_epoch }
    }
}

/// The partitions of a topic that is described.
#[derive(Debug)]
struct Details(Vec<PartitionDetail>);

impl Entries for Details {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        self.0[entry].put(out);
        false
    }
}

/// What a search by offset kind found.
pub(super) const NOT_FOUND: FoundOffset = Ok(None);

//! Kafka's requests on a shard: one method per request, in files by family.
//!
//! A request gets a slot in its connection's order of answers, and a [`Call`] that names it. Who can answer does so at once with
//! [`Shard::kafka_answer`]. Who has to ask others keeps what is known so far as a [`Pending`], asks with [`Shard::kafka_ask`] (shard 0) or
//! [`Shard::kafka_query`] (owners of partitions), and goes on when a [`Part`] comes back.
//!
//! Produce and Fetch, the two hot ones, have messages of their own: see [`crate::kafka_message`].

mod alter_configs;
mod append;
mod broker_configs;
mod cluster;
mod config_names;
mod configs;
mod connection;
mod delete_records;
mod directories;
mod epochs;
mod fetch;
mod fetch_answer;
mod fetch_read;
mod fetch_tasks;
mod gather;
mod group_admin;
mod group_offsets;
mod groups;
mod metadata;
mod offset_answer;
mod offset_fetch;
mod offsets;
mod one_node;
mod produce;
mod producer;
mod producers;
mod records;
mod refused;
mod sasl;
mod topics;
mod transactions;
mod turns;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_net::SlotId;
use highwater_net::kafka::api::{api_versions, api_versions_answer, names_a_client};
use highwater_net::kafka::messages::{ApiVersionsRequest, ApiVersionsResponse};
use highwater_net::kafka::schema::Message as KafkaBody;
use highwater_net::kafka::{KafkaError, Origin, Received, Request, response};
use highwater_protocol::ids::{PartitionIndex, TopicId, TopicPartition};
use highwater_runtime::plane::{ConnId, Plane, ShardIndex};

use super::Shard;
use super::admin::Asked;
use crate::limits::{
    KAFKA_ANSWER_BYTES_EXPECTED, KAFKA_HELD_BYTES_PER_BYTE, KAFKA_HELD_BYTES_PER_GROUP, REQUEST_COST,
};
use crate::message::{
    Answer, Append, Ask, KafkaMessage, Message, Produced, ProducedFor, Query, QueryAnswer, RequestId,
};
use crate::meta::Topic;

pub(super) use fetch::NextFetch;
pub(super) use fetch_tasks::FetchId;
pub(super) use produce::KafkaCheck;
pub(super) use waiting::Waiting;

/// A request: what its answer needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) conn: ConnId,
    pub(super) slot: SlotId,
    pub(super) origin: Origin,
}

impl Call {
    /// The version of the request, in which it is answered.
    pub(super) fn version(&self) -> i16 {
        self.origin.version
    }
}

/// What a shard keeps for Kafka clients.
#[derive(Default)]
pub(super) struct Kafka {
    pending: BTreeMap<RequestId, Pending>,
    last_request: u64,
    /// Outcomes for other shards, sent once a turn.
    produced: Vec<(ProducedFor, Produced)>,
    /// Connections that have fetched: shards remember their places in partitions.
    fetching: BTreeSet<ConnId>,
    /// Of these, those that are gone, which other shards have to hear.
    gone: Vec<ConnId>,
    /// Where new connections go.
    turns: turns::Turns,
    /// What this shard, as an owner of partitions, has refused.
    refused: refused::Refused,
    read: fetch_tasks::Owner,
}

/// A request that waits for others: what is known so far.
pub(super) enum Pending {
    Produce(produce::ProducePending),
    Fetch(fetch::FetchPending),
    Gathering(gather::Gathering),
}

/// What came back.
pub(super) enum Part {
    /// From shard 0.
    Lead(Answer),
    /// From an owner of partitions.
    Owner(QueryAnswer),
}

impl Part {
    /// What shard 0 said, who alone was asked.
    fn of_lead(self) -> Answer {
        match self {
            Self::Lead(answer) => answer,
            Self::Owner(_) => unreachable!("only shard 0 was asked"),
        }
    }

    /// What an owner said, of whom all were that were asked.
    fn of_owner(self) -> QueryAnswer {
        match self {
            Self::Owner(answer) => answer,
            Self::Lead(_) => unreachable!("only owners were asked"),
        }
    }
}

/// A topic as a request names it.
pub(super) enum Named {
    Known(Arc<Topic>),
    Unknown { name: String, id: [u8; 16] },
}

impl Named {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Known(topic) => &topic.name,
            Self::Unknown { name, .. } => name,
        }
    }

    pub(super) fn id(&self) -> [u8; 16] {
        match self {
            Self::Known(topic) => topic.id.0,
            Self::Unknown { id, .. } => *id,
        }
    }

    /// The topic itself, if it is known.
    pub(super) fn known(&self) -> Option<&Arc<Topic>> {
        match self {
            Self::Known(topic) => Some(topic),
            Self::Unknown { .. } => None,
        }
    }

    /// A partition of it, if it has that one.
    pub(super) fn partition(&self, index: i32) -> Option<TopicPartition> {
        let Self::Known(topic) = self else { return None };
        let index = u32::try_from(index).ok().filter(|index| (*index as usize) < topic.stores.len())?;
        Some(TopicPartition { topic: topic.id, partition: PartitionIndex(index) })
    }

    /// What is wrong if it has not.
    pub(super) fn missing(&self) -> KafkaError {
        match self {
            Self::Unknown { id, .. } if *id != [0; 16] => KafkaError::UNKNOWN_TOPIC_ID,
            _ => KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        }
    }
}

impl Kafka {
    /// Bytes of memory that reads on this shard hold for connections of Kafka clients.
    pub(super) fn held(&self) -> usize {
        self.read.held()
    }
}

impl Shard {
    /// Carries out a request of a Kafka client, or sees to it that others do.
    fn kafka_request(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, received: Received<'_>) {
        let Received { header, bytes, entries, request } = received;
        self.counted.requests += 1;
        self.note_entries(entries);
        self.requests_taken += if matches!(request, Request::Produce(_)) { 1 } else { REQUEST_COST };
        let reply_bytes = self.kafka_bytes_expected(&request);
        let Some(kafka) = self.connections.get_mut(&conn).and_then(super::connection::Connection::kafka)
        else {
            return;
        };
        // What is made of the lists and names of a request takes more than they did on the wire; records are kept as they came.
        let held = match &request {
            Request::Produce(_) => bytes,
            Request::OffsetFetch(request) => {
                bytes.saturating_add(request.groups.len().saturating_mul(KAFKA_HELD_BYTES_PER_GROUP))
            }
            _ => bytes.saturating_mul(KAFKA_HELD_BYTES_PER_BYTE),
        };
        let slot = kafka.replies.open(held, reply_bytes);
        let call = Call { conn, slot, origin: header.origin() };
        let client = header.client_id.unwrap_or_default();
        match request {
            Request::Produce(request) => self.kafka_produce(plane, call, request),
            Request::Fetch(request) => self.kafka_fetch(plane, call, &request),
            Request::ListOffsets(request) => self.kafka_list_offsets(plane, call, &request),
            Request::OffsetForLeaderEpoch(request) => self.kafka_epoch_ends(plane, call, &request),
            Request::Metadata(request) => self.kafka_metadata(plane, call, &request),
            Request::DescribeCluster(request) => self.kafka_describe_cluster(call, &request),
            Request::DescribeTopicPartitions(request) => {
                self.kafka_describe_topic_partitions(call, &request);
            }
            Request::ApiVersions(request) => self.kafka_api_versions(call, Some(&request)),
            Request::UnknownApiVersions => self.kafka_api_versions(call, None),
            Request::SaslHandshake(_) => self.kafka_sasl_handshake(call),
            Request::SaslAuthenticate(_) => self.kafka_sasl_authenticate(call),
            Request::InitProducerId(request) => self.kafka_init_producer_id(plane, call, &request),

            Request::AddPartitionsToTxn(request) => self.kafka_add_partitions_to_txn(call, &request),
            Request::AddOffsetsToTxn(_) => self.kafka_add_offsets_to_txn(call),
            Request::EndTxn(_) => self.kafka_end_txn(call),
            Request::TxnOffsetCommit(request) => self.kafka_txn_offset_commit(call, &request),

            Request::CreateTopics(request) => self.kafka_create_topics(plane, call, &request),
            Request::DeleteTopics(request) => self.kafka_delete_topics(plane, call, &request),
            Request::CreatePartitions(request) => self.kafka_create_partitions(plane, call, &request),
            Request::DeleteRecords(request) => self.kafka_delete_records(plane, call, &request),

            Request::DescribeConfigs(request) => self.kafka_describe_configs(call, &request),
            Request::AlterConfigs(request) => self.kafka_alter_configs(plane, call, &request),
            Request::IncrementalAlterConfigs(request) => {
                self.kafka_incremental_alter_configs(plane, call, &request);
            }

            Request::DescribeLogDirs(request) => self.kafka_describe_log_dirs(plane, call, &request),
            Request::DescribeProducers(request) => self.kafka_describe_producers(plane, call, &request),
            Request::DescribeAcls(_) => self.kafka_describe_acls(call),
            Request::DescribeClientQuotas(_) => self.kafka_describe_client_quotas(call),
            Request::DescribeUserScramCredentials(request) => {
                self.kafka_describe_user_scram_credentials(call, &request);
            }
            Request::ListTransactions(request) => self.kafka_list_transactions(call, &request),
            Request::ListPartitionReassignments(_) => self.kafka_list_partition_reassignments(call),
            Request::ElectLeaders(request) => self.kafka_elect_leaders(call, &request),

            Request::FindCoordinator(request) => self.kafka_find_coordinator(call, &request),
            Request::JoinGroup(request) => self.kafka_join_group(plane, call, client, &request),
            Request::SyncGroup(request) => self.kafka_sync_group(plane, call, &request),
            Request::Heartbeat(request) => self.kafka_heartbeat(plane, call, &request),
            Request::LeaveGroup(request) => self.kafka_leave_group(plane, call, &request),
            Request::OffsetCommit(request) => self.kafka_offset_commit(plane, call, &request),
            Request::OffsetFetch(request) => self.kafka_offset_fetch(plane, call, &request),
            Request::DescribeGroups(request) => self.kafka_describe_groups(plane, call, &request),
            Request::ListGroups(request) => self.kafka_list_groups(plane, call, &request),
            Request::DeleteGroups(request) => self.kafka_delete_groups(plane, call, &request),
            Request::OffsetDelete(request) => self.kafka_offset_delete(plane, call, &request),
            Request::ConsumerGroupHeartbeat(request) => {
                self.kafka_consumer_group_heartbeat(plane, call, client, &request);
            }
            Request::ConsumerGroupDescribe(request) => {
                self.kafka_consumer_group_describe(plane, call, &request);
            }
        }
    }

    /// Bytes to set aside for the answer to a request that has to wait for others. What is answered at once needs none.
    fn kafka_bytes_expected(&self, request: &Request<'_>) -> usize {
        match request {
            Request::Fetch(fetch) => self.kafka_fetch_bytes_max(fetch.max_bytes),
            Request::ListOffsets(_)
            | Request::OffsetForLeaderEpoch(_)
            | Request::JoinGroup(_)
            | Request::SyncGroup(_)
            | Request::OffsetFetch(_)
            | Request::DescribeGroups(_)
            | Request::ListGroups(_)
            | Request::ConsumerGroupDescribe(_)
            | Request::DescribeLogDirs(_)
            | Request::DescribeProducers(_) => KAFKA_ANSWER_BYTES_EXPECTED,
            _ => 0,
        }
    }

    /// Answers a request.
    pub(super) fn kafka_answer<'a>(&mut self, call: Call, message: &impl KafkaBody<'a>) {
        self.kafka_reply(call, response(call.origin, message));
    }

    /// What is offered; `request` is none in a version that is not.
    fn kafka_api_versions(&mut self, call: Call, request: Option<&ApiVersionsRequest<'_>>) {
        if request.is_some_and(|request| !names_a_client(call.version(), request)) {
            let error_code = KafkaError::INVALID_REQUEST;
            return self.kafka_answer(call, &ApiVersionsResponse { error_code, ..Default::default() });
        }
        let (version, error) = api_versions_answer(call.version());
        let origin = Origin { version, ..call.origin };
        self.kafka_reply(call, response(origin, &api_versions(error)));
    }

    /// Keeps what is known of a request that waits for others.
    pub(super) fn kafka_wait(&mut self, pending: Pending) -> RequestId {
        self.kafka.last_request += 1;
        let request = RequestId(self.kafka.last_request);
        self.kafka.pending.insert(request, pending);
        request
    }

    /// Keeps it further.
    pub(super) fn kafka_wait_on(&mut self, request: RequestId, pending: Pending) {
        self.kafka.pending.insert(request, pending);
    }

    /// Asks shard 0. The answer comes as this part of the request.
    pub(super) fn kafka_ask(
        &mut self,
        plane: &mut dyn Plane<Message>,
        request: RequestId,
        part: u32,
        ask: Ask,
    ) {
        let ticket = self.open_ticket(Asked::Kafka { request, part });
        plane.post(0, Message::Ask(ticket, Box::new(ask)));
    }

    /// Asks an owner of partitions. The answer comes as this part of the request.
    pub(super) fn kafka_query(
        &mut self,
        plane: &mut dyn Plane<Message>,
        request: RequestId,
        part: u32,
        owner: ShardIndex,
        query: Query,
    ) {
        let ticket = self.open_ticket(Asked::Kafka { request, part });
        plane.post(owner, Message::Query(ticket, query));
    }

    /// A part of what a request waits for has come. Whoever still misses something keeps its [`Pending`] again.
    pub(super) fn on_kafka_part(
        &mut self,
        plane: &mut dyn Plane<Message>,
        request: RequestId,
        part: u32,
        came: Part,
    ) {
        match self.kafka.pending.remove(&request) {
            Some(Pending::Gathering(gathering)) => self.on_gathered(plane, request, gathering, part, came),
            Some(Pending::Produce(_) | Pending::Fetch(_)) => {
                unreachable!("produce and fetch have messages of their own")
            }
            None => {}
        }
    }

    pub(super) fn on_kafka_message(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        message: KafkaMessage,
    ) {
        match message {
            KafkaMessage::Append(batches) => {
                for Append { to, tp, acks, batch, checked } in batches {
                    self.kafka_append(plane, to, tp, acks, batch.into(), checked);
                }
            }
            KafkaMessage::Appended(outcomes) => {
                for (to, produced) in outcomes {
                    self.on_produced(to.request, to.number, produced);
                }
            }
            KafkaMessage::Fetch(ask) => self.kafka_read(plane, from, ask),
            KafkaMessage::FetchBytes(request, bytes) => self.on_fetch_bytes(plane, from, request, bytes),
            KafkaMessage::FetchNow { conn, request, has_some } => {
                self.kafka_read_now(from, conn, request, has_some);
            }
            KafkaMessage::Fetched(request, fetched) => self.on_fetched(plane, from, request, fetched),
            KafkaMessage::Closed(conn) => self.forget_kafka_reader(plane, from, conn),
        }
    }

    /// A topic by name, or, if the request has ids, by id.
    pub(super) fn kafka_topic(&self, name: &str, id: [u8; 16]) -> Named {
        let known = self.metadata.as_ref().and_then(|metadata| match id {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => metadata.topic(name),
            id => metadata.topic_by_id(TopicId(id)),
        });
        match known {
            Some(topic) => Named::Known(Arc::clone(topic)),
            None => Named::Unknown { name: name.to_owned(), id },
        }
    }

    /// A partition of a topic, and its owner.
    pub(super) fn kafka_target(
        &self,
        topic: &Named,
        index: i32,
    ) -> Result<(TopicPartition, ShardIndex), KafkaError> {
        // A request may name a hundred thousand: the topic is not looked up again for each.
        let found = match topic {
            Named::Known(known) => u32::try_from(index).ok().and_then(|index| {
                let owner = self.shard_of(*known.stores.get(index as usize)?).0;
                Some((TopicPartition { topic: known.id, partition: PartitionIndex(index) }, owner))
            }),
            Named::Unknown { .. } => None,
        };
        found.ok_or_else(|| topic.missing())
    }

    /// The same for a client that knows an epoch of the partition's leader, which must be the one there is.
    pub(super) fn kafka_target_in_epoch(
        &self,
        topic: &Named,
        index: i32,
        epoch: i32,
    ) -> Result<(TopicPartition, ShardIndex), KafkaError> {
        let target = self.kafka_target(topic, index)?;
        self.check_leader_epoch(target.0, epoch)?;
        Ok(target)
    }

    /// Whether a client knows another epoch of a partition's leader.
    fn check_leader_epoch(&self, tp: TopicPartition, known: i32) -> Result<(), KafkaError> {
        if known < 0 {
            return Ok(());
        }
        let epoch = self.metadata.as_ref().map_or(0, |metadata| metadata.epoch(tp).0);
        match known {
            known if known < epoch => Err(KafkaError::FENCED_LEADER_EPOCH),
            known if known > epoch => Err(KafkaError::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }
}

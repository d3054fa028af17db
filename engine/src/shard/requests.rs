//! What a request leads to.

use highwater_net::{Received, Reply, Request};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ShardId, StoreId, TopicPartition};
use highwater_protocol::text::counted;
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::admin::WantsProducerId;
use super::partition::{PartitionId, Refusal};
use crate::coord::groups::Client;
use crate::limits::{REQUEST_BYTES_PER_ENTRY, REQUEST_COST};
use crate::message::{Ask, Message, NativeAsk};

impl Shard {
    /// Carries out a request, or sees to it that others do.
    pub(super) fn request(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, received: Received<'_>) {
        let Received { id, kind, bytes, request } = received;
        self.counted.requests += 1;
        self.requests_taken += if matches!(request, Request::Produce(_)) { 1 } else { REQUEST_COST };
        if !matches!(request, Request::Produce(_)) {
            self.note_entries(bytes / REQUEST_BYTES_PER_ENTRY);
        }
        // The data path first; these open their own slots.
        let request = match request {
            Request::Produce(produce) => return self.produce(plane, conn, id, bytes, produce),
            Request::Subscribe(subscribe) => return self.subscribe(plane, conn, id, bytes, &subscribe),
            Request::Fetch(fetch) => return self.fetch(plane, conn, id, bytes, &fetch),
            Request::Credit(bytes) => return self.add_credit(plane, conn, id, bytes),
            Request::Unsubscribe => return self.unsubscribe(conn, id),
            other => other,
        };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let slot = connection.native().replies.open(kind, id, bytes, 0);
        if self.metadata.is_none() {
            let text = "the broker is starting; try again";
            return self.reply(conn, slot, Reply::error(ErrorCode::Unavailable, text));
        }
        match request {
            Request::Metadata(request) => self.describe_cluster(plane, conn, slot, request),
            Request::DescribeTopic(request) => self.describe_topic(plane, conn, slot, &request),
            Request::ListOffsets(request) => self.list_offsets(plane, conn, slot, &request),
            Request::DeleteRecords(request) => self.delete_records(plane, conn, slot, &request),
            Request::Stats => self.tell_stats(conn, slot),
            Request::InitProducer => self.init_producer(plane, WantsProducerId::Native(conn, slot)),
            Request::CreateTopic(request) => self.ask(plane, conn, slot, Ask::CreateTopic(request)),
            Request::DeleteTopic(request) => self.ask(plane, conn, slot, Ask::DeleteTopic(request)),
            Request::AlterTopic(request) => self.ask(plane, conn, slot, Ask::AlterTopic(request)),
            Request::CommitOffsets(request) => {
                let (topic, ask) = (request.topic, NativeAsk::Commit(request));
                self.ask_about_topic(plane, conn, slot, topic, Ask::NativeGroup(ask));
            }
            Request::ReadOffsets(request) => {
                let (topic, ask) = (request.topic, NativeAsk::Read(request));
                self.ask_about_topic(plane, conn, slot, topic, Ask::NativeGroup(ask));
            }
            Request::GroupHeartbeat(request) => {
                let ask = NativeAsk::Heartbeat(request, self.client_of(conn));
                self.ask(plane, conn, slot, Ask::NativeGroup(ask));
            }
            Request::CommitGroupOffsets(request) => {
                self.ask(plane, conn, slot, Ask::NativeGroup(NativeAsk::CommitOf(request)));
            }
            Request::ReadGroupOffsets(request) => {
                self.ask(plane, conn, slot, Ask::NativeGroup(NativeAsk::ReadOf(request)));
            }
            Request::ListGroups(request) => {
                self.ask(plane, conn, slot, Ask::NativeGroup(NativeAsk::List(request)));
            }
            Request::DescribeGroup(request) => {
                self.ask(plane, conn, slot, Ask::NativeGroup(NativeAsk::Describe(request)));
            }
            Request::DeleteGroup(request) => {
                self.ask(plane, conn, slot, Ask::NativeGroup(NativeAsk::Delete(request)));
            }
            Request::Hello(_)
            | Request::Produce(_)
            | Request::Subscribe(_)
            | Request::Fetch(_)
            | Request::Credit(_)
            | Request::Unsubscribe => unreachable!("handled before"),
        }
    }

    /// Who a member of a group is, for people.
    fn client_of(&self, conn: ConnId) -> Client {
        let Some(connection) = self.connections.get(&conn) else { return Client::default() };
        Client { id: connection.client_name.clone(), host: format!("/{}", connection.via.peer.ip()) }
    }

    /// A partition of this shard, or why it is none.
    pub(super) fn locate(&self, tp: TopicPartition) -> Result<PartitionId, Refusal> {
        if let Some(id) = self.partitions.find(tp) {
            return Ok(id);
        }
        let Some(metadata) = &self.metadata else {
            return Err((ErrorCode::Unavailable, "the broker is starting; try again".into()));
        };
        let Some(topic) = metadata.topic_by_id(tp.topic) else {
            return Err((ErrorCode::UnknownTopic, format!("there is no topic with id {}", tp.topic)));
        };
        let Some(store) = topic.stores.get(tp.partition.0 as usize) else {
            let text = format!(
                "topic {} has {}, numbered from 0, and no {}",
                topic.name,
                counted(topic.stores.len(), "partition"),
                tp.partition
            );
            return Err((ErrorCode::UnknownPartition, text));
        };
        let shard = self.shard_of(*store);
        let text = format!(
            "{}/{} lives on shard {shard} of this node, this connection on shard {}; ask for metadata and connect there",
            topic.name, tp.partition, self.me
        );
        Err((ErrorCode::WrongShard, text))
    }

    /// The shard that serves a store.
    pub(super) fn shard_of(&self, store: StoreId) -> ShardId {
        ShardId(store.0 % self.setup.shards)
    }
}

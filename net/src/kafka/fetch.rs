//! The Fetch response, with a hand-written encoder: records are sent without a copy.
//!
//! ```text
//!   length, header, .. up to the first records │ pages │ fields in between │ pages │ .. the end
//!   head                                         rest[0]  rest[1]            rest[2]
//! ```

use bytes::{Bytes, BytesMut};
use highwater_runtime::plane::SEND_COPY_BYTES_MAX;

use super::error::KafkaError;
use super::messages::{
    FetchEpochEndOffset, FetchLeader, FetchNode, FetchPartitionResponse, FetchResponse, FetchSnapshotId,
};
use super::replies::{KafkaReply, Origin, start};
use super::schema::{Message, put_tagged};
use super::wire::{Form, Uuid, Wire, put_length, put_list, put_string, put_uvarint};

/// The first version with the addresses of leaders.
const NODES_FROM: i16 = 16;

/// A Fetch response under construction. Topics and partitions are added one by one, as many as were announced.
#[derive(Debug)]
pub struct FetchAnswer {
    form: Form,
    /// The bytes before the first records. `None` until there are records.
    head: Option<BytesMut>,
    rest: Vec<Bytes>,
    out: BytesMut,
    bytes: usize,
    records_bytes: usize,
    topics: usize,
    partitions: usize,
}

impl FetchAnswer {
    /// Starts a response with `topics` topics. There are no fetch sessions, so the response is full and has session id 0.
    pub fn new(origin: Origin, throttle_time_ms: i32, error: KafkaError, topics: usize) -> Self {
        let form = FetchResponse::form(origin.version);
        let mut out = BytesMut::with_capacity(256);
        start(origin, &mut out);
        throttle_time_ms.write(&mut out, form);
        if form.version >= 7 {
            error.write(&mut out, form);
            0_i32.write(&mut out, form);
        }
        put_length(&mut out, form, Some(topics));
        Self { form, head: None, rest: Vec::new(), out, bytes: 0, records_bytes: 0, topics, partitions: 0 }
    }

    /// Starts the next topic, with `partitions` partitions.
    pub fn topic(&mut self, name: &str, id: Uuid, partitions: usize) {
        assert!(self.topics > 0 && self.partitions == 0, "the announced number of topics and partitions");
        if self.form.version >= 13 {
            id.write(&mut self.out, self.form);
        } else {
            put_string(&mut self.out, self.form, Some(name));
        }
        put_length(&mut self.out, self.form, Some(partitions));
        self.partitions = partitions;
        if partitions == 0 {
            self.end_topic();
        }
    }

    /// Adds the next partition, with `records`, which are not copied. The records in `partition` are ignored.
    pub fn partition(&mut self, partition: &FetchPartitionResponse<'_>, records: &[Bytes]) {
        assert!(self.partitions > 0, "the announced number of partitions");
        let (out, form) = (&mut self.out, self.form);
        partition.partition_index.write(out, form);
        partition.error_code.write(out, form);
        partition.high_watermark.write(out, form);
        partition.last_stable_offset.write(out, form);
        if form.version >= 5 {
            partition.log_start_offset.write(out, form);
        }
        put_list(out, form, partition.aborted_transactions.as_deref());
        if form.version >= 11 {
            partition.preferred_read_replica.write(out, form);
        }
        let bytes: usize = records.iter().map(Bytes::len).sum();
        put_length(out, form, Some(bytes));
        if bytes > 0 {
            let before = self.out.split();
            if self.head.is_none() {
                self.bytes += before.len();
                self.head = Some(before);
            } else {
                self.push(before.freeze());
            }
            for records in records {
                // Smaller slices are copied when they are sent, like the fields between records.
                self.records_bytes += if records.len() > SEND_COPY_BYTES_MAX { records.len() } else { 0 };
                self.push(records.clone());
            }
        }
        if form.flexible {
            self.put_tags(partition);
        }
        self.partitions -= 1;
        if self.partitions == 0 {
            self.end_topic();
        }
    }

    fn put_tags(&mut self, partition: &FetchPartitionResponse<'_>) {
        let mut tagged = Vec::new();
        let form = self.form;
        let mut tag = |number, is_default: bool, write: &dyn Fn(&mut BytesMut)| {
            if !is_default {
                let mut value = BytesMut::new();
                write(&mut value);
                tagged.push((number, value));
            }
        };
        let FetchPartitionResponse { diverging_epoch, current_leader, snapshot_id, .. } = partition;
        tag(0, *diverging_epoch == FetchEpochEndOffset::default(), &|out| diverging_epoch.write(out, form));
        tag(1, *current_leader == FetchLeader::default(), &|out| current_leader.write(out, form));
        tag(2, *snapshot_id == FetchSnapshotId::default(), &|out| snapshot_id.write(out, form));
        put_tagged(&mut self.out, &tagged);
    }

    fn put_nodes(&mut self, nodes: &[FetchNode<'_>]) {
        let mut tagged = Vec::new();
        if self.form.version >= NODES_FROM && !nodes.is_empty() {
            let mut value = BytesMut::new();
            put_list(&mut value, self.form, Some(nodes));
            tagged.push((0, value));
        }
        put_tagged(&mut self.out, &tagged);
    }

    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.rest.push(bytes);
    }

    fn end_topic(&mut self) {
        if self.form.flexible {
            put_uvarint(&mut self.out, 0);
        }
        self.topics -= 1;
    }

    /// Completes the response. `nodes`: the addresses of the leaders that partitions name.
    pub fn finish(mut self, nodes: &[FetchNode<'_>]) -> KafkaReply {
        assert!(self.topics == 0 && self.partitions == 0, "the announced number of topics and partitions");
        if self.form.flexible {
            self.put_nodes(nodes);
        }
        let last = self.out.split();
        self.bytes += last.len();
        let mut head = if let Some(head) = self.head.take() {
            if !last.is_empty() {
                self.rest.push(last.freeze());
            }
            head
        } else {
            last
        };
        let bytes = (self.bytes - 4) as u32;
        head[..4].copy_from_slice(&bytes.to_be_bytes());
        let records_bytes = self.records_bytes;
        KafkaReply { head: head.freeze(), rest: self.rest, records_bytes, long: None }
    }
}

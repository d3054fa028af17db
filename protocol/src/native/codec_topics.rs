//! Bodies of the messages about connections, nodes and topics.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut;

use super::codec::{Body, put_count, put_option, put_str, read_configs};
use super::header::MessageKind;
use super::messages::{
    AlterTopicRequest, CompactionDetail, CreateTopicReply, CreateTopicRequest, DeleteTopicRequest,
    DescribeTopicReply, DescribeTopicRequest, HELLO_MAGIC, Hello, HelloReply, InitProducerReply, LogDetail,
    MetadataReply, MetadataRequest, NodeInfo, PartitionDetail, PartitionInfo, TopicInfo,
};
use super::reader::{DecodeError, Reader};
use crate::error::ErrorCode;
use crate::ids::{ClusterId, NodeId, ProducerId, ShardId, Timestamp, TopicId};
use crate::limits::{
    ADDRESS_BYTES_MAX, CLIENT_NAME_BYTES_MAX, CONFIG_NAME_BYTES_MAX, CONFIG_VALUE_BYTES_MAX,
    CONTROL_BODY_BYTES_MAX, PARTITIONS_PER_TOPIC_MAX, REPLICAS_PER_PARTITION_MAX, TOPIC_NAME_BYTES_MAX,
};

/// Entries of a list that only the size of its message limits.
const COUNT_MAX: usize = CONTROL_BODY_BYTES_MAX;
const PARTITIONS_MAX: usize = PARTITIONS_PER_TOPIC_MAX as usize;

/// Flags of [`CreateTopicRequest`]: the topic is not created; the number of replicas follows. Clients and brokers of earlier builds know the first.
const VALIDATE_ONLY: u8 = 1;
const HAS_REPLICAS: u8 = 2;

fn read_name(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.string("topic name", TOPIC_NAME_BYTES_MAX)
}

fn read_config_name(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.string("config name", CONFIG_NAME_BYTES_MAX)
}

fn read_config_value(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.string("config value", CONFIG_VALUE_BYTES_MAX)
}

fn read_cluster(reader: &mut Reader<'_>) -> Result<ClusterId, DecodeError> {
    reader.array("cluster id").map(ClusterId)
}

impl Body for Hello {
    const KIND: MessageKind = MessageKind::Hello;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&HELLO_MAGIC);
        out.put_u16_le(self.version_min);
        out.put_u16_le(self.version_max);
        out.put_u64_le(self.features);
        put_option(out, self.shard, |out, shard| out.put_u16_le(shard.0));
        put_option(out, self.cluster, |out, cluster| out.put_slice(&cluster.0));
        put_str(out, &self.client_name);
    }

    /// Ignores what follows the known fields: a newer client may send more in its hello, and must still learn which versions an
    /// older broker supports.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let magic: [u8; 8] = reader.array("hello magic")?;
        if magic != HELLO_MAGIC {
            return Err(DecodeError::Invalid { field: "hello magic", value: i64::from_le_bytes(magic) });
        }
        let hello = Self {
            version_min: reader.u16("version min")?,
            version_max: reader.u16("version max")?,
            features: reader.u64("features")?,
            shard: reader.option("shard", |r| r.u16("shard").map(ShardId))?,
            cluster: reader.option("cluster id", read_cluster)?,
            client_name: reader.string("client name", CLIENT_NAME_BYTES_MAX)?,
        };
        *reader = Reader::new(&[]);
        Ok(hello)
    }
}

impl Body for HelloReply {
    const KIND: MessageKind = MessageKind::Hello;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_u16_le(self.version);
        out.put_u64_le(self.features);
        out.put_u32_le(self.node.0);
        out.put_u16_le(self.shard.0);
        out.put_u16_le(self.shards);
        out.put_slice(&self.cluster.0);
        put_str(out, &self.broker_version);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: reader.u16("version")?,
            features: reader.u64("features")?,
            node: NodeId(reader.u32("node")?),
            shard: ShardId(reader.u16("shard")?),
            shards: reader.u16("shards")?,
            cluster: read_cluster(reader)?,
            broker_version: reader.string("broker version", CLIENT_NAME_BYTES_MAX)?,
        })
    }
}

impl Body for MetadataRequest {
    const KIND: MessageKind = MessageKind::Metadata;

    fn encode(&self, out: &mut impl BufMut) {
        put_option(out, self.topics.as_ref(), |out, topics| {
            put_count(out, topics.len());
            for name in topics {
                put_str(out, name);
            }
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { topics: reader.option("topics", |r| r.list("topics", 4, COUNT_MAX, read_name))? })
    }
}

impl MetadataReply {
    /// Appends the reply up to its topics; `topics` entries must follow.
    pub fn put_front(&self, topics: usize, out: &mut impl BufMut) {
        out.put_slice(&self.cluster.0);
        put_count(out, self.nodes.len());
        for node in &self.nodes {
            out.put_u32_le(node.node.0);
            put_str(out, &node.address);
            out.put_u16_le(node.shards);
        }
        put_count(out, topics);
    }
}

impl TopicInfo {
    /// Appends a topic's entry up to its partitions; `partitions` entries must follow.
    pub fn put_front(
        name: &str,
        error: Option<ErrorCode>,
        id: TopicId,
        partitions: usize,
        out: &mut impl BufMut,
    ) {
        put_str(out, name);
        out.put_u16_le(error.map_or(0, |code| code as u16));
        out.put_slice(&id.0);
        put_count(out, partitions);
    }
}

impl Body for MetadataReply {
    const KIND: MessageKind = MessageKind::Metadata;

    fn encode(&self, out: &mut impl BufMut) {
        self.put_front(self.topics.len(), out);
        for topic in &self.topics {
            TopicInfo::put_front(&topic.name, topic.error, topic.id, topic.partitions.len(), out);
            for partition in &topic.partitions {
                partition.put(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster: read_cluster(reader)?,
            nodes: reader.list("nodes", 10, COUNT_MAX, |r| {
                Ok(NodeInfo {
                    node: NodeId(r.u32("node")?),
                    address: r.string("address", ADDRESS_BYTES_MAX)?,
                    shards: r.u16("shards")?,
                })
            })?,
            topics: reader.list("topics", 26, COUNT_MAX, |r| {
                Ok(TopicInfo {
                    name: read_name(r)?,
                    error: match r.u16("topic error")? {
                        0 => None,
                        n => Some(ErrorCode::from_u16(n)),
                    },
                    id: r.array("topic id").map(TopicId)?,
                    partitions: r.list(
                        "partitions",
                        PartitionInfo::BYTES_MIN,
                        PARTITIONS_MAX,
                        PartitionInfo::read,
                    )?,
                })
            })?,
        })
    }
}

impl Body for CreateTopicRequest {
    const KIND: MessageKind = MessageKind::CreateTopic;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.name);
        out.put_u32_le(self.partitions);
        put_count(out, self.configs.len());
        for (name, value) in &self.configs {
            put_str(out, name);
            put_str(out, value);
        }
        let has_replicas = if self.replicas.is_some() { HAS_REPLICAS } else { 0 };
        out.put_u8(u8::from(self.validate_only) | has_replicas);
        if let Some(replicas) = self.replicas {
            out.put_u8(replicas);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = read_name(reader)?;
        let partitions = reader.u32("partitions")?;
        let configs = read_configs(reader, 8, |r| Ok((read_config_name(r)?, read_config_value(r)?)))?;
        let flags = reader.u8("flags")?;
        if flags & !(VALIDATE_ONLY | HAS_REPLICAS) != 0 {
            return Err(DecodeError::Invalid { field: "flags", value: flags.into() });
        }
        let has_replicas = flags & HAS_REPLICAS != 0;
        let replicas = if has_replicas { Some(reader.u8("replicas")?) } else { None };
        Ok(Self { name, partitions, configs, validate_only: flags & VALIDATE_ONLY != 0, replicas })
    }
}

impl Body for CreateTopicReply {
    const KIND: MessageKind = MessageKind::CreateTopic;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.id.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: reader.array("topic id").map(TopicId)? })
    }
}

impl Body for DeleteTopicRequest {
    const KIND: MessageKind = MessageKind::DeleteTopic;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.name);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: read_name(reader)? })
    }
}

impl Body for AlterTopicRequest {
    const KIND: MessageKind = MessageKind::AlterTopic;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.name);
        put_count(out, self.configs.len());
        for (name, value) in &self.configs {
            put_str(out, name);
            put_option(out, value.as_ref(), |out, value| put_str(out, value));
        }
        put_option(out, self.partitions, BufMut::put_u32_le);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: read_name(reader)?,
            configs: read_configs(reader, 5, |r| {
                Ok((read_config_name(r)?, r.option("config value", read_config_value)?))
            })?,
            partitions: reader.option("partitions", |r| r.u32("partitions"))?,
        })
    }
}

impl Body for DescribeTopicRequest {
    const KIND: MessageKind = MessageKind::DescribeTopic;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.name);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: read_name(reader)? })
    }
}

impl DescribeTopicReply {
    /// Appends the reply up to its partitions; `partitions` entries must follow.
    pub fn put_front(&self, partitions: usize, out: &mut impl BufMut) {
        out.put_slice(&self.id.0);
        put_count(out, self.configs.len());
        for (name, value, set) in &self.configs {
            put_str(out, name);
            put_str(out, value);
            out.put_u8(u8::from(*set));
        }
        put_count(out, partitions);
    }
}

fn read_nodes(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<NodeId>, DecodeError> {
    let count = usize::from(reader.u8(field)?);
    if count > REPLICAS_PER_PARTITION_MAX {
        return Err(DecodeError::TooLarge { field, have: count, max: REPLICAS_PER_PARTITION_MAX });
    }
    (0..count).map(|_| reader.u32(field).map(NodeId)).collect()
}

impl PartitionDetail {
    /// Appends the encoding to `out`.
    pub fn put(&self, out: &mut impl BufMut) {
        self.info.put(out);
        for nodes in [&self.replicas, &self.in_sync] {
            let nodes = nodes.get(..REPLICAS_PER_PARTITION_MAX).unwrap_or(nodes);
            out.put_u8(nodes.len() as u8);
            for node in nodes {
                out.put_u32_le(node.0);
            }
        }
        put_option(out, self.log, |out, log| log.put(out));
    }
}

impl LogDetail {
    fn put(self, out: &mut impl BufMut) {
        out.put_i64_le(self.log_start.0);
        out.put_i64_le(self.high_watermark.0);
        out.put_u64_le(self.bytes);
        out.put_u8(u8::from(self.faulty));
        put_option(out, self.compaction, |out, compaction| compaction.put(out));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            log_start: reader.offset("log start")?,
            high_watermark: reader.offset("high watermark")?,
            bytes: reader.u64("bytes")?,
            faulty: reader.bool("faulty")?,
            compaction: reader.option("compaction", CompactionDetail::read)?,
        })
    }
}

impl CompactionDetail {
    fn put(self, out: &mut impl BufMut) {
        out.put_u64_le(self.clean_bytes);
        out.put_u64_le(self.dirty_bytes);
        out.put_i64_le(self.compacted_to.0);
        out.put_u64_le(self.passes);
        put_option(out, self.last_pass, |out, at| out.put_i64_le(at.0));
        out.put_u64_le(self.bytes_before);
        out.put_u64_le(self.bytes_after);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            clean_bytes: reader.u64("clean bytes")?,
            dirty_bytes: reader.u64("dirty bytes")?,
            compacted_to: reader.offset("compacted to")?,
            passes: reader.u64("passes")?,
            last_pass: reader.option("last pass", |r| r.i64("last pass").map(Timestamp))?,
            bytes_before: reader.u64("bytes before")?,
            bytes_after: reader.u64("bytes after")?,
        })
    }
}

impl Body for DescribeTopicReply {
    const KIND: MessageKind = MessageKind::DescribeTopic;

    fn encode(&self, out: &mut impl BufMut) {
        self.put_front(self.partitions.len(), out);
        for partition in &self.partitions {
            partition.put(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: reader.array("topic id").map(TopicId)?,
            configs: read_configs(reader, 9, |r| {
                Ok((read_config_name(r)?, read_config_value(r)?, r.bool("config set")?))
            })?,
            partitions: reader.list("partitions", PartitionInfo::BYTES_MIN + 3, PARTITIONS_MAX, |r| {
                let info = PartitionInfo::read(r)?;
                let (replicas, in_sync) = (read_nodes(r, "replicas")?, read_nodes(r, "in sync")?);
                Ok(PartitionDetail { info, replicas, in_sync, log: r.option("log", LogDetail::read)? })
            })?,
        })
    }
}

impl Body for InitProducerReply {
    const KIND: MessageKind = MessageKind::InitProducer;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_i64_le(self.producer.0);
        out.put_i16_le(self.epoch);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let producer = ProducerId(reader.non_negative("producer id")?);
        let epoch = reader.i16("producer epoch")?;
        if epoch < 0 {
            return Err(DecodeError::Invalid { field: "producer epoch", value: i64::from(epoch) });
        }
        Ok(Self { producer, epoch })
    }
}

//! Encoding and decoding of message bodies: the trait, and the parts that several messages share.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut;
use zerocopy::{FromBytes, IntoBytes};

use super::header::MessageKind;
use super::messages::{
    Acks, CommittedOffset, Credit, DataPrefix, PartitionInfo, ProducePrefix, ProduceReply, Start,
    SubscribeReply,
};
use super::reader::{DecodeError, Reader};
use crate::ids::{LeaderEpoch, NodeId, PartitionIndex, ShardId, Timestamp, TopicId, TopicPartition};
use crate::limits::{OFFSET_METADATA_BYTES_MAX, PARTITIONS_PER_TOPIC_MAX, TOPIC_CONFIGS_MAX};

/// Entries of a list with at most one entry per partition of a topic.
pub(super) const POSITIONS_MAX: usize = PARTITIONS_PER_TOPIC_MAX as usize;

/// The body of a native message. `docs/wire-format.md` describes the layouts.
pub trait Body: Sized {
    /// Kind of the messages that carry it; a reply has the kind of its request.
    const KIND: MessageKind;

    /// Appends this body to `out`.
    fn encode(&self, out: &mut impl BufMut);

    /// Takes this body from the front of `reader`.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Decodes `bytes`, which must hold this body and nothing else.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read_all(Reader::new(bytes))
    }

    /// Like [`Body::decode`], but for a request: its lists may have at most
    /// [`REQUEST_ENTRIES_MAX`](crate::limits::REQUEST_ENTRIES_MAX) entries in total.
    fn decode_request(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read_all(Reader::of_request(bytes))
    }

    /// Reads this body, which must be everything that `reader` contains.
    fn read_all(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let body = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(body)
    }
}

pub(super) fn put_str(out: &mut impl BufMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

pub(super) fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("every list and text has a limit far below 4 Gi"));
}

pub(super) fn put_option<T, B: BufMut>(out: &mut B, value: Option<T>, put: impl FnOnce(&mut B, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(super) fn read_topic(reader: &mut Reader<'_>) -> Result<TopicId, DecodeError> {
    reader.array("topic id").map(TopicId)
}

pub(super) fn read_partition(reader: &mut Reader<'_>) -> Result<PartitionIndex, DecodeError> {
    reader.u32("partition").map(PartitionIndex)
}

impl Start {
    /// Bytes of the shortest encoding.
    pub(super) const BYTES_MIN: usize = 1;

    pub(super) fn put(self, out: &mut impl BufMut) {
        match self {
            Self::Earliest => out.put_u8(0),
            Self::Latest => out.put_u8(1),
            Self::Offset(offset) => {
                out.put_u8(2);
                out.put_i64_le(offset.0);
            }
            Self::Timestamp(at) => {
                out.put_u8(3);
                out.put_i64_le(at.0);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8("start")? {
            0 => Self::Earliest,
            1 => Self::Latest,
            2 => Self::Offset(reader.offset("start offset")?),
            3 => Self::Timestamp(Timestamp(reader.i64("start timestamp")?)),
            n => return Err(DecodeError::Invalid { field: "start", value: i64::from(n) }),
        })
    }
}

impl PartitionInfo {
    /// Bytes of the shortest encoding.
    pub(super) const BYTES_MIN: usize = 11;

    /// Appends the encoding to `out`.
    pub fn put(self, out: &mut impl BufMut) {
        out.put_u32_le(self.index.0);
        put_option(out, self.leader, |out, leader| out.put_u32_le(leader.0));
        out.put_u16_le(self.shard.0);
        out.put_i32_le(self.leader_epoch.0);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            index: read_partition(reader)?,
            leader: reader.option("leader", |r| r.u32("leader").map(NodeId))?,
            shard: ShardId(reader.u16("shard")?),
            leader_epoch: LeaderEpoch(reader.i32("leader epoch")?),
        })
    }
}

impl CommittedOffset {
    /// Bytes of the encoding without metadata.
    pub(super) const BYTES_MIN: usize = 20;

    /// Appends the encoding to `out`.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u32_le(self.partition.0);
        out.put_i64_le(self.offset.0);
        out.put_i32_le(self.leader_epoch);
        put_str(out, &self.metadata);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            partition: read_partition(reader)?,
            offset: reader.offset("offset")?,
            leader_epoch: reader.i32("leader epoch")?,
            metadata: reader.string("metadata", OFFSET_METADATA_BYTES_MAX)?,
        })
    }
}

pub(super) fn put_positions(out: &mut impl BufMut, positions: &[CommittedOffset]) {
    put_count(out, positions.len());
    for position in positions {
        position.put(out);
    }
}

pub(super) fn read_positions(reader: &mut Reader<'_>) -> Result<Vec<CommittedOffset>, DecodeError> {
    reader.list("positions", CommittedOffset::BYTES_MIN, POSITIONS_MAX, CommittedOffset::read)
}

/// Reads a list of configuration entries, each with `read`. `entry_bytes_min` is the size of the shortest entry.
pub(super) fn read_configs<T>(
    reader: &mut Reader<'_>,
    entry_bytes_min: usize,
    read: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    reader.list("configs", entry_bytes_min, TOPIC_CONFIGS_MAX, read)
}

macro_rules! fixed {
    ($($name:ident: $kind:ident;)+) => {
        $(
            impl Body for $name {
                const KIND: MessageKind = MessageKind::$kind;

                fn encode(&self, out: &mut impl BufMut) {
                    out.put_slice(self.as_bytes());
                }

                fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                    reader.array(stringify!($name)).map(|bytes: [u8; size_of::<Self>()]| zerocopy::transmute!(bytes))
                }
            }
        )+
    };
}

fixed! {
    ProduceReply: Produce;
    SubscribeReply: Subscribe;
    Credit: Credit;
}

impl ProducePrefix {
    /// Creates the prefix for a batch to this partition.
    pub const fn new(to: TopicPartition, acks: Acks) -> Self {
        Self {
            topic: to.topic.0,
            partition: zerocopy::byteorder::little_endian::U32::new(to.partition.0),
            acks: acks as u8,
            reserved: [0; 3],
        }
    }

    /// Splits the body of a produce request into prefix and batch. [`ProducePrefix::target`] checks the fields.
    pub fn split(body: &[u8]) -> Result<(&Self, &[u8]), DecodeError> {
        Self::ref_from_prefix(body).map_err(|_| DecodeError::Truncated {
            field: "produce prefix",
            need: size_of::<Self>(),
            have: body.len(),
        })
    }

    /// Returns the destination of the batch and the acknowledgement that the producer requires.
    pub fn target(&self) -> Result<(TopicPartition, Acks), DecodeError> {
        let acks = Acks::from_u8(self.acks)
            .ok_or(DecodeError::Invalid { field: "acks", value: i64::from(self.acks) })?;
        if let Some(byte) = self.reserved.iter().find(|byte| **byte != 0) {
            return Err(DecodeError::Invalid { field: "produce reserved", value: i64::from(*byte) });
        }
        let partition = PartitionIndex(self.partition.get());
        Ok((TopicPartition { topic: TopicId(self.topic), partition }, acks))
    }
}

impl DataPrefix {
    /// Splits the body of a data message or of a fetch reply into prefix and frames.
    pub fn split(body: &[u8]) -> Result<(&Self, &[u8]), DecodeError> {
        let (prefix, frames) = Self::ref_from_prefix(body).map_err(|_| DecodeError::Truncated {
            field: "data prefix",
            need: size_of::<Self>(),
            have: body.len(),
        })?;
        for (field, value) in [
            ("next offset", prefix.next_offset.get()),
            ("log start", prefix.log_start.get()),
            ("high watermark", prefix.high_watermark.get()),
        ] {
            if value < 0 {
                return Err(DecodeError::Invalid { field, value });
            }
        }
        Ok((prefix, frames))
    }
}

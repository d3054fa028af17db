//! Bodies of the messages about records and offsets.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut;

use super::codec::{
    Body, POSITIONS_MAX as ENTRIES_MAX, put_count, put_positions, put_str, read_partition, read_positions,
    read_topic,
};
use super::header::MessageKind;
use super::messages::{
    CommitOffsetsRequest, DeleteRecordsRequest, FetchRequest, ListOffsetsReply, ListOffsetsRequest,
    ListedOffset, ReadOffsetsReply, ReadOffsetsRequest, Start, SubscribeRequest,
};
use super::reader::{DecodeError, Reader};
use crate::error::ErrorCode;
use crate::ids::Timestamp;
use crate::limits::{CONSUMER_NAME_BYTES_MAX, CREDIT_BYTES_MAX};

fn read_consumer(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.string("consumer name", CONSUMER_NAME_BYTES_MAX)
}

impl Body for SubscribeRequest {
    const KIND: MessageKind = MessageKind::Subscribe;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.topic.0);
        out.put_u32_le(self.partition.0);
        self.start.put(out);
        out.put_u64_le(self.credit_bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let request = Self {
            topic: read_topic(reader)?,
            partition: read_partition(reader)?,
            start: Start::read(reader)?,
            credit_bytes: reader.u64("credit bytes")?,
        };
        if request.credit_bytes > CREDIT_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                field: "credit bytes",
                have: usize::try_from(request.credit_bytes).unwrap_or(usize::MAX),
                max: CREDIT_BYTES_MAX as usize,
            });
        }
        Ok(request)
    }
}

impl Body for FetchRequest {
    const KIND: MessageKind = MessageKind::Fetch;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.topic.0);
        out.put_u32_le(self.partition.0);
        self.start.put(out);
        out.put_u32_le(self.max_bytes);
        out.put_u32_le(self.min_bytes);
        out.put_u32_le(self.wait_ms);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: read_topic(reader)?,
            partition: read_partition(reader)?,
            start: Start::read(reader)?,
            max_bytes: reader.u32("max bytes")?,
            min_bytes: reader.u32("min bytes")?,
            wait_ms: reader.u32("wait ms")?,
        })
    }
}

impl Body for ListOffsetsRequest {
    const KIND: MessageKind = MessageKind::ListOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.topic.0);
        put_count(out, self.partitions.len());
        for (partition, start) in &self.partitions {
            out.put_u32_le(partition.0);
            start.put(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const ENTRY_BYTES_MIN: usize = 4 + Start::BYTES_MIN;
        Ok(Self {
            topic: read_topic(reader)?,
            partitions: reader.list("partitions", ENTRY_BYTES_MIN, ENTRIES_MAX, |r| {
                Ok((read_partition(r)?, Start::read(r)?))
            })?,
        })
    }
}

impl ListedOffset {
    /// Bytes of the shortest encoding.
    const BYTES_MIN: usize = 7;

    /// Appends the encoding to `out`.
    pub fn put(self, out: &mut impl BufMut) {
        out.put_u32_le(self.partition.0);
        out.put_u16_le(self.found.err().map_or(0, |code| code as u16));
        match self.found {
            Err(_) | Ok(None) => out.put_u8(0),
            Ok(Some((offset, None))) => {
                out.put_u8(1);
                out.put_i64_le(offset.0);
            }
            Ok(Some((offset, Some(at)))) => {
                out.put_u8(2);
                out.put_i64_le(offset.0);
                out.put_i64_le(at.0);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let partition = read_partition(reader)?;
        let error = reader.u16("partition error")?;
        let found = match (error, reader.u8("found")?) {
            (0, 0) => Ok(None),
            (0, 1) => Ok(Some((reader.offset("offset")?, None))),
            (0, 2) => Ok(Some((reader.offset("offset")?, Some(Timestamp(reader.i64("timestamp")?))))),
            (error, 0) => Err(ErrorCode::from_u16(error)),
            (_, n) => return Err(DecodeError::Invalid { field: "found", value: i64::from(n) }),
        };
        Ok(Self { partition, found })
    }
}

impl ListOffsetsReply {
    /// Appends the reply up to its partitions; `partitions` entries must follow.
    pub fn put_front(partitions: usize, out: &mut impl BufMut) {
        put_count(out, partitions);
    }
}

impl Body for ListOffsetsReply {
    const KIND: MessageKind = MessageKind::ListOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        Self::put_front(self.partitions.len(), out);
        for entry in &self.partitions {
            entry.put(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            partitions: reader.list(
                "partitions",
                ListedOffset::BYTES_MIN,
                ENTRIES_MAX,
                ListedOffset::read,
            )?,
        })
    }
}

impl Body for CommitOffsetsRequest {
    const KIND: MessageKind = MessageKind::CommitOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.consumer);
        out.put_slice(&self.topic.0);
        put_positions(out, &self.positions);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            consumer: read_consumer(reader)?,
            topic: read_topic(reader)?,
            positions: read_positions(reader)?,
        })
    }
}

impl Body for ReadOffsetsRequest {
    const KIND: MessageKind = MessageKind::ReadOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.consumer);
        out.put_slice(&self.topic.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { consumer: read_consumer(reader)?, topic: read_topic(reader)? })
    }
}

impl ReadOffsetsReply {
    /// Appends the reply up to its positions; `positions` entries must follow.
    pub fn put_front(positions: usize, out: &mut impl BufMut) {
        put_count(out, positions);
    }
}

impl Body for ReadOffsetsReply {
    const KIND: MessageKind = MessageKind::ReadOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_positions(out, &self.positions);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { positions: read_positions(reader)? })
    }
}

impl Body for DeleteRecordsRequest {
    const KIND: MessageKind = MessageKind::DeleteRecords;

    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.topic.0);
        put_count(out, self.partitions.len());
        for (partition, offset) in &self.partitions {
            out.put_u32_le(partition.0);
            out.put_i64_le(offset.0);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: read_topic(reader)?,
            partitions: reader
                .list("partitions", 12, ENTRIES_MAX, |r| Ok((read_partition(r)?, r.offset("offset")?)))?,
        })
    }
}

//! The 61-byte header of a record batch.

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::compression::Compression;
use super::error::BatchError;
use crate::ids::{LeaderEpoch, Offset, ProducerId, Timestamp};
use crate::limits::BATCH_BYTES_MAX;

/// Bytes of a [`BatchHeader`].
pub const BATCH_HEADER_BYTES: usize = 61;

/// The only supported value of [`BatchHeader::magic`].
pub const BATCH_MAGIC: i8 = 2;

/// Bytes of the shortest record: seven fields of one byte each.
pub const RECORD_BYTES_MIN: usize = 7;

/// Bytes before those that the length field counts.
pub(super) const LENGTH_END: usize = 12;

/// Position of the magic byte, in this format and in the older ones.
const MAGIC_AT: usize = 16;

/// Position of the first byte that the checksum covers.
pub(super) const CRC_START: usize = 21;

pub(super) const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
pub(super) const DELETE_HORIZON: i16 = 1 << 6;

/// Attribute bits that a producer must not set. The topic decides about log append time, and higher bits have no meaning yet.
pub(super) const BROKER_ONLY: i16 = CONTROL | DELETE_HORIZON;

/// Header of a record batch. Big-endian.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BatchHeader {
    /// Offset of the first record. Not covered by the checksum.
    pub base_offset: I64,
    /// Bytes of the batch after this field.
    pub length: I32,
    /// Epoch of the leader that appended the batch. Not covered by the checksum.
    pub leader_epoch: I32,
    /// [`BATCH_MAGIC`].
    pub magic: i8,
    /// CRC-32C of everything after this field.
    pub crc: U32,
    /// Bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
    pub attributes: I16,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: I32,
    /// Timestamp to which the records' timestamps are relative.
    pub base_timestamp: I64,
    /// Largest timestamp of the records, or the time of appending.
    pub max_timestamp: I64,
    /// Producer id, or -1.
    pub producer_id: I64,
    /// Producer epoch, or -1.
    pub producer_epoch: I16,
    /// Sequence of the first record, or -1.
    pub base_sequence: I32,
    /// Number of records.
    pub count: I32,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<BatchHeader>() == BATCH_HEADER_BYTES);
    assert!(offset_of!(BatchHeader, base_offset) == 0);
    assert!(offset_of!(BatchHeader, length) == 8);
    assert!(offset_of!(BatchHeader, leader_epoch) == LENGTH_END);
    assert!(offset_of!(BatchHeader, magic) == MAGIC_AT);
    assert!(offset_of!(BatchHeader, crc) == 17);
    assert!(offset_of!(BatchHeader, attributes) == CRC_START);
    assert!(offset_of!(BatchHeader, last_offset_delta) == 23);
    assert!(offset_of!(BatchHeader, base_timestamp) == 27);
    assert!(offset_of!(BatchHeader, max_timestamp) == 35);
    assert!(offset_of!(BatchHeader, producer_id) == 43);
    assert!(offset_of!(BatchHeader, producer_epoch) == 51);
    assert!(offset_of!(BatchHeader, base_sequence) == 53);
    assert!(offset_of!(BatchHeader, count) == 57);
};

/// Who sets a record's timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker: every record has the batch's max timestamp.
    LogAppendTime,
}

/// Producer identity and sequence of a batch, for idempotence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchProducer {
    /// Producer id.
    pub id: ProducerId,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the batch's first record.
    pub sequence: i32,
}

impl BatchProducer {
    /// Producer of a batch that was sent without idempotence.
    pub const NONE: Self = Self { id: ProducerId::NONE, epoch: -1, sequence: -1 };

    /// Returns the sequence `records` later. Sequences wrap to 0 after the largest `i32`.
    pub const fn sequence_after(self, records: u32) -> i32 {
        ((self.sequence as i64 + records as i64) % (1 << 31)) as i32
    }
}

impl BatchHeader {
    /// Returns the header at the start of `bytes`. Checks only its magic and its length field.
    pub fn parse(bytes: &[u8]) -> Result<&Self, BatchError> {
        // Check the magic first: it has the same position in the older formats, whose messages may be shorter than this header.
        if let Some(magic) = bytes.get(MAGIC_AT).map(|byte| *byte as i8)
            && magic != BATCH_MAGIC
        {
            return Err(BatchError::Magic(magic));
        }
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(BatchError::Truncated { have: bytes.len(), need: BATCH_HEADER_BYTES });
        };
        let length = header.length.get();
        if length < (BATCH_HEADER_BYTES - LENGTH_END) as i32 {
            return Err(BatchError::Length(length));
        }
        if header.batch_bytes() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { bytes: header.batch_bytes(), max: BATCH_BYTES_MAX });
        }
        Ok(header)
    }

    /// Sets base offset and leader epoch, which the checksum does not cover.
    #[inline]
    pub fn stamp(&mut self, base_offset: Offset, epoch: LeaderEpoch) {
        self.base_offset.set(base_offset.0);
        self.leader_epoch.set(epoch.0);
    }

    /// Returns the bytes of the whole batch, including this header.
    #[inline]
    pub fn batch_bytes(&self) -> usize {
        LENGTH_END + self.length.get().max(0) as usize
    }

    /// Returns the number of records. It is zero only in a batch whose records were all compacted away.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.get().max(0) as u32
    }

    /// Returns the offset of the first record.
    #[inline]
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset.get())
    }

    /// Returns the offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.get().saturating_add(i64::from(self.last_offset_delta.get())))
    }

    /// Returns the offset after the last record.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Returns the epoch of the leader that appended the batch.
    #[inline]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.get())
    }

    /// Returns the codec of the records, or `None` if this build does not know it.
    #[inline]
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_u8((self.attributes.get() & CODEC_MASK) as u8)
    }

    /// Returns the attribute bits that hold the codec.
    #[inline]
    pub fn codec(&self) -> u8 {
        (self.attributes.get() & CODEC_MASK) as u8
    }

    /// Returns who set the timestamps.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes.get() & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Returns whether the batch is part of a transaction.
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & TRANSACTIONAL != 0
    }

    /// Returns whether the batch holds control records, such as the end of a transaction, which consumers do not see. See
    /// [`super::ControlKind`].
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes.get() & CONTROL != 0
    }

    /// Returns whether the base timestamp is a delete horizon, set by compaction.
    #[inline]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes.get() & DELETE_HORIZON != 0
    }

    /// Returns the largest timestamp of the records.
    #[inline]
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp.get())
    }

    /// Returns the idempotent producer, if there is one.
    #[inline]
    pub fn producer(&self) -> Option<BatchProducer> {
        (self.producer_id.get() >= 0).then(|| BatchProducer {
            id: ProducerId(self.producer_id.get()),
            epoch: self.producer_epoch.get(),
            sequence: self.base_sequence.get(),
        })
    }

    /// Returns the sequence of the last record, if there is an idempotent producer.
    #[inline]
    pub fn last_sequence(&self) -> Option<i32> {
        self.producer().map(|producer| producer.sequence_after(self.last_offset_delta.get().max(0) as u32))
    }
}

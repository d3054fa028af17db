//! The 61 bytes in front of the records.

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::compression::Compression;
use super::error::BatchError;
use crate::ids::{LeaderEpoch, Offset, ProducerId, Timestamp};
use crate::limits::BATCH_BYTES_MAX;

/// Bytes of a [`BatchHeader`].
pub const BATCH_HEADER_BYTES: usize = 61;

/// The only value of [`BatchHeader::magic`] that is understood.
pub const BATCH_MAGIC: i8 = 2;

/// Bytes of the shortest record: seven fields of one byte each.
pub const RECORD_BYTES_MIN: usize = 7;

/// Bytes in front of what the length field counts.
pub(super) const LENGTH_END: usize = 12;

/// Where the magic is, in this format and in the older ones.
const MAGIC_AT: usize = 16;

/// Where the coverage of the checksum begins.
pub(super) const CRC_START: usize = 21;

const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// Bits that a producer must not set. The bit for log append time is the topic's to decide, and those above these have no meaning yet.
pub(super) const BROKER_ONLY: i16 = CONTROL | DELETE_HORIZON;

/// The header of a record batch, as it lies in front of the records. Big-endian.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BatchHeader {
    /// Offset of the first record. Not covered by the checksum.
    pub base_offset: I64,
    /// Bytes of the batch behind this field.
    pub length: I32,
    /// Term of the leader that appended it. Not covered by the checksum.
    pub leader_epoch: I32,
    /// [`BATCH_MAGIC`].
    pub magic: i8,
    /// CRC-32C of everything behind it.
    pub crc: U32,
    /// Bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
    pub attributes: I16,
    /// Offset of the last record minus base offset.
    pub last_offset_delta: I32,
    /// Timestamp that those of the records are relative to.
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

/// Who says what a record's timestamp is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The producer's side of idempotence: who sent a batch, and which one it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the batch's first record.
    pub sequence: i32,
}

impl BatchProducer {
    /// What a batch without an idempotent producer carries.
    pub const NONE: Self = Self { id: ProducerId::NONE, epoch: -1, sequence: -1 };

    /// The sequence `records` later. Sequences go on at 0 behind the largest `i32`.
    pub const fn sequence_after(self, records: u32) -> i32 {
        ((self.sequence as i64 + records as i64) % (1 << 31)) as i32
    }
}

impl BatchHeader {
    /// The header at the start of `bytes`: its magic and its length field can be relied on, nothing else is checked.
    pub fn parse(bytes: &[u8]) -> Result<&Self, BatchError> {
        // First the magic: it is in the same place in the older formats, whose messages may be shorter than this header.
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

    /// Bytes of the whole batch, this header included.
    #[inline]
    pub fn batch_bytes(&self) -> usize {
        LENGTH_END + self.length.get().max(0) as usize
    }

    /// Number of records. Zero only in what compaction has emptied.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.get().max(0) as u32
    }

    /// Offset of the first record.
    #[inline]
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset.get())
    }

    /// Offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.get().saturating_add(i64::from(self.last_offset_delta.get())))
    }

    /// Offset behind the last record.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Term of the leader that appended it.
    #[inline]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.get())
    }

    /// How the records are compressed; none if this build does not know it.
    #[inline]
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_u8((self.attributes.get() & CODEC_MASK) as u8)
    }

    /// The bits that say how the records are compressed.
    #[inline]
    pub fn codec(&self) -> u8 {
        (self.attributes.get() & CODEC_MASK) as u8
    }

    /// Who says what the timestamps are.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes.get() & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction.
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & TRANSACTIONAL != 0
    }

    /// Holds control records, such as the end of a transaction, which are not for users. See [`super::ControlKind`].
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes.get() & CONTROL != 0
    }

    /// The base timestamp is a delete horizon, set by compaction.
    #[inline]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes.get() & DELETE_HORIZON != 0
    }

    /// Largest timestamp of the records.
    #[inline]
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp.get())
    }

    /// The idempotent producer, if there is one.
    #[inline]
    pub fn producer(&self) -> Option<BatchProducer> {
        (self.producer_id.get() >= 0).then(|| BatchProducer {
            id: ProducerId(self.producer_id.get()),
            epoch: self.producer_epoch.get(),
            sequence: self.base_sequence.get(),
        })
    }

    /// Sequence of the last record, where there is an idempotent producer.
    #[inline]
    pub fn last_sequence(&self) -> Option<i32> {
        self.producer().map(|producer| producer.sequence_after(self.last_offset_delta.get().max(0) as u32))
    }
}

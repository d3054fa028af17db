//! What can be wrong with a batch.

use super::compression::Compression;
use crate::error::ErrorCode;

/// Why bytes are not a batch, or not one that a producer may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header or the length field ask for.
    #[error("truncated batch: {have} bytes of {need}")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// More bytes than one batch.
    #[error("{bytes} bytes behind the batch; exactly one batch is expected")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A length field that no batch can have.
    #[error("batch length field {0} is out of range")]
    Length(i32),
    /// Larger than any batch may be.
    #[error("batch of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// What the length field says.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not the second version of the record batch, the only one that is understood.
    #[error("batch magic {0}; only 2 is understood")]
    Magic(i8),
    /// The bytes are not those that the checksum was made of.
    #[error("batch checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// In the batch.
        stored: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// A compression codec that does not exist.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// A count that is not positive, over its limit, more than the bytes can hold or does not match the last offset delta.
    #[error("{count} records with a last offset delta of {last_offset_delta} in {bytes} bytes")]
    Count {
        /// Records claimed.
        count: i32,
        /// Last offset delta claimed.
        last_offset_delta: i32,
        /// Bytes of records, as they are stored.
        bytes: usize,
    },
    /// A producer leaves the base offset to the broker.
    #[error("base offset {0}; a producer must send 0")]
    BaseOffset(i64),
    /// An attribute that only a broker may set: control or delete horizon.
    #[error("batch attributes {0:#06x} are reserved for brokers")]
    Attributes(i16),
    /// Producer id, epoch and sequence do not go together.
    #[error("producer id {id}, epoch {epoch} and sequence {sequence} do not go together")]
    Producer {
        /// Producer id.
        id: i64,
        /// Producer epoch.
        epoch: i16,
        /// Base sequence.
        sequence: i32,
    },
    /// The records cannot be decompressed.
    #[error("corrupt {0} data")]
    Compressed(Compression),
    /// The records would grow over the limit.
    #[error("decompressed records are over the limit of {max} bytes")]
    DecompressedTooLarge {
        /// The limit.
        max: usize,
    },
    /// A record cannot be read.
    #[error("record {number} of the batch: invalid {field}")]
    Record {
        /// Its place in the batch, from 0.
        number: u32,
        /// What is wrong.
        field: &'static str,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes behind the last record")]
    TrailingRecords {
        /// How many.
        bytes: usize,
    },
    /// The header's maximum is not that of the records.
    #[error("max timestamp {header} in the header, {records} in the records")]
    MaxTimestamp {
        /// In the header.
        header: i64,
        /// Of the records.
        records: i64,
    },
}

impl BatchError {
    /// The code a broker answers with.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => ErrorCode::TooLarge,
            Self::Truncated { .. } | Self::Trailing { .. } | Self::Length(_) | Self::Checksum { .. } => {
                ErrorCode::CorruptBatch
            }
            _ => ErrorCode::InvalidBatch,
        }
    }
}

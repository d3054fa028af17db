//! Errors of record batches.

use super::compression::Compression;
use crate::error::ErrorCode;

/// Why bytes are not a batch, or not one that a producer may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or the length field requires.
    #[error("truncated batch: {have} bytes of {need}")]
    Truncated {
        /// Bytes present.
        have: usize,
        /// Bytes required.
        need: usize,
    },
    /// Bytes follow the batch.
    #[error("{bytes} bytes after the batch; expected exactly one batch")]
    Trailing {
        /// Number of bytes after it.
        bytes: usize,
    },
    /// The length field is too small for any batch.
    #[error("batch length field {0} is out of range")]
    Length(i32),
    /// The batch exceeds the limit.
    #[error("batch of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Size according to the length field.
        bytes: usize,
        /// Limit, in bytes.
        max: usize,
    },
    /// The batch is not in version 2 of the format, the only supported one.
    #[error("batch magic {0}; only 2 is supported")]
    Magic(i8),
    /// The checksum does not match the bytes.
    #[error("batch checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Checksum in the batch.
        stored: u32,
        /// Checksum of its bytes.
        computed: u32,
    },
    /// The compression codec does not exist.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// The count is not positive, exceeds the limit or what the bytes can hold, or does not match the last offset delta.
    #[error("invalid record count {count} with last offset delta {last_offset_delta} in {bytes} bytes")]
    Count {
        /// Record count in the header.
        count: i32,
        /// Last offset delta in the header.
        last_offset_delta: i32,
        /// Bytes of the records, as stored.
        bytes: usize,
    },
    /// The base offset is not 0. Only the broker assigns offsets.
    #[error("base offset {0}; a producer must send 0")]
    BaseOffset(i64),
    /// An attribute that only a broker may set: control or delete horizon.
    #[error("batch attributes {0:#06x} are reserved for brokers")]
    Attributes(i16),
    /// Producer id, epoch and sequence are inconsistent.
    #[error("inconsistent producer id {id}, epoch {epoch} and sequence {sequence}")]
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
    /// The decompressed records exceed the limit.
    #[error("decompressed records exceed the limit of {max} bytes")]
    DecompressedTooLarge {
        /// Limit, in bytes.
        max: usize,
    },
    /// A record is malformed.
    #[error("record {number} of the batch: invalid {field}")]
    Record {
        /// Position in the batch, from 0.
        number: u32,
        /// The malformed field.
        field: &'static str,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes after the last record")]
    TrailingRecords {
        /// Number of bytes after it.
        bytes: usize,
    },
    /// The max timestamp in the header is not the largest one of the records.
    #[error("max timestamp is {header} in the header but {records} in the records")]
    MaxTimestamp {
        /// Max timestamp in the header.
        header: i64,
        /// Largest timestamp of the records.
        records: i64,
    },
}

impl BatchError {
    /// Returns the code that a broker sends for this error.
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

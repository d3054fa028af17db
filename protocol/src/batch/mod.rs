//! The record batch: Kafka's RecordBatch v2. A producer, the disk and a consumer hold the same bytes.
//!
//! ```text
//! base offset i64 | length i32 | leader epoch i32 | magic i8 | crc u32 |          <- not covered by the checksum
//! attributes i16 | last offset delta i32 | base timestamp i64 | max timestamp i64 |
//! producer id i64 | producer epoch i16 | base sequence i32 | count i32 | records   <- covered
//! ```
//!
//! All fields are big-endian. A broker stamps base offset and leader epoch in place ([`stamp`]); the checksum does not cover them.
//!
//! - [`BatchBuilder`] makes batches from records.
//! - [`BatchCheck`] validates a batch from a client, including its records. [`validate`] checks the header and the checksum only.
//!   [`BatchView::parse`] reads a batch that is already trusted.
//! - [`BatchView::records`] decompresses if necessary and iterates over the records. Keys, values and headers are borrowed.
//! - [`BatchFilter`] removes records from a stored batch.
//!
//! ```
//! use highwater_protocol::batch::{BatchBuilder, BatchProducer, BatchView, Compression, NewRecord, stamp, validate};
//! use highwater_protocol::ids::{LeaderEpoch, Offset, Timestamp};
//!
//! let mut builder = BatchBuilder::new(Compression::Lz4, 0);
//! builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), Some(b"k"), Some(b"v")))?;
//! let mut bytes = builder.finish(BatchProducer::NONE).unwrap();
//!
//! assert_eq!(validate(&bytes)?.header().count(), 1);
//! stamp(&mut bytes, Offset(42), LeaderEpoch(7));
//!
//! let mut scratch = Vec::new();
//! let batch = BatchView::parse(&bytes)?;
//! let record = batch.records(&mut scratch)?.next().unwrap()?;
//! assert_eq!((record.offset, record.key, record.value), (Offset(42), Some(&b"k"[..]), Some(&b"v"[..])));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod check;
mod compression;
mod error;
mod filter;
mod header;
mod records;
mod stream;
mod stream_filter;
mod unpack;
mod varint;
mod view;
mod walk;

pub use builder::{AppendError, BatchBuilder, NewRecord};
pub use check::{
    BatchCheck, CheckedBatch, NO_TIMESTAMP, RecordRules, RejectReason, RejectedRecord, check,
    decompressed_max,
};
pub use compression::{Compression, Compressor, UnknownCompression};
pub use error::BatchError;
pub use filter::{BatchFilter, Selection};
pub use header::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BatchProducer, RECORD_BYTES_MIN, TimestampType,
};
pub use records::{ControlKind, Header, Headers, Record, Records};
pub use stream::{RecordStream, StreamOutcome, Work};
pub use stream_filter::{StreamFilter, StreamLimits};
pub use unpack::Unpacker;
pub use view::{BatchView, seal, stamp, stamp_create_time, stamp_log_append_time, stamp_producer, validate};
pub use walk::{OffsetOrder, RecordHead};

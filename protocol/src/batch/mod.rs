//! The record batch: Kafka's RecordBatch v2, the same bytes from the producer to the disk to the consumer.
//!
//! ```text
//! base offset i64 | length i32 | leader epoch i32 | magic i8 | crc u32 |          <- not covered by the checksum
//! attributes i16 | last offset delta i32 | base timestamp i64 | max timestamp i64 |
//! producer id i64 | producer epoch i16 | base sequence i32 | count i32 | records   <- covered
//! ```
//!
//! All big-endian. A broker stamps base offset and leader epoch in place ([`stamp`]) without touching what is covered.
//!
//! - [`BatchBuilder`] makes batches out of records.
//! - [`BatchCheck`] is what a broker asks of a batch that a client sends, its records included; [`validate`] looks at the header alone;
//!   [`BatchView::parse`] reads one that is already trusted.
//! - [`BatchView::records`] decompresses, if need be, and iterates; keys, values and headers are borrowed.
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
mod header;
mod records;
mod stream;
mod unpack;
mod varint;
mod view;
mod walk;

pub use builder::{AppendError, BatchBuilder, NewRecord};
pub use check::{
    BatchCheck, CheckedBatch, NO_TIMESTAMP, RecordRules, RejectedBecause, RejectedRecord, check,
    decompressed_max,
};
pub use compression::{Compression, Compressor, UnknownCompression};
pub use error::BatchError;
pub use header::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BatchProducer, RECORD_BYTES_MIN, TimestampType,
};
pub use records::{ControlKind, Header, Headers, Record, Records};
pub use stream::{RecordStream, Streamed, Work};
pub use unpack::Unpacker;
pub use view::{BatchView, seal, stamp, stamp_create_time, stamp_log_append_time, stamp_producer, validate};
pub use walk::{OffsetOrder, RecordHead};

//! The formats on the wire and on disk: record batches, frames, native messages, ids, error codes and limits.
//!
//! Invariant: this crate is pure. No I/O, no async, no clock, no randomness, no `unsafe`. Every decoder is bounded by the bytes
//! that remain and takes memory in proportion to them.
//!
//! | module | content |
//! |---|---|
//! | [`batch`] | Kafka's RecordBatch v2: built, validated, stamped, decompressed and iterated |
//! | [`frame`] | the header around a batch on disk and on the wire; its checks detect every flipped bit |
//! | [`group_records`] | the records of `__consumer_offsets`, in Kafka's formats |
//! | [`native`] | the messages of the native protocol |
//! | [`partitioner`] | which partition a key belongs to, as in Kafka |
//! | [`topic`] | rules for topic names |
//! | [`address`] | default ports |
//! | [`text`] | formatting of numbers in messages |
//! | [`ids`], [`error`], [`limits`] | newtypes for numbers that are easily confused, error codes, every limit in one place |
//!
//! A batch has the same bytes at the producer, on disk and at the consumer:
//!
//! ```
//! use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord, stamp, validate};
//! use highwater_protocol::frame::{FRAME_HEADER_BYTES, FramePlace, Frames, frame_bytes, write_batch_frame};
//! use highwater_protocol::ids::{Incarnation, LeaderEpoch, LogIndex, Offset, Timestamp};
//!
//! // The producer leaves space before the batch, so that nothing is copied later.
//! let mut builder = BatchBuilder::new(Compression::Zstd, FRAME_HEADER_BYTES);
//! for n in 0..100 {
//!     let value = format!("measurement {n}");
//!     builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), Some(b"sensor-7"), Some(value.as_bytes())))?;
//! }
//! let mut bytes = builder.finish(BatchProducer::NONE).expect("there are records");
//!
//! // The broker checks the batch once, stamps it and frames it in place.
//! let mut header = *validate(&bytes[FRAME_HEADER_BYTES..])?.header();
//! header.stamp(Offset(5000), LeaderEpoch(1));
//! stamp(&mut bytes[FRAME_HEADER_BYTES..], Offset(5000), LeaderEpoch(1));
//! bytes.resize(frame_bytes(header.batch_bytes()), 0);
//! write_batch_frame(
//!     &mut bytes,
//!     &header,
//!     FramePlace { incarnation: Incarnation(1), index: LogIndex(9), durable_index: LogIndex(8), commit_index: LogIndex(7), partition_tag: 0xabcd, mac: 0x5ea1 },
//! );
//!
//! // The consumer borrows records from the received bytes.
//! let mut scratch = Vec::new();
//! for frame in Frames::new(&bytes) {
//!     let frame = frame?;
//!     frame.check()?;
//!     let Some(batch) = frame.batch() else { continue };
//!     for record in batch.records(&mut scratch)? {
//!         let record = record?;
//!         assert!(record.offset >= Offset(5000) && record.value.unwrap().starts_with(b"measurement"));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod address;
pub mod batch;
pub mod error;
pub mod frame;
pub mod group_records;
pub mod ids;
pub mod limits;
pub mod native;
pub mod partitioner;
pub mod text;
pub mod topic;

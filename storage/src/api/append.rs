//! Batches to append, and what becomes of them.

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{LogIndex, Offset, Timestamp};
use highwater_runtime::buf::AlignedBuf;

/// A record batch to append, and its header, so that the store need not parse it. The caller has checked the batch.
#[derive(Debug)]
pub struct Payload<'a> {
    pub(crate) header: BatchHeader,
    pub(crate) bytes: PayloadBytes<'a>,
}

/// The bytes of a batch to append.
#[derive(Debug)]
pub(crate) enum PayloadBytes<'a> {
    /// Copied once, into the partition's tail page.
    Small(&'a [u8]),
    /// Pages of the frame's own: room for the frame's header, then the batch.
    Bulk(AlignedBuf),
}

impl<'a> Payload<'a> {
    /// A batch that is copied once, into the partition's tail page.
    ///
    /// Panics if the header is that of a batch of another length.
    pub fn small(header: BatchHeader, batch: &'a [u8]) -> Self {
        assert!(header.batch_bytes() == batch.len(), "the header is that of the batch");
        Self { header, bytes: PayloadBytes::Small(batch) }
    }

    /// A batch that is written, cached and sent from where it is. It begins at `pages[FRAME_HEADER_BYTES..]`; the frame's header is
    /// written before it.
    ///
    /// Panics if the pages end before the batch does.
    pub fn bulk(header: BatchHeader, pages: AlignedBuf) -> Self {
        assert!(pages.len() >= FRAME_HEADER_BYTES + header.batch_bytes(), "the batch is in the pages");
        Self { header, bytes: PayloadBytes::Bulk(pages) }
    }

    pub(crate) fn placement(&self) -> FramePlacement {
        match self.bytes {
            PayloadBytes::Small(_) => FramePlacement::Packed,
            PayloadBytes::Bulk(_) => FramePlacement::OwnPages,
        }
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FramePlacement {
    /// After the last one.
    Packed,
    /// In pages of its own.
    OwnPages,
}

/// Where a batch went. It is not durable yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Its index: durable once [`StoreEvent::Durable`](crate::StoreEvent::Durable) names a higher one.
    pub index: LogIndex,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub next_offset: Offset,
}

/// Why a batch was not appended. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// No space for another slab, or for frames appended before. Appends succeed again after [`StoreEvent::SpaceAvailable`](crate::StoreEvent::SpaceAvailable).
    #[error("the disk is full")]
    StorageFull,
    /// The partition was stopped because part of its log is damaged.
    #[error("the partition is stopped: part of its log is damaged")]
    Faulty,
    /// The batch does not fit an extent, or a configuration is too large.
    #[error("a batch of {bytes} bytes is larger than the {max} bytes that fit an extent")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too much is waiting for the disk already.
    #[error("too many bytes are waiting for the disk")]
    Busy,
    /// The batch is in the log already.
    #[error("the batch was appended before, at offset {base_offset}")]
    Duplicate {
        /// Where it is.
        base_offset: Offset,
        /// The offset after its last record: the batch is durable once `durable_end` reaches it.
        next_offset: Offset,
        /// Its largest timestamp.
        timestamp: Timestamp,
    },
    /// The batch does not follow the producer's last one.
    #[error("the batch does not follow the producer's last one: sequence {expected} was expected")]
    OutOfOrder {
        /// The sequence number that would.
        expected: i32,
    },
    /// A newer instance of the producer has written here.
    #[error("a newer instance of the producer has written here")]
    Fenced,
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
}

/// A producer's batch compared with the partition's memory of the producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerCheck {
    /// Not seen before: append it.
    New,
    /// In the log already.
    Duplicate {
        /// Where.
        base_offset: Offset,
        /// The offset after its last record.
        next_offset: Offset,
        /// Its largest timestamp.
        timestamp: Timestamp,
    },
    /// It does not follow the last one.
    OutOfOrder {
        /// The sequence number that would.
        expected: i32,
    },
    /// A newer epoch of the producer has written here.
    Fenced,
}

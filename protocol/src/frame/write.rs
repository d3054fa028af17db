//! Writes frames in place, into the buffer that goes to disk.

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};

use super::header::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, FrameHeader, FrameKind, frame_bytes,
};
use super::lag;
use crate::batch::BatchHeader;
use crate::ids::{Incarnation, LeaderEpoch, LogIndex, Offset};

/// Fields of a frame's header that describe its place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramePlace {
    /// Incarnation of the extent.
    pub incarnation: Incarnation,
    /// Replication index of the frame; for padding, that of the frame after it.
    pub index: LogIndex,
    /// Every frame with a lower index is durable.
    pub durable_index: LogIndex,
    /// Every frame with a lower index is known to be committed.
    pub commit_index: LogIndex,
    /// [`crate::ids::TopicPartition::tag`].
    pub partition_tag: u32,
    /// See [`FrameHeader::mac`].
    pub mac: u64,
}

impl FrameHeader {
    /// Returns the header of a frame around a batch that has been checked and stamped with offset and epoch.
    pub fn for_batch(place: FramePlace, batch: &BatchHeader) -> Self {
        Self {
            base_offset: I64::new(batch.base_offset.get()),
            last_offset_delta: U32::new(batch.last_offset_delta.get().cast_unsigned()),
            leader_epoch: I32::new(batch.leader_epoch.get()),
            payload_bytes: U32::new(batch.batch_bytes() as u32),
            payload_crc: U32::new(batch.crc.get()),
            ..Self::at(FrameKind::Batch, place)
        }
        .sealed()
    }

    fn internal(
        kind: FrameKind,
        place: FramePlace,
        next_offset: Offset,
        epoch: LeaderEpoch,
        payload: &[u8],
    ) -> Self {
        Self {
            base_offset: I64::new(next_offset.0),
            leader_epoch: I32::new(epoch.0),
            payload_bytes: U32::new(payload.len() as u32),
            payload_crc: U32::new(crc32c::crc32c(payload)),
            ..Self::at(kind, place)
        }
        .sealed()
    }

    fn at(kind: FrameKind, place: FramePlace) -> Self {
        Self {
            header_crc: U32::ZERO,
            magic: U16::new(FRAME_MAGIC),
            version: FRAME_VERSION,
            kind: kind as u8,
            payload_bytes: U32::ZERO,
            payload_crc: U32::ZERO,
            incarnation: U64::new(place.incarnation.0),
            index: U64::new(place.index.0),
            mac: U64::new(place.mac),
            base_offset: I64::ZERO,
            last_offset_delta: U32::ZERO,
            leader_epoch: I32::ZERO,
            partition_tag: U32::new(place.partition_tag),
            undurable: U16::new(lag::encode(place.index.0.saturating_sub(place.durable_index.0))),
            uncommitted: U16::new(lag::encode(place.index.0.saturating_sub(place.commit_index.0))),
        }
    }
}

/// Makes a frame of the batch at `frame[FRAME_HEADER_BYTES..]`, which must have been checked and stamped with offset and epoch.
/// Writes the frame's header before it and zeros after it. `batch` is the batch's header.
///
/// Panics if `frame` does not have exactly the length of the frame.
pub fn write_batch_frame(frame: &mut [u8], batch: &BatchHeader, place: FramePlace) {
    let (head, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    debug_assert!(payload.starts_with(batch.as_bytes()), "the header is that of the batch in the frame");
    let bytes = batch.batch_bytes();
    assert_eq!(payload.len(), frame_bytes(bytes) - FRAME_HEADER_BYTES, "the frame ends after its alignment");
    assert!(batch.base_offset.get() >= 0, "a batch has its offset before it is framed");
    head.copy_from_slice(FrameHeader::for_batch(place, batch).as_bytes());
    payload[bytes..].fill(0);
}

/// Fills `gap` with a padding frame. `next_offset` is the offset of the next record.
///
/// Panics if `gap` is not a multiple of [`FRAME_ALIGN`] or too short for a header.
pub fn write_padding(gap: &mut [u8], place: FramePlace, next_offset: Offset, epoch: LeaderEpoch) {
    assert!(gap.len().is_multiple_of(FRAME_ALIGN), "frames begin at multiples of FRAME_ALIGN");
    let (head, payload) = gap.split_at_mut(FRAME_HEADER_BYTES);
    payload.fill(0);
    let header = FrameHeader::internal(FrameKind::Padding, place, next_offset, epoch, payload);
    head.copy_from_slice(header.as_bytes());
}

/// Writes the first frame of a leader's epoch into `frame`. It has no payload. `next_offset` is the offset of the next record.
pub fn write_epoch_start(
    frame: &mut [u8; FRAME_HEADER_BYTES],
    place: FramePlace,
    next_offset: Offset,
    epoch: LeaderEpoch,
) {
    let header = FrameHeader::internal(FrameKind::EpochStart, place, next_offset, epoch, &[]);
    frame.copy_from_slice(header.as_bytes());
}

/// Makes a frame of the configuration at `frame[FRAME_HEADER_BYTES..][..bytes]`. Writes the frame's header before it and zeros after it.
/// `next_offset` is the offset of the next record.
///
/// Panics if `frame` does not have exactly the length of the frame.
pub fn write_configuration(
    frame: &mut [u8],
    bytes: usize,
    place: FramePlace,
    next_offset: Offset,
    epoch: LeaderEpoch,
) {
    let (head, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    assert_eq!(payload.len(), frame_bytes(bytes) - FRAME_HEADER_BYTES, "the frame ends after its alignment");
    payload[bytes..].fill(0);
    let configuration = &payload[..bytes];
    let header = FrameHeader::internal(FrameKind::Configuration, place, next_offset, epoch, configuration);
    head.copy_from_slice(header.as_bytes());
}

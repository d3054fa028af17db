//! Whether bytes are the frame that a place calls for.

use highwater_protocol::frame::{FRAME_HEADER_BYTES, FRAME_VERSION, FrameError, FrameHeader, FrameKind};
use highwater_protocol::ids::{Incarnation, LeaderEpoch, LogIndex, Offset};

use super::decide::Found;

/// No partition gets there; below it, adding a batch's length cannot overflow.
const OFFSET_MAX: i64 = i64::MAX - (1 << 33);

/// A whole valid frame.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Where it begins in its extent.
    pub position: u32,
    /// Its header.
    pub header: &'a FrameHeader,
    /// What its payload is.
    pub kind: FrameKind,
    /// Its payload, checked.
    pub payload: &'a [u8],
}

/// What the next frame has to be.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) incarnation: Incarnation,
    pub(super) tag: u32,
    pub(super) index: LogIndex,
    pub(super) offset: Offset,
    pub(super) epoch: Option<LeaderEpoch>,
}

/// Whether a header is of this extent's life and partition at all.
pub(super) fn is_ours(header: &FrameHeader, next: &Next) -> bool {
    header.incarnation.get() == next.incarnation.0 && header.partition_tag.get() == next.tag
}

/// Compares a header whose checksum is right with what the place calls for.
pub(super) fn chain(header: &FrameHeader, next: &Next) -> Found {
    if header.incarnation.get() < next.incarnation.0 {
        return Found::Older;
    }
    let fits = is_ours(header, next)
        && header.index.get() == next.index.0
        && header.base_offset.get() == next.offset.0
        && header.durable_index.get() <= header.index.get()
        && (0..OFFSET_MAX).contains(&header.base_offset.get())
        && next.epoch.is_none_or(|epoch| epoch.0 <= header.leader_epoch.get());
    if fits { Found::Valid } else { Found::Misdirected }
}

/// The header at the start of `bytes`, and what it amounts to at this place.
pub(super) fn header<'a>(bytes: &'a [u8], next: &Next) -> Result<(&'a FrameHeader, FrameKind), Found> {
    match FrameHeader::parse(bytes) {
        Ok((header, kind)) => match chain(header, next) {
            Found::Valid => Ok((header, kind)),
            other => Err(other),
        },
        Err(FrameError::Zero) => Err(Found::Zero),
        Err(FrameError::Version(version)) if version > FRAME_VERSION => Err(Found::NewerVersion),
        Err(_) => Err(Found::Bad),
    }
}

/// Whether the payload, in `bytes` behind the header, is the one that the header was made for, and the bytes up to the next frame are zero.
pub(super) fn payload<'a>(bytes: &'a [u8], header: &FrameHeader, kind: FrameKind) -> Option<&'a [u8]> {
    let len = header.payload_bytes.get() as usize;
    let rest = bytes.get(FRAME_HEADER_BYTES..header.frame_bytes())?;
    let (payload, behind) = rest.split_at_checked(len)?;
    if behind.iter().any(|b| *b != 0) {
        return None;
    }
    let right = match kind {
        FrameKind::Batch => batch_matches(payload, header),
        FrameKind::Padding => is_zero(payload) && crc32c::crc32c(payload) == header.payload_crc.get(),
        FrameKind::EpochStart => crc32c::crc32c(payload) == header.payload_crc.get(),
    };
    right.then_some(payload)
}

/// The 21 bytes in front of what a batch's checksum covers repeat what the frame's header says.
fn batch_matches(batch: &[u8], header: &FrameHeader) -> bool {
    let Some((front, covered)) = batch.split_first_chunk::<21>() else { return false };
    let mut expected = [0; 21];
    expected[..8].copy_from_slice(&header.base_offset.get().to_be_bytes());
    expected[8..12].copy_from_slice(&(batch.len() as u32 - 12).to_be_bytes());
    expected[12..16].copy_from_slice(&header.leader_epoch.get().to_be_bytes());
    expected[16] = 2;
    expected[17..].copy_from_slice(&header.payload_crc.get().to_be_bytes());
    let delta = covered.get(2..6).is_some_and(|delta| delta == header.last_offset_delta.get().to_be_bytes());
    *front == expected && delta && crc32c::crc32c(covered) == header.payload_crc.get()
}

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |any, b| any | b) == 0) && rest.iter().all(|b| *b == 0)
}

//! The frame: the same header on the wire, in the journal, in extents and between replicas.
//!
//! `frame = FrameHeader (64 bytes) + payload + zero bytes up to the next multiple of FRAME_ALIGN`
//!
//! The layout is in `docs/disk-format.md`; assertions hold it at compile time. All integers are little-endian.
//!
//! What each checksum covers:
//! - `header_crc`: bytes 4..64 of the header.
//! - `payload_crc`: for a batch, the batch's own CRC-32C, which covers everything after it in the batch. The 21 bytes of the batch
//!   before that coverage repeat fields of the frame header and are compared with it. For every other kind: CRC-32C of the payload.
//!
//! So any flipped bit in a frame is detected, and a batch's payload is never checksummed twice.
//!
//! Checksums do not prove where a frame begins: a record can contain the bytes of a whole frame. The store computes and checks
//! `mac` for that.
//!
//! [`write_batch_frame`], [`write_padding`], [`write_epoch_start`] and [`write_configuration`] write frames in place; [`Frame`] and [`Frames`] read them.

mod header;
mod lag;
mod read;
mod write;

pub use header::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, FRAME_VERSION_WITHOUT_COMMIT,
    FRAME_VERSION_WITHOUT_MAC, FrameError, FrameHeader, FrameKind, frame_bytes,
};
pub use read::{Frame, Frames};
pub use write::{FramePlace, write_batch_frame, write_configuration, write_epoch_start, write_padding};

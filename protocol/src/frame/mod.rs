//! The frame: one header for wire, journal, extent and peer.
//!
//! `frame = FrameHeader (64 bytes) + payload + zero bytes up to the next multiple of FRAME_ALIGN`
//!
//! The layout is in `docs/disk-format.md`; assertions hold it at compile time. All integers are little-endian.
//!
//! What each checksum covers:
//! - `header_crc`: bytes 4..64 of the header.
//! - `payload_crc`: for a batch, the batch's own CRC-32C (which covers everything behind it in the batch); the 21 bytes
//!   of the batch in front of that coverage repeat what the header says and are compared with it. For every other kind:
//!   CRC-32C of the payload.
//!
//! So a flipped bit anywhere in a frame is found, and a batch's payload is never summed twice.
//!
//! Checksums prove nothing to whoever does not know where a frame begins: a record can hold the bytes of a whole frame. That is what
//! `mac` is for, which the store makes and checks.
//!
//! [`write_batch_frame`], [`write_padding`] and [`write_epoch_start`] make frames in place; [`Frame`] and [`Frames`] read them.

mod header;
mod lag;
mod read;
mod write;

pub use header::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, FRAME_VERSION_WITHOUT_COMMIT,
    FRAME_VERSION_WITHOUT_MAC, FrameError, FrameHeader, FrameKind, frame_bytes,
};
pub use read::{Frame, Frames};
pub use write::{FramePlace, write_batch_frame, write_epoch_start, write_padding};

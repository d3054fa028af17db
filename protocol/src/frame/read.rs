//! Reads frames from untrusted bytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::iter::FusedIterator;

use super::header::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind};
use crate::batch::BatchView;

/// A complete frame in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: &'a FrameHeader,
    kind: FrameKind,
    payload: &'a [u8],
    alignment: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the frame at the start of `bytes` if its header is valid and the frame is complete. [`Frame::check`] checks the
    /// payload.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (header, kind) = FrameHeader::parse(bytes)?;
        let payload_bytes = header.payload_bytes.get() as usize;
        let body = bytes.get(FRAME_HEADER_BYTES..header.frame_bytes());
        let Some((payload, alignment)) = body.and_then(|body| body.split_at_checked(payload_bytes)) else {
            return Err(FrameError::Truncated { have: bytes.len(), need: header.frame_bytes() });
        };
        Ok(Self { header, kind, payload, alignment })
    }

    /// Returns the frame at the start of `bytes` after checking every bit of it.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let frame = Self::parse(bytes)?;
        frame.check()?;
        Ok(frame)
    }

    /// Checks what the header's checksum does not cover: payload and alignment.
    ///
    /// This includes a batch's checksum, so the caller need not check the batch again.
    pub fn check(&self) -> Result<(), FrameError> {
        if self.alignment.iter().any(|byte| *byte != 0) {
            return Err(FrameError::NotZero);
        }
        match self.kind {
            FrameKind::Batch => self.check_batch(),
            FrameKind::Padding if self.payload.iter().any(|byte| *byte != 0) => Err(FrameError::NotZero),
            FrameKind::Padding | FrameKind::EpochStart | FrameKind::Configuration => {
                self.check_payload_crc(crc32c::crc32c(self.payload))
            }
        }
    }

    fn check_payload_crc(&self, crc: u32) -> Result<(), FrameError> {
        if self.header.payload_crc.get() == crc { Ok(()) } else { Err(FrameError::PayloadChecksum) }
    }

    /// Checks the batch's first 21 bytes against the header, and the others against the checksum.
    fn check_batch(&self) -> Result<(), FrameError> {
        let batch = BatchView::parse(self.payload).map_err(|_| FrameError::Differs("length or magic"))?;
        let (frame, header) = (self.header, batch.header());
        self.check_payload_crc(batch.checksum())?;
        let same = [
            ("checksum", frame.payload_crc.get() == header.crc.get()),
            ("base offset", frame.base_offset.get() == header.base_offset.get()),
            ("leader epoch", frame.leader_epoch.get() == header.leader_epoch.get()),
            (
                "last offset delta",
                i64::from(frame.last_offset_delta.get()) == i64::from(header.last_offset_delta.get()),
            ),
        ];
        match same.iter().find(|(_, same)| !same) {
            Some((field, _)) => Err(FrameError::Differs(field)),
            None => Ok(()),
        }
    }

    /// Returns the header.
    #[inline]
    pub fn header(&self) -> &'a FrameHeader {
        self.header
    }

    /// Returns the kind of the payload.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Returns the payload.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Returns the batch, if the frame holds one.
    #[inline]
    pub fn batch(&self) -> Option<BatchView<'a>> {
        match self.kind {
            FrameKind::Batch => BatchView::parse(self.payload).ok(),
            FrameKind::Padding | FrameKind::EpochStart | FrameKind::Configuration => None,
        }
    }
}

/// Iterates over consecutive frames. Ends where the bytes end, or after the first error.
///
/// Checks headers only; call [`Frame::check`] on each frame whose payload matters.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Frames<'a> {
    /// Creates an iterator over the frames from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, failed: false }
    }

    /// Returns the position of the next frame; after an error, the position of the bad frame.
    pub const fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..)?;
        if self.failed || rest.is_empty() {
            return None;
        }
        let frame = Frame::parse(rest);
        match &frame {
            Ok(frame) => self.position = self.position.saturating_add(frame.header.frame_bytes()),
            Err(_) => self.failed = true,
        }
        Some(frame)
    }
}

impl FusedIterator for Frames<'_> {}

//! gzip: a sequence of members (RFC 1952).
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::window::Window;
use super::{DecompressError, Progress};

/// Maximum bytes written by one step.
const CHUNK_BYTES: usize = 64 << 10;

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const DEFLATE: u8 = 8;
const HAS_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;

pub(super) struct Gzip {
    inflate: Decompress,
    /// Whether the position is inside a member, after its header.
    in_member: bool,
    crc: Crc,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { inflate: Decompress::new(false), in_member: false, crc: Crc::new() }
    }
}

impl Gzip {
    pub(super) fn start(&mut self) {
        self.in_member = false;
    }

    /// Decompresses up to one chunk, or to the end of a member.
    pub(super) fn step(
        &mut self,
        stored: &[u8],
        at: &mut usize,
        window: &mut Window,
        left: usize,
    ) -> Result<Progress, DecompressError> {
        let mut rest = stored.get(*at..).ok_or(DecompressError::Corrupt)?;
        if !self.in_member {
            take_header(&mut rest).ok_or(DecompressError::Corrupt)?;
            self.inflate.reset(false);
            self.crc.reset();
            self.in_member = true;
        }
        let room = window.room(CHUNK_BYTES.min(left.saturating_add(1)));
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(rest, room, FlushDecompress::None)
            .map_err(|_| DecompressError::Corrupt)?;
        let read = self.inflate.total_in().saturating_sub(in_before) as usize;
        let wrote = self.inflate.total_out().saturating_sub(out_before) as usize;
        self.crc.update(room.get(..wrote).unwrap_or_default());
        window.written(wrote);
        rest = rest.get(read..).ok_or(DecompressError::Corrupt)?;
        let is_end = status == Status::StreamEnd;
        if is_end {
            let (crc, after) = rest.split_first_chunk().ok_or(DecompressError::Corrupt)?;
            let (bytes, after) = after.split_first_chunk().ok_or(DecompressError::Corrupt)?;
            if u32::from_le_bytes(*crc) != self.crc.sum() || u32::from_le_bytes(*bytes) != self.crc.amount() {
                return Err(DecompressError::Corrupt);
            }
            rest = after;
            self.in_member = false;
        }
        *at = stored.len().saturating_sub(rest.len());
        if is_end && rest.is_empty() {
            return Ok(Progress::Ended);
        }
        if read == 0 && wrote == 0 && !is_end { Err(DecompressError::Corrupt) } else { Ok(Progress::More) }
    }
}

/// Takes a member's header from the front of `bytes`. Returns `None` if it is malformed.
fn take_header(bytes: &mut &[u8]) -> Option<()> {
    let whole = *bytes;
    let (head, mut rest) = whole.split_first_chunk::<10>()?;
    let [id1, id2, method, flags, ..] = *head;
    if [id1, id2] != MAGIC || method != DEFLATE {
        return None;
    }
    if flags & HAS_EXTRA != 0 {
        let (len, after) = rest.split_first_chunk()?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for text in [HAS_NAME, HAS_COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end..)?.split_first()?.1;
        }
    }
    if flags & HAS_CRC != 0 {
        let (stored, after) = rest.split_first_chunk()?;
        let mut crc = Crc::new();
        crc.update(whole.get(..whole.len().saturating_sub(rest.len()))?);
        if u16::from_le_bytes(*stored) != crc.sum() as u16 {
            return None;
        }
        rest = after;
    }
    *bytes = rest;
    Some(())
}

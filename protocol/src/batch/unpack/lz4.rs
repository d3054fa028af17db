//! The LZ4 frame format: a frame header, blocks of up to 4 MiB, an end mark, and optional checksums.
//!
//! Accepts exactly one frame, as Kafka's clients do. Dictionaries and the legacy frame format are not supported.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::hash::Hasher as _;

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use twox_hash::XxHash32;

use super::window::Window;
use super::{DecompressError, Progress};

/// How far a block may refer back into earlier blocks of the frame.
const HISTORY_BYTES: usize = 64 << 10;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED_OR_DICTIONARY: u8 = 0b11;

/// Flag in a block's size: the block is stored uncompressed.
const UNCOMPRESSED: u32 = 1 << 31;

/// Maximum bytes decompressed from one byte of a block.
const RATIO_MAX: usize = 255;

/// Seed of the frame's checksums.
const SEED: u32 = 0;

#[derive(Default)]
pub(super) struct Lz4 {
    frame: Option<Frame>,
}

struct Frame {
    flags: u8,
    block_bytes_max: usize,
    content_bytes: Option<u64>,
    written: u64,
    checksum: XxHash32,
}

impl Lz4 {
    /// Decompresses one block.
    pub(super) fn step(
        &mut self,
        stored: &[u8],
        at: &mut usize,
        window: &mut Window,
    ) -> Result<Progress, DecompressError> {
        let mut rest = stored.get(*at..).ok_or(DecompressError::Corrupt)?;
        let frame = match &mut self.frame {
            Some(frame) => frame,
            none => {
                let frame = none.insert(Frame::take(&mut rest).ok_or(DecompressError::Corrupt)?);
                window.keep_history(if frame.flags & INDEPENDENT == 0 { HISTORY_BYTES } else { 0 });
                frame
            }
        };
        let progress = frame.take_block(&mut rest, window).ok_or(DecompressError::Corrupt)?;
        *at = stored.len().saturating_sub(rest.len());
        Ok(progress)
    }
}

impl Frame {
    /// Takes a frame header from the front of `bytes`.
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let described = rest;
        let [flags, sizes] = take(&mut rest)?;
        if flags & VERSION_MASK != VERSION || flags & RESERVED_OR_DICTIONARY != 0 {
            return None;
        }
        let block_bytes_max = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return None,
        };
        let content_bytes =
            if flags & CONTENT_SIZE == 0 { None } else { Some(u64::from_le_bytes(take(&mut rest)?)) };
        let described = described.get(..described.len().saturating_sub(rest.len()))?;
        let [check] = take(&mut rest)?;
        if check != (XxHash32::oneshot(SEED, described) >> 8) as u8 {
            return None;
        }
        *bytes = rest;
        Some(Self { flags, block_bytes_max, content_bytes, written: 0, checksum: XxHash32::with_seed(SEED) })
    }

    /// Takes a block or the end mark from the front of `rest`.
    fn take_block(&mut self, rest: &mut &[u8], window: &mut Window) -> Option<Progress> {
        let size = u32::from_le_bytes(take(rest)?);
        if size == 0 {
            if self.flags & CONTENT_CHECKSUM != 0
                && u32::from_le_bytes(take(rest)?) != self.checksum.finish_32()
            {
                return None;
            }
            let is_whole = self.content_bytes.is_none_or(|bytes| bytes == self.written);
            return is_whole.then_some(Progress::Ended);
        }
        let len = (size & !UNCOMPRESSED) as usize;
        if len > self.block_bytes_max {
            return None;
        }
        let (block, after) = rest.split_at_checked(len)?;
        *rest = after;
        if self.flags & BLOCK_CHECKSUMS != 0
            && u32::from_le_bytes(take(rest)?) != XxHash32::oneshot(SEED, block)
        {
            return None;
        }
        // Bound the output by what the block can produce, not by what the frame header allows.
        let room_bytes = if size & UNCOMPRESSED == 0 {
            self.block_bytes_max.min(len.saturating_mul(RATIO_MAX).saturating_add(64))
        } else {
            len
        };
        let (back, room) = window.room_with_history(HISTORY_BYTES, room_bytes);
        let wrote = if size & UNCOMPRESSED != 0 {
            room.copy_from_slice(block);
            len
        } else if self.flags & INDEPENDENT != 0 || self.written == 0 {
            decompress_into(block, room).ok()?
        } else {
            decompress_into_with_dict(block, room, back).ok()?
        };
        if self.flags & CONTENT_CHECKSUM != 0 {
            self.checksum.write(room.get(..wrote)?);
        }
        window.written(wrote);
        self.written = self.written.saturating_add(wrote as u64);
        Some(Progress::More)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_matches_the_reference_for_any_chunk_size() {
        for (text, hash) in [
            ("", 0x02CC_5D05),
            ("a", 0x550D_7456),
            ("abc", 0x32D1_53FF),
            ("Nobody inspects the spammish repetition", 0xE229_3B2F),
        ] {
            assert_eq!(XxHash32::oneshot(SEED, text.as_bytes()), hash, "{text}");
            for chunk in 1..20 {
                let mut hasher = XxHash32::with_seed(SEED);
                text.as_bytes().chunks(chunk).for_each(|bytes| hasher.write(bytes));
                assert_eq!(hasher.finish_32(), hash, "{text} in chunks of {chunk}");
            }
        }
    }
}

//! LZ4 in frames: a head, blocks of up to 4 MiB, an end mark, and checksums where the head says so.
//!
//! One frame and nothing else, as Kafka's clients read it. Dictionaries and the legacy kind of frame are not known.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::hash::Hasher as _;

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use twox_hash::XxHash32;

use super::window::Window;
use super::{Broken, Progress};

/// How far blocks of a frame refer back into those before them.
const HISTORY_BYTES: usize = 64 << 10;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED_OR_DICTIONARY: u8 = 0b11;

/// In front of a block: it is stored as it is.
const UNCOMPRESSED: u32 = 1 << 31;

/// Bytes out of one byte of a compressed block, at most.
const RATIO_MAX: usize = 255;

/// Of the checksums in a frame.
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
    ) -> Result<Progress, Broken> {
        let mut rest = stored.get(*at..).ok_or(Broken::Corrupt)?;
        let frame = match &mut self.frame {
            Some(frame) => frame,
            none => {
                let frame = none.insert(Frame::take(&mut rest).ok_or(Broken::Corrupt)?);
                window.keep_history(if frame.flags & INDEPENDENT == 0 { HISTORY_BYTES } else { 0 });
                frame
            }
        };
        let progress = frame.take_block(&mut rest, window).ok_or(Broken::Corrupt)?;
        *at = stored.len().saturating_sub(rest.len());
        Ok(progress)
    }
}

impl Frame {
    /// Takes a frame's head off the front.
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

    /// Takes a block off the front, or the frame's end.
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
        let (block, behind) = rest.split_at_checked(len)?;
        *rest = behind;
        if self.flags & BLOCK_CHECKSUMS != 0
            && u32::from_le_bytes(take(rest)?) != XxHash32::oneshot(SEED, block)
        {
            return None;
        }
        // What is written at most: memory follows what can come out, not what the frame's head allows.
        let room_bytes = if size & UNCOMPRESSED == 0 {
            self.block_bytes_max.min(len.saturating_mul(RATIO_MAX).saturating_add(64))
        } else {
            len
        };
        let (back, room) = window.room_behind(HISTORY_BYTES, room_bytes);
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
    fn the_hash_is_that_of_the_reference_whatever_the_pieces() {
        for (text, hash) in [
            ("", 0x02CC_5D05),
            ("a", 0x550D_7456),
            ("abc", 0x32D1_53FF),
            ("Nobody inspects the spammish repetition", 0xE229_3B2F),
        ] {
            assert_eq!(XxHash32::oneshot(SEED, text.as_bytes()), hash, "{text}");
            for piece in 1..20 {
                let mut pieces = XxHash32::with_seed(SEED);
                text.as_bytes().chunks(piece).for_each(|bytes| pieces.write(bytes));
                assert_eq!(pieces.finish_32(), hash, "{text} in pieces of {piece}");
            }
        }
    }
}

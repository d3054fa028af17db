//! Snappy, either in the framing of xerial's snappy-java or as one raw block.
//!
//! Small blocks are decompressed whole. Larger ones are decoded element by element until a chunk is full.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::window::Window;
use super::{DecompressError, Progress};

/// Maximum distance of a copy in a block that is decoded in chunks. Most encoders work on 64 KiB at a time, klauspost's on 4 MiB.
const HISTORY_BYTES: usize = 4 << 20;

/// Blocks up to this size are decompressed whole.
const WHOLE_BYTES_MAX: usize = 512 << 10;

/// Bytes after which a step ends.
const CHUNK_BYTES: usize = 64 << 10;

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// Magic, version and lowest compatible version.
const XERIAL_HEAD_BYTES: usize = 16;

/// Maximum expansion: three bytes of snappy produce at most 64.
const RATIO_MAX: usize = 22;

#[derive(Default)]
pub(super) struct Snappy {
    framing: Framing,
    block: Option<Block>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Framing {
    /// No bytes seen yet.
    #[default]
    Unknown,
    Xerial,
    Raw,
}

/// A block that is decoded in chunks.
struct Block {
    /// Position after its last stored byte.
    end: usize,
    written: usize,
    /// Decompressed size according to the block.
    claimed: usize,
    /// Bytes that remain of the current literal.
    literal_left: usize,
}

impl Snappy {
    /// Decodes a block, or a chunk of a large one.
    pub(super) fn step(
        &mut self,
        stored: &[u8],
        at: &mut usize,
        window: &mut Window,
        left: usize,
    ) -> Result<Progress, DecompressError> {
        let ended = |at: usize| if at >= stored.len() { Progress::Ended } else { Progress::More };
        if self.block.is_none() {
            let (start, end) = self.next_block(stored, *at).ok_or(DecompressError::Corrupt)?;
            let bytes = stored.get(start..end).ok_or(DecompressError::Corrupt)?;
            if bytes.is_empty() && self.framing == Framing::Xerial && start == XERIAL_HEAD_BYTES {
                // Nothing follows the header.
                *at = start;
                return Ok(ended(start));
            }
            let claimed = snap::raw::decompress_len(bytes).map_err(|_| DecompressError::Corrupt)?;
            if claimed > bytes.len().saturating_mul(RATIO_MAX) {
                return Err(DecompressError::Corrupt);
            }
            if claimed > left {
                return Err(DecompressError::TooLarge);
            }
            if claimed <= WHOLE_BYTES_MAX {
                let room = window.room(claimed);
                snap::raw::Decoder::new().decompress(bytes, room).map_err(|_| DecompressError::Corrupt)?;
                window.written(claimed);
                *at = end;
                return Ok(ended(end));
            }
            // Skip the length before the elements: seven bits per byte.
            let len_bytes = bytes.iter().position(|byte| byte & 0x80 == 0).ok_or(DecompressError::Corrupt)?;
            *at = start.saturating_add(len_bytes).saturating_add(1);
            self.block = Some(Block { end, written: 0, claimed, literal_left: 0 });
            window.keep_history(HISTORY_BYTES);
        }
        let block = self.block.as_mut().ok_or(DecompressError::Corrupt)?;
        block.step(stored, at, window).ok_or(DecompressError::Corrupt)?;
        if *at < block.end || block.literal_left > 0 {
            return Ok(Progress::More);
        }
        if block.written != block.claimed {
            return Err(DecompressError::Corrupt);
        }
        self.block = None;
        window.keep_history(0);
        Ok(ended(*at))
    }

    /// Returns the start and end of the next block.
    fn next_block(&mut self, stored: &[u8], at: usize) -> Option<(usize, usize)> {
        let mut at = at;
        if self.framing == Framing::Unknown {
            if !stored.starts_with(&XERIAL_MAGIC) {
                self.framing = Framing::Raw;
                return Some((0, stored.len()));
            }
            stored.get(..XERIAL_HEAD_BYTES)?;
            self.framing = Framing::Xerial;
            at = XERIAL_HEAD_BYTES;
            if stored.len() == at {
                return Some((at, at));
            }
        }
        let (len, _) = stored.get(at..)?.split_first_chunk()?;
        let start = at.saturating_add(4);
        Some((start, start.saturating_add(u32::from_be_bytes(*len) as usize)))
    }
}

impl Block {
    /// Decodes elements until a chunk is full. Returns `None` if the block is corrupt.
    fn step(&mut self, stored: &[u8], at: &mut usize, window: &mut Window) -> Option<()> {
        let stop = self.written.saturating_add(CHUNK_BYTES);
        let mut rest = stored.get(*at..self.end)?;
        while self.written < stop {
            if self.literal_left > 0 {
                let bytes = self.literal_left.min(CHUNK_BYTES);
                let (literal, after) = rest.split_at_checked(bytes)?;
                window.push(literal);
                self.literal_left = self.literal_left.saturating_sub(bytes);
                self.add_written(bytes)?;
                rest = after;
                continue;
            }
            let Some((&tag, after)) = rest.split_first() else { break };
            rest = after;
            let high = usize::from(tag >> 2);
            let (bytes, back) = match tag & 3 {
                0 => {
                    let extra = high.saturating_sub(59);
                    let len = if extra == 0 { high } else { take_number(&mut rest, extra)? };
                    self.literal_left = len.checked_add(1)?;
                    continue;
                }
                1 => {
                    let low = take_number(&mut rest, 1)?;
                    ((high & 7).saturating_add(4), (usize::from(tag >> 5) << 8) | low)
                }
                2 => (high.saturating_add(1), take_number(&mut rest, 2)?),
                _ => (high.saturating_add(1), take_number(&mut rest, 4)?),
            };
            if back > self.written || back > HISTORY_BYTES || !window.repeat(back, bytes) {
                return None;
            }
            self.add_written(bytes)?;
        }
        *at = self.end.saturating_sub(rest.len());
        Some(())
    }

    fn add_written(&mut self, bytes: usize) -> Option<()> {
        self.written = self.written.saturating_add(bytes);
        (self.written <= self.claimed).then_some(())
    }
}

/// Takes a little-endian number of one to four bytes.
fn take_number(bytes: &mut &[u8], len: usize) -> Option<usize> {
    let (number, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte)))
}

//! Snappy: in the framing of xerial's snappy-java, or one raw block.
//!
//! A block that is not large is decompressed whole. Of a larger one elements are decoded until a piece is full.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::window::Window;
use super::{Broken, Progress};

/// Bytes that a copy may reach back in a block that is decoded piece by piece. Encoders work on 64 KiB at a time, klauspost's on
/// 4 MiB.
const HISTORY_BYTES: usize = 4 << 20;

/// Blocks up to this size are decompressed whole.
const WHOLE_BYTES_MAX: usize = 512 << 10;

/// Bytes after which a step ends.
const PIECE_BYTES: usize = 64 << 10;

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";

/// Magic, version and lowest compatible version.
const XERIAL_HEAD_BYTES: usize = 16;

/// Three bytes of snappy become 64 at most.
const RATIO_MAX: usize = 22;

#[derive(Default)]
pub(super) struct Snappy {
    framing: Framing,
    block: Option<Block>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Framing {
    /// Nothing was looked at yet.
    #[default]
    Unknown,
    Xerial,
    Raw,
}

/// A block that is being decoded.
struct Block {
    /// Behind its last stored byte.
    end: usize,
    written: usize,
    /// Bytes that it says it holds.
    claimed: usize,
    /// Of a literal that was begun.
    literal_left: usize,
}

impl Snappy {
    /// Decodes a block, or a piece of a large one.
    pub(super) fn step(
        &mut self,
        stored: &[u8],
        at: &mut usize,
        window: &mut Window,
        left: usize,
    ) -> Result<Progress, Broken> {
        let ended = |at: usize| if at >= stored.len() { Progress::Ended } else { Progress::More };
        if self.block.is_none() {
            let (start, end) = self.next_block(stored, *at).ok_or(Broken::Corrupt)?;
            let bytes = stored.get(start..end).ok_or(Broken::Corrupt)?;
            if bytes.is_empty() && self.framing == Framing::Xerial && start == XERIAL_HEAD_BYTES {
                // Nothing behind the head.
                *at = start;
                return Ok(ended(start));
            }
            let claimed = snap::raw::decompress_len(bytes).map_err(|_| Broken::Corrupt)?;
            if claimed > bytes.len().saturating_mul(RATIO_MAX) {
                return Err(Broken::Corrupt);
            }
            if claimed > left {
                return Err(Broken::TooLarge);
            }
            if claimed <= WHOLE_BYTES_MAX {
                let room = window.room(claimed);
                snap::raw::Decoder::new().decompress(bytes, room).map_err(|_| Broken::Corrupt)?;
                window.written(claimed);
                *at = end;
                return Ok(ended(end));
            }
            // Its length, in front of the elements: seven bits a byte.
            let len_bytes = bytes.iter().position(|byte| byte & 0x80 == 0).ok_or(Broken::Corrupt)?;
            *at = start.saturating_add(len_bytes).saturating_add(1);
            self.block = Some(Block { end, written: 0, claimed, literal_left: 0 });
            window.keep_history(HISTORY_BYTES);
        }
        let block = self.block.as_mut().ok_or(Broken::Corrupt)?;
        block.step(stored, at, window).ok_or(Broken::Corrupt)?;
        if *at < block.end || block.literal_left > 0 {
            return Ok(Progress::More);
        }
        if block.written != block.claimed {
            return Err(Broken::Corrupt);
        }
        self.block = None;
        window.keep_history(0);
        Ok(ended(*at))
    }

    /// Where the next block begins and ends.
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
    /// Decodes elements until a piece is written. `None`: corrupt.
    fn step(&mut self, stored: &[u8], at: &mut usize, window: &mut Window) -> Option<()> {
        let stop = self.written.saturating_add(PIECE_BYTES);
        let mut rest = stored.get(*at..self.end)?;
        while self.written < stop {
            if self.literal_left > 0 {
                let bytes = self.literal_left.min(PIECE_BYTES);
                let (literal, behind) = rest.split_at_checked(bytes)?;
                window.push(literal);
                self.literal_left = self.literal_left.saturating_sub(bytes);
                self.note(bytes)?;
                rest = behind;
                continue;
            }
            let Some((&tag, behind)) = rest.split_first() else { break };
            rest = behind;
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
            self.note(bytes)?;
        }
        *at = self.end.saturating_sub(rest.len());
        Some(())
    }

    fn note(&mut self, bytes: usize) -> Option<()> {
        self.written = self.written.saturating_add(bytes);
        (self.written <= self.claimed).then_some(())
    }
}

/// A number of one to four bytes, least first.
fn take_number(bytes: &mut &[u8], len: usize) -> Option<usize> {
    let (number, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte)))
}

//! Compression of a batch's records, and bounded decompression.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::fmt;
use std::io::Write;

use bytes::{BufMut, BytesMut};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::error::BatchError;
use super::unpack::Unpacker;
use crate::limits::DECOMPRESSED_BYTES_MAX;

/// Compression codec of a batch. The numbers are those in the batch's attributes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Compression {
    /// No compression.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy in the framing of xerial's snappy-java, as every Kafka client writes it. Raw snappy is accepted too.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl core::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL.iter().find(|codec| codec.name() == name).copied().ok_or(UnknownCompression)
    }
}

/// A name that is not in [`Compression::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown compression; the known ones are none, gzip, snappy, lz4 and zstd")]
pub struct UnknownCompression;

/// Magic, version and lowest compatible version.
const XERIAL_HEAD: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes that snappy-java compresses at a time.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

impl Compression {
    /// Every codec.
    pub const ALL: &'static [Self] = &[Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns the codec with this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns the codec's name in Kafka's `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses `stored` into `out`, up to [`DECOMPRESSED_BYTES_MAX`]. Replaces the content of `out`.
    ///
    /// Memory grows with the bytes produced, not with the size that the data claims.
    pub fn decompress(self, stored: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        Unpacker::default().unpack(self, DECOMPRESSED_BYTES_MAX, stored, out)
    }
}

/// Codec contexts kept from batch to batch; see [`BatchBuilder::swap_compressor`](super::BatchBuilder::swap_compressor).
#[derive(Default)]
pub struct Compressor {
    /// How hard gzip tries: the other codecs are fast enough with their defaults.
    gzip_level: flate2::Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    snappy: Option<snap::raw::Encoder>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Creates contexts that give up some of gzip's compression for several times the speed.
    pub(super) fn fast() -> Self {
        Self { gzip_level: flate2::Compression::fast(), ..Self::default() }
    }

    /// Appends `raw`, compressed, to `out`. Returns false and leaves `out` unchanged if the result would not be smaller.
    pub(super) fn compress(&mut self, codec: Compression, raw: &[u8], out: &mut BytesMut) -> bool {
        let start = out.len();
        let done = match codec {
            Compression::None => None,
            Compression::Gzip => gzip(raw, self.gzip_level, out),
            Compression::Snappy => self.frame_snappy(raw, out),
            Compression::Lz4 => lz4(raw, out),
            Compression::Zstd => self.zstd(raw, out),
        };
        let smaller = done.is_some() && out.len().saturating_sub(start) < raw.len();
        if !smaller {
            out.truncate(start);
        }
        smaller
    }

    fn frame_snappy(&mut self, raw: &[u8], out: &mut BytesMut) -> Option<()> {
        let encoder = self.snappy.get_or_insert_with(snap::raw::Encoder::new);
        out.put_slice(&XERIAL_HEAD);
        for block in raw.chunks(XERIAL_BLOCK_BYTES) {
            let len_at = out.len();
            let block_at = len_at.checked_add(4)?;
            out.resize(block_at.checked_add(snap::raw::max_compress_len(block.len()))?, 0);
            let len = encoder.compress(block, out.get_mut(block_at..)?).ok()?;
            out.truncate(block_at.checked_add(len)?);
            out.get_mut(len_at..block_at)?.copy_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
        }
        Some(())
    }

    fn zstd(&mut self, raw: &[u8], out: &mut BytesMut) -> Option<()> {
        let compressor = match &mut self.zstd {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).ok()?),
        };
        // Limit the output to the size of the input: a larger result is discarded anyway.
        let start = out.len();
        out.resize(start.checked_add(raw.len())?, 0);
        let len = compressor.compress_to_buffer(raw, out.get_mut(start..)?).ok()?;
        out.truncate(start.checked_add(len)?);
        Some(())
    }
}

fn gzip(raw: &[u8], level: flate2::Compression, out: &mut BytesMut) -> Option<()> {
    let mut encoder = flate2::write::GzEncoder::new(out.writer(), level);
    encoder.write_all(raw).ok()?;
    encoder.finish().ok()?;
    Some(())
}

/// Independent blocks of 64 KiB, the only ones that Kafka's Java client reads.
fn lz4_frame() -> FrameInfo {
    FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB)
}

fn lz4(raw: &[u8], out: &mut BytesMut) -> Option<()> {
    let mut encoder = FrameEncoder::with_frame_info(lz4_frame(), out.writer());
    encoder.write_all(raw).ok()?;
    encoder.finish().ok()?;
    Some(())
}

/// Level of zstd for batches that are compressed piece by piece: with its default, an encoder takes several times the memory.
const ZSTD_STREAM_LEVEL: i32 = 1;

/// Compresses the records of a batch piece by piece, as fast as its codec can.
pub(super) enum StreamCompressor {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Snappy { encoder: Box<snap::raw::Encoder>, block: Vec<u8>, out: Vec<u8> },
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl StreamCompressor {
    /// Creates a compressor whose output follows `head`. `None`: the codec compresses nothing, or there is no memory.
    pub(super) fn new(codec: Compression, head: &[u8]) -> Option<Self> {
        let mut out = head.to_vec();
        Some(match codec {
            Compression::None => return None,
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::fast())),
            Compression::Snappy => {
                out.extend_from_slice(&XERIAL_HEAD);
                let block = Vec::with_capacity(XERIAL_BLOCK_BYTES);
                Self::Snappy { encoder: Box::new(snap::raw::Encoder::new()), block, out }
            }
            Compression::Lz4 => Self::Lz4(Box::new(FrameEncoder::with_frame_info(lz4_frame(), out))),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_STREAM_LEVEL).ok()?),
        })
    }

    /// Returns the bytes of the output so far.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().len(),
            Self::Snappy { out, .. } => out.len(),
            Self::Lz4(encoder) => encoder.get_ref().len(),
            Self::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Compresses more bytes.
    pub(super) fn put(&mut self, raw: &[u8]) {
        let done = match self {
            Self::Gzip(encoder) => encoder.write_all(raw),
            Self::Lz4(encoder) => encoder.write_all(raw),
            Self::Zstd(encoder) => encoder.write_all(raw),
            Self::Snappy { encoder, block, out } => {
                let mut rest = raw;
                while !rest.is_empty() {
                    let room = XERIAL_BLOCK_BYTES.saturating_sub(block.len()).min(rest.len());
                    let (head, tail) = rest.split_at(room);
                    block.extend_from_slice(head);
                    rest = tail;
                    if block.len() == XERIAL_BLOCK_BYTES {
                        snappy_block(encoder, block, out);
                    }
                }
                Ok(())
            }
        };
        done.expect("a write to memory does not fail");
    }

    /// Returns the output.
    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.finish().expect("a write to memory does not fail"),
            Self::Lz4(encoder) => encoder.finish().expect("a write to memory does not fail"),
            Self::Zstd(encoder) => encoder.finish().expect("a write to memory does not fail"),
            Self::Snappy { mut encoder, mut block, mut out } => {
                snappy_block(&mut encoder, &mut block, &mut out);
                out
            }
        }
    }
}

/// Compresses a block of snappy, if there is one, and empties it.
fn snappy_block(encoder: &mut snap::raw::Encoder, block: &mut Vec<u8>, out: &mut Vec<u8>) {
    if block.is_empty() {
        return;
    }
    let compressed = encoder.compress_vec(block).expect("a block is small");
    out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
    out.extend_from_slice(&compressed);
    block.clear();
}

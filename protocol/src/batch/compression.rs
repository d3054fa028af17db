//! Compression of a batch's records, and bounded decompression.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::fmt;
use std::io::Write;

use bytes::{BufMut, BytesMut};

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

/// Writes independent blocks of 64 KiB, the only ones that Kafka's Java client reads.
fn lz4(raw: &[u8], out: &mut BytesMut) -> Option<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out.writer());
    encoder.write_all(raw).ok()?;
    encoder.finish().ok()?;
    Some(())
}

//! The frame header, which precedes every payload.

use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::lag;

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 64;

/// Alignment of frames, in bytes.
pub const FRAME_ALIGN: usize = 8;

/// Value of the first field after the header checksum.
pub const FRAME_MAGIC: u16 = 0x5748;

/// Version of the frame layout.
pub const FRAME_VERSION: u8 = 3;

/// The version before frames had a commit index. Its frames can still be read.
pub const FRAME_VERSION_WITHOUT_COMMIT: u8 = 2;

/// The version before frames had a [`mac`](FrameHeader::mac). Its frames can still be read.
pub const FRAME_VERSION_WITHOUT_MAC: u8 = 1;

/// Content of a frame's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// A record batch (Kafka's RecordBatch v2), with its offset and leader epoch stamped.
    Batch = 1,
    /// Zero bytes, so that the next frame starts on a page boundary. Carries the index of the frame that follows; takes no index
    /// itself.
    Padding = 2,
    /// A leader's first frame of its epoch. Has an index but no offset.
    EpochStart = 3,
    /// A configuration of the partition's replicas, in a form that only replication knows. Has an index but no offset.
    Configuration = 4,
}

impl FrameKind {
    /// Returns the kind with this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Batch),
            2 => Some(Self::Padding),
            3 => Some(Self::EpochStart),
            4 => Some(Self::Configuration),
            _ => None,
        }
    }
}

/// Header before every payload. `docs/disk-format.md` describes each field.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FrameHeader {
    /// CRC-32C of bytes 4..64.
    pub header_crc: U32,
    /// [`FRAME_MAGIC`].
    pub magic: U16,
    /// [`FRAME_VERSION`], or an older one.
    pub version: u8,
    /// A [`FrameKind`].
    pub kind: u8,
    /// Bytes of payload, without the alignment after it.
    pub payload_bytes: U32,
    /// Checksum of the payload; see [the module](super).
    pub payload_crc: U32,
    /// Incarnation of the extent this frame was written for.
    pub incarnation: U64,
    /// Replication index.
    pub index: U64,
    /// Keyed hash of the extent's incarnation and the frame's position in it, which only the store can compute. It distinguishes a
    /// frame that recovery finds by searching from the same bytes inside a record. In frames of version 1: the durable index.
    pub mac: U64,
    /// Offset of the first record of a batch; for other kinds, of the next record.
    pub base_offset: I64,
    /// Number of offsets that a batch covers, minus one; 0 for other kinds.
    pub last_offset_delta: U32,
    /// Epoch of the leader that appended this frame.
    pub leader_epoch: I32,
    /// [`crate::ids::TopicPartition::tag`].
    pub partition_tag: U32,
    /// The index minus [`FrameHeader::durable_index`], rounded up to a count that fits 16 bits. In frames of version 2: the lower half of
    /// the exact difference. In frames of version 1: zero.
    pub undurable: U16,
    /// The index minus [`FrameHeader::commit_index`], encoded like `undurable`. In frames of version 2: the upper half of `undurable`. In frames of
    /// version 1: zero.
    pub uncommitted: U16,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<FrameHeader>() == FRAME_HEADER_BYTES);
    assert!(offset_of!(FrameHeader, header_crc) == 0);
    assert!(offset_of!(FrameHeader, magic) == 4);
    assert!(offset_of!(FrameHeader, version) == 6);
    assert!(offset_of!(FrameHeader, kind) == 7);
    assert!(offset_of!(FrameHeader, payload_bytes) == 8);
    assert!(offset_of!(FrameHeader, payload_crc) == 12);
    assert!(offset_of!(FrameHeader, incarnation) == 16);
    assert!(offset_of!(FrameHeader, index) == 24);
    assert!(offset_of!(FrameHeader, mac) == 32);
    assert!(offset_of!(FrameHeader, base_offset) == 40);
    assert!(offset_of!(FrameHeader, last_offset_delta) == 48);
    assert!(offset_of!(FrameHeader, leader_epoch) == 52);
    assert!(offset_of!(FrameHeader, partition_tag) == 56);
    assert!(offset_of!(FrameHeader, undurable) == 60);
    assert!(offset_of!(FrameHeader, uncommitted) == 62);
    assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));
};

/// Returns the bytes of a frame with this payload, including alignment.
#[inline]
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

/// Why bytes are not a valid header or frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// All bytes of the header are zero: nothing was ever written here.
    #[error("no frame: zero bytes")]
    Zero,
    /// Fewer bytes than the header or its payload requires.
    #[error("truncated frame: {have} bytes of {need}")]
    Truncated {
        /// Bytes present.
        have: usize,
        /// Bytes required.
        need: usize,
    },
    /// The magic number does not match.
    #[error("not a frame (magic {0:#06x})")]
    Magic(u16),
    /// The header checksum does not match.
    #[error("frame header checksum mismatch")]
    HeaderChecksum,
    /// A version this build does not know.
    #[error("frame version {0} is newer than this build understands")]
    Version(u8),
    /// A kind this build does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Reserved bits are set.
    #[error("frame has reserved bits set that this build does not support")]
    Flags,
    /// The payload checksum does not match.
    #[error("frame payload checksum mismatch")]
    PayloadChecksum,
    /// The payload is a batch whose header disagrees with the frame's.
    #[error("frame header and batch header disagree about the {0}")]
    Differs(&'static str),
    /// Padding or alignment bytes are not zero.
    #[error("padding or alignment bytes are not zero")]
    NotZero,
}

impl FrameHeader {
    /// Computes the checksum of bytes 4..64 of this header.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c(self.as_bytes().split_at(4).1)
    }

    /// Returns this header with its checksum set.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.header_crc = U32::new(self.checksum());
        self
    }

    /// Returns the header at the start of `bytes` after checking magic, checksum, version, kind and reserved bits.
    pub fn parse(bytes: &[u8]) -> Result<(&Self, FrameKind), FrameError> {
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(FrameError::Truncated { have: bytes.len(), need: FRAME_HEADER_BYTES });
        };
        if header.magic.get() != FRAME_MAGIC {
            let zero = header.as_bytes().iter().all(|b| *b == 0);
            return Err(if zero { FrameError::Zero } else { FrameError::Magic(header.magic.get()) });
        }
        if header.header_crc.get() != header.checksum() {
            return Err(FrameError::HeaderChecksum);
        }
        let (undurable, uncommitted) = (header.undurable.get(), header.uncommitted.get());
        let is_valid = match header.version {
            FRAME_VERSION_WITHOUT_MAC => undurable == 0 && uncommitted == 0,
            FRAME_VERSION_WITHOUT_COMMIT => header.wide_undurable() <= header.index.get(),
            FRAME_VERSION => undurable.max(uncommitted) <= lag::encode(header.index.get()),
            version => return Err(FrameError::Version(version)),
        };
        if !is_valid {
            return Err(FrameError::Flags);
        }
        let kind = FrameKind::from_u8(header.kind).ok_or(FrameError::Kind(header.kind))?;
        Ok((header, kind))
    }

    /// Returns the bytes of the whole frame, including alignment.
    #[inline]
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes.get() as usize)
    }

    /// Returns the durable index: every frame with a lower index was durable when this one was written. Recovery uses it to decide
    /// whether a damaged earlier frame had been acknowledged.
    #[inline]
    pub fn durable_index(&self) -> u64 {
        match self.version {
            FRAME_VERSION_WITHOUT_MAC => self.mac.get(),
            FRAME_VERSION_WITHOUT_COMMIT => self.index.get().saturating_sub(self.wide_undurable()),
            _ => self.index.get().saturating_sub(lag::decode(self.undurable.get())),
        }
    }

    /// Returns the commit index: every frame with a lower index was known to be committed when this one was written. Frames of
    /// versions without it are from logs with a single replica, where durable frames are committed.
    #[inline]
    pub fn commit_index(&self) -> u64 {
        match self.version {
            FRAME_VERSION_WITHOUT_MAC | FRAME_VERSION_WITHOUT_COMMIT => self.durable_index(),
            _ => self.index.get().saturating_sub(lag::decode(self.uncommitted.get())),
        }
    }

    /// Returns `undurable` of version 2, which had 32 bits.
    #[inline]
    fn wide_undurable(&self) -> u64 {
        u64::from(self.undurable.get()) | u64::from(self.uncommitted.get()) << 16
    }

    /// Returns the offset after the last record of this frame.
    #[inline]
    pub fn next_offset(&self) -> i64 {
        match FrameKind::from_u8(self.kind) {
            Some(FrameKind::Batch) => {
                let delta = i64::from(self.last_offset_delta.get()) + 1;
                self.base_offset.get().saturating_add(delta)
            }
            _ => self.base_offset.get(),
        }
    }
}

//! Layout of a state log's file: one header block, the base, then records.
//!
//! The layout is in `docs/disk-format.md`; the assertions below hold it. All integers are little-endian. Every byte of the
//! header block, the base and the records, padding included, is under a checksum.

use bytes::Bytes;
use highwater_protocol::ids::ClusterId;
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First field after the checksum of a file's header: "HWSL".
pub const FILE_MAGIC: u32 = u32::from_le_bytes(*b"HWSL");

/// First field after the checksum of a record: "HWSR".
pub const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"HWSR");

/// Version of the layout. Version 1 had a snapshot of one piece without a length, and no [`FileHeader::snapshot_count`].
pub const FORMAT_VERSION: u32 = 2;

/// The oldest version that this build reads.
pub const FORMAT_VERSION_OLDEST: u32 = 1;

/// Everything is written in whole blocks of this many bytes.
pub const BLOCK_BYTES: usize = PAGE_BYTES;

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 64;

/// Chunks of the base that have a checksum of their own, at most.
pub const BASE_CHUNKS_MAX: usize = 992;

/// Space for records in a file, beyond twice its base.
pub const RECORDS_BYTES_MAX: u64 = 16 << 20;

/// [`FileHeader::snapshot_bytes`] when there is no snapshot.
pub const NO_SNAPSHOT: u64 = u64::MAX;

/// The first block of a file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FileHeader {
    /// CRC-32C of bytes 4..4096.
    pub header_crc: U32,
    /// [`FILE_MAGIC`].
    pub magic: U32,
    /// [`FORMAT_VERSION`].
    pub version: U32,
    /// Whose state this is.
    pub purpose: [u8; 4],
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// Which rewrite of the file this is; the newer of two copies wins.
    pub generation: U64,
    /// Number of the first payload after the base.
    pub first_seq: U64,
    /// Size of the file.
    pub file_bytes: U64,
    /// Bytes of the snapshot at the start of the base, or [`NO_SNAPSHOT`].
    pub snapshot_bytes: U64,
    /// Bytes of the payloads carried over after the snapshot, each preceded by its length.
    pub carried_bytes: U64,
    /// How many those are.
    pub carried_count: U32,
    /// Bytes of the base under one checksum; a multiple of 4096.
    pub chunk_bytes: U32,
    /// Checksums in use.
    pub chunk_count: U32,
    /// Which log of this purpose it is, plus one. Zero in files of versions that did not say.
    pub number: U32,
    /// Pieces of the snapshot, each preceded by its length (u32). Zero in version 1, where the snapshot is one piece without a length.
    pub snapshot_count: U32,
    /// Must be zero.
    pub reserved: [u8; 36],
    /// CRC-32C of each chunk of the base.
    pub chunk_crcs: [U32; BASE_CHUNKS_MAX],
}

/// Before every record. A record is the header, its payloads, and zero bytes up to the next block.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    /// CRC-32C of bytes 4..64.
    pub header_crc: U32,
    /// [`RECORD_MAGIC`].
    pub magic: U32,
    /// The file's generation: a record of an older one must never look valid.
    pub generation: U64,
    /// Number of its first payload.
    pub first_seq: U64,
    /// Where in the file it belongs.
    pub position: U64,
    /// Bytes of its payloads, each preceded by its length (u32).
    pub payload_bytes: U32,
    /// How many payloads.
    pub count: U32,
    /// CRC-32C of everything after this header up to the end of the record's last block.
    pub payload_crc: U32,
    /// As in the file's header.
    pub purpose: [u8; 4],
    /// As in the file's header.
    pub cluster: [u8; 16],
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<FileHeader>() == BLOCK_BYTES);
    assert!(offset_of!(FileHeader, generation) == 32);
    assert!(offset_of!(FileHeader, chunk_count) == 80);
    assert!(offset_of!(FileHeader, number) == 84);
    assert!(offset_of!(FileHeader, snapshot_count) == 88);
    assert!(offset_of!(FileHeader, chunk_crcs) == 128);
    assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);
    assert!(offset_of!(RecordHeader, payload_bytes) == 32);
    assert!(offset_of!(RecordHeader, cluster) == 48);
};

/// Whose log a file is expected to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Four letters that name the kind of state.
    pub purpose: [u8; 4],
    /// The cluster.
    pub cluster: ClusterId,
    /// Which of the logs with this purpose: the number of the store whose map it holds. 0 where there is only one.
    pub number: u16,
}

/// Why a first block is not the header of this owner's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderFault {
    /// There is no such file.
    #[error("the file is missing")]
    Missing,
    /// Magic or checksum do not match.
    #[error("its header block is damaged")]
    Damaged,
    /// Made by a newer version.
    #[error("it has format version {0}, newer than this build understands")]
    Version(u32),
    /// Another kind of state.
    #[error("it holds another kind of state")]
    Purpose([u8; 4]),
    /// Another cluster's.
    #[error("it belongs to cluster {0}")]
    Cluster(ClusterId),
    /// The same kind of state, of another store.
    #[error("it belongs to store {0}")]
    Number(u32),
}

/// The header at the start of a file, checked.
pub fn parse_header(image: &[u8], owner: Owner) -> Result<&FileHeader, HeaderFault> {
    let (header, _) = FileHeader::ref_from_prefix(image).map_err(|_| HeaderFault::Damaged)?;
    let crc = crc32c::crc32c(header.as_bytes().split_at(4).1);
    if header.magic.get() != FILE_MAGIC || header.header_crc.get() != crc {
        return Err(HeaderFault::Damaged);
    }
    if !(FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&header.version.get()) {
        return Err(HeaderFault::Version(header.version.get()));
    }
    if header.cluster != owner.cluster.0 {
        return Err(HeaderFault::Cluster(ClusterId(header.cluster)));
    }
    if header.purpose != owner.purpose {
        return Err(HeaderFault::Purpose(header.purpose));
    }
    if let Some(number) = header.number.get().checked_sub(1)
        && number != u32::from(owner.number)
    {
        return Err(HeaderFault::Number(number));
    }
    if header.is_consistent() { Ok(header) } else { Err(HeaderFault::Damaged) }
}

/// Whose file this is, if its header's checksum is right.
pub fn peek_owner(image: &[u8]) -> Option<Owner> {
    let (header, _) = FileHeader::ref_from_prefix(image).ok()?;
    let crc = crc32c::crc32c(header.as_bytes().split_at(4).1);
    let right = header.magic.get() == FILE_MAGIC && header.header_crc.get() == crc;
    let number = header.number.get().saturating_sub(1) as u16;
    right.then_some(Owner { purpose: header.purpose, cluster: ClusterId(header.cluster), number })
}

impl FileHeader {
    /// Whether its numbers agree with each other, so that none of them can lead a reader astray.
    fn is_consistent(&self) -> bool {
        let chunk_bytes = u64::from(self.chunk_bytes.get());
        let Some(base_bytes) = self.snapshot_len().checked_add(self.carried_bytes.get()) else {
            return false;
        };
        let chunks = u64::from(self.chunk_count.get());
        chunk_bytes > 0
            && chunk_bytes.is_multiple_of(BLOCK_BYTES as u64)
            && chunks <= BASE_CHUNKS_MAX as u64
            && base_bytes <= chunks * chunk_bytes
            && self.file_bytes.get().is_multiple_of(BLOCK_BYTES as u64)
            && base_bytes < self.file_bytes.get()
            && self.file_bytes.get() <= 2 * base_bytes + RECORDS_BYTES_MAX
    }

    /// Bytes of the base, in whole blocks.
    pub fn base_bytes(&self) -> u64 {
        self.snapshot_len().saturating_add(self.carried_bytes.get()).next_multiple_of(BLOCK_BYTES as u64)
    }

    /// Bytes of the snapshot; 0 if there is none.
    pub fn snapshot_len(&self) -> u64 {
        match self.snapshot_bytes.get() {
            NO_SNAPSHOT => 0,
            n => n,
        }
    }

    /// The pieces of the snapshot and the carried payloads in a base of this header. `None` if they contradict it.
    pub fn split_base(&self, base: &[u8]) -> Option<(Vec<Bytes>, Vec<Bytes>)> {
        let (snapshot, rest) = base.split_at_checked(usize::try_from(self.snapshot_len()).ok()?)?;
        let carried = rest.get(..usize::try_from(self.carried_bytes.get()).ok()?)?;
        let pieces = match self.version.get() {
            1 if self.snapshot_bytes.get() == NO_SNAPSHOT => Vec::new(),
            1 => vec![Bytes::copy_from_slice(snapshot)],
            _ => split_payloads(snapshot, self.snapshot_count.get())?,
        };
        Some((pieces, split_payloads(carried, self.carried_count.get())?))
    }

    /// Where records begin.
    pub fn records_at(&self) -> u64 {
        BLOCK_BYTES as u64 + self.base_bytes()
    }
}

/// A record with these payloads (already each preceded by its length), in whole blocks.
pub fn encode_record(
    owner: Owner,
    generation: u64,
    first_seq: u64,
    position: u64,
    payloads: &[u8],
    count: u32,
) -> AlignedBuf {
    let mut record = AlignedBuf::zeroed(record_bytes(payloads.len()));
    record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payloads.len()].copy_from_slice(payloads);
    let mut header = RecordHeader {
        header_crc: U32::ZERO,
        magic: U32::new(RECORD_MAGIC),
        generation: U64::new(generation),
        first_seq: U64::new(first_seq),
        position: U64::new(position),
        payload_bytes: U32::new(payloads.len() as u32),
        count: U32::new(count),
        payload_crc: U32::new(crc32c::crc32c(&record[RECORD_HEADER_BYTES..])),
        purpose: owner.purpose,
        cluster: owner.cluster.0,
    };
    header.header_crc = U32::new(crc32c::crc32c(header.as_bytes().split_at(4).1));
    record[..RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
    record
}

/// Bytes of a record with this many bytes of payloads, in whole blocks.
pub const fn record_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(BLOCK_BYTES)
}

/// A record found in a file.
pub struct FoundRecord<'a> {
    /// Its header.
    pub header: &'a RecordHeader,
    /// Its payloads, each preceded by its length.
    pub payloads: &'a [u8],
    /// All of it.
    pub whole: &'a [u8],
}

/// The record at `position` of a file of this owner and generation, if a whole valid one is there.
pub fn parse_record(image: &[u8], position: u64, owner: Owner, generation: u64) -> Option<FoundRecord<'_>> {
    let rest = image.get(usize::try_from(position).ok()?..)?;
    let (header, _) = RecordHeader::ref_from_prefix(rest).ok()?;
    let belongs = header.magic.get() == RECORD_MAGIC
        && header.generation.get() == generation
        && header.position.get() == position
        && header.purpose == owner.purpose
        && header.cluster == owner.cluster.0;
    if !belongs || header.header_crc.get() != crc32c::crc32c(header.as_bytes().split_at(4).1) {
        return None;
    }
    let payload_bytes = header.payload_bytes.get() as usize;
    let whole = rest.get(..record_bytes(payload_bytes))?;
    let body = whole.get(RECORD_HEADER_BYTES..)?;
    if crc32c::crc32c(body) != header.payload_crc.get() {
        return None;
    }
    Some(FoundRecord { header, payloads: body.get(..payload_bytes)?, whole })
}

/// Adds a payload preceded by its length.
pub fn push_payload(into: &mut Vec<u8>, payload: &[u8]) {
    into.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    into.extend_from_slice(payload);
}

/// The payloads in bytes made by [`push_payload`]; `None` if they are not `count` whole ones.
pub fn split_payloads(mut bytes: &[u8], count: u32) -> Option<Vec<Bytes>> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        payloads.push(Bytes::copy_from_slice(payload));
        bytes = rest;
    }
    bytes.is_empty().then_some(payloads)
}

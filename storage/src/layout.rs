//! Where bytes lie: names of slabs, the header of an extent, the sizes that both stand on. Field by field in `docs/disk-format.md`.
//!
//! ```text
//! store-000/slab-000000      |extent          |extent  |free    |extent                          | ...
//!                            |header|frames...|
//!                             4 KiB
//! ```
//!
//! An extent's size is a power of two and its position in the slab a multiple of its size, so a header can only be at
//! multiples of the smallest extent: that is how the map of a store is rebuilt when it is lost.

use highwater_protocol::ids::{
    ClusterId, ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset, PartitionIndex, StoreId, TopicId,
    TopicPartition,
};
use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::mac::{MAC_KEY_BYTES, MacKey, StoreMacs};
use crate::position::{INCARNATION_MAX, OFFSET_MAX};

/// Granule of every position and length on disk.
pub use highwater_runtime::buf::PAGE_BYTES;

/// Bytes of the block before an extent's frames.
pub const EXTENT_HEADER_BYTES: usize = PAGE_BYTES;

/// How an extent header begins, after its checksum: "HWEXTENT".
pub const EXTENT_MAGIC: u64 = u64::from_le_bytes(*b"HWEXTENT");

/// Version of the layout of extents and slabs.
pub const EXTENT_VERSION: u16 = 3;

/// The version before extents had a place in a chain apart from their incarnation. Its extents are read, and nothing is put into them.
pub const EXTENT_VERSION_WITHOUT_SEQUENCE: u16 = 2;

/// The version before frames had codes ([`crate::mac`]). Its extents are read, and nothing is put into them.
pub const EXTENT_VERSION_WITHOUT_MACS: u16 = 1;

/// Binary logarithms of the sizes that an extent can have: a header and a frame at least, and positions within it are 32 bits.
pub const EXTENT_LOG2_BYTES: std::ops::RangeInclusive<u8> = 12..=30;

/// The number of a slab within its store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlabId(pub u32);

/// Where an extent lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The slab.
    pub slab: SlabId,
    /// First byte within the slab; a multiple of the extent's size.
    pub at: u64,
}

/// The name of a slab's file.
pub fn slab_name(slab: SlabId) -> String {
    format!("slab-{:06}", slab.0)
}

/// The slab whose file has this name, if it is a slab's.
pub fn parse_slab_name(name: &str) -> Option<SlabId> {
    let digits = name.strip_prefix("slab-")?;
    if digits.len() < 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let id = SlabId(digits.parse().ok()?);
    (slab_name(id) == name).then_some(id)
}

/// The name of a store's folder.
pub fn store_dir_name(store: StoreId) -> String {
    format!("store-{:03}", store.0)
}

/// The store whose folder has this name, if it is a store's.
pub fn parse_store_dir_name(name: &str) -> Option<StoreId> {
    let digits = name.strip_prefix("store-")?;
    if digits.len() < 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let id = StoreId(digits.parse().ok()?);
    (store_dir_name(id) == name).then_some(id)
}

/// Path stem of a store's state log within its folder: files `state.a` and `state.b`.
pub const STATE_STEM: &str = "state";

/// Purpose tag of a store's state log.
pub const STATE_PURPOSE: [u8; 4] = *b"STOR";

/// Bits of an extent header's `flags`: frames may be missing between the extent's frames.
const FLAG_GAPS: u32 = 1;

/// The extent was abandoned: the log was cut off before it.
const FLAG_ABANDONED: u32 = 2;

/// The partition had a configuration of its replicas when the extent was begun.
const FLAG_CONFIGURED: u32 = 4;

/// Where an extent ends, as its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentEnd {
    /// Where its last frame ends.
    pub position: u32,
    /// Index of the first frame of the next extent.
    pub index: LogIndex,
    /// Offset of the first record of the next extent.
    pub offset: Offset,
}

/// The content of an extent's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentId {
    /// The cluster whose data this is.
    pub cluster: ClusterId,
    /// The store it belongs to.
    pub store: StoreId,
    /// Where it lies. A header found elsewhere was misdirected.
    pub place: Place,
    /// Version of this header.
    pub version: u16,
    /// Its size is two to the power of this.
    pub log2_bytes: u8,
    /// Its place in the chain of the partition's extents. In versions before 3 the incarnation.
    pub sequence: ExtentSequence,
    /// How often its content was rewritten: 0 as it was appended. It replaces extents of lower generations that begin within its range.
    pub generation: u32,
    /// This use of the space.
    pub incarnation: Incarnation,
    /// Whose log it holds.
    pub tp: TopicPartition,
    /// Index of its first frame.
    pub base_index: LogIndex,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Epoch of the frame with the base index, which compaction may have removed.
    pub leader_epoch: LeaderEpoch,
    /// Frames may be missing between its frames: it was compacted.
    pub has_gaps: bool,
    /// It was abandoned: the log was cut off before it.
    pub abandoned: bool,
    /// The partition had a configuration of its replicas when the extent was begun. If the map is lost and none is found, it is lost too.
    pub configured: bool,
    /// Where it ends. An extent that takes appends does not say. One that was rewritten says once it is whole; until then it counts for nothing.
    pub end: Option<ExtentEnd>,
    /// The codes of the store. None: it is from a version before there were any.
    pub macs: Option<StoreMacs>,
}

/// The first bytes of an extent; the rest of its first page is zero.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
struct ExtentHeader {
    /// CRC-32C of bytes 4..4096.
    crc: U32,
    version: U16,
    store: U16,
    magic: U64,
    cluster: [u8; 16],
    topic: [u8; 16],
    partition: U32,
    slab: U32,
    at: U64,
    incarnation: U64,
    base_index: U64,
    base_offset: I64,
    leader_epoch: I32,
    log2_bytes: u8,
    reserved: [u8; 3],
    mac_key: [u8; MAC_KEY_BYTES],
    macs_since: U64,
    sequence: U64,
    generation: U32,
    flags: U32,
    end_index: U64,
    end_offset: I64,
    end_position: U32,
    reserved_end: [u8; 4],
}

/// Bytes of the fields of an extent header.
pub const EXTENT_HEADER_FIELD_BYTES: usize = size_of::<ExtentHeader>();

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<ExtentHeader>() == 160);
    assert!(offset_of!(ExtentHeader, crc) == 0);
    assert!(offset_of!(ExtentHeader, version) == 4);
    assert!(offset_of!(ExtentHeader, store) == 6);
    assert!(offset_of!(ExtentHeader, magic) == 8);
    assert!(offset_of!(ExtentHeader, cluster) == 16);
    assert!(offset_of!(ExtentHeader, topic) == 32);
    assert!(offset_of!(ExtentHeader, partition) == 48);
    assert!(offset_of!(ExtentHeader, slab) == 52);
    assert!(offset_of!(ExtentHeader, at) == 56);
    assert!(offset_of!(ExtentHeader, incarnation) == 64);
    assert!(offset_of!(ExtentHeader, base_index) == 72);
    assert!(offset_of!(ExtentHeader, base_offset) == 80);
    assert!(offset_of!(ExtentHeader, leader_epoch) == 88);
    assert!(offset_of!(ExtentHeader, log2_bytes) == 92);
    assert!(offset_of!(ExtentHeader, reserved) == 93);
    assert!(offset_of!(ExtentHeader, mac_key) == 96);
    assert!(offset_of!(ExtentHeader, macs_since) == 112);
    assert!(offset_of!(ExtentHeader, sequence) == 120);
    assert!(offset_of!(ExtentHeader, generation) == 128);
    assert!(offset_of!(ExtentHeader, flags) == 132);
    assert!(offset_of!(ExtentHeader, end_index) == 136);
    assert!(offset_of!(ExtentHeader, end_offset) == 144);
    assert!(offset_of!(ExtentHeader, end_position) == 152);
    assert!(offset_of!(ExtentHeader, reserved_end) == 156);
    assert!(EXTENT_HEADER_BYTES.is_multiple_of(PAGE_BYTES));
};

/// Why a block is not an extent header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtentHeaderError {
    /// Every byte is zero: nothing was ever written here.
    #[error("no extent header: zero bytes")]
    Zero,
    /// Something else than a header.
    #[error("not an extent header")]
    Magic,
    /// A header once, damaged since.
    #[error("extent header checksum mismatch")]
    Checksum,
    /// Written by a newer version.
    #[error("extent version {0} is newer than this build understands")]
    Version(u16),
    /// The fields contradict each other.
    #[error("extent header with impossible fields")]
    Fields,
}

/// The key of the store in a header block of any version that has one: later versions have it at the same place.
pub(crate) fn key_in_block(block: &[u8; EXTENT_HEADER_BYTES]) -> MacKey {
    MacKey(ExtentHeader::ref_from_prefix(block).map_or([0; MAC_KEY_BYTES], |(header, _)| header.mac_key))
}

impl ExtentId {
    /// The header block of this extent.
    pub fn to_block(&self) -> [u8; EXTENT_HEADER_BYTES] {
        let has_sequence = self.version > EXTENT_VERSION_WITHOUT_SEQUENCE;
        assert!(self.macs.is_some() == (self.version > EXTENT_VERSION_WITHOUT_MACS));
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.has_gaps, FLAG_GAPS)
            | flag(self.abandoned, FLAG_ABANDONED)
            | flag(self.configured, FLAG_CONFIGURED);
        let mut header = ExtentHeader {
            crc: U32::new(0),
            version: U16::new(self.version),
            store: U16::new(self.store.0),
            magic: U64::new(EXTENT_MAGIC),
            cluster: self.cluster.0,
            topic: self.tp.topic.0,
            partition: U32::new(self.tp.partition.0),
            slab: U32::new(self.place.slab.0),
            at: U64::new(self.place.at),
            incarnation: U64::new(self.incarnation.0),
            base_index: U64::new(self.base_index.0),
            base_offset: I64::new(self.base_offset.0),
            leader_epoch: I32::new(self.leader_epoch.0),
            log2_bytes: self.log2_bytes,
            reserved: [0; 3],
            mac_key: self.macs.map_or([0; MAC_KEY_BYTES], |macs| macs.key.0),
            macs_since: U64::new(self.macs.map_or(0, |macs| macs.since.0)),
            sequence: U64::new(if has_sequence { self.sequence.0 } else { 0 }),
            generation: U32::new(self.generation),
            flags: U32::new(flags),
            end_index: U64::new(self.end.map_or(0, |end| end.index.0)),
            end_offset: I64::new(self.end.map_or(0, |end| end.offset.0)),
            end_position: U32::new(self.end.map_or(0, |end| end.position)),
            reserved_end: [0; 4],
        };
        let mut block = [0; EXTENT_HEADER_BYTES];
        block[..EXTENT_HEADER_FIELD_BYTES].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c::crc32c(&block[4..]));
        block[..EXTENT_HEADER_FIELD_BYTES].copy_from_slice(header.as_bytes());
        block
    }

    /// Reads a header block. It says where it believes to be; the caller compares that with where it was found.
    pub fn from_block(block: &[u8; EXTENT_HEADER_BYTES]) -> Result<Self, ExtentHeaderError> {
        let Ok((header, _)) = ExtentHeader::ref_from_prefix(block) else {
            return Err(ExtentHeaderError::Magic);
        };
        if header.magic.get() != EXTENT_MAGIC {
            let zero = block.iter().all(|b| *b == 0);
            return Err(if zero { ExtentHeaderError::Zero } else { ExtentHeaderError::Magic });
        }
        if header.crc.get() != crc32c::crc32c(&block[4..]) {
            return Err(ExtentHeaderError::Checksum);
        }
        let macs = match header.version.get() {
            EXTENT_VERSION_WITHOUT_MACS => None,
            EXTENT_VERSION_WITHOUT_SEQUENCE | EXTENT_VERSION => {
                let (key, since) = (MacKey(header.mac_key), Incarnation(header.macs_since.get()));
                Some(StoreMacs { key, since })
            }
            version => return Err(ExtentHeaderError::Version(version)),
        };
        let has_sequence = header.version.get() > EXTENT_VERSION_WITHOUT_SEQUENCE;
        let sequence = if has_sequence { header.sequence.get() } else { header.incarnation.get() };
        let end = ExtentEnd {
            position: header.end_position.get(),
            index: LogIndex(header.end_index.get()),
            offset: Offset(header.end_offset.get()),
        };
        let end = (end.position > 0).then_some(end);
        let numbers = [header.at.get(), header.incarnation.get(), sequence, header.base_index.get()];
        if header.flags.get() & !(FLAG_GAPS | FLAG_ABANDONED | FLAG_CONFIGURED) != 0
            || end.is_some_and(|end| !header.can_end_at(end))
            || !EXTENT_LOG2_BYTES.contains(&header.log2_bytes)
            || !header.at.get().is_multiple_of(1 << header.log2_bytes)
            || numbers.iter().any(|n| *n > INCARNATION_MAX)
            || !(0..OFFSET_MAX).contains(&header.base_offset.get())
            || macs.is_some_and(|macs| macs.since.0 > header.incarnation.get())
        {
            return Err(ExtentHeaderError::Fields);
        }
        Ok(Self {
            cluster: ClusterId(header.cluster),
            store: StoreId(header.store.get()),
            place: Place { slab: SlabId(header.slab.get()), at: header.at.get() },
            version: header.version.get(),
            log2_bytes: header.log2_bytes,
            sequence: ExtentSequence(sequence),
            generation: header.generation.get(),
            incarnation: Incarnation(header.incarnation.get()),
            tp: TopicPartition {
                topic: TopicId(header.topic),
                partition: PartitionIndex(header.partition.get()),
            },
            base_index: LogIndex(header.base_index.get()),
            base_offset: Offset(header.base_offset.get()),
            leader_epoch: LeaderEpoch(header.leader_epoch.get()),
            has_gaps: header.flags.get() & FLAG_GAPS != 0,
            abandoned: header.flags.get() & FLAG_ABANDONED != 0,
            configured: header.flags.get() & FLAG_CONFIGURED != 0,
            end,
            macs,
        })
    }
}

impl ExtentHeader {
    fn can_end_at(&self, end: ExtentEnd) -> bool {
        let positions = EXTENT_HEADER_BYTES as u64..=1_u64.checked_shl(self.log2_bytes.into()).unwrap_or(0);
        positions.contains(&u64::from(end.position))
            && (self.base_index.get()..=INCARNATION_MAX).contains(&end.index.0)
            && (self.base_offset.get()..OFFSET_MAX).contains(&end.offset.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ExtentId {
        ExtentId {
            cluster: ClusterId([1; 16]),
            store: StoreId(3),
            place: Place { slab: SlabId(7), at: 512 << 10 },
            version: EXTENT_VERSION,
            log2_bytes: 18,
            sequence: ExtentSequence(12),
            generation: 2,
            incarnation: Incarnation(99),
            tp: TopicPartition { topic: TopicId([2; 16]), partition: PartitionIndex(5) },
            base_index: LogIndex(1000),
            base_offset: Offset(12_345),
            leader_epoch: LeaderEpoch(4),
            has_gaps: true,
            abandoned: false,
            configured: false,
            end: Some(ExtentEnd { position: 8192, index: LogIndex(1100), offset: Offset(12_400) }),
            macs: Some(StoreMacs { key: MacKey([6; MAC_KEY_BYTES]), since: Incarnation(7) }),
        }
    }

    #[test]
    fn a_header_block_reads_back_as_what_was_written() {
        let version = EXTENT_VERSION_WITHOUT_SEQUENCE;
        let without_sequence = ExtentId {
            version,
            sequence: ExtentSequence(99),
            generation: 0,
            has_gaps: false,
            end: None,
            ..example()
        };
        let without_macs = ExtentId { version: EXTENT_VERSION_WITHOUT_MACS, macs: None, ..without_sequence };
        let abandoned = ExtentId { abandoned: true, has_gaps: false, ..example() };
        let configured = ExtentId { configured: true, ..abandoned };
        for id in [
            example(),
            abandoned,
            configured,
            ExtentId { end: None, ..example() },
            without_sequence,
            without_macs,
        ] {
            assert_eq!(ExtentId::from_block(&id.to_block()), Ok(id));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_header_block_is_found() {
        let good = example().to_block();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ExtentId::from_block(&bad).is_err(), "bit {bit} flipped and not noticed");
        }
    }

    #[test]
    fn zero_bytes_are_told_apart_from_garbage() {
        assert_eq!(ExtentId::from_block(&[0; EXTENT_HEADER_BYTES]), Err(ExtentHeaderError::Zero));
        assert_eq!(ExtentId::from_block(&[7; EXTENT_HEADER_BYTES]), Err(ExtentHeaderError::Magic));
    }

    #[test]
    fn only_names_that_a_store_gives_are_taken_for_its_slabs_and_folders() {
        assert_eq!(slab_name(SlabId(0)), "slab-000000");
        assert_eq!(parse_slab_name("slab-000012"), Some(SlabId(12)));
        for stranger in
            ["slab-12", "slab-000012.tmp", "slab-0000012", "slab-+00012", "state.a", "slab-99999999999"]
        {
            assert_eq!(parse_slab_name(stranger), None, "{stranger}");
        }
        assert_eq!(parse_store_dir_name(&store_dir_name(StoreId(7))), Some(StoreId(7)));
        assert_eq!(parse_store_dir_name("store-7"), None);
    }
}

//! The fields of entries and pieces on disk. `docs/disk-format.md` has the same tables.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How an entry begins, after its checksum: "HWJOURNL".
pub const ENTRY_MAGIC: u64 = u64::from_le_bytes(*b"HWJOURNL");

/// Version of the format.
pub const ENTRY_VERSION: u16 = 1;

/// The first bytes of an entry.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct EntryHeader {
    /// CRC-32C of the rest of the header and of the list of pieces.
    pub crc: U32,
    /// [`ENTRY_VERSION`].
    pub version: U16,
    /// The store.
    pub store: U16,
    /// [`ENTRY_MAGIC`].
    pub magic: U64,
    /// The cluster.
    pub cluster: [u8; 16],
    /// The run of the broker that wrote it, numbered like an incarnation.
    pub era: U64,
    /// Its number in the era.
    pub sequence: U64,
    /// Entries with lower numbers are not needed.
    pub first_needed: U64,
    /// Every entry with a lower number had been durable.
    pub durable: U64,
    /// Proof that the store wrote an entry here: its pieces hold bytes of clients, which can look like anything.
    pub mac: U64,
    /// Length of the entry.
    pub bytes: U32,
    /// How many pieces it has.
    pub pieces: U32,
}

/// One piece in the list after the header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct PieceHeader {
    /// Of the extent that the bytes belong to.
    pub incarnation: U64,
    /// Where the extent begins in its slab.
    pub at: U64,
    /// The slab.
    pub slab: U32,
    /// Where the bytes begin in the extent.
    pub position: U32,
    /// How many they are.
    pub bytes: U32,
    /// CRC-32C of them.
    pub crc: U32,
}

/// Bytes of the header of an entry.
pub const ENTRY_HEADER_BYTES: usize = size_of::<EntryHeader>();

/// Bytes of a piece in the list.
pub const PIECE_HEADER_BYTES: usize = size_of::<PieceHeader>();

const _: () = {
    assert!(ENTRY_HEADER_BYTES == 80 && PIECE_HEADER_BYTES == 32);
    assert!(std::mem::offset_of!(EntryHeader, magic) == 8 && std::mem::offset_of!(EntryHeader, mac) == 64);
};

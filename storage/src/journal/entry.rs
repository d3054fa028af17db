//! An entry of the journal: a header, the list of its pieces, and their bytes. [`super::format`] has the fields.

use bytes::Bytes;
use highwater_protocol::ids::{ClusterId, Incarnation, StoreId};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::WRITE_BYTES_MAX;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::format::{
    ENTRY_HEADER_BYTES, ENTRY_MAGIC, ENTRY_VERSION, EntryHeader, PIECE_HEADER_BYTES, PieceHeader,
};
use crate::layout::{PAGE_BYTES, Place, SlabId};
use crate::mac::MacKey;

/// The largest entry: one write.
pub(crate) const ENTRY_BYTES_MAX: usize = WRITE_BYTES_MAX;

/// Whose entries these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryOwner {
    pub(crate) cluster: ClusterId,
    pub(crate) store: StoreId,
    pub(crate) key: MacKey,
}

/// The numbers in the header of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryNumbers {
    pub(crate) era: Incarnation,
    pub(crate) sequence: u64,
    /// The first entry that is needed as of this one.
    pub(crate) first_needed: u64,
    /// Every entry with a lower number had been durable.
    pub(crate) durable: u64,
}

/// Where the bytes of a piece belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PieceTarget {
    pub(crate) incarnation: Incarnation,
    /// The extent.
    pub(crate) place: Place,
    /// Where they begin in it.
    pub(crate) position: u32,
}

/// An entry that is being put together.
#[derive(Default, Debug)]
pub(crate) struct EntryBuilder {
    list: Vec<PieceHeader>,
    /// Slices of what is being written, or copies of a few bytes.
    payloads: Vec<Bytes>,
    payload_bytes: usize,
}

impl EntryBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of the entry with so many pieces and bytes more.
    pub(crate) fn bytes_with(&self, pieces: usize, bytes: usize) -> usize {
        let list = (self.list.len() + pieces) * PIECE_HEADER_BYTES;
        (ENTRY_HEADER_BYTES + list + self.payload_bytes + bytes).next_multiple_of(PAGE_BYTES)
    }

    /// Adds a piece.
    pub(crate) fn push(&mut self, target: PieceTarget, payload: Bytes) {
        assert!(!payload.is_empty());
        self.list.push(PieceHeader {
            incarnation: U64::new(target.incarnation.0),
            at: U64::new(target.place.at),
            slab: U32::new(target.place.slab.0),
            position: U32::new(target.position),
            bytes: U32::new(payload.len() as u32),
            crc: U32::new(crc32c::crc32c(&payload)),
        });
        self.payload_bytes += payload.len();
        self.payloads.push(payload);
    }

    /// The entry, to be written at this position of the ring.
    pub(crate) fn build(&self, owner: &EntryOwner, numbers: EntryNumbers, at: u64) -> Bytes {
        let mut buf = AlignedBuf::new(self.bytes_with(0, 0));
        assert!(buf.len() <= ENTRY_BYTES_MAX, "an entry is one write");
        let mut header = EntryHeader {
            crc: U32::new(0),
            version: U16::new(ENTRY_VERSION),
            store: U16::new(owner.store.0),
            magic: U64::new(ENTRY_MAGIC),
            cluster: owner.cluster.0,
            era: U64::new(numbers.era.0),
            sequence: U64::new(numbers.sequence),
            first_needed: U64::new(numbers.first_needed),
            durable: U64::new(numbers.durable),
            mac: U64::new(owner.key.of_entry(numbers.era, numbers.sequence, at)),
            bytes: U32::new(buf.len() as u32),
            pieces: U32::new(self.list.len() as u32),
        };
        let mut filled = ENTRY_HEADER_BYTES;
        let mut put = |bytes: &[u8]| {
            buf[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        };
        put(self.list.as_bytes());
        self.payloads.iter().for_each(|payload| put(payload));
        let list_end = ENTRY_HEADER_BYTES + self.list.len() * PIECE_HEADER_BYTES;
        buf[filled..].fill(0);
        buf[..ENTRY_HEADER_BYTES].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c::crc32c(&buf[4..list_end]));
        buf[..ENTRY_HEADER_BYTES].copy_from_slice(header.as_bytes());
        buf.freeze()
    }
}

/// An entry in the bytes of a journal. Its header and its list are valid; the bytes of its pieces need not be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) numbers: EntryNumbers,
    /// From its header to its end.
    bytes: &'a [u8],
    list: &'a [PieceHeader],
}

/// Why there is no entry here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryFault {
    /// None that this store wrote here, or a damaged one.
    None,
    /// One of another store.
    Foreign(ClusterId, StoreId),
    /// One of a newer version.
    Newer(u16),
}

impl<'a> Entry<'a> {
    /// The entry at this position of the ring, whose bytes from there on are `bytes`.
    pub(crate) fn parse(bytes: &'a [u8], at: u64, owner: &EntryOwner) -> Result<Self, EntryFault> {
        let Ok((header, rest)) = EntryHeader::ref_from_prefix(bytes) else { return Err(EntryFault::None) };
        if header.magic.get() != ENTRY_MAGIC {
            return Err(EntryFault::None);
        }
        let pieces = header.pieces.get() as usize;
        let len = header.bytes.get() as usize;
        let list_end = ENTRY_HEADER_BYTES.saturating_add(pieces.saturating_mul(PIECE_HEADER_BYTES));
        if len > bytes.len() || len > ENTRY_BYTES_MAX || list_end > len {
            return Err(EntryFault::None);
        }
        if header.crc.get() != crc32c::crc32c(&bytes[4..list_end]) {
            return Err(EntryFault::None);
        }
        if header.version.get() != ENTRY_VERSION {
            return Err(EntryFault::Newer(header.version.get()));
        }
        if (header.cluster, header.store.get()) != (owner.cluster.0, owner.store.0) {
            return Err(EntryFault::Foreign(ClusterId(header.cluster), StoreId(header.store.get())));
        }
        let numbers = EntryNumbers {
            era: Incarnation(header.era.get()),
            sequence: header.sequence.get(),
            first_needed: header.first_needed.get(),
            durable: header.durable.get(),
        };
        if header.mac.get() != owner.key.of_entry(numbers.era, numbers.sequence, at) {
            // Bytes of a client that pose as an entry, or an entry that was written astray.
            return Err(EntryFault::None);
        }
        let Ok((list, _)) = <[PieceHeader]>::ref_from_prefix_with_elems(rest, pieces) else {
            return Err(EntryFault::None);
        };
        let payload: u64 = list.iter().map(|piece| u64::from(piece.bytes.get())).sum();
        if list_end as u64 + payload > len as u64 {
            return Err(EntryFault::None);
        }
        Ok(Self { numbers, bytes: &bytes[..len], list })
    }

    /// Its pieces: where they belong, and their bytes unless these are damaged.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (PieceTarget, Option<&'a [u8]>)> {
        let mut from = ENTRY_HEADER_BYTES + self.list.len() * PIECE_HEADER_BYTES;
        let bytes = self.bytes;
        self.list.iter().map(move |piece| {
            let payload = &bytes[from..from + piece.bytes.get() as usize];
            from += payload.len();
            let target = PieceTarget {
                incarnation: Incarnation(piece.incarnation.get()),
                place: Place { slab: SlabId(piece.slab.get()), at: piece.at.get() },
                position: piece.position.get(),
            };
            (target, (piece.crc.get() == crc32c::crc32c(payload)).then_some(payload))
        })
    }

    /// Returns the extent of each piece, and where in it the piece ends.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Incarnation, u32)> {
        self.list.iter().map(|piece| {
            let end = piece.position.get().saturating_add(piece.bytes.get());
            (Incarnation(piece.incarnation.get()), end)
        })
    }

    /// Whether the bytes of all pieces are as they were written.
    pub(crate) fn is_whole(&self) -> bool {
        self.pieces().all(|(_, payload)| payload.is_some())
    }
}

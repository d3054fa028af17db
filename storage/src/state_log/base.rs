//! The base of a new generation, built piece by piece.
//!
//! A snapshot can have tens of MiB, and its owner gives it over many turns. Each piece is copied and its checksums are computed
//! when it arrives, so the last step costs no more than the others. The parts are written one after the other; nothing needs a
//! buffer of the size of the base.

use bytes::Bytes;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::format::{
    BASE_CHUNKS_MAX, BLOCK_BYTES, FILE_MAGIC, FORMAT_VERSION, FileHeader, NO_SNAPSHOT, Owner,
    RECORDS_BYTES_MAX,
};

/// Bytes of one part of the content of a file.
const PART_BYTES: usize = 256 << 10;

/// When the base needs more checksums than the header has room for, each covers this many times as many bytes.
const CHUNK_GROWTH: usize = 16;

/// A base that is being built.
#[derive(Default)]
pub(super) struct BaseBuilder {
    parts: Vec<Bytes>,
    /// The part that is being filled.
    part: Vec<u8>,
    snapshot_bytes: usize,
    snapshot_count: u32,
    has_snapshot: bool,
    carried_bytes: usize,
    carried_count: u32,
    checksums: Checksums,
}

/// The first bytes of a file of a new generation.
pub(super) struct NewFile {
    /// The header block and the base.
    pub(super) content: Vec<Bytes>,
    /// Where records begin: bytes of the content.
    pub(super) records_at: u64,
    /// Bytes of the file.
    pub(super) file_bytes: u64,
}

impl BaseBuilder {
    /// A base that begins with a snapshot.
    pub(super) fn with_snapshot() -> Self {
        Self { has_snapshot: true, ..Self::default() }
    }

    /// Adds a piece of the snapshot.
    pub(super) fn push_piece(&mut self, piece: &[u8]) {
        assert!(self.has_snapshot && self.carried_count == 0, "the snapshot comes first");
        self.push(&(piece.len() as u32).to_le_bytes());
        self.push(piece);
        self.snapshot_bytes += 4 + piece.len();
        self.snapshot_count += 1;
    }

    /// Adds payloads that follow the snapshot, each already preceded by its length.
    pub(super) fn push_carried(&mut self, payloads: &[u8], count: u32) {
        self.push(payloads);
        self.carried_bytes += payloads.len();
        self.carried_count += count;
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if !self.checksums.push(now) {
                self.enlarge_chunks();
            }
            if self.part.len() == PART_BYTES {
                let full = std::mem::replace(&mut self.part, Vec::with_capacity(PART_BYTES));
                self.parts.push(full.into());
            }
        }
    }

    /// Computes all checksums again, for larger chunks. That happens at 4 MiB and at 62 MiB.
    fn enlarge_chunks(&mut self) {
        let mut chunk_bytes = self.checksums.chunk_bytes;
        loop {
            chunk_bytes *= CHUNK_GROWTH;
            self.checksums = Checksums::of_chunks(chunk_bytes);
            let parts = self.parts.iter().map(|part| &part[..]).chain([&self.part[..]]);
            if parts.into_iter().all(|part| self.checksums.push(part)) {
                return;
            }
        }
    }

    /// The file that begins with this base. `first_seq` is the number of the payload that will follow it, `file_bytes_min` the
    /// size of a file that holds little.
    pub(super) fn finish(
        mut self,
        owner: Owner,
        generation: u64,
        first_seq: u64,
        file_bytes_min: u64,
    ) -> NewFile {
        assert!(file_bytes_min <= RECORDS_BYTES_MAX && file_bytes_min.is_multiple_of(BLOCK_BYTES as u64));
        let used_bytes = self.snapshot_bytes + self.carried_bytes;
        let base_bytes = used_bytes.next_multiple_of(BLOCK_BYTES);
        self.push(&[0; BLOCK_BYTES][..base_bytes - used_bytes]);
        if !self.checksums.end() {
            self.enlarge_chunks();
            assert!(self.checksums.end(), "larger chunks leave room");
        }
        // At least as much space for records as the base takes, so that rewriting the base costs at most one byte per byte recorded.
        let file_bytes = ((BLOCK_BYTES + 2 * base_bytes) as u64)
            .next_multiple_of(64 << 10)
            .max(file_bytes_min)
            .max(4 * BLOCK_BYTES as u64);
        let mut header = FileHeader::new_zeroed();
        for (field, crc) in header.chunk_crcs.iter_mut().zip(&self.checksums.complete) {
            *field = U32::new(*crc);
        }
        header.magic = U32::new(FILE_MAGIC);
        header.version = U32::new(FORMAT_VERSION);
        header.purpose = owner.purpose;
        header.cluster = owner.cluster.0;
        header.generation = U64::new(generation);
        header.first_seq = U64::new(first_seq);
        header.file_bytes = U64::new(file_bytes);
        header.snapshot_bytes =
            U64::new(if self.has_snapshot { self.snapshot_bytes as u64 } else { NO_SNAPSHOT });
        header.snapshot_count = U32::new(self.snapshot_count);
        header.carried_bytes = U64::new(self.carried_bytes as u64);
        header.carried_count = U32::new(self.carried_count);
        header.chunk_bytes = U32::new(self.checksums.chunk_bytes as u32);
        header.chunk_count = U32::new(self.checksums.complete.len() as u32);
        header.number = U32::new(u32::from(owner.number) + 1);
        header.header_crc = U32::new(crc32c::crc32c(header.as_bytes().split_at(4).1));
        let mut content = vec![Bytes::copy_from_slice(header.as_bytes())];
        content.append(&mut self.parts);
        content.extend((!self.part.is_empty()).then(|| self.part.into()));
        NewFile { content, records_at: (BLOCK_BYTES + base_bytes) as u64, file_bytes }
    }
}

/// A checksum for each chunk of some bytes.
struct Checksums {
    chunk_bytes: usize,
    complete: Vec<u32>,
    /// Of the chunk that is not complete, and how many bytes that has.
    open: u32,
    open_bytes: usize,
}

impl Default for Checksums {
    fn default() -> Self {
        Self::of_chunks(BLOCK_BYTES)
    }
}

impl Checksums {
    fn of_chunks(chunk_bytes: usize) -> Self {
        Self { chunk_bytes, complete: Vec::new(), open: 0, open_bytes: 0 }
    }

    /// Adds bytes. Returns false, with nothing left that is right, if the header has no room for so many chunks of this size.
    fn push(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.chunk_bytes - self.open_bytes));
            self.open = crc32c::crc32c_append(self.open, now);
            self.open_bytes += now.len();
            bytes = later;
            if self.open_bytes == self.chunk_bytes && !self.end() {
                return false;
            }
        }
        true
    }

    /// Ends the open chunk, if it has bytes. Returns false if the header has no room for it.
    fn end(&mut self) -> bool {
        if self.open_bytes > 0 {
            if self.complete.len() == BASE_CHUNKS_MAX {
                return false;
            }
            self.complete.push(std::mem::take(&mut self.open));
            self.open_bytes = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::ClusterId;

    use super::super::format::{parse_header, push_payload, split_payloads};
    use super::*;

    const OWNER: Owner = Owner { purpose: *b"test", cluster: ClusterId([3; 16]), number: 0 };

    /// Builds a base of these pieces and carried payloads, and reads it back as recovery does.
    #[track_caller]
    fn check(pieces: &[Vec<u8>], carried: &[&[u8]]) -> usize {
        let mut base = BaseBuilder::with_snapshot();
        for piece in pieces {
            base.push_piece(piece);
        }
        let mut payloads = Vec::new();
        for payload in carried {
            push_payload(&mut payloads, payload);
        }
        base.push_carried(&payloads, carried.len() as u32);
        let NewFile { content, records_at, file_bytes } = base.finish(OWNER, 7, 100, 64 << 10);
        let image = content.concat();
        assert_eq!((image.len() as u64, image.len() % BLOCK_BYTES), (records_at, 0));
        assert!(file_bytes >= 2 * records_at - BLOCK_BYTES as u64);
        let header = parse_header(&image, OWNER).expect("valid");
        assert_eq!((header.records_at(), header.generation.get()), (records_at, 7));
        let body = &image[BLOCK_BYTES..];
        let chunk_bytes = header.chunk_bytes.get() as usize;
        let crcs: Vec<u32> = body.chunks(chunk_bytes).map(crc32c::crc32c).collect();
        assert_eq!(crcs.len(), header.chunk_count.get() as usize);
        assert!(crcs.iter().zip(&header.chunk_crcs).all(|(crc, field)| *crc == field.get()));
        let (snapshot, behind) = body.split_at(header.snapshot_len() as usize);
        assert!(split_payloads(snapshot, header.snapshot_count.get()).is_some_and(|found| found == pieces));
        let found = split_payloads(&behind[..header.carried_bytes.get() as usize], carried.len() as u32);
        assert!(found.is_some_and(|found| found == carried));
        chunk_bytes
    }

    #[test]
    fn a_base_of_any_size_is_read_back_and_every_byte_of_it_is_under_a_checksum() {
        let piece = |n: usize, bytes: usize| (0..bytes).map(|i| (n * 31 + i * 7) as u8).collect::<Vec<u8>>();
        assert_eq!(check(&[], &[]), BLOCK_BYTES);
        assert_eq!(check(&[vec![]], &[b"one", b""]), BLOCK_BYTES);
        assert_eq!(check(&[piece(1, 4092)], &[]), BLOCK_BYTES);
        assert_eq!(check(&[piece(1, 5000), piece(2, 300_000), vec![]], &[b"later"]), BLOCK_BYTES);
        // As many chunks as the header has room for, and one byte more.
        let full = BASE_CHUNKS_MAX * BLOCK_BYTES - 4;
        assert_eq!(check(&[piece(3, full)], &[]), BLOCK_BYTES);
        assert_eq!(check(&[piece(3, full + 1)], &[]), BLOCK_BYTES * CHUNK_GROWTH);
        assert_eq!(check(&[piece(3, full)], &[b"x"]), BLOCK_BYTES * CHUNK_GROWTH);
        let pieces: Vec<_> = (0..63).map(|n| vec![n; 1 << 20]).collect();
        assert_eq!(check(&pieces, &[b"last"]), BLOCK_BYTES * CHUNK_GROWTH * CHUNK_GROWTH);
    }
}

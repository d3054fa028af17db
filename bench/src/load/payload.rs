//! Values of records: a unique stamp followed by shared filler bytes.
//!
//! Values are slices of chunks that are filled once. A chunk is reused when the client has copied its values, and only the stamps are
//! rewritten: creating a record means writing 32 bytes, whatever its size.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::schedule::splitmix;
use crate::scenario::VALUE_BYTES_MIN;

/// Size of a chunk in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Maximum number of records in a chunk, which are prepared together.
const CHUNK_RECORDS_MAX: usize = 256;

/// Maximum size of the chunks kept for reuse, in bytes. Further chunks are dropped after use.
const CHUNKS_BYTES_MAX: usize = 64 << 20;

/// Header of a value: 28 bytes, and their CRC-32C.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Number of the producer.
    pub producer: u32,
    /// Partition that it was sent to.
    pub partition: u32,
    /// Sequence number, for each producer and partition.
    pub sequence: u64,
    /// Scheduled time of sending, in nanoseconds since the start of the run.
    pub intended: u64,
    /// Index of the value in its chunk, which determines the bytes that follow.
    pub slot: u32,
}

impl Stamp {
    /// Writes the stamp to the start of a value. Returns the checksum, which identifies the record.
    pub fn write(&self, value: &mut [u8]) -> u32 {
        value[0..4].copy_from_slice(&self.producer.to_le_bytes());
        value[4..8].copy_from_slice(&self.partition.to_le_bytes());
        value[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        value[16..24].copy_from_slice(&self.intended.to_le_bytes());
        value[24..28].copy_from_slice(&self.slot.to_le_bytes());
        let crc = crc32c::crc32c(&value[..28]);
        value[28..VALUE_BYTES_MIN].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the stamp and its checksum from a value. Returns `None` if the checksum does not match.
    pub fn read(value: &[u8]) -> Option<(Self, u32)> {
        let stamp: &[u8; VALUE_BYTES_MIN] = value.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes(stamp[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(stamp[at..at + 8].try_into().expect("eight bytes"));
        let crc = u32_at(28);
        (crc32c::crc32c(&stamp[..28]) == crc).then(|| {
            let stamp = Self {
                producer: u32_at(0),
                partition: u32_at(4),
                sequence: u64_at(8),
                intended: u64_at(16),
                slot: u32_at(24),
            };
            (stamp, crc)
        })
    }
}

/// Filler bytes after the stamps of values. They compress to about half their size.
#[derive(Clone, Debug)]
pub struct Filling {
    bytes: usize,
    chunk: Arc<[u8]>,
}

impl Filling {
    /// Creates the filling of values of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let records = (CHUNK_BYTES / bytes).clamp(1, CHUNK_RECORDS_MAX);
        let mut state = 7;
        let mut chunk = vec![0; records * bytes];
        for piece in chunk.chunks_mut(16) {
            let noise = splitmix(&mut state).to_le_bytes();
            for (to, from) in piece.iter_mut().zip(noise) {
                *to = from;
            }
        }
        Self { bytes, chunk: chunk.into() }
    }

    /// Returns the number of records in a chunk.
    pub fn records(&self) -> usize {
        self.chunk.len() / self.bytes
    }

    /// Returns whether a value has the expected bytes after its stamp.
    pub fn matches(&self, stamp: &Stamp, value: &[u8]) -> bool {
        let at = stamp.slot as usize * self.bytes;
        let sent = self.chunk.get(at + VALUE_BYTES_MIN..at + self.bytes);
        value.get(VALUE_BYTES_MIN..) == sent
    }
}

/// Creates values in chunks, and reuses the chunks.
#[derive(Debug)]
pub struct Values {
    filling: Filling,
    /// Chunks in use, oldest first. A chunk is reusable once no values refer to it.
    in_use: VecDeque<Bytes>,
}

impl Values {
    /// Creates values with this filling.
    pub fn new(filling: Filling) -> Self {
        Self { filling, in_use: VecDeque::new() }
    }

    /// Returns a chunk to write stamps to.
    pub fn begin(&mut self) -> Chunk {
        Chunk { bytes: self.filling.bytes, buffer: self.chunk(), count: 0 }
    }

    /// Takes back a chunk after its values were sliced. It is reused when all of them are dropped.
    pub fn end(&mut self, chunk: Bytes) {
        if (self.in_use.len() + 1) * chunk.len() <= CHUNKS_BYTES_MAX {
            self.in_use.push_back(chunk);
        }
    }

    fn chunk(&mut self) -> BytesMut {
        if let Some(oldest) = self.in_use.pop_front() {
            match oldest.try_into_mut() {
                Ok(chunk) => return chunk,
                Err(shared) => self.in_use.push_front(shared),
            }
        }
        BytesMut::from(&*self.filling.chunk)
    }
}

/// A chunk of values being stamped.
#[derive(Debug)]
pub struct Chunk {
    bytes: usize,
    buffer: BytesMut,
    count: usize,
}

impl Chunk {
    /// Returns the index of the next value.
    pub fn slot(&self) -> u32 {
        self.count as u32
    }

    /// Stamps the next value. Returns the stamp's checksum.
    pub fn stamp(&mut self, stamp: &Stamp) -> u32 {
        let at = self.count * self.bytes;
        self.count += 1;
        stamp.write(&mut self.buffer[at..])
    }

    /// Returns the concatenated values.
    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(slot: u32) -> Stamp {
        Stamp { producer: 3, partition: 9, sequence: u64::from(slot) + 100, intended: 77, slot }
    }

    fn values(count: u32, values: &mut Values) -> (Bytes, Vec<u32>) {
        let mut chunk = values.begin();
        let crcs = (0..count).map(|slot| chunk.stamp(&stamp(slot))).collect();
        (chunk.finish(), crcs)
    }

    #[test]
    fn the_stamp_of_a_value_reads_back_and_any_changed_byte_is_found() {
        let filling = Filling::new(100);
        let (chunk, crcs) = values(3, &mut Values::new(filling.clone()));
        for (slot, (crc, value)) in (0..).zip(crcs.iter().zip(chunk.chunks(100))) {
            assert_eq!(Stamp::read(value), Some((stamp(slot), *crc)));
            assert!(filling.matches(&stamp(slot), value));
            for at in 0..100 {
                let mut changed = value.to_vec();
                changed[at] ^= 1;
                let found = Stamp::read(&changed).is_none_or(|(stamp, _)| !filling.matches(&stamp, &changed));
                assert!(found, "byte {at}");
            }
        }
    }

    #[test]
    fn a_chunk_is_reused_only_after_its_values_are_dropped() {
        let mut maker = Values::new(Filling::new(1024));
        let (first, _) = values(2, &mut maker);
        let held = first.slice(1024..2048);
        let address = held.as_ptr();
        maker.end(first);
        let (second, _) = values(2, &mut maker);
        assert_ne!(second[1024..].as_ptr(), address);
        assert_eq!(Stamp::read(&held).map(|(stamp, _)| stamp), Some(stamp(1)));
        drop(held);
        let (third, _) = values(2, &mut maker);
        assert_eq!(third[1024..].as_ptr(), address);
    }
}

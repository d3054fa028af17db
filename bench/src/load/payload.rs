//! The values of records: a stamp that no other record has in front of bytes that many share.
//!
//! Values are cut out of chunks that are made once. When the client has copied what it was given, the chunk comes back, and only the
//! stamps in it are written anew: a record costs the generator 32 bytes, whatever its size.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::schedule::splitmix;
use crate::scenario::VALUE_BYTES_MIN;

/// Bytes of a chunk, and records in it at most: how many are made ready at once.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_RECORDS_MAX: usize = 256;
/// Bytes of chunks that wait for the client to be done with them. Beyond it chunks are made and thrown away.
const CHUNKS_BYTES_MAX: usize = 64 << 20;

/// What stands in front of a value. 28 bytes, and their CRC-32C.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Who sent it.
    pub producer: u32,
    /// Where to.
    pub partition: u32,
    /// Its number among those of this producer in this partition.
    pub sequence: u64,
    /// When it was meant to be sent, in nanoseconds of the run.
    pub intended: u64,
    /// Its place in the chunk, which says what bytes follow.
    pub slot: u32,
}

impl Stamp {
    /// Writes it in front of a value. The checksum tells this record from all others.
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

    /// Reads it, with its checksum. None if it does not match.
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

/// What fills values behind their stamps: compresses to about a half.
#[derive(Clone, Debug)]
pub struct Filling {
    bytes: usize,
    chunk: Arc<[u8]>,
}

impl Filling {
    /// For values of so many bytes.
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

    /// Records in a chunk.
    pub fn records(&self) -> usize {
        self.chunk.len() / self.bytes
    }

    /// Whether a value is what was sent, behind its stamp.
    pub fn matches(&self, stamp: &Stamp, value: &[u8]) -> bool {
        let at = stamp.slot as usize * self.bytes;
        let sent = self.chunk.get(at + VALUE_BYTES_MIN..at + self.bytes);
        value.get(VALUE_BYTES_MIN..) == sent
    }
}

/// Makes values.
#[derive(Debug)]
pub struct Values {
    filling: Filling,
    /// Given out, oldest first; free again once nobody else holds a share.
    out: VecDeque<Bytes>,
}

impl Values {
    /// Of this filling.
    pub fn new(filling: Filling) -> Self {
        Self { filling, out: VecDeque::new() }
    }

    /// A chunk to put stamps into.
    pub fn begin(&mut self) -> Chunk {
        Chunk { bytes: self.filling.bytes, buffer: self.chunk(), count: 0 }
    }

    /// All values of a chunk were cut out of it; it comes back when nobody holds any of them.
    pub fn end(&mut self, chunk: Bytes) {
        if (self.out.len() + 1) * chunk.len() <= CHUNKS_BYTES_MAX {
            self.out.push_back(chunk);
        }
    }

    fn chunk(&mut self) -> BytesMut {
        if let Some(oldest) = self.out.pop_front() {
            match oldest.try_into_mut() {
                Ok(chunk) => return chunk,
                Err(held) => self.out.push_front(held),
            }
        }
        BytesMut::from(&*self.filling.chunk)
    }
}

/// Values in the making.
#[derive(Debug)]
pub struct Chunk {
    bytes: usize,
    buffer: BytesMut,
    count: usize,
}

impl Chunk {
    /// The place of the next value.
    pub fn slot(&self) -> u32 {
        self.count as u32
    }

    /// Puts a stamp in front of the next value. Its checksum.
    pub fn stamp(&mut self, stamp: &Stamp) -> u32 {
        let at = self.count * self.bytes;
        self.count += 1;
        stamp.write(&mut self.buffer[at..])
    }

    /// The values, one behind the other.
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
    fn a_value_tells_its_stamp_and_a_changed_byte_is_found() {
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
    fn a_chunk_is_used_again_once_its_values_are_gone_and_not_before() {
        let mut maker = Values::new(Filling::new(1024));
        let (first, _) = values(2, &mut maker);
        let held = first.slice(1024..2048);
        let place = held.as_ptr();
        maker.end(first);
        let (second, _) = values(2, &mut maker);
        assert_ne!(second[1024..].as_ptr(), place);
        assert_eq!(Stamp::read(&held).map(|(stamp, _)| stamp), Some(stamp(1)));
        drop(held);
        let (third, _) = values(2, &mut maker);
        assert_eq!(third[1024..].as_ptr(), place);
    }
}

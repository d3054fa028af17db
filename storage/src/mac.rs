//! Message authentication codes of frames: they distinguish a frame of this store from bytes inside a client's record.
//!
//! A log is read frame by frame: the length of a frame says where the next one begins, and nothing inside a frame is interpreted. After
//! damage that is not known any more, and the next frame is searched for at every position where one can begin. There a record can pose as
//! a frame: a client that knows the format can send a value that holds the bytes of a whole frame, with right checksums and an offset, an
//! index and a producer of its choice. A bit that flips in the header of the real frame exposes it to the search.
//!
//! So each frame carries a code: SipHash-2-4 of the extent's incarnation and of the frame's position in the extent, under a key that
//! is drawn at random when the store is made and never sent to a client. A frame that was found by searching is believed only if it has the
//! code of the position at which it was found.
//!
//! Incarnation and position are enough: an incarnation is never used twice, and a position in it holds at most one frame, which was written
//! by this store. The content of the frame is covered by its checksums. Clients receive frames as they are on disk, codes included; but those
//! are codes of other positions, and a keyed hash, unlike a checksum, does not reveal the code of this one. Guessing succeeds once in 2^64 times.
//!
//! Frames that are reached by lengths from a known position are not checked for their code, so reading costs nothing; appending costs one hash
//! of 16 bytes.
//!
//! The key is kept in the map of the store, which is kept twice, and in the header of every extent that was begun with it. When the map is lost,
//! the header at the very start of a slab decides: no record can be there. It also says from which incarnation on frames have codes. Extents
//! of earlier incarnations were written by versions without codes; their frames are believed if their checksums are right, as they were then.

use std::fmt;

use highwater_protocol::frame::{FRAME_VERSION_WITHOUT_MAC, FrameHeader};
use highwater_protocol::ids::Incarnation;
use siphasher::sip::SipHasher24;

use crate::mutants::{Mutant, is_planted};

/// Bytes of a key.
pub const MAC_KEY_BYTES: usize = 16;

/// The secret of a store. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey(pub [u8; MAC_KEY_BYTES]);

impl MacKey {
    /// The code of an entry of the journal ([`crate::journal`]) at this position of the ring.
    pub(crate) fn of_entry(&self, era: Incarnation, sequence: u64, at: u64) -> u64 {
        let mut place = [0; 24];
        place[..8].copy_from_slice(&era.0.to_le_bytes());
        place[8..16].copy_from_slice(&sequence.to_le_bytes());
        place[16..].copy_from_slice(&at.to_le_bytes());
        SipHasher24::new_with_key(&self.0).hash(&place)
    }

    /// The key of the hashes of compaction ([`crate::compaction::KeyIndex`]). The messages that it is made from are shorter than those of other codes.
    pub(crate) fn for_key_index(&self) -> [u8; MAC_KEY_BYTES] {
        let mut key = [0; MAC_KEY_BYTES];
        for (half, n) in key.chunks_exact_mut(8).zip([1_u8, 2]) {
            half.copy_from_slice(&SipHasher24::new_with_key(&self.0).hash(&[n]).to_le_bytes());
        }
        key
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// The codes of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreMacs {
    /// The secret.
    pub key: MacKey,
    /// The first incarnation whose frames have codes.
    pub since: Incarnation,
}

impl StoreMacs {
    /// The codes of the frames of an extent. None: it is from a version before there were any.
    pub fn of(&self, incarnation: Incarnation) -> Option<ExtentMacs> {
        (incarnation >= self.since).then_some(ExtentMacs { key: self.key, incarnation })
    }
}

/// The codes of the frames in one extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentMacs {
    key: MacKey,
    incarnation: Incarnation,
}

impl ExtentMacs {
    /// The code of a frame at this position of the extent.
    pub fn at(&self, position: u32) -> u64 {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&self.incarnation.0.to_le_bytes());
        place[8..12].copy_from_slice(&position.to_le_bytes());
        SipHasher24::new_with_key(&self.key.0).hash(&place)
    }

    /// Whether this store wrote a frame with this header at this position.
    fn vouches_for(&self, header: &FrameHeader, position: u32) -> bool {
        header.version != FRAME_VERSION_WITHOUT_MAC && header.mac.get() == self.at(position)
    }
}

/// Whether a frame may be believed that was found at this position of an extent by searching.
pub(crate) fn is_believable(macs: Option<&ExtentMacs>, header: &FrameHeader, position: u32) -> bool {
    macs.is_none_or(|macs| macs.vouches_for(header, position)) || is_planted(Mutant::BelieveWithoutMac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_differ_by_key_life_and_position_and_those_of_old_lives_are_none() {
        let store = |key, since| StoreMacs { key: MacKey([key; 16]), since: Incarnation(since) };
        let code = |key, life, position| store(key, 5).of(Incarnation(life)).map(|macs| macs.at(position));
        assert_eq!(code(1, 4, 4096), None);
        let here = code(1, 5, 4096);
        assert_eq!(here, store(1, 1).of(Incarnation(5)).map(|macs| macs.at(4096)));
        for other in [code(2, 5, 4096), code(1, 6, 4096), code(1, 5, 4104)] {
            assert!(here.is_some() && here != other);
        }
    }

    #[test]
    fn a_code_is_what_the_document_says() {
        // SipHash-2-4 of the incarnation and the position, 8 bytes each, under the key 00 01 .. 0f.
        let key = std::array::from_fn(|n| n as u8);
        let macs = StoreMacs { key: MacKey(key), since: Incarnation(1) };
        let macs =
            macs.of(Incarnation(u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]))).expect("a life with codes");
        // Made with another implementation, which gives the reference's result for the reference's input.
        assert_eq!(macs.at(u32::from_le_bytes([8, 9, 10, 11])), 0x62cd_b119_5830_5f2a);
    }

    #[test]
    fn a_key_is_not_shown() {
        assert!(!format!("{:?}", MacKey([0x5A; 16])).contains("90"));
    }
}

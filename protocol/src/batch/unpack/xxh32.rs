//! xxHash with 32 bits and seed 0, which LZ4 frames are checked with.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

const P1: u32 = 0x9E37_79B1;
const P2: u32 = 0x85EB_CA77;
const P3: u32 = 0xC2B2_AE3D;
const P4: u32 = 0x27D4_EB2F;
const P5: u32 = 0x1656_67B1;

/// Bytes that are mixed at a time, in four lanes.
const STRIPE_BYTES: usize = 16;

/// The hash of bytes that come in pieces.
pub(super) struct Xxh32 {
    lanes: [u32; 4],
    /// Bytes that do not fill a stripe yet.
    rest: [u8; STRIPE_BYTES],
    rest_bytes: usize,
    total: u64,
}

impl Default for Xxh32 {
    fn default() -> Self {
        let lanes = [P1.wrapping_add(P2), P2, 0, 0_u32.wrapping_sub(P1)];
        Self { lanes, rest: [0; STRIPE_BYTES], rest_bytes: 0, total: 0 }
    }
}

impl Xxh32 {
    /// The hash of bytes that are all there.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.sum()
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.total = self.total.wrapping_add(bytes.len() as u64);
        if self.rest_bytes > 0 {
            let room = self.rest.get_mut(self.rest_bytes..).unwrap_or_default();
            let fits = room.len().min(bytes.len());
            let (head, behind) = bytes.split_at_checked(fits).unwrap_or_default();
            if let Some(room) = room.get_mut(..fits) {
                room.copy_from_slice(head);
            }
            self.rest_bytes = self.rest_bytes.saturating_add(fits);
            bytes = behind;
            if self.rest_bytes < STRIPE_BYTES {
                return;
            }
            let stripe = self.rest;
            self.mix(&stripe);
            self.rest_bytes = 0;
        }
        let (stripes, rest) = bytes.as_chunks::<STRIPE_BYTES>();
        for stripe in stripes {
            self.mix(stripe);
        }
        if let Some(place) = self.rest.get_mut(..rest.len()) {
            place.copy_from_slice(rest);
        }
        self.rest_bytes = rest.len();
    }

    fn mix(&mut self, stripe: &[u8; STRIPE_BYTES]) {
        let (words, _) = stripe.as_chunks::<4>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = lane
                .wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P2))
                .rotate_left(13)
                .wrapping_mul(P1);
        }
    }

    pub(super) fn sum(&self) -> u32 {
        let [a, b, c, d] = self.lanes;
        let mut hash = if self.total < STRIPE_BYTES as u64 {
            P5
        } else {
            a.rotate_left(1)
                .wrapping_add(b.rotate_left(7))
                .wrapping_add(c.rotate_left(12))
                .wrapping_add(d.rotate_left(18))
        };
        hash = hash.wrapping_add(self.total as u32);
        let (words, bytes) = self.rest.get(..self.rest_bytes).unwrap_or_default().as_chunks::<4>();
        for word in words {
            hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P3));
            hash = hash.rotate_left(17).wrapping_mul(P4);
        }
        for byte in bytes {
            hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(P5));
            hash = hash.rotate_left(11).wrapping_mul(P1);
        }
        hash = (hash ^ (hash >> 15)).wrapping_mul(P2);
        hash = (hash ^ (hash >> 13)).wrapping_mul(P3);
        hash ^ (hash >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_reference_whatever_the_pieces() {
        for (text, hash) in [
            ("", 0x02CC_5D05),
            ("a", 0x550D_7456),
            ("abc", 0x32D1_53FF),
            ("Nobody inspects the spammish repetition", 0xE229_3B2F),
        ] {
            assert_eq!(Xxh32::of(text.as_bytes()), hash, "{text}");
            for piece in 1..20 {
                let mut pieces = Xxh32::default();
                text.as_bytes().chunks(piece).for_each(|bytes| pieces.update(bytes));
                assert_eq!(pieces.sum(), hash, "{text} in pieces of {piece}");
            }
        }
    }
}

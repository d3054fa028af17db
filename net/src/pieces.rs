//! Long replies, encoded piece by piece as the connection sends them.
//!
//! The reply to a request of thirty bytes can be many megabytes long: all topics with all their partitions. Such a reply is a list whose
//! entries are encoded when there is space for them in the connection's send queue. The message starts with its length, so the list is
//! encoded twice: once to count its bytes, once to send them. Its source is shared and immutable.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// Approximate size of a piece in bytes.
pub const PIECE_BYTES: usize = 16 << 10;

/// The entries of a list.
pub trait Entries: fmt::Debug + Send {
    /// Returns the number of entries.
    fn count(&self) -> usize;
    /// Encodes part `part` of an entry into `out`. Returns whether the entry has more parts. Parts are numbered from 0; only large entries
    /// have more than one.
    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool;
    /// Returns about how many bytes of memory the list keeps until it is sent, apart from what it shares with others and from what its owner
    /// has charged for by other means.
    fn memory_bytes(&self) -> usize;
}

/// A reply whose entries are encoded one by one.
#[derive(Debug)]
pub struct Pieces {
    front: Bytes,
    back: Bytes,
    entries: Box<dyn Entries>,
    /// The next entry.
    entry: usize,
    part: usize,
    begun: bool,
}

impl Pieces {
    /// Creates a reply of `front`, which includes the number of entries, the entries, and `back`.
    pub fn new(front: Bytes, entries: impl Entries + 'static, back: Bytes) -> Self {
        Self { front, back, entries: Box::new(entries), entry: 0, part: 0, begun: false }
    }

    /// Encodes the next piece, of about [`PIECE_BYTES`], into `out`. Returns whether more pieces follow.
    pub fn next(&mut self, out: &mut BytesMut) -> bool {
        let until = out.len() + PIECE_BYTES;
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&self.front);
        }
        while self.entry < self.entries.count() {
            if out.len() >= until {
                return true;
            }
            if self.entries.put(self.entry, self.part, out) {
                self.part += 1;
            } else {
                self.entry += 1;
                self.part = 0;
            }
        }
        out.extend_from_slice(&self.back);
        false
    }

    /// Returns about how many bytes of memory the reply keeps until it is sent.
    pub fn memory_bytes(&self) -> usize {
        self.front.len() + self.back.len() + self.entries.memory_bytes()
    }

    /// Restarts from the first piece.
    pub fn restart(&mut self) {
        (self.entry, self.part, self.begun) = (0, 0, false);
    }
}

/// A long reply of known length that is being sent.
#[derive(Debug)]
pub struct LongAnswer {
    pieces: Pieces,
    left: usize,
}

impl LongAnswer {
    /// Creates a reply of `bytes` bytes, which starts with the first piece.
    pub fn new(mut pieces: Pieces, bytes: usize) -> Self {
        pieces.restart();
        Self { pieces, left: bytes }
    }

    /// Returns the number of bytes that have not been encoded.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Returns about how many bytes of memory the reply keeps until it is sent.
    pub fn memory_bytes(&self) -> usize {
        self.pieces.memory_bytes()
    }

    /// Encodes the next piece into `out`. Returns whether more pieces follow. Fails if the reply does not have the announced length, which is a
    /// bug: such a message cannot be completed.
    pub fn next(&mut self, out: &mut BytesMut) -> Result<bool, WrongLength> {
        let before = out.len();
        let more = self.pieces.next(out);
        let wrong = Err(WrongLength);
        let Some(left) = self.left.checked_sub(out.len() - before) else { return wrong };
        self.left = left;
        if more == (left > 0) { Ok(more) } else { wrong }
    }
}

/// A reply does not have the announced length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongLength;

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry `i` is the byte `i`, repeated `self.0[i]` times; parts have 10 KiB.
    #[derive(Debug)]
    struct Runs(Vec<usize>);

    const PART: usize = 10 << 10;

    impl Entries for Runs {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
            let left = self.0[entry] - part * PART;
            out.extend(std::iter::repeat_n(entry as u8, left.min(PART)));
            left > PART
        }

        fn memory_bytes(&self) -> usize {
            self.0.len() * 8
        }
    }

    fn pieces() -> Pieces {
        let runs = Runs(vec![3, 0, 50_000, PART, 100_000, 1]);
        Pieces::new(Bytes::from_static(b"front"), runs, Bytes::from_static(b"back"))
    }

    #[test]
    fn pieces_are_short_and_together_the_whole_both_times() {
        let mut expected = b"front".to_vec();
        for (n, count) in [3, 0, 50_000, PART, 100_000, 1].into_iter().enumerate() {
            expected.extend(vec![n as u8; count]);
        }
        expected.extend(b"back");
        let mut counted = 0;
        let mut first = pieces();
        loop {
            let mut out = BytesMut::new();
            let more = first.next(&mut out);
            counted += out.len();
            if !more {
                break;
            }
        }
        assert_eq!(counted, expected.len());
        let mut answer = LongAnswer::new(first, counted);
        let mut sent = Vec::new();
        loop {
            let mut out = BytesMut::from(&b"others"[..]);
            let more = answer.next(&mut out).expect("it is as long as announced");
            assert!(out.len() <= PIECE_BYTES + PART + 10, "{}", out.len());
            sent.extend_from_slice(&out[6..]);
            assert_eq!(answer.left(), expected.len() - sent.len());
            if !more {
                break;
            }
        }
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_answer_of_another_length_than_announced_is_an_error_before_it_is_over() {
        for (bytes, pieces_sent) in [(0, 0), (PIECE_BYTES, 0), (1 << 20, 9)] {
            let mut answer = LongAnswer::new(pieces(), bytes);
            let good = std::iter::from_fn(|| answer.next(&mut BytesMut::new()).ok()).count();
            assert!(good <= pieces_sent, "{bytes}: {good}");
        }
    }

    #[test]
    fn a_list_without_entries_is_its_front_and_its_back() {
        let mut pieces = Pieces::new(Bytes::from_static(b"f"), Runs(Vec::new()), Bytes::from_static(b"b"));
        let mut out = BytesMut::new();
        assert!(!pieces.next(&mut out));
        assert_eq!(&out[..], b"fb");
        assert_eq!(pieces.memory_bytes(), 2);
    }
}

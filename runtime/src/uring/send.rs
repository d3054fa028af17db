//! What a connection has yet to send: pieces in order, small ones copied together.

use std::collections::VecDeque;

use bytes::Bytes;

use super::limits::{SEND_PIECES_MAX, SEND_STAGE_BYTES};
use crate::plane::SEND_COPY_BYTES_MAX;

enum Piece {
    Shared(Bytes),
    /// Small sends, one behind the other.
    Staged(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Staged(bytes) => bytes,
        }
    }
}

/// Invariant: the first `in_flight` pieces are with the kernel and neither change nor move until [`advance`](Self::advance).
#[derive(Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent already.
    sent_of_first: usize,
    /// Bytes queued and not sent.
    bytes: usize,
    in_flight: usize,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.bytes += data.len();
        if data.len() > SEND_COPY_BYTES_MAX {
            self.pieces.push_back(Piece::Shared(data));
            return;
        }
        if self.pieces.len() > self.in_flight
            && let Some(Piece::Staged(stage)) = self.pieces.back_mut()
            && stage.len() + data.len() <= SEND_STAGE_BYTES
        {
            stage.extend_from_slice(&data);
            return;
        }
        let mut stage = Vec::with_capacity(SEND_COPY_BYTES_MAX);
        stage.extend_from_slice(&data);
        self.pieces.push_back(Piece::Staged(stage));
    }

    /// Hands the first pieces out, to be sent at once; they stay in place until [`advance`](Self::advance).
    pub(super) fn take_off(&mut self, mut each: impl FnMut(&[u8])) {
        debug_assert_eq!(self.in_flight, 0, "one send at a time");
        self.in_flight = self.pieces.len().min(SEND_PIECES_MAX);
        let mut skip = self.sent_of_first;
        for piece in self.pieces.iter().take(self.in_flight) {
            each(&piece.bytes()[skip..]);
            skip = 0;
        }
    }

    /// The send is over and this many bytes of it have left.
    pub(super) fn advance(&mut self, sent: usize) {
        self.in_flight = 0;
        assert!(sent <= self.bytes, "{sent} bytes sent of {}", self.bytes);
        self.bytes -= sent;
        self.sent_of_first += sent;
        while let Some(first) = self.pieces.front() {
            let len = first.bytes().len();
            if self.sent_of_first < len {
                break;
            }
            self.sent_of_first -= len;
            self.pieces.pop_front();
        }
    }

    /// Forgets everything, except what is with the kernel.
    pub(super) fn clear(&mut self) {
        self.pieces.truncate(self.in_flight);
        if self.pieces.is_empty() {
            self.sent_of_first = 0;
        }
        self.bytes = self.pieces.iter().map(|piece| piece.bytes().len()).sum::<usize>() - self.sent_of_first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut SendQueue) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        queue.take_off(|piece| pieces.push(piece.to_vec()));
        pieces
    }

    #[test]
    fn small_sends_share_a_piece_and_large_ones_are_not_copied() {
        let mut queue = SendQueue::default();
        let large = Bytes::from(vec![7; SEND_COPY_BYTES_MAX + 1]);
        queue.push(Bytes::from_static(b"ab"));
        queue.push(Bytes::from_static(b"cd"));
        queue.push(large.clone());
        queue.push(Bytes::from_static(b"ef"));
        assert_eq!(queue.bytes(), 6 + large.len());
        let mut addresses = Vec::new();
        let mut pieces = Vec::new();
        queue.take_off(|piece| {
            addresses.push(piece.as_ptr());
            pieces.push(piece.to_vec());
        });
        assert_eq!(pieces, [b"abcd".to_vec(), large.to_vec(), b"ef".to_vec()]);
        assert_eq!(addresses[1], large.as_ptr());
    }

    #[test]
    fn a_piece_that_is_with_the_kernel_is_not_appended_to() {
        let mut queue = SendQueue::default();
        queue.push(Bytes::from_static(b"ab"));
        assert_eq!(taken(&mut queue), [b"ab"]);
        queue.push(Bytes::from_static(b"cd"));
        queue.push(Bytes::from_static(b"ef"));
        queue.advance(1);
        assert_eq!(taken(&mut queue), [b"b".to_vec(), b"cdef".to_vec()]);
    }

    #[test]
    fn partial_sends_go_on_where_they_stopped_whatever_their_sizes() {
        for step in [1, 2, 3, 7, 600, 1000, 5000] {
            let mut queue = SendQueue::default();
            let mut expected = Vec::new();
            for n in 0..200_usize {
                let data: Vec<u8> = (0..n * 13 % 1500).map(|i| (i + n) as u8).collect();
                expected.extend_from_slice(&data);
                queue.push(Bytes::from(data));
            }
            let mut sent = Vec::new();
            while !queue.is_empty() {
                let offered = taken(&mut queue).concat();
                let n = step.min(offered.len());
                sent.extend_from_slice(&offered[..n]);
                queue.advance(n);
            }
            assert!(sent == expected, "steps of {step}");
        }
    }

    #[test]
    fn clearing_keeps_what_the_kernel_still_reads() {
        let mut queue = SendQueue::default();
        queue.push(Bytes::from(vec![1; 1000]));
        queue.take_off(|_| {});
        queue.push(Bytes::from(vec![2; 1000]));
        queue.clear();
        assert_eq!(queue.bytes(), 1000);
        queue.advance(400);
        assert_eq!(queue.bytes(), 600);
        queue.clear();
        assert!(queue.is_empty());
        queue.push(Bytes::from_static(b"new"));
        assert_eq!(taken(&mut queue), [b"new"], "nothing of the old position is left");
    }
}

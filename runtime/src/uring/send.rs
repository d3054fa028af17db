//! A connection's queue of data to send: chunks in order, with small ones copied together.

use std::collections::VecDeque;

use bytes::Bytes;

use super::limits::{SEND_CHUNKS_MAX, SEND_STAGE_BYTES};
use crate::plane::SEND_COPY_BYTES_MAX;

enum Chunk {
    Shared(Bytes),
    /// Small sends, one after another.
    Staged(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Staged(bytes) => bytes,
        }
    }
}

/// Invariant: the first `in_flight` chunks are used by the kernel and neither change nor move until [`advance`](Self::advance).
#[derive(Default)]
pub(super) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that were already sent.
    sent_of_first: usize,
    /// Bytes queued but not sent.
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
            self.chunks.push_back(Chunk::Shared(data));
            return;
        }
        if self.chunks.len() > self.in_flight
            && let Some(Chunk::Staged(stage)) = self.chunks.back_mut()
            && stage.len() + data.len() <= SEND_STAGE_BYTES
        {
            stage.extend_from_slice(&data);
            return;
        }
        let mut stage = Vec::with_capacity(SEND_COPY_BYTES_MAX);
        stage.extend_from_slice(&data);
        self.chunks.push_back(Chunk::Staged(stage));
    }

    /// Passes the first chunks to `each`, for one send. They stay in place until [`advance`](Self::advance).
    pub(super) fn start_send(&mut self, mut each: impl FnMut(&[u8])) {
        debug_assert_eq!(self.in_flight, 0, "one send at a time");
        self.in_flight = self.chunks.len().min(SEND_CHUNKS_MAX);
        let mut skip = self.sent_of_first;
        for chunk in self.chunks.iter().take(self.in_flight) {
            each(&chunk.bytes()[skip..]);
            skip = 0;
        }
    }

    /// Handles the completion of the send, which has sent this many bytes.
    pub(super) fn advance(&mut self, sent: usize) {
        self.in_flight = 0;
        assert!(sent <= self.bytes, "{sent} bytes sent of {}", self.bytes);
        self.bytes -= sent;
        self.sent_of_first += sent;
        while let Some(first) = self.chunks.front() {
            let len = first.bytes().len();
            if self.sent_of_first < len {
                break;
            }
            self.sent_of_first -= len;
            self.chunks.pop_front();
        }
    }

    /// Drops everything except the chunks in flight.
    pub(super) fn clear(&mut self) {
        self.chunks.truncate(self.in_flight);
        if self.chunks.is_empty() {
            self.sent_of_first = 0;
        }
        self.bytes = self.chunks.iter().map(|chunk| chunk.bytes().len()).sum::<usize>() - self.sent_of_first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut SendQueue) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        queue.start_send(|chunk| chunks.push(chunk.to_vec()));
        chunks
    }

    #[test]
    fn small_sends_share_a_chunk_and_large_ones_are_not_copied() {
        let mut queue = SendQueue::default();
        let large = Bytes::from(vec![7; SEND_COPY_BYTES_MAX + 1]);
        queue.push(Bytes::from_static(b"ab"));
        queue.push(Bytes::from_static(b"cd"));
        queue.push(large.clone());
        queue.push(Bytes::from_static(b"ef"));
        assert_eq!(queue.bytes(), 6 + large.len());
        let mut addresses = Vec::new();
        let mut chunks = Vec::new();
        queue.start_send(|chunk| {
            addresses.push(chunk.as_ptr());
            chunks.push(chunk.to_vec());
        });
        assert_eq!(chunks, [b"abcd".to_vec(), large.to_vec(), b"ef".to_vec()]);
        assert_eq!(addresses[1], large.as_ptr());
    }

    #[test]
    fn a_chunk_in_flight_is_not_appended_to() {
        let mut queue = SendQueue::default();
        queue.push(Bytes::from_static(b"ab"));
        assert_eq!(taken(&mut queue), [b"ab"]);
        queue.push(Bytes::from_static(b"cd"));
        queue.push(Bytes::from_static(b"ef"));
        queue.advance(1);
        assert_eq!(taken(&mut queue), [b"b".to_vec(), b"cdef".to_vec()]);
    }

    #[test]
    fn partial_sends_continue_where_they_stopped_for_any_sizes() {
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
        queue.start_send(|_| {});
        queue.push(Bytes::from(vec![2; 1000]));
        queue.clear();
        assert_eq!(queue.bytes(), 1000);
        queue.advance(400);
        assert_eq!(queue.bytes(), 600);
        queue.clear();
        assert!(queue.is_empty());
        queue.push(Bytes::from_static(b"new"));
        assert_eq!(taken(&mut queue), [b"new"], "the old position is reset");
    }
}

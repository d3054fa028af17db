//! Frames become what a Kafka client is sent: the batches alone.

use bytes::{Bytes, BytesMut};
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};

use crate::read::Charge;

/// Batches smaller than this are copied next to each other: a slice of its own would cost more than its bytes.
const SLICE_BYTES_MIN: usize = 4 << 10;

/// The batches in whole frames, and how many bytes they have. Large ones stay where they rest. All of them are charged for, the frames by `charge`
/// as long as a batch rests in them.
pub(super) fn batches(frames: Vec<Bytes>, mut charge: Charge) -> (Vec<Bytes>, usize) {
    let (memory, total) = (charge.bytes(), frames.iter().map(Bytes::len).sum::<usize>().max(1));
    let small_bytes =
        frames.iter().flat_map(payloads).map(|(_, bytes)| bytes).filter(|bytes| *bytes < SLICE_BYTES_MIN);
    let small_bytes = small_bytes.sum();
    let mut small =
        Copies { bytes: BytesMut::with_capacity(small_bytes), charge: charge.of_copy(small_bytes) };
    let (mut out, mut batch_bytes) = (Vec::new(), 0);
    for chunk in frames {
        let mut part = Some(charge.split(memory * chunk.len() / total));
        let mut rests = chunk.clone();
        for (start, bytes) in payloads(&chunk) {
            batch_bytes += bytes;
            if bytes < SLICE_BYTES_MIN {
                small.bytes.extend_from_slice(&chunk[start..start + bytes]);
            } else {
                out.extend(small.take());
                if let Some(part) = part.take() {
                    rests = part.hold(rests);
                }
                out.push(rests.slice(start..start + bytes));
            }
        }
    }
    out.extend(small.take());
    (out, batch_bytes)
}

/// Where the batches in whole frames are: of each the first byte and how many.
fn payloads(chunk: &Bytes) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Ok((header, kind)) = FrameHeader::parse(&chunk[at.min(chunk.len())..]) {
            let start = at + FRAME_HEADER_BYTES;
            at += header.frame_bytes();
            if kind == FrameKind::Batch {
                return Some((start, header.payload_bytes.get() as usize));
            }
        }
        None
    })
}

/// Small batches, one behind the other.
struct Copies {
    bytes: BytesMut,
    charge: Charge,
}

impl Copies {
    /// Those since the last time.
    fn take(&mut self) -> Option<Bytes> {
        let piece = self.bytes.split().freeze();
        (!piece.is_empty()).then(|| self.charge.split(piece.len()).hold(piece))
    }
}

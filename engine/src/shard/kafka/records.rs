//! Extracts the batches for a Kafka client from frames.

use bytes::{Bytes, BytesMut};

use crate::partition::batches_of;
use crate::read::Charge;

/// Batches smaller than this are copied together: a slice for each would cost more than copying.
const SLICE_BYTES_MIN: usize = 4 << 10;

/// Returns the batches in whole frames, and their size in bytes. Large batches are slices of the frames, which keep `charge` as long as they
/// exist. Copies are charged too.
pub(super) fn batches(frames: Vec<Bytes>, mut charge: Charge) -> (Vec<Bytes>, usize) {
    let (memory, total) = (charge.bytes(), frames.iter().map(Bytes::len).sum::<usize>().max(1));
    let small_bytes =
        frames.iter().flat_map(batches_of).map(|(_, bytes)| bytes).filter(|bytes| *bytes < SLICE_BYTES_MIN);
    let small_bytes = small_bytes.sum();
    let mut small =
        Copies { bytes: BytesMut::with_capacity(small_bytes), charge: charge.of_copy(small_bytes) };
    let (mut out, mut batch_bytes) = (Vec::new(), 0);
    for chunk in frames {
        let mut part = Some(charge.split(memory * chunk.len() / total));
        let mut rests = chunk.clone();
        for (start, bytes) in batches_of(&chunk) {
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

/// Small batches, copied together.
struct Copies {
    bytes: BytesMut,
    charge: Charge,
}

impl Copies {
    /// Returns the batches copied since the last call.
    fn take(&mut self) -> Option<Bytes> {
        let piece = self.bytes.split().freeze();
        (!piece.is_empty()).then(|| self.charge.split(piece.len()).hold(piece))
    }
}

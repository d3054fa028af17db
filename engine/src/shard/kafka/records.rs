//! Frames become what a Kafka client is sent: the batches alone.

use bytes::{Bytes, BytesMut};
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};

/// Batches smaller than this are copied next to each other: a slice of its own would cost more than its bytes.
const SLICE_BYTES_MIN: usize = 4 << 10;

/// The batches in whole frames, and how many bytes they have. Large ones stay where they rest.
pub(super) fn batches(frames: &[Bytes]) -> (Vec<Bytes>, usize) {
    let mut out = Vec::new();
    let mut small = BytesMut::new();
    let mut total = 0;
    for chunk in frames {
        let mut at = 0;
        while let Ok((header, kind)) = FrameHeader::parse(&chunk[at.min(chunk.len())..]) {
            let start = at + FRAME_HEADER_BYTES;
            let bytes = header.payload_bytes.get() as usize;
            if kind == FrameKind::Batch {
                total += bytes;
                if bytes < SLICE_BYTES_MIN {
                    small.extend_from_slice(&chunk[start..start + bytes]);
                } else {
                    push(&mut out, &mut small);
                    out.push(chunk.slice(start..start + bytes));
                }
            }
            at += header.frame_bytes();
        }
    }
    push(&mut out, &mut small);
    (out, total)
}

fn push(out: &mut Vec<Bytes>, small: &mut BytesMut) {
    if !small.is_empty() {
        out.push(small.split().freeze());
    }
}

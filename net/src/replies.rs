//! Replies of the native protocol, and their encoding.

use bytes::{Bytes, BytesMut};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{
    Body, DataPrefix, MessageKind, ProduceReply, SubscribeReply, data_head, put_empty, put_error, put_message,
};

use crate::in_order::{Answer, InOrder, ReplySlot};
use crate::pieces::LongAnswer;

/// A reply.
#[derive(Debug)]
pub enum Reply {
    /// Success without a body.
    Empty,
    /// A batch was appended.
    Produced(ProduceReply),
    /// A subscription was started.
    Subscribed(SubscribeReply),
    /// Frames, as stored.
    Frames {
        /// The prefix of the body, before the frames.
        prefix: DataPrefix,
        /// The frames.
        frames: Vec<Bytes>,
    },
    /// An encoded body.
    Body(Bytes),
    /// A body that is encoded piece by piece.
    Long(LongAnswer),
    /// An error.
    Error {
        /// Error code.
        code: ErrorCode,
        /// Error message: what failed, on which thing, what to do.
        text: String,
    },
}

impl Reply {
    /// Encodes a body.
    pub fn body(body: &impl Body) -> Self {
        let mut out = BytesMut::new();
        body.encode(&mut out);
        Self::Body(out.freeze())
    }

    /// Creates an error.
    pub fn error(code: ErrorCode, text: impl Into<String>) -> Self {
        Self::Error { code, text: text.into() }
    }
}

impl Answer for Reply {
    fn bytes(&self) -> usize {
        match self {
            // Covered by the minimum that every request counts for.
            Self::Empty | Self::Produced(_) | Self::Subscribed(_) | Self::Long(_) => 0,
            Self::Frames { frames, .. } => frames.iter().map(Bytes::len).sum(),
            Self::Body(body) => body.len(),
            Self::Error { text, .. } => text.len(),
        }
    }
}

/// Encodes the header of a message whose body follows.
fn put_head(out: &mut BytesMut, kind: MessageKind, id: u64, body_bytes: usize) {
    let at = out.len();
    put_empty(out, kind, id);
    out[at..at + 4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
}

/// A reply that is the next to send.
#[derive(Debug)]
pub struct Popped {
    /// Kind of its request.
    pub kind: MessageKind,
    /// Id of its request.
    pub id: u64,
    /// Whether it is a success.
    pub ok: bool,
    /// Frames to send after the encoded bytes.
    pub frames: Vec<Bytes>,
    /// The body, if it is encoded piece by piece. Nothing else may be sent before its end.
    pub long: Option<LongAnswer>,
}

/// The requests of a connection in flight, each with its kind and id.
pub type ReplyQueue = InOrder<(MessageKind, u64), Reply>;

impl ReplyQueue {
    /// Adds a request that holds `request_bytes` until it is answered, and reserves `reply_bytes` for its reply.
    pub fn open(
        &mut self,
        kind: MessageKind,
        id: u64,
        request_bytes: usize,
        reply_bytes: usize,
    ) -> ReplySlot {
        self.push((kind, id), request_bytes, reply_bytes)
    }

    /// Removes the first request if its reply is known, and encodes the reply, up to its frames, into `out`.
    pub fn pop(&mut self, out: &mut BytesMut) -> Option<Popped> {
        let ((kind, id), reply) = self.take()?;
        let ok = !matches!(reply, Reply::Error { .. });
        let mut frames = Vec::new();
        let mut long = None;
        match reply {
            Reply::Empty => put_empty(out, kind, id),
            Reply::Produced(body) => put_message(out, id, &body),
            Reply::Subscribed(body) => put_message(out, id, &body),
            Reply::Body(body) => {
                put_head(out, kind, id, body.len());
                frames.push(body);
            }
            Reply::Long(answer) => {
                put_head(out, kind, id, answer.left());
                long = Some(answer);
            }
            Reply::Frames { prefix, frames: chunks } => {
                let bytes = chunks.iter().map(Bytes::len).sum();
                out.extend_from_slice(&data_head(kind, id, &prefix, bytes));
                frames = chunks;
            }
            Reply::Error { code, text } => put_error(out, kind as u16, id, code, &text),
        }
        Some(Popped { kind, id, ok, frames, long })
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::native::{WIRE_HEADER_BYTES, WireHeader};

    use super::*;
    use crate::limits::REQUEST_BYTES_MIN;

    fn ids(out: &[u8]) -> Vec<(u64, u16)> {
        let mut rest = out;
        let mut ids = Vec::new();
        while let Some(header) = WireHeader::parse(rest) {
            ids.push((header.request_id.get(), header.status.get()));
            rest = &rest[WIRE_HEADER_BYTES + header.body_bytes.get() as usize..];
        }
        assert!(rest.is_empty());
        ids
    }

    #[test]
    fn replies_leave_in_the_order_of_their_requests() {
        let mut queue = ReplyQueue::default();
        let mut out = BytesMut::new();
        let slots: Vec<_> = (0..4).map(|id| queue.open(MessageKind::Produce, id, 10, 0)).collect();
        queue.fill(slots[2], Reply::Empty);
        queue.fill(slots[1], Reply::error(ErrorCode::StorageFull, "full"));
        assert!(queue.pop(&mut out).is_none());
        queue.fill(slots[0], Reply::Empty);
        while queue.pop(&mut out).is_some() {}
        assert_eq!(ids(&out), [(0, 0), (1, ErrorCode::StorageFull as u16), (2, 0)]);
        assert_eq!((queue.len(), queue.request_bytes()), (1, REQUEST_BYTES_MIN));
        queue.fill(slots[3], Reply::Empty);
        assert_eq!(queue.pop(&mut out).map(|p| p.id), Some(3));
        assert!(queue.is_empty());
    }

    #[test]
    fn frames_follow_their_head_without_a_copy() {
        let mut queue = ReplyQueue::default();
        let slot = queue.open(MessageKind::Fetch, 9, 0, 0);
        let prefix = DataPrefix { next_offset: 5.into(), log_start: 0.into(), high_watermark: 5.into() };
        let frame = Bytes::from(vec![7; 100]);
        queue.fill(slot, Reply::Frames { prefix, frames: vec![frame.clone(), frame.clone()] });
        let mut out = BytesMut::new();
        let popped = queue.pop(&mut out).expect("it is known");
        assert_eq!(popped.frames[1].as_ptr(), frame.as_ptr());
        let header = WireHeader::parse(&out).expect("a header");
        assert_eq!(header.body_bytes.get() as usize, out.len() - WIRE_HEADER_BYTES + 200);
    }
}

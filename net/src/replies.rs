//! Replies leave in the order of their requests, whatever the order in which they became ready.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{
    Body, DataPrefix, MessageKind, ProduceReply, SubscribeReply, data_head, put_empty, put_error, put_message,
};

use crate::limits::{BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX};

/// A request's place in the order of replies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub(crate) u64);

/// An answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Done; there is nothing to add.
    Empty,
    /// A batch was appended.
    Produced(ProduceReply),
    /// A subscription begins.
    Subscribed(SubscribeReply),
    /// Frames, as they rest.
    Frames {
        /// What stands in front of them.
        prefix: DataPrefix,
        /// The frames.
        frames: Vec<Bytes>,
    },
    /// A body, encoded.
    Body(Bytes),
    /// It was not done.
    Error {
        /// Why.
        code: ErrorCode,
        /// The same for people: what, which, what to do.
        text: String,
    },
}

impl Reply {
    /// A body to send.
    pub fn body(body: &impl Body) -> Self {
        let mut out = BytesMut::new();
        body.encode(&mut out);
        Self::Body(out.freeze())
    }

    /// It was not done.
    pub fn error(code: ErrorCode, text: impl Into<String>) -> Self {
        Self::Error { code, text: text.into() }
    }
}

/// A reply that leaves.
#[derive(Debug)]
pub struct Popped {
    /// The kind of its request.
    pub kind: MessageKind,
    /// The id of its request.
    pub id: u64,
    /// Whether it is no error.
    pub ok: bool,
    /// What has to be sent behind the bytes that were encoded.
    pub frames: Vec<Bytes>,
}

#[derive(Debug)]
struct Slot {
    kind: MessageKind,
    id: u64,
    request_bytes: usize,
    reply_bytes: usize,
    reply: Option<Reply>,
}

/// The requests of a connection that have not been answered, in their order.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    /// Number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot>,
    request_bytes: usize,
    reply_bytes: usize,
}

impl ReplyQueue {
    /// A place for the reply to a request that holds `request_bytes` until it is answered, and then may hold `reply_bytes`.
    pub fn open(&mut self, kind: MessageKind, id: u64, request_bytes: usize, reply_bytes: usize) -> SlotId {
        let slot = SlotId(self.first + self.slots.len() as u64);
        self.slots.push_back(Slot { kind, id, request_bytes, reply_bytes, reply: None });
        self.request_bytes += request_bytes;
        self.reply_bytes += reply_bytes;
        slot
    }

    /// The reply of a slot is known.
    pub fn fill(&mut self, slot: SlotId, reply: Reply) {
        let at = slot.0.checked_sub(self.first).expect("a slot is answered once");
        let slot = &mut self.slots[at as usize];
        assert!(slot.reply.is_none(), "a slot is answered once");
        slot.reply = Some(reply);
    }

    /// Takes the reply whose turn it is, if it is known, and appends what comes in front of its frames to `out`.
    pub fn pop(&mut self, out: &mut BytesMut) -> Option<Popped> {
        self.slots.front()?.reply.as_ref()?;
        let Slot { kind, id, request_bytes, reply_bytes, reply } = self.slots.pop_front()?;
        let reply = reply?;
        self.first += 1;
        self.request_bytes -= request_bytes;
        self.reply_bytes -= reply_bytes;
        let ok = !matches!(reply, Reply::Error { .. });
        let mut frames = Vec::new();
        match reply {
            Reply::Empty => put_empty(out, kind, id),
            Reply::Produced(body) => put_message(out, id, &body),
            Reply::Subscribed(body) => put_message(out, id, &body),
            Reply::Body(body) => {
                let at = out.len();
                put_empty(out, kind, id);
                out[at..at + 4].copy_from_slice(&(body.len() as u32).to_le_bytes());
                frames.push(body);
            }
            Reply::Frames { prefix, frames: chunks } => {
                let bytes = chunks.iter().map(Bytes::len).sum();
                out.extend_from_slice(&data_head(kind, id, &prefix, bytes));
                frames = chunks;
            }
            Reply::Error { code, text } => put_error(out, kind as u16, id, code, &text),
        }
        Some(Popped { kind, id, ok, frames })
    }

    /// Whether no further request may be taken up for now.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= REQUESTS_IN_FLIGHT_MAX
            || self.request_bytes + self.reply_bytes >= BYTES_IN_FLIGHT_MAX
    }

    /// Requests that have not been answered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether everything has been answered.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes that the requests in flight hold.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::native::{WIRE_HEADER_BYTES, WireHeader};

    use super::*;

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
        assert_eq!((queue.len(), queue.request_bytes()), (1, 10));
        queue.fill(slots[3], Reply::Empty);
        assert_eq!(queue.pop(&mut out).map(|p| p.id), Some(3));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_connection_is_full_by_requests_and_by_bytes() {
        let mut queue = ReplyQueue::default();
        for id in 0..REQUESTS_IN_FLIGHT_MAX {
            assert!(!queue.is_full());
            queue.open(MessageKind::Metadata, id as u64, 0, 0);
        }
        assert!(queue.is_full());
        let mut queue = ReplyQueue::default();
        queue.open(MessageKind::Produce, 0, BYTES_IN_FLIGHT_MAX - 1, 0);
        assert!(!queue.is_full());
        queue.open(MessageKind::Fetch, 1, 0, 1);
        assert!(queue.is_full());
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

    #[test]
    #[should_panic(expected = "a slot is answered once")]
    fn answering_twice_is_our_bug() {
        let mut queue = ReplyQueue::default();
        let slot = queue.open(MessageKind::Fetch, 9, 0, 0);
        queue.fill(slot, Reply::Empty);
        queue.fill(slot, Reply::Empty);
    }
}

//! Answers leave in the order of their requests, whatever the order in which they became ready.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::api::ApiKey;
use super::schema::Message;
use crate::limits::{BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX};
use crate::replies::SlotId;

/// What an answer has to repeat of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The kind of request.
    pub api: ApiKey,
    /// The version in which it is answered.
    pub version: i16,
    /// The client's number for it.
    pub correlation_id: i32,
}

/// Starts an answer: room for its length, and its header.
pub(super) fn start(origin: Origin, out: &mut BytesMut) {
    out.put_i32(0);
    out.put_i32(origin.correlation_id);
    if origin.api.api().response_header_is_flexible(origin.version) {
        out.put_u8(0);
    }
}

/// Writes a whole answer.
pub fn response<'a>(origin: Origin, message: &impl Message<'a>) -> KafkaReply {
    let mut out = BytesMut::new();
    start(origin, &mut out);
    message.encode(origin.version, &mut out);
    let bytes = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&bytes.to_be_bytes());
    KafkaReply { head: out.freeze(), rest: Vec::new() }
}

/// An answer, as it is sent.
#[derive(Clone, Default, Debug)]
pub struct KafkaReply {
    /// Its length, its header, and all up to the first records. Empty if there is no answer, as with acks 0.
    pub head: Bytes,
    /// What follows: records, where they rest, and what stands between them.
    pub rest: Vec<Bytes>,
}

impl KafkaReply {
    /// No answer, in its turn.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Bytes that are sent.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }
}

#[derive(Debug)]
struct Slot {
    request_bytes: usize,
    reply_bytes: usize,
    reply: Option<KafkaReply>,
}

/// The requests of a connection that have not been answered, in their order.
#[derive(Debug, Default)]
pub struct KafkaReplies {
    /// Number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot>,
    request_bytes: usize,
    reply_bytes: usize,
}

impl KafkaReplies {
    /// A place for the answer to a request that holds `request_bytes` until it is answered, and then may hold `reply_bytes`.
    pub fn open(&mut self, request_bytes: usize, reply_bytes: usize) -> SlotId {
        let slot = SlotId(self.first + self.slots.len() as u64);
        self.slots.push_back(Slot { request_bytes, reply_bytes, reply: None });
        self.request_bytes += request_bytes;
        self.reply_bytes += reply_bytes;
        slot
    }

    /// The answer of a slot is known.
    pub fn fill(&mut self, slot: SlotId, reply: KafkaReply) {
        let at = slot.0.checked_sub(self.first).expect("a slot is answered once");
        let slot = &mut self.slots[at as usize];
        assert!(slot.reply.is_none(), "a slot is answered once");
        slot.reply = Some(reply);
    }

    /// Takes the answer whose turn it is, if it is known: appends its head to `out` and gives what has to be sent behind it.
    pub fn pop(&mut self, out: &mut BytesMut) -> Option<Vec<Bytes>> {
        self.slots.front()?.reply.as_ref()?;
        let Slot { request_bytes, reply_bytes, reply } = self.slots.pop_front()?;
        self.first += 1;
        self.request_bytes -= request_bytes;
        self.reply_bytes -= reply_bytes;
        let KafkaReply { head, rest } = reply?;
        out.extend_from_slice(&head);
        Some(rest)
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
    use super::*;
    use crate::kafka::messages::HeartbeatResponse;

    fn origin(correlation_id: i32) -> Origin {
        Origin { api: ApiKey::Heartbeat, version: 4, correlation_id }
    }

    #[test]
    fn answers_leave_in_the_order_of_their_requests_and_silence_has_its_turn() {
        let mut queue = KafkaReplies::default();
        let mut out = BytesMut::new();
        let slots: Vec<_> = (0..4).map(|_| queue.open(10, 5)).collect();
        let page = Bytes::from(vec![7; 100]);
        let mut with_pages = response(origin(2), &HeartbeatResponse::default());
        with_pages.rest.push(page.clone());
        queue.fill(slots[2], with_pages);
        queue.fill(slots[1], KafkaReply::nothing());
        assert!(queue.pop(&mut out).is_none());
        queue.fill(slots[0], response(origin(1), &HeartbeatResponse::default()));
        assert_eq!(queue.pop(&mut out), Some(vec![]));
        let first = out.len();
        assert_eq!(queue.pop(&mut out), Some(vec![]));
        assert_eq!(out.len(), first, "acks 0 has no answer");
        let rest = queue.pop(&mut out).expect("it is known");
        assert_eq!(rest[0].as_ptr(), page.as_ptr(), "records are not copied");
        assert!(queue.pop(&mut out).is_none());
        assert_eq!((queue.len(), queue.request_bytes()), (1, 10));
        // Length, correlation id, no tagged fields; throttle time, error, no tagged fields.
        let expected = [0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(out[..first], expected);
    }

    #[test]
    fn a_connection_is_full_by_requests_and_by_bytes() {
        let mut queue = KafkaReplies::default();
        for _ in 0..REQUESTS_IN_FLIGHT_MAX {
            assert!(!queue.is_full());
            queue.open(0, 0);
        }
        assert!(queue.is_full());
        let mut queue = KafkaReplies::default();
        queue.open(BYTES_IN_FLIGHT_MAX - 1, 0);
        assert!(!queue.is_full());
        queue.open(0, 1);
        assert!(queue.is_full());
    }

    #[test]
    #[should_panic(expected = "a slot is answered once")]
    fn answering_twice_is_our_bug() {
        let mut queue = KafkaReplies::default();
        let slot = queue.open(0, 0);
        queue.fill(slot, KafkaReply::nothing());
        queue.fill(slot, KafkaReply::nothing());
    }
}

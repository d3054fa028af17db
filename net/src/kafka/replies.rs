//! Responses of Kafka's protocol, and their encoding.

use bytes::{BufMut, Bytes, BytesMut};

use super::api::ApiKey;
use super::schema::Message;
use crate::in_order::{Answer, InOrder, ReplySlot};
use crate::pieces::LongAnswer;

/// The fields of a request that its response depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// API key.
    pub api: ApiKey,
    /// Version of the response.
    pub version: i16,
    /// Correlation id of the client.
    pub correlation_id: i32,
}

/// Starts a response: space for its length, and its header.
pub(super) fn start(origin: Origin, out: &mut BytesMut) {
    out.put_i32(0);
    out.put_i32(origin.correlation_id);
    if origin.api.api().response_header_is_flexible(origin.version) {
        out.put_u8(0);
    }
}

/// Encodes a response.
pub fn response<'a>(origin: Origin, message: &impl Message<'a>) -> KafkaReply {
    let mut out = BytesMut::new();
    start(origin, &mut out);
    message.encode(origin.version, &mut out);
    finish(out, 0)
}

/// Encodes a response around an encoded message.
pub fn response_of(origin: Origin, message: &[u8]) -> KafkaReply {
    let mut out = BytesMut::with_capacity(16 + message.len());
    start(origin, &mut out);
    out.extend_from_slice(message);
    finish(out, 0)
}

/// Completes a head that is followed by `more` bytes.
fn finish(mut head: BytesMut, more: usize) -> KafkaReply {
    let bytes = (head.len() - 4 + more) as u32;
    head[..4].copy_from_slice(&bytes.to_be_bytes());
    KafkaReply { head: head.freeze(), ..KafkaReply::default() }
}

/// An encoded response.
#[derive(Default, Debug)]
pub struct KafkaReply {
    /// Its length, its header, and the fields up to the first records. Empty if there is no response, as with acks 0.
    pub head: Bytes,
    /// What follows: records, not copied, and the fields between them.
    pub rest: Vec<Bytes>,
    /// Size of the slices of `rest` that are shared records in memory, in bytes. The other slices were allocated for this response.
    pub records_bytes: usize,
    /// What follows, if it is encoded piece by piece.
    pub long: Option<LongAnswer>,
}

/// What follows the head of a response.
#[derive(Debug)]
pub enum ReplyTail {
    /// Records, not copied, and the fields between them.
    Bytes {
        /// The slices, in order.
        rest: Vec<Bytes>,
        /// See [`KafkaReply::records_bytes`].
        records_bytes: usize,
    },
    /// Encoded piece by piece. Nothing else may be sent before its end.
    Long(LongAnswer),
}

impl KafkaReply {
    /// Creates the absence of a response, which keeps its place in the order of responses.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Creates a response that is encoded piece by piece.
    pub fn long(origin: Origin, answer: LongAnswer) -> Self {
        let mut head = BytesMut::new();
        start(origin, &mut head);
        let head = finish(head, answer.left());
        Self { long: Some(answer), ..head }
    }
}

impl Answer for KafkaReply {
    fn bytes(&self) -> usize {
        self.head.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }
}

/// The requests of a connection in flight.
pub type KafkaReplies = InOrder<(), KafkaReply>;

impl KafkaReplies {
    /// Adds a request that holds `request_bytes` until it is answered, and reserves `reply_bytes` for its response.
    pub fn open(&mut self, request_bytes: usize, reply_bytes: usize) -> ReplySlot {
        self.push((), request_bytes, reply_bytes)
    }

    /// Removes the first request if its response is known: appends the head to `out`, and returns what follows it.
    pub fn pop(&mut self, out: &mut BytesMut) -> Option<ReplyTail> {
        let ((), KafkaReply { head, rest, records_bytes, long }) = self.take()?;
        out.extend_from_slice(&head);
        Some(long.map_or(ReplyTail::Bytes { rest, records_bytes }, ReplyTail::Long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::messages::HeartbeatResponse;
    use crate::limits::REQUEST_BYTES_MIN;

    fn origin(correlation_id: i32) -> Origin {
        Origin { api: ApiKey::Heartbeat, version: 4, correlation_id }
    }

    fn pages(popped: Option<ReplyTail>) -> Option<Vec<Bytes>> {
        match popped? {
            ReplyTail::Bytes { rest, .. } => Some(rest),
            ReplyTail::Long(long) => panic!("{long:?}"),
        }
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
        assert_eq!(pages(queue.pop(&mut out)), Some(vec![]));
        let first = out.len();
        assert_eq!(pages(queue.pop(&mut out)), Some(vec![]));
        assert_eq!(out.len(), first, "acks 0 has no answer");
        let rest = pages(queue.pop(&mut out)).expect("it is known");
        assert_eq!(rest[0].as_ptr(), page.as_ptr(), "records are not copied");
        assert!(queue.pop(&mut out).is_none());
        assert_eq!((queue.len(), queue.request_bytes()), (1, REQUEST_BYTES_MIN));
        // Length, correlation id, no tagged fields; throttle time, error, no tagged fields.
        let expected = [0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(out[..first], expected);
    }
}

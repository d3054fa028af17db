//! Complete messages: a [`WireHeader`] and a body.

use bytes::{BufMut, Bytes, BytesMut};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::codec::Body;
use super::header::{MessageKind, WIRE_HEADER_BYTES, WireHeader};
use super::messages::{Acks, DATA_PREFIX_BYTES, DataPrefix, PRODUCE_PREFIX_BYTES, ProducePrefix};
use crate::error::ErrorCode;
use crate::ids::TopicPartition;
use crate::limits::{
    BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX, DATA_BODY_BYTES_MAX, ERROR_TEXT_BYTES_MAX, HELLO_BODY_BYTES_MAX,
};

impl WireHeader {
    /// Creates a header without an error.
    pub fn new(kind: MessageKind, request_id: u64, body_bytes: usize) -> Self {
        let body_bytes = u32::try_from(body_bytes).expect("every body has a limit far below 4 GiB");
        Self {
            body_bytes: U32::new(body_bytes),
            kind: U16::new(kind as u16),
            status: U16::new(0),
            request_id: U64::new(request_id),
        }
    }

    /// Returns the header at the start of `bytes`, or `None` if there are too few bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Returns the kind, if this build knows it.
    pub fn kind(&self) -> Option<MessageKind> {
        MessageKind::from_u16(self.kind.get())
    }

    /// Returns the error if this is an error reply.
    pub fn error(&self) -> Option<ErrorCode> {
        match self.status.get() {
            0 => None,
            n => Some(ErrorCode::from_u16(n)),
        }
    }
}

impl MessageKind {
    /// Returns the largest body of a request of this kind that any broker accepts, in bytes.
    pub const fn request_bytes_max(self) -> usize {
        match self {
            Self::Hello => HELLO_BODY_BYTES_MAX,
            Self::Produce => PRODUCE_PREFIX_BYTES + BATCH_BYTES_MAX,
            _ => CONTROL_BODY_BYTES_MAX,
        }
    }

    /// Returns the largest body of a reply or pushed message of this kind, in bytes.
    pub const fn reply_bytes_max(self) -> usize {
        match self {
            Self::Data | Self::Fetch => DATA_BODY_BYTES_MAX,
            _ => CONTROL_BODY_BYTES_MAX,
        }
    }
}

/// Appends a message, a request or a reply, to `out`.
pub fn put_message<B: Body>(out: &mut BytesMut, request_id: u64, body: &B) {
    let start = out.len();
    out.put_bytes(0, WIRE_HEADER_BYTES);
    body.encode(out);
    let body_bytes = out.len() - start - WIRE_HEADER_BYTES;
    let header = WireHeader::new(B::KIND, request_id, body_bytes);
    out[start..start + WIRE_HEADER_BYTES].copy_from_slice(header.as_bytes());
}

/// Appends a message without a body to `out`.
pub fn put_empty(out: &mut BytesMut, kind: MessageKind, request_id: u64) {
    out.put_slice(WireHeader::new(kind, request_id, 0).as_bytes());
}

/// Appends an error reply to `out`. The text is cut at its limit.
pub fn put_error(out: &mut BytesMut, kind: u16, request_id: u64, code: ErrorCode, text: &str) {
    let text = &text[..text.floor_char_boundary(ERROR_TEXT_BYTES_MAX)];
    let header = WireHeader {
        body_bytes: U32::new(text.len() as u32),
        kind: U16::new(kind),
        status: U16::new(code as u16),
        request_id: U64::new(request_id),
    };
    out.put_slice(header.as_bytes());
    out.put_slice(text.as_bytes());
}

/// Returns a complete message, a request or a reply.
pub fn message<B: Body>(request_id: u64, body: &B) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    put_message(&mut out, request_id, body);
    out.freeze()
}

/// Returns a complete message without a body.
pub fn empty_message(kind: MessageKind, request_id: u64) -> Bytes {
    Bytes::copy_from_slice(WireHeader::new(kind, request_id, 0).as_bytes())
}

/// Returns a complete error reply. `kind` is the bare number: it may be one that this build does not know.
pub fn error_message(kind: u16, request_id: u64, code: ErrorCode, text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(WIRE_HEADER_BYTES + text.len().min(ERROR_TEXT_BYTES_MAX));
    put_error(&mut out, kind, request_id, code, text);
    out.freeze()
}

/// Returns the text in the body of an error reply, cut at its limit and with invalid UTF-8 replaced.
pub fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(ERROR_TEXT_BYTES_MAX)]).into_owned()
}

/// Bytes before the batch of a produce request: message header and prefix.
pub const PRODUCE_HEAD_BYTES: usize = WIRE_HEADER_BYTES + PRODUCE_PREFIX_BYTES;

/// Returns the head that makes a batch of `batch_bytes` a produce request.
pub fn produce_head(
    request_id: u64,
    to: TopicPartition,
    acks: Acks,
    batch_bytes: usize,
) -> [u8; PRODUCE_HEAD_BYTES] {
    let header = WireHeader::new(MessageKind::Produce, request_id, PRODUCE_PREFIX_BYTES + batch_bytes);
    let mut head = [0; PRODUCE_HEAD_BYTES];
    head[..WIRE_HEADER_BYTES].copy_from_slice(header.as_bytes());
    head[WIRE_HEADER_BYTES..].copy_from_slice(ProducePrefix::new(to, acks).as_bytes());
    head
}

/// Bytes before the frames of a data message or of a fetch reply: message header and prefix.
pub const DATA_HEAD_BYTES: usize = WIRE_HEADER_BYTES + DATA_PREFIX_BYTES;

/// Returns the head that makes `frames_bytes` of frames a data message ([`MessageKind::Data`]) or a fetch reply
/// ([`MessageKind::Fetch`]).
pub fn data_head(
    kind: MessageKind,
    request_id: u64,
    prefix: &DataPrefix,
    frames_bytes: usize,
) -> [u8; DATA_HEAD_BYTES] {
    debug_assert!(matches!(kind, MessageKind::Data | MessageKind::Fetch));
    let header = WireHeader::new(kind, request_id, DATA_PREFIX_BYTES + frames_bytes);
    let mut head = [0; DATA_HEAD_BYTES];
    head[..WIRE_HEADER_BYTES].copy_from_slice(header.as_bytes());
    head[WIRE_HEADER_BYTES..].copy_from_slice(prefix.as_bytes());
    head
}

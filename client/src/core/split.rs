//! Splits the bytes of a connection into messages.

use bytes::{Buf, Bytes, BytesMut};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{MessageKind, WIRE_HEADER_BYTES, WireHeader};

/// A complete message from the broker.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    pub(crate) error: Option<ErrorCode>,
    pub(crate) request_id: u64,
    pub(crate) body: Bytes,
}

/// A violation of the protocol by the peer. The connection is closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProtocolViolation {
    #[error(
        "message of unknown kind {0}: the peer is not a Highwater broker, or the client is too old for it"
    )]
    Kind(u16),
    #[error("a {0:?} message of {1} bytes exceeds the limit")]
    TooLarge(MessageKind, usize),
    #[error("answer to request {0}, which was not sent")]
    Unasked(u64),
    #[error("answer of kind {got:?} to a request of kind {asked:?}")]
    OtherKind { asked: MessageKind, got: MessageKind },
}

/// Minimum free space for a read.
pub(crate) const READ_BYTES_MIN: usize = 16 << 10;
/// Maximum free space for a read, whatever length a header announces: a length alone must not cost memory.
const READ_BYTES_MAX: usize = 1 << 20;

/// Takes the next complete message from the front of `buf`. Its body shares the buffer's memory.
pub(crate) fn next_message(buf: &mut BytesMut) -> Result<Option<Message>, ProtocolViolation> {
    let Some((header, kind, body_bytes)) = announced(buf)? else { return Ok(None) };
    if buf.len() < WIRE_HEADER_BYTES + body_bytes {
        return Ok(None);
    }
    buf.advance(WIRE_HEADER_BYTES);
    let body = buf.split_to(body_bytes).freeze();
    Ok(Some(Message { kind, error: header.error(), request_id: header.request_id.get(), body }))
}

/// Returns how many bytes to reserve in `buf`: the rest of the message that has begun, within limits.
pub(crate) fn room_wanted(buf: &BytesMut) -> usize {
    match announced(buf) {
        Ok(Some((_, _, body_bytes))) => {
            let missing = (WIRE_HEADER_BYTES + body_bytes).saturating_sub(buf.len());
            missing.clamp(READ_BYTES_MIN, READ_BYTES_MAX.max(buf.len()))
        }
        _ => READ_BYTES_MIN,
    }
}

fn announced(buf: &BytesMut) -> Result<Option<(WireHeader, MessageKind, usize)>, ProtocolViolation> {
    let Some(header) = WireHeader::parse(buf) else { return Ok(None) };
    let kind = header.kind().ok_or(ProtocolViolation::Kind(header.kind.get()))?;
    let body_bytes = header.body_bytes.get() as usize;
    if body_bytes > kind.reply_bytes_max() {
        return Err(ProtocolViolation::TooLarge(kind, body_bytes));
    }
    Ok(Some((header, kind, body_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use highwater_protocol::native::{empty_message, error_message};

    #[test]
    fn messages_are_complete_wherever_the_reads_split_them() {
        let mut stream = Vec::new();
        for id in 1..=3u64 {
            stream.extend_from_slice(&error_message(
                MessageKind::Produce as u16,
                id,
                ErrorCode::Overloaded,
                "busy",
            ));
            stream.extend_from_slice(&empty_message(MessageKind::CommitOffsets, id + 10));
        }
        for cut in 1..stream.len() {
            let mut buf = BytesMut::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                buf.put_slice(piece);
                while let Some(message) = next_message(&mut buf).unwrap() {
                    seen.push((message.request_id, message.error, message.body.len()));
                }
            }
            assert!(buf.is_empty());
            let expect: Vec<_> = (1..=3u64)
                .flat_map(|id| [(id, Some(ErrorCode::Overloaded), 4), (id + 10, None, 0)])
                .collect();
            assert_eq!(seen, expect, "pieces of {cut}");
        }
    }

    #[test]
    fn invalid_headers_are_rejected_before_memory_is_reserved() {
        let mut buf = BytesMut::from(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]);
        assert!(matches!(next_message(&mut buf), Err(ProtocolViolation::Kind(_))));
        let mut header = BytesMut::from(&empty_message(MessageKind::Metadata, 1)[..]);
        header[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            next_message(&mut header).unwrap_err(),
            ProtocolViolation::TooLarge(MessageKind::Metadata, u32::MAX as usize)
        );
    }

    #[test]
    fn reserved_memory_grows_with_received_bytes_and_not_with_announced_lengths() {
        let mut header = BytesMut::from(&empty_message(MessageKind::Data, 1)[..]);
        header[0..4].copy_from_slice(&(30u32 << 20).to_le_bytes());
        assert_eq!(room_wanted(&header), READ_BYTES_MAX);
        header.put_bytes(0, 4 << 20);
        assert_eq!(room_wanted(&header), header.len());
    }
}

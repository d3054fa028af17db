//! Decodes received bytes into requests.
//!
//! ```text
//!   received bytes --next()--> Request            the message is complete: borrowed from the received bytes, not copied
//!                          \-> (partial)          the message is incomplete: its bytes are kept until the rest arrives
//!                          \-> WantsRoom(n)       a large message has begun: it continues after admit(). A large batch gets pages of
//!                                                 its own: bytes already received are copied, lend_bulk() lends the pages to the
//!                                                 plane, which receives the rest into them. A batch over the limit is discarded
//!                          \-> WantsTurn          a large request is complete: it is decoded after grant_turn(), which takes some
//!                                                 milliseconds at most. Never for a Produce, whose batch is not decoded
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::limits::{BATCH_BYTES_MAX_DEFAULT, BULK_BYTES_MIN, HELLO_BODY_BYTES_MAX};
use highwater_protocol::native::{
    Acks, Body, Credit, DecodeError, MessageKind, PRODUCE_HEAD_BYTES, PRODUCE_PREFIX_BYTES, ProducePrefix,
    WIRE_HEADER_BYTES, WireHeader,
};
use highwater_runtime::buf::AlignedBuf;

use crate::request::{Batch, Produce, Received, Request, bulk_pages};

/// Result of [`Decoder::next`].
#[derive(Debug)]
pub enum Step<'a> {
    /// All bytes were consumed, and more are needed.
    More,
    /// A complete message.
    Request(Received<'a>),
    /// A large message has begun and needs this many bytes of memory. Its body is not consumed until [`Decoder::admit`] is called; until
    /// then every call returns the same.
    WantsRoom(usize),
    /// A large request is complete. It is decoded after [`Decoder::grant_turn`]; until then every call returns this.
    WantsTurn,
}

/// Pages to receive into: from byte `filled` up to byte `end`.
#[derive(Debug)]
pub struct Lent {
    /// The pages.
    pub pages: AlignedBuf,
    /// Number of bytes already received.
    pub filled: usize,
    /// End of the message in the pages.
    pub end: usize,
}

/// The peer violated the protocol: it gets this error, and the connection is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtocolViolation {
    /// Kind of the message, or 0. May be a kind that this version does not know.
    pub kind: u16,
    /// Id of the message, or 0.
    pub id: u64,
    /// Error code.
    pub code: ErrorCode,
    /// Error message.
    pub text: String,
}

/// Splits the bytes of a connection into messages and decodes them.
#[derive(Debug)]
pub struct Decoder {
    greeted: bool,
    /// Maximum size of a batch in bytes. Larger ones are discarded.
    batch_bytes_max: usize,
    /// The bytes of an incomplete message or, if `spent`, of one that was returned.
    partial: Vec<u8>,
    spent: bool,
    /// Size of the large message in `partial` after it was admitted, else 0.
    admitted: usize,
    /// The large request that is complete may be decoded.
    has_turn: bool,
    bulk: Option<Bulk>,
    messages: u64,
}

#[derive(Debug)]
struct Bulk {
    id: u64,
    to: TopicPartition,
    acks: Acks,
    /// End of the batch in the pages.
    end: usize,
    filled: usize,
    pages: Pages,
}

#[derive(Debug)]
enum Pages {
    Wanted,
    Here(AlignedBuf),
    Lent,
    /// The batch is too large: its bytes are discarded.
    Skipped,
}

/// Capacity of the buffer that an idle connection keeps, in bytes.
const PARTIAL_BYTES_KEPT: usize = 1024;

impl Default for Decoder {
    /// Creates a decoder for a new connection, with the default limit of batches.
    fn default() -> Self {
        Self {
            greeted: false,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            partial: Vec::new(),
            spent: false,
            admitted: 0,
            has_turn: false,
            bulk: None,
            messages: 0,
        }
    }
}

impl Decoder {
    /// Creates a decoder for a connection whose hello was decoded on another shard.
    pub fn greeted() -> Self {
        Self { greeted: true, ..Self::default() }
    }

    /// Sets the maximum size of a batch in bytes.
    #[must_use]
    pub fn with_batch_bytes_max(self, batch_bytes_max: usize) -> Self {
        Self { batch_bytes_max, ..self }
    }

    /// Returns the number of messages decoded so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns whether an incomplete message has been received.
    pub fn is_inside_message(&self) -> bool {
        self.bulk.is_some() || (!self.spent && !self.partial.is_empty())
    }

    /// Returns whether the incomplete message is a large batch.
    pub fn is_produce(&self) -> bool {
        self.bulk.is_some()
    }

    /// Returns the number of bytes received of the incomplete message. A batch that the plane receives counts as a whole.
    pub fn received_bytes(&self) -> usize {
        let batch = self.bulk.as_ref().map_or(0, |bulk| match bulk.pages {
            Pages::Lent => bulk.end,
            Pages::Wanted | Pages::Here(_) | Pages::Skipped => bulk.filled,
        });
        batch.saturating_add(self.partial.len())
    }

    /// Returns the memory held for an incomplete message, in bytes.
    pub fn held_bytes(&self) -> usize {
        let pages = match &self.bulk {
            Some(Bulk { pages: Pages::Here(_) | Pages::Lent, end, .. }) => *end,
            _ => 0,
        };
        pages.saturating_add(self.partial.capacity().max(self.admitted))
    }

    /// Consumes the next message, or the part of it that is there, from the front of `data`.
    ///
    /// Call it until it returns [`Step::More`]. After an error the decoder must not be used.
    pub fn next<'s, 'd: 's>(&'s mut self, data: &mut &'d [u8]) -> Result<Step<'s>, ProtocolViolation> {
        if std::mem::take(&mut self.spent) {
            self.partial.clear();
            self.partial.shrink_to(PARTIAL_BYTES_KEPT);
        }
        if self.bulk.is_some() {
            return Ok(self.next_of_bulk(data));
        }
        if self.partial.is_empty()
            && let Some(header) = WireHeader::parse(data)
        {
            let kind = self.check(&header)?;
            let body_bytes = header.body_bytes.get() as usize;
            if is_bulk(kind, body_bytes) {
                if let Some((head, rest)) = data.split_at_checked(PRODUCE_HEAD_BYTES) {
                    *data = rest;
                    self.start_bulk(&header, head)?;
                    return Ok(self.next_of_bulk(data));
                }
            } else if let Some((message, rest)) =
                data.split_at_checked(WIRE_HEADER_BYTES.saturating_add(body_bytes))
            {
                if !self.takes_turn(kind, body_bytes) {
                    return Ok(Step::WantsTurn);
                }
                *data = rest;
                return self.read(kind, &header, message).map(Step::Request);
            }
        }
        self.next_of_partial(data)
    }

    /// Continues with a message that was received in several parts.
    fn next_of_partial<'s, 'd: 's>(&'s mut self, data: &mut &'d [u8]) -> Result<Step<'s>, ProtocolViolation> {
        if !fill(&mut self.partial, WIRE_HEADER_BYTES, data) {
            return Ok(Step::More);
        }
        let Some(header) = WireHeader::parse(&self.partial) else { return Ok(Step::More) };
        let kind = self.check(&header)?;
        let body_bytes = header.body_bytes.get() as usize;
        if is_bulk(kind, body_bytes) {
            if !fill(&mut self.partial, PRODUCE_HEAD_BYTES, data) {
                return Ok(Step::More);
            }
            let head = std::mem::take(&mut self.partial);
            self.start_bulk(&header, &head)?;
            return Ok(self.next_of_bulk(data));
        }
        let bytes = WIRE_HEADER_BYTES.saturating_add(body_bytes);
        if body_bytes >= BULK_BYTES_MIN && self.admitted == 0 {
            return Ok(Step::WantsRoom(bytes));
        }
        if !fill(&mut self.partial, bytes, data) {
            return Ok(Step::More);
        }
        if !self.takes_turn(kind, body_bytes) {
            return Ok(Step::WantsTurn);
        }
        self.admitted = 0;
        self.spent = true;
        self.note(kind);
        read_message(kind, &header, &self.partial).map(Step::Request)
    }

    fn read<'s>(
        &'s mut self,
        kind: MessageKind,
        header: &WireHeader,
        message: &'s [u8],
    ) -> Result<Received<'s>, ProtocolViolation> {
        self.note(kind);
        read_message(kind, header, message)
    }

    fn note(&mut self, kind: MessageKind) {
        self.messages = self.messages.wrapping_add(1);
        self.greeted |= kind == MessageKind::Hello;
    }

    /// Checks that this message may come now and is within its limit. Returns its kind.
    fn check(&self, header: &WireHeader) -> Result<MessageKind, ProtocolViolation> {
        let refuse = |code, text: String| {
            Err(ProtocolViolation { kind: header.kind.get(), id: header.request_id.get(), code, text })
        };
        let kind = match (header.kind(), self.greeted) {
            (Some(MessageKind::Hello), false) => MessageKind::Hello,
            (_, false) => {
                let text = "the first message of a connection must be a hello; is this a client of another protocol?";
                return refuse(ErrorCode::BadHello, text.into());
            }
            (Some(MessageKind::Hello), true) => {
                return refuse(ErrorCode::BadHello, "the connection has already sent a hello".into());
            }
            (Some(MessageKind::Data), true) => {
                return refuse(ErrorCode::Malformed, "only the broker sends data messages".into());
            }
            (Some(kind), true) => kind,
            (None, true) => {
                let text = format!("unknown message kind {}", header.kind.get());
                return refuse(ErrorCode::UnsupportedVersion, text);
            }
        };
        let bytes = header.body_bytes.get() as usize;
        let max = if self.greeted { kind.request_bytes_max() } else { HELLO_BODY_BYTES_MAX };
        if bytes > max {
            let text = format!("{kind:?}: a body of {bytes} bytes exceeds the limit of {max}");
            return refuse(ErrorCode::TooLarge, text);
        }
        if header.status.get() != 0 {
            let text = format!("{kind:?}: the status of a request must be 0, not {}", header.status.get());
            return refuse(ErrorCode::Malformed, text);
        }
        Ok(kind)
    }

    /// Starts a large batch. `head` is the message up to the batch.
    fn start_bulk(&mut self, header: &WireHeader, head: &[u8]) -> Result<(), ProtocolViolation> {
        let batch_bytes = (header.body_bytes.get() as usize).saturating_sub(PRODUCE_PREFIX_BYTES);
        let body = head.get(WIRE_HEADER_BYTES..).unwrap_or_default();
        let (to, acks) = ProducePrefix::split(body)
            .and_then(|(prefix, _)| prefix.target())
            .map_err(|e| violation(MessageKind::Produce, header, e))?;
        let end = FRAME_HEADER_BYTES.saturating_add(batch_bytes);
        let id = header.request_id.get();
        let pages = if batch_bytes > self.batch_bytes_max { Pages::Skipped } else { Pages::Wanted };
        self.bulk = Some(Bulk { id, to, acks, end, filled: FRAME_HEADER_BYTES, pages });
        Ok(())
    }

    /// Admits the large message that [`Step::WantsRoom`] announced.
    pub fn admit(&mut self) {
        if let Some(bulk) = &mut self.bulk {
            if !matches!(bulk.pages, Pages::Wanted) {
                return;
            }
            bulk.pages = Pages::Here(bulk_pages(bulk.end));
        } else if let Some(header) = WireHeader::parse(&self.partial) {
            self.admitted = WIRE_HEADER_BYTES.saturating_add(header.body_bytes.get() as usize);
        }
    }

    /// Lets the large request be decoded that [`Step::WantsTurn`] announced.
    pub fn grant_turn(&mut self) {
        self.has_turn = true;
    }

    /// Returns whether a complete message of this size may be decoded now.
    fn takes_turn(&mut self, kind: MessageKind, body_bytes: usize) -> bool {
        kind == MessageKind::Produce || body_bytes < BULK_BYTES_MIN || std::mem::take(&mut self.has_turn)
    }

    fn next_of_bulk(&mut self, data: &mut &[u8]) -> Step<'static> {
        let Some(bulk) = &mut self.bulk else { return Step::More };
        let pages = match &mut bulk.pages {
            Pages::Here(pages) => Some(pages),
            Pages::Skipped => None,
            Pages::Wanted => return Step::WantsRoom(bulk.end),
            Pages::Lent => {
                assert!(data.is_empty(), "the plane receives into the pages it was lent and nowhere else");
                return Step::More;
            }
        };
        let take = data.len().min(bulk.end.saturating_sub(bulk.filled));
        let (now, rest) = data.split_at(take);
        let until = bulk.filled.saturating_add(take);
        if let Some(room) = pages.and_then(|pages| pages.get_mut(bulk.filled..until)) {
            room.copy_from_slice(now);
        }
        bulk.filled = until;
        *data = rest;
        if bulk.filled < bulk.end {
            return Step::More;
        }
        let Some(Bulk { id, to, acks, end, pages, .. }) = self.bulk.take() else { return Step::More };
        let batch_bytes = end.saturating_sub(FRAME_HEADER_BYTES);
        let (batch, held_bytes) = match pages {
            Pages::Here(pages) => (Batch::Bulk { pages, batch_bytes }, batch_bytes),
            _ => (Batch::TooLarge { bytes: batch_bytes }, 0),
        };
        self.note(MessageKind::Produce);
        Step::Request(Received {
            id,
            kind: MessageKind::Produce,
            bytes: held_bytes.saturating_add(PRODUCE_PREFIX_BYTES),
            request: Request::Produce(Produce { to, acks, batch }),
        })
    }

    /// Lends the pages of a large batch to the plane, to receive the rest into them. Returns `None` if there is no such batch.
    pub fn lend_bulk(&mut self) -> Option<Lent> {
        let bulk = self.bulk.as_mut()?;
        if !matches!(bulk.pages, Pages::Here(_)) {
            return None;
        }
        match std::mem::replace(&mut bulk.pages, Pages::Lent) {
            Pages::Here(pages) => Some(Lent { pages, filled: bulk.filled, end: bulk.end }),
            _ => None,
        }
    }

    /// Takes back the pages once they are full. The next call of [`next`](Self::next) returns the request.
    pub fn return_bulk(&mut self, pages: AlignedBuf) {
        if let Some(bulk) = &mut self.bulk {
            assert!(matches!(bulk.pages, Pages::Lent), "only lent pages are returned");
            bulk.pages = Pages::Here(pages);
            bulk.filled = bulk.end;
        }
    }
}

/// Moves bytes from the front of `data` to `partial` until it has `want` bytes. Returns false if there are not enough.
pub(crate) fn fill(partial: &mut Vec<u8>, want: usize, data: &mut &[u8]) -> bool {
    let take = want.saturating_sub(partial.len()).min(data.len());
    let (now, rest) = data.split_at(take);
    partial.extend_from_slice(now);
    *data = rest;
    partial.len() >= want
}

fn is_bulk(kind: MessageKind, body_bytes: usize) -> bool {
    kind == MessageKind::Produce && body_bytes >= BULK_BYTES_MIN.saturating_add(PRODUCE_PREFIX_BYTES)
}

fn violation(kind: MessageKind, header: &WireHeader, error: DecodeError) -> ProtocolViolation {
    ProtocolViolation {
        kind: kind as u16,
        id: header.request_id.get(),
        code: error.code(),
        text: format!("{kind:?}: {error}"),
    }
}

fn read_message<'a>(
    kind: MessageKind,
    header: &WireHeader,
    message: &'a [u8],
) -> Result<Received<'a>, ProtocolViolation> {
    let body = message.get(WIRE_HEADER_BYTES..).unwrap_or_default();
    let request = read_body(kind, body).map_err(|e| violation(kind, header, e))?;
    Ok(Received { id: header.request_id.get(), kind, bytes: body.len(), request })
}

fn read_body(kind: MessageKind, body: &[u8]) -> Result<Request<'_>, DecodeError> {
    Ok(match kind {
        MessageKind::Hello => Request::Hello(Body::decode_request(body)?),
        MessageKind::Metadata => Request::Metadata(Body::decode_request(body)?),
        MessageKind::CreateTopic => Request::CreateTopic(Body::decode_request(body)?),
        MessageKind::DeleteTopic => Request::DeleteTopic(Body::decode_request(body)?),
        MessageKind::AlterTopic => Request::AlterTopic(Body::decode_request(body)?),
        MessageKind::DescribeTopic => Request::DescribeTopic(Body::decode_request(body)?),
        MessageKind::InitProducer => no_body(body, Request::InitProducer)?,
        MessageKind::Produce => {
            let (prefix, batch) = ProducePrefix::split(body)?;
            let (to, acks) = prefix.target()?;
            Request::Produce(Produce { to, acks, batch: Batch::Small(batch) })
        }
        MessageKind::Subscribe => Request::Subscribe(Body::decode_request(body)?),
        MessageKind::Credit => Request::Credit(Credit::decode(body)?.bytes.get()),
        MessageKind::Unsubscribe => no_body(body, Request::Unsubscribe)?,
        MessageKind::Data => return Err(DecodeError::Invalid { field: "kind", value: kind as i64 }),
        MessageKind::Fetch => Request::Fetch(Body::decode_request(body)?),
        MessageKind::ListOffsets => Request::ListOffsets(Body::decode_request(body)?),
        MessageKind::CommitOffsets => Request::CommitOffsets(Body::decode_request(body)?),
        MessageKind::ReadOffsets => Request::ReadOffsets(Body::decode_request(body)?),
        MessageKind::DeleteRecords => Request::DeleteRecords(Body::decode_request(body)?),
        MessageKind::Stats => no_body(body, Request::Stats)?,
        MessageKind::GroupHeartbeat => Request::GroupHeartbeat(Body::decode_request(body)?),
        MessageKind::CommitGroupOffsets => Request::CommitGroupOffsets(Body::decode_request(body)?),
        MessageKind::ReadGroupOffsets => Request::ReadGroupOffsets(Body::decode_request(body)?),
        MessageKind::ListGroups => Request::ListGroups(Body::decode_request(body)?),
        MessageKind::DescribeGroup => Request::DescribeGroup(Body::decode_request(body)?),
        MessageKind::DeleteGroup => Request::DeleteGroup(Body::decode_request(body)?),
        MessageKind::ReleaseSpace => Request::ReleaseSpace(Body::decode_request(body)?),
    })
}

fn no_body<'a>(body: &[u8], request: Request<'a>) -> Result<Request<'a>, DecodeError> {
    if body.is_empty() { Ok(request) } else { Err(DecodeError::Trailing { bytes: body.len() }) }
}

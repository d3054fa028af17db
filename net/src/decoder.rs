//! Bytes in, requests out.
//!
//! ```text
//!   received bytes --next()--> Request            whole in what was received: borrowed from there, no copy
//!                          \-> (partial)          the beginning of a message is kept until the rest arrives
//!                          \-> WantsRoom(n)       a large message has begun: admit() lets it in. For a batch that means pages of
//!                                                 its own; what is there is copied, and lend_bulk() gives them to the plane, which
//!                                                 receives the rest into them. One that is too large is passed over
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

/// What became of the bytes.
#[derive(Debug)]
pub enum Step<'a> {
    /// All were used; more are needed.
    More,
    /// A whole message.
    Request(Received<'a>),
    /// A large message begins, and that many bytes of memory are needed for it. Nothing of its body is used up until
    /// [`Decoder::admit`] is called; asked again, the answer is the same.
    WantsRoom(usize),
}

/// Pages to receive into: from byte `filled` up to byte `end`.
#[derive(Debug)]
pub struct Lent {
    /// The pages.
    pub pages: AlignedBuf,
    /// Bytes that are there.
    pub filled: usize,
    /// Where the message ends.
    pub end: usize,
}

/// The peer said what cannot be understood: it is told, and then the connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Kind of the message, as far as it is known; the number may be one that this build does not know.
    pub kind: u16,
    /// Its id, as far as it is known.
    pub id: u64,
    /// What is wrong.
    pub code: ErrorCode,
    /// The same, for people.
    pub text: String,
}

/// Cuts what arrives on a connection into messages and reads them.
#[derive(Debug)]
pub struct Decoder {
    greeted: bool,
    /// Bytes of the largest batch that is kept.
    batch_bytes_max: usize,
    /// A message that has begun, or, if `spent`, one that was given out.
    partial: Vec<u8>,
    spent: bool,
    /// Room for all of the large message in `partial` was granted.
    admitted: usize,
    bulk: Option<Bulk>,
    messages: u64,
}

#[derive(Debug)]
struct Bulk {
    id: u64,
    to: TopicPartition,
    acks: Acks,
    /// Where the batch ends in the pages.
    end: usize,
    filled: usize,
    pages: Pages,
}

#[derive(Debug)]
enum Pages {
    Wanted,
    Here(AlignedBuf),
    Lent,
    /// The batch is too large: its bytes are passed over.
    Skipped,
}

/// Bytes of an idle connection's buffer that are kept.
const PARTIAL_BYTES_KEPT: usize = 1024;

impl Default for Decoder {
    /// For a new connection, with batches of the size that a broker takes by default.
    fn default() -> Self {
        Self {
            greeted: false,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            partial: Vec::new(),
            spent: false,
            admitted: 0,
            bulk: None,
            messages: 0,
        }
    }
}

impl Decoder {
    /// For a connection whose hello was read elsewhere.
    pub fn greeted() -> Self {
        Self { greeted: true, ..Self::default() }
    }

    /// The same for a broker that takes batches of up to so many bytes.
    #[must_use]
    pub fn with_batch_bytes_max(self, batch_bytes_max: usize) -> Self {
        Self { batch_bytes_max, ..self }
    }

    /// Messages read so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether a message has begun and not ended.
    pub fn is_inside_message(&self) -> bool {
        self.bulk.is_some() || (!self.spent && !self.partial.is_empty())
    }

    /// Bytes that have come of the message that has begun. Those of a batch that is being received elsewhere count as if they had.
    pub fn arrived_bytes(&self) -> usize {
        let batch = self.bulk.as_ref().map_or(0, |bulk| match bulk.pages {
            Pages::Lent => bulk.end,
            Pages::Wanted | Pages::Here(_) | Pages::Skipped => bulk.filled,
        });
        batch.saturating_add(self.partial.len())
    }

    /// Memory held for messages that have begun.
    pub fn held_bytes(&self) -> usize {
        let pages = match &self.bulk {
            Some(Bulk { pages: Pages::Here(_) | Pages::Lent, end, .. }) => *end,
            _ => 0,
        };
        pages.saturating_add(self.partial.capacity().max(self.admitted))
    }

    /// Takes the next message, or as much of it as there is, from the front of `data`.
    ///
    /// To be called until it says [`Step::More`]. After an error the decoder is of no more use.
    pub fn next<'s, 'd: 's>(&'s mut self, data: &mut &'d [u8]) -> Result<Step<'s>, Refusal> {
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
                *data = rest;
                return self.read(kind, &header, message).map(Step::Request);
            }
        }
        self.next_of_partial(data)
    }

    /// A message that came in several pieces.
    fn next_of_partial<'s, 'd: 's>(&'s mut self, data: &mut &'d [u8]) -> Result<Step<'s>, Refusal> {
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
    ) -> Result<Received<'s>, Refusal> {
        self.note(kind);
        read_message(kind, header, message)
    }

    fn note(&mut self, kind: MessageKind) {
        self.messages = self.messages.wrapping_add(1);
        self.greeted |= kind == MessageKind::Hello;
    }

    /// The kind of a message that may come now, with the length that it may have.
    fn check(&self, header: &WireHeader) -> Result<MessageKind, Refusal> {
        let refuse = |code, text: String| {
            Err(Refusal { kind: header.kind.get(), id: header.request_id.get(), code, text })
        };
        let kind = match (header.kind(), self.greeted) {
            (Some(MessageKind::Hello), false) => MessageKind::Hello,
            (_, false) => {
                let text =
                    "the first message of a connection is a hello; is this a client of another protocol?";
                return refuse(ErrorCode::BadHello, text.into());
            }
            (Some(MessageKind::Hello), true) => {
                return refuse(ErrorCode::BadHello, "a connection has one hello, and it came already".into());
            }
            (Some(MessageKind::Data), true) => {
                return refuse(ErrorCode::Malformed, "data messages come from the broker only".into());
            }
            (Some(kind), true) => kind,
            (None, true) => {
                let text = format!("message kind {} is not known here", header.kind.get());
                return refuse(ErrorCode::UnsupportedVersion, text);
            }
        };
        let bytes = header.body_bytes.get() as usize;
        let max = if self.greeted { kind.request_bytes_max() } else { HELLO_BODY_BYTES_MAX };
        if bytes > max {
            let text = format!("{kind:?}: a body of {bytes} bytes is over the limit of {max}");
            return refuse(ErrorCode::TooLarge, text);
        }
        if header.status.get() != 0 {
            let text = format!("{kind:?}: the status of a request is 0, not {}", header.status.get());
            return refuse(ErrorCode::Malformed, text);
        }
        Ok(kind)
    }

    /// A large batch begins; `head` is everything in front of it.
    fn start_bulk(&mut self, header: &WireHeader, head: &[u8]) -> Result<(), Refusal> {
        let batch_bytes = (header.body_bytes.get() as usize).saturating_sub(PRODUCE_PREFIX_BYTES);
        let body = head.get(WIRE_HEADER_BYTES..).unwrap_or_default();
        let (to, acks) = ProducePrefix::split(body)
            .and_then(|(prefix, _)| prefix.target())
            .map_err(|e| refusal(MessageKind::Produce, header, e))?;
        let end = FRAME_HEADER_BYTES.saturating_add(batch_bytes);
        let id = header.request_id.get();
        let pages = if batch_bytes > self.batch_bytes_max { Pages::Skipped } else { Pages::Wanted };
        self.bulk = Some(Bulk { id, to, acks, end, filled: FRAME_HEADER_BYTES, pages });
        Ok(())
    }

    /// Lets in the large message that [`Step::WantsRoom`] announced.
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

    /// The pages of a large batch whose rest is still to come, for the plane to receive into.
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

    /// The pages come back full. [`next`](Self::next) then gives the request.
    pub fn return_bulk(&mut self, pages: AlignedBuf) {
        if let Some(bulk) = &mut self.bulk {
            assert!(matches!(bulk.pages, Pages::Lent), "only what was lent comes back");
            bulk.pages = Pages::Here(pages);
            bulk.filled = bulk.end;
        }
    }
}

/// Appends to `partial`, from the front of `data`, until it has `want` bytes. False if there are not enough.
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

fn refusal(kind: MessageKind, header: &WireHeader, error: DecodeError) -> Refusal {
    Refusal {
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
) -> Result<Received<'a>, Refusal> {
    let body = message.get(WIRE_HEADER_BYTES..).unwrap_or_default();
    let request = read_body(kind, body).map_err(|e| refusal(kind, header, e))?;
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
    })
}

fn no_body<'a>(body: &[u8], request: Request<'a>) -> Result<Request<'a>, DecodeError> {
    if body.is_empty() { Ok(request) } else { Err(DecodeError::Trailing { bytes: body.len() }) }
}

//! Decodes received bytes into requests.
//!
//! ```text
//!   received bytes --next()--> Request            the request is complete: borrowed from the received bytes, not copied
//!                          \-> (partial)          the request is incomplete: its bytes are kept until the rest arrives
//!                          \-> WantsRoom(n)       a large request has begun: it continues after admit(). Large batches of a Produce get
//!                                                 pages of their own, which lend_bulk() lends to the plane to receive into
//!                          \-> WantsTurn          a large request is complete: it is decoded after grant_turn(). That takes at most some
//!                                                 milliseconds, so only one is decoded in a turn
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use highwater_protocol::limits::{BATCH_BYTES_MAX_DEFAULT, BULK_BYTES_MIN};
use highwater_runtime::buf::AlignedBuf;

use super::api::{Api, ApiKey, State};
use super::intake::Intake;
use super::request::{Header, Received, Request};
use super::wire::{Reader, WireError};
use crate::decoder::{Lent, fill};
use crate::limits::{KAFKA_PRODUCE_BYTES_MAX, KAFKA_REQUEST_BYTES_MAX};

/// Result of [`KafkaDecoder::next`].
#[derive(Debug)]
pub enum KafkaStep<'a> {
    /// All bytes were consumed, and more are needed.
    More,
    /// A complete request.
    Request(Received<'a>),
    /// A large request has begun and needs this many bytes of memory. Nothing more is consumed until [`KafkaDecoder::admit`] is called;
    /// until then every call returns the same.
    WantsRoom(usize),
    /// A large request is complete. It is decoded after [`KafkaDecoder::grant_turn`]; until then every call returns the same.
    WantsTurn,
}

/// The peer violated the protocol. Kafka's protocol has no response for that: the connection is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaProtocolViolation {
    /// API key, if it is known.
    pub key: Option<i16>,
    /// Version of the request, if it is known.
    pub version: Option<i16>,
    /// Error message, for the log.
    pub text: String,
}

/// Which APIs the decoder accepts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Gate {
    /// Those that are served or refused.
    #[default]
    Served,
    /// All that have a codec, for tests of this crate.
    Declared,
}

/// Size of the fields from the length of a request to its correlation id, in bytes.
const PREFIX_BYTES: usize = 12;

/// Size of the length of a request, which does not count itself, in bytes.
const LENGTH_BYTES: usize = 4;

/// Minimum value of the length of a request, which then ends after its correlation id.
const REQUEST_BYTES_MIN: usize = PREFIX_BYTES - LENGTH_BYTES;

/// Minimum number of partitions of a Produce that waits for a turn to be decoded.
const LARGE_PARTITIONS_MIN: usize = 1_000;

/// Capacity of the buffer that an idle connection keeps, in bytes.
const PARTIAL_BYTES_KEPT: usize = 1024;

/// The first fields of every request.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    /// Length of the request in bytes, without the length itself.
    bytes: usize,
    api: &'static Api,
    version: i16,
    correlation_id: i32,
    /// Whether the version is accepted. Otherwise it is an ApiVersions request.
    known: bool,
}

/// Splits the bytes of a connection into requests and decodes them.
#[derive(Debug)]
pub struct KafkaDecoder {
    gate: Gate,
    /// Maximum size of a batch in bytes. Larger ones are discarded.
    batch_bytes_max: usize,
    /// The bytes of an incomplete request or, if `spent`, of one that was returned.
    partial: Vec<u8>,
    spent: bool,
    /// Size of the large request in `partial` after it was admitted, else 0.
    admitted: usize,
    /// The complete large request may be decoded.
    has_turn: bool,
    intake: Option<Large>,
    requests: u64,
}

/// A large Produce.
#[derive(Debug)]
struct Large {
    admitted: bool,
    bytes: usize,
    intake: Intake,
}

impl Default for KafkaDecoder {
    /// Creates a decoder with the default gate and the default limit of batches.
    fn default() -> Self {
        Self {
            gate: Gate::default(),
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            partial: Vec::new(),
            spent: false,
            admitted: 0,
            has_turn: false,
            intake: None,
            requests: 0,
        }
    }
}

impl KafkaDecoder {
    /// Creates a decoder with this gate.
    pub fn new(gate: Gate) -> Self {
        Self { gate, ..Self::default() }
    }

    /// Sets the maximum size of a batch in bytes.
    #[must_use]
    pub fn with_batch_bytes_max(self, batch_bytes_max: usize) -> Self {
        Self { batch_bytes_max, ..self }
    }

    /// Returns the number of requests decoded so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Returns whether an incomplete request has been received.
    pub fn is_inside_request(&self) -> bool {
        !self.spent && (self.intake.is_some() || !self.partial.is_empty())
    }

    /// Returns whether the incomplete request is a large Produce.
    pub fn is_produce(&self) -> bool {
        self.intake.is_some()
    }

    /// Returns the number of bytes received of the incomplete request. A batch that the plane receives counts as a whole.
    pub fn received_bytes(&self) -> usize {
        let large = self.intake.as_ref().map_or(0, |large| large.intake.received_bytes());
        large.saturating_add(self.partial.len())
    }

    /// Returns the memory held for an incomplete request, in bytes.
    pub fn held_bytes(&self) -> usize {
        let large = self.intake.as_ref().map_or(0, |large| if large.admitted { large.bytes } else { 0 });
        large.saturating_add(self.partial.capacity().max(self.admitted))
    }

    /// Consumes the next request, or the part of it that is there, from the front of `data`.
    ///
    /// Call it until it returns [`KafkaStep::More`]. After an error the decoder must not be used.
    pub fn next<'s, 'd: 's>(
        &'s mut self,
        data: &mut &'d [u8],
    ) -> Result<KafkaStep<'s>, KafkaProtocolViolation> {
        if std::mem::take(&mut self.spent) {
            self.partial.clear();
            self.partial.shrink_to(PARTIAL_BYTES_KEPT);
            self.intake = None;
        }
        if self.intake.is_some() {
            return self.next_of_large(data);
        }
        if self.partial.is_empty()
            && let Some(prefix) = self.parse(data)?
        {
            let bytes = LENGTH_BYTES.saturating_add(prefix.bytes);
            if is_large(&prefix) {
                if let Some((_, rest)) = data.split_at_checked(PREFIX_BYTES) {
                    *data = rest;
                    return Ok(self.start_large(&prefix));
                }
            } else if let Some((request, rest)) = data.split_at_checked(bytes) {
                if !self.takes_turn(prefix.bytes) {
                    return Ok(KafkaStep::WantsTurn);
                }
                *data = rest;
                self.requests = self.requests.wrapping_add(1);
                return read(&prefix, request).map(KafkaStep::Request);
            }
        }
        self.next_of_partial(data)
    }

    /// Continues with a request that was received in several parts.
    fn next_of_partial<'s, 'd: 's>(
        &'s mut self,
        data: &mut &'d [u8],
    ) -> Result<KafkaStep<'s>, KafkaProtocolViolation> {
        // Check the length by itself: if it is invalid, the peer may send nothing else.
        if !fill(&mut self.partial, LENGTH_BYTES, data) {
            return Ok(KafkaStep::More);
        }
        self.parse(&self.partial)?;
        if !fill(&mut self.partial, PREFIX_BYTES, data) {
            return Ok(KafkaStep::More);
        }
        let Some(prefix) = self.parse(&self.partial)? else { return Ok(KafkaStep::More) };
        if is_large(&prefix) {
            self.partial.clear();
            return Ok(self.start_large(&prefix));
        }
        let bytes = LENGTH_BYTES.saturating_add(prefix.bytes);
        if prefix.bytes >= BULK_BYTES_MIN && self.admitted == 0 {
            return Ok(KafkaStep::WantsRoom(bytes));
        }
        if !fill(&mut self.partial, bytes, data) {
            return Ok(KafkaStep::More);
        }
        if !self.takes_turn(prefix.bytes) {
            return Ok(KafkaStep::WantsTurn);
        }
        self.admitted = 0;
        self.spent = true;
        self.requests = self.requests.wrapping_add(1);
        read(&prefix, &self.partial).map(KafkaStep::Request)
    }

    /// Parses and checks the first fields of a request. Returns `None` if they are incomplete.
    fn parse(&self, data: &[u8]) -> Result<Option<Prefix>, KafkaProtocolViolation> {
        let Some((length, data)) = data.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let refuse = |key, version, text: String| Err(KafkaProtocolViolation { key, version, text });
        let Ok(bytes @ REQUEST_BYTES_MIN..=KAFKA_PRODUCE_BYTES_MAX) = usize::try_from(length) else {
            let text = format!(
                "a request of {length} bytes is not within {REQUEST_BYTES_MIN} to {KAFKA_PRODUCE_BYTES_MAX} bytes; is this a \
                 client of another protocol?"
            );
            return refuse(None, None, text);
        };
        let Some(([k0, k1, v0, v1, c0, c1, c2, c3], _)) = data.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let key = i16::from_be_bytes([*k0, *k1]);
        let version = i16::from_be_bytes([*v0, *v1]);
        let correlation_id = i32::from_be_bytes([*c0, *c1, *c2, *c3]);
        let Some(api) = ApiKey::from_i16(key).map(ApiKey::api).filter(|api| self.lets_in(api)) else {
            return refuse(Some(key), Some(version), format!("API key {key} is not served"));
        };
        let known = api.accepts(version);
        if !known && api.key != ApiKey::ApiVersions {
            let text =
                format!("{} {version}: versions {} to {} are served", api.name, api.accepted_min, api.max);
            return refuse(Some(key), Some(version), text);
        }
        if bytes > KAFKA_REQUEST_BYTES_MAX && api.key != ApiKey::Produce {
            let text = format!("{}: {bytes} bytes are over the limit of {KAFKA_REQUEST_BYTES_MAX}", api.name);
            return refuse(Some(key), Some(version), text);
        }
        Ok(Some(Prefix { bytes, api, version, correlation_id, known }))
    }

    fn lets_in(&self, api: &Api) -> bool {
        api.state != State::Declared || self.gate == Gate::Declared
    }

    fn start_large(&mut self, prefix: &Prefix) -> KafkaStep<'static> {
        let left = prefix.bytes.saturating_add(LENGTH_BYTES).saturating_sub(PREFIX_BYTES);
        let intake = Intake::new(prefix.version, prefix.correlation_id, left, self.batch_bytes_max);
        self.intake = Some(Large { admitted: false, bytes: prefix.bytes, intake });
        KafkaStep::WantsRoom(prefix.bytes)
    }

    /// Admits the large request that [`KafkaStep::WantsRoom`] announced.
    pub fn admit(&mut self) {
        if let Some(large) = &mut self.intake {
            large.admitted = true;
        } else if let Ok(Some(prefix)) = self.parse(&self.partial) {
            self.admitted = LENGTH_BYTES.saturating_add(prefix.bytes);
        }
    }

    /// Lets the next call of [`next`](Self::next) decode the large request that [`KafkaStep::WantsTurn`] announced.
    pub fn grant_turn(&mut self) {
        self.has_turn = true;
    }

    /// Returns whether a complete request of `bytes` bytes may be decoded now. Uses up the turn of a large one.
    fn takes_turn(&mut self, bytes: usize) -> bool {
        bytes < BULK_BYTES_MIN || std::mem::take(&mut self.has_turn)
    }

    fn next_of_large<'s>(&'s mut self, data: &mut &[u8]) -> Result<KafkaStep<'s>, KafkaProtocolViolation> {
        let Some(large) = &mut self.intake else { return Ok(KafkaStep::More) };
        if !large.admitted {
            return Ok(KafkaStep::WantsRoom(large.bytes));
        }
        let version = large.intake.version();
        let whole = large.intake.take(data).map_err(|e| violation(ApiKey::Produce.api(), version, e))?;
        if !whole {
            return Ok(KafkaStep::More);
        }
        // Its batches are not decoded, so only a large number of partitions takes long.
        if large.intake.partitions_so_far() >= LARGE_PARTITIONS_MIN && !std::mem::take(&mut self.has_turn) {
            return Ok(KafkaStep::WantsTurn);
        }
        self.spent = true;
        self.requests = self.requests.wrapping_add(1);
        let (header, entries, produce) =
            large.intake.read().map_err(|e| violation(ApiKey::Produce.api(), version, e))?;
        let request = Request::Produce(produce);
        Ok(KafkaStep::Request(Received { header, bytes: large.bytes, entries, request }))
    }

    /// Lends the pages of a large batch to the plane, to receive the rest into them. Returns `None` if there is no such batch.
    pub fn lend_bulk(&mut self) -> Option<Lent> {
        self.intake.as_mut()?.intake.lend()
    }

    /// Takes back the pages once they are full. The next call of [`next`](Self::next) continues after the batch.
    pub fn return_bulk(&mut self, pages: AlignedBuf) {
        if let Some(large) = &mut self.intake {
            large.intake.take_back(pages);
        }
    }
}

/// Returns whether a request may contain a large batch.
fn is_large(prefix: &Prefix) -> bool {
    prefix.api.key == ApiKey::Produce && prefix.bytes >= BULK_BYTES_MIN
}

fn violation(api: &Api, version: i16, error: WireError) -> KafkaProtocolViolation {
    KafkaProtocolViolation {
        key: Some(api.key as i16),
        version: Some(version),
        text: format!("{} {version}: {error}", api.name),
    }
}

/// Decodes a complete request without large batches. Bytes after its last field are ignored, as by Kafka: librdkafka sends three of them in a
/// Metadata request for all topics.
fn read<'a>(prefix: &Prefix, request: &'a [u8]) -> Result<Received<'a>, KafkaProtocolViolation> {
    let Prefix { bytes, api, version, correlation_id, known } = *prefix;
    let body = request.get(PREFIX_BYTES..).unwrap_or_default();
    if !known {
        // The format of such a request is unknown after the correlation id.
        let header = Header { api: api.key, version, correlation_id, client_id: None };
        return Ok(Received { header, bytes, entries: 0, request: Request::UnknownApiVersions });
    }
    let mut r = Reader::within(body, body.len());
    let read = Header::read_rest(api.key, version, correlation_id, &mut r).and_then(|header| {
        let request = Request::decode(api.key, version, &mut r)?;
        Ok(Received { header, bytes, entries: r.entries_read(), request })
    });
    read.map_err(|e| violation(api, version, e))
}

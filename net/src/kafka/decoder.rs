//! Bytes in, requests out.
//!
//! ```text
//!   received bytes --next()--> Request            whole in what was received: borrowed from there, no copy
//!                          \-> (partial)          the beginning of a request is kept until the rest arrives
//!                          \-> WantsRoom(n)       a large request has begun: admit() lets it in. Of a Produce the large batches get
//!                                                 pages of their own, which lend_bulk() gives to the plane to receive into
//!                          \-> WantsTurn          a large request is whole: grant_turn() has it read. That takes some milliseconds at
//!                                                 most, so only one is read in a turn
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

/// What became of the bytes.
#[derive(Debug)]
pub enum KafkaStep<'a> {
    /// All were used; more are needed.
    More,
    /// A whole request.
    Request(Received<'a>),
    /// A large request begins, and that many bytes of memory are needed for it. Nothing of it is used up until
    /// [`KafkaDecoder::admit`] is called; asked again, the answer is the same.
    WantsRoom(usize),
    /// A large request is whole. It is read once [`KafkaDecoder::grant_turn`] was called; asked again before, the answer is the same.
    WantsTurn,
}

/// The peer said what cannot be understood. Kafka's protocol has no answer to that: the connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaRefusal {
    /// The number of the kind of request, as far as it is known.
    pub key: Option<i16>,
    /// Its version, as far as it is known.
    pub version: Option<i16>,
    /// What is wrong, for the log.
    pub text: String,
}

/// Which requests are let in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Gate {
    /// Those that are served.
    #[default]
    Served,
    /// All that can be read, for tests of this crate.
    Declared,
}

/// Bytes from the length of a request to its correlation id.
const PREFIX_BYTES: usize = 12;

/// Bytes of a request that its length does not count.
const LENGTH_BYTES: usize = 4;

/// Bytes of the shortest request: up to its correlation id.
const REQUEST_BYTES_MIN: usize = PREFIX_BYTES - LENGTH_BYTES;

/// Partitions of a Produce that waits for a turn to be read.
const LARGE_PARTITIONS_MIN: usize = 1_000;

/// Bytes of an idle connection's buffer that are kept.
const PARTIAL_BYTES_KEPT: usize = 1024;

/// What stands at the front of every request.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    /// Bytes behind the length.
    bytes: usize,
    api: &'static Api,
    version: i16,
    correlation_id: i32,
    /// Whether the version can be read. If not, it is an ApiVersions.
    known: bool,
}

/// Cuts what arrives on a connection into requests and reads them.
#[derive(Debug)]
pub struct KafkaDecoder {
    gate: Gate,
    /// Bytes of the largest batch that is kept.
    batch_bytes_max: usize,
    /// A request that has begun, or, if `spent`, one that was given out.
    partial: Vec<u8>,
    spent: bool,
    /// Room for all of the large request in `partial` was granted.
    admitted: usize,
    /// The large request that is whole may be read.
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
    /// One that lets in what is served, with batches of the size that a broker takes by default.
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
    /// A decoder that lets in what the gate does.
    pub fn new(gate: Gate) -> Self {
        Self { gate, ..Self::default() }
    }

    /// The same for a broker that takes batches of up to so many bytes.
    #[must_use]
    pub fn with_batch_bytes_max(self, batch_bytes_max: usize) -> Self {
        Self { batch_bytes_max, ..self }
    }

    /// Requests read so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether a request has begun and not ended.
    pub fn is_inside_request(&self) -> bool {
        !self.spent && (self.intake.is_some() || !self.partial.is_empty())
    }

    /// Whether the large request that has begun is a Produce.
    pub fn is_produce(&self) -> bool {
        self.intake.is_some()
    }

    /// Bytes that have come of the request that has begun. Those of a batch that is being received elsewhere count as if they had.
    pub fn arrived_bytes(&self) -> usize {
        let large = self.intake.as_ref().map_or(0, |large| large.intake.arrived_bytes());
        large.saturating_add(self.partial.len())
    }

    /// Memory held for requests that have begun.
    pub fn held_bytes(&self) -> usize {
        let large = self.intake.as_ref().map_or(0, |large| if large.admitted { large.bytes } else { 0 });
        large.saturating_add(self.partial.capacity().max(self.admitted))
    }

    /// Takes the next request, or as much of it as there is, from the front of `data`.
    ///
    /// To be called until it says [`KafkaStep::More`]. After an error the decoder is of no more use.
    pub fn next<'s, 'd: 's>(&'s mut self, data: &mut &'d [u8]) -> Result<KafkaStep<'s>, KafkaRefusal> {
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

    /// A request that came in several pieces.
    fn next_of_partial<'s, 'd: 's>(&'s mut self, data: &mut &'d [u8]) -> Result<KafkaStep<'s>, KafkaRefusal> {
        // The length alone can be wrong, and then nothing else will come.
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

    /// The front of a request, if it is there and may come; `None` if more is needed.
    fn parse(&self, data: &[u8]) -> Result<Option<Prefix>, KafkaRefusal> {
        let Some((length, data)) = data.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let refuse = |key, version, text: String| Err(KafkaRefusal { key, version, text });
        let Ok(bytes @ REQUEST_BYTES_MIN..=KAFKA_PRODUCE_BYTES_MAX) = usize::try_from(length) else {
            let text = format!(
                "a request of {length} bytes; {REQUEST_BYTES_MIN} to {KAFKA_PRODUCE_BYTES_MAX} are possible. Is this a client \
                 of another protocol?"
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
            return refuse(Some(key), Some(version), format!("requests of kind {key} are not served"));
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

    /// Lets in the large request that [`KafkaStep::WantsRoom`] announced.
    pub fn admit(&mut self) {
        if let Some(large) = &mut self.intake {
            large.admitted = true;
        } else if let Ok(Some(prefix)) = self.parse(&self.partial) {
            self.admitted = LENGTH_BYTES.saturating_add(prefix.bytes);
        }
    }

    /// Has the large request read that [`KafkaStep::WantsTurn`] announced.
    pub fn grant_turn(&mut self) {
        self.has_turn = true;
    }

    /// Whether a request of so many bytes, which is whole, may be read now.
    fn takes_turn(&mut self, bytes: usize) -> bool {
        bytes < BULK_BYTES_MIN || std::mem::take(&mut self.has_turn)
    }

    fn next_of_large<'s>(&'s mut self, data: &mut &[u8]) -> Result<KafkaStep<'s>, KafkaRefusal> {
        let Some(large) = &mut self.intake else { return Ok(KafkaStep::More) };
        if !large.admitted {
            return Ok(KafkaStep::WantsRoom(large.bytes));
        }
        let version = large.intake.version();
        let whole = large.intake.take(data).map_err(|e| refusal(ApiKey::Produce.api(), version, e))?;
        if !whole {
            return Ok(KafkaStep::More);
        }
        // Its batches are not looked at: only many of them take long to read.
        if large.intake.partitions_so_far() >= LARGE_PARTITIONS_MIN && !std::mem::take(&mut self.has_turn) {
            return Ok(KafkaStep::WantsTurn);
        }
        self.spent = true;
        self.requests = self.requests.wrapping_add(1);
        let (header, entries, produce) =
            large.intake.read().map_err(|e| refusal(ApiKey::Produce.api(), version, e))?;
        let request = Request::Produce(produce);
        Ok(KafkaStep::Request(Received { header, bytes: large.bytes, entries, request }))
    }

    /// The pages of a large batch whose rest is still to come, for the plane to receive into.
    pub fn lend_bulk(&mut self) -> Option<Lent> {
        self.intake.as_mut()?.intake.lend()
    }

    /// The pages come back full. [`next`](Self::next) then goes on behind them.
    pub fn return_bulk(&mut self, pages: AlignedBuf) {
        if let Some(large) = &mut self.intake {
            large.intake.take_back(pages);
        }
    }
}

/// Whether a request may carry a large batch.
fn is_large(prefix: &Prefix) -> bool {
    prefix.api.key == ApiKey::Produce && prefix.bytes >= BULK_BYTES_MIN
}

fn refusal(api: &Api, version: i16, error: WireError) -> KafkaRefusal {
    KafkaRefusal {
        key: Some(api.key as i16),
        version: Some(version),
        text: format!("{} {version}: {error}", api.name),
    }
}

/// Reads a request that is whole and has no large batch. Bytes behind its last field are ignored, as Kafka ignores them: librdkafka
/// leaves three of them in a request for the metadata of all topics.
fn read<'a>(prefix: &Prefix, request: &'a [u8]) -> Result<Received<'a>, KafkaRefusal> {
    let Prefix { bytes, api, version, correlation_id, known } = *prefix;
    let body = request.get(PREFIX_BYTES..).unwrap_or_default();
    if !known {
        // Nobody knows what such a request looks like behind its correlation id.
        let header = Header { api: api.key, version, correlation_id, client_id: None };
        return Ok(Received { header, bytes, entries: 0, request: Request::UnknownApiVersions });
    }
    let mut r = Reader::within(body, body.len());
    let read = Header::read_rest(api.key, version, correlation_id, &mut r).and_then(|header| {
        let request = Request::decode(api.key, version, &mut r)?;
        Ok(Received { header, bytes, entries: r.entries_read(), request })
    });
    read.map_err(|e| refusal(api, version, e))
}

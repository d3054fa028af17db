//! Receives a large Produce request: keeps its head, and receives its large batches into pages.
//!
//! The head is copied only as far as the next part needs, so that no byte of a large batch is copied that could be received into its pages.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::limits::BULK_BYTES_MIN;
use highwater_runtime::buf::AlignedBuf;

use super::api::ApiKey;
use super::messages::ProduceRequest;
use super::produce::{Pages, Produce, Records, count, count_partitions, topic};
use super::request::Header;
use super::schema::Message;
use super::wire::{Form, Reader, WireError};
use crate::decoder::Lent;
use crate::request::{Batch, bulk_pages};

/// A large Produce request that is being received.
#[derive(Debug)]
pub(super) struct Intake {
    correlation_id: i32,
    form: Form,
    /// Maximum size of a batch in bytes. Larger ones are discarded.
    batch_bytes_max: usize,
    /// Size of the request after the correlation id, in bytes.
    bytes: usize,
    /// The request after the correlation id, without the large batches.
    head: Vec<u8>,
    /// End of the parsed part of the head.
    at: usize,
    /// Number of bytes of the request that were not received.
    left: usize,
    topics: usize,
    partitions: usize,
    /// Number of partitions of all topics so far.
    partitions_in_all: usize,
    next: Next,
    pages: Pages,
    bulk: Bulk,
}

/// The next part of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    ClientId,
    Prefix,
    Topic,
    Partition,
    /// The number of tagged fields of a structure.
    TagCount(Structure),
    /// This many tagged fields of a structure.
    Tags(u32, Structure),
    /// Bytes of the head, and what follows them.
    Bytes(usize, After),
    /// Bytes of a batch over the limit, which are discarded.
    Skip(usize),
    /// A large batch of this length.
    Large(usize),
    /// The bytes of a large batch.
    Pages,
    /// The last field of a structure was read.
    LastField(Structure),
    /// All of a structure was read, with its tagged fields.
    End(Structure),
    Nothing,
}

/// A part of the request that ends in tagged fields in flexible versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Structure {
    Header,
    Partition,
    Topic,
    Request,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Batch,
    Tag(u32, Structure),
}

/// Result of parsing a part: the next part and the updated counts.
struct Step {
    next: Next,
    topics: usize,
    partitions: usize,
    partitions_in_all: usize,
}

/// The pages of the large batch that is being received.
#[derive(Debug)]
enum Bulk {
    None,
    Here { pages: AlignedBuf, filled: usize, end: usize },
    Lent { missing: usize, end: usize },
}

impl Intake {
    /// Creates the state for a request with `left` bytes after the correlation id. Batches of more than `batch_bytes_max` bytes are discarded.
    pub(super) fn new(version: i16, correlation_id: i32, left: usize, batch_bytes_max: usize) -> Self {
        Self {
            correlation_id,
            form: ProduceRequest::form(version),
            batch_bytes_max,
            bytes: left,
            head: Vec::new(),
            at: 0,
            left,
            topics: 0,
            partitions: 0,
            partitions_in_all: 0,
            next: Next::ClientId,
            pages: Pages::new(),
            bulk: Bulk::None,
        }
    }

    pub(super) fn version(&self) -> i16 {
        self.form.version
    }

    /// Returns the number of bytes received, including those that the plane receives into lent pages.
    pub(super) fn received_bytes(&self) -> usize {
        let lent = if let Bulk::Lent { missing, .. } = self.bulk { missing } else { 0 };
        self.bytes.saturating_sub(self.left).saturating_add(lent)
    }

    /// Consumes bytes of the request from the front of `data`. Returns whether the request is complete.
    pub(super) fn take(&mut self, data: &mut &[u8]) -> Result<bool, WireError> {
        loop {
            match self.next {
                Next::Nothing if self.left == 0 => return Ok(true),
                // Bytes after the last field are ignored, as in other requests.
                Next::Nothing => {
                    if self.split(self.left, data).is_empty() {
                        return Ok(false);
                    }
                }
                Next::Skip(0) => self.next = self.after_last_field(Structure::Partition),
                Next::Skip(bytes) => {
                    let skipped = self.split(bytes, data).len();
                    self.next = Next::Skip(bytes.saturating_sub(skipped));
                    if skipped == 0 {
                        return Ok(false);
                    }
                }
                Next::Pages => {
                    if !self.take_pages(data) {
                        return Ok(false);
                    }
                    self.next = self.after_last_field(Structure::Partition);
                }
                Next::Bytes(bytes, after) => {
                    let end = self.at.saturating_add(bytes);
                    let missing = end.saturating_sub(self.head.len());
                    let taken = self.split(missing, data);
                    self.head.extend_from_slice(taken);
                    if self.head.len() < end {
                        return Ok(false);
                    }
                    self.at = end;
                    self.next = match after {
                        After::Batch => self.after_last_field(Structure::Partition),
                        After::Tag(tags, structure) => Next::Tags(tags, structure),
                    };
                }
                Next::Large(bytes) => {
                    self.next = if bytes > self.batch_bytes_max {
                        self.pages.push_back(Records::Batch(Batch::TooLarge { bytes }));
                        Next::Skip(bytes)
                    } else {
                        let end = FRAME_HEADER_BYTES.saturating_add(bytes);
                        self.bulk = Bulk::Here { pages: bulk_pages(end), filled: FRAME_HEADER_BYTES, end };
                        Next::Pages
                    };
                }
                Next::Tags(0, structure) => self.next = self.next_after(structure),
                _ => {
                    let unread = self.head.get(self.at..).unwrap_or_default();
                    let mut r = Reader::partial(unread, self.left);
                    match self.step(&mut r) {
                        Ok(step) => {
                            self.at = self.head.len().saturating_sub(r.rest().len());
                            (self.topics, self.partitions) = (step.topics, step.partitions);
                            self.partitions_in_all = step.partitions_in_all;
                            self.next = self.resolve(step.next);
                        }
                        Err(WireError::Truncated { need, have, .. })
                            if need.saturating_sub(have) <= self.left =>
                        {
                            if data.is_empty() {
                                return Ok(false);
                            }
                            let taken = self.split(need.saturating_sub(have), data);
                            self.head.extend_from_slice(taken);
                        }
                        Err(e) => return Err(e),
                    }
                }
            }
        }
    }

    /// Parses the next part completely, or fails without a change.
    fn step(&self, r: &mut Reader<'_>) -> Result<Step, WireError> {
        let old = Form { flexible: false, ..self.form };
        let mut step = Step {
            next: self.next,
            topics: self.topics,
            partitions: self.partitions,
            partitions_in_all: self.partitions_in_all,
        };
        step.next = match self.next {
            Next::ClientId => {
                r.string(old, "client_id")?;
                Next::LastField(Structure::Header)
            }
            Next::Prefix => {
                r.string(self.form, "transactional_id")?;
                r.take(6, "acks, timeout_ms")?;
                step.topics = count(r, self.form, "topics")?;
                Next::End(Structure::Topic)
            }
            Next::Topic => {
                topic(r, self.form)?;
                step.topics = step.topics.saturating_sub(1);
                step.partitions = count_partitions(r, self.form, self.partitions_in_all)?;
                step.partitions_in_all = self.partitions_in_all.saturating_add(step.partitions);
                Next::End(Structure::Partition)
            }
            Next::Partition => {
                r.take(4, "index")?;
                step.partitions = step.partitions.saturating_sub(1);
                match r.length(self.form, "records")? {
                    Some(bytes) if bytes > r.remaining() => {
                        return Err(WireError::Count { field: "records", count: bytes, have: r.remaining() });
                    }
                    Some(bytes) if bytes >= BULK_BYTES_MIN => Next::Large(bytes),
                    Some(bytes) => Next::Bytes(bytes, After::Batch),
                    None => Next::LastField(Structure::Partition),
                }
            }
            Next::TagCount(structure) => Next::Tags(r.uvarint("tagged fields")?, structure),
            Next::Tags(tags, structure) => {
                r.uvarint("tagged fields")?;
                let bytes = r.uvarint("tagged fields")? as usize;
                if bytes > r.remaining() {
                    return Err(WireError::Count {
                        field: "tagged fields",
                        count: bytes,
                        have: r.remaining(),
                    });
                }
                Next::Bytes(bytes, After::Tag(tags.saturating_sub(1), structure))
            }
            other => other,
        };
        Ok(step)
    }

    /// Returns what follows, with the updated counts.
    fn resolve(&self, next: Next) -> Next {
        match next {
            Next::LastField(structure) if self.form.flexible => Next::TagCount(structure),
            Next::LastField(structure) | Next::End(structure) => self.next_after(structure),
            next => next,
        }
    }

    /// Returns what follows a structure.
    fn next_after(&self, structure: Structure) -> Next {
        match structure {
            Structure::Header => Next::Prefix,
            Structure::Partition if self.partitions > 0 => Next::Partition,
            Structure::Partition => self.after_last_field(Structure::Topic),
            Structure::Topic if self.topics > 0 => Next::Topic,
            Structure::Topic => self.after_last_field(Structure::Request),
            Structure::Request => Next::Nothing,
        }
    }

    /// Returns what follows the last field of a structure.
    fn after_last_field(&self, structure: Structure) -> Next {
        if self.form.flexible { Next::TagCount(structure) } else { self.next_after(structure) }
    }

    /// Splits up to `bytes` bytes of the request off the front of `data`.
    fn split<'d>(&mut self, bytes: usize, data: &mut &'d [u8]) -> &'d [u8] {
        let (now, rest) = data.split_at(bytes.min(self.left).min(data.len()));
        *data = rest;
        self.left = self.left.saturating_sub(now.len());
        now
    }

    /// Copies received bytes into the pages. Returns whether the batch is complete.
    fn take_pages(&mut self, data: &mut &[u8]) -> bool {
        match std::mem::replace(&mut self.bulk, Bulk::None) {
            Bulk::Here { mut pages, filled, end } => {
                let now = self.split(end.saturating_sub(filled), data);
                let until = filled.saturating_add(now.len());
                if let Some(room) = pages.get_mut(filled..until) {
                    room.copy_from_slice(now);
                }
                if until < end {
                    self.bulk = Bulk::Here { pages, filled: until, end };
                    return false;
                }
                let batch_bytes = end.saturating_sub(FRAME_HEADER_BYTES);
                self.pages.push_back(Records::Batch(Batch::Bulk { pages, batch_bytes }));
                true
            }
            lent => {
                assert!(data.is_empty(), "the plane receives into the pages it was lent and nowhere else");
                self.bulk = lent;
                false
            }
        }
    }

    /// Lends the pages of the batch that is being received, if there is one.
    pub(super) fn lend(&mut self) -> Option<Lent> {
        match std::mem::replace(&mut self.bulk, Bulk::None) {
            Bulk::Here { pages, filled, end } => {
                self.bulk = Bulk::Lent { missing: end.saturating_sub(filled), end };
                Some(Lent { pages, filled, end })
            }
            other => {
                self.bulk = other;
                None
            }
        }
    }

    /// Takes back the pages once they are full.
    pub(super) fn take_back(&mut self, pages: AlignedBuf) {
        let Bulk::Lent { missing, end } = self.bulk else { panic!("only lent pages are returned") };
        self.left = self.left.saturating_sub(missing);
        self.bulk = Bulk::Here { pages, filled: end, end };
    }

    /// Returns the number of partitions of all topics so far.
    pub(super) fn partitions_so_far(&self) -> usize {
        self.partitions_in_all
    }

    /// Decodes the complete request. Also returns the number of entries of its lists.
    pub(super) fn read(&mut self) -> Result<(Header<'_>, usize, Produce<'_>), WireError> {
        let mut r = Reader::within(&self.head, self.bytes);
        let header = Header::read_rest(ApiKey::Produce, self.form.version, self.correlation_id, &mut r)?;
        let produce = Produce::read(self.form.version, &mut r, Some(&mut self.pages))?;
        let entries = r.entries_read();
        r.finish().map(|()| (header, entries, produce))
    }
}

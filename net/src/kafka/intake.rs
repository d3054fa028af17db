//! A large Produce request while it arrives: its head is kept, its large batches are received into pages.
//!
//! The head is taken as far as the part that comes next needs it, never further, so that not a byte of a large batch is copied which
//! could have been received where it belongs.
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

/// A large request while it arrives.
#[derive(Debug)]
pub(super) struct Intake {
    correlation_id: i32,
    form: Form,
    /// Bytes of the largest batch that is kept.
    batch_bytes_max: usize,
    /// Bytes of the whole request.
    bytes: usize,
    /// The request behind the correlation id, without the large batches.
    head: Vec<u8>,
    /// Up to where the head was understood.
    at: usize,
    /// Bytes of the request that have not come.
    left: usize,
    topics: usize,
    partitions: usize,
    /// Partitions of all topics so far.
    partitions_in_all: usize,
    next: Next,
    pages: Pages,
    bulk: Bulk,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    ClientId,
    Prefix,
    Topic,
    Partition,
    /// Tagged fields, and what they are behind.
    TagCount(Behind),
    Tags(u32, Behind),
    /// Bytes that belong to the head, and what follows.
    Bytes(usize, After),
    /// Bytes of a batch that is too large to be one.
    Skip(usize),
    /// A large batch of this length.
    Large(usize),
    /// Bytes of it.
    Pages,
    /// The last field of something was read.
    End(Behind),
    /// So were its tagged fields.
    Behind(Behind),
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    Header,
    Partition,
    Topic,
    Request,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Batch,
    Tag(u32, Behind),
}

/// Where a part that was read leads.
struct Step {
    next: Next,
    topics: usize,
    partitions: usize,
    partitions_in_all: usize,
}

/// Pages that are being received into.
#[derive(Debug)]
enum Bulk {
    None,
    Here { pages: AlignedBuf, filled: usize, end: usize },
    Lent { missing: usize, end: usize },
}

impl Intake {
    /// For a request of which `left` bytes follow the correlation id. Batches of more than `batch_bytes_max` are not kept.
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

    /// Bytes that have come, or are being received into pages that were lent.
    pub(super) fn arrived_bytes(&self) -> usize {
        let lent = if let Bulk::Lent { missing, .. } = self.bulk { missing } else { 0 };
        self.bytes.saturating_sub(self.left).saturating_add(lent)
    }

    /// Takes what belongs to the request from the front of `data`; true when it is whole.
    pub(super) fn take(&mut self, data: &mut &[u8]) -> Result<bool, WireError> {
        loop {
            match self.next {
                Next::Nothing if self.left == 0 => return Ok(true),
                // What follows the last field is nobody's, here as in other requests.
                Next::Nothing => {
                    if self.split(self.left, data).is_empty() {
                        return Ok(false);
                    }
                }
                Next::Skip(0) => self.next = self.end_of(Behind::Partition),
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
                    self.next = self.end_of(Behind::Partition);
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
                        After::Batch => self.end_of(Behind::Partition),
                        After::Tag(tags, behind) => Next::Tags(tags, behind),
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
                Next::Tags(0, behind) => self.next = self.behind(behind),
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

    /// Reads the part that comes next, all of it or nothing.
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
                Next::End(Behind::Header)
            }
            Next::Prefix => {
                r.string(self.form, "transactional_id")?;
                r.take(6, "acks, timeout_ms")?;
                step.topics = count(r, self.form, "topics")?;
                Next::Behind(Behind::Topic)
            }
            Next::Topic => {
                topic(r, self.form)?;
                step.topics = step.topics.saturating_sub(1);
                step.partitions = count_partitions(r, self.form, self.partitions_in_all)?;
                step.partitions_in_all = self.partitions_in_all.saturating_add(step.partitions);
                Next::Behind(Behind::Partition)
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
                    None => Next::End(Behind::Partition),
                }
            }
            Next::TagCount(behind) => Next::Tags(r.uvarint("tagged fields")?, behind),
            Next::Tags(tags, behind) => {
                r.uvarint("tagged fields")?;
                let bytes = r.uvarint("tagged fields")? as usize;
                if bytes > r.remaining() {
                    return Err(WireError::Count {
                        field: "tagged fields",
                        count: bytes,
                        have: r.remaining(),
                    });
                }
                Next::Bytes(bytes, After::Tag(tags.saturating_sub(1), behind))
            }
            other => other,
        };
        Ok(step)
    }

    /// What follows, now that the counts are known.
    fn resolve(&self, next: Next) -> Next {
        match next {
            Next::End(behind) if self.form.flexible => Next::TagCount(behind),
            Next::End(behind) | Next::Behind(behind) => self.behind(behind),
            next => next,
        }
    }

    /// What follows the tagged fields behind something.
    fn behind(&self, behind: Behind) -> Next {
        match behind {
            Behind::Header => Next::Prefix,
            Behind::Partition if self.partitions > 0 => Next::Partition,
            Behind::Partition => self.end_of(Behind::Topic),
            Behind::Topic if self.topics > 0 => Next::Topic,
            Behind::Topic => self.end_of(Behind::Request),
            Behind::Request => Next::Nothing,
        }
    }

    /// What follows the last field of something.
    fn end_of(&self, behind: Behind) -> Next {
        if self.form.flexible { Next::TagCount(behind) } else { self.behind(behind) }
    }

    /// Up to `bytes` of the request from the front of `data`.
    fn split<'d>(&mut self, bytes: usize, data: &mut &'d [u8]) -> &'d [u8] {
        let (now, rest) = data.split_at(bytes.min(self.left).min(data.len()));
        *data = rest;
        self.left = self.left.saturating_sub(now.len());
        now
    }

    /// Copies into the pages what has been received elsewhere; true when they are full.
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

    /// The pages that are being received into, if there are.
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

    /// They come back full.
    pub(super) fn take_back(&mut self, pages: AlignedBuf) {
        let Bulk::Lent { missing, end } = self.bulk else { panic!("only what was lent comes back") };
        self.left = self.left.saturating_sub(missing);
        self.bulk = Bulk::Here { pages, filled: end, end };
    }

    /// Partitions of all topics so far.
    pub(super) fn partitions_so_far(&self) -> usize {
        self.partitions_in_all
    }

    /// Reads the request, which is whole. Also tells how many entries its lists have.
    pub(super) fn read(&mut self) -> Result<(Header<'_>, usize, Produce<'_>), WireError> {
        let mut r = Reader::within(&self.head, self.bytes);
        let header = Header::read_rest(ApiKey::Produce, self.form.version, self.correlation_id, &mut r)?;
        let produce = Produce::read(self.form.version, &mut r, Some(&mut self.pages))?;
        let entries = r.entries_read();
        r.finish().map(|()| (header, entries, produce))
    }
}

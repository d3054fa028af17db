//! Produce, with a hand-written decoder: small batches are borrowed from the received bytes, large ones are received into pages of their own.
//!
//! ```text
//!   request ── head: everything but the large batches ──────────────┐
//!          └── batches of BULK_BYTES_MIN and more: pages, in order ─┴── Produce
//! ```
//!
//! A request below `BULK_BYTES_MIN` has no large batch and is decoded in place. A larger one is received by an `Intake`, which separates the
//! head from the pages; then the same decoder decodes the head, and takes each large batch from the pages.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use highwater_protocol::limits::BULK_BYTES_MIN;

use super::messages::ProduceRequest;
use super::schema::Message;
use super::wire::{Form, Reader, Uuid, Wire, WireError};
use crate::limits::KAFKA_PRODUCE_PARTITIONS_MAX;
use crate::request::Batch;

/// Batches to append. They have not been checked.
#[derive(Debug)]
pub struct Produce<'a> {
    /// `None` unless the producer is transactional.
    pub transactional_id: Option<&'a str>,
    /// 0: no response; 1: durable on the leader; -1: durable on the in-sync replicas.
    pub acks: i16,
    /// Timeout of the client in milliseconds.
    pub timeout_ms: i32,
    /// Batches in the order of the request; those of a topic entry are adjacent.
    pub partitions: Vec<ProduceTo<'a>>,
}

/// A batch and its partition.
#[derive(Debug)]
pub struct ProduceTo<'a> {
    /// The topic's name; empty from version 13 on.
    pub topic: &'a str,
    /// The topic's id, from version 13 on.
    pub topic_id: Uuid,
    /// The partition.
    pub index: i32,
    /// The batch.
    pub records: Records<'a>,
}

/// The records field of a partition.
#[derive(Debug)]
pub enum Records<'a> {
    /// Null.
    Null,
    /// Bytes, which should be one batch.
    Batch(Batch<'a>),
}

/// Large batches of a request, in order.
pub(super) type Pages = VecDeque<Records<'static>>;

impl<'a> Produce<'a> {
    /// Decodes a complete request.
    pub fn decode(version: i16, r: &mut Reader<'a>) -> Result<Self, WireError> {
        Self::read(version, r, None)
    }

    /// Decodes a request whose large batches are in `pages`.
    pub(super) fn read(
        version: i16,
        r: &mut Reader<'a>,
        mut pages: Option<&mut Pages>,
    ) -> Result<Self, WireError> {
        let form = ProduceRequest::form(version);
        let transactional_id = r.string(form, "transactional_id")?;
        let acks = Wire::read(r, form, "acks")?;
        let timeout_ms = Wire::read(r, form, "timeout_ms")?;
        let topics = count(r, form, "topics")?;
        r.take_entries(topics, "topics")?;
        let mut partitions = Vec::new();
        for _ in 0..topics {
            let (topic, topic_id) = topic(r, form)?;
            let here = count_partitions(r, form, partitions.len())?;
            r.take_entries(here, "partitions")?;
            // Twice, because the capacity of a growing vector is up to twice its length.
            r.take_memory(here.saturating_mul(2).saturating_mul(size_of::<ProduceTo<'_>>()), "partitions")?;
            partitions.reserve(here);
            for _ in 0..here {
                let index = Wire::read(r, form, "index")?;
                let len = r.length(form, "records")?;
                let records = match (len, &mut pages) {
                    (None, _) => Records::Null,
                    (Some(len), Some(pages)) if len >= BULK_BYTES_MIN => pages
                        .pop_front()
                        .ok_or(WireError::Truncated { field: "records", need: len, have: 0 })?,
                    (Some(len), _) => Records::Batch(Batch::Small(r.take(len, "records")?)),
                };
                r.tagged(form, |_, _| Ok(false))?;
                partitions.push(ProduceTo { topic, topic_id, index, records });
            }
            r.tagged(form, |_, _| Ok(false))?;
        }
        r.tagged(form, |_, _| Ok(false))?;
        Ok(Self { transactional_id, acks, timeout_ms, partitions })
    }
}

/// Decodes the number of topics or partitions, which the remaining bytes must be able to hold.
pub(super) fn count(r: &mut Reader<'_>, form: Form, field: &'static str) -> Result<usize, WireError> {
    let count = r.length(form, field)?.ok_or(WireError::Null { field })?;
    let bytes_min: usize = if form.flexible { 3 } else { 6 };
    if count.saturating_mul(bytes_min) > r.remaining() {
        return Err(WireError::Count { field, count, have: r.remaining() });
    }
    if count > KAFKA_PRODUCE_PARTITIONS_MAX {
        return Err(WireError::TooMany { field, count, max: KAFKA_PRODUCE_PARTITIONS_MAX });
    }
    Ok(count)
}

/// Decodes the number of partitions of a topic, after `before` partitions of other topics.
pub(super) fn count_partitions(r: &mut Reader<'_>, form: Form, before: usize) -> Result<usize, WireError> {
    let here = count(r, form, "partitions")?;
    let (count, max) = (before.saturating_add(here), KAFKA_PRODUCE_PARTITIONS_MAX);
    if count > max { Err(WireError::TooMany { field: "partitions", count, max }) } else { Ok(here) }
}

pub(super) fn topic<'a>(r: &mut Reader<'a>, form: Form) -> Result<(&'a str, Uuid), WireError> {
    if form.version >= 13 {
        Ok(("", Uuid::read(r, form, "topic_id")?))
    } else {
        Ok((<&str>::read(r, form, "name")?, Uuid::default()))
    }
}

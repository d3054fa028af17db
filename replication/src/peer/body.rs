//! The bodies of `Bind`, `Unbind`, `Elsewhere`, `Credit` and `Goodbye`.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut as _;
use highwater_protocol::ids::{PartitionIndex, ShardId, TopicId, TopicPartition};
use highwater_protocol::native::{DecodeError, Reader};
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::Goodbye;
use super::limits::GOODBYE_TEXT_BYTES_MAX;

/// What a handle stands for: a partition, and the two replicas on the nodes of the channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Route {
    /// The partition.
    pub partition: TopicPartition,
    /// Incarnation of the replica on the sender's node.
    pub from: u32,
    /// Incarnation of the replica on the receiver's node.
    pub to: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BindEntry {
    handle: U32,
    partition: U32,
    topic: [u8; 16],
    from: U32,
    to: U32,
}

const BIND_BYTES: usize = size_of::<BindEntry>();
const _: () = assert!(BIND_BYTES == 32);

/// Appends an entry of `Bind`.
pub(crate) fn put_bind(out: &mut Vec<u8>, handle: u32, route: &Route) {
    let entry = BindEntry {
        handle: U32::new(handle),
        partition: U32::new(route.partition.partition.0),
        topic: route.partition.topic.0,
        from: U32::new(route.from),
        to: U32::new(route.to),
    };
    out.extend_from_slice(entry.as_bytes());
}

/// Takes an entry of `Bind`.
pub(crate) fn read_bind(reader: &mut Reader<'_>) -> Result<(u32, Route), DecodeError> {
    let entry: [u8; BIND_BYTES] = reader.array("bind entry")?;
    let entry: BindEntry = zerocopy::transmute!(entry);
    let partition = PartitionIndex(entry.partition.get());
    let partition = TopicPartition { topic: TopicId(entry.topic), partition };
    Ok((entry.handle.get(), Route { partition, from: entry.from.get(), to: entry.to.get() }))
}

/// An entry of `Elsewhere`: the receiver of a handle does not have the partition.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ElsewhereEntry {
    handle: U32,
    shard: U16,
    known: u8,
    reserved: u8,
}

const ELSEWHERE_BYTES: usize = size_of::<ElsewhereEntry>();
const _: () = assert!(ELSEWHERE_BYTES == 8);

/// Appends an entry of `Elsewhere`. `shard`: the shard that has the partition, if the node has it at all.
pub(crate) fn put_elsewhere(out: &mut Vec<u8>, handle: u32, shard: Option<ShardId>) {
    let entry = ElsewhereEntry {
        handle: U32::new(handle),
        shard: U16::new(shard.map_or(0, |shard| shard.0)),
        known: u8::from(shard.is_some()),
        reserved: 0,
    };
    out.extend_from_slice(entry.as_bytes());
}

/// Takes an entry of `Elsewhere`.
pub(crate) fn read_elsewhere(reader: &mut Reader<'_>) -> Result<(u32, Option<ShardId>), DecodeError> {
    let entry: [u8; ELSEWHERE_BYTES] = reader.array("elsewhere entry")?;
    let entry: ElsewhereEntry = zerocopy::transmute!(entry);
    let shard = match entry.known {
        0 => None,
        1 => Some(ShardId(entry.shard.get())),
        n => return Err(DecodeError::Invalid { field: "known", value: i64::from(n) }),
    };
    Ok((entry.handle.get(), shard))
}

/// Returns the body of a `Goodbye`. A longer text is cut off.
pub(crate) fn goodbye(why: Goodbye, text: &str) -> Vec<u8> {
    let end = text.floor_char_boundary(GOODBYE_TEXT_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    let mut body = vec![why as u8];
    body.put_u32_le(text.len() as u32);
    body.extend_from_slice(text.as_bytes());
    body
}

/// Takes the body of a `Goodbye`.
pub(crate) fn read_goodbye(reader: &mut Reader<'_>) -> Result<(Goodbye, String), DecodeError> {
    let why = reader.u8("reason")?;
    let why = Goodbye::from_u8(why).ok_or(DecodeError::Invalid { field: "reason", value: i64::from(why) })?;
    Ok((why, reader.string("text", GOODBYE_TEXT_BYTES_MAX)?))
}

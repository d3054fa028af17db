//! The body of `Control`: every message between replicas that is neither an append nor an acknowledgement.
//!
//! ```text
//!   one entry = handle u32, tag u8, term i32, fields of the message
//! ```
//!
//! The core does not know offsets, so the offset at which a log starts anew goes beside [`Message::StartAt`] and not in it.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut as _;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset};
use highwater_protocol::native::{DecodeError, Reader};

use super::limits::MEMBERS_MAX;
use crate::raft::{Config, ConfigEntry, LOG_END_MAX, LogEnd, MEMBER_BYTES, Member, Message, Part, ReplicaId};

const PRE_VOTE: u8 = 1;
const PRE_VOTED: u8 = 2;
const VOTE: u8 = 3;
const VOTED: u8 = 4;
const REJECTED: u8 = 5;
const START_AT: u8 = 6;
const TIMEOUT_NOW: u8 = 7;
const STEPPED_DOWN: u8 = 8;
const LOST_END: u8 = 9;
const FETCH: u8 = 10;

/// Maximum offset of the start of a log. No record gets a higher one.
const START_OFFSET_MAX: i64 = LOG_END_MAX.0 as i64;

/// Appends a message. Appends and acknowledgements have messages of their own. `start`: the offset of a [`Message::StartAt`].
pub(crate) fn put_control(out: &mut Vec<u8>, handle: u32, message: &Message, start: Option<Offset>) {
    assert!(start.is_some() == matches!(message, Message::StartAt { .. }), "a log starts anew at an offset");
    out.put_u32_le(handle);
    match message {
        Message::PreVote { term, last } => {
            head(out, PRE_VOTE, *term);
            put_end(out, *last);
        }
        Message::PreVoted { term, asked, granted } => {
            head(out, PRE_VOTED, *term);
            out.put_i32_le(asked.0);
            out.put_u8(u8::from(*granted));
        }
        Message::Vote { term, last, transfer } => {
            head(out, VOTE, *term);
            put_end(out, *last);
            out.put_u8(u8::from(*transfer));
        }
        Message::Voted { term, granted } => {
            head(out, VOTED, *term);
            out.put_u8(u8::from(*granted));
        }
        Message::Rejected { term, hint } => {
            head(out, REJECTED, *term);
            put_end(out, *hint);
        }
        Message::StartAt { term, start: end, config } => {
            head(out, START_AT, *term);
            put_end(out, *end);
            out.put_i64_le(start.map_or(0, |offset| offset.0));
            put_config(out, config);
        }
        Message::TimeoutNow { term } => head(out, TIMEOUT_NOW, *term),
        Message::SteppedDown { term } => head(out, STEPPED_DOWN, *term),
        Message::LostEnd { term } => head(out, LOST_END, *term),
        Message::Fetch { term, from, until } => {
            head(out, FETCH, *term);
            out.put_u64_le(from.0);
            out.put_u64_le(until.0);
        }
        Message::Append(_) | Message::Appended { .. } => {
            panic!("appends and acknowledgements have messages of their own");
        }
    }
}

fn head(out: &mut Vec<u8>, tag: u8, term: LeaderEpoch) {
    out.put_u8(tag);
    out.put_i32_le(term.0);
}

fn put_end(out: &mut Vec<u8>, end: LogEnd) {
    out.put_u64_le(end.end.0);
    out.put_i32_le(end.epoch.0);
}

fn put_config(out: &mut Vec<u8>, entry: &ConfigEntry) {
    out.put_u64_le(entry.index.0);
    let members = entry.config.members();
    out.put_u32_le(members.len() as u32);
    for member in members {
        out.put_slice(&member.to_bytes());
    }
}

/// Takes a message with its handle, and the offset of a [`Message::StartAt`].
pub(crate) fn read_control(reader: &mut Reader<'_>) -> Result<(u32, Message, Option<Offset>), DecodeError> {
    let handle = reader.u32("handle")?;
    let tag = reader.u8("tag")?;
    let term = read_term(reader, "term")?;
    let mut offset = None;
    let message = match tag {
        PRE_VOTE => Message::PreVote { term, last: read_end(reader)? },
        PRE_VOTED => {
            Message::PreVoted { term, asked: read_term(reader, "asked")?, granted: reader.bool("granted")? }
        }
        VOTE => Message::Vote { term, last: read_end(reader)?, transfer: reader.bool("transfer")? },
        VOTED => Message::Voted { term, granted: reader.bool("granted")? },
        REJECTED => Message::Rejected { term, hint: read_end(reader)? },
        START_AT => {
            let start = read_end(reader)?;
            offset = Some(read_start_offset(reader)?);
            Message::StartAt { term, start, config: read_config(reader)? }
        }
        TIMEOUT_NOW => Message::TimeoutNow { term },
        STEPPED_DOWN => Message::SteppedDown { term },
        LOST_END => Message::LostEnd { term },
        FETCH => {
            Message::Fetch { term, from: read_index(reader, "from")?, until: read_index(reader, "until")? }
        }
        tag => return Err(DecodeError::Invalid { field: "tag", value: i64::from(tag) }),
    };
    Ok((handle, message, offset))
}

fn read_start_offset(reader: &mut Reader<'_>) -> Result<Offset, DecodeError> {
    let value = reader.i64("start offset")?;
    if (0..=START_OFFSET_MAX).contains(&value) {
        Ok(Offset(value))
    } else {
        Err(DecodeError::Invalid { field: "start offset", value })
    }
}

fn read_term(reader: &mut Reader<'_>, field: &'static str) -> Result<LeaderEpoch, DecodeError> {
    reader.i32(field).map(LeaderEpoch)
}

fn read_index(reader: &mut Reader<'_>, field: &'static str) -> Result<LogIndex, DecodeError> {
    reader.u64(field).map(LogIndex)
}

fn read_end(reader: &mut Reader<'_>) -> Result<LogEnd, DecodeError> {
    Ok(LogEnd { end: read_index(reader, "end")?, epoch: read_term(reader, "epoch")? })
}

fn read_config(reader: &mut Reader<'_>) -> Result<ConfigEntry, DecodeError> {
    let index = read_index(reader, "configuration index")?;
    let members = reader.list("members", MEMBER_BYTES, MEMBERS_MAX, read_member)?;
    let count = members.len() as i64;
    let config =
        Config::from_members(members).ok_or(DecodeError::Invalid { field: "members", value: count })?;
    Ok(ConfigEntry { index, config })
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member, DecodeError> {
    let id = ReplicaId { node: NodeId(reader.u32("node")?), incarnation: reader.u32("incarnation")? };
    let code = reader.u8("part")?;
    let part = Part::from_code(code).ok_or(DecodeError::Invalid { field: "part", value: i64::from(code) })?;
    Ok(Member { id, part })
}

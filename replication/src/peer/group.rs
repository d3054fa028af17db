//! The body of `Group`: what leaders append, and the frames of holes, without the frames themselves.
//!
//! A group has the entries of all partitions of a round. Their frames follow the body in the same order, as they are on disk: a header of
//! 64 bytes, a payload and its alignment. The receiver looks at the headers and receives each large frame into pages of its own, at their start: where the
//! frame's header arrives, the header of the follower's own log replaces it, and the batch is never moved.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_protocol::native::{DecodeError, Reader};
use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::limits::{ENTRY_FRAMES_BYTES_MAX, RUNS_PER_APPEND_MAX};
use crate::raft::{Append, Run};

const APPEND: u8 = 0;
const COMMITTED: u8 = 1;

/// Fixed part of an entry.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryHead {
    handle: U32,
    kind: u8,
    /// 1: the epoch before the first entry is known.
    prev_known: u8,
    runs: U16,
    term: I32,
    prev_epoch: I32,
    from: U64,
    end: U64,
    commit_end: U64,
    frames_bytes: U32,
    reserved: U32,
}

const ENTRY_HEAD_BYTES: usize = size_of::<EntryHead>();
const _: () = assert!(ENTRY_HEAD_BYTES == 48);

/// A run of entries of one epoch.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RunHead {
    start: U64,
    epoch: I32,
}

const _: () = assert!(size_of::<RunHead>() == 12);

/// What the frames of an entry are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Entries of a leader's log.
    Append(Append),
    /// Entries that are committed, for a replica that cannot read its own.
    Committed { from: LogIndex, until: LogIndex },
}

/// An entry of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroupEntry {
    pub(crate) handle: u32,
    pub(crate) content: Content,
    pub(crate) frames_bytes: usize,
}

impl GroupEntry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.frames_bytes <= ENTRY_FRAMES_BYTES_MAX, "an entry has one large frame, or fewer bytes");
        let mut head = EntryHead {
            handle: U32::new(self.handle),
            kind: COMMITTED,
            prev_known: 0,
            runs: U16::ZERO,
            term: I32::ZERO,
            prev_epoch: I32::ZERO,
            from: U64::ZERO,
            end: U64::ZERO,
            commit_end: U64::ZERO,
            frames_bytes: U32::new(self.frames_bytes as u32),
            reserved: U32::ZERO,
        };
        match &self.content {
            Content::Committed { from, until } => {
                (head.from, head.end) = (U64::new(from.0), U64::new(until.0));
                out.extend_from_slice(head.as_bytes());
            }
            Content::Append(append) => {
                let Append { term, from, prev_epoch, end, runs, commit_end } = append;
                assert!(runs.len() <= RUNS_PER_APPEND_MAX, "each frame of an append begins at most one run");
                head.kind = APPEND;
                head.prev_known = u8::from(prev_epoch.is_some());
                head.runs = U16::new(runs.len() as u16);
                head.term = I32::new(term.0);
                head.prev_epoch = I32::new(prev_epoch.map_or(0, |epoch| epoch.0));
                (head.from, head.end) = (U64::new(from.0), U64::new(end.0));
                head.commit_end = U64::new(commit_end.0);
                out.extend_from_slice(head.as_bytes());
                for run in runs {
                    let run = RunHead { start: U64::new(run.start.0), epoch: I32::new(run.epoch.0) };
                    out.extend_from_slice(run.as_bytes());
                }
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let head: [u8; ENTRY_HEAD_BYTES] = reader.array("entry")?;
        let head: EntryHead = zerocopy::transmute!(head);
        let runs = usize::from(head.runs.get());
        let frames_bytes = head.frames_bytes.get() as usize;
        for (field, have, max) in
            [("runs", runs, RUNS_PER_APPEND_MAX), ("frames bytes", frames_bytes, ENTRY_FRAMES_BYTES_MAX)]
        {
            if have > max {
                return Err(DecodeError::TooLarge { field, have, max });
            }
        }
        let (from, end) = (LogIndex(head.from.get()), LogIndex(head.end.get()));
        let content = match (head.kind, head.prev_known) {
            (APPEND, prev_known @ 0..=1) => Content::Append(Append {
                term: LeaderEpoch(head.term.get()),
                from,
                prev_epoch: (prev_known == 1).then_some(LeaderEpoch(head.prev_epoch.get())),
                end,
                runs: read_runs(reader, runs)?,
                commit_end: LogIndex(head.commit_end.get()),
            }),
            (COMMITTED, 0) if runs == 0 && from < end => Content::Committed { from, until: end },
            (kind, _) => return Err(DecodeError::Invalid { field: "entry kind", value: i64::from(kind) }),
        };
        Ok(Self { handle: head.handle.get(), content, frames_bytes })
    }
}

fn read_runs(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Run>, DecodeError> {
    let bytes = reader.bytes("runs", count.saturating_mul(size_of::<RunHead>()))?;
    let heads =
        bytes.chunks_exact(size_of::<RunHead>()).filter_map(|bytes| RunHead::read_from_bytes(bytes).ok());
    Ok(heads
        .map(|run| Run { start: LogIndex(run.start.get()), epoch: LeaderEpoch(run.epoch.get()) })
        .collect())
}

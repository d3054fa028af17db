//! What waits to be sent until the end of the turn, in batches.
//!
//! Messages of all partitions are collected in a few batches: acknowledgements, groups, and everything else. Batches leave in their order. What is sent about *one*
//! partition must arrive in the order in which it was sent, so a message goes into the first batch of its kind that is not before the batch with the partition's
//! last message, or else into a new one. An acknowledgement replaces the one before it if nothing came in between.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset, ShardId};

use super::acks::{ACK_BYTES_MAX, AckBase, put_ack};
use super::body::{Route, put_bind, put_elsewhere};
use super::control::put_control;
use super::group::GroupEntry;
use super::handles::Handles;
use super::header::{Kind, put_message};
use super::limits::BODY_BYTES_FULL;
use crate::mutants::{Mutant, is_planted};
use crate::raft::Message;

#[derive(Clone, Debug)]
enum Batch {
    Acks(Vec<(u32, LeaderEpoch, LogIndex)>),
    Control(Vec<u8>),
    Group {
        body: Vec<u8>,
        frames: Vec<Bytes>,
    },
    /// A message that is about no partition.
    Whole(Kind, Bytes),
}

/// Acknowledgements in one message.
const ACKS_MAX: usize = BODY_BYTES_FULL / ACK_BYTES_MAX;

/// Where the messages of a connection go: numbers them and puts their headers in front of them.
#[derive(Debug)]
pub(crate) struct Writer {
    session: u32,
    sequence: u16,
    /// Messages without frames, put together.
    buffer: BytesMut,
    ready: VecDeque<Bytes>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { session: 0, sequence: 0, buffer: BytesMut::new(), ready: VecDeque::new() }
    }

    /// Puts a tag into all further messages.
    pub(crate) fn begin_session(&mut self, tag: u32) {
        self.session = tag;
    }

    pub(crate) fn put(&mut self, kind: Kind, body: &[u8]) {
        put_message(&mut self.buffer, kind, self.session, self.sequence, body);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn put_frames(&mut self, frames: Vec<Bytes>) {
        if !frames.is_empty() {
            self.finish();
            self.ready.extend(frames);
        }
    }

    fn finish(&mut self) {
        if !self.buffer.is_empty() {
            self.ready.push_back(self.buffer.split().freeze());
        }
    }

    /// Takes the next bytes to send.
    pub(crate) fn poll(&mut self) -> Option<Bytes> {
        self.finish();
        self.ready.pop_front()
    }
}

/// Messages of a turn. See the [module](self).
#[derive(Clone, Default, Debug)]
pub(crate) struct Outbox {
    binds: Vec<u8>,
    batches: VecDeque<Batch>,
    /// Number of the first batch. Numbers are not used again in a session.
    first: u64,
    /// What is sent by new handles goes into this batch or after it: one of them may stand for a partition that had another handle before.
    floor: u64,
    unbinds: Vec<u8>,
    elsewhere: Vec<u8>,
    /// Bytes without frames, about.
    bytes: usize,
}

impl Outbox {
    /// Returns the bytes that wait, without frames.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn bind(&mut self, handles: &mut Handles, handle: u32, route: &Route) {
        handles.bound(handle).batch = self.floor;
        put_bind(&mut self.binds, handle, route);
        self.bytes += 32;
    }

    pub(crate) fn unbind(&mut self, handle: u32) {
        self.floor = self.first + self.batches.len().saturating_sub(1) as u64;
        if !is_planted(Mutant::HandleReused) {
            self.unbinds.put_u32_le(handle);
            self.bytes += 4;
        }
    }

    pub(crate) fn elsewhere(&mut self, handle: u32, shard: Option<ShardId>) {
        put_elsewhere(&mut self.elsewhere, handle, shard);
        self.bytes += 8;
    }

    /// Adds a message that is neither an append nor an acknowledgement. `start`: the offset of a [`Message::StartAt`].
    pub(crate) fn control(
        &mut self,
        handles: &mut Handles,
        handle: u32,
        message: &Message,
        start: Option<Offset>,
    ) {
        let last = handles.bound(handle).batch;
        let open = |batch: &Batch| matches!(batch, Batch::Control(body) if body.len() < BODY_BYTES_FULL);
        let at = self.batch(last, open, || Batch::Control(Vec::new()));
        handles.bound(handle).batch = at;
        if let Batch::Control(body) = self.get(at) {
            let before = body.len();
            put_control(body, handle, message, start);
            let added = body.len() - before;
            self.bytes += added;
        }
    }

    /// Adds a message that is about no partition.
    pub(crate) fn whole(&mut self, kind: Kind, body: Bytes) {
        self.bytes += body.len();
        self.batches.push_back(Batch::Whole(kind, body));
    }

    pub(crate) fn group(&mut self, handles: &mut Handles, entry: &GroupEntry, frames: Vec<Bytes>) {
        let last = handles.bound(entry.handle).batch;
        let open = |batch: &Batch| matches!(batch, Batch::Group { body, .. } if body.len() < BODY_BYTES_FULL);
        let new = || Batch::Group { body: Vec::new(), frames: Vec::new() };
        let at = self.batch(last, open, new);
        handles.bound(entry.handle).batch = at;
        if let Batch::Group { body, frames: all } = self.get(at) {
            let before = body.len();
            entry.encode(body);
            let added = body.len() - before;
            all.extend(frames);
            self.bytes += added;
        }
    }

    pub(crate) fn ack(&mut self, handles: &mut Handles, handle: u32, term: LeaderEpoch, end: LogIndex) {
        let bound = *handles.bound(handle);
        let first = self.first;
        if bound.batch >= first
            && let Some(Batch::Acks(acks)) = self.batches.get_mut((bound.batch - first) as usize)
            && let Some(last) = acks.get_mut(bound.ack_at).filter(|last| (last.0, last.1) == (handle, term))
        {
            last.2 = end;
            return;
        }
        let open = |batch: &Batch| matches!(batch, Batch::Acks(acks) if acks.len() < ACKS_MAX);
        if is_planted(Mutant::AckLost) && self.find(bound.batch, open).is_none() && !self.batches.is_empty() {
            return;
        }
        let at = self.batch(bound.batch, open, || Batch::Acks(Vec::new()));
        let Batch::Acks(acks) = self.get(at) else { return };
        acks.push((handle, term, end));
        let ack_at = acks.len() - 1;
        self.bytes += ACK_BYTES_MAX;
        let bound = handles.bound(handle);
        (bound.batch, bound.ack_at) = (at, ack_at);
    }

    /// Returns the number of the first batch that fits and is not before the batch `last`.
    fn batch(&mut self, last: u64, open: impl Fn(&Batch) -> bool, new: impl FnOnce() -> Batch) -> u64 {
        let found = self.find(last, open);
        if found.is_none() {
            self.batches.push_back(new());
        }
        self.first + found.unwrap_or(self.batches.len() - 1) as u64
    }

    fn find(&self, last: u64, open: impl Fn(&Batch) -> bool) -> Option<usize> {
        let from = last.saturating_sub(self.first) as usize;
        self.batches.iter().skip(from).position(open).map(|at| at + from)
    }

    fn get(&mut self, number: u64) -> &mut Batch {
        &mut self.batches[(number - self.first) as usize]
    }

    /// Writes everything. Returns whether there was anything.
    pub(crate) fn write(&mut self, handles: &mut Handles, writer: &mut Writer) -> bool {
        if self.bytes == 0 && self.batches.is_empty() {
            return false;
        }
        write_list(writer, Kind::Bind, &std::mem::take(&mut self.binds), 32);
        self.first += self.batches.len() as u64;
        for batch in std::mem::take(&mut self.batches) {
            match batch {
                Batch::Control(body) => writer.put(Kind::Control, &body),
                Batch::Group { body, frames } => {
                    writer.put(Kind::Group, &body);
                    writer.put_frames(frames);
                }
                Batch::Whole(kind, body) => writer.put(kind, &body),
                Batch::Acks(acks) => writer.put(Kind::Acks, &encode_acks(handles, &acks)),
            }
        }
        write_list(writer, Kind::Unbind, &std::mem::take(&mut self.unbinds), 4);
        write_list(writer, Kind::Elsewhere, &std::mem::take(&mut self.elsewhere), 8);
        self.bytes = 0;
        true
    }
}

fn encode_acks(handles: &mut Handles, acks: &[(u32, LeaderEpoch, LogIndex)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(acks.len() * 4);
    let mut base = AckBase::default();
    for (handle, term, end) in acks {
        let bound = handles.bound(*handle);
        put_ack(&mut body, &mut base, (*handle, *term, *end), bound.acked);
        bound.acked = *end;
    }
    body
}

/// Writes entries of a fixed size as messages that are not too long.
fn write_list(writer: &mut Writer, kind: Kind, entries: &[u8], entry_bytes: usize) {
    for body in entries.chunks(BODY_BYTES_FULL / entry_bytes * entry_bytes) {
        writer.put(kind, body);
    }
}

//! From received bytes to events.
//!
//! Messages are put together, checked against the session, decoded and attributed to their partitions. The first error ends the channel; what was
//! decoded before it stays, as if the connection had ended there.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{DecodeError, Reader};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Instant;

use super::acks::{AckBase, read_ack};
use super::body::{Route, read_bind, read_elsewhere, read_goodbye};
use super::channel::{Channel, Event, Incoming, RemoteHandle, Repair, State};
use super::control::read_control;
use super::error::{CloseReason, Goodbye, PeerError};
use super::group::{Content, GroupEntry};
use super::header::{Kind, PEER_HEADER_BYTES, PeerHeader};
use super::hello::{HelloReply, take_first};
use super::intake::{Frames, Intake, Lent};
use super::leaders::LeaderNews;
use super::limits::{CREDIT_BYTES_MAX, HELLO_BODY_BYTES_MAX};
use crate::mutants::{Mutant, is_planted};
use crate::raft::{Envelope, LOG_END_MAX, Message, ReplicaId};

/// Capacity of the buffer that an idle channel keeps, in bytes.
const PARTIAL_BYTES_KEPT: usize = 4 << 10;

/// An entry of a group whose frames arrive.
#[derive(Debug)]
struct Pending {
    entry: GroupEntry,
    route: Route,
}

/// Puts messages together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    session: u32,
    sequence: u16,
    /// The bytes of an incomplete message.
    partial: Vec<u8>,
    /// Entries whose frames have not arrived, in order.
    entries: VecDeque<Pending>,
    /// The frames of the first of them, if they have begun to arrive.
    intake: Option<Intake>,
    stopped: bool,
}

impl Assembler {
    /// Accepts messages with this tag only.
    pub(super) fn begin_session(&mut self, tag: u32) {
        self.session = tag;
        // The hello or its reply was the first.
        self.sequence = 1;
    }

    /// Drops what has arrived, and everything that will.
    pub(super) fn stop(&mut self) {
        *self = Self { stopped: true, ..Self::default() };
    }

    pub(super) fn lend(&mut self) -> Option<Lent> {
        self.intake.as_mut()?.lend()
    }

    pub(super) fn take_back(&mut self, pages: AlignedBuf) {
        if let Some(intake) = &mut self.intake {
            intake.take_back(pages);
        }
    }

    /// Checks the header of a message. Returns its kind and the bytes of the message.
    fn check(&self, header: &PeerHeader) -> Result<(Kind, usize), PeerError> {
        let kind = Kind::from_u16(header.kind.get()).ok_or(PeerError::UnknownKind(header.kind.get()))?;
        let (session, found) = (self.session, header.session.get());
        if found != session && !is_planted(Mutant::OldSessionAccepted) {
            return Err(PeerError::OtherSession { kind, session, found });
        }
        let (expected, found) = (self.sequence, header.sequence.get());
        if found != expected {
            return Err(PeerError::Sequence { kind, expected, found });
        }
        let (bytes, max) = (header.body_bytes.get() as usize, kind.body_bytes_max());
        if bytes > max {
            return Err(PeerError::BodyTooLarge { kind, bytes, max });
        }
        Ok((kind, PEER_HEADER_BYTES.saturating_add(bytes)))
    }

    /// Returns the kind and the bytes of the message at the start of `bytes`, once it is complete.
    fn complete(&mut self, bytes: &[u8]) -> Result<Option<(Kind, usize)>, PeerError> {
        let Some(header) = PeerHeader::parse(bytes) else { return Ok(None) };
        let (kind, message_bytes) = self.check(&header)?;
        let Some(body) = bytes.get(PEER_HEADER_BYTES..message_bytes) else { return Ok(None) };
        if header.crc.get() != header.checksum(body) {
            return Err(PeerError::Checksum { kind });
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some((kind, message_bytes)))
    }

    /// Returns how many bytes the incomplete message in `partial` needs, as far as is known.
    fn want(&self) -> usize {
        let header = PeerHeader::parse(&self.partial);
        header.map_or(PEER_HEADER_BYTES, |header| {
            PEER_HEADER_BYTES.saturating_add(header.body_bytes.get() as usize)
        })
    }

    /// Moves bytes of an incomplete message from `data` to `partial`. Returns false if `data` is empty.
    fn fill(&mut self, data: &mut &[u8]) -> bool {
        let missing = self.want().saturating_sub(self.partial.len()).max(1);
        let (now, rest) = data.split_at(missing.min(data.len()));
        self.partial.extend_from_slice(now);
        *data = rest;
        !now.is_empty()
    }
}

impl Channel {
    /// Handles bytes that were received. An error of the peer closes the channel: see [`Event::Closed`].
    pub fn handle_bytes(&mut self, now: Instant, data: &[u8]) {
        if self.state == State::Closed {
            return;
        }
        let mut data = data;
        loop {
            match self.step(&mut data) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let text = error.to_string();
                    self.end(CloseReason::Violation(error), Some((Goodbye::Violation, &text)));
                    return;
                }
            }
        }
        // Whatever arrived was of this session.
        self.heard = now;
    }

    /// Handles the next message or piece of frames. Returns false if more bytes are needed.
    fn step(&mut self, data: &mut &[u8]) -> Result<bool, PeerError> {
        if self.assembler.stopped {
            return Ok(false);
        }
        if !self.assembler.entries.is_empty() {
            return self.receive_frames(data);
        }
        if self.assembler.partial.is_empty() && self.state != State::Opening {
            let bytes = *data;
            if let Some((kind, end)) = self.assembler.complete(bytes)? {
                let (message, rest) = bytes.split_at(end);
                *data = rest;
                self.handle_message(kind, message.get(PEER_HEADER_BYTES..).unwrap_or_default())?;
                return Ok(true);
            }
        }
        if !self.assembler.fill(data) {
            return Ok(false);
        }
        let mut partial = std::mem::take(&mut self.assembler.partial);
        let handled = self.handle_partial(&partial)?;
        if handled {
            partial.clear();
            partial.shrink_to(PARTIAL_BYTES_KEPT);
        }
        if !self.assembler.stopped {
            self.assembler.partial = partial;
        }
        Ok(true)
    }

    /// Handles the message that was received in pieces, if it is complete.
    fn handle_partial(&mut self, partial: &[u8]) -> Result<bool, PeerError> {
        if self.state == State::Opening {
            let Some((body, _)) = take_first(Kind::HelloReply, partial, HELLO_BODY_BYTES_MAX)? else {
                return Ok(false);
            };
            self.handle_reply(&HelloReply::decode(body)?)?;
            return Ok(true);
        }
        let Some((kind, end)) = self.assembler.complete(partial)? else { return Ok(false) };
        self.handle_message(kind, partial.get(PEER_HEADER_BYTES..end).unwrap_or_default())?;
        Ok(true)
    }

    fn handle_reply(&mut self, reply: &HelloReply) -> Result<(), PeerError> {
        match reply.outcome {
            Err(refusal) => self.end(CloseReason::Refused(refusal), None),
            Ok(_) if reply.from != self.peer.shard => {
                return Err(PeerError::Unexpected { kind: Kind::HelloReply, when: "from another shard" });
            }
            Ok(version) => {
                self.peer.version = version;
                self.peer.incarnation = reply.incarnation;
                self.peer.session.acceptor = reply.session;
                self.begin_session();
                self.establish();
            }
        }
        Ok(())
    }

    fn establish(&mut self) {
        self.state = State::Open;
        self.events.push_back(Event::Established(self.peer));
    }

    fn handle_message(&mut self, kind: Kind, body: &[u8]) -> Result<(), PeerError> {
        if self.state == State::Accepted {
            self.establish();
        }
        let mut reader = Reader::new(body);
        match kind {
            Kind::Hello | Kind::HelloReply | Kind::Join | Kind::JoinReply => {
                return Err(PeerError::Unexpected { kind, when: "after the handshake" });
            }
            Kind::Bind => each(kind, &mut reader, |reader| {
                let (handle, route) = read_bind(reader).map_err(|e| wrong(kind, e))?;
                self.remote.bind(handle, route)
            })?,
            Kind::Unbind => each(kind, &mut reader, |reader| {
                self.remote.unbind(reader.u32("handle").map_err(|e| wrong(kind, e))?)
            })?,
            Kind::Elsewhere => each(kind, &mut reader, |reader| {
                let (handle, shard) = read_elsewhere(reader).map_err(|e| wrong(kind, e))?;
                let route = self.handles.route(kind, handle)?;
                self.events.push_back(Event::Elsewhere { route, shard });
                Ok(())
            })?,
            Kind::Group => self.handle_group(&mut reader)?,
            Kind::Acks => self.handle_acks(&mut reader)?,
            Kind::Control => each(kind, &mut reader, |reader| {
                let (handle, message, start_offset) = read_control(reader).map_err(|e| wrong(kind, e))?;
                let route = self.remote.get_mut(kind, handle)?.route;
                if matches!(message, Message::Rejected { .. } | Message::LostEnd { .. })
                    && let Some(handle) = self.handles.get(&reverse(route))
                {
                    self.flow.rejected(handle);
                }
                self.push_message(handle, route, message, (Vec::new(), 0), start_offset);
                Ok(())
            })?,
            Kind::Credit => {
                let bytes = reader.u64("bytes").map_err(|e| wrong(kind, e))?;
                if !self.flow.credit.add(bytes) {
                    return Err(PeerError::TooMuchCredit { max: CREDIT_BYTES_MAX });
                }
            }
            Kind::Heartbeat => {}
            Kind::ControllerRequest | Kind::ControllerReply => {
                let body = Bytes::copy_from_slice(body);
                self.events.push_back(Event::Controller { kind, body });
                return Ok(());
            }
            Kind::Leaders => {
                let news = LeaderNews::read(&mut reader).map_err(|e| wrong(kind, e))?;
                self.events.push_back(Event::Leaders(news));
            }
            Kind::Goodbye => {
                let (why, text) = read_goodbye(&mut reader).map_err(|e| wrong(kind, e))?;
                self.end(CloseReason::Goodbye { why, text }, None);
            }
        }
        reader.finish().map_err(|e| wrong(kind, e))
    }

    fn handle_acks(&mut self, reader: &mut Reader<'_>) -> Result<(), PeerError> {
        let kind = Kind::Acks;
        let mut base = AckBase::default();
        each(kind, reader, |reader| {
            let ack = read_ack(reader, &mut base).map_err(|e| wrong(kind, e))?;
            let remote = self.remote.get_mut(kind, ack.handle)?;
            let end = ack.end(remote.acked);
            if end > LOG_END_MAX {
                return Err(PeerError::LogEnd { kind, end });
            }
            remote.acked = end;
            let route = remote.route;
            if let Some(handle) = self.handles.get(&reverse(route)) {
                self.flow.acknowledged(handle, ack.term, end);
            }
            let message = Message::Appended { term: ack.term, durable_end: end };
            self.push_message(ack.handle, route, message, (Vec::new(), 0), None);
            Ok(())
        })
    }

    /// Handles the body of a group. Its entries become events one by one, when their frames are there.
    fn handle_group(&mut self, reader: &mut Reader<'_>) -> Result<(), PeerError> {
        let kind = Kind::Group;
        each(kind, reader, |reader| {
            let entry = GroupEntry::read(reader).map_err(|e| wrong(kind, e))?;
            let route = self.remote.get_mut(kind, entry.handle)?.route;
            self.assembler.entries.push_back(Pending { entry, route });
            Ok(())
        })
    }

    /// Receives frames of the first entry that is not complete. Returns false if more bytes are needed.
    fn receive_frames(&mut self, data: &mut &[u8]) -> Result<bool, PeerError> {
        let Some(Pending { entry, route }) = self.assembler.entries.front() else { return Ok(false) };
        let bytes = entry.frames_bytes;
        if self.assembler.intake.is_none() && !self.credit.receive(bytes) {
            return Err(PeerError::NoCredit { bytes });
        }
        let partition = route.partition;
        let intake = self.assembler.intake.get_or_insert_with(|| Intake::new(bytes));
        intake.take(data).map_err(|error| PeerError::Frame { partition, error })?;
        if !intake.is_complete() {
            return Ok(false);
        }
        let frames = self.assembler.intake.take().map(Intake::finish).unwrap_or_default();
        let Some(Pending { entry, route }) = self.assembler.entries.pop_front() else { return Ok(false) };
        match entry.content {
            Content::Append(append) => {
                let message = Message::Append(append);
                self.push_message(entry.handle, route, message, (frames, bytes), None);
            }
            Content::Committed { from: first, until } => {
                let (from, to) = self.replicas(route);
                let (partition, frames_bytes) = (route.partition, bytes);
                let repair = Repair { partition, from, to, first, until, frames, frames_bytes };
                self.events.push_back(Event::Repair(repair));
            }
        }
        Ok(true)
    }

    fn push_message(
        &mut self,
        handle: u32,
        route: Route,
        message: Message,
        (frames, frames_bytes): (Vec<Frames>, usize),
        start_offset: Option<Offset>,
    ) {
        let (from, to) = self.replicas(route);
        self.events.push_back(Event::Message(Incoming {
            handle: RemoteHandle(handle),
            partition: route.partition,
            envelope: Envelope { from, to, message },
            frames,
            frames_bytes,
            start_offset,
        }));
    }

    /// Returns the sender and the receiver of a message with a handle of the peer.
    fn replicas(&self, route: Route) -> (ReplicaId, ReplicaId) {
        let from = ReplicaId { node: self.peer.shard.node, incarnation: route.from };
        let to = ReplicaId { node: self.local.me.node, incarnation: route.to };
        (from, to)
    }
}

/// Returns the route of messages in the other direction.
fn reverse(route: Route) -> Route {
    Route { from: route.to, to: route.from, ..route }
}

fn wrong(kind: Kind, error: DecodeError) -> PeerError {
    PeerError::Body { kind, error }
}

/// Reads entries up to the end of a body. There must be one.
fn each(
    kind: Kind,
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<(), PeerError>,
) -> Result<(), PeerError> {
    if reader.rest().is_empty() {
        return Err(wrong(kind, DecodeError::Truncated { field: "entry", need: 1, have: 0 }));
    }
    while !reader.rest().is_empty() {
        read(reader)?;
    }
    Ok(())
}

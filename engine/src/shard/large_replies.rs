//! Replies that may be much larger than their requests: lists and descriptions of groups, committed offsets, producers, sizes of partitions.
//!
//! ```text
//!   the request --> made at once, if it needs no more than SMALL_REPLY_BYTES_MAX ------------------> the reply
//!                      \-- else it waits until it is the next to be sent, and for memory --> made --> the reply, with its charge
//! ```
//!
//! A small reply is part of what its request counts for. A larger one is charged to the send budget ([`crate::read`]) before it is made, and its
//! [`ReplyMemory`] stays with it until it is sent. Nobody knows its size before: whoever makes it counts what it would take, and gives the
//! request back if that is more than it may.
//!
//! Invariant: no reply waits behind an earlier one while it holds memory that others wait for.

use std::fmt;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces};
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::connection::Stage;
use super::context::Context;
use super::long_answers::AnswerTo;
use crate::api::{ApiError, Measured, MeasuredCall, Within};
use crate::limits::SMALL_REPLY_BYTES_MAX;
use crate::message::Message;
use crate::read::{Charge, InLine, Wanted};
use crate::session::ClientProtocol;

/// The memory that a reply may take.
#[derive(Debug)]
pub(crate) struct ReplyMemory(Option<Charge>);

impl ReplyMemory {
    /// That of a small reply.
    pub(crate) fn small() -> Self {
        Self(None)
    }

    /// Returns its bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(SMALL_REPLY_BYTES_MAX, Charge::bytes)
    }

    /// Creates a reply of entries that take no more memory than this, apart from what they state themselves. The memory is free once the reply
    /// is sent.
    pub(crate) fn hold(self, front: Bytes, entries: impl Entries + 'static, back: Bytes) -> Pieces {
        Pieces::new(front, Held { entries, charge: self.0 }, back)
    }
}

/// Entries with the charge for them, if they may take more than a small reply.
struct Held<E> {
    entries: E,
    charge: Option<Charge>,
}

impl<E: fmt::Debug> fmt::Debug for Held<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}

impl<E: Entries> Entries for Held<E> {
    fn count(&self) -> usize {
        self.entries.count()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        self.entries.put(entry, part, out)
    }

    fn memory_bytes(&self) -> usize {
        let uncharged = if self.charge.is_some() { 0 } else { SMALL_REPLY_BYTES_MAX };
        uncharged + self.entries.memory_bytes()
    }
}

type Begin = Box<dyn FnOnce(&mut Context<'_>, Result<ReplyMemory, ApiError>)>;

/// Uses a reply, which holds no more than the memory.
type Finish<R> = Box<dyn FnOnce(&mut Context<'_>, Result<R, ApiError>, ReplyMemory)>;

/// A reply that waits for memory.
pub(super) struct LargeReply {
    bytes: usize,
    begin: Begin,
}

impl Context<'_> {
    /// Sends a request to shard 0 whose reply may be large. `finish` gets the reply with the memory that it may take.
    pub(crate) fn ask_measured<C: MeasuredCall>(
        &mut self,
        to: AnswerTo,
        call: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>, ReplyMemory) + 'static,
    ) {
        self.ask_within(to, call, ReplyMemory::small(), Box::new(finish));
    }

    fn ask_within<C: MeasuredCall>(
        &mut self,
        to: AnswerTo,
        call: C,
        memory: ReplyMemory,
        finish: Finish<C::Reply>,
    ) {
        let within = Within { call, bytes_max: memory.bytes() };
        self.ask(to.conn(), within, move |context, reply| match reply {
            Ok(Measured::Fits(reply)) => finish(context, Ok(reply), memory),
            Ok(Measured::NeedsMemory(bytes, call)) => {
                drop(memory);
                // It may grow until it is made.
                context.with_reply_memory(to, bytes + bytes / 8, move |context, memory| match memory {
                    Ok(memory) => context.ask_within(to, call, memory, finish),
                    Err(error) => finish(context, Err(error), ReplyMemory::small()),
                });
            }
            Err(error) => finish(context, Err(error), memory),
        });
    }

    /// Makes a reply with this much memory: at once if that is little, else when the reply is the next to be sent and there is memory for it.
    /// `begin` gets an error if there never is that much.
    pub(crate) fn with_reply_memory(
        &mut self,
        to: AnswerTo,
        bytes: usize,
        begin: impl FnOnce(&mut Context<'_>, Result<ReplyMemory, ApiError>) + 'static,
    ) {
        let max = self.setup.limits.send_bytes_max;
        if bytes <= SMALL_REPLY_BYTES_MAX {
            return begin(self, Ok(ReplyMemory::small()));
        }
        if bytes > max {
            return begin(self, Err(ApiError::ReplyTooLarge { bytes, max }));
        }
        let Some(connection) = self.connections.get_mut(&to.conn()) else { return };
        if connection.stage == Stage::Closing {
            return;
        }
        connection.large_replies.insert(to.slot(), LargeReply { bytes, begin: Box::new(begin) });
        self.connections.mark_dirty(to.conn());
    }
}

impl Shard {
    /// Makes the first large reply of a connection, if it is the next to be sent and there is memory for it. Returns false if there is none.
    pub(super) fn begin_large_reply(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return true };
        let Some((slot, reply)) = connection.large_replies.first_key_value() else { return true };
        if connection.sending.is_some() || !connection.net.is_next(*slot) {
            return true;
        }
        let wanted = Wanted { most: reply.bytes, least: reply.bytes };
        let (queued, who) = match connection.net.protocol() {
            ClientProtocol::Native => (connection.queue.uncharged(), InLine::Readers(conn)),
            ClientProtocol::Kafka => (connection.queue.bytes(), InLine::KafkaConnection(conn)),
        };
        let Some(charge) = self.send_budget.reserve(&mut connection.account, queued, wanted) else {
            self.send_budget.wait(&mut connection.account, queued, who);
            return false;
        };
        if let Some((_, reply)) = connection.large_replies.pop_first() {
            (reply.begin)(&mut self.context(plane), Ok(ReplyMemory(Some(charge))));
        }
        true
    }
}

//! Replies that may be much larger than their requests: lists and descriptions of groups, committed offsets, producers, sizes of partitions.
//!
//! ```text
//!   the request --> built at once, if it needs no more than SMALL_REPLY_BYTES_MAX -------------------------> the reply
//!                      \-- else it waits until it is the next to be sent and there is memory --> built --> the reply, with its charge
//! ```
//!
//! A small reply is covered by the charge of its request. A larger one is charged to the send budget ([`crate::read`]) before it is built, and
//! its [`ReplyMemory`] stays with it until it is sent. Its size is not known in advance: the component that builds it measures it, and returns
//! the request if it would exceed its limit.
//!
//! Invariant: no reply waits behind an earlier one while it holds memory that others wait for.

use std::fmt;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces};

use super::groups::NO_TOPIC;
use super::{AnswerTo, Context};
use crate::api::ApiError;
use crate::calls::{Measured, MeasuredCall, Part, PartReply};
use crate::limits::SMALL_REPLY_BYTES_MAX;
use crate::read::Charge;

/// The memory that a reply may use.
#[derive(Debug)]
pub(crate) struct ReplyMemory(Option<Charge>);

impl ReplyMemory {
    /// Returns the memory of a small reply, which needs no charge.
    pub(crate) fn small() -> Self {
        Self(None)
    }

    /// Returns the memory that was reserved for a larger reply.
    pub(crate) fn charged(charge: Charge) -> Self {
        Self(Some(charge))
    }

    fn is_small(&self) -> bool {
        self.0.is_none()
    }

    /// Creates a reply of entries that use no more memory than this, apart from their own `memory_bytes`. The memory is freed when the reply
    /// was sent.
    pub(crate) fn hold(self, front: Bytes, entries: impl Entries + 'static, back: Bytes) -> Pieces {
        Pieces::new(front, Held { entries, charge: self.0 }, back)
    }
}

/// Entries with their charge, unless the reply is small.
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
pub(crate) struct LargeReply {
    /// The memory that it needs.
    pub(crate) bytes: usize,
    /// Builds it.
    pub(crate) begin: Begin,
}

/// A request about groups with a reply that may be large: the requests to coordinators, and their replies.
struct MeasuredParts<C: MeasuredCall> {
    /// Requests to send, with the memory that each reply may use.
    pending: Vec<(Part<C>, usize)>,
    /// Replies, and the memory that they may use.
    collected: Vec<PartReply<C::Reply>>,
    collected_bytes: usize,
}

impl Context<'_> {
    /// Sends a request to the coordinators of its groups. The reply may be large: `finish` gets it with the memory that it may use.
    pub(crate) fn ask_measured<C: MeasuredCall>(
        &mut self,
        to: AnswerTo,
        call: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>, ReplyMemory) + 'static,
    ) {
        let without_groups = C::without_groups();
        self.with_group_owners(to.conn(), without_groups.is_some(), move |context, owners| {
            let memory = ReplyMemory::small();
            let parts = match owners {
                Ok(Some(owners)) => call.split(&owners),
                Ok(None) => return finish(context, without_groups.ok_or(NO_TOPIC), memory),
                Err(error) => return finish(context, Err(error), memory),
            };
            let share = SMALL_REPLY_BYTES_MAX / parts.len();
            let pending = parts.into_iter().map(|part| (part, share)).collect();
            let parts = MeasuredParts { pending, collected: Vec::new(), collected_bytes: 0 };
            context.ask_within(to, parts, memory, Box::new(finish));
        });
    }

    fn ask_within<C: MeasuredCall>(
        &mut self,
        to: AnswerTo,
        parts: MeasuredParts<C>,
        memory: ReplyMemory,
        finish: Finish<C::Reply>,
    ) {
        let MeasuredParts { pending, mut collected, mut collected_bytes } = parts;
        // A large reply is not kept without its charge: it has to be requested again.
        let keeps_calls = pending.len() > 1 && !memory.is_small();
        let mut requests = Vec::with_capacity(pending.len());
        let mut kept = Vec::with_capacity(pending.len());
        for (Part { shard, call, places }, bytes_max) in pending {
            kept.push((keeps_calls.then(|| call.clone()), shard, places, bytes_max));
            requests.push((shard, call.within(bytes_max)));
        }
        self.ask_coordinators(to.conn(), requests, false, move |context, replies| {
            let replies: Vec<_> = replies.into_iter().map(|reply| reply.and_then(C::measured)).collect();
            let is_short = replies.iter().any(|reply| matches!(reply, Ok(Measured::NeedsMemory(..))));
            let mut pending = Vec::new();
            let mut bytes_needed = collected_bytes;
            for ((call, shard, places, bytes_max), reply) in kept.into_iter().zip(replies) {
                let (call, bytes_max) = match (reply, call) {
                    // It may grow before it is built.
                    (Ok(Measured::NeedsMemory(bytes, call)), _) => (call, bytes + bytes / 8),
                    (Ok(Measured::Fits(_)), Some(call)) if is_short => (call, bytes_max),
                    (Ok(Measured::Fits(reply)), _) => {
                        collected.push((places, Ok(reply)));
                        (collected_bytes, bytes_needed) =
                            (collected_bytes + bytes_max, bytes_needed + bytes_max);
                        continue;
                    }
                    (Err(error), _) => {
                        collected.push((places, Err(error)));
                        continue;
                    }
                };
                bytes_needed += bytes_max;
                pending.push((Part { shard, call, places }, bytes_max));
            }
            if pending.is_empty() {
                return finish(context, C::join(collected), memory);
            }
            drop(memory);
            context.with_reply_memory(to, bytes_needed, move |context, memory| match memory {
                Ok(memory) => {
                    context.ask_within(
                        to,
                        MeasuredParts { pending, collected, collected_bytes },
                        memory,
                        finish,
                    );
                }
                Err(error) => finish(context, Err(error), ReplyMemory::small()),
            });
        });
    }

    /// Builds a reply that needs this much memory: at once if it is small, else when it is the next to be sent and there is memory for it.
    /// `begin` gets an error if the shard has less memory than that.
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
        self.parts.clients.add_large_reply(to, LargeReply { bytes, begin: Box::new(begin) });
    }
}

//! Which partition may send frames, and how many.
//!
//! Nothing is queued but *that* a partition has something to send: where it goes on is known to its replica, and the frames stay in the log until they
//! can leave. So the memory of a channel does not grow when the peer is slow.
//!
//! | a partition | sends |
//! |---|---|
//! | at the tail: its next frame is in memory, and its [`Window`] has room | at once, with the group of the round, if there is credit |
//! | lagging: its next frame is on disk, or its window is full | when it is its turn, up to [`READ_BYTES_MAX`] and what was left of the turn before |
//!
//! - *Each class gets the same*: of those that wait, the class goes first that was served fewer bytes. Within a class it goes in turn; who sent a frame
//!   larger than its turn allows skips turns until it is even (deficit round robin).
//! - *Lagging partitions do not slow down the others*: they use at most half of the credit, read few at a time, and only while little is queued on the
//!   socket, because a frame at the tail would wait for what is queued before it.
//! - *The window moves a slow partition out of the way*: when it is full the partition waits for an acknowledgement, without a place in a queue.

use std::collections::VecDeque;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::credit::SendCredit;
use super::limits::{READ_BYTES_MAX, READS_MAX, SEND_QUEUE_BYTES_MAX};
use super::window::Window;
use crate::mutants::{Mutant, is_planted};

/// Where the next frames of a partition are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// In the tail cache.
    Memory,
    /// Only on disk.
    Disk,
}

/// The answer to a partition that has something to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It may send so many bytes now, or one frame that is larger.
    Now(usize),
    /// It will get a turn.
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Tail,
    Lagging,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Queued(Class),
    /// The window is full.
    Blocked,
    /// It is its turn, and so many bytes of credit are reserved for it.
    Turn(Class, usize),
    /// The handle was released.
    Gone,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Stream {
    window: Window,
    state: State,
    /// Bytes that it may still send in this turn; negative: by how much it exceeded its turn.
    deficit: i64,
}

/// The flow of frames to one peer. Partitions are known by their handles, which begin with 0 and have no gaps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) credit: SendCredit,
    streams: Vec<Stream>,
    tail: VecDeque<u32>,
    lagging: VecDeque<u32>,
    /// Bytes that each class was served, less what it did not ask for.
    served: [u64; 2],
    reads: usize,
}

impl Flow {
    fn stream(&mut self, handle: u32) -> &mut Stream {
        let at = handle as usize;
        if at >= self.streams.len() {
            let idle = Stream { window: Window::default(), state: State::Idle, deficit: 0 };
            self.streams.resize(at + 1, idle);
        }
        &mut self.streams[at]
    }

    /// Handles that a partition has something to send.
    pub(crate) fn offer(&mut self, handle: u32, source: Source) -> Offer {
        let (available, none_waits) = (self.credit.available(), self.tail.is_empty());
        let stream = self.stream(handle);
        if stream.state != State::Idle {
            return Offer::Later;
        }
        let room = stream.window.room();
        if source == Source::Disk || room == 0 {
            self.enqueue(handle, Class::Lagging);
            return Offer::Later;
        }
        if none_waits && available > 0 {
            return Offer::Now(available.min(room).min(READ_BYTES_MAX));
        }
        self.enqueue(handle, Class::Tail);
        Offer::Later
    }

    fn enqueue(&mut self, handle: u32, class: Class) {
        self.stream(handle).state = State::Queued(class);
        if self.queue(class).is_empty() {
            // Time without demand is not made up for.
            let least = self.served[0].max(self.served[1]).saturating_sub(READ_BYTES_MAX as u64);
            let served = &mut self.served[class as usize];
            *served = (*served).max(least);
        }
        self.queue(class).push_back(handle);
    }

    fn queue(&mut self, class: Class) -> &mut VecDeque<u32> {
        match class {
            Class::Tail => &mut self.tail,
            Class::Lagging => &mut self.lagging,
        }
    }

    /// Takes the next partition that may send, with the bytes that it may. The caller answers by [`sent`](Self::sent) or
    /// [`cancel`](Self::cancel). `queued`: bytes that the socket has not taken yet.
    pub(crate) fn poll_turn(&mut self, queued: usize) -> Option<(u32, usize)> {
        loop {
            let class = self.next_class(queued)?;
            let handle = self.queue(class).pop_front()?;
            let available = self.credit.available();
            let stream = self.stream(handle);
            let room = stream.window.room();
            if stream.state != State::Queued(class) {
                continue;
            }
            if room == 0 {
                stream.state = State::Blocked;
                continue;
            }
            stream.deficit += READ_BYTES_MAX as i64;
            if stream.deficit <= 0 {
                self.queue(class).push_back(handle);
                continue;
            }
            let bytes = (stream.deficit as usize).min(room).min(available);
            stream.state = State::Turn(class, bytes);
            self.credit.reserve(bytes);
            self.reads += usize::from(class == Class::Lagging);
            return Some((handle, bytes));
        }
    }

    /// Returns the class whose turn it is.
    fn next_class(&self, queued: usize) -> Option<Class> {
        let available = self.credit.available();
        let starves = is_planted(Mutant::LaggingStarvesTail);
        let share = if starves { 0 } else { self.credit.tail_share() };
        let may_lag = available > share && self.reads < READS_MAX && queued < SEND_QUEUE_BYTES_MAX;
        let tail = available > 0 && !self.tail.is_empty();
        let lagging = may_lag && !self.lagging.is_empty();
        match (tail, lagging) {
            (true, true) if starves || self.served[1] < self.served[0] => Some(Class::Lagging),
            (true, _) => Some(Class::Tail),
            (false, true) => Some(Class::Lagging),
            (false, false) => None,
        }
    }

    /// Handles that a partition sends an append with frames up to `end`.
    pub(crate) fn sent(&mut self, handle: u32, term: LeaderEpoch, end: LogIndex, bytes: usize) {
        self.spend(handle, bytes);
        self.stream(handle).window.sent(term, end, bytes);
    }

    /// Handles that a partition sends frames, which nobody will acknowledge.
    pub(crate) fn spend(&mut self, handle: u32, bytes: usize) {
        let turn = self.end_turn(handle);
        self.credit.spend(bytes);
        self.served[turn.unwrap_or(Class::Tail) as usize] += bytes as u64;
        if turn.is_some() {
            let stream = self.stream(handle);
            // What the next frame did not fit into is added to the next turn, and no more.
            stream.deficit = (stream.deficit - bytes as i64).min(READ_BYTES_MAX as i64);
        }
    }

    /// Handles that a partition has nothing to send, or cannot.
    pub(crate) fn cancel(&mut self, handle: u32) {
        if self.end_turn(handle).is_some() {
            let stream = self.stream(handle);
            stream.deficit = stream.deficit.min(0);
        }
    }

    fn end_turn(&mut self, handle: u32) -> Option<Class> {
        let State::Turn(class, reserved) = self.stream(handle).state else { return None };
        self.stream(handle).state = State::Idle;
        self.credit.unreserve(reserved);
        self.reads -= usize::from(class == Class::Lagging);
        Some(class)
    }

    /// Handles that a replica has everything before `end`.
    pub(crate) fn acknowledged(&mut self, handle: u32, term: LeaderEpoch, end: LogIndex) {
        self.stream(handle).window.acknowledged(term, end);
        self.unblock(handle);
    }

    /// Handles that a replica did not take what was sent.
    pub(crate) fn rejected(&mut self, handle: u32) {
        self.stream(handle).window.clear();
        self.unblock(handle);
    }

    fn unblock(&mut self, handle: u32) {
        let stream = self.stream(handle);
        if stream.state == State::Blocked && stream.window.room() > 0 {
            self.enqueue(handle, Class::Lagging);
        }
    }

    /// Forgets a handle, which is not used again.
    pub(crate) fn forget(&mut self, handle: u32) {
        self.end_turn(handle);
        let stream = self.stream(handle);
        stream.window.clear();
        stream.state = State::Gone;
    }

    /// Returns the bytes that a partition has on its way.
    pub(crate) fn in_flight(&self, handle: u32) -> usize {
        self.streams.get(handle as usize).map_or(0, |stream| stream.window.bytes())
    }
}

//! Whether a request is taken up: the one place that decides it, for both protocols and before any work is done for it.
//!
//! Nothing that is asked for is lost: a connection whose next request is not taken up is not read, and goes on when there is room.

use std::collections::VecDeque;

use highwater_runtime::plane::ConnId;

use super::budget::{Budget, RequestBytes};
use super::large_requests::LargeRequests;
use crate::limits::{ASKED_MAX, BACKLOG_MAX, REQUEST_COST, REQUEST_ENTRIES_PER_COST, REQUESTS_PER_TURN_MAX};

/// What else a shard is busy with, as far as it decides whether another request is taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests to other shards that have not been answered.
    pub(crate) open_calls: usize,
    /// Messages in the queues to other shards.
    pub(crate) backlog: usize,
    /// Whether what is on its way to clients takes more memory than there is for that.
    pub(crate) is_sending_overdrawn: bool,
}

/// What has been taken up, and what may still be.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Memory for requests.
    budget: Budget,
    large: LargeRequests,
    /// The cost of the requests that were taken up in this turn.
    taken: usize,
    /// Connections whose next request was not taken up, in their order.
    waiting: VecDeque<ConnId>,
    /// Those have their share of the turn now.
    is_resuming: bool,
}

impl Admission {
    /// With so many bytes of memory for requests.
    pub(crate) fn new(request_bytes_max: usize) -> Self {
        Self {
            budget: Budget::new(request_bytes_max),
            large: LargeRequests::default(),
            taken: 0,
            waiting: VecDeque::new(),
            is_resuming: false,
        }
    }

    /// Whether another request may be taken up, whoever it is from: memory, time in this turn, and place in the queues to other shards.
    pub(crate) fn may_take(&self, load: Load) -> bool {
        self.budget.is_open()
            && !load.is_sending_overdrawn
            && self.taken < REQUESTS_PER_TURN_MAX
            && load.open_calls < ASKED_MAX
            && load.backlog < BACKLOG_MAX
    }

    /// Whether a large request may be received, whatever its size. See [`Budget::admits`].
    pub(crate) fn may_receive_large(&self) -> bool {
        self.budget.admits()
    }

    /// Whether a large request may be decoded, which is whole. Those that wait already come first.
    pub(crate) fn may_read_large(&self) -> bool {
        self.large.is_free() && (self.is_resuming || self.waiting.is_empty())
    }

    /// A connection waits until its next request may be taken up. It must not wait already.
    pub(crate) fn wait(&mut self, conn: ConnId) {
        self.waiting.push_back(conn);
    }

    /// Number of connections that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The connection that has waited longest.
    pub(crate) fn next_waiting(&mut self) -> Option<ConnId> {
        self.waiting.pop_front()
    }

    /// A request was decoded whose lists have so many entries: these count like further requests.
    pub(crate) fn take(&mut self, is_produce: bool, entries: usize) {
        self.taken += if is_produce { 1 } else { REQUEST_COST };
        self.taken += entries / REQUEST_ENTRIES_PER_COST;
        self.large.note(entries);
    }

    /// The requests of a connection take another amount of memory.
    pub(crate) fn recharge(&mut self, before: RequestBytes, after: RequestBytes) {
        self.budget.recharge(before, after);
    }

    /// Bytes of memory that requests take.
    pub(crate) fn used_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Those that were held back have their share of the turn from here on, or have had it.
    pub(crate) fn set_resuming(&mut self, is_resuming: bool) {
        self.is_resuming = is_resuming;
    }

    /// Ends a share of a turn. True if it was used up.
    pub(crate) fn end_share(&mut self) -> bool {
        std::mem::take(&mut self.taken) >= REQUESTS_PER_TURN_MAX
    }

    /// Ends a turn. True if connections may wait only because a large request is being paid for.
    pub(crate) fn end_turn(&mut self) -> bool {
        let was_free = self.large.is_free();
        self.large.end_turn();
        !was_free && !self.waiting.is_empty()
    }

    /// The most entries that were read in one turn so far.
    pub(crate) fn most_entries(&self) -> usize {
        self.large.most()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load { open_calls: 0, backlog: 0, is_sending_overdrawn: false };

    #[test]
    fn each_limit_by_itself_keeps_requests_waiting() {
        let mut admission = Admission::new(100);
        assert!(admission.may_take(IDLE));
        for busy in [
            Load { open_calls: ASKED_MAX, ..IDLE },
            Load { backlog: BACKLOG_MAX, ..IDLE },
            Load { is_sending_overdrawn: true, ..IDLE },
        ] {
            assert!(!admission.may_take(busy), "{busy:?}");
        }
        let whole = RequestBytes { whole: 100, begun: 0 };
        admission.recharge(RequestBytes::default(), whole);
        assert!(!admission.may_take(IDLE) && !admission.may_receive_large());
        admission.recharge(whole, RequestBytes::default());
        assert!(admission.may_take(IDLE));
    }

    #[test]
    fn a_turn_takes_up_its_share_of_requests_and_those_held_back_have_a_share_of_their_own() {
        let mut admission = Admission::new(100);
        for _ in 0..REQUESTS_PER_TURN_MAX {
            assert!(admission.may_take(IDLE));
            admission.take(true, 0);
        }
        assert!(!admission.may_take(IDLE));
        assert!(admission.end_share(), "it was used up");
        assert!(admission.may_take(IDLE));
        assert!(!admission.end_share());
    }

    #[test]
    fn a_large_request_is_decoded_after_those_that_wait_and_not_in_the_turns_that_pay_for_the_last() {
        let mut admission = Admission::new(100);
        assert!(admission.may_read_large());
        admission.wait(ConnId(1));
        assert!(!admission.may_read_large(), "another waits");
        admission.set_resuming(true);
        assert!(admission.may_read_large(), "it is one of those that wait");
        admission.take(false, 1 << 20);
        assert!(!admission.may_read_large() && !admission.may_take(IDLE));
        assert!(admission.end_turn() && admission.end_share());
        assert!(!admission.may_read_large(), "one turn has not paid for it");
        assert_eq!((admission.next_waiting(), admission.waiting()), (Some(ConnId(1)), 0));
        assert!(!admission.end_turn(), "nobody waits for it");
    }
}

//! Admission of requests: the one place that decides whether a request is handled now, for both protocols and before any work is done.
//!
//! No request is lost. A connection whose next request is not admitted is not read any further; it resumes when there is room.

use std::collections::VecDeque;

use highwater_runtime::plane::ConnId;

use super::budget::{Budget, RequestBytes};
use super::large_requests::LargeRequests;
use crate::limits::{
    BACKLOG_MAX, OPEN_CALLS_MAX, REQUEST_COST, REQUEST_ENTRIES_PER_COST, REQUESTS_PER_TURN_MAX,
};

/// The load of a shard outside of [`Admission`], which limits admission too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests to other shards that have not been answered.
    pub(crate) open_calls: usize,
    /// Messages in the queues to other shards.
    pub(crate) backlog: usize,
    /// Whether data on its way to clients uses more memory than its budget.
    pub(crate) is_sending_overdrawn: bool,
}

/// What has been admitted, and the connections that wait for admission.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Memory for requests.
    budget: Budget,
    large: LargeRequests,
    /// The cost of the requests admitted in this share of a turn.
    cost: usize,
    /// Connections whose next request was not admitted, the longest wait first.
    waiting: VecDeque<ConnId>,
    /// Whether the waiting connections have their share of the turn now.
    is_resuming: bool,
}

impl Admission {
    /// Creates the admission of a shard that has `request_bytes_max` of memory for requests.
    pub(crate) fn new(request_bytes_max: usize) -> Self {
        Self {
            budget: Budget::new(request_bytes_max),
            large: LargeRequests::default(),
            cost: 0,
            waiting: VecDeque::new(),
            is_resuming: false,
        }
    }

    /// Returns whether the shard may handle another request, from whatever connection: it needs memory, time in this turn, and room in the
    /// queues to other shards.
    pub(crate) fn may_admit(&self, load: Load) -> bool {
        self.budget.is_open()
            && !load.is_sending_overdrawn
            && self.cost < REQUESTS_PER_TURN_MAX
            && load.open_calls < OPEN_CALLS_MAX
            && load.backlog < BACKLOG_MAX
    }

    /// Returns whether a large request of any size may be received. See [`Budget::admits`].
    pub(crate) fn may_receive_large(&self) -> bool {
        self.budget.admits()
    }

    /// Returns whether a large request that was received completely may be decoded. Connections that already wait come first.
    pub(crate) fn may_decode_large(&self) -> bool {
        self.large.is_free() && (self.is_resuming || self.waiting.is_empty())
    }

    /// Adds a connection to those that wait for admission. It must not be one of them already.
    pub(crate) fn wait(&mut self, conn: ConnId) {
        self.waiting.push_back(conn);
    }

    /// Returns the number of connections that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the connection that has waited longest.
    pub(crate) fn pop_waiting(&mut self) -> Option<ConnId> {
        self.waiting.pop_front()
    }

    /// Charges a decoded request to this turn. Its lists have this many entries, which count as further requests.
    pub(crate) fn admit(&mut self, is_produce: bool, entries: usize) {
        self.cost += if is_produce { 1 } else { REQUEST_COST };
        self.cost += entries / REQUEST_ENTRIES_PER_COST;
        self.large.note(entries);
    }

    /// Updates the memory that the requests of one connection use.
    pub(crate) fn recharge(&mut self, before: RequestBytes, after: RequestBytes) {
        self.budget.recharge(before, after);
    }

    /// Returns the bytes of memory that requests use.
    pub(crate) fn used_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Begins or ends the share of the turn that belongs to the waiting connections.
    pub(crate) fn set_resuming(&mut self, is_resuming: bool) {
        self.is_resuming = is_resuming;
    }

    /// Ends a share of a turn. Returns whether it was used up.
    pub(crate) fn end_share(&mut self) -> bool {
        std::mem::take(&mut self.cost) >= REQUESTS_PER_TURN_MAX
    }

    /// Ends a turn. Returns whether connections may be waiting only because a large request is still being paid off.
    pub(crate) fn end_turn(&mut self) -> bool {
        let was_free = self.large.is_free();
        self.large.end_turn();
        !was_free && !self.waiting.is_empty()
    }

    /// Returns the largest number of entries decoded in one turn so far.
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
        assert!(admission.may_admit(IDLE));
        for busy in [
            Load { open_calls: OPEN_CALLS_MAX, ..IDLE },
            Load { backlog: BACKLOG_MAX, ..IDLE },
            Load { is_sending_overdrawn: true, ..IDLE },
        ] {
            assert!(!admission.may_admit(busy), "{busy:?}");
        }
        let whole = RequestBytes { whole: 100, ..RequestBytes::default() };
        admission.recharge(RequestBytes::default(), whole);
        assert!(!admission.may_admit(IDLE) && !admission.may_receive_large());
        admission.recharge(whole, RequestBytes::default());
        assert!(admission.may_admit(IDLE));
    }

    #[test]
    fn a_turn_admits_a_limited_number_of_requests_and_waiting_connections_have_their_own_share() {
        let mut admission = Admission::new(100);
        for _ in 0..REQUESTS_PER_TURN_MAX {
            assert!(admission.may_admit(IDLE));
            admission.admit(true, 0);
        }
        assert!(!admission.may_admit(IDLE));
        assert!(admission.end_share(), "it was used up");
        assert!(admission.may_admit(IDLE));
        assert!(!admission.end_share());
    }

    #[test]
    fn a_large_request_is_decoded_after_waiting_connections_and_after_the_last_one_is_paid_off() {
        let mut admission = Admission::new(100);
        assert!(admission.may_decode_large());
        admission.wait(ConnId(1));
        assert!(!admission.may_decode_large(), "another waits");
        admission.set_resuming(true);
        assert!(admission.may_decode_large(), "it is one of those that wait");
        admission.admit(false, 1 << 20);
        assert!(!admission.may_decode_large() && !admission.may_admit(IDLE));
        assert!(admission.end_turn() && admission.end_share());
        assert!(!admission.may_decode_large(), "one turn does not pay it off");
        assert_eq!((admission.pop_waiting(), admission.waiting()), (Some(ConnId(1)), 0));
        assert!(!admission.end_turn(), "nobody waits for it");
    }
}

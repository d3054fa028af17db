//! The memory of a shard for data on its way to clients: reads in flight, their results that have not been sent, and queued replies.
//!
//! A read reserves its memory before it begins. Each connection may use a share of the free memory, so that few connections get large shares and
//! many get small ones, and the last quarter is for connections that hold nothing. A reader that gets no memory waits in line:
//!
//! ```text
//!   holds nothing:    first come, first served                                  <- no other reader reserves while one waits here
//!   holds something:  tried round-robin; moves to the other line when the bytes that it holds have been sent
//! ```
//!
//! Invariant: no reader waits in line while it holds memory that others wait for. A fetch that has read something is answered with that; a fetch
//! whose reply is not the next has read nothing. So memory is freed as fast as clients receive, and clients that do not receive are disconnected.
//!
//! The budget is that of the shard that reads, where the memory is allocated, even if the connection belongs to another shard.

use std::collections::{BTreeMap, VecDeque};

use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};
use highwater_runtime::plane::ConnId;
use highwater_storage::{Cursor, PartitionSlot, Store};

use super::charge::{Charge, Gauge};
use crate::limits::{READ_MEMORY_BYTES_MIN, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_BYTES_MIN};
use crate::partition::FetchId;

/// An amount of memory to reserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryRequest {
    /// The largest useful amount.
    pub(crate) most: usize,
    /// The smallest useful amount: that of one frame. Below the smallest share, anything up to `most` is reserved.
    pub(crate) least: usize,
}

impl MemoryRequest {
    /// Returns the memory for a read of up to `bytes_max` bytes whose next frame needs at least `needs`.
    pub(crate) fn for_read(
        store: &Store,
        slot: PartitionSlot,
        cursor: Cursor,
        bytes_max: usize,
        needs: usize,
    ) -> Self {
        let limits = &store.config().limits;
        let most = if store.is_cached(slot, cursor) {
            // The last chunk stays in memory whole.
            bytes_max.saturating_add(limits.chunk_bytes_max)
        } else {
            // A frame as large as those before it is read whole.
            let frame_bytes = match cursor.frame_bytes() {
                0 => 0,
                bytes => AlignedBuf::memory_bytes_for(bytes + PAGE_BYTES),
            };
            bytes_max.min(limits.read_bytes_max).max(frame_bytes)
        };
        Self { most: most.max(READ_MEMORY_BYTES_MIN).max(needs), least: needs }
    }
}

/// A reader that waits in line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InLine {
    /// A native connection with a large reply that has not begun, or with readers that can run.
    Readers(ConnId),
    /// A fetch of a Kafka client on this shard.
    KafkaFetch(FetchId),
    /// A Kafka connection with a fetch or a large reply that has not begun.
    KafkaConnection(ConnId),
    /// The searches by timestamp of this shard.
    Searches,
}

/// The memory that a connection has reserved on a shard, and its place in line.
#[derive(Default, Debug)]
pub(crate) struct Account {
    held: Gauge,
    is_in_line: bool,
    /// Its number in line, kept until it is served, even if it leaves the line meanwhile.
    number: Option<u64>,
}

impl Account {
    pub(crate) fn held(&self) -> usize {
        self.held.bytes()
    }

    /// Records that it was taken out of the line to try again.
    pub(crate) fn is_tried(&mut self) {
        self.is_in_line = false;
    }
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct SendBudget {
    max: usize,
    /// Bytes that reads hold.
    charged: Gauge,
    /// Bytes that are queued and that no read holds.
    uncharged: usize,
    /// Waiting readers that hold nothing, by number.
    waiting: BTreeMap<u64, InLine>,
    /// Waiting readers that hold something.
    holding: VecDeque<InLine>,
    last_number: u64,
    /// Whether the first in line is being served.
    is_serving: bool,
}

impl SendBudget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            charged: Gauge::default(),
            uncharged: 0,
            waiting: BTreeMap::new(),
            holding: VecDeque::new(),
            last_number: 0,
            is_serving: false,
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.charged.bytes() + self.uncharged
    }

    /// Returns whether replies that could not wait have exceeded the budget. While they have, no request is handled.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.used() > self.max + self.max / 4
    }

    /// Returns the smallest share, which a connection gets whatever others use. A read begins with at least that.
    fn share_min(&self) -> usize {
        SEND_QUEUE_BYTES_MIN.min(self.max / 8)
    }

    /// Returns the bytes that are free for a connection that holds `held`.
    fn free(&self, held: usize) -> usize {
        let max = if held == 0 { self.max } else { self.max - self.max / 4 };
        max.saturating_sub(self.used())
    }

    /// Returns the bytes that a connection that holds `held` may hold in total. Connections that use up their shares have equal ones.
    pub(crate) fn share(&self, held: usize) -> usize {
        let share = self.free(held).saturating_add(held) / 2;
        share.clamp(self.share_min(), SEND_QUEUE_BYTES_MAX.max(self.share_min()))
    }

    /// Reserves memory for a connection that has `queued` bytes in addition to those charged to it. Returns `None` if it has to wait.
    pub(crate) fn reserve(
        &mut self,
        account: &mut Account,
        queued: usize,
        request: MemoryRequest,
    ) -> Option<Charge> {
        if !self.is_serving && !self.waiting.is_empty() {
            return None;
        }
        let held = account.held() + queued;
        let free = self.free(held).min(self.share(held).saturating_sub(held));
        let least = request.least.max(self.share_min().min(request.most));
        let bytes = if free >= least {
            request.most.min(free)
        } else if held == 0 && (self.used() + least <= self.max || self.used() <= self.max / 2) {
            // It is larger than a share, perhaps larger than the budget: reserved one at a time, because it would otherwise never be.
            least
        } else {
            return None;
        };
        account.number = None;
        Some(Charge::new(bytes, &self.charged, &account.held))
    }

    /// Returns whether too little is free for this request, whatever the share of the connection is.
    pub(crate) fn is_short_of(&self, account: &Account, queued: usize, request: MemoryRequest) -> bool {
        self.free(account.held() + queued) < request.least.max(self.share_min().min(request.most))
    }

    /// Reserves all of the requested memory for a read-ahead, only while no reader waits and at most half of the memory would be in use.
    pub(crate) fn reserve_spare(
        &mut self,
        account: &mut Account,
        queued: usize,
        request: MemoryRequest,
    ) -> Option<Charge> {
        if self.has_line() || self.used() + request.most > self.max / 2 {
            return None;
        }
        self.reserve(account, queued, request).filter(|charge| charge.bytes() >= request.most)
    }

    /// Charges a connection for bytes that are in memory already.
    pub(crate) fn charge(&mut self, account: &mut Account, bytes: usize) -> Charge {
        Charge::new(bytes, &self.charged, &account.held)
    }

    /// Adds a reader that got no memory to the line. A reader that is in line keeps its place.
    pub(crate) fn wait(&mut self, account: &mut Account, queued: usize, who: InLine) {
        if std::mem::replace(&mut account.is_in_line, true) {
            return;
        }
        if account.held() + queued > 0 {
            self.holding.push_back(who);
            return;
        }
        let number = account.number.unwrap_or_else(|| {
            self.last_number += 1;
            self.last_number
        });
        account.number = Some(number);
        self.waiting.insert(number, who);
    }

    /// Removes a reader from the line without serving it.
    pub(crate) fn leave(&mut self, account: &mut Account, who: InLine) {
        if !std::mem::take(&mut account.is_in_line) {
            return;
        }
        match account.number {
            Some(number) if self.waiting.get(&number) == Some(&who) => {
                self.waiting.remove(&number);
            }
            _ => self.holding.retain(|other| *other != who),
        }
    }

    /// Takes the first reader that holds nothing out of the line, with its number, if there may be memory for it. Try it at once: until
    /// [`served`](Self::served), the line does not block it.
    pub(crate) fn serve_first(&mut self) -> Option<(u64, InLine)> {
        if !self.may_serve() {
            return None;
        }
        self.is_serving = true;
        self.waiting.pop_first()
    }

    /// Returns whether there may be memory for the first in line.
    pub(crate) fn may_serve(&self) -> bool {
        !self.waiting.is_empty() && self.free(0) >= self.share_min()
    }

    /// Ends the attempt. Returns false if the reader is first in line again: it needs more than is free.
    pub(crate) fn served(&mut self, number: u64) -> bool {
        self.is_serving = false;
        self.waiting.first_key_value().is_none_or(|(first, _)| *first != number)
    }

    /// Returns the number of waiting readers that hold something.
    pub(crate) fn holding(&self) -> usize {
        self.holding.len()
    }

    /// Takes the next of these out of the line. Try it at once; it goes to the back of the line if it gets nothing.
    pub(crate) fn next_holding(&mut self) -> Option<InLine> {
        self.holding.pop_front()
    }

    /// Returns whether others wait for memory that clients hold until they receive.
    pub(crate) fn is_short(&self) -> bool {
        !self.waiting.is_empty() || self.is_overdrawn()
    }

    pub(crate) fn has_line(&self) -> bool {
        !self.waiting.is_empty() || !self.holding.is_empty()
    }

    /// Panics unless `queued` is the number of queued bytes, and connections are charged for no more than is in use. Reads for closed connections may
    /// be in flight.
    pub(crate) fn assert_adds_up(&self, queued: usize, held: usize) {
        assert_eq!(self.uncharged, queued, "queued bytes");
        assert!(held <= self.charged.bytes(), "{held} bytes held of {}", self.charged.bytes());
    }

    /// Counts queued bytes that no read holds.
    pub(crate) fn queue(&mut self, bytes: usize) {
        self.uncharged += bytes;
    }

    /// Removes bytes that were sent or dropped.
    pub(crate) fn unqueue(&mut self, bytes: usize) {
        self.uncharged -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 32 << 20;

    fn up_to(most: usize) -> MemoryRequest {
        MemoryRequest { most, least: 0 }
    }

    fn conn(number: usize) -> InLine {
        InLine::Readers(ConnId(number as u64))
    }

    #[test]
    fn connections_get_equal_shares_and_a_quarter_is_left_for_new_ones() {
        for count in [1, 4, 100] {
            let mut budget = SendBudget::new(MAX);
            let mut accounts: Vec<_> = (0..count).map(|_| Account::default()).collect();
            let mut charges = Vec::new();
            let mut more = true;
            while std::mem::take(&mut more) {
                for account in &mut accounts {
                    let charge = budget.reserve(account, 0, up_to(64 << 10));
                    more |= charge.is_some();
                    charges.extend(charge);
                }
            }
            let held: Vec<_> = accounts.iter().map(Account::held).collect();
            let (least, most) = (held.iter().min().copied(), held.iter().max().copied());
            assert!(most <= Some(SEND_QUEUE_BYTES_MAX) && least >= most.map(|most| most / 2), "{held:?}");
            assert!(budget.used() <= MAX / 4 * 3 && budget.used() > MAX / 8, "{}", budget.used());
            let mut newcomer = Account::default();
            assert!(budget.reserve(&mut newcomer, 0, up_to(1 << 20)).is_some());
            drop(charges);
            assert_eq!((budget.used(), newcomer.held()), (0, 0));
        }
    }

    #[test]
    fn readers_are_served_in_order_and_keep_their_place_when_they_leave_or_need_more_than_is_free() {
        let mut budget = SendBudget::new(MAX);
        let [mut holder, mut large, mut small, mut late] = std::array::from_fn(|_| Account::default());
        budget.queue(MAX);
        let needs = MemoryRequest { most: 20 << 20, least: 20 << 20 };
        assert!(budget.reserve(&mut large, 0, needs).is_none());
        budget.wait(&mut large, 0, conn(1));
        assert!(budget.reserve(&mut small, 0, up_to(1)).is_none());
        budget.wait(&mut small, 0, conn(2));
        budget.wait(&mut holder, 1, conn(3));
        assert!(budget.serve_first().is_none() && budget.is_short() && budget.holding() == 1);
        budget.unqueue(MAX / 4);
        assert!(budget.reserve(&mut late, 0, up_to(1)).is_none(), "others wait");
        let Some((number, first)) = budget.serve_first() else { panic!("there is memory") };
        assert_eq!(first, conn(1));
        large.is_tried();
        assert!(budget.reserve(&mut large, 0, needs).is_none(), "too little is free");
        budget.wait(&mut large, 0, conn(1));
        assert!(!budget.served(number));
        budget.leave(&mut large, conn(1));
        let Some((number, first)) = budget.serve_first() else { panic!("there is memory") };
        assert_eq!(first, conn(2));
        small.is_tried();
        assert!(budget.reserve(&mut small, 0, up_to(1)).is_some());
        assert!(budget.served(number) && !budget.is_short());
        budget.wait(&mut late, 0, conn(4));
        budget.wait(&mut large, 0, conn(1));
        assert_eq!(budget.serve_first().map(|(_, first)| first), Some(conn(1)), "it keeps its place");
    }

    #[test]
    fn a_read_larger_than_the_budget_runs_when_little_is_used_and_its_connection_holds_nothing() {
        let mut budget = SendBudget::new(MAX);
        let mut account = Account::default();
        let needs = MemoryRequest { most: 2 * MAX, least: 2 * MAX };
        budget.queue(MAX / 2 + 1);
        assert!(budget.reserve(&mut account, 0, needs).is_none());
        budget.unqueue(1);
        assert!(budget.reserve(&mut account, 1, needs).is_none(), "it holds something");
        let charge = budget.reserve(&mut account, 0, needs);
        assert_eq!(charge.as_ref().map(Charge::bytes), Some(2 * MAX));
        assert!(budget.is_overdrawn() && budget.reserve(&mut Account::default(), 0, up_to(1)).is_none());
    }
}

//! The memory of a shard for what is on its way to clients: reads that are under way, what they found and nobody has taken yet, and answers
//! that are queued.
//!
//! A read reserves its memory before it begins. Each connection may have a share of what is free, so that a few take much and many take little
//! each, and the last quarter is for connections that hold nothing. Who gets no memory waits in line:
//!
//! ```text
//!   holds nothing:    first come, first served                              <- nobody else reserves while one waits here
//!   holds something:  tried in turns; moves to the other line when what it holds was sent
//! ```
//!
//! Invariant: nobody waits in line while it holds what others wait for. A fetch that has read something is answered with that; one whose turn it
//! is not on its connection has read nothing. So what is held comes back as fast as clients take it, and those who do not are cut off.
//!
//! The memory is that of the shard that reads, whichever shard's connection it reads for: there it is allocated.

use std::collections::{BTreeMap, VecDeque};

use highwater_runtime::plane::ConnId;
use highwater_storage::{Cursor, PartitionSlot, Store};

use super::FetchId;
use super::charge::{Charge, Gauge};
use crate::limits::{READ_MEMORY_BYTES_MIN, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_BYTES_MIN};

/// Memory that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// As much as is of use.
    pub(crate) most: usize,
    /// Less is of no use: a frame has to fit. If it is less than the smallest share, it may be anything up to `most`.
    pub(crate) least: usize,
}

impl Wanted {
    /// The memory that a read of so many bytes takes, of which the next frame needs at least `needs`.
    pub(crate) fn by_read(
        store: &Store,
        slot: PartitionSlot,
        cursor: Cursor,
        bytes_max: usize,
        needs: usize,
    ) -> Self {
        let limits = &store.config().limits;
        let most = if store.is_cached(slot, cursor) {
            // The last chunk is held whole.
            bytes_max.saturating_add(limits.chunk_bytes_max)
        } else {
            bytes_max.min(limits.read_bytes_max)
        };
        Self { most: most.max(READ_MEMORY_BYTES_MIN).max(needs), least: needs }
    }
}

/// Who waits in line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InLine {
    /// A native connection with readers that can go on.
    Readers(ConnId),
    /// A fetch of a Kafka client that reads here.
    KafkaFetch(FetchId),
    /// A Kafka client's connection with a fetch that was not begun.
    KafkaConnection(ConnId),
    /// The searches by time of this shard.
    Searches,
}

/// What a connection has of a shard's memory, and its place in line.
#[derive(Default, Debug)]
pub(crate) struct Account {
    held: Gauge,
    is_in_line: bool,
    /// Its number there. It keeps it until it is served, also when it leaves the line meanwhile.
    number: Option<u64>,
}

impl Account {
    pub(crate) fn held(&self) -> usize {
        self.held.bytes()
    }

    /// It was taken off the line, to be tried.
    pub(crate) fn is_tried(&mut self) {
        self.is_in_line = false;
    }
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct SendBudget {
    max: usize,
    /// What reads hold.
    charged: Gauge,
    /// Bytes that are queued and that no read holds.
    uncharged: usize,
    /// Those who hold nothing and wait, by their numbers.
    waiting: BTreeMap<u64, InLine>,
    /// Those who hold something and wait.
    holding: VecDeque<InLine>,
    last_number: u64,
    /// Whoever is first in line is being served.
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

    /// Whether more is used than there is, by what could not wait: then no request is taken up.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.used() > self.max + self.max / 4
    }

    /// The least that a read begins with, and that one connection may have whatever others do.
    fn share_min(&self) -> usize {
        SEND_QUEUE_BYTES_MIN.min(self.max / 8)
    }

    /// What is free for a connection that holds so many bytes.
    fn free(&self, held: usize) -> usize {
        let max = if held == 0 { self.max } else { self.max - self.max / 4 };
        max.saturating_sub(self.used())
    }

    /// Bytes that a connection may hold which holds `held` now. If all take what they may, all have the same.
    pub(crate) fn share(&self, held: usize) -> usize {
        let share = self.free(held).saturating_add(held) / 2;
        share.clamp(self.share_min(), SEND_QUEUE_BYTES_MAX.max(self.share_min()))
    }

    /// Reserves memory for a connection, which holds `queued` bytes beside what is charged to it. `None`: it has to wait.
    pub(crate) fn reserve(&mut self, account: &mut Account, queued: usize, wanted: Wanted) -> Option<Charge> {
        if !self.is_serving && !self.waiting.is_empty() {
            return None;
        }
        let held = account.held() + queued;
        let free = self.free(held).min(self.share(held).saturating_sub(held));
        let least = wanted.least.max(self.share_min().min(wanted.most));
        let bytes = if free >= least {
            wanted.most.min(free)
        } else if held == 0 && (self.used() + least <= self.max || self.used() <= self.max / 2) {
            // Larger than a share, perhaps larger than all there is: one at a time, or nobody would ever get it.
            least
        } else {
            return None;
        };
        account.number = None;
        Some(Charge::new(bytes, &self.charged, &account.held))
    }

    /// Whoever got no memory waits until its turn comes. Who is in line stays where it is.
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

    /// Leaves the line without having been served.
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

    /// Takes the first that holds nothing off the line, if there may be memory for it, with its number. It is to be tried at once, and the line
    /// does not stand in its way until [`served`](Self::served).
    pub(crate) fn serve_first(&mut self) -> Option<(u64, InLine)> {
        if !self.may_serve() {
            return None;
        }
        self.is_serving = true;
        self.waiting.pop_first()
    }

    /// Whether there may be memory for the first.
    pub(crate) fn may_serve(&self) -> bool {
        !self.waiting.is_empty() && self.free(0) >= self.share_min()
    }

    /// It was tried. False if it is the first in line again: it needs more than there is.
    pub(crate) fn served(&mut self, number: u64) -> bool {
        self.is_serving = false;
        self.waiting.first_key_value().is_none_or(|(first, _)| *first != number)
    }

    /// How many wait that hold something.
    pub(crate) fn holding(&self) -> usize {
        self.holding.len()
    }

    /// Takes the next of these off the line. It is to be tried at once, and goes to the back if it gets nothing.
    pub(crate) fn next_holding(&mut self) -> Option<InLine> {
        self.holding.pop_front()
    }

    /// Whether clients that take nothing keep others waiting.
    pub(crate) fn is_short(&self) -> bool {
        !self.waiting.is_empty() || self.is_overdrawn()
    }

    pub(crate) fn has_line(&self) -> bool {
        !self.waiting.is_empty() || !self.holding.is_empty()
    }

    /// Panics unless connections have so many bytes queued, and are charged for no more than is in use: reads for some that are gone may be
    /// under way.
    pub(crate) fn assert_adds_up(&self, queued: usize, held: usize) {
        assert_eq!(self.uncharged, queued, "bytes that are queued");
        assert!(held <= self.charged.bytes(), "{held} bytes held of {}", self.charged.bytes());
    }

    /// Bytes were queued that no read holds.
    pub(crate) fn queue(&mut self, bytes: usize) {
        self.uncharged += bytes;
    }

    /// Some of them have left, or will not.
    pub(crate) fn unqueue(&mut self, bytes: usize) {
        self.uncharged -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 32 << 20;

    fn anything(most: usize) -> Wanted {
        Wanted { most, least: 0 }
    }

    fn conn(number: usize) -> InLine {
        InLine::Readers(ConnId(number as u64))
    }

    #[test]
    fn one_connection_has_much_and_many_have_the_same_each_and_newcomers_find_a_quarter_free() {
        for count in [1, 4, 100] {
            let mut budget = SendBudget::new(MAX);
            let mut accounts: Vec<_> = (0..count).map(|_| Account::default()).collect();
            let mut charges = Vec::new();
            let mut more = true;
            while std::mem::take(&mut more) {
                for account in &mut accounts {
                    let charge = budget.reserve(account, 0, anything(64 << 10));
                    more |= charge.is_some();
                    charges.extend(charge);
                }
            }
            let held: Vec<_> = accounts.iter().map(Account::held).collect();
            let (least, most) = (held.iter().min().copied(), held.iter().max().copied());
            assert!(most <= Some(SEND_QUEUE_BYTES_MAX) && least >= most.map(|most| most / 2), "{held:?}");
            assert!(budget.used() <= MAX / 4 * 3 && budget.used() > MAX / 8, "{}", budget.used());
            let mut newcomer = Account::default();
            assert!(budget.reserve(&mut newcomer, 0, anything(1 << 20)).is_some());
            drop(charges);
            assert_eq!((budget.used(), newcomer.held()), (0, 0));
        }
    }

    #[test]
    fn who_waits_is_served_in_order_and_keeps_its_place_when_it_leaves_or_needs_more_than_there_is() {
        let mut budget = SendBudget::new(MAX);
        let [mut holder, mut large, mut small, mut late] = std::array::from_fn(|_| Account::default());
        budget.queue(MAX);
        let needs = Wanted { most: 20 << 20, least: 20 << 20 };
        assert!(budget.reserve(&mut large, 0, needs).is_none());
        budget.wait(&mut large, 0, conn(1));
        assert!(budget.reserve(&mut small, 0, anything(1)).is_none());
        budget.wait(&mut small, 0, conn(2));
        budget.wait(&mut holder, 1, conn(3));
        assert!(budget.serve_first().is_none() && budget.is_short() && budget.holding() == 1);
        budget.unqueue(MAX / 4);
        assert!(budget.reserve(&mut late, 0, anything(1)).is_none(), "others wait");
        let Some((number, first)) = budget.serve_first() else { panic!("there is memory") };
        assert_eq!(first, conn(1));
        large.is_tried();
        assert!(budget.reserve(&mut large, 0, needs).is_none(), "there is too little for it");
        budget.wait(&mut large, 0, conn(1));
        assert!(!budget.served(number));
        budget.leave(&mut large, conn(1));
        let Some((number, first)) = budget.serve_first() else { panic!("there is memory") };
        assert_eq!(first, conn(2));
        small.is_tried();
        assert!(budget.reserve(&mut small, 0, anything(1)).is_some());
        assert!(budget.served(number) && !budget.is_short());
        budget.wait(&mut late, 0, conn(4));
        budget.wait(&mut large, 0, conn(1));
        assert_eq!(budget.serve_first().map(|(_, first)| first), Some(conn(1)), "it was there before");
    }

    #[test]
    fn what_is_larger_than_all_there_is_has_it_when_little_is_used_and_its_connection_holds_nothing() {
        let mut budget = SendBudget::new(MAX);
        let mut account = Account::default();
        let needs = Wanted { most: 2 * MAX, least: 2 * MAX };
        budget.queue(MAX / 2 + 1);
        assert!(budget.reserve(&mut account, 0, needs).is_none());
        budget.unqueue(1);
        assert!(budget.reserve(&mut account, 1, needs).is_none(), "it holds something");
        let charge = budget.reserve(&mut account, 0, needs);
        assert_eq!(charge.as_ref().map(Charge::bytes), Some(2 * MAX));
        assert!(budget.is_overdrawn() && budget.reserve(&mut Account::default(), 0, anything(1)).is_none());
    }
}

//! The fetches of a shard's partitions, and the cursors and memory accounts of their connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{ConnId, ShardIndex};
use highwater_storage::Cursor;

use crate::counters::PerTurn;
use crate::limits::{FETCH_PLACES_MAX, KAFKA_FETCH_BYTES_PER_TURN_MAX, KAFKA_FETCH_READS_PER_TURN_MAX};
use crate::message::{FetchAsk, Fetched, RequestId};
use crate::partition::PartitionId;
use crate::read::{Account, FetchId};

/// Fetches of this shard's partitions, with the cursors of their connections.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) tasks: BTreeMap<FetchId, Task>,
    pub(super) by_request: BTreeMap<(ShardIndex, ConnId, RequestId), FetchId>,
    pub(super) last: u64,
    /// Fetches that can continue.
    pub(super) ready: VecDeque<FetchId>,
    pub(super) turn: FetchTurn,
    /// The memory accounts of connections on this shard.
    pub(super) accounts: BTreeMap<(ShardIndex, ConnId), Account>,
    /// Cursors after the last read of each partition, so that the next read needs no search.
    pub(super) places: BTreeMap<(ShardIndex, ConnId), BTreeMap<TopicPartition, Cursor>>,
}

/// A fetch in progress.
pub(super) struct Task {
    pub(super) from: ShardIndex,
    pub(super) ask: FetchAsk,
    pub(super) state: State,
    /// The results so far, in the order of the request.
    pub(super) fetched: Vec<Fetched>,
    pub(super) bytes: usize,
    pub(super) failed: bool,
    pub(super) left: Left,
    /// Bytes of memory that the next batch needs, if that is more than it was allowed.
    pub(super) needs: usize,
    /// Bytes that were reported to the connection's shard.
    pub(super) reported: usize,
    /// Partitions that it waits for.
    pub(super) waits: BTreeSet<PartitionId>,
    /// How many partitions it has been listed with since it was parked, and whether one of them has moved meanwhile.
    pub(super) parked: usize,
    pub(super) again: bool,
}

/// The state of a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Queued,
    Partway,
    InLine,
    Reading,
    Parked,
}

/// Whether there is more to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Left {
    Nothing,
    More,
    /// There is no memory for it, but the fetch has read something: it reads nothing more.
    Cut,
}

/// What all fetches together have read in this turn.
///
/// New fetches may use a quarter of the turn, and fetches that wait for memory may run until half of it is used, so that neither starves the
/// others.
#[derive(Default, Debug)]
pub(super) struct FetchTurn {
    reads: PerTurn,
    bytes: PerTurn,
}

impl FetchTurn {
    /// Returns whether the limits of this turn are reached.
    pub(super) fn is_over(&self) -> bool {
        !self.is_below(4)
    }

    /// Returns whether a new fetch may begin.
    pub(super) fn admits_new(&self) -> bool {
        self.is_below(1)
    }

    /// Returns whether a fetch that waits for memory may run.
    pub(super) fn admits_waiting(&self) -> bool {
        self.is_below(2)
    }

    /// Returns whether less than this many quarters of the turn are used.
    fn is_below(&self, quarters: usize) -> bool {
        self.reads.this_turn() < KAFKA_FETCH_READS_PER_TURN_MAX / 4 * quarters
            && self.bytes.this_turn() < KAFKA_FETCH_BYTES_PER_TURN_MAX / 4 * quarters
    }

    /// Counts a partition that was read, or is being waited for, and the bytes read.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.reads.add(1);
        self.bytes.add(bytes);
    }

    pub(super) fn end(&mut self) {
        self.reads.end_turn();
        self.bytes.end_turn();
    }

    /// Returns the bytes read in this turn.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.this_turn()
    }

    /// Returns the largest numbers of reads and of bytes in one turn so far.
    pub(super) fn most(&self) -> (usize, usize) {
        (self.reads.most(), self.bytes.most())
    }
}

impl Owner {
    /// Returns the bytes of memory that connections hold here.
    pub(super) fn held(&self) -> usize {
        self.accounts.values().map(Account::held).sum()
    }

    pub(super) fn begin(&mut self, from: ShardIndex, ask: FetchAsk) -> FetchId {
        self.last += 1;
        let id = FetchId(self.last);
        self.by_request.insert((from, ask.conn, ask.request), id);
        let task = Task {
            from,
            ask,
            state: State::Queued,
            fetched: Vec::new(),
            bytes: 0,
            failed: false,
            left: Left::Nothing,
            needs: 0,
            reported: 0,
            waits: BTreeSet::new(),
            parked: 0,
            again: false,
        };
        self.tasks.insert(id, task);
        id
    }

    /// Returns the fetch of a connection that waits for memory.
    pub(super) fn fetch_in_line(&self, from: ShardIndex, conn: ConnId) -> Option<FetchId> {
        let of_it = (from, conn, RequestId(0))..=(from, conn, RequestId(u64::MAX));
        let mut ids = self.by_request.range(of_it).map(|(_, id)| *id);
        ids.find(|id| self.tasks.get(id).is_some_and(|task| task.state == State::InLine))
    }

    pub(super) fn wake(&mut self, id: FetchId) {
        if let Some(task) = self.tasks.get_mut(&id)
            && task.state == State::Parked
        {
            task.state = State::Queued;
            self.ready.push_back(id);
        }
    }

    /// A partition that a fetch waits for has more to read, or was deleted.
    pub(super) fn partition_moved(&mut self, id: FetchId, partition: PartitionId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.waits.remove(&partition);
        // If it is still being listed with its other partitions, it is woken when that is done.
        task.again |= task.parked > 0;
        self.wake(id);
    }

    pub(super) fn remember(&mut self, key: (ShardIndex, ConnId), tp: TopicPartition, place: Cursor) {
        let places = self.places.entry(key).or_default();
        if places.len() >= FETCH_PLACES_MAX && !places.contains_key(&tp) {
            places.clear();
        }
        places.insert(tp, place);
    }

    /// Removes the cursors and fetches of a connection. The result of a disk read in flight is dropped.
    pub(super) fn forget(&mut self, from: ShardIndex, conn: ConnId) -> Vec<(FetchId, Task)> {
        self.places.remove(&(from, conn));
        let of_it = (from, conn, RequestId(0))..=(from, conn, RequestId(u64::MAX));
        let ids = self.by_request.extract_if(of_it, |_, _| true).map(|(_, id)| id);
        ids.filter_map(|id| Some((id, self.tasks.remove(&id)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};

    use super::*;
    use crate::message::Want;

    #[test]
    fn a_partition_that_moves_while_a_fetch_is_being_parked_is_not_missed() {
        let mut owner = Owner::default();
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        let wants = vec![Want { number: 0, tp, offset: Offset(0), max_bytes: 1 }; 2];
        let (request, conn) = (RequestId(1), ConnId(1));
        let ask = FetchAsk { request, conn, wants, max_bytes: 1, min_bytes: 1, shared: false, now: false };
        let id = owner.begin(0, ask);
        let partition = PartitionId(highwater_runtime::slab::Key::default());
        let task = owner.tasks.get_mut(&id).expect("it has begun");
        (task.state, task.parked) = (State::Partway, 1);
        task.waits.insert(partition);
        owner.partition_moved(id, partition);
        assert!(owner.ready.is_empty() && owner.tasks[&id].again && owner.tasks[&id].waits.is_empty());
    }

    #[test]
    fn a_closed_connections_cursors_and_fetches_are_removed() {
        let mut owner = Owner::default();
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        let (gone, stays) = ((0, ConnId(1)), (1, ConnId(1)));
        let fetches =
            [(gone, State::Queued), (gone, State::Reading), (gone, State::Parked), (stays, State::Parked)];
        for (number, ((from, conn), state)) in fetches.into_iter().enumerate() {
            let request = RequestId(number as u64);
            let wants = vec![Want { number: 0, tp, offset: Offset(0), max_bytes: 1 }];
            let ask =
                FetchAsk { request, conn, wants, max_bytes: 1, min_bytes: 1, shared: false, now: false };
            let id = owner.begin(from, ask);
            owner.tasks.get_mut(&id).expect("it has begun").state = state;
            owner.remember((from, conn), tp, Cursor::at(Offset(0)));
        }
        assert_eq!(owner.forget(gone.0, gone.1).len(), 3);
        let left: Vec<_> = owner.tasks.values().map(|task| (task.from, task.ask.conn)).collect();
        assert_eq!(left, [stays]);
        assert_eq!(owner.places.into_keys().collect::<Vec<_>>(), [stays]);
    }
}

//! The fetches of a shard's partitions, and the cursors and memory accounts of their connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_runtime::plane::{ConnId, ShardIndex};
use highwater_storage::Cursor;

use crate::counters::PerTurn;
use crate::kafka_message::{Fetched, OwnerFetch};
use crate::limits::{FETCH_CURSORS_MAX, KAFKA_FETCH_BYTES_PER_TURN_MAX, KAFKA_FETCH_READS_PER_TURN_MAX};
use crate::partition::{FetchId, PartitionId};
use crate::read::Account;
use crate::reply_to::RequestId;

/// Fetches of this shard's partitions, with the cursors of their connections.
#[derive(Default)]
pub(super) struct FetchTasks {
    pub(super) tasks: BTreeMap<FetchId, Task>,
    pub(super) by_request: BTreeMap<(ShardIndex, ConnId, RequestId), FetchId>,
    pub(super) last: u64,
    /// Fetches that can continue.
    pub(super) ready: VecDeque<FetchId>,
    pub(super) turn: FetchTurn,
    /// The memory accounts of connections on this shard.
    pub(super) accounts: BTreeMap<(ShardIndex, ConnId), Account>,
    /// Cursors after the last read of each partition, so that the next read needs no search.
    pub(super) cursors: BTreeMap<(ShardIndex, ConnId), BTreeMap<TopicPartition, Cursor>>,
    /// Whether the timer for read-ahead data is set.
    pub(super) has_ahead_timer: bool,
}

/// A fetch in progress.
pub(super) struct Task {
    pub(super) from: ShardIndex,
    pub(super) fetch: OwnerFetch,
    pub(super) state: State,
    /// The results so far, in the order of the request. A parked fetch keeps them, without records.
    pub(super) fetched: Vec<Fetched>,
    /// Bytes of records in the results.
    pub(super) bytes: usize,
    /// The number of the partition that is being read.
    pub(super) reading: u32,
    /// Partitions to read again, by number: those that have moved, and those whose records were dropped when the fetch was parked.
    pub(super) to_read: BTreeSet<u32>,
    /// Partitions that were read and do not list the fetch as a waiter.
    pub(super) to_list: VecDeque<u32>,
    /// Partitions with records.
    pub(super) with_records: BTreeSet<u32>,
    pub(super) failed: bool,
    pub(super) unread: Unread,
    /// Bytes of memory that the next batch needs, if that is more than it was allowed.
    pub(super) needs: usize,
    /// Bytes that were reported to the connection's shard.
    pub(super) reported: usize,
    /// Partitions that list it as a waiter, each with its number. A request may name a partition more than once.
    pub(super) waits: BTreeSet<(PartitionId, u32)>,
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

/// The records that a fetch leaves unread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Unread {
    Nothing,
    More,
    /// There is no memory for more, but the fetch has read records: it reads no more.
    Cut,
}

/// Counts what all fetches together read in a turn.
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

    /// Counts a partition that was read or is waited for, and the bytes read.
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

impl Task {
    pub(super) fn new(from: ShardIndex, fetch: OwnerFetch) -> Self {
        Self {
            from,
            fetch,
            state: State::Queued,
            fetched: Vec::new(),
            bytes: 0,
            reading: 0,
            to_read: BTreeSet::new(),
            to_list: VecDeque::new(),
            with_records: BTreeSet::new(),
            failed: false,
            unread: Unread::Nothing,
            needs: 0,
            reported: 0,
            waits: BTreeSet::new(),
        }
    }

    /// Returns the number of the next partition to read: each is read once, then those that have moved since.
    pub(super) fn next_to_read(&self) -> Option<u32> {
        if self.fetched.len() < self.fetch.reads.len() {
            return Some(self.fetched.len() as u32);
        }
        self.to_read.first().copied()
    }

    /// Stores the result for a partition, or replaces an earlier one.
    pub(super) fn put(&mut self, number: u32, fetched: Fetched) {
        self.bytes += fetched.bytes;
        self.to_read.remove(&number);
        self.to_list.push_back(number);
        if fetched.bytes > 0 {
            self.with_records.insert(number);
        }
        if let Some(before) = self.fetched.get_mut(number as usize) {
            self.bytes -= before.bytes;
            *before = fetched;
        } else {
            assert_eq!(self.fetched.len(), number as usize, "partitions are first read in order");
            self.fetched.push(fetched);
        }
    }

    /// Drops the records, so that a fetch that waits holds no memory. They are read again when it ends.
    pub(super) fn drop_records(&mut self) {
        for number in std::mem::take(&mut self.with_records) {
            let fetched = &mut self.fetched[number as usize];
            (fetched.records, fetched.bytes) = (Vec::new(), 0);
            self.to_read.insert(number);
        }
        self.bytes = 0;
    }
}

impl FetchTasks {
    /// Returns the bytes of memory that connections hold here.
    pub(super) fn held(&self) -> usize {
        self.accounts.values().map(Account::held).sum()
    }

    pub(super) fn begin(&mut self, from: ShardIndex, fetch: OwnerFetch) -> FetchId {
        self.last += 1;
        let id = FetchId(self.last);
        self.by_request.insert((from, fetch.conn, fetch.request), id);
        self.tasks.insert(id, Task::new(from, fetch));
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

    /// Notes that a partition that a fetch waits for has more records, or that this replica does not answer for it any more.
    pub(super) fn partition_moved(&mut self, id: FetchId, partition: PartitionId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        // A fetch that is not parked reads them before it is.
        let here = (partition, 0)..=(partition, u32::MAX);
        task.to_read.extend(task.waits.extract_if(here, |_| true).map(|(_, number)| number));
        self.wake(id);
    }

    /// Returns the cursor of a connection at an offset of a partition.
    pub(super) fn cursor(&self, key: (ShardIndex, ConnId), tp: TopicPartition, offset: Offset) -> Cursor {
        let place = self.cursors.get(&key).and_then(|cursors| cursors.get(&tp));
        place.filter(|cursor| cursor.offset() == offset).copied().unwrap_or(Cursor::at(offset))
    }

    pub(super) fn remember(&mut self, key: (ShardIndex, ConnId), tp: TopicPartition, place: Cursor) {
        let cursors = self.cursors.entry(key).or_default();
        if cursors.len() >= FETCH_CURSORS_MAX && !cursors.contains_key(&tp) {
            cursors.clear();
        }
        cursors.insert(tp, place);
    }

    /// Removes the cursors and fetches of a connection. The result of a disk read in flight is dropped.
    pub(super) fn forget(&mut self, from: ShardIndex, conn: ConnId) -> Vec<(FetchId, Task)> {
        self.cursors.remove(&(from, conn));
        let of_it = (from, conn, RequestId(0))..=(from, conn, RequestId(u64::MAX));
        let ids = self.by_request.extract_if(of_it, |_, _| true).map(|(_, id)| id);
        ids.filter_map(|id| Some((id, self.tasks.remove(&id)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use highwater_net::kafka::KafkaError;
    use highwater_protocol::ids::{PartitionIndex, TopicId};

    use super::*;
    use crate::kafka_message::PartitionRead;

    fn read_of(tp: TopicPartition) -> PartitionRead {
        PartitionRead { number: 0, tp, known_epoch: None, offset: Offset(0), max_bytes: 1 }
    }

    #[test]
    fn a_fetch_does_not_miss_a_partition_that_moves_while_it_is_being_parked() {
        let mut owner = FetchTasks::default();
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        let reads = vec![read_of(tp); 3];
        let (request, conn) = (RequestId(1), ConnId(1));
        let fetch =
            OwnerFetch { request, conn, reads, max_bytes: 1, min_bytes: 1, shared: false, no_wait: false };
        let id = owner.begin(0, fetch);
        let partition = PartitionId(highwater_runtime::slab::Key::default());
        let task = owner.tasks.get_mut(&id).expect("it has begun");
        for number in 0..3 {
            assert_eq!(task.next_to_read(), Some(number));
            task.put(number, Fetched::nothing(number, KafkaError::NONE));
        }
        assert_eq!(task.next_to_read(), None);
        // The request names it twice.
        task.state = State::Partway;
        task.waits.extend([(partition, 0), (partition, 2)]);
        owner.partition_moved(id, partition);
        let task = &owner.tasks[&id];
        assert!(owner.ready.is_empty() && task.waits.is_empty());
        assert_eq!(task.to_read.iter().copied().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn records_that_are_dropped_while_a_fetch_waits_are_read_again() {
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        let reads = vec![read_of(tp); 2];
        let (request, conn) = (RequestId(1), ConnId(1));
        let fetch =
            OwnerFetch { request, conn, reads, max_bytes: 1, min_bytes: 1, shared: false, no_wait: false };
        let mut task = Task::new(0, fetch);
        let nothing = |number| Fetched::nothing(number, KafkaError::NONE);
        task.put(0, nothing(0));
        task.put(1, Fetched { bytes: 3, records: vec![Bytes::from_static(b"abc")], ..nothing(1) });
        task.drop_records();
        assert!(task.bytes == 0 && task.fetched[1].records.is_empty());
        assert_eq!(task.next_to_read(), Some(1));
        task.put(1, Fetched { bytes: 2, ..nothing(1) });
        assert_eq!((task.bytes, task.next_to_read()), (2, None));
    }

    #[test]
    fn a_closed_connections_cursors_and_fetches_are_removed() {
        let mut owner = FetchTasks::default();
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        let (gone, stays) = ((0, ConnId(1)), (1, ConnId(1)));
        let fetches =
            [(gone, State::Queued), (gone, State::Reading), (gone, State::Parked), (stays, State::Parked)];
        for (number, ((from, conn), state)) in fetches.into_iter().enumerate() {
            let request = RequestId(number as u64);
            let reads = vec![read_of(tp)];
            let fetch = OwnerFetch {
                request,
                conn,
                reads,
                max_bytes: 1,
                min_bytes: 1,
                shared: false,
                no_wait: false,
            };
            let id = owner.begin(from, fetch);
            owner.tasks.get_mut(&id).expect("it has begun").state = state;
            owner.remember((from, conn), tp, Cursor::at(Offset(0)));
        }
        assert_eq!(owner.forget(gone.0, gone.1).len(), 3);
        let left: Vec<_> = owner.tasks.values().map(|task| (task.from, task.fetch.conn)).collect();
        assert_eq!(left, [stays]);
        assert_eq!(owner.cursors.into_keys().collect::<Vec<_>>(), [stays]);
    }
}

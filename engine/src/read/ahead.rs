//! Reads ahead: what a client of fetches will ask for next is read from disk while it receives and processes what it has.
//!
//! ```text
//!   a fetch ends with records from disk --> Reading --> Read --> the next fetch of the connection takes it
//!                                              |          |
//!                                              +----------+--> dropped: another offset is fetched, memory is short, nobody came for it in time
//! ```
//!
//! A subscription needs none: it reads as far as its credit allows, and its queue holds what the client has not received yet.
//!
//! What is read ahead is charged to its connection like any read, and is the first to go: it gets memory only while nobody waits and less than half
//! of it is in use. So it never makes another reader wait, and it is no part of the tail cache.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Instant, ShardIndex};
use highwater_runtime::slab::Key;
use highwater_storage::{Frames, ReadId};

use super::charge::Charge;
use crate::partition::PartitionId;

/// A Kafka client's connection, as the owner of a partition names it: the shard of the connection, and its number there.
pub(crate) type Consumer = (ShardIndex, ConnId);

/// A read ahead. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct AheadId(u64);

#[derive(Debug)]
struct Ahead {
    id: AheadId,
    begun: Instant,
    offset: Offset,
    state: AheadState,
}

/// See the module's doc.
#[derive(Debug)]
pub(super) enum AheadState {
    /// It waits for the disk.
    Reading { store: usize, read: ReadId },
    /// It is done.
    Read(Frames, Charge),
}

/// The reads ahead of a shard: at most one for each connection and partition.
#[derive(Default, Debug)]
pub(super) struct ReadAhead {
    reads: BTreeMap<(Consumer, PartitionId), Ahead>,
    /// Oldest first.
    order: BTreeMap<AheadId, (Consumer, PartitionId)>,
    last: u64,
}

impl ReadAhead {
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// Returns whether there is one from this offset on. Drops one from another offset on.
    pub(super) fn has(&mut self, consumer: Consumer, partition: PartitionId, offset: Offset) -> bool {
        let key = (consumer, partition);
        let has = self.reads.get(&key).is_some_and(|ahead| ahead.offset == offset);
        if !has {
            self.remove(key);
        }
        has
    }

    /// Returns the bytes of frames that were read from this offset on, if that is done.
    pub(super) fn bytes(&self, consumer: Consumer, partition: PartitionId, offset: Offset) -> Option<usize> {
        match self.reads.get(&(consumer, partition)) {
            Some(Ahead { offset: here, state: AheadState::Read(frames, _), .. }) if *here == offset => {
                Some(frames.bytes.iter().map(Bytes::len).sum())
            }
            _ => None,
        }
    }

    /// Adds one that waits for the disk.
    pub(super) fn add(
        &mut self,
        consumer: Consumer,
        partition: PartitionId,
        offset: Offset,
        now: Instant,
        (store, read): (usize, ReadId),
    ) -> AheadId {
        self.remove((consumer, partition));
        self.last += 1;
        let id = AheadId(self.last);
        let ahead = Ahead { id, begun: now, offset, state: AheadState::Reading { store, read } };
        self.reads.insert((consumer, partition), ahead);
        self.order.insert(id, (consumer, partition));
        id
    }

    /// Handles the end of a disk read. `None`: it found no frames. They are dropped if nobody will come for them.
    pub(super) fn handle_done(&mut self, id: AheadId, frames: Option<(Frames, Charge)>) {
        let Some(key) = self.order.get(&id).copied() else { return };
        match (self.reads.get_mut(&key), frames) {
            (Some(ahead), Some((frames, charge))) => ahead.state = AheadState::Read(frames, charge),
            _ => drop(self.remove(key)),
        }
    }

    /// Takes the one from this offset on. One from another offset on is dropped.
    pub(super) fn take(
        &mut self,
        consumer: Consumer,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<AheadState> {
        let ahead = self.remove((consumer, partition)).filter(|ahead| ahead.offset == offset)?;
        Some(ahead.state)
    }

    /// Drops the oldest one. Returns false if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        self.reads.remove(&key).is_some()
    }

    /// Drops those of a connection. Returns whether there were any.
    pub(super) fn forget(&mut self, consumer: Consumer) -> bool {
        let before = self.reads.len();
        let first = (consumer, PartitionId(Key::default()));
        let here = self.reads.range(first..).take_while(|((of, _), _)| *of == consumer);
        for key in here.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(key);
        }
        self.reads.len() < before
    }

    /// Drops those that nobody came for in time.
    pub(super) fn expire(&mut self, now: Instant, time_max: Duration) {
        while let Some((_, key)) = self.order.first_key_value()
            && self.reads.get(key).is_none_or(|ahead| now.since(ahead.begun) >= time_max)
        {
            self.drop_oldest();
        }
    }

    fn remove(&mut self, key: (Consumer, PartitionId)) -> Option<Ahead> {
        let ahead = self.reads.remove(&key)?;
        self.order.remove(&ahead.id);
        Some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use highwater_storage::Cursor;

    use super::super::charge::Gauge;
    use super::*;

    const CONSUMER: Consumer = (0, ConnId(1));
    const OTHER: Consumer = (0, ConnId(2));

    fn partition(index: u32) -> PartitionId {
        PartitionId(Key { index, generation: 0 })
    }

    fn frames(gauge: &Gauge) -> (Frames, Charge) {
        let bytes = vec![Bytes::from(vec![1; 100])];
        let frames = Frames { bytes, memory_bytes: 100, next: Cursor::at(Offset(9)) };
        (frames, Charge::new(100, gauge, &Gauge::default()))
    }

    #[test]
    fn what_was_read_ahead_is_taken_once_from_its_offset_and_dropped_from_another() {
        let (mut ahead, gauge) = (ReadAhead::default(), Gauge::default());
        for offset in [Offset(5), Offset(6)] {
            let id = ahead.add(CONSUMER, partition(1), Offset(5), Instant(0), (0, ReadId(1)));
            ahead.handle_done(id, Some(frames(&gauge)));
            assert_eq!((gauge.bytes(), ahead.bytes(CONSUMER, partition(1), Offset(5))), (100, Some(100)));
            assert!(ahead.take(OTHER, partition(1), Offset(5)).is_none());
            assert!(ahead.take(CONSUMER, partition(2), Offset(5)).is_none());
            let taken = ahead.take(CONSUMER, partition(1), offset);
            assert_eq!(matches!(taken, Some(AheadState::Read(..))), offset == Offset(5));
            drop(taken);
            assert!(ahead.is_empty() && gauge.bytes() == 0);
        }
    }

    #[test]
    fn what_nobody_wants_any_more_is_dropped_when_its_read_is_done() {
        let (mut ahead, gauge) = (ReadAhead::default(), Gauge::default());
        let first = ahead.add(CONSUMER, partition(1), Offset(5), Instant(0), (0, ReadId(1)));
        let second = ahead.add(CONSUMER, partition(1), Offset(7), Instant(0), (0, ReadId(2)));
        ahead.handle_done(first, Some(frames(&gauge)));
        assert_eq!(gauge.bytes(), 0);
        let taken = ahead.take(CONSUMER, partition(1), Offset(7));
        assert!(matches!(taken, Some(AheadState::Reading { store: 0, read: ReadId(2) })));
        ahead.handle_done(second, Some(frames(&gauge)));
        assert!(ahead.is_empty() && gauge.bytes() == 0);
    }

    #[test]
    fn the_oldest_goes_first_and_all_of_a_connection_with_it() {
        let mut ahead = ReadAhead::default();
        for (n, consumer) in [(1, CONSUMER), (2, OTHER), (3, CONSUMER), (4, OTHER)] {
            ahead.add(consumer, partition(n), Offset(0), Instant(u64::from(n)), (0, ReadId(1)));
        }
        ahead.expire(Instant(5), Duration::from_nanos(4));
        assert!(!ahead.has(CONSUMER, partition(1), Offset(0)) && ahead.has(OTHER, partition(2), Offset(0)));
        assert!(ahead.drop_oldest());
        assert!(!ahead.has(OTHER, partition(2), Offset(0)));
        assert!(ahead.forget(CONSUMER) && !ahead.forget(CONSUMER));
        assert!(!ahead.has(CONSUMER, partition(3), Offset(0)) && ahead.has(OTHER, partition(4), Offset(0)));
        assert!(ahead.drop_oldest() && !ahead.drop_oldest() && ahead.is_empty());
    }
}

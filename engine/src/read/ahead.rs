//! Read-ahead: the records that a fetching client will probably fetch next are read from disk while it receives and processes the previous ones.
//!
//! ```text
//!   a fetch ends with records from disk --> Reading --> Read --> the next fetch of the connection takes it
//!                                              |          |
//!                                              +----------+--> dropped: another offset is fetched, memory is short, or it expires
//! ```
//!
//! A subscription needs no read-ahead: it reads as far as its credit allows, and its queue has the records that the client has not received yet.
//!
//! Its memory is charged to the connection like that of any read, and is the first to be freed: it is reserved only while no reader waits and less
//! than half of the memory is in use. So a read-ahead never delays another reader. It does not fill the tail cache.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Instant, ShardIndex};
use highwater_runtime::slab::Key;
use highwater_storage::{Frames, ReadId};

use super::charge::Charge;
use crate::partition::PartitionId;

/// A Kafka client's connection, as the owner of a partition identifies it: the shard of the connection, and its number on that shard.
pub(crate) type Consumer = (ShardIndex, ConnId);

/// Identifies a read-ahead. Numbers are not reused.
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
    /// The disk read is in flight.
    Reading { store: usize, read: ReadId },
    /// The disk read is done.
    Read(Frames, Charge),
}

/// The read-aheads of a shard: at most one for each connection and partition.
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

    /// Returns whether there is a read-ahead from this offset. Drops one from another offset.
    pub(super) fn has(&mut self, consumer: Consumer, partition: PartitionId, offset: Offset) -> bool {
        let key = (consumer, partition);
        let has = self.reads.get(&key).is_some_and(|ahead| ahead.offset == offset);
        if !has {
            self.remove(key);
        }
        has
    }

    /// Returns the bytes of frames that were read from this offset, if the read is done.
    pub(super) fn bytes(&self, consumer: Consumer, partition: PartitionId, offset: Offset) -> Option<usize> {
        match self.reads.get(&(consumer, partition)) {
            Some(Ahead { offset: here, state: AheadState::Read(frames, _), .. }) if *here == offset => {
                Some(frames.bytes.iter().map(Bytes::len).sum())
            }
            _ => None,
        }
    }

    /// Adds a read-ahead whose disk read is in flight.
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

    /// Handles the end of a disk read. `None` means that it found no frames. The frames of a removed read-ahead are dropped.
    pub(super) fn handle_done(&mut self, id: AheadId, frames: Option<(Frames, Charge)>) {
        let Some(key) = self.order.get(&id).copied() else { return };
        match (self.reads.get_mut(&key), frames) {
            (Some(ahead), Some((frames, charge))) => ahead.state = AheadState::Read(frames, charge),
            _ => drop(self.remove(key)),
        }
    }

    /// Removes and returns the read-ahead from this offset. Drops one from another offset.
    pub(super) fn take(
        &mut self,
        consumer: Consumer,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<AheadState> {
        let ahead = self.remove((consumer, partition)).filter(|ahead| ahead.offset == offset)?;
        Some(ahead.state)
    }

    /// Drops the oldest read-ahead. Returns false if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        self.reads.remove(&key).is_some()
    }

    /// Drops the read-aheads of a connection. Returns whether there were any.
    pub(super) fn forget(&mut self, consumer: Consumer) -> bool {
        let before = self.reads.len();
        let first = (consumer, PartitionId(Key::default()));
        let here = self.reads.range(first..).take_while(|((of, _), _)| *of == consumer);
        for key in here.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(key);
        }
        self.reads.len() < before
    }

    /// Drops the read-aheads that are at least `time_max` old.
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
    fn a_read_ahead_is_taken_once_at_its_offset_and_dropped_at_another() {
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
    fn the_frames_of_a_removed_read_ahead_are_dropped_when_its_read_is_done() {
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
    fn the_oldest_is_dropped_first_and_a_closed_connection_drops_all_of_its_own() {
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

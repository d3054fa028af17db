//! A partition's memory of idempotent producers: the last batches of each, so that a retry is recognised and a gap refused.
//!
//! | epoch of the batch | its sequence | answer |
//! |---|---|---|
//! | producer unknown | any | new |
//! | below the known one | any | fenced |
//! | above the known one | 0 | new, the window is emptied |
//! | above the known one | other | out of order, 0 expected |
//! | the known one | equals one of the last five batches, first and last | duplicate: where that one went |
//! | the known one | the one after the last batch | new |
//! | the known one | other | out of order |

use std::collections::BTreeMap;

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::ids::{Offset, ProducerId, Timestamp};
use highwater_protocol::limits::DEDUP_BATCHES_MAX;

use crate::api::ProducerCheck;

/// The producer fields of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProducerStamp {
    /// The producer; negative for none.
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    /// Sequence number of the batch's first record.
    pub(crate) base_sequence: i32,
    pub(crate) last_offset_delta: u32,
}

impl ProducerStamp {
    pub(crate) fn of(batch: &BatchHeader) -> Self {
        Self {
            producer: batch.producer_id.get(),
            epoch: batch.producer_epoch.get(),
            base_sequence: batch.base_sequence.get(),
            last_offset_delta: batch.last_offset_delta.get().max(0) as u32,
        }
    }
}

/// Stands for a time that is not known. Such a producer's silence is counted from the next look at the clock.
pub(crate) const UNKNOWN_MS: i64 = i64::MIN;

/// A batch in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Seen {
    pub(crate) base_sequence: i32,
    pub(crate) last_offset_delta: u32,
    pub(crate) base_offset: i64,
    pub(crate) timestamp: i64,
}

/// One producer.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// When it last wrote, by the broker's clock; [`UNKNOWN_MS`] after a restart.
    pub(crate) last_ms: i64,
    /// Where its epoch began here, if it followed an older one.
    pub(crate) bumped_at: Option<i64>,
    /// Its last batches, oldest first: five, and more while they are not durable.
    pub(crate) window: Vec<Seen>,
}

/// Where and when a batch was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appearance {
    pub(crate) base_offset: Offset,
    /// Its largest timestamp.
    pub(crate) timestamp: i64,
    /// The broker's clock, or [`UNKNOWN_MS`].
    pub(crate) now_ms: i64,
}

/// A window longer than this is trimmed at every batch; a shorter one when most of it is not needed.
const WINDOW_SHORT: usize = 4 * DEDUP_BATCHES_MAX;

impl Producer {
    /// Keeps the last five batches that are durable and everything after them: a crash takes those that are not durable, and five must remain.
    fn trim(&mut self, durable: Offset) {
        let durable = self.window.partition_point(|seen| seen.base_offset < durable.0);
        let spare = durable.saturating_sub(DEDUP_BATCHES_MAX);
        if spare > 0 && (self.window.len() <= WINDOW_SHORT || 2 * spare >= self.window.len()) {
            self.window.drain(..spare);
        }
    }
}

impl Seen {
    fn last_sequence(&self) -> i32 {
        wrapping_sequence(self.base_sequence, self.last_offset_delta)
    }

    fn next_offset(&self) -> Offset {
        Offset(self.base_offset + i64::from(self.last_offset_delta) + 1)
    }
}

/// Sequence numbers go from 0 to `i32::MAX` and then to 0 again.
fn wrapping_sequence(base: i32, delta: u32) -> i32 {
    ((i64::from(base) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

/// The producers of a partition.
#[derive(Clone, Default, Debug)]
pub(crate) struct Producers {
    known: BTreeMap<i64, Producer>,
    /// The states of producers before an epoch that is not settled began, oldest first: they apply again if the log is cut off.
    displaced: BTreeMap<i64, Vec<Producer>>,
}

/// An idempotent producer as a person is shown it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence number of its last record; -1 if nothing of its epoch is known.
    pub last_sequence: i32,
    /// The largest timestamp of its last batch.
    pub last_timestamp: Timestamp,
}

impl Producers {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// All of them, by id.
    pub(crate) fn active(&self) -> impl Iterator<Item = ActiveProducer> {
        self.known.iter().map(|(id, producer)| {
            let last = producer.window.last();
            ActiveProducer {
                id: ProducerId(*id),
                epoch: producer.epoch,
                last_sequence: last.map_or(-1, Seen::last_sequence),
                last_timestamp: Timestamp(last.map_or(-1, |seen| seen.timestamp)),
            }
        })
    }

    /// Compares a batch with the last ones of its producer.
    pub(crate) fn check(&self, stamp: &ProducerStamp) -> ProducerCheck {
        if stamp.producer < 0 {
            return ProducerCheck::New;
        }
        let Some(producer) = self.known.get(&stamp.producer) else { return ProducerCheck::New };
        if stamp.epoch < producer.epoch {
            return ProducerCheck::Fenced;
        }
        if stamp.epoch > producer.epoch {
            let first = stamp.base_sequence == 0;
            return if first { ProducerCheck::New } else { ProducerCheck::OutOfOrder { expected: 0 } };
        }
        let same = |seen: &&Seen| {
            seen.base_sequence == stamp.base_sequence && seen.last_offset_delta == stamp.last_offset_delta
        };
        if let Some(seen) = producer.window.iter().rfind(same) {
            return ProducerCheck::Duplicate {
                base_offset: Offset(seen.base_offset),
                next_offset: seen.next_offset(),
                timestamp: Timestamp(seen.timestamp),
            };
        }
        let Some(last) = producer.window.last() else { return ProducerCheck::New };
        let expected = wrapping_sequence(last.last_sequence(), 1);
        if stamp.base_sequence == expected {
            ProducerCheck::New
        } else {
            ProducerCheck::OutOfOrder { expected }
        }
    }

    /// Notes a batch that was appended, when everything below `settled` was durable and committed. If there are more than `producers_max` the one
    /// whose last batch lies furthest back is forgotten.
    pub(crate) fn note(
        &mut self,
        stamp: &ProducerStamp,
        seen: Appearance,
        settled: Offset,
        producers_max: usize,
    ) {
        if stamp.producer < 0 {
            return;
        }
        let producer = self.known.entry(stamp.producer).or_insert_with(|| Producer {
            id: stamp.producer,
            epoch: stamp.epoch,
            last_ms: seen.now_ms,
            bumped_at: None,
            window: Vec::with_capacity(DEDUP_BATCHES_MAX + 1),
        });
        if producer.epoch != stamp.epoch {
            self.displaced.entry(stamp.producer).or_default().push(producer.clone());
            producer.epoch = stamp.epoch;
            producer.bumped_at = Some(seen.base_offset.0);
            producer.window.clear();
        }
        producer.window.push(Seen {
            base_sequence: stamp.base_sequence,
            last_offset_delta: stamp.last_offset_delta,
            base_offset: seen.base_offset.0,
            timestamp: seen.timestamp,
        });
        producer.last_ms = seen.now_ms;
        producer.trim(settled);
        if producer.bumped_at.is_none_or(|at| at < settled.0) {
            self.displaced.remove(&stamp.producer);
        }
        if self.known.len() > producers_max {
            self.forget_silent(1);
        }
    }

    /// Forgets as many producers as that: those whose last batches lie furthest back.
    pub(crate) fn forget_silent(&mut self, count: usize) {
        let last_offset = |p: &Producer| (p.window.last().map(|seen| seen.base_offset), p.id);
        let mut all: Vec<_> = self.known.values().map(last_offset).collect();
        if let Some(last) = count.min(all.len()).checked_sub(1) {
            let (silent, at, _) = all.select_nth_unstable(last);
            for (_, id) in silent.iter().chain([&*at]) {
                self.known.remove(id);
                self.displaced.remove(id);
            }
        }
    }

    /// Forgets producers that have been silent for this long.
    pub(crate) fn expire(&mut self, now_ms: i64, silent_ms: i64) {
        self.known.retain(|_, producer| {
            if producer.last_ms == UNKNOWN_MS {
                producer.last_ms = now_ms;
            }
            now_ms.saturating_sub(producer.last_ms) <= silent_ms
        });
        let known = &self.known;
        self.displaced.retain(|id, _| known.contains_key(id));
    }

    /// The state of a producer from batches below this offset alone, in its last epoch then. `None`: it was not known.
    fn version_below(&self, producer: &Producer, offset: Offset) -> Option<&Producer> {
        let older = self.displaced.get(&producer.id).map_or(&[][..], Vec::as_slice);
        let began_below = |version: &&Producer| version.bumped_at.is_none_or(|at| at < offset.0);
        older.iter().rev().find(began_below)
    }

    /// Whether a batch is the last one below `settled` of its producer: what is known of the producer can be found out from it again.
    pub(crate) fn is_last(&self, producer: i64, base_offset: Offset, settled: Offset) -> bool {
        let Some(known) = self.known.get(&producer) else { return false };
        let is_newer = known.bumped_at.is_some_and(|at| at >= settled.0);
        let version = if is_newer { self.version_below(known, settled) } else { Some(known) };
        let last = version.and_then(|v| v.window.iter().rfind(|seen| seen.base_offset < settled.0));
        last.is_some_and(|last| last.base_offset == base_offset.0)
    }

    /// Forgets the batches from this offset on: the log was cut off there.
    pub(crate) fn truncate(&mut self, offset: Offset) {
        let known = std::mem::take(&mut self.known);
        for (id, mut producer) in known {
            if producer.bumped_at.is_some_and(|at| at >= offset.0) {
                let Some(version) = self.version_below(&producer, offset) else { continue };
                producer = version.clone();
            }
            producer.window.retain(|seen| seen.base_offset < offset.0);
            if !producer.window.is_empty() {
                self.known.insert(id, producer);
            }
        }
        self.displaced.retain(|id, versions| {
            versions.retain(|version| version.bumped_at.is_none_or(|at| at < offset.0));
            self.known.contains_key(id)
        });
        for (id, producer) in &self.known {
            if let Some(versions) = self.displaced.get_mut(id) {
                versions.retain(|version| version.epoch < producer.epoch);
            }
        }
    }

    /// The producers as the batches below this offset, the durable end, make them. `None` when that is not known any
    /// more: the state that a later epoch displaced was forgotten.
    ///
    /// Batches from `settled` on may be cut off later, so the state without them is kept too: of a producer whose epoch began there,
    /// the displaced state comes first.
    pub(crate) fn below(&self, offset: Offset, settled: Offset) -> Option<Vec<Producer>> {
        let mut all = Vec::with_capacity(self.known.len());
        for producer in self.known.values() {
            let last = if producer.bumped_at.is_some_and(|at| at >= offset.0) {
                self.version_below(producer, offset)?
            } else {
                producer
            };
            let mut unsettled = last.bumped_at.is_some_and(|at| at >= settled.0);
            let older = self.displaced.get(&producer.id).map_or(&[][..], Vec::as_slice);
            let mut versions = vec![last];
            for version in older.iter().rev().filter(|version| version.epoch < last.epoch) {
                if unsettled {
                    versions.push(version);
                }
                unsettled &= version.bumped_at.is_some_and(|at| at >= settled.0);
            }
            for version in versions.into_iter().rev() {
                let mut version = version.clone();
                version.window.retain(|seen| seen.base_offset < offset.0);
                let old = version.window.partition_point(|seen| seen.base_offset < settled.0);
                version.window.drain(..old.saturating_sub(DEDUP_BATCHES_MAX));
                if !version.window.is_empty() {
                    all.push(version);
                }
            }
        }
        Some(all)
    }

    /// Restores the producers of a checkpoint.
    pub(crate) fn restore(&mut self, producers: Vec<Producer>) {
        self.known.clear();
        self.displaced.clear();
        for producer in producers {
            if let Some(older) = self.known.insert(producer.id, producer) {
                self.displaced.entry(older.id).or_default().push(older);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    fn stamp(epoch: i16, base_sequence: i32, records: u32) -> ProducerStamp {
        ProducerStamp { producer: 7, epoch, base_sequence, last_offset_delta: records - 1 }
    }

    /// Batches of epoch 1 with these sequences and sizes, at offsets 100, 101, ...
    fn after(batches: &[(i32, u32)]) -> Producers {
        let mut producers = Producers::default();
        for (i, (sequence, records)) in (100..).zip(batches) {
            producers.note(&stamp(1, *sequence, *records), at(i), Offset(i + 1), MAX);
        }
        producers
    }

    fn at(offset: i64) -> Appearance {
        Appearance { base_offset: Offset(offset), timestamp: 1000 + offset, now_ms: 0 }
    }

    fn duplicate(base: i64, next: i64) -> ProducerCheck {
        ProducerCheck::Duplicate {
            base_offset: Offset(base),
            next_offset: Offset(next),
            timestamp: Timestamp(1000 + base),
        }
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(Producers::default().check(&stamp(3, 17, 2)), ProducerCheck::New);
    }

    #[test]
    fn an_older_epoch_is_fenced() {
        assert_eq!(after(&[(0, 1)]).check(&stamp(0, 1, 1)), ProducerCheck::Fenced);
    }

    #[test]
    fn a_newer_epoch_begins_at_sequence_zero_and_empties_the_window() {
        let mut producers = after(&[(0, 1)]);
        assert_eq!(producers.check(&stamp(2, 1, 1)), ProducerCheck::OutOfOrder { expected: 0 });
        assert_eq!(producers.check(&stamp(2, 0, 1)), ProducerCheck::New);
        producers.note(&stamp(2, 0, 1), at(500), Offset(500), MAX);
        assert_eq!(producers.check(&stamp(1, 0, 1)), ProducerCheck::Fenced);
        assert_eq!(producers.check(&stamp(2, 1, 1)), ProducerCheck::New);
    }

    #[test]
    fn a_retry_of_one_of_the_last_five_batches_is_a_duplicate_and_an_older_one_is_out_of_order() {
        let producers = after(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 3)]);
        assert_eq!(producers.check(&stamp(1, 5, 3)), duplicate(105, 108));
        assert_eq!(producers.check(&stamp(1, 1, 1)), duplicate(101, 102));
        assert_eq!(producers.check(&stamp(1, 0, 1)), ProducerCheck::OutOfOrder { expected: 8 });
        assert_eq!(producers.check(&stamp(1, 5, 2)), ProducerCheck::OutOfOrder { expected: 8 });
        assert_eq!(producers.check(&stamp(1, 8, 2)), ProducerCheck::New);
        assert_eq!(producers.check(&stamp(1, 9, 2)), ProducerCheck::OutOfOrder { expected: 8 });
    }

    #[test]
    fn sequence_numbers_wrap_to_zero_behind_the_largest() {
        assert_eq!(after(&[(i32::MAX, 1)]).check(&stamp(1, 0, 1)), ProducerCheck::New);
        let producers = after(&[(i32::MAX - 1, 4)]);
        assert_eq!(producers.check(&stamp(1, 2, 1)), ProducerCheck::New);
        assert_eq!(producers.check(&stamp(1, 3, 1)), ProducerCheck::OutOfOrder { expected: 2 });
    }

    #[test]
    fn the_producer_silent_longest_is_forgotten_when_there_are_too_many_and_all_after_a_day() {
        let mut producers = Producers::default();
        for id in 0..5 {
            let stamp = ProducerStamp { producer: id, epoch: 0, base_sequence: 0, last_offset_delta: 0 };
            producers.note(&stamp, Appearance { now_ms: 100 + id, ..at(10 - id) }, Offset(0), 4);
        }
        assert_eq!(
            producers.known.keys().copied().collect::<Vec<_>>(),
            [0, 1, 2, 3],
            "4 has the lowest offset"
        );
        producers.expire(150, 48);
        assert_eq!(producers.known.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn batches_in_flight_displace_none_that_a_crash_would_leave() {
        let mut producers = Producers::default();
        for i in 0..100 {
            producers.note(&stamp(1, i, 1), at(i64::from(i)), Offset(10), MAX);
        }
        let below = producers.below(Offset(10), Offset(10)).expect("no epoch was displaced");
        assert_eq!(below[0].window.iter().map(|seen| seen.base_offset).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        producers.note(&stamp(1, 100, 1), at(100), Offset(100), MAX);
        assert_eq!(producers.known[&7].window.len(), 6, "five durable ones and one in flight");
    }

    #[test]
    fn what_is_known_below_an_offset_leaves_out_what_is_not_durable() {
        let producers = after(&[(0, 1), (1, 1), (2, 1)]);
        let below = producers.below(Offset(102), Offset(102)).expect("no epoch was displaced");
        assert_eq!(below[0].window.len(), 2);
        assert_eq!(producers.below(Offset(100), Offset(100)).expect("no epoch was displaced"), []);
        let mut bumped = producers;
        let before = bumped.below(Offset(103), Offset(103));
        bumped.note(&stamp(2, 0, 1), at(103), Offset(103), MAX);
        assert_eq!(bumped.below(Offset(103), Offset(103)), before, "what the new epoch has displaced");
        assert!(bumped.below(Offset(104), Offset(104)).is_some_and(|all| all[0].epoch == 2));
    }

    #[test]
    fn batches_that_are_cut_off_with_the_end_of_the_log_were_never_seen() {
        let mut producers = after(&[(0, 1), (1, 1), (2, 1)]);
        producers.note(&stamp(2, 0, 1), at(103), Offset(100), MAX);
        producers.note(&stamp(2, 1, 1), at(104), Offset(100), MAX);
        producers.note(&stamp(3, 0, 1), at(105), Offset(100), MAX);
        // A checkpoint keeps all of it as long as it is not settled.
        let mut restored = Producers::default();
        restored.restore(producers.below(Offset(106), Offset(100)).expect("everything is known"));
        assert_eq!((&restored.known, &restored.displaced), (&producers.known, &producers.displaced));
        let settled = producers.below(Offset(106), Offset(106)).expect("everything is known");
        assert_eq!(settled.iter().map(|producer| producer.epoch).collect::<Vec<_>>(), [3]);
        producers.truncate(Offset(105));
        assert_eq!(producers.check(&stamp(2, 1, 1)), duplicate(104, 105));
        assert_eq!(producers.check(&stamp(3, 0, 1)), ProducerCheck::New);
        producers.truncate(Offset(102));
        assert_eq!(producers.check(&stamp(1, 1, 1)), duplicate(101, 102));
        assert_eq!(producers.check(&stamp(1, 2, 1)), ProducerCheck::New);
        assert_eq!(producers.check(&stamp(2, 0, 1)), ProducerCheck::New);
        producers.truncate(Offset(100));
        assert_eq!((producers.len(), producers.displaced.len()), (0, 0));
        // Settled states are not kept twice.
        let mut producers = after(&[(0, 1)]);
        producers.note(&stamp(2, 0, 1), at(101), Offset(100), MAX);
        producers.note(&stamp(2, 1, 1), at(102), Offset(102), MAX);
        assert_eq!(producers.displaced.len(), 0);
    }
}

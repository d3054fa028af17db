//! Checks that every acknowledged record is read exactly once, in order and unchanged.

use std::ops::Range;

use super::payload::{Filling, Stamp};

/// Records that one producer sent to one partition.
#[derive(Clone, Default, Debug)]
struct SentLane {
    /// The next sequence number.
    next: u64,
    /// Sum of the hashes of acknowledged records.
    acknowledged: u64,
    /// Sequence numbers and hashes of failed records, which may or may not have been written. Sorted by sequence number.
    undecided: Vec<(u64, u64)>,
}

/// Records that one producer sent.
#[derive(Clone, Debug)]
pub struct Sent {
    lanes: Vec<SentLane>,
}

/// Hashes the checksum of a stamp, such that sums of hashes distinguish sets of records.
fn hash(crc: u32) -> u64 {
    (u64::from(crc) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Sent {
    /// Creates an empty set for a topic with this number of partitions.
    pub fn new(partitions: u32) -> Self {
        Self { lanes: vec![SentLane::default(); partitions as usize] }
    }

    /// Returns the sequence number for the next record to a partition.
    pub fn next_sequence(&mut self, partition: u32) -> u64 {
        let lane = &mut self.lanes[partition as usize];
        lane.next += 1;
        lane.next - 1
    }

    /// Adds an acknowledged record.
    pub fn acknowledged(&mut self, partition: u32, crc: u32) {
        let lane = &mut self.lanes[partition as usize];
        lane.acknowledged = lane.acknowledged.wrapping_add(hash(crc));
    }

    /// Adds a record that was rejected or timed out. It may or may not have been written.
    pub fn failed(&mut self, partition: u32, sequence: u64, crc: u32) {
        let undecided = &mut self.lanes[partition as usize].undecided;
        let at = undecided.partition_point(|(other, _)| *other < sequence);
        undecided.insert(at, (sequence, hash(crc)));
    }

    /// Returns the number of acknowledged records.
    pub fn count(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.next - lane.undecided.len() as u64).sum()
    }
}

/// Records of one producer read from one partition.
#[derive(Clone, Default, Debug)]
struct ReadLane {
    next: u64,
    hashes: u64,
    missing: Vec<Range<u64>>,
    /// Retention has removed records since the last record read, so the next gap in the sequence numbers is not a loss.
    truncated: bool,
    removed: Vec<Range<u64>>,
}

/// Checks records as they are read.
#[derive(Clone, Debug)]
pub struct Checker {
    producers: u32,
    filling: Filling,
    /// Indexed by partition, then producer.
    lanes: Vec<ReadLane>,
    /// The next offset of each partition.
    offsets: Vec<i64>,
    retention: bool,
    records: u64,
    duplicated: u64,
    reordered: u64,
    altered: u64,
}

/// Result of a check, as counts of records.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verdict {
    /// Acknowledged but not read.
    pub lost: u64,
    /// Read more than once.
    pub duplicated: u64,
    /// Read in a different order than sent.
    pub reordered: u64,
    /// Read with different bytes or from a different partition than sent.
    pub altered: u64,
}

impl Verdict {
    /// Combines the checks of two readers of the same records: the maximum of each count.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            lost: self.lost.max(other.lost),
            duplicated: self.duplicated.max(other.duplicated),
            reordered: self.reordered.max(other.reordered),
            altered: self.altered.max(other.altered),
        }
    }
}

impl Checker {
    /// Creates a checker. With `retention`, records may have been removed, which shows as gaps in the offsets.
    pub fn new(producers: u32, partitions: u32, filling: Filling, retention: bool) -> Self {
        Self {
            producers,
            filling,
            lanes: vec![ReadLane::default(); producers as usize * partitions as usize],
            offsets: vec![0; partitions as usize],
            retention,
            records: 0,
            duplicated: 0,
            reordered: 0,
            altered: 0,
        }
    }

    /// Starts at these offsets, after the records that are in the partitions already.
    #[must_use]
    pub fn from(mut self, offsets: &[i64]) -> Self {
        self.offsets.copy_from_slice(offsets);
        self
    }

    /// Returns the number of records read.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the next offset to read in each partition.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// Checks a record that was read. Returns its stamp if it is valid.
    pub fn read(&mut self, partition: u32, offset: i64, value: &[u8]) -> Option<Stamp> {
        self.records += 1;
        let here = partition as usize;
        let first = here * self.producers as usize;
        if self.retention && self.offsets[here] != offset {
            self.lanes[first..first + self.producers as usize]
                .iter_mut()
                .for_each(|lane| lane.truncated = true);
        }
        self.offsets[here] = offset + 1;
        let stamped = Stamp::read(value);
        let Some((stamp, crc)) = stamped.filter(|(stamp, _)| {
            stamp.partition == partition
                && stamp.producer < self.producers
                && self.filling.matches(stamp, value)
        }) else {
            self.altered += 1;
            return None;
        };
        let lane = &mut self.lanes[first + stamp.producer as usize];
        let sequence = stamp.sequence;
        if sequence < lane.next {
            if lane.take_missing(sequence) {
                self.reordered += 1;
                lane.hashes = lane.hashes.wrapping_add(hash(crc));
            } else {
                self.duplicated += 1;
            }
            return Some(stamp);
        }
        if sequence > lane.next {
            let gap = lane.next..sequence;
            if lane.truncated { lane.removed.push(gap) } else { lane.missing.push(gap) }
        }
        lane.truncated = false;
        lane.next = sequence + 1;
        lane.hashes = lane.hashes.wrapping_add(hash(crc));
        Some(stamp)
    }

    /// Returns whether as many records were read as are acknowledged in `sent`.
    pub fn has(&self, sent: &[Sent]) -> bool {
        let missing = |lane: &ReadLane| lane.missing.iter().map(|gap| gap.end - gap.start).sum::<u64>();
        let read: u64 = self.lanes.iter().map(|lane| lane.next - missing(lane)).sum();
        read >= sent.iter().map(Sent::count).sum()
    }

    /// Compares the records read with those sent. Call it after reading everything.
    pub fn verdict(&self, sent: &[Sent]) -> Verdict {
        let mut verdict = Verdict {
            lost: 0,
            duplicated: self.duplicated,
            reordered: self.reordered,
            altered: self.altered,
        };
        for (producer, sent) in sent.iter().enumerate() {
            for (partition, sent) in sent.lanes.iter().enumerate() {
                let read = &self.lanes[partition * self.producers as usize + producer];
                let lost = read.lost(sent);
                verdict.lost += lost;
                // The sums are comparable only if no records are missing.
                if lost == 0
                    && read.removed.is_empty()
                    && !read.truncated
                    && read.hashes != read.expected(sent)
                {
                    verdict.altered += 1;
                }
            }
        }
        verdict
    }
}

impl ReadLane {
    /// Removes a sequence number from the missing ones. Returns false if it is not among them.
    fn take_missing(&mut self, sequence: u64) -> bool {
        let Some(at) = self.missing.iter().position(|gap| gap.contains(&sequence)) else { return false };
        let gap = self.missing.swap_remove(at);
        let parts = [gap.start..sequence, sequence + 1..gap.end];
        self.missing.extend(parts.into_iter().filter(|part| !part.is_empty()));
        true
    }

    fn has(&self, sequence: u64) -> bool {
        sequence < self.next && !self.missing.iter().any(|gap| gap.contains(&sequence))
    }

    fn lost(&self, sent: &SentLane) -> u64 {
        let rest = if self.truncated { 0..0 } else { self.next..sent.next.max(self.next) };
        let undecided_in = |gap: &Range<u64>| {
            let from = sent.undecided.partition_point(|(sequence, _)| *sequence < gap.start);
            let to = sent.undecided.partition_point(|(sequence, _)| *sequence < gap.end);
            (to - from) as u64
        };
        self.missing.iter().chain([&rest]).map(|gap| gap.end - gap.start - undecided_in(gap)).sum()
    }

    /// Returns the expected sum of hashes: of the acknowledged records, and the failed records that were read.
    fn expected(&self, sent: &SentLane) -> u64 {
        let written = sent.undecided.iter().filter(|(sequence, _)| self.has(*sequence));
        written.fold(sent.acknowledged, |sum, (_, hash)| sum.wrapping_add(*hash))
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

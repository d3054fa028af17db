//! Whether everything acknowledged can be read, once, in order and unchanged.

use std::ops::Range;

use super::payload::{Filling, Stamp};

/// Records of one producer in one partition, as sent.
#[derive(Clone, Default, Debug)]
struct SentLane {
    /// The next sequence number.
    next: u64,
    /// Sum of the hashes of those acknowledged.
    acknowledged: u64,
    /// Not acknowledged, with their hashes: they may be there or not. In the order of their sequence.
    open: Vec<(u64, u64)>,
}

/// What one producer has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    lanes: Vec<SentLane>,
}

/// Makes the checksum of a stamp a word whose sums tell sets of records apart.
fn hash(crc: u32) -> u64 {
    (u64::from(crc) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Sent {
    /// To so many partitions, nothing yet.
    pub fn new(partitions: u32) -> Self {
        Self { lanes: vec![SentLane::default(); partitions as usize] }
    }

    /// The sequence number of the next record to a partition.
    pub fn number(&mut self, partition: u32) -> u64 {
        let lane = &mut self.lanes[partition as usize];
        lane.next += 1;
        lane.next - 1
    }

    /// A record was acknowledged.
    pub fn acknowledged(&mut self, partition: u32, crc: u32) {
        let lane = &mut self.lanes[partition as usize];
        lane.acknowledged = lane.acknowledged.wrapping_add(hash(crc));
    }

    /// A record was refused or given up: it may be written or not.
    pub fn gave_up(&mut self, partition: u32, sequence: u64, crc: u32) {
        let open = &mut self.lanes[partition as usize].open;
        let at = open.partition_point(|(other, _)| *other < sequence);
        open.insert(at, (sequence, hash(crc)));
    }

    /// Records acknowledged.
    pub fn count(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.next - lane.open.len() as u64).sum()
    }
}

/// Records of one producer in one partition, as read.
#[derive(Clone, Default, Debug)]
struct ReadLane {
    next: u64,
    hashes: u64,
    missing: Vec<Range<u64>>,
    /// Retention has removed records since the last one read: a jump of the sequence is no loss.
    cut: bool,
    removed: Vec<Range<u64>>,
}

/// Reads along and notes what is wrong.
#[derive(Clone, Debug)]
pub struct Checker {
    producers: u32,
    filling: Filling,
    /// By partition, then producer.
    lanes: Vec<ReadLane>,
    /// The next offset of each partition.
    offsets: Vec<i64>,
    retention: bool,
    records: u64,
    duplicated: u64,
    reordered: u64,
    altered: u64,
}

/// What a check came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verdict {
    /// Acknowledged and not to be read.
    pub lost: u64,
    /// Read more than once.
    pub duplicated: u64,
    /// Read in another order than sent.
    pub reordered: u64,
    /// Read with other bytes than sent, or from another partition.
    pub altered: u64,
}

impl Verdict {
    /// The worse of two readings of the same records.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            lost: self.lost.max(other.lost),
            duplicated: self.duplicated.max(other.duplicated),
            reordered: self.reordered.max(other.reordered),
            altered: self.altered.max(other.altered),
        }
    }
}

impl Checker {
    /// For the records of so many producers in so many partitions. With `retention` the oldest may be gone, which the offsets tell.
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

    /// Begins behind what is in the partitions already.
    #[must_use]
    pub fn from(mut self, offsets: &[i64]) -> Self {
        self.offsets.copy_from_slice(offsets);
        self
    }

    /// Records read, all of them.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The next offset to be read of each partition.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// A record was read. Its stamp, if it has one.
    pub fn read(&mut self, partition: u32, offset: i64, value: &[u8]) -> Option<Stamp> {
        self.records += 1;
        let here = partition as usize;
        let first = here * self.producers as usize;
        if self.retention && self.offsets[here] != offset {
            self.lanes[first..first + self.producers as usize].iter_mut().for_each(|lane| lane.cut = true);
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
            if lane.find(sequence) {
                self.reordered += 1;
                lane.hashes = lane.hashes.wrapping_add(hash(crc));
            } else {
                self.duplicated += 1;
            }
            return Some(stamp);
        }
        if sequence > lane.next {
            let gap = lane.next..sequence;
            if lane.cut { lane.removed.push(gap) } else { lane.missing.push(gap) }
        }
        lane.cut = false;
        lane.next = sequence + 1;
        lane.hashes = lane.hashes.wrapping_add(hash(crc));
        Some(stamp)
    }

    /// Whether every record acknowledged so far was read, as far as counts tell.
    pub fn has(&self, sent: &[Sent]) -> bool {
        let missing = |lane: &ReadLane| lane.missing.iter().map(|gap| gap.end - gap.start).sum::<u64>();
        let read: u64 = self.lanes.iter().map(|lane| lane.next - missing(lane)).sum();
        read >= sent.iter().map(Sent::count).sum()
    }

    /// Compares with what was sent. Call it when everything was read.
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
                // Sums of different sets tell nothing.
                if lost == 0 && read.removed.is_empty() && !read.cut && read.hashes != read.expected(sent) {
                    verdict.altered += 1;
                }
            }
        }
        verdict
    }
}

impl ReadLane {
    /// Takes a sequence number out of those missing. False if it is not among them.
    fn find(&mut self, sequence: u64) -> bool {
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
        let behind = if self.cut { 0..0 } else { self.next..sent.next.max(self.next) };
        let open_in = |gap: &Range<u64>| {
            let from = sent.open.partition_point(|(sequence, _)| *sequence < gap.start);
            let to = sent.open.partition_point(|(sequence, _)| *sequence < gap.end);
            (to - from) as u64
        };
        self.missing.iter().chain([&behind]).map(|gap| gap.end - gap.start - open_in(gap)).sum()
    }

    fn expected(&self, sent: &SentLane) -> u64 {
        let there = sent.open.iter().filter(|(sequence, _)| self.has(*sequence));
        there.fold(sent.acknowledged, |sum, (_, hash)| sum.wrapping_add(*hash))
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

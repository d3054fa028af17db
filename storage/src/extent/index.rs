//! The sparse index of one extent: every so many bytes, where a frame begins, its offset, and the largest timestamp before it.
//!
//! An index is never a source of truth. It is built as frames are appended or walked over and may have gaps; a search goes to the
//! nearest entry before it and walks frames from there.

use highwater_protocol::ids::{LogIndex, Offset};

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Where a frame begins.
    pub(crate) position: u32,
    /// Its replication index.
    pub(crate) index: LogIndex,
    /// The offset of its first record, or of the next record.
    pub(crate) offset: Offset,
    /// Largest timestamp of the extent's batches before it.
    pub(crate) max_timestamp_before: i64,
}

/// Entries of one extent at most: they are kept as long as the extent exists.
pub(crate) const ENTRIES_MAX: u32 = 256;

/// Entries ordered by position.
#[derive(Clone, Default, Debug)]
pub(crate) struct SparseIndex {
    entries: Vec<Entry>,
}

impl SparseIndex {
    /// The distance between entries in an extent of this size.
    pub(crate) fn interval(extent_bytes: u32, interval_bytes: u32) -> u32 {
        interval_bytes.max(extent_bytes / ENTRIES_MAX)
    }

    /// Notes where a frame begins, if no entry is close before it.
    pub(crate) fn note(&mut self, entry: Entry, interval: u32) {
        let at = match self.entries.last() {
            Some(last) if last.position >= entry.position => {
                self.entries.partition_point(|e| e.position < entry.position)
            }
            _ => self.entries.len(),
        };
        let far_from =
            |other: Option<&Entry>| other.is_none_or(|o| o.position.abs_diff(entry.position) >= interval);
        let in_front = at.checked_sub(1).and_then(|i| self.entries.get(i));
        if far_from(in_front) && far_from(self.entries.get(at)) {
            self.entries.insert(at, entry);
        }
    }

    /// The last entry whose frame begins at or before this position.
    pub(crate) fn floor_of_position(&self, position: u32) -> Option<Entry> {
        let behind = self.entries.partition_point(|e| e.position <= position);
        behind.checked_sub(1).map(|i| self.entries[i])
    }

    /// The last entry whose frame begins at or before this offset.
    pub(crate) fn floor_of_offset(&self, offset: Offset) -> Option<Entry> {
        let behind = self.entries.partition_point(|e| e.offset <= offset);
        behind.checked_sub(1).map(|i| self.entries[i])
    }

    /// The last entry whose frame has at most this index.
    pub(crate) fn floor_of_index(&self, index: LogIndex) -> Option<Entry> {
        let behind = self.entries.partition_point(|e| e.index <= index);
        behind.checked_sub(1).map(|i| self.entries[i])
    }

    /// Forgets the entries from this position on: the extent ends there now.
    pub(crate) fn truncate(&mut self, position: u32) {
        self.entries.retain(|entry| entry.position < position);
    }

    /// The last entry with no timestamp as late as this one before it.
    pub(crate) fn floor_of_timestamp(&self, timestamp: i64) -> Option<Entry> {
        let behind = self.entries.partition_point(|e| e.max_timestamp_before < timestamp);
        behind.checked_sub(1).map(|i| self.entries[i])
    }

    /// Where the frame of the first entry after this position begins.
    pub(crate) fn next_after(&self, position: u32) -> Option<u32> {
        let at = self.entries.partition_point(|e| e.position <= position);
        self.entries.get(at).map(|e| e.position)
    }

    /// The last entry's position that is larger than `after` and not larger than `up_to`.
    pub(crate) fn last_within(&self, after: u32, up_to: u32) -> Option<u32> {
        self.floor_of_position(up_to).map(|e| e.position).filter(|p| *p > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u32, offset: i64, max_timestamp_before: i64) -> Entry {
        Entry { position, index: LogIndex(offset as u64 / 2), offset: Offset(offset), max_timestamp_before }
    }

    fn example() -> SparseIndex {
        let mut index = SparseIndex::default();
        for e in [entry(4096, 10, i64::MIN), entry(4200, 11, 5), entry(8192, 20, 70), entry(12288, 30, 90)] {
            index.note(e, 1000);
        }
        index
    }

    #[test]
    fn entries_keep_their_distance_and_a_search_finds_the_nearest_in_front() {
        let index = example();
        assert_eq!(index.entries.len(), 3);
        assert_eq!(index.floor_of_offset(Offset(9)), None);
        assert_eq!(index.floor_of_offset(Offset(19)).map(|e| e.position), Some(4096));
        assert_eq!(index.floor_of_offset(Offset(20)).map(|e| e.position), Some(8192));
        assert_eq!(index.floor_of_index(LogIndex(4)), None);
        assert_eq!(index.floor_of_index(LogIndex(14)).map(|e| e.position), Some(8192));
        assert_eq!(index.floor_of_timestamp(70).map(|e| e.position), Some(4096));
        assert_eq!(index.floor_of_timestamp(71).map(|e| e.position), Some(8192));
        assert_eq!(index.floor_of_timestamp(1000).map(|e| e.position), Some(12288));
        assert_eq!(index.next_after(4096), Some(8192));
        assert_eq!(index.last_within(4096, 12_000), Some(8192));
        assert_eq!(index.last_within(8192, 12_000), None);
    }

    #[test]
    fn entries_behind_a_cut_are_forgotten() {
        let mut index = example();
        index.truncate(8192);
        assert_eq!(index.entries.iter().map(|e| e.position).collect::<Vec<_>>(), [4096]);
    }

    #[test]
    fn a_walk_over_old_frames_fills_gaps_in_any_order() {
        let mut index = example();
        index.note(entry(6000, 15, 60), 1000);
        index.note(entry(6100, 16, 61), 1000);
        assert_eq!(index.floor_of_offset(Offset(17)).map(|e| e.position), Some(6000));
        assert_eq!(index.entries.iter().map(|e| e.position).collect::<Vec<_>>(), [4096, 6000, 8192, 12288]);
    }
}

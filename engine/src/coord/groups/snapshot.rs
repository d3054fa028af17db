//! Snapshots of all groups, written over many turns while the groups change.
//!
//! A snapshot visits the groups in order of their names and writes each in its state at that time. So it is *fuzzy*: it may contain changes whose
//! records were written after it began. The log keeps all these records. Applying them again leads to the same groups, because a record sets what
//! it names (an offset, a member, a group's kind) and the last record wins.

use std::ops::Bound;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::coordinator::{Group, GroupCoordinator, Kind};
use super::limits::GROUP_BYTES;
use super::record::{Record, SnapshotRecord};

/// Position of a snapshot.
#[derive(Clone, Default, Debug)]
pub struct SnapshotCursor {
    /// The current group, or the last one if `next` is [`Next::Done`].
    group: String,
    next: Next,
    has_any: bool,
}

/// The next part of the current group.
#[derive(Clone, Default, Debug)]
enum Next {
    #[default]
    Start,
    /// Its members after this id.
    Members(String),
    /// Its offsets after this partition.
    Offsets(Option<(TopicId, PartitionIndex)>),
    /// Nothing; the next group follows.
    Done,
}

impl GroupCoordinator {
    /// Returns the next piece of a snapshot of all groups, of about `bytes_max` bytes. `None` if the snapshot is complete. A group of the classic
    /// protocol is never split.
    pub fn snapshot_piece(&self, cursor: &mut SnapshotCursor, bytes_max: usize) -> Option<Vec<u8>> {
        self.snapshot_record(cursor, bytes_max).map(|record| Record::Snapshot(record).encode())
    }

    /// Returns the next piece of a snapshot.
    pub(super) fn snapshot_record(
        &self,
        cursor: &mut SnapshotCursor,
        bytes_max: usize,
    ) -> Option<SnapshotRecord> {
        let mut piece = Piece { bytes_left: bytes_max, ..Piece::default() };
        let from = match cursor.next {
            Next::Done => Bound::Excluded(&cursor.group[..]),
            _ => Bound::Included(&cursor.group[..]),
        };
        let is_first = !std::mem::replace(&mut cursor.has_any, true);
        let mut any = false;
        let mut next = std::mem::take(&mut cursor.next);
        let mut last = None;
        for (name, group) in self.groups.range::<str, _>((from, Bound::Unbounded)) {
            if piece.bytes_left == 0 {
                break;
            }
            // The group at which the previous piece ended may have been deleted.
            if *name != cursor.group {
                next = Next::Start;
            }
            any = true;
            next = piece.add(name, group, next);
            last = Some(name);
            if !matches!(next, Next::Done) {
                break;
            }
        }
        if let Some(last) = last {
            cursor.group.clone_from(last);
        }
        cursor.next = if last.is_some() { next } else { Next::Done };
        (any || is_first).then_some(piece.record)
    }

    /// Returns a snapshot in one piece.
    #[cfg(test)]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        self.snapshot_piece(&mut SnapshotCursor::default(), usize::MAX).expect("the first piece")
    }
}

/// A piece that is being filled.
struct Piece {
    record: SnapshotRecord,
    bytes_left: usize,
}

impl Default for Piece {
    fn default() -> Self {
        let record = SnapshotRecord { commits: Vec::new(), classic: Vec::new(), consumer: Vec::new() };
        Self { record, bytes_left: 0 }
    }
}

impl Piece {
    /// Adds as much of a group as fits, from `from` on. Returns the next part.
    fn add(&mut self, name: &str, group: &Group, from: Next) -> Next {
        let after = match from {
            Next::Start => match self.add_kind(group, None) {
                Some(last) => return Next::Members(last),
                None => None,
            },
            Next::Members(after) => match self.add_kind(group, Some(&after)) {
                Some(last) => return Next::Members(last),
                None => None,
            },
            Next::Offsets(after) => after,
            Next::Done => return Next::Done,
        };
        if self.bytes_left == 0 && !group.offsets.is_empty() {
            return Next::Offsets(after);
        }
        let (records, bytes, last) = group.offsets.records_after(name, after, self.bytes_left);
        self.record.commits.extend(records);
        self.spend(bytes);
        last.map_or(Next::Done, |last| Next::Offsets(Some(last)))
    }

    /// Adds the group's protocol state, with its members after `after`. Returns the last member added if others follow.
    fn add_kind(&mut self, group: &Group, after: Option<&str>) -> Option<String> {
        match &group.kind {
            Kind::Classic(classic) => {
                self.spend(group.bytes.max(GROUP_BYTES));
                self.record.classic.extend(classic.persisted().cloned());
                None
            }
            Kind::Consumer(consumer) => {
                let (record, bytes, last) = consumer.to_record_after(after, self.bytes_left);
                self.spend(bytes);
                self.record.consumer.push(record);
                last
            }
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{ClassicRecord, CommitsRecord, OffsetRecord};
    use super::super::{GroupConfig, Now};
    use super::*;

    fn commits(group: &str, topic: u8, partitions: std::ops::Range<u32>) -> Record {
        let offset = |partition| OffsetRecord {
            partition,
            leader_epoch: 1,
            offset: i64::from(partition),
            committed_ms: 5,
            metadata: String::new(),
        };
        let offsets = partitions.map(offset).collect();
        Record::Commits(CommitsRecord { group: group.into(), topic: [topic; 16], offsets })
    }

    fn classic(group: &str) -> Record {
        Record::Classic(ClassicRecord {
            group: group.into(),
            protocol_type: Some("consumer".into()),
            generation: 3,
            protocol: None,
            leader: None,
            since_ms: 1_000,
            members: vec![],
        })
    }

    fn recovered(payloads: &[Vec<u8>]) -> GroupCoordinator {
        let now = Now { ms: 0, wall_ms: 1_000 };
        let payloads = payloads.iter().map(Vec::as_slice);
        GroupCoordinator::recover(GroupConfig::default(), now, None, payloads).expect("readable")
    }

    #[test]
    fn the_pieces_of_a_snapshot_contain_all_groups_whatever_their_size() {
        let records = [
            commits("a", 1, 0..7),
            commits("a", 2, 0..1),
            classic("b"),
            commits("b", 2, 3..9),
            classic("c"),
            commits("d", 1, 0..1),
        ];
        let all = recovered(&records.iter().map(Record::encode).collect::<Vec<_>>());
        for bytes_max in [1, 50, 200, 1 << 20] {
            let mut cursor = SnapshotCursor::default();
            let pieces: Vec<_> = std::iter::from_fn(|| all.snapshot_piece(&mut cursor, bytes_max)).collect();
            assert_eq!(recovered(&pieces).encode_snapshot(), all.encode_snapshot(), "{bytes_max} bytes");
            assert_eq!(pieces.len() == 1, bytes_max == 1 << 20);
            let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
            assert!(longest < bytes_max + 600, "{longest} bytes in a piece of {bytes_max}");
        }
    }

    #[test]
    fn a_snapshot_without_groups_has_one_piece() {
        let mut cursor = SnapshotCursor::default();
        let none = recovered(&[]);
        assert!(none.snapshot_piece(&mut cursor, 100).is_some());
        assert_eq!(none.snapshot_piece(&mut cursor, 100), None);
    }
}

//! Decides which of the extents with readable headers make up the log of a partition when the map is lost.
//!
//! Headers stay where they are when an extent is freed, and when other extents replace it. Four rules decide which extents are part of the log, in
//! this order:
//!
//! 1. An extent whose header marks it as abandoned is no part of the log.
//! 2. A rewritten extent (with a generation above 0) replaces all earlier extents that begin in its range of indexes. It counts only if
//!    its header says where it ends, which is written last. Otherwise the rewrite was never finished: the extent is ignored, and all extents that it was
//!    to replace exist. Of rewritten extents whose ranges overlap, the later incarnation counts. It need not have the higher generation: a rewrite that
//!    a crash undid after its header had been written leaves an extent that was never part of the log, and whose range may differ from those of later
//!    rewrites.
//! 3. Of the extents that were appended to, a later incarnation is a later extent. One that does not begin before the beginning of every later
//!    incarnation was abandoned when the log was cut off there.
//! 4. Sequences increase along the chain.

use highwater_protocol::ids::{ExtentSequence, LogIndex};

use crate::layout::ExtentId;
use crate::mutants::{Mutant, is_planted};

/// Returns the chain among these extents of one partition, oldest first.
pub(crate) fn chain_of(mut extents: Vec<ExtentId>) -> Vec<ExtentId> {
    extents.retain(|id| !id.abandoned);
    let (rewritten, appended): (Vec<_>, Vec<_>) = extents.into_iter().partition(|id| id.generation > 0);
    let rewritten = latest_rewritten(rewritten);
    let is_replaced = |id: &ExtentId| rewritten.iter().any(|by| stands_for(by, id.base_index));
    let mut chain = if is_planted(Mutant::PreferOldGeneration) {
        let mut chain = latest_incarnations(appended);
        let old = |by: &ExtentId| chain.iter().any(|id| stands_for(by, id.base_index));
        let kept: Vec<ExtentId> = rewritten.into_iter().filter(|by| !old(by)).collect();
        chain.extend(kept);
        chain
    } else {
        let mut chain = latest_incarnations(appended.into_iter().filter(|id| !is_replaced(id)).collect());
        chain.extend(rewritten);
        chain
    };
    chain.sort_by_key(|id| (id.base_index, id.sequence));
    chain
}

/// Returns whether a rewritten extent replaces the one that began at this index.
fn stands_for(rewritten: &ExtentId, index: LogIndex) -> bool {
    rewritten.end.is_some_and(|end| (rewritten.base_index..end.index).contains(&index))
}

/// Returns the finished extents of the last rewrites.
fn latest_rewritten(mut rewritten: Vec<ExtentId>) -> Vec<ExtentId> {
    rewritten.sort_by_key(|id| std::cmp::Reverse(id.incarnation));
    let mut latest: Vec<ExtentId> = Vec::new();
    for id in rewritten {
        if id.end.is_some() && !latest.iter().any(|later| overlap(later, &id)) {
            latest.push(id);
        }
    }
    latest
}

/// Returns whether two rewritten extents have a common part of the log.
fn overlap(one: &ExtentId, other: &ExtentId) -> bool {
    let end = |id: &ExtentId| id.end.map_or(id.base_index, |end| end.index);
    one.base_index < end(other) && other.base_index < end(one)
}

/// Returns the extents that were appended to and not abandoned.
fn latest_incarnations(mut appended: Vec<ExtentId>) -> Vec<ExtentId> {
    appended.sort_by_key(|id| std::cmp::Reverse(id.incarnation));
    let mut begin = (LogIndex(u64::MAX), ExtentSequence(u64::MAX));
    appended.retain(|id| {
        let in_front = id.base_index < begin.0 && id.sequence < begin.1;
        if in_front {
            begin = (id.base_index, id.sequence);
        }
        in_front
    });
    appended
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{
        ClusterId, Incarnation, LeaderEpoch, Offset, PartitionIndex, StoreId, TopicId, TopicPartition,
    };

    use super::*;
    use crate::layout::{EXTENT_VERSION, ExtentEnd, Place, SlabId};
    use crate::mac::{MacKey, StoreMacs};

    fn appended(incarnation: u64, sequence: u64, base: u64) -> ExtentId {
        ExtentId {
            cluster: ClusterId([1; 16]),
            store: StoreId(0),
            place: Place { slab: SlabId(0), at: incarnation << 14 },
            version: EXTENT_VERSION,
            log2_bytes: 14,
            sequence: ExtentSequence(sequence),
            generation: 0,
            incarnation: Incarnation(incarnation),
            tp: TopicPartition { topic: TopicId([2; 16]), partition: PartitionIndex(0) },
            base_index: LogIndex(base),
            base_offset: Offset(base as i64),
            leader_epoch: LeaderEpoch(1),
            has_gaps: false,
            abandoned: false,
            configured: false,
            end: None,
            macs: Some(StoreMacs { key: MacKey([3; 16]), since: Incarnation(1) }),
        }
    }

    fn rewritten(incarnation: u64, sequence: u64, generation: u32, range: std::ops::Range<u64>) -> ExtentId {
        let end = ExtentEnd { position: 8192, index: LogIndex(range.end), offset: Offset(range.end as i64) };
        ExtentId {
            generation,
            has_gaps: true,
            end: Some(end),
            ..appended(incarnation, sequence, range.start)
        }
    }

    /// Returns the incarnations of the chain.
    fn chain(extents: &[ExtentId]) -> Vec<u64> {
        chain_of(extents.to_vec()).iter().map(|id| id.incarnation.0).collect()
    }

    #[test]
    fn extents_that_were_appended_to_make_a_chain_and_one_in_front_of_which_the_log_was_cut_off_is_none() {
        let plain = [appended(3, 1, 0), appended(5, 2, 10), appended(9, 3, 20)];
        assert_eq!(chain(&plain), [3, 5, 9]);
        // The log was cut off at 15, in the second one, and at 20, where the third one begins.
        assert_eq!(chain(&[plain[0], plain[1], plain[2], appended(12, 3, 15)]), [3, 5, 12]);
        assert_eq!(chain(&[plain[0], plain[1], plain[2], appended(12, 4, 20)]), [3, 5, 12]);
        let abandoned = ExtentId { abandoned: true, ..plain[2] };
        assert_eq!(chain(&[plain[0], plain[1], abandoned]), [3, 5]);
        // Only extents after the lost one are found.
        assert_eq!(chain(&[plain[0], plain[2], appended(12, 3, 15)]), [3, 12]);
    }

    #[test]
    fn an_extent_that_was_rewritten_takes_the_place_of_those_that_it_stands_for() {
        let old = [appended(3, 1, 0), appended(5, 2, 10), appended(9, 3, 20), appended(11, 4, 30)];
        let all = |more: &[ExtentId]| chain(&[&old[..], more].concat());
        assert_eq!(all(&[rewritten(20, 2, 1, 10..30)]), [3, 20, 11]);
        // Two rewrites in a row, and the same one twice.
        assert_eq!(all(&[rewritten(20, 2, 1, 10..20), rewritten(21, 1, 2, 0..20)]), [21, 9, 11]);
        assert_eq!(all(&[rewritten(20, 2, 1, 10..30), rewritten(25, 2, 1, 10..30)]), [3, 25, 11]);
        // Extents that were already dropped leave no trace.
        assert_eq!(chain(&[old[0], rewritten(20, 2, 1, 10..30), old[3]]), [3, 20, 11]);
    }

    #[test]
    fn a_rewrite_that_never_became_part_of_the_log_gives_way_to_what_was_rewritten_since() {
        let old = [appended(3, 1, 0), appended(5, 2, 10), appended(9, 3, 20)];
        let all = |more: &[ExtentId]| chain(&[&old[..], more].concat());
        // The first one was whole when a crash brought back what it was to replace.
        let undone = rewritten(20, 1, 3, 0..20);
        assert_eq!(all(&[undone]), [20, 9]);
        assert_eq!(all(&[undone, rewritten(25, 2, 1, 10..20)]), [3, 25, 9]);
        assert_eq!(all(&[undone, rewritten(25, 2, 1, 10..30)]), [3, 25]);
        assert_eq!(all(&[undone, rewritten(22, 1, 1, 0..10), rewritten(25, 2, 1, 10..30)]), [22, 25]);
        // Before it, a part of its range had been rewritten.
        let earlier = [rewritten(15, 1, 2, 0..10), undone, rewritten(25, 2, 1, 10..20)];
        assert_eq!(all(&earlier), [15, 25, 9]);
    }

    #[test]
    fn a_rewrite_that_was_not_finished_counts_for_nothing() {
        let old = [appended(3, 1, 0), appended(5, 2, 10)];
        let unfinished = ExtentId { end: None, ..rewritten(20, 1, 1, 0..10) };
        assert_eq!(chain(&[old[0], old[1], unfinished]), [3, 5]);
    }
}

use highwater_protocol::frame::{FRAME_VERSION, FrameKind};
use highwater_protocol::ids::{Incarnation, LeaderEpoch, LogIndex};

use super::super::{
    Decision, Expectation, FrameCondition, Later, Scanned, has_frames_from, proves_durable, scan,
};
use super::extent::{Extent, INCARNATION, START, TAG};
use crate::mac::{MacKey, StoreMacs};

const MIB: usize = 1 << 20;

/// Twenty batches of about 3 KiB in rounds of four: each was made when all rounds before had been durable.
fn rounds() -> Extent {
    let mut extent = Extent::new(MIB);
    for n in 0..20 {
        extent.batch(3000 + n, 3, 100 + n as u64 / 4 * 4);
    }
    extent
}

#[test]
fn every_kind_of_frame_is_visited_and_the_end_found() {
    let mut extent = Extent::new(8 * MIB);
    extent.epoch_start(100);
    for n in 0..200 {
        extent.batch(100 + 7 * n, 1 + n as u32 % 5, 101);
    }
    extent.padding(300);
    extent.batch(3 * MIB, 1000, 300);
    extent.padding(301);
    extent.epoch_start(302);
    extent.batch(MIB, 1, 302);
    let scanned = extent.scan();
    assert_eq!(scanned.end, extent.end());
    assert_eq!((scanned.found, scanned.decision), (FrameCondition::Zero, Decision::End));
    assert_eq!(scanned.frames, 206);
    assert_eq!(scanned.last_epoch, Some(LeaderEpoch(3)));
    assert_eq!(scanned.durable_index_max, LogIndex(302));
    assert!(scanned.gaps.is_empty() && scanned.unreadable.is_empty() && scanned.skipped.is_empty());
}

#[test]
fn a_full_extent_ends_at_its_end() {
    let mut extent = Extent::new(64 << 10);
    extent.batch((60 << 10) - 64, 1, 100);
    let scanned = extent.scan();
    assert_eq!(
        (scanned.end, scanned.found, scanned.decision),
        (extent.end(), FrameCondition::Sealed, Decision::End)
    );
}

#[test]
fn a_sealed_extent_ends_where_it_was_sealed_whatever_follows() {
    let mut extent = rounds();
    let sealed_at = extent.starts[15];
    let mut expect = extent.expect();
    expect.sealed_at = Some(sealed_at as u32);
    let scanned = extent.scan_with(&expect);
    assert_eq!((scanned.end.position as usize, scanned.decision), (sealed_at, Decision::End));
    // Before that place everything had been written.
    extent.bytes[extent.starts[14] + 200] ^= 1;
    let scanned = extent.scan_with(&expect);
    assert_eq!((scanned.end.position as usize, scanned.decision), (extent.starts[14], Decision::Rot));
    assert_eq!(scanned.gaps[0].to, None);
}

#[test]
fn a_bad_frame_before_one_that_proves_it_durable_is_a_hole_and_the_rest_is_found() {
    for damage in 0..3 {
        let mut extent = rounds();
        let (from, to) = (extent.starts[5], extent.starts[6]);
        match damage {
            0 => extent.bytes[from + 1000] ^= 4,
            1 => extent.bytes[from + 5] ^= 4,
            _ => extent.bytes[from..to].fill(0),
        }
        let scanned = extent.scan();
        assert_eq!(scanned.gaps.len(), 1, "{scanned:?}");
        let gap = scanned.gaps[0];
        assert_eq!(gap.decision, Decision::Hole);
        assert_eq!(gap.found, if damage == 2 { FrameCondition::Zero } else { FrameCondition::Bad });
        assert_eq!(gap.from, Extent::mark(from, 105, 1015));
        assert_eq!(gap.to, Some(Extent::mark(to, 106, 1018)));
        assert_eq!((scanned.end, scanned.decision, scanned.frames), (extent.end(), Decision::End, 19));
    }
}

#[test]
fn frames_of_the_last_round_behind_a_bad_one_are_truncated_and_never_come_back() {
    let mut extent = rounds();
    let from = extent.starts[17];
    extent.bytes[from + 100] ^= 1;
    let scanned = extent.scan();
    assert_eq!(scanned.end, Extent::mark(from, 117, 1051));
    assert_eq!((scanned.found, scanned.decision), (FrameCondition::Bad, Decision::Truncate { seal: true }));
    assert!(scanned.gaps.is_empty());
}

#[test]
fn a_torn_last_frame_is_truncated_and_the_log_goes_on_in_place() {
    let mut extent = rounds();
    let from = extent.starts[19];
    extent.bytes[from + 1024..].fill(0);
    let scanned = extent.scan();
    assert_eq!(scanned.end.position as usize, from);
    assert_eq!((scanned.found, scanned.decision), (FrameCondition::Bad, Decision::Truncate { seal: false }));
}

#[test]
fn a_durable_hint_turns_truncation_into_rot() {
    for (hint, decision) in [(119, Decision::Truncate { seal: false }), (120, Decision::Rot)] {
        let mut extent = rounds();
        extent.bytes[extent.starts[19] + 100] ^= 1;
        let mut expect = extent.expect();
        expect.durable_hint = LogIndex(hint);
        assert_eq!(extent.scan_with(&expect).decision, decision);
        let from = extent.starts[19];
        extent.bytes[from..].fill(0);
        let scanned = extent.scan_with(&expect);
        let wanted = if hint == 120 { Decision::Rot } else { Decision::End };
        assert_eq!((scanned.found, scanned.decision), (FrameCondition::Zero, wanted));
    }
}

#[test]
fn an_unreadable_page_is_rot_and_what_follows_is_found_even_outside_the_window() {
    let mut extent = Extent::new(4 * MIB);
    for n in 0..3 {
        extent.batch(MIB, 1, 100 + n);
    }
    let page = extent.starts[1] as u32 + 300_000;
    extent.unreadable.insert(page / 4096 * 4096);
    let scanned = extent.scan();
    assert_eq!(scanned.gaps.len(), 1, "{scanned:?}");
    assert_eq!(
        (scanned.gaps[0].found, scanned.gaps[0].decision),
        (FrameCondition::Unreadable, Decision::Rot)
    );
    assert_eq!(scanned.gaps[0].to, Some(Extent::mark(extent.starts[2], 102, 1002)));
    assert_eq!(scanned.unreadable, [page / 4096 * 4096]);
    assert_eq!(scanned.end, extent.end());
}

#[test]
fn an_unreadable_page_behind_the_end_seals_the_extent() {
    let mut extent = rounds();
    extent.unreadable.insert((extent.at as u32).next_multiple_of(4096) + 4096);
    let scanned = extent.scan();
    assert_eq!((scanned.end, scanned.decision), (extent.end(), Decision::Truncate { seal: true }));
}

#[test]
fn bytes_of_an_earlier_life_are_the_end_and_the_log_goes_on_in_place() {
    let mut extent = Extent::new(MIB);
    extent.incarnation = INCARNATION - 1;
    for n in 0..30 {
        extent.batch(3000, 3, 100 + n);
    }
    let (mut index, mut offset) = (100, 1000);
    std::mem::swap(&mut extent.index, &mut index);
    std::mem::swap(&mut extent.offset, &mut offset);
    extent.incarnation = INCARNATION;
    extent.at = START as usize;
    extent.starts.clear();
    // The same sizes as before: what follows begins exactly where the next frame would, with the right index and offset.
    for n in 0..4 {
        extent.batch(3000, 3, 100 + n);
    }
    let scanned = extent.scan();
    assert_eq!(
        (scanned.end, scanned.found, scanned.decision),
        (extent.end(), FrameCondition::Older, Decision::End)
    );
    // Other sizes: the end is in the middle of an old frame.
    extent.batch(999, 3, 104);
    let scanned = extent.scan();
    assert_eq!((scanned.found, scanned.decision), (FrameCondition::Bad, Decision::Truncate { seal: false }));
    assert_eq!(scanned.end, extent.end());
}

#[test]
fn a_frame_of_another_partition_or_place_is_misdirected() {
    for case in 0..3 {
        let mut extent = rounds();
        match case {
            0 => extent.tag = TAG ^ 1,
            1 => extent.index += 1,
            _ => extent.offset += 1,
        }
        let end = extent.at;
        extent.batch(500, 1, 120);
        let scanned = extent.scan();
        assert!(scanned.misdirected);
        assert_eq!((scanned.end.position as usize, scanned.found), (end, FrameCondition::Misdirected));
        // What is of this partition and this incarnation must not come back.
        assert_eq!(scanned.decision, Decision::Truncate { seal: case > 0 }, "case {case}");
    }
}

/// Frames of epoch 1, then the rest of them is overwritten in epoch 3. The leftovers say of what followed the cut that it had been durable.
fn overwritten(frames: usize) -> Extent {
    let mut extent = rounds();
    (extent.at, extent.index, extent.offset, extent.epoch) = (extent.starts[6], 106, 1018, 3);
    for n in 0..frames {
        extent.batch(3006 + n, 3, 106);
    }
    extent
}

#[test]
fn a_frame_of_a_lower_epoch_than_the_one_in_front_of_it_ends_the_log() {
    let mut extent = overwritten(4);
    let scanned = extent.scan();
    assert_eq!((scanned.end, scanned.found), (extent.end(), FrameCondition::Leftover));
    assert_eq!((scanned.decision, scanned.misdirected), (Decision::Truncate { seal: true }, false));
    assert_eq!((scanned.frames, scanned.last_epoch), (10, Some(LeaderEpoch(3))));
    // Also when the frame before it is in another extent.
    let mut extent = rounds();
    let mut expect = extent.expect();
    expect.epoch = Some(LeaderEpoch(2));
    let scanned = extent.scan_with(&expect);
    assert_eq!((scanned.frames, scanned.found), (0, FrameCondition::Leftover));
}

#[test]
fn leftovers_prove_nothing_of_a_torn_frame_of_a_later_epoch() {
    let mut extent = overwritten(4);
    let last = extent.starts.len() - 1;
    let torn = extent.starts[last];
    extent.bytes[torn + 100] ^= 1;
    let scanned = extent.scan();
    assert_eq!((scanned.end.position as usize, scanned.found), (torn, FrameCondition::Bad));
    assert_eq!((scanned.decision, scanned.gaps.len()), (Decision::Truncate { seal: false }, 0));
}

#[test]
fn frames_may_be_missing_only_where_the_extent_says_so() {
    let mut extent = rounds();
    let at = extent.at;
    extent.index += 5;
    extent.offset += 9;
    extent.batch(500, 1, 120);
    let scanned = extent.scan();
    assert_eq!((scanned.end.position as usize, scanned.found), (at, FrameCondition::Misdirected));
    let mut expect = extent.expect();
    expect.has_gaps = true;
    let scanned = extent.scan_with(&expect);
    assert_eq!((scanned.end, scanned.found, scanned.frames), (extent.end(), FrameCondition::Zero, 21));
    // Damage before a gap is damage.
    extent.bytes[at - 100] ^= 1;
    expect.durable_hint = LogIndex(126);
    let scanned = extent.scan_with(&expect);
    assert_eq!((scanned.gaps.len(), scanned.skipped.len(), scanned.frames), (1, 0, 20), "{scanned:?}");
}

#[test]
fn a_newer_version_is_never_truncated() {
    let mut extent = rounds();
    let at = extent.starts[19];
    extent.bytes[at + 6] = FRAME_VERSION + 1;
    let crc = crc32c::crc32c(&extent.bytes[at + 4..at + 64]);
    extent.bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let scanned = extent.scan();
    assert_eq!((scanned.found, scanned.decision), (FrameCondition::NewerVersion, Decision::Rot));
}

#[test]
fn damaged_padding_hides_nothing() {
    for payload_bytes in [1000, 4096 - 64 - 40] {
        let mut extent = Extent::new(MIB);
        extent.batch(payload_bytes, 1, 100);
        extent.padding(101);
        extent.batch(70_000, 1, 101);
        let padding = extent.starts[1];
        extent.bytes[padding + 9] ^= 1;
        let scanned = extent.scan();
        assert_eq!((scanned.end, scanned.decision), (extent.end(), Decision::End));
        assert_eq!(scanned.skipped.len(), 1);
        assert_eq!(
            (scanned.skipped[0].from as usize, scanned.skipped[0].to as usize),
            (padding, extent.starts[2])
        );
        // A byte of the padding itself counts as well.
        extent.bytes[padding + 9] ^= 1;
        extent.bytes[padding + 64 + 3] ^= 1;
        assert_eq!(extent.scan().skipped.len(), 1);
    }
}

#[test]
fn frames_inside_records_are_not_taken_for_frames() {
    // A batch that holds a copy of the log, torn at its end: nothing in it proves anything or comes back.
    let inner = rounds();
    let mut extent = Extent::new(MIB);
    for n in 0..5 {
        extent.batch(3000 + n, 3, 100);
    }
    extent.batch(40_000, 1, 105);
    let at = extent.starts[5];
    let copy = &inner.bytes[inner.starts[10]..inner.starts[18]];
    let place = (at + 64 + 100).next_multiple_of(8);
    extent.bytes[place..place + copy.len()].copy_from_slice(copy);
    let scanned = extent.scan();
    assert_eq!(scanned.end.position as usize, at);
    assert_eq!((scanned.found, scanned.decision), (FrameCondition::Bad, Decision::Truncate { seal: false }));
}

#[test]
fn the_start_of_a_later_extent_proves_what_an_earlier_one_lacks() {
    let mut extent = Extent::new(MIB);
    extent.index = 500;
    extent.batch(2000, 1, 480);
    extent.batch(2000, 1, 490);
    let expect = extent.expect();
    assert_eq!(proves_durable(&expect, &mut extent, LogIndex(470)), Later::Proven);
    assert_eq!(proves_durable(&expect, &mut extent, LogIndex(489)), Later::Proven);
    assert_eq!(proves_durable(&expect, &mut extent, LogIndex(490)), Later::Unproven);
    assert_eq!(proves_durable(&expect, &mut Extent::new(MIB), LogIndex(490)), Later::None);
}

#[test]
fn a_flipped_bit_anywhere_in_a_proven_log_loses_one_frame_at_most() {
    let mut extent = Extent::new(64 << 10);
    for n in 0..3 {
        extent.batch(300 + n, 2, 100 + n as u64);
    }
    extent.padding(103);
    extent.batch(5000, 1, 103);
    extent.padding(104);
    extent.batch(100, 1, 104);
    extent.batch(100, 1, 105);
    extent.epoch_start(105);
    let mut expect = extent.expect();
    expect.durable_hint = LogIndex(107);
    let whole = extent.scan_with(&expect);
    assert_eq!((whole.frames, whole.decision), (9, Decision::End));
    let end = extent.at;
    for bit in START as usize * 8..end * 8 {
        extent.bytes[bit / 8] ^= 1 << (bit % 8);
        let scanned = extent.scan_with(&expect);
        let told = scanned.gaps.len() + scanned.skipped.len();
        assert_eq!((told, scanned.frames), (1, 8), "bit {bit}: {scanned:?}");
        extent.bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_block_written_astray_costs_the_frames_in_it_and_no_others() {
    let mut extent = Extent::new(128 << 10);
    let mut frames = Vec::new();
    for n in 0..40 {
        let bytes = [300, 1500, 90, 2900, 5000][n % 5] + 8 * n;
        if n % 10 == 9 {
            extent.padding(100 + n as u64);
        }
        let from = extent.at;
        extent.batch(bytes, 1, 100 + n as u64);
        frames.push((100 + n as u64, from..extent.at));
    }
    let mut expect = extent.expect();
    expect.durable_hint = LogIndex(140);
    let whole = extent.bytes.clone();
    let blocks = extent.at / 4096 + 2;
    for to in 1..blocks {
        for from in 0..blocks {
            let (to, from) = (to * 4096, from * 4096);
            extent.bytes.copy_within(from..from + 4096, to);
            let mut seen = Vec::new();
            let scanned = scan(&expect, &mut extent, &mut |_, frame| {
                if frame.kind() == FrameKind::Batch {
                    seen.push(frame.header().index.get());
                }
            });
            assert!(seen.is_sorted_by(|a, b| a < b), "{from} to {to}: {seen:?}");
            for (index, span) in &frames {
                let hit = span.start < to + 4096 && to < span.end;
                assert!(hit || seen.contains(index), "{from} to {to}: {index} is lost; {scanned:?}");
            }
            assert_eq!(scanned.end.index.0 < 140, !seen.contains(&139), "{from} to {to}: {scanned:?}");
            extent.bytes.copy_from_slice(&whole);
        }
    }
}

#[test]
fn a_frame_that_is_searched_for_needs_the_code_of_its_place_except_in_extents_from_before_the_codes() {
    let mut extent = rounds();
    let at = extent.starts[7];
    extent.bytes[at] ^= 1;
    let found = |extent: &mut Extent| {
        let scanned = extent.scan();
        (scanned.decision, scanned.gaps.first().and_then(|gap| gap.to).map(|to| to.position))
    };
    let (codes, next) = (extent.macs, extent.starts[8] as u32);
    assert_eq!(found(&mut extent), (Decision::End, Some(next)));
    extent.macs = None;
    assert_eq!(found(&mut extent), (Decision::End, Some(next)));
    // Under another key nothing is left that could be believed, not even as a proof.
    extent.macs = StoreMacs { key: MacKey([4; 16]), since: Incarnation(1) }.of(Incarnation(INCARNATION));
    assert_eq!(found(&mut extent), (Decision::Truncate { seal: false }, None));
    // Nor is a frame that the disk wrote astray, over the one that is damaged.
    extent.macs = codes;
    let (from, to) = (extent.starts[8], extent.starts[9]);
    extent.bytes.copy_within(from..to, at);
    assert_eq!(found(&mut extent), (Decision::End, Some(next)));
}

/// The same, whatever was read for it.
fn without_reads(scanned: Scanned) -> Scanned {
    Scanned { bytes_read: 0, ..scanned }
}

#[test]
fn a_search_that_ends_at_the_write_bound_finds_what_a_search_of_the_whole_extent_finds() {
    for damaged in 0..20 {
        for is_zero in [false, true] {
            let mut extent = rounds();
            let (from, end) = (extent.starts[damaged], extent.at);
            if is_zero {
                extent.bytes[from..from + 3000].fill(0);
            } else {
                extent.bytes[from + 100] ^= 1;
            }
            let whole = extent.scan();
            for write_bound in [end as u32, end as u32 + 8, end as u32 + 5000, MIB as u32] {
                let expect = Expectation { write_bound, ..extent.expect() };
                assert_eq!(without_reads(extent.scan_with(&expect)), without_reads(whole.clone()));
            }
        }
    }
}

#[test]
fn nothing_is_read_behind_the_write_bound() {
    let mut extent = rounds();
    let end = extent.at as u32;
    let whole = extent.scan();
    assert!(whole.bytes_read > 128 << 10);
    // Frames that were in flight could be in a page that cannot be read, but not in this one.
    extent.unreadable.insert(end.next_multiple_of(4096) + 4096);
    assert_eq!(extent.scan().decision, Decision::Truncate { seal: true });
    let scanned = extent.scan_with(&Expectation { write_bound: end + 100, ..extent.expect() });
    assert_eq!((scanned.end, scanned.decision, &scanned.unreadable[..]), (whole.end, Decision::End, &[][..]));
    assert_eq!(scanned.bytes_read, u64::from((end + 100).next_multiple_of(4096) - START));
}

#[test]
fn a_write_bound_in_front_of_frames_of_the_log_is_worth_nothing() {
    let mut extent = rounds();
    let from = extent.starts[12];
    extent.bytes[from + 100] ^= 1;
    let whole = extent.scan();
    assert_eq!(whole.gaps.len(), 1);
    let write_bound = extent.starts[11] as u32;
    let scanned = extent.scan_with(&Expectation { write_bound, ..extent.expect() });
    assert_eq!(without_reads(scanned), without_reads(whole));
}

#[test]
fn frames_are_found_wherever_the_log_ends() {
    let mut extent = rounds();
    let (expect, end, last) = (extent.expect(), extent.at as u32, extent.starts[19] as u32);
    extent.bytes[START as usize..START as usize + 200].fill(0);
    assert!(has_frames_from(&expect, &mut extent, last));
    assert!(!has_frames_from(&expect, &mut extent, last + 8));
    assert!(!has_frames_from(&expect, &mut extent, end));
}

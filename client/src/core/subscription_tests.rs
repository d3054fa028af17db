//! Subscriptions that are lost, rejected, sought and damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::core::decode::{Damage, Decoder};
use crate::core::test_frames::{Log, data};
use crate::error::{FetchErrorKind, WriteOutcome};
use highwater_protocol::batch::Compression;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn core(until_end: bool) -> ConsumerCore {
    ConsumerCore::new([(0, Start::Earliest)], 1 << 20, until_end)
}

fn reply(start: i64, high_watermark: i64) -> SubscribeReply {
    SubscribeReply { start: start.into(), log_start: 0.into(), high_watermark: high_watermark.into() }
}

fn subscribe(core: &mut ConsumerCore) -> (SubscriptionKey, Start, u64) {
    core.subscribe(0).expect("a subscription is wanted")
}

fn take(core: &mut ConsumerCore) -> NextItem {
    core.take(&Waker::from(Arc::new(Count::default())))
}

/// Takes everything received and returns the offsets that the user sees.
fn offsets(core: &mut ConsumerCore) -> Vec<i64> {
    let mut offsets = Vec::new();
    while let NextItem::Chunk(chunk) = take(core) {
        let mut decoder = Decoder::new(chunk.frames, chunk.next_offset);
        loop {
            let index = &core.partitions()[chunk.origin.index];
            let decoded = decoder.step(index.position().unwrap(), index.end).unwrap();
            core.mark_delivered(chunk.origin.index, decoded.next_offset, 0);
            for part in &decoded.parts {
                let records = highwater_protocol::batch::Records::new(&part.header, &part.records);
                let records = records.map(|record| record.unwrap().offset);
                offsets.extend(records.filter(|offset| part.wants(*offset)).map(Offset::get));
            }
            if decoded.done {
                core.return_credit(chunk.origin.index, decoder.bytes());
                break;
            }
        }
    }
    offsets
}

#[test]
fn a_lost_subscription_resumes_after_the_last_frame_received() {
    let log = Log::new(&[3, 3, 3, 3], Compression::None);
    let mut core = core(false);
    let (first, start, _) = subscribe(&mut core);
    assert_eq!(start, Start::Earliest);
    core.handle_subscribed(first, &reply(0, 12));
    core.handle_data(first, &log.data(0..2));
    assert!(core.handle_lost(first));
    // Data of the old connection is ignored.
    assert!(matches!(core.handle_data(first, &log.data(2..3)), SubscriptionOutcome::Stale));
    assert!(!core.handle_lost(first));
    let (second, start, _) = subscribe(&mut core);
    assert_eq!(start, Start::Offset(Offset(6)));
    core.handle_subscribed(second, &reply(6, 12));
    // A broker may start with the frame that holds the offset, or with an earlier one.
    core.handle_data(second, &log.data(1..4));
    assert_eq!(offsets(&mut core), (0..12).collect::<Vec<_>>());
    assert_eq!(core.partitions()[0].position(), Some(Offset(12)));
}

#[test]
fn a_symbolic_start_is_requested_until_the_broker_has_resolved_it() {
    let mut core = ConsumerCore::new([(0, Start::Latest)], 1 << 20, false);
    let (first, start, _) = subscribe(&mut core);
    assert_eq!((start, core.partitions()[0].position()), (Start::Latest, None));
    core.handle_lost(first);
    let (second, start, _) = subscribe(&mut core);
    assert_eq!(start, Start::Latest);
    core.handle_subscribed(second, &reply(40, 40));
    assert_eq!(core.partitions()[0].position(), Some(Offset(40)));
    core.handle_lost(second);
    assert_eq!(subscribe(&mut core).1, Start::Offset(Offset(40)));
}

#[test]
fn credit_comes_back_as_chunks_are_taken_and_never_exceeds_the_window() {
    let log = Log::new(&[40; 200], Compression::None);
    let mut core = ConsumerCore::new([(0, Start::Earliest)], 128 << 10, false);
    let (key, _, window) = subscribe(&mut core);
    assert_eq!(window, 128 << 10);
    core.handle_subscribed(key, &reply(0, 8000));
    let (mut credit, mut returned) = (window, 0);
    for batch in 0..200 {
        let body = log.data(batch..batch + 1);
        credit -= (body.len() - DATA_PREFIX_BYTES) as u64;
        core.handle_data(key, &body);
        let NextItem::Chunk(chunk) = take(&mut core) else { panic!("it arrived") };
        if let Some(release) = core.return_credit(0, chunk.frames.len()) {
            assert_eq!(release.key, key);
            assert!(release.bytes >= window / 2, "credit is not sent in crumbs");
            returned += 1;
            credit += release.bytes;
        }
        assert!(credit <= window);
    }
    assert!(returned > 0);
    // Waiting bytes are deducted from the next subscription's credit.
    let body = log.data(0..20);
    core.handle_data(key, &body);
    core.handle_lost(key);
    let waits = body.len() - DATA_PREFIX_BYTES;
    assert_eq!(subscribe(&mut core).2, (window - waits as u64).max(CREDIT_BYTES_MIN as u64));
}

#[test]
fn after_a_seek_no_earlier_frames_are_delivered() {
    let log = Log::new(&[3, 3, 3], Compression::None);
    let mut core = core(false);
    let (first, ..) = subscribe(&mut core);
    core.handle_subscribed(first, &reply(0, 9));
    core.handle_data(first, &log.data(0..2));
    core.seek(0, Start::Offset(Offset(4)));
    assert!(matches!(core.handle_data(first, &log.data(2..3)), SubscriptionOutcome::Stale));
    assert!(matches!(take(&mut core), NextItem::Pending));
    let (second, start, _) = subscribe(&mut core);
    assert_eq!(start, Start::Offset(Offset(4)));
    core.handle_subscribed(second, &reply(4, 9));
    core.handle_data(second, &log.data(1..3));
    assert_eq!(offsets(&mut core), [4, 5, 6, 7, 8]);
}

#[test]
fn until_end_stops_at_the_end_although_more_records_arrive() {
    let log = Log::new(&[3, 3, 3], Compression::None);
    let mut core = core(true);
    let (key, ..) = subscribe(&mut core);
    core.handle_subscribed(key, &reply(0, 6));
    core.handle_data(key, &log.data(0..1));
    assert_eq!(offsets(&mut core), [0, 1, 2]);
    assert!(matches!(take(&mut core), NextItem::Pending));
    core.handle_data(key, &log.data(1..3));
    assert!(!core.wants_subscription(0));
    assert_eq!(offsets(&mut core), [3, 4, 5]);
    assert!(matches!(take(&mut core), NextItem::End));
    assert_eq!(core.partitions()[0].position(), Some(Offset(6)), "what was not delivered is not committed");
}

#[test]
fn an_empty_partition_is_immediately_at_its_end_and_wakes_the_waiter() {
    let mut core = core(true);
    let (key, ..) = subscribe(&mut core);
    let count = Arc::new(Count::default());
    assert!(matches!(core.take(&Waker::from(count.clone())), NextItem::Pending));
    core.handle_subscribed(key, &reply(0, 0));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(matches!(take(&mut core), NextItem::End));
}

#[test]
fn a_failure_stops_only_its_own_partition_until_a_seek() {
    let mut core = ConsumerCore::new([(0, Start::Earliest), (1, Start::Earliest)], 1 << 20, false);
    let (key, ..) = subscribe(&mut core);
    let rejected = core.handle_rejection(key, ErrorCode::OffsetOutOfRange, "gone".into());
    assert!(matches!(
        rejected,
        SubscriptionOutcome::Ended { code: ErrorCode::OffsetOutOfRange, position: None, .. }
    ));
    core.fail(0, FetchError::new(FetchErrorKind::OutOfRange, WriteOutcome::NotWritten, "gone"));
    assert!(matches!(take(&mut core), NextItem::Failed(_)));
    assert!(!core.wants_subscription(0) && core.wants_subscription(1));
    core.seek(0, Start::Latest);
    assert!(core.wants_subscription(0));
}

#[test]
fn every_flipped_bit_of_a_batch_frame_is_detected() {
    let log = Log::new(&[2], Compression::Lz4);
    let good = log.data(0..1).slice(DATA_PREFIX_BYTES..);
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let step = Decoder::new(bad.into(), Offset(2)).step(Offset(0), None);
        assert!(matches!(step, Err(Damage::Frame { at: 0, .. })), "bit {bit}: {step:?}");
    }
}

#[test]
fn padding_and_internal_frames_are_skipped_and_advance_the_position() {
    let mut log = Log::new(&[2], Compression::None);
    log.padding();
    log.epoch_start();
    log.batch(2, Compression::Zstd);
    log.padding();
    let mut core = core(false);
    let (key, ..) = subscribe(&mut core);
    core.handle_subscribed(key, &reply(0, 4));
    core.handle_data(key, &log.data(0..5));
    assert_eq!(offsets(&mut core), [0, 1, 2, 3]);
    core.handle_data(key, &data(&[], 9));
    assert_eq!(offsets(&mut core), [] as [i64; 0]);
    assert_eq!(core.partitions()[0].position(), Some(Offset(9)), "what compaction emptied is behind it too");
}

#[test]
fn every_codec_round_trips() {
    for codec in Compression::ALL {
        let log = Log::new(&[50, 50], *codec);
        let mut core = core(false);
        let (key, ..) = subscribe(&mut core);
        core.handle_subscribed(key, &reply(10, 100));
        core.handle_data(key, &log.data(0..2));
        assert_eq!(offsets(&mut core), (10..100).collect::<Vec<_>>(), "{codec}");
    }
}

//! Tests of a single lane, step by step.

use super::*;
use highwater_protocol::batch::{BatchView, Compression, NewRecord, stamp_producer};
use highwater_protocol::ids::Timestamp;

const LIMITS: LaneLimits = LaneLimits {
    linger: Duration::ZERO,
    in_flight_max: 5,
    delivery_timeout: Duration::from_secs(10),
    idempotent: true,
};

struct LaneHarness {
    lane: Lane,
    identity: Option<Identity>,
    now: Instant,
    next: u64,
}

impl LaneHarness {
    fn new() -> Self {
        let mut lane = Lane::new(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)));
        lane.set_routed(true);
        let identity = Some(Identity { producer: ProducerId(7), epoch: 0, generation: 1 });
        Self { lane, identity, now: Instant::now(), next: 0 }
    }

    /// Adds a closed batch with this many records.
    fn batch(&mut self, records: u32) -> u64 {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        for _ in 0..records {
            builder.append(&NewRecord::new(Timestamp(1), None, Some(b"v"))).unwrap();
        }
        let id = self.next;
        self.next += 1;
        self.lane.begin(id, Box::new(builder), self.now).records = records;
        self.lane.close_open();
        id
    }

    /// Sends one batch. Returns its id and its stamp.
    fn send(&mut self) -> Option<(u64, BatchProducer)> {
        match self.lane.next(&LIMITS, self.identity, self.now) {
            LaneAction::Send(BatchSend::Fresh { batch, mut buffer, stamp }) => {
                self.lane.set_encoded(batch, &buffer.finish(stamp).unwrap().freeze());
                Some((batch, stamp))
            }
            LaneAction::Send(BatchSend::Renumber { batch, bytes, stamp }) => {
                let mut bytes = bytes::BytesMut::from(bytes);
                stamp_producer(&mut bytes, stamp);
                self.lane.set_encoded(batch, &bytes.freeze());
                Some((batch, stamp))
            }
            LaneAction::Send(BatchSend::Retry { batch, bytes }) => {
                Some((batch, BatchView::parse(&bytes).unwrap().header().producer().unwrap()))
            }
            _ => None,
        }
    }

    fn sent(&mut self) -> Vec<(u64, i64, i32)> {
        std::iter::from_fn(|| self.send()).map(|(batch, stamp)| (batch, stamp.id.0, stamp.sequence)).collect()
    }

    fn refuse(&mut self, id: u64, code: ErrorCode) -> RejectionOutcome {
        self.lane.handle_rejection(id, code, &LIMITS, self.now, 1.0)
    }

    fn acknowledged(mut self) -> Self {
        let id = self.batch(1);
        assert_eq!(self.sent(), [(id, 7, 0)]);
        self.lane.handle_acked(id).unwrap();
        self
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
    }
}

#[test]
fn one_batch_is_in_flight_until_the_first_acknowledgement_and_five_after_it() {
    let mut harness = LaneHarness::new();
    let ids: Vec<_> = (0..8).map(|_| harness.batch(3)).collect();
    assert_eq!(harness.sent(), [(ids[0], 7, 0)]);
    harness.lane.handle_acked(ids[0]).unwrap();
    let sequences = [3, 6, 9, 12, 15];
    let expect: Vec<_> = ids[1..6].iter().zip(sequences).map(|(id, sequence)| (*id, 7, sequence)).collect();
    assert_eq!(harness.sent(), expect);
}

#[test]
fn after_a_lost_connection_all_batches_are_resent_in_order_with_the_same_sequences() {
    let mut harness = LaneHarness::new().acknowledged();
    let ids: Vec<_> = (0..3).map(|_| harness.batch(2)).collect();
    let first = harness.sent();
    for id in &ids {
        harness.lane.handle_lost(*id, true, &LIMITS);
    }
    assert!(harness.sent().is_empty(), "there is no route");
    harness.lane.set_routed(true);
    assert_eq!(harness.sent(), first);
}

#[test]
fn after_a_rejection_nothing_is_sent_until_all_answers_have_arrived() {
    let mut harness = LaneHarness::new().acknowledged();
    let ids: Vec<_> = (0..3).map(|_| harness.batch(1)).collect();
    let first = harness.sent();
    assert!(matches!(harness.refuse(ids[0], ErrorCode::Overloaded), RejectionOutcome::Retry));
    assert!(harness.sent().is_empty());
    harness.later(Duration::from_secs(1));
    for id in &ids[1..] {
        assert!(harness.sent().is_empty());
        assert!(matches!(harness.refuse(*id, ErrorCode::OutOfOrderSequence), RejectionOutcome::Retry));
    }
    assert_eq!(harness.sent(), first);
}

#[test]
fn batches_after_a_failed_one_are_sent_under_a_new_producer_id() {
    let mut harness = LaneHarness::new().acknowledged();
    let ids: Vec<_> = (0..3).map(|_| harness.batch(1)).collect();
    harness.sent();
    let failed = harness.refuse(ids[0], ErrorCode::InvalidTimestamp);
    assert!(
        matches!(failed, RejectionOutcome::Failed(batch, WriteOutcome::NotWritten) if batch.id == ids[0])
    );
    for id in &ids[1..] {
        assert!(matches!(harness.refuse(*id, ErrorCode::OutOfOrderSequence), RejectionOutcome::Retry));
    }
    assert!(matches!(harness.lane.next(&LIMITS, harness.identity, harness.now), LaneAction::Identity(1)));
    harness.identity = Some(Identity { producer: ProducerId(8), epoch: 0, generation: 2 });
    assert_eq!(harness.sent(), [(ids[1], 8, 0)]);
    harness.lane.handle_acked(ids[1]).unwrap();
    assert_eq!(harness.sent(), [(ids[2], 8, 1)]);
}

#[test]
fn batches_that_may_have_been_written_are_settled_under_the_old_producer_id() {
    let mut harness = LaneHarness::new().acknowledged();
    let ids: Vec<_> = (0..3).map(|_| harness.batch(1)).collect();
    harness.sent();
    for id in &ids {
        harness.lane.handle_lost(*id, true, &LIMITS);
    }
    // The first batch times out; whether it was written is unknown.
    let mut gone = Vec::new();
    harness.lane.sent[0].created_at -= LIMITS.delivery_timeout;
    harness.lane.handle_expired(&LIMITS, harness.now, &mut gone);
    assert!(matches!(gone[..], [(ref batch, WriteOutcome::Unknown)] if batch.id == ids[0]));
    harness.lane.set_routed(true);
    // It was written: its successor is accepted under the old id.
    assert_eq!(harness.sent(), [(ids[1], 7, 2)]);
    harness.lane.handle_acked(ids[1]).unwrap();
    assert_eq!(harness.sent(), [(ids[2], 7, 3)]);
    // The next one is out of order and is sent under a new id.
    assert!(matches!(harness.refuse(ids[2], ErrorCode::OutOfOrderSequence), RejectionOutcome::Retry));
    harness.identity = Some(Identity { producer: ProducerId(8), epoch: 0, generation: 2 });
    assert_eq!(harness.sent(), [(ids[2], 8, 0)]);
}

#[test]
fn a_batch_that_times_out_in_flight_and_is_acknowledged_later_leaves_no_gap() {
    let mut harness = LaneHarness::new().acknowledged();
    let first = harness.batch(1);
    harness.sent();
    harness.later(LIMITS.delivery_timeout);
    let mut gone = Vec::new();
    harness.lane.handle_expired(&LIMITS, harness.now, &mut gone);
    assert!(matches!(gone[..], [(ref batch, WriteOutcome::Unknown)] if batch.id == first));
    assert!(harness.lane.is_empty());
    assert!(harness.lane.handle_acked(first).is_none(), "its records were settled already");
    let second = harness.batch(1);
    assert_eq!(harness.sent(), [(second, 7, 2)]);
}

#[test]
fn a_batch_never_sent_times_out_as_not_written() {
    let mut harness = LaneHarness::new();
    harness.lane.set_routed(false);
    let id = harness.batch(1);
    harness.later(LIMITS.delivery_timeout);
    let mut gone = Vec::new();
    harness.lane.handle_expired(&LIMITS, harness.now, &mut gone);
    assert!(matches!(gone[..], [(ref batch, WriteOutcome::NotWritten)] if batch.id == id));
}

#[test]
fn a_misrouted_lane_asks_for_another_route() {
    let mut harness = LaneHarness::new().acknowledged();
    let id = harness.batch(1);
    harness.sent();
    assert!(matches!(harness.refuse(id, ErrorCode::WrongShard), RejectionOutcome::Retry));
    harness.later(Duration::from_secs(1));
    let next = harness.lane.next(&LIMITS, harness.identity, harness.now);
    assert!(matches!(next, LaneAction::Route { misrouted: true }));
    assert!(matches!(harness.lane.next(&LIMITS, harness.identity, harness.now), LaneAction::Idle));
    harness.lane.set_routed(true);
    assert_eq!(harness.sent(), [(id, 7, 1)]);
}

#[test]
fn a_lingering_batch_waits_until_it_is_due_or_flushed() {
    let limits = LaneLimits { linger: Duration::from_millis(5), ..LIMITS };
    let mut harness = LaneHarness::new();
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1), None, None)).unwrap();
    harness.lane.begin(0, Box::new(builder), harness.now).records = 1;
    let due = harness.now + limits.linger;
    assert!(
        matches!(harness.lane.next(&limits, harness.identity, harness.now), LaneAction::WakeAt(at) if at == due)
    );
    harness.lane.flush();
    assert!(matches!(
        harness.lane.next(&limits, harness.identity, harness.now),
        LaneAction::Send(BatchSend::Fresh { .. })
    ));
}

#[test]
fn no_new_batch_is_sent_while_the_broker_could_forget_an_unsettled_one() {
    let mut harness = LaneHarness::new().acknowledged();
    let ids: Vec<_> = (0..9).map(|_| harness.batch(1)).collect();
    assert_eq!(harness.sent().len(), 5);
    // The first batch is rejected temporarily; the batches after it were written by an earlier attempt.
    assert!(matches!(harness.refuse(ids[0], ErrorCode::Overloaded), RejectionOutcome::Retry));
    for id in &ids[1..5] {
        harness.lane.handle_acked(*id).unwrap();
    }
    harness.later(Duration::from_secs(1));
    assert_eq!(harness.sent(), [(ids[0], 7, 1)], "four behind it count although they are acknowledged");
    harness.lane.handle_acked(ids[0]).unwrap();
    assert_eq!(harness.sent().len(), 4);
}

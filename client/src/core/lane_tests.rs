//! One lane, step by step.

use super::*;
use highwater_protocol::batch::{BatchView, Compression, NewRecord, stamp_producer};
use highwater_protocol::ids::Timestamp;

const LIMITS: LaneLimits = LaneLimits {
    linger: Duration::ZERO,
    in_flight_max: 5,
    delivery_timeout: Duration::from_secs(10),
    idempotent: true,
};

struct Bench {
    lane: Lane,
    identity: Option<Identity>,
    now: Instant,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let mut lane = Lane::new(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)));
        lane.set_routed(true);
        let identity = Some(Identity { producer: ProducerId(7), epoch: 0, generation: 1 });
        Self { lane, identity, now: Instant::now(), next: 0 }
    }

    /// A batch of this many records, closed.
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

    /// Sends one batch: its id and the stamp it travels with.
    fn send(&mut self) -> Option<(u64, BatchProducer)> {
        match self.lane.next(&LIMITS, self.identity, self.now) {
            Next::Send(Send::Fresh { batch, mut buffer, stamp }) => {
                self.lane.encoded(batch, &buffer.finish(stamp).unwrap().freeze());
                Some((batch, stamp))
            }
            Next::Send(Send::Renumber { batch, bytes, stamp }) => {
                let mut bytes = bytes::BytesMut::from(bytes);
                stamp_producer(&mut bytes, stamp);
                self.lane.encoded(batch, &bytes.freeze());
                Some((batch, stamp))
            }
            Next::Send(Send::Again { batch, bytes }) => {
                Some((batch, BatchView::parse(&bytes).unwrap().header().producer().unwrap()))
            }
            _ => None,
        }
    }

    fn sent(&mut self) -> Vec<(u64, i64, i32)> {
        std::iter::from_fn(|| self.send()).map(|(batch, stamp)| (batch, stamp.id.0, stamp.sequence)).collect()
    }

    fn refuse(&mut self, id: u64, code: ErrorCode) -> Refused {
        self.lane.handle_refused(id, code, &LIMITS, self.now, 1.0)
    }

    fn proven(mut self) -> Self {
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
    let mut bench = Bench::new();
    let ids: Vec<_> = (0..8).map(|_| bench.batch(3)).collect();
    assert_eq!(bench.sent(), [(ids[0], 7, 0)]);
    bench.lane.handle_acked(ids[0]).unwrap();
    let sequences = [3, 6, 9, 12, 15];
    let expect: Vec<_> = ids[1..6].iter().zip(sequences).map(|(id, sequence)| (*id, 7, sequence)).collect();
    assert_eq!(bench.sent(), expect);
}

#[test]
fn after_a_lost_connection_all_go_again_in_order_with_the_same_sequences() {
    let mut bench = Bench::new().proven();
    let ids: Vec<_> = (0..3).map(|_| bench.batch(2)).collect();
    let first = bench.sent();
    for id in &ids {
        bench.lane.handle_lost(*id, true, &LIMITS);
    }
    assert!(bench.sent().is_empty(), "there is no route");
    bench.lane.set_routed(true);
    assert_eq!(bench.sent(), first);
}

#[test]
fn after_a_refusal_nothing_goes_before_all_answers_are_there() {
    let mut bench = Bench::new().proven();
    let ids: Vec<_> = (0..3).map(|_| bench.batch(1)).collect();
    let first = bench.sent();
    assert!(matches!(bench.refuse(ids[0], ErrorCode::Overloaded), Refused::Retry));
    assert!(bench.sent().is_empty());
    bench.later(Duration::from_secs(1));
    for id in &ids[1..] {
        assert!(bench.sent().is_empty());
        assert!(matches!(bench.refuse(*id, ErrorCode::OutOfOrderSequence), Refused::Retry));
    }
    assert_eq!(bench.sent(), first);
}

#[test]
fn what_follows_a_batch_that_failed_goes_under_a_new_id() {
    let mut bench = Bench::new().proven();
    let ids: Vec<_> = (0..3).map(|_| bench.batch(1)).collect();
    bench.sent();
    let failed = bench.refuse(ids[0], ErrorCode::InvalidTimestamp);
    assert!(matches!(failed, Refused::Failed(batch, Outcome::NotWritten) if batch.id == ids[0]));
    for id in &ids[1..] {
        assert!(matches!(bench.refuse(*id, ErrorCode::OutOfOrderSequence), Refused::Retry));
    }
    assert!(matches!(bench.lane.next(&LIMITS, bench.identity, bench.now), Next::Identity(1)));
    bench.identity = Some(Identity { producer: ProducerId(8), epoch: 0, generation: 2 });
    assert_eq!(bench.sent(), [(ids[1], 8, 0)]);
    bench.lane.handle_acked(ids[1]).unwrap();
    assert_eq!(bench.sent(), [(ids[2], 8, 1)]);
}

#[test]
fn what_may_have_been_written_is_settled_under_the_old_id_first() {
    let mut bench = Bench::new().proven();
    let ids: Vec<_> = (0..3).map(|_| bench.batch(1)).collect();
    bench.sent();
    for id in &ids {
        bench.lane.handle_lost(*id, true, &LIMITS);
    }
    // The first one times out; nobody knows whether it was written.
    let mut gone = Vec::new();
    bench.lane.sent[0].born -= LIMITS.delivery_timeout;
    bench.lane.handle_expired(&LIMITS, bench.now, &mut gone);
    assert!(matches!(gone[..], [(ref batch, Outcome::Unknown)] if batch.id == ids[0]));
    bench.lane.set_routed(true);
    // It was: its successor is taken under the old id.
    assert_eq!(bench.sent(), [(ids[1], 7, 2)]);
    bench.lane.handle_acked(ids[1]).unwrap();
    assert_eq!(bench.sent(), [(ids[2], 7, 3)]);
    // And the next one is out of order: it goes under a new id.
    assert!(matches!(bench.refuse(ids[2], ErrorCode::OutOfOrderSequence), Refused::Retry));
    bench.identity = Some(Identity { producer: ProducerId(8), epoch: 0, generation: 2 });
    assert_eq!(bench.sent(), [(ids[2], 8, 0)]);
}

#[test]
fn a_batch_that_times_out_in_flight_leaves_no_gap_if_it_is_acknowledged_after_all() {
    let mut bench = Bench::new().proven();
    let first = bench.batch(1);
    bench.sent();
    bench.later(LIMITS.delivery_timeout);
    let mut gone = Vec::new();
    bench.lane.handle_expired(&LIMITS, bench.now, &mut gone);
    assert!(matches!(gone[..], [(ref batch, Outcome::Unknown)] if batch.id == first));
    assert!(bench.lane.is_empty());
    assert!(bench.lane.handle_acked(first).is_none(), "its records were told already");
    let second = bench.batch(1);
    assert_eq!(bench.sent(), [(second, 7, 2)]);
}

#[test]
fn what_was_never_sent_times_out_as_not_written() {
    let mut bench = Bench::new();
    bench.lane.set_routed(false);
    let id = bench.batch(1);
    bench.later(LIMITS.delivery_timeout);
    let mut gone = Vec::new();
    bench.lane.handle_expired(&LIMITS, bench.now, &mut gone);
    assert!(matches!(gone[..], [(ref batch, Outcome::NotWritten)] if batch.id == id));
}

#[test]
fn a_misrouted_lane_asks_for_another_route() {
    let mut bench = Bench::new().proven();
    let id = bench.batch(1);
    bench.sent();
    assert!(matches!(bench.refuse(id, ErrorCode::WrongShard), Refused::Retry));
    bench.later(Duration::from_secs(1));
    let next = bench.lane.next(&LIMITS, bench.identity, bench.now);
    assert!(matches!(next, Next::Route { misrouted: true }));
    assert!(matches!(bench.lane.next(&LIMITS, bench.identity, bench.now), Next::Nothing));
    bench.lane.set_routed(true);
    assert_eq!(bench.sent(), [(id, 7, 1)]);
}

#[test]
fn a_lingering_batch_waits_until_it_is_due_or_flushed() {
    let limits = LaneLimits { linger: Duration::from_millis(5), ..LIMITS };
    let mut bench = Bench::new();
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1), None, None)).unwrap();
    bench.lane.begin(0, Box::new(builder), bench.now).records = 1;
    let due = bench.now + limits.linger;
    assert!(matches!(bench.lane.next(&limits, bench.identity, bench.now), Next::At(at) if at == due));
    bench.lane.flush();
    assert!(matches!(bench.lane.next(&limits, bench.identity, bench.now), Next::Send(Send::Fresh { .. })));
}

#[test]
fn nothing_new_is_sent_once_the_broker_would_forget_what_is_not_settled() {
    let mut bench = Bench::new().proven();
    let ids: Vec<_> = (0..9).map(|_| bench.batch(1)).collect();
    assert_eq!(bench.sent().len(), 5);
    // The first one is refused for a moment, those behind it were written by an earlier attempt.
    assert!(matches!(bench.refuse(ids[0], ErrorCode::Overloaded), Refused::Retry));
    for id in &ids[1..5] {
        bench.lane.handle_acked(*id).unwrap();
    }
    bench.later(Duration::from_secs(1));
    assert_eq!(bench.sent(), [(ids[0], 7, 1)], "four behind it count although they are acknowledged");
    bench.lane.handle_acked(ids[0]).unwrap();
    assert_eq!(bench.sent().len(), 4);
}

//! Checking batches: their records against their headers, in pieces that fit a turn.
//!
//! Most batches are checked when they come. One that takes longer waits with its connection, of which nothing else is looked at
//! meanwhile, so batches of a connection are appended in the order in which they came. At the end of every turn the checks
//! that wait go on for a bounded time: half of it those that have not taken long yet, in the order in which they came, and half those that
//! have. So what a client sends to keep the broker busy waits for its like, and not the batches of others for it.
//!
//! A check that waits may hold a decoder with its window. Only some may keep theirs; the others begin anew when it is their turn.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::batch::{
    BatchCheck, BatchError, BatchHeader, CheckedBatch, RecordRules, RejectReason, RejectedRecord,
    TimestampType, Unpacker, Work,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Timestamp;
use highwater_protocol::limits::{BATCH_BYTES_MAX, decompressed_bytes_max};
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::kafka::KafkaCheck;
use super::produce::NativeCheck;
use crate::limits::{
    CHECK_WORK_ON_ARRIVAL_MAX, CHECK_WORK_PER_TURN_MAX, CHECK_WORK_SHORT_MAX, CHECKS_OPEN_MAX, ShardLimits,
};
use crate::message::Message;
use crate::meta::configs::{TimestampSource, TopicConfig};

/// What the check of a batch found out that appending it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The largest timestamp of its records; -1 for none.
    pub max_timestamp: Timestamp,
}

/// A check of one batch that is not finished.
#[derive(Debug)]
pub(super) struct OpenCheck {
    rules: RecordRules,
    /// None if it has to begin anew.
    check: Option<Box<BatchCheck>>,
    /// Work done, since it began last.
    spent: Work,
}

/// What became of a batch's check.
pub(super) enum Verdict {
    Good(Checked),
    /// Some of the records may not be in this topic.
    Rejected(CheckedBatch, RecordRules),
    Bad(BatchError),
    /// There is more to do.
    Open(OpenCheck),
}

/// What a connection waits for whose batch is being checked.
pub(super) enum Waiting {
    Native(NativeCheck<'static>),
    Kafka(KafkaCheck<'static>),
}

/// The checks of a shard.
#[derive(Default)]
pub(super) struct Checks {
    jobs: BTreeMap<ConnId, Waiting>,
    /// Those that have not taken long, in the order in which they came.
    short: VecDeque<ConnId>,
    long: VecDeque<ConnId>,
    /// Checks that wait with what they have done so far.
    open: usize,
    /// Work done in this turn on batches that have just come.
    on_arrival: Work,
    /// For the next check.
    unpacker: Unpacker,
}

impl OpenCheck {
    pub(super) fn new(config: &TopicConfig, limits: &ShardLimits, wall_ms: i64) -> Self {
        let timestamps = match config.timestamp {
            TimestampSource::CreateTime => {
                wall_ms.saturating_sub(config.timestamp_before_max_ms)
                    ..=wall_ms.saturating_add(config.timestamp_after_max_ms)
            }
            TimestampSource::LogAppendTime => i64::MIN..=i64::MAX,
        };
        let rules = RecordRules {
            timestamps,
            keys: config.keys_required,
            trust_header: config.trusts_headers,
            decompressed_bytes_max: decompressed_bytes_max(limits.batch_bytes_max()),
        };
        Self { rules, check: None, spent: 0 }
    }

    fn is_long(&self) -> bool {
        self.spent >= CHECK_WORK_SHORT_MAX
    }
}

impl Waiting {
    /// The check that it waits for.
    fn check(&mut self) -> &mut OpenCheck {
        match self {
            Self::Native(native) => &mut native.check,
            Self::Kafka(kafka) => kafka.check(),
        }
    }
}

impl Checks {
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        self.jobs.contains_key(&conn)
    }

    /// What a batch that has just come may be checked for before the next request is looked at.
    pub(super) fn work_on_arrival(&self, at_once: Work) -> Work {
        at_once.min(CHECK_WORK_ON_ARRIVAL_MAX.saturating_sub(self.on_arrival))
    }

    pub(super) fn note_arrival(&mut self, work: Work) {
        self.on_arrival += work;
    }

    /// Goes on with a check, as far as `work` allows.
    pub(super) fn step(&mut self, open: OpenCheck, batch: &[u8], work: &mut Work) -> Verdict {
        let OpenCheck { rules, check, spent } = open;
        let (mut check, spent) = match check {
            Some(check) => (*check, spent),
            None => (BatchCheck::new(rules.clone(), std::mem::take(&mut self.unpacker)), 0),
        };
        let before = *work;
        let outcome = check.step(batch, work);
        let spent = spent + before - *work;
        let verdict = match outcome {
            Ok(None) => return Verdict::Open(OpenCheck { rules, check: Some(Box::new(check)), spent }),
            Ok(Some(checked)) if checked.rejected_count > 0 => Verdict::Rejected(checked, rules),
            Ok(Some(checked)) => Verdict::Good(Checked { max_timestamp: checked.max_timestamp }),
            Err(error) => Verdict::Bad(error),
        };
        self.unpacker = check.into_unpacker();
        verdict
    }

    /// A connection waits for a check, behind those that wait already.
    pub(super) fn wait(&mut self, conn: ConnId, waiting: Waiting) {
        self.queue(conn, waiting, false);
    }

    fn queue(&mut self, conn: ConnId, mut waiting: Waiting, is_running: bool) {
        let open = waiting.check();
        let is_long = open.is_long();
        let queue = if is_long { &mut self.long } else { &mut self.short };
        // Of those that take long only the one whose turn it is keeps its decoder.
        let may_keep = if is_long { queue.is_empty() } else { self.open < CHECKS_OPEN_MAX };
        if is_running {
            queue.push_front(conn);
        } else {
            queue.push_back(conn);
            if !may_keep {
                open.check = None;
            }
        }
        self.open += usize::from(open.check.is_some());
        self.jobs.insert(conn, waiting);
    }

    /// Takes what a connection waits for, if it waits.
    pub(super) fn take(&mut self, conn: ConnId) -> Option<Waiting> {
        let mut waiting = self.jobs.remove(&conn)?;
        self.open -= usize::from(waiting.check().check.is_some());
        Some(waiting)
    }
}

impl Shard {
    /// At the end of a turn: goes on with the checks that wait. True if some are left.
    pub(super) fn run_checks(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        self.checks.on_arrival = 0;
        if self.checks.jobs.is_empty() {
            return false;
        }
        let share =
            if self.checks.short.is_empty() { CHECK_WORK_PER_TURN_MAX } else { CHECK_WORK_PER_TURN_MAX / 2 };
        let mut long = share;
        self.run_checks_of(plane, &mut long, true);
        let mut short = CHECK_WORK_PER_TURN_MAX - (share - long);
        self.run_checks_of(plane, &mut short, false);
        !self.checks.jobs.is_empty()
    }

    fn run_checks_of(&mut self, plane: &mut dyn Plane<Message>, work: &mut Work, long: bool) {
        while *work > 0 {
            let queue = if long { &mut self.checks.long } else { &mut self.checks.short };
            let Some(conn) = queue.pop_front() else { return };
            // Its connection may be gone.
            let Some(waiting) = self.checks.take(conn) else { continue };
            let (left, is_same) = match waiting {
                Waiting::Native(native) => {
                    (self.check_native(plane, conn, native, work).map(Waiting::Native), true)
                }
                Waiting::Kafka(kafka) => {
                    let batches = kafka.batches();
                    let left = self.check_kafka(plane, kafka, work);
                    let is_same = left.as_ref().is_some_and(|left| left.batches() == batches);
                    (left.map(Waiting::Kafka), is_same)
                }
            };
            let Some(mut waiting) = left else {
                self.resume(plane, conn);
                continue;
            };
            // A batch goes on until it is done or takes long; then it is the turn of others.
            let goes_on = is_same && waiting.check().is_long() == long;
            self.checks.queue(conn, waiting, goes_on);
        }
    }

    /// A connection is gone: what it waited for is not appended.
    pub(super) fn drop_check(&mut self, conn: ConnId) {
        if let Some(Waiting::Kafka(kafka)) = self.checks.take(conn) {
            self.forget_kafka_produce(&kafka);
        }
    }
}

/// Why a batch of so many bytes is refused that the broker does not take from any topic's producers.
pub(super) fn over_limit(bytes: usize, limits: &ShardLimits) -> (ErrorCode, String) {
    let max = limits.batch_bytes_max();
    let what_to_do = if max < BATCH_BYTES_MAX {
        format!("start it with a larger --batch-bytes-max, of at most {BATCH_BYTES_MAX}")
    } else {
        "send smaller ones".to_owned()
    };
    let text = format!(
        "a batch of {bytes} bytes is over this broker's limit of {max} bytes, whatever the topic's max.message.bytes; \
         {what_to_do}"
    );
    (ErrorCode::TooLarge, text)
}

/// What is refused of a batch by its size and its header alone, so that its records need not be looked at.
pub(super) fn check_header(batch: &[u8], config: &TopicConfig) -> Result<(), (ErrorCode, String)> {
    if batch.len() > config.max_message_bytes {
        let text = format!(
            "a batch of {} bytes is over the topic's max.message.bytes of {}",
            batch.len(),
            config.max_message_bytes
        );
        return Err((ErrorCode::TooLarge, text));
    }
    let header = BatchHeader::parse(batch).map_err(|e| (e.code(), e.to_string()))?;
    if header.is_transactional() {
        let text = "the batch belongs to a transaction, and transactions are not available in this version";
        return Err((ErrorCode::InvalidBatch, text.into()));
    }
    let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
    if stamped && config.timestamp == TimestampSource::LogAppendTime {
        let text =
            "the producer has set the batch's timestamp type to LogAppendTime, which only the broker may do";
        return Err((ErrorCode::InvalidTimestamp, text.into()));
    }
    Ok(())
}

/// Why a batch is refused of which some records are.
pub(super) fn rejection(checked: &CheckedBatch, rules: &RecordRules) -> (ErrorCode, String) {
    let first = checked.rejected.first();
    let code = match first.map(|record| record.reason) {
        Some(RejectReason::Timestamp(_)) => ErrorCode::InvalidTimestamp,
        _ => ErrorCode::InvalidBatch,
    };
    let why = first.map(|record| rejected_because(record, rules)).unwrap_or_default();
    let number = first.map_or(0, |record| record.number);
    let more = match checked.rejected_count {
        0 | 1 => String::new(),
        count => format!("; {} more are refused too", count - 1),
    };
    (code, format!("record {number} of the batch: {why}{more}"))
}

/// Why a record is refused.
pub(super) fn rejected_because(record: &RejectedRecord, rules: &RecordRules) -> String {
    match record.reason {
        RejectReason::Timestamp(at) if at.0 > *rules.timestamps.end() => format!(
            "timestamp {at} is later than {}, which message.timestamp.after.max.ms allows at the broker's time",
            rules.timestamps.end()
        ),
        RejectReason::Timestamp(at) => format!(
            "timestamp {at} is earlier than {}, which message.timestamp.before.max.ms allows at the broker's time",
            rules.timestamps.start()
        ),
        _ => "it has no key, which a topic with cleanup.policy=compact needs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(spent: Work) -> Waiting {
        let check = Some(Box::new(BatchCheck::new(RecordRules::FORMAT, Unpacker::default())));
        Waiting::Native(NativeCheck::sample(OpenCheck { rules: RecordRules::FORMAT, check, spent }))
    }

    fn is_open(checks: &mut Checks, conn: ConnId) -> bool {
        checks.take(conn).is_some_and(|mut waiting| waiting.check().check.is_some())
    }

    #[test]
    fn only_some_checks_keep_their_decoders_while_they_wait_and_of_those_that_take_long_one() {
        let mut checks = Checks::default();
        let all = 3 * CHECKS_OPEN_MAX as u64;
        for conn in 0..all {
            checks.wait(ConnId(conn), open(1));
        }
        for conn in all..2 * all {
            checks.wait(ConnId(conn), open(CHECK_WORK_SHORT_MAX));
        }
        assert!(checks.short.iter().copied().eq((0..all).map(ConnId)));
        assert!(checks.long.iter().copied().eq((all..2 * all).map(ConnId)));
        assert_eq!(checks.open, CHECKS_OPEN_MAX + 1);
        let kept: Vec<_> = (0..2 * all).filter(|conn| is_open(&mut checks, ConnId(*conn))).collect();
        let expected: Vec<_> = (0..CHECKS_OPEN_MAX as u64).chain([all]).collect();
        assert_eq!(kept, expected);
        assert!(checks.open == 0 && checks.jobs.is_empty());
    }

    #[test]
    fn what_batches_may_take_when_they_come_is_bounded_for_each_and_for_a_turn() {
        let mut checks = Checks::default();
        assert_eq!(checks.work_on_arrival(500), 500);
        checks.note_arrival(CHECK_WORK_ON_ARRIVAL_MAX - 100);
        assert_eq!(checks.work_on_arrival(500), 100);
        checks.note_arrival(100);
        assert_eq!(checks.work_on_arrival(500), 0);
    }
}

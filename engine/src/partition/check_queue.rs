//! Checks batches in steps that fit a turn.
//!
//! Most batches are checked when they arrive. A check that takes longer waits in this queue. No other request of its connection is handled
//! meanwhile, so the batches of a connection are appended in the order in which they arrived. At the end of every turn the waiting checks
//! continue for a bounded time: half of it is for short checks, in the order of arrival, and half for long ones. So a batch that was made to
//! keep the broker busy only delays others of its kind.
//!
//! A waiting check may hold a decoder with its window. Checks keep their decoders while there is memory for them
//! ([`ShardLimits::decoder_bytes_max`]); the others restart when they have their turn. Only one long check runs at a time, to its end. So one
//! check always makes progress, and a batch is rejected only if its decoder alone is too large.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::batch::{Unpacker, Work};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{ConnId, ShardIndex};

use super::batch::ParsedBatch;
use super::check::{DecoderLimits, OpenCheck, Verdict};
use crate::api::RequiredAcks;
use crate::limits::{CHECK_WORK_ON_ARRIVAL_MAX, CHECK_WORK_PER_TURN_MAX, CHECKS_OPEN_MAX, ShardLimits};
use crate::meta::configs::TopicConfig;
use crate::reply_to::ReplyTo;

/// The batches of a request that have not been checked, in order. There is at least one.
#[derive(Debug)]
pub(crate) struct CheckJob<'a> {
    pub(super) conn: ConnId,
    pub(super) acks: RequiredAcks,
    pub(super) next: Unchecked<'a>,
    pub(super) rest: VecDeque<Unchecked<'a>>,
}

/// A batch that has not been checked.
#[derive(Debug)]
pub(crate) struct Unchecked<'a> {
    pub(super) tp: TopicPartition,
    /// The shard that owns the partition.
    pub(super) owner: ShardIndex,
    pub(super) reply_to: ReplyTo,
    pub(super) batch: ParsedBatch<'a>,
    pub(super) check: OpenCheck,
}

/// The checks of a shard.
pub(super) struct CheckQueue {
    limits: DecoderLimits,
    jobs: BTreeMap<ConnId, CheckJob<'static>>,
    /// Connections with short checks, in the order of arrival.
    short: VecDeque<ConnId>,
    /// Connections with long checks.
    long: VecDeque<ConnId>,
    /// Number of waiting checks that have kept their decoders, and the memory of these, in bytes.
    open: usize,
    open_bytes: usize,
    /// The part of `open_bytes` that belongs to short checks.
    short_bytes: usize,
    /// Work done in this turn on batches that have just arrived.
    on_arrival: Work,
    /// For the next check.
    unpacker: Unpacker,
}

/// The work that checks may do at the end of a turn.
#[derive(Debug)]
pub(super) struct CheckShares {
    pub(super) long: Work,
    /// What the long checks do not use is added to this.
    pub(super) short: Work,
}

impl<'a> Unchecked<'a> {
    /// Creates an unchecked batch for a partition of `owner`. The rules of its topic apply, at the broker's time `wall_ms`.
    pub(crate) fn new(
        (tp, owner): (TopicPartition, ShardIndex),
        reply_to: ReplyTo,
        batch: ParsedBatch<'a>,
        config: &TopicConfig,
        limits: &ShardLimits,
        wall_ms: i64,
    ) -> Self {
        Self { tp, owner, reply_to, batch, check: OpenCheck::new(config, limits, wall_ms) }
    }

    fn into_owned(self) -> Unchecked<'static> {
        let Self { tp, owner, reply_to, batch, check } = self;
        Unchecked { tp, owner, reply_to, batch: batch.into_owned(), check }
    }
}

impl<'a> CheckJob<'a> {
    /// Creates the job of a request with one batch.
    pub(crate) fn of_one(conn: ConnId, acks: RequiredAcks, batch: Unchecked<'a>) -> Self {
        Self { conn, acks, next: batch, rest: VecDeque::new() }
    }

    /// Creates the job of a request with these batches; `None` if there are none.
    pub(crate) fn of_many(
        conn: ConnId,
        acks: RequiredAcks,
        mut batches: VecDeque<Unchecked<'a>>,
    ) -> Option<Self> {
        let next = batches.pop_front()?;
        Some(Self { conn, acks, next, rest: batches })
    }

    /// Drops the batches. Returns who would have received their outcomes.
    pub(super) fn into_reply_to(self) -> impl Iterator<Item = ReplyTo> {
        std::iter::once(self.next).chain(self.rest).map(|batch| batch.reply_to)
    }

    pub(super) fn into_owned(self) -> CheckJob<'static> {
        let Self { conn, acks, next, rest } = self;
        let rest = rest.into_iter().map(Unchecked::into_owned).collect();
        CheckJob { conn, acks, next: next.into_owned(), rest }
    }
}

impl CheckQueue {
    /// Creates an empty queue. Its decoders may use this many bytes of memory.
    pub(super) fn new(decoder_bytes_max: usize) -> Self {
        Self {
            limits: DecoderLimits::new(decoder_bytes_max),
            jobs: BTreeMap::new(),
            short: VecDeque::new(),
            long: VecDeque::new(),
            open: 0,
            open_bytes: 0,
            short_bytes: 0,
            on_arrival: 0,
            unpacker: Unpacker::default(),
        }
    }

    /// Returns the memory of all decoders, in bytes.
    pub(super) fn decoder_bytes(&self) -> usize {
        self.open_bytes + self.unpacker.memory_bytes()
    }

    /// Returns whether a batch of this connection is being checked.
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        self.jobs.contains_key(&conn)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Returns the work that may be done on a request when it arrives, before the next one is handled: at most `at_once`.
    pub(super) fn work_on_arrival(&self, at_once: Work) -> Work {
        at_once.min(CHECK_WORK_ON_ARRIVAL_MAX.saturating_sub(self.on_arrival))
    }

    pub(super) fn note_arrival(&mut self, work: Work) {
        self.on_arrival += work;
    }

    /// Begins the checks at the end of a turn. Returns the work that they may do.
    pub(super) fn end_turn(&mut self) -> CheckShares {
        self.on_arrival = 0;
        let all = CHECK_WORK_PER_TURN_MAX;
        let long = if self.short.is_empty() { all } else { all / 2 };
        CheckShares { long, short: all - long }
    }

    /// Continues a check until `work` is used up.
    pub(super) fn step(&mut self, check: OpenCheck, batch: &ParsedBatch<'_>, work: &mut Work) -> Verdict {
        check.step(batch, &mut self.unpacker, &self.limits, work)
    }

    /// Adds the job of a request that has just arrived, after the waiting ones.
    pub(super) fn add(&mut self, job: CheckJob<'static>) {
        self.push(job, false);
    }

    /// Puts back a job after its turn. If it `continues`, it is the next one to run; otherwise it is queued after the others.
    pub(super) fn put_back(&mut self, job: CheckJob<'static>, continues: bool) {
        self.push(job, continues);
    }

    fn push(&mut self, mut job: CheckJob<'static>, continues: bool) {
        let (conn, check) = (job.conn, &mut job.next.check);
        let is_long = check.is_long();
        let queue = if is_long { &mut self.long } else { &mut self.short };
        // Only the first long check keeps its decoder.
        let may_keep = if is_long {
            queue.is_empty()
        } else {
            let bytes = self.short_bytes + check.decoder_bytes();
            self.open < CHECKS_OPEN_MAX && bytes <= self.limits.short_bytes_max
        };
        if continues {
            queue.push_front(conn);
        } else {
            queue.push_back(conn);
            if !may_keep {
                check.drop_decoder();
            }
        }
        let bytes = check.decoder_bytes();
        self.open += usize::from(check.has_decoder());
        self.open_bytes += bytes;
        self.short_bytes += if is_long { 0 } else { bytes };
        self.jobs.insert(conn, job);
    }

    /// Takes the next job with a long check, or with a short one.
    pub(super) fn pop(&mut self, long: bool) -> Option<CheckJob<'static>> {
        loop {
            let queue = if long { &mut self.long } else { &mut self.short };
            let conn = queue.pop_front()?;
            // The connection may have been closed.
            if let Some(job) = self.take(conn) {
                return Some(job);
            }
        }
    }

    /// Takes the job of a connection, if it has one.
    pub(super) fn take(&mut self, conn: ConnId) -> Option<CheckJob<'static>> {
        let job = self.jobs.remove(&conn)?;
        let check = &job.next.check;
        let bytes = check.decoder_bytes();
        self.open -= usize::from(check.has_decoder());
        self.open_bytes -= bytes;
        self.short_bytes -= if check.is_long() { 0 } else { bytes };
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::batch::Compression;

    use super::*;
    use crate::partition::append::sample_batch;

    const DECODER_BYTES_MAX: usize = 24 << 20;

    fn queue() -> CheckQueue {
        CheckQueue::new(DECODER_BYTES_MAX)
    }

    fn job(conn: u64, is_long: bool, decoder: Unpacker) -> CheckJob<'static> {
        let reply_to = ReplyTo::Native { conn: ConnId(conn), slot: None, id: 0 };
        let (tp, batch) = sample_batch();
        let next = Unchecked { tp, owner: 0, reply_to, batch, check: OpenCheck::sample(is_long, decoder) };
        CheckJob::of_one(ConnId(conn), RequiredAcks::All, next)
    }

    fn is_open(queue: &mut CheckQueue, conn: ConnId) -> bool {
        queue.take(conn).is_some_and(|job| job.next.check.has_decoder())
    }

    /// Returns a decoder whose memory is as large as its output: some 300 KiB.
    fn decoder() -> Unpacker {
        let stored = vec![7; 300 << 10];
        let mut unpacker = Unpacker::default();
        unpacker.start(Compression::None, stored.len()).expect("it begins");
        while !unpacker.is_done() {
            unpacker.fill(&stored).expect("it goes on");
        }
        let bytes = unpacker.memory_bytes();
        assert!((300 << 10..600 << 10).contains(&bytes), "{bytes}");
        unpacker
    }

    #[test]
    fn a_limited_number_of_short_checks_and_one_long_check_keep_their_decoders_while_they_wait() {
        let mut queue = queue();
        let all = 3 * CHECKS_OPEN_MAX as u64;
        for conn in 0..all {
            queue.add(job(conn, false, Unpacker::default()));
        }
        for conn in all..2 * all {
            queue.add(job(conn, true, Unpacker::default()));
        }
        assert!(queue.short.iter().copied().eq((0..all).map(ConnId)));
        assert!(queue.long.iter().copied().eq((all..2 * all).map(ConnId)));
        assert_eq!(queue.open, CHECKS_OPEN_MAX + 1);
        let kept: Vec<_> = (0..2 * all).filter(|conn| is_open(&mut queue, ConnId(*conn))).collect();
        let expected: Vec<_> = (0..CHECKS_OPEN_MAX as u64).chain([all]).collect();
        assert_eq!(kept, expected);
        assert!(queue.open == 0 && queue.jobs.is_empty());
    }

    #[test]
    fn waiting_checks_keep_their_decoders_while_there_is_memory_for_them() {
        let mut queue = queue();
        for conn in 0..CHECKS_OPEN_MAX as u64 {
            queue.add(job(conn, false, decoder()));
        }
        let max = queue.limits.short_bytes_max;
        assert_eq!(max, 2 << 20);
        let kept = queue.open;
        assert!((1..4).contains(&kept), "{kept}");
        assert!(queue.decoder_bytes() <= max && queue.decoder_bytes() == queue.short_bytes);
        queue.add(job(100, true, decoder()));
        assert_eq!(queue.open, kept + 1, "the memory for long checks is separate");
        let running = queue.pop(false).expect("the first");
        queue.put_back(running, true);
        assert_eq!(queue.open, kept + 1, "a check that continues keeps its decoder");
        for conn in (0..CHECKS_OPEN_MAX as u64).chain([100]) {
            queue.take(ConnId(conn)).expect("it waits");
        }
        assert_eq!((queue.open, queue.open_bytes, queue.short_bytes), (0, 0, 0));
    }

    #[test]
    fn work_on_arriving_batches_is_bounded_for_each_request_and_for_a_turn() {
        let mut queue = queue();
        assert_eq!(queue.work_on_arrival(500), 500);
        queue.note_arrival(CHECK_WORK_ON_ARRIVAL_MAX - 100);
        assert_eq!(queue.work_on_arrival(500), 100);
        queue.note_arrival(100);
        assert_eq!(queue.work_on_arrival(500), 0);
        queue.end_turn();
        assert_eq!(queue.work_on_arrival(500), 500);
    }
}

//! The model of a store: its operations and its promises, and whether its contents agree with them.

use std::collections::BTreeMap;
use std::rc::Rc;

use highwater_protocol::batch::{BatchHeader, BatchView};
use highwater_protocol::ids::TopicPartition;
use highwater_storage::{
    BatchFilter, Bounds, CommitRule, PartitionConfig, PartitionFinding, PartitionSlot, ProducerCheck,
    RecoveryReport, ReplicaState, Verdict,
};

use crate::node::{Node, header};

/// A batch that was appended.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) base: i64,
    pub(crate) next: i64,
    /// The broker's clock when it was appended.
    pub(crate) written_ms: i64,
    /// The batch as it must be read: with offset and epoch.
    pub(crate) batch: Rc<[u8]>,
}

/// A configuration that was appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Configuration {
    pub(crate) index: u64,
    /// Offset of the next record.
    pub(crate) offset: i64,
    pub(crate) payload: Vec<u8>,
}

/// The log of a partition.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    pub(crate) configurations: Vec<Configuration>,
    /// The states of its replica that were set. They differ.
    pub(crate) states: Vec<ReplicaState>,
    pub(crate) config: PartitionConfig,
    /// The broker's clock at the last enforcement of retention.
    pub(crate) wall_ms: i64,
    /// The log start that was requested.
    pub(crate) start_asked: i64,
    pub(crate) delete_asked: bool,
    /// The commit index that the owner has set, if it is replicated.
    pub(crate) commit_asked: i64,
    /// The parts for which a rewrite was requested, in order.
    pub(crate) rewrites: Vec<Rewrite>,
    /// The log before each truncation in this life, oldest first. A crash may restore it while nothing appended after the truncation is
    /// durable.
    pub(crate) earlier: Vec<EarlierLog>,
}

/// A part of a log that is rewritten without some of its batches.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    pub(crate) offsets: std::ops::Range<i64>,
    pub(crate) filter: DropSome,
}

/// Drops every batch whose offset has this remainder, unless it is the last one of its producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropSome {
    pub(crate) divisor: i64,
    pub(crate) rest: i64,
}

impl DropSome {
    pub(crate) fn drops(self, offset: i64) -> bool {
        offset % self.divisor == self.rest
    }
}

impl BatchFilter for DropSome {
    fn filter(&mut self, batch: &BatchView<'_>, keeps_header: bool, _: &mut Vec<u8>) -> Verdict {
        let is_dropped = self.drops(batch.header().base_offset().0) && !keeps_header;
        if is_dropped { Verdict::Drop } else { Verdict::Keep }
    }
}

/// A log before a truncation.
#[derive(Clone)]
pub(crate) struct EarlierLog {
    pub(crate) entries: Vec<Entry>,
    pub(crate) configurations: Vec<Configuration>,
    /// The offset at which it was truncated.
    pub(crate) cut: i64,
}

/// A promise about a partition.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Promise {
    pub(crate) durable: i64,
    /// Number of truncations of the log before the promise.
    pub(crate) version: usize,
    /// Another truncation was requested.
    pub(crate) truncating: bool,
    /// Number of rewrites of parts of the log by then, including a running one.
    pub(crate) rewrites: usize,
    pub(crate) start: i64,
    /// Number of states of the replica that are durable.
    pub(crate) states: usize,
    pub(crate) deleted: bool,
}

/// A promise of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ack {
    Durable(TopicPartition, i64),
    Truncating(TopicPartition),
    Rewriting(TopicPartition),
    /// The current end of the log.
    Truncated(TopicPartition, i64),
    LogStart(TopicPartition, i64),
    ReplicaState(TopicPartition),
    Deleted(TopicPartition),
}

pub(crate) type Promises = BTreeMap<TopicPartition, Promise>;

pub(crate) fn promise(promises: &mut Promises, ack: Ack) {
    match ack {
        Ack::Durable(tp, offset) => {
            let promise = promises.entry(tp).or_default();
            // An event that was queued before a truncation refers to the log after it.
            assert!(
                offset >= promise.durable || promise.truncating,
                "{tp}: the durable end goes back with a truncation only"
            );
            promise.durable = promise.durable.max(offset);
        }
        Ack::Truncating(tp) => promises.entry(tp).or_default().truncating = true,
        Ack::Rewriting(tp) => promises.entry(tp).or_default().rewrites += 1,
        Ack::Truncated(tp, offset) => {
            let promise = promises.entry(tp).or_default();
            promise.durable = promise.durable.min(offset);
            promise.version += 1;
            promise.truncating = false;
        }
        Ack::LogStart(tp, offset) => {
            let promise = promises.entry(tp).or_default();
            promise.start = promise.start.max(offset);
        }
        Ack::ReplicaState(tp) => promises.entry(tp).or_default().states += 1,
        Ack::Deleted(tp) => promises.entry(tp).or_default().deleted = true,
    }
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) logs: BTreeMap<TopicPartition, Log>,
}

impl Model {
    /// Compares the contents of a freshly opened store with its operations and promises. Returns a description of any difference.
    pub(crate) fn check(
        &self,
        node: &mut Node,
        report: &RecoveryReport,
        promises: &Promises,
    ) -> Result<(), String> {
        for (tp, finding) in &report.findings {
            if let PartitionFinding::Faulty { at, why } = finding {
                return Err(format!("{tp}: a power cut is not damage: faulty at {at}: {why}"));
            }
        }
        let found: Vec<TopicPartition> = node.store.partitions().map(|(tp, _)| tp).collect();
        if let Some(tp) = found.iter().find(|tp| !self.logs.contains_key(tp)) {
            return Err(format!("{tp} was invented"));
        }
        for (tp, log) in &self.logs {
            let promise = promises.get(tp).copied().unwrap_or_default();
            if promise.deleted || (log.delete_asked && !found.contains(tp)) {
                if found.contains(tp) {
                    return Err(format!("{tp} was deleted and is back"));
                }
                continue;
            }
            log.check(*tp, node, promise).map_err(|why| format!("{tp}: {why} ({promise:?})"))?;
        }
        Ok(())
    }

    /// Removes what a crash has lost, after the check that none of it was promised.
    pub(crate) fn adopt(&mut self, node: &mut Node) {
        let found: Vec<TopicPartition> = node.store.partitions().map(|(tp, _)| tp).collect();
        self.logs.retain(|tp, log| !log.delete_asked || found.contains(tp));
        for (tp, log) in &mut self.logs {
            let slot = node.ensure(*tp, log.config);
            log.adopt_version(*tp, node);
            let bounds = node.store.bounds(slot);
            log.entries.retain(|entry| entry.next <= bounds.append_end.0);
            log.configurations.retain(|known| known.index < bounds.append_index.0);
            let states = log.position_of(node.store.replica_state(slot)).expect("it was checked");
            log.states.truncate(states);
            log.start_asked = bounds.log_start.0;
            log.delete_asked = false;
        }
    }
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.next)
    }

    /// Returns the possible logs after a power cut, one for each truncation that a crash can undo or complete, newest first, with the minimum end
    /// of each.
    fn versions(&self, promise: Promise) -> impl Iterator<Item = (usize, Version<'_>, i64)> {
        let now = promise.version;
        let newest = (now + usize::from(promise.truncating)).min(self.earlier.len());
        (0..=newest).rev().filter_map(move |version| {
            let between = &self.earlier[version.min(now)..version.max(now)];
            let lowest_cut = between.iter().map(|earlier| earlier.cut).min().unwrap_or(i64::MAX);
            // A frame that was appended after a truncation is not durable before the truncation is.
            let is_undone = version < now && promise.durable <= lowest_cut;
            let least = promise.durable.min(lowest_cut);
            (version >= now || is_undone).then_some((version, self.version(version), least))
        })
    }

    fn version(&self, version: usize) -> Version<'_> {
        match self.earlier.get(version) {
            Some(EarlierLog { entries, configurations, .. }) => (entries, configurations),
            None => (&self.entries, &self.configurations),
        }
    }

    /// Returns how many states of the replica there were when this one was set. `None`: it never was.
    fn position_of(&self, state: Option<ReplicaState>) -> Option<usize> {
        let Some(state) = state else { return Some(0) };
        self.states.iter().position(|known| *known == state).map(|at| at + 1)
    }

    /// Returns whether a batch may be missing after this many rewrites.
    pub(crate) fn may_be_missing(&self, base: i64, rewrites: usize) -> bool {
        let mut begun = self.rewrites.iter().take(rewrites);
        begun.any(|rewrite| rewrite.offsets.contains(&base) && rewrite.filter.drops(base))
    }

    fn check(&self, tp: TopicPartition, node: &mut Node, promise: Promise) -> Result<(), String> {
        let slot = node.ensure(tp, self.config);
        let state = node.store.replica_state(slot);
        if self.position_of(state).is_none_or(|states| states < promise.states) {
            return Err(format!("the replica is in state {state:?}, and {} were durable", promise.states));
        }
        let mut first_error = None;
        for (_, version, least) in self.versions(promise) {
            match self.check_version(tp, node, version, least, promise) {
                Ok(()) => return Ok(()),
                Err(why) => first_error = first_error.or(Some(why)),
            }
        }
        Err(first_error.expect("the newest version was tried"))
    }

    /// Finds which version of the log there is after a crash.
    fn adopt_version(&mut self, tp: TopicPartition, node: &mut Node) {
        let (version, rewrites) = (self.earlier.len(), self.rewrites.len());
        let anything = Promise { version, rewrites, ..Promise::default() };
        let nothing = Promise { rewrites, ..Promise::default() };
        let found = self
            .versions(anything)
            .find(|(_, version, _)| self.check_version(tp, node, *version, 0, nothing).is_ok())
            .map(|(version, ..)| version);
        if let Some(earlier) = found.and_then(|version| self.earlier.get(version)) {
            self.entries = earlier.entries.clone();
            self.configurations = earlier.configurations.clone();
        }
        self.earlier.clear();
    }

    fn check_version(
        &self,
        tp: TopicPartition,
        node: &mut Node,
        (entries, configurations): Version<'_>,
        least_end: i64,
        Promise { start: least_start, rewrites, .. }: Promise,
    ) -> Result<(), String> {
        let slot = node.ensure(tp, self.config);
        let bounds = node.store.bounds(slot);
        let (start, end) = (bounds.log_start.0, bounds.durable_end.0);
        if bounds.faulty {
            return Err("faulty".into());
        }
        if bounds.append_end != bounds.durable_end || bounds.append_index != bounds.durable_index {
            return Err(format!("after recovery everything is durable: {bounds:?}"));
        }
        if end < least_end {
            return Err(format!("acknowledged records are lost: the log ends at {end}, not {least_end}"));
        }
        if end > 0 && !entries.iter().any(|entry| entry.next == end) {
            return Err(format!("the log ends at {end}, where no batch that was appended ends"));
        }
        if start < least_start || start > end {
            return Err(format!("the log starts at {start} and ends at {end}"));
        }
        let commit = bounds.commit.offset.0;
        if self.config.commit == CommitRule::Quorum && commit > self.commit_asked.max(start) {
            return Err(format!("committed up to {commit}, and that was never said"));
        }
        if start > self.start_asked {
            self.check_retention(start, end)?;
        }
        check_configurations(configurations, node, slot, &bounds)?;
        let read = node.read_all(slot);
        if !read.damaged.is_empty() {
            return Err(format!("damage at {:?}", read.damaged));
        }
        let wanted = entries.iter().filter(|entry| entry.next > start && entry.next <= end);
        let mut batches = read.batches.iter().peekable();
        for entry in wanted {
            match batches.next_if(|(base, _)| *base <= entry.base) {
                Some((base, batch)) if *base == entry.base && batch[..] == entry.batch[..] => {}
                Some((base, _)) if *base == entry.base => {
                    return Err(format!("offset {base} has other bytes"));
                }
                Some((base, _)) => return Err(format!("offset {}: read {base}", entry.base)),
                None if self.may_be_missing(entry.base, rewrites) => {}
                None => return Err(format!("offset {} is lost", entry.base)),
            }
        }
        if let Some((base, _)) = batches.next() {
            return Err(format!("offset {base} was read and never appended"));
        }
        check_producers(entries, node, slot, start, end)
    }

    /// Checks that retention has removed no more than it may.
    fn check_retention(&self, start: i64, end: i64) -> Result<(), String> {
        let kept: usize =
            self.entries.iter().filter(|e| e.next > start && e.next <= end).map(|e| e.batch.len() + 64).sum();
        let by_bytes = self.config.retention_bytes.is_some_and(|bytes| kept as u64 + (16 << 10) >= bytes);
        let is_counted = |e: &&Entry| e.next <= start && !self.may_be_missing(e.base, usize::MAX);
        let newest_gone = self.entries.iter().filter(is_counted).map(|e| e.written_ms).max();
        let by_time = self
            .config
            .retention_ms
            .is_some_and(|ms| newest_gone.is_none_or(|gone| gone + ms <= self.wall_ms));
        if by_bytes || by_time {
            return Ok(());
        }
        Err(format!("the log starts at {start}: nobody asked for that; {kept} bytes are left"))
    }
}

/// The batches and the configurations of a log.
type Version<'a> = (&'a [Entry], &'a [Configuration]);

/// Checks that all configurations are known, but for those of deleted frames before the last of these.
fn check_configurations(
    appended: &[Configuration],
    node: &Node,
    slot: PartitionSlot,
    bounds: &Bounds,
) -> Result<(), String> {
    let appended: Vec<&Configuration> =
        appended.iter().filter(|known| known.index < bounds.append_index.0).collect();
    let found: Vec<(u64, &[u8])> =
        node.store.configurations(slot).map(|(index, payload)| (index.0, &payload[..])).collect();
    let known: Vec<(u64, &[u8])> = appended.iter().map(|known| (known.index, &known.payload[..])).collect();
    if !known.ends_with(&found) {
        return Err(format!("the configurations are {found:?}, not {known:?}"));
    }
    let gone = known.len() - found.len();
    if gone > 0 && appended.get(gone).is_none_or(|first| first.offset > bounds.log_start.0) {
        return Err(format!("the configuration at the start of the log is lost: {found:?} of {known:?}"));
    }
    Ok(())
}

/// Checks that a retry of the last batch of any producer is deduplicated.
fn check_producers(
    entries: &[Entry],
    node: &Node,
    slot: PartitionSlot,
    start: i64,
    end: i64,
) -> Result<(), String> {
    let mut last: BTreeMap<i64, &Entry> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.next <= end) {
        last.insert(header(&entry.batch).producer_id.get(), entry);
    }
    for (producer, entry) in last {
        if producer < 0 || entry.base < start {
            continue;
        }
        let check = node.store.check_producer(slot, header(&entry.batch));
        match check {
            ProducerCheck::Duplicate { base_offset, .. } if base_offset.0 == entry.base => {}
            other => {
                return Err(format!(
                    "a retry of the batch at {} of producer {producer}: {other:?}",
                    entry.base
                ));
            }
        }
    }
    Ok(())
}

/// Returns the largest sequence of a producer in the log.
pub(crate) fn next_sequence(log: &Log, producer: i64) -> i32 {
    let of = |entry: &&Entry| header(&entry.batch).producer_id.get() == producer;
    log.entries.iter().rev().find(of).map_or(0, |entry| {
        let batch: &BatchHeader = header(&entry.batch);
        batch.base_sequence.get() + batch.last_offset_delta.get() + 1
    })
}

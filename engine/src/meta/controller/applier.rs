//! Applies committed records on this node, in their order, and publishes what they lead to.
//!
//! Each record becomes one entry of the node's state log, with what the node decides about it. Shards see a change when its entry is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_protocol::ids::{Offset, TopicId};
use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token};
use highwater_storage::state_log::{Fatal, Recovered, SNAPSHOT_BYTES_PER_TURN, Seq, StateLog};

use super::{Action, ReadyReport};
use crate::meta::record::is_old;
use crate::meta::{
    ApplyError, Change, Entry, Metadata, MetadataRoom, Node, Opened, Publish, Record, RecoverError,
    SnapshotWriter, Topic,
};
use crate::mutants::{Mutant, is_planted};

pub(super) struct Applier {
    /// This node has joined a cluster, and its metadata does not have it yet. Nothing is published before: clients would miss topics that exist.
    pub(super) awaited: Option<ReplicaId>,
    room: MetadataRoom,
    log: StateLog,
    /// The snapshot in progress.
    snapshot: Option<SnapshotWriter>,
    /// Whether the log has entries of an earlier format, which a snapshot is to replace.
    has_old_entries: bool,
    /// What all applied records lead to, durable or not.
    pub(super) metadata: Metadata,
    stores: usize,
    /// The last recovered entry if it may come from a write that failed, and the disk had no space to write it again: a power cut may undo it. It
    /// is applied once everything before it is published, and is published when it is certain.
    pub(super) doubtful: Option<Entry>,
    /// Changes since the last mark, and whether any entry was written.
    pub(super) changes: Vec<Change>,
    touched: bool,
    /// Whether all of the metadata was published once, or is about to be.
    published_all: bool,
    /// What is published when the log is durable up to a position.
    marks: VecDeque<Mark>,
    /// What was published, and is not applied by every shard.
    published: VecDeque<Point>,
    durable: Offset,
    everywhere: Offset,
    /// The version that each shard has applied.
    shards: Vec<u64>,
    pub(super) opened: Vec<Option<Opened>>,
    /// The version that every shard has to have applied before clients are served.
    pub(super) first_version: Option<u64>,
    pub(super) ready: Option<ReadyReport>,
    /// Deleted topics whose space is being freed.
    pub(super) freeing: BTreeMap<TopicId, Freeing>,
    /// Partitions of them.
    freeing_partitions: usize,
    actions: VecDeque<Action>,
}

/// Returns whether a node has registered itself with this disk.
fn is_known(metadata: &Metadata, id: ReplicaId) -> bool {
    metadata.nodes().get(&id.node).is_some_and(|node| node.replica() == id)
}

/// A version of the metadata, and the offset of the record after those that led to it.
#[derive(Clone, Copy, Debug)]
struct Point {
    version: u64,
    next_offset: Offset,
}

struct Mark {
    seq: Seq,
    point: Point,
    publish: Publish,
}

/// A deleted topic whose space is being freed.
pub(super) struct Freeing {
    /// The shards that have not freed everything yet.
    pub(super) shards: BTreeSet<ShardIndex>,
    /// Its partitions; 0 if it was deleted before the start.
    pub(super) partitions: usize,
}

/// How far this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    /// Records before this one are applied here and durable.
    pub(super) durable: Offset,
    /// Records before this one are applied by every shard.
    pub(super) everywhere: Offset,
    /// Whether the log waits for disk space.
    pub(super) is_stalled: bool,
    /// Topics and partitions whose space is being freed.
    pub(super) freeing: usize,
    pub(super) freeing_partitions: usize,
}

impl Applier {
    /// Creates the applier of a node with that many stores, from its recovered log.
    pub(super) fn new(
        node: &Node,
        has_joined: bool,
        log: StateLog,
        (recovered, stores): (&Recovered, usize),
        room: MetadataRoom,
    ) -> Result<Self, RecoverError> {
        let snapshot = recovered.snapshot.iter().map(|piece| &piece[..]);
        let (last, before) = match recovered.records.split_last() {
            Some((last, before)) if log.certain() < log.appended() => (Some(last), before),
            _ => (None, &recovered.records[..]),
        };
        let mut metadata = Metadata::recover(node.id, snapshot, before.iter().map(|payload| &payload[..]))?;
        let mut doubtful = None;
        if let Some(last) = last {
            let entry = metadata.decode(last)?;
            if entry.is_visible() {
                metadata.clone().apply(&entry)?;
                doubtful = Some(entry);
            } else {
                metadata.apply(&entry)?;
            }
        }
        let mut payloads = recovered.snapshot.iter().chain(&recovered.records);
        let has_old_entries = payloads.any(|payload| is_old(payload));
        let shards = node.shards;
        Ok(Self {
            awaited: (has_joined && !is_known(&metadata, node.replica())).then_some(node.replica()),
            room,
            log,
            snapshot: None,
            has_old_entries,
            metadata,
            doubtful,
            stores,
            changes: Vec::new(),
            touched: false,
            published_all: false,
            marks: VecDeque::new(),
            published: VecDeque::new(),
            durable: Offset(0),
            everywhere: Offset(0),
            shards: vec![0; usize::from(shards)],
            opened: (0..shards).map(|_| None).collect(),
            first_version: None,
            ready: None,
            freeing: BTreeMap::new(),
            freeing_partitions: 0,
            actions: VecDeque::new(),
        })
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            durable: self.durable,
            everywhere: self.everywhere,
            is_stalled: self.log.is_stalled(),
            freeing: self.freeing.len(),
            freeing_partitions: self.freeing_partitions,
        }
    }

    /// Returns the next action.
    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns whether all changes are durable and published, or wait for disk space.
    pub(super) fn is_idle(&self) -> bool {
        let is_published = !self.touched && self.marks.is_empty();
        (is_published || self.log.is_stalled()) && self.log.is_idle()
    }

    /// Returns the warning about too many topics and partitions.
    pub(super) fn room_warning(&self) -> Option<String> {
        self.room.warning(self.metadata.topics().len() + self.freeing.len() + self.metadata.partition_count())
    }

    /// Returns whether everything that the state log has is certain to be durable.
    pub(super) fn is_certain(&self) -> bool {
        self.doubtful.is_none() && self.log.certain() == self.log.appended()
    }

    /// Returns whether this node has joined and has nothing yet.
    pub(super) fn is_blank(&self) -> bool {
        self.awaited.is_some() && self.metadata.next_offset() == Offset(0)
    }

    /// A snapshot begins at this offset, with which this node begins.
    pub(super) fn handle_snapshot(&mut self, offset: Offset, record: Record) -> Result<(), ApplyError> {
        self.try_write(&Entry::Applied { offset: offset.0, record, stores: Vec::new() })
    }

    /// Returns whether every shard has opened its stores. Before, no record is applied.
    pub(super) fn has_opened(&self) -> bool {
        self.is_open() || self.opened.iter().all(Option::is_some)
    }

    /// Returns whether the metadata was published for the first time, or is about to be.
    pub(super) fn is_open(&self) -> bool {
        self.first_version.is_some()
    }

    /// The next record is committed. An error: it contradicts those before it.
    pub(super) fn handle_committed(&mut self, record: Record) -> Result<(), ApplyError> {
        if self.awaited.is_some() && matches!(record, Record::SnapshotBegan { .. }) {
            // The one before was not completed.
            return self.handle_snapshot(self.metadata.next_offset(), record);
        }
        let entry = self.metadata.place(record, self.stores);
        self.try_write(&entry)?;
        if self.awaited.is_some_and(|me| is_known(&self.metadata, me)) {
            self.awaited = None;
            self.open(self.log.appended());
        }
        Ok(())
    }

    /// A shard has applied all changes up to a version.
    pub(super) fn handle_applied(&mut self, shard: ShardIndex, version: u64) {
        self.shards[usize::from(shard)] = version;
        let everywhere = self.shards.iter().copied().min().unwrap_or(0);
        while let Some(point) = self.published.pop_front_if(|point| point.version <= everywhere) {
            self.everywhere = point.next_offset;
        }
        if self.first_version.is_some_and(|first| first <= everywhere)
            && let Some(report) = self.ready.take()
        {
            self.actions.push_back(Action::Ready(report));
        }
    }

    /// A shard has freed the space of these topics.
    pub(super) fn handle_gone(&mut self, shard: ShardIndex, topics: &[TopicId]) {
        for topic in topics {
            let Some(freeing) = self.freeing.get_mut(topic) else { continue };
            freeing.shards.remove(&shard);
            if freeing.shards.is_empty() {
                self.freeing_partitions -= freeing.partitions;
                self.freeing.remove(topic);
                tracing::info!(id = %topic, "space of a deleted topic freed");
                self.write(&Entry::TopicGone { id: topic.0 });
            }
        }
    }

    /// A topic is deleted: shards free its space.
    fn begin_freeing(&mut self, topic: &Topic) {
        let shards = self.shards.len() as u16;
        let holders: BTreeSet<_> = topic.local_partitions().map(|(_, store)| store.0 % shards).collect();
        if !holders.is_empty() {
            self.freeing.insert(topic.id, Freeing { shards: holders, partitions: topic.partition_count() });
            self.freeing_partitions += topic.partition_count();
        }
    }

    /// Applies an entry of this node's own and adds it to the log.
    pub(super) fn write(&mut self, entry: &Entry) {
        self.try_write(entry).expect("what a node decides for itself contradicts nothing");
    }

    fn try_write(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.before(&self.metadata, entry);
        }
        self.apply(entry)?;
        self.log.append(&entry.encode());
        Ok(())
    }

    /// Applies an entry that the log has.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if !self.is_open() {
            self.metadata.apply(entry)?;
            return Ok(());
        }
        if let Entry::Applied { record: Record::TopicDeleted { id }, .. } = entry
            && let Some(topic) = self.metadata.topic_by_id(TopicId(*id)).cloned()
        {
            self.begin_freeing(&topic);
        }
        self.changes.extend(self.metadata.apply(entry)?);
        self.touched = true;
        Ok(())
    }

    // The log.

    /// Flushes the log. Returns whether there is more to do than one turn allows.
    pub(super) fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        if std::mem::take(&mut self.touched) {
            self.mark(self.log.appended());
        }
        self.log.flush(disk);
        // A snapshot has all entries, the doubtful one too.
        let is_due = self.log.wants_snapshot() || (self.has_old_entries && self.can_upgrade());
        if self.doubtful.is_none() && is_due {
            self.has_old_entries = false;
            self.log.begin_snapshot();
            self.snapshot = Some(SnapshotWriter::new(&self.metadata));
        }
        let more = self.continue_snapshot(disk);
        self.publish_durable();
        more
    }

    /// Returns whether entries of an earlier format can be replaced now: clients do not wait for that, so it begins after they are served.
    fn can_upgrade(&self) -> bool {
        let is_serving = self.first_version.is_some() && self.ready.is_none();
        is_serving && self.snapshot.is_none() && !self.log.is_rotating()
    }

    /// Writes the next piece of the snapshot in progress. Returns whether more follow.
    fn continue_snapshot(&mut self, disk: &mut dyn Disk) -> bool {
        let Some(snapshot) = &mut self.snapshot else { return false };
        if let Some(piece) = snapshot.next_piece(&self.metadata, SNAPSHOT_BYTES_PER_TURN) {
            self.log.add_to_snapshot(&piece);
            return true;
        }
        self.snapshot = None;
        self.log.end_snapshot(disk);
        false
    }

    /// Returns up to where the log is certain to be durable.
    pub(super) fn certain(&self) -> Seq {
        self.log.certain()
    }

    /// Marks a position of the log: the changes since the last mark are published when everything up to it is certain to be durable.
    pub(super) fn mark(&mut self, seq: Seq) {
        // All of it once; after that, the cost is in proportion to the changes.
        let first = !std::mem::replace(&mut self.published_all, true);
        let version = self.metadata.version();
        self.marks.push_back(Mark {
            seq,
            point: Point { version, next_offset: self.metadata.next_offset() },
            publish: Publish {
                first: first.then(|| Arc::new(self.metadata.clone())),
                version,
                changes: std::mem::take(&mut self.changes).into(),
            },
        });
    }

    fn publish_durable(&mut self) {
        let is_early = is_planted(Mutant::ChangePublishedBeforeDurable);
        let durable = if is_early { self.log.appended() } else { self.log.certain() };
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.seq <= durable) {
            self.durable = mark.point.next_offset;
            self.published.push_back(mark.point);
            self.actions.push_back(Action::Publish(mark.publish));
        }
    }

    /// Handles the end of a disk operation of the log.
    pub(super) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.log.on_disk(disk, token, completion)?;
        self.publish_durable();
        Ok(())
    }

    /// Retries writes for which the disk had no space.
    pub(super) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        self.log.retry_stalled(disk);
    }
}

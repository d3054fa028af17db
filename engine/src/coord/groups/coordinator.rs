//! The state of all groups: dispatches requests to them, and holds replies until their records are durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use highwater_protocol::ids::TopicId;

use super::batches::GroupBatch;
use super::classic::ClassicGroup;
use super::consumer::ConsumerGroup;
use super::deferred::Deferred;
use super::deleting::StaleOffsets;
use super::describe::Protocol;
use super::effects::{Context, WaitFor};
use super::error::GroupError;
use super::keyed::Written;
use super::limits::{GROUPS_MAX, GroupConfig, LONG_ITEMS_PER_TURN_MAX, WORK_PER_TURN_MAX};
use super::long::Long;
use super::offsets::GroupOffsets;
use super::record::Record;
use super::reply::GroupReply;
use super::request::{GroupRequest, Now, Token};
use super::topics::Topics;
use crate::counters::{GroupUsage, PerTurn};
use crate::mutants::{Mutant, is_planted};

/// The groups of a coordinator. See the module's doc.
#[derive(Debug)]
pub struct GroupCoordinator {
    pub(super) config: GroupConfig,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) topics: Topics,
    /// Requests that wait for a later turn, or until their regular expressions have been matched.
    pub(super) deferred: VecDeque<Deferred>,
    /// Remaining work of this turn, in the units of [`WORK_PER_TURN_MAX`].
    pub(super) work: usize,
    /// Groups whose assignments are being computed, round-robin.
    pub(super) assigning: VecDeque<String>,
    /// Work on members per turn, for [`Self::busiest_turn_work`].
    pub(super) work_done: PerTurn,
    /// Requests that are handled in slices, round-robin.
    pub(super) long: VecDeque<Long>,
    /// Remaining items of this turn for these requests.
    pub(super) long_items: usize,
    /// The groups with offsets in each topic.
    holders: BTreeMap<TopicId, BTreeSet<String>>,
    /// The alarms of groups by time; at most one for each group.
    alarms: BTreeSet<(u64, String)>,
    pub(super) cleanup_at: u64,
    /// Approximate bytes of all offsets in a snapshot, and of all members.
    pub(super) offsets_bytes: usize,
    pub(super) members_bytes: usize,
    /// Resource usage of other coordinators' groups.
    pub(super) other_usage: GroupUsage,
    /// Whether the log has no disk space.
    pub(super) stalled: bool,
    /// Whether it writes keys and values instead of payloads of a state log.
    pub(super) is_keyed: bool,
    pub(super) appended: u64,
    durable: u64,
    records: VecDeque<(u64, Vec<u8>)>,
    pub(super) batches: VecDeque<(u64, GroupBatch)>,
    /// Offsets in deleted topics that need tombstones.
    ///
    /// Invariant: if it is not empty, `long` has a [`Long::WriteTombstones`].
    pub(super) stale: VecDeque<StaleOffsets>,
    /// Replies by the record they wait for and by their creation order.
    pub(super) waiting: BTreeMap<(u64, u64), (Token, GroupReply)>,
    pub(super) ready: VecDeque<(Token, GroupReply)>,
    replies: u64,
}

/// A group: its members, and its offsets.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) offsets: GroupOffsets,
    alarm: Option<u64>,
    /// Approximate bytes of the members.
    pub(super) bytes: usize,
    /// Sequence numbers of the last records about members and about offsets.
    pub(super) members_seq: u64,
    pub(super) offsets_seq: u64,
}

#[derive(Debug)]
pub(super) enum Kind {
    Classic(Box<ClassicGroup>),
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, offsets: GroupOffsets::default(), alarm: None, bytes: 0, members_seq: 0, offsets_seq: 0 }
    }

    pub(super) fn classic(name: &str, now: Now) -> Self {
        Self::new(Kind::Classic(Box::new(ClassicGroup::new(name, now.wall_ms))))
    }

    pub(super) fn as_consumer(&self) -> Option<&ConsumerGroup> {
        match &self.kind {
            Kind::Classic(_) => None,
            Kind::Consumer(group) => Some(group),
        }
    }

    /// Returns whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Classic(group) => group.is_empty(),
            Kind::Consumer(group) => group.is_empty(),
        }
    }

    /// Returns the kind of records that the log has of it.
    pub(super) fn written(&self) -> Written {
        match &self.kind {
            Kind::Classic(group) if group.persisted().is_none() => Written::OffsetsOnly,
            Kind::Classic(_) => Written::Classic,
            Kind::Consumer(_) => Written::Consumer,
        }
    }

    /// Returns the sequence number of the last record about it.
    pub(super) fn last_seq(&self) -> u64 {
        self.members_seq.max(self.offsets_seq)
    }

    /// Returns whether it can be dropped without a record: it has no members and no offsets, and the log has nothing of it.
    fn is_discardable(&self) -> bool {
        let is_unwritten = match &self.kind {
            Kind::Classic(group) => group.is_deserted() && group.persisted().is_none(),
            Kind::Consumer(_) => false,
        };
        is_unwritten && self.offsets.is_empty()
    }

    pub(super) fn measure(&self) -> usize {
        match &self.kind {
            Kind::Classic(group) => group.bytes(),
            Kind::Consumer(group) => group.bytes(),
        }
    }

    fn next_alarm(&self) -> Option<u64> {
        match &self.kind {
            Kind::Classic(group) => group.alarm(),
            Kind::Consumer(group) => group.alarm(),
        }
    }
}

impl GroupCoordinator {
    /// Creates a coordinator without groups that writes keys and values ([`Self::poll_batch`]).
    pub fn keyed(config: GroupConfig, now: Now) -> Self {
        Self { is_keyed: true, ..Self::new(config, now) }
    }

    /// Creates a coordinator without groups that writes payloads of a state log ([`Self::poll_record`]).
    pub fn new(config: GroupConfig, now: Now) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            topics: Topics::default(),
            deferred: VecDeque::new(),
            work: WORK_PER_TURN_MAX,
            assigning: VecDeque::new(),
            work_done: PerTurn::default(),
            long: VecDeque::new(),
            long_items: LONG_ITEMS_PER_TURN_MAX,
            holders: BTreeMap::new(),
            alarms: BTreeSet::new(),
            cleanup_at: now.ms + config.cleanup_interval_ms,
            offsets_bytes: 0,
            members_bytes: 0,
            other_usage: GroupUsage::default(),
            stalled: false,
            is_keyed: false,
            appended: 0,
            durable: 0,
            records: VecDeque::new(),
            batches: VecDeque::new(),
            stale: VecDeque::new(),
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            replies: 0,
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// Returns the resource usage of its groups.
    pub fn usage(&self) -> GroupUsage {
        GroupUsage {
            groups: self.groups.len(),
            offsets_bytes: self.offsets_bytes,
            members_bytes: self.members_bytes,
        }
    }

    /// Sets the resource usage of other coordinators' groups. Limits apply to the groups of all coordinators together.
    pub fn handle_other_usage(&mut self, others: GroupUsage) {
        self.other_usage = others;
    }

    /// Returns the most work on members done in one turn so far, in the units of [`WORK_PER_TURN_MAX`].
    pub fn busiest_turn_work(&self) -> usize {
        self.work_done.most()
    }

    /// Executes a request whose regular expressions have been matched.
    pub(super) fn execute(&mut self, now: Now, token: Token, request: GroupRequest, random: [u8; 16]) {
        let id = uuid::Builder::from_random_bytes(random).into_uuid();
        let (request, bytes_max) = match request {
            GroupRequest::Within { request, bytes_max } => (*request, bytes_max),
            request => (request, usize::MAX),
        };
        match request {
            GroupRequest::Join(request) => self.join(now, token, request, id),
            GroupRequest::Sync(request) => self.sync(now, token, request),
            GroupRequest::Heartbeat(request) => self.heartbeat(now, token, &request),
            GroupRequest::Leave(request) => self.leave(now, token, request),
            GroupRequest::Commit(request) => self.commit(now, token, request),
            GroupRequest::Fetch(requests) => self.fetch(now, token, requests, bytes_max),
            GroupRequest::DeleteOffsets(request) => self.delete_offsets(now, token, request),
            GroupRequest::List(request) => self.list(now, token, request, bytes_max),
            GroupRequest::Describe(groups) => self.describe(now, token, Protocol::Classic, groups, bytes_max),
            GroupRequest::Delete(groups) => self.delete(now, token, groups),
            GroupRequest::ConsumerHeartbeat(request) => self.consumer_heartbeat(now, token, &request, id),
            GroupRequest::ConsumerDescribe(groups) => {
                self.describe(now, token, Protocol::Consumer, groups, bytes_max);
            }
            GroupRequest::DescribeOne(name) => {
                let is_classic = self.groups.get(&name).is_some_and(|g| matches!(g.kind, Kind::Classic(_)));
                let protocol = if is_classic { Protocol::Classic } else { Protocol::Consumer };
                self.describe(now, token, protocol, vec![name], bytes_max);
            }
            // Limits are not nested.
            GroupRequest::Within { request, .. } => self.execute(now, token, *request, random),
        }
    }

    /// Returns the next record to write, with its sequence number. Sequence numbers begin with 1 and have no gaps.
    pub fn poll_record(&mut self) -> Option<(u64, Vec<u8>)> {
        self.records.pop_front()
    }

    /// Handles durability: all records up to and including this sequence number are on stable storage.
    pub fn handle_durable(&mut self, seq: u64) {
        self.durable = self.durable.max(seq);
        while let Some(entry) = self.waiting.first_entry().filter(|e| e.key().0 <= self.durable) {
            self.ready.push_back(entry.remove());
        }
    }

    /// Returns the next reply that can be sent.
    pub fn poll_reply(&mut self) -> Option<(Token, GroupReply)> {
        self.ready.pop_front()
    }

    /// Returns when to call [`Self::handle_time`], by the clock of [`Now::ms`].
    pub fn next_deadline(&self) -> u64 {
        self.alarms.first().map_or(self.cleanup_at, |(at, _)| self.cleanup_at.min(*at))
    }

    /// Handles the alarms that are due, and begins the cleanup of expired offsets if it is due.
    pub fn handle_time(&mut self, now: Now) {
        // Each group once, so a group that sets another alarm for now does not block the others.
        let due: Vec<String> =
            self.alarms.iter().take_while(|(at, _)| *at <= now.ms).map(|(_, name)| name.clone()).collect();
        for name in due {
            self.with(now, &name, |group, cx, _| match &mut group.kind {
                Kind::Classic(group) => group.handle_time(cx),
                Kind::Consumer(group) => group.handle_time(cx),
            });
        }
        if self.cleanup_at <= now.ms {
            self.cleanup_at = now.ms + self.config.cleanup_interval_ms;
            self.clean_up(now);
        }
    }

    /// Adds a topic or increases its partitions. Groups notice the new version of the topics later.
    pub fn handle_topic(&mut self, id: TopicId, name: &str, partitions: u32) {
        self.topics.insert(id, name, partitions);
    }

    /// Removes a topic, with its offsets in all groups.
    pub fn handle_topic_deleted(&mut self, id: TopicId) {
        let topic = self.topics.name(id).map(str::to_owned);
        self.topics.remove(id);
        let Some(holders) = self.holders.remove(&id) else { return };
        if self.is_keyed {
            // The tombstones can be written later: a restart does not restore offsets of a deleted topic.
            for name in holders {
                let Some(group) = self.groups.get_mut(&name) else { continue };
                let partitions = group.offsets.partitions(id);
                self.offsets_bytes -= group.offsets.remove_topic(id, name.len());
                if let Some(topic) = &topic {
                    self.add_stale_offsets(&name, topic, partitions);
                }
            }
            return;
        }
        let seq = self.append_payload(Record::TopicDeleted(id.0).encode());
        for name in holders {
            if let Some(group) = self.groups.get_mut(&name) {
                self.offsets_bytes -= group.offsets.remove_topic(id, name.len());
                group.offsets_seq = seq;
            }
        }
    }

    /// Recomputes the bytes of all offsets and the groups of each topic. Takes time linear in the number of offsets, so only a start calls it.
    pub(super) fn measure_offsets(&mut self) {
        self.offsets_bytes = self.groups.iter().map(|(name, g)| g.offsets.bytes(name.len())).sum();
        self.holders.clear();
        for (name, group) in &self.groups {
            for topic in group.offsets.topics() {
                self.holders.entry(topic).or_default().insert(name.clone());
            }
        }
    }

    /// Returns a warning if the offsets of all groups exceed their limit, because the broker had more memory when they were committed.
    pub fn too_many_offsets(&self) -> Option<String> {
        let (bytes, max) =
            (self.offsets_bytes + self.other_usage.offsets_bytes, self.config.offsets_bytes_max);
        (bytes > max).then(|| {
            format!(
                "the offsets of all groups and consumers take {bytes} bytes, over the limit of {max} with this --memory: all of them are kept, but \
                 commits to further partitions are rejected; delete unused groups and consumers, or start the broker with a larger --memory"
            )
        })
    }

    /// Returns whether `offsets_bytes` and `holders` are correct, by recounting all offsets.
    pub(super) fn offset_accounting_is_correct(&self) -> bool {
        let bytes: usize = self.groups.iter().map(|(name, g)| g.offsets.bytes(name.len())).sum();
        let pairs: usize = self.groups.values().map(|group| group.offsets.topics().count()).sum();
        bytes == self.offsets_bytes && pairs == self.holders.values().map(BTreeSet::len).sum::<usize>()
    }

    /// Records that a group has offsets in a topic.
    pub(super) fn add_holder(&mut self, topic: TopicId, group: &str) {
        let holders = self.holders.entry(topic).or_default();
        if !holders.contains(group) {
            holders.insert(group.to_owned());
        }
    }

    /// Records that a group no longer has offsets in a topic.
    pub(super) fn remove_holder(&mut self, topic: TopicId, group: &str) {
        if let Some(holders) = self.holders.get_mut(&topic) {
            holders.remove(group);
            if holders.is_empty() {
                self.holders.remove(&topic);
            }
        }
    }

    /// Returns whether one more group is allowed.
    pub(super) fn has_space(&self) -> bool {
        self.groups.len() + self.other_usage.groups < GROUPS_MAX
    }

    /// Runs `work` on an existing group. Then queues its records and replies, updates the accounting and its alarm, and drops the group if it is
    /// discardable.
    pub(super) fn with<R>(
        &mut self,
        now: Now,
        name: &str,
        work: impl FnOnce(&mut Group, &mut Context<'_>, &Topics) -> R,
    ) -> R {
        let group = self.groups.get_mut(name).expect("the caller checks that the group exists");
        let mut written = group.written();
        let mut cx = Context::new(now, &self.config);
        let result = work(group, &mut cx, &self.topics);
        let Context { records, replies, resized, spent, begins_assigning, .. } = cx;
        self.work = self.work.saturating_sub(spent);
        self.work_done.add(spent);
        if begins_assigning {
            self.assigning.push_back(name.to_owned());
        }
        for record in records {
            let seq = self.append(&record, written);
            written = record.written().unwrap_or(written);
            let group = self.groups.get_mut(name).expect("as above");
            match record {
                Record::Commits(_) | Record::OffsetsDeleted(..) => group.offsets_seq = seq,
                _ => group.members_seq = seq,
            }
        }
        let group = self.groups.get_mut(name).expect("as above");
        if resized {
            let bytes = group.measure();
            self.members_bytes = self.members_bytes - group.bytes + bytes;
            group.bytes = bytes;
        }
        let (members, offsets) = (group.members_seq, group.offsets_seq);
        let alarm = group.next_alarm();
        let before = std::mem::replace(&mut group.alarm, alarm);
        if before != alarm {
            before.map(|at| self.alarms.remove(&(at, name.to_owned())));
            alarm.map(|at| self.alarms.insert((at, name.to_owned())));
        }
        let is_discardable = group.is_discardable();
        for (token, reply, wait_for) in replies {
            let seq = match wait_for {
                WaitFor::Members => members,
                WaitFor::AllRecords => members.max(offsets),
            };
            self.reply(seq, token, reply);
        }
        if is_discardable {
            self.remove(name);
        }
        result
    }

    /// Sends a reply once all records up to `seq` are durable. While the log is stalled, sends an error at once instead of waiting.
    pub(super) fn reply(&mut self, seq: u64, token: Token, reply: GroupReply) {
        if seq <= self.durable || is_planted(Mutant::ReplyBeforeRecordDurable) {
            self.ready.push_back((token, reply));
        } else if self.stalled {
            self.ready.push_back((token, reply.rejected(GroupError::CoordinatorNotAvailable)));
        } else {
            self.replies += 1;
            self.waiting.insert((seq, self.replies), (token, reply));
        }
    }

    /// Sends a reply at once. It must not report anything that a crash could lose.
    pub(super) fn reply_now(&mut self, token: Token, reply: GroupReply) {
        self.reply(0, token, reply);
    }

    /// Returns the sequence number of the last record.
    pub(super) fn last_record(&self) -> u64 {
        self.appended
    }

    /// Sends a reply once all records so far are durable.
    pub(super) fn reply_after_all(&mut self, token: Token, reply: GroupReply) {
        self.reply(self.appended, token, reply);
    }

    pub(super) fn append_payload(&mut self, payload: Vec<u8>) -> u64 {
        self.appended += 1;
        self.records.push_back((self.appended, payload));
        self.appended
    }

    /// Removes groups for which `is_gone` returns true from memory, of at most `count_max` groups after `after`. Returns the last one that was looked at, if there
    /// are more. Writes no record.
    pub fn forget_some(
        &mut self,
        after: &str,
        count_max: usize,
        is_gone: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let rest = self.groups.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let names: Vec<String> = rest.take(count_max).map(|(name, _)| name.clone()).collect();
        for name in names.iter().filter(|name| is_gone(name)) {
            self.remove(name);
        }
        names.into_iter().nth(count_max.saturating_sub(1))
    }

    /// Removes a group from memory. Writes no record.
    pub(super) fn remove(&mut self, name: &str) -> Option<Group> {
        let group = self.groups.remove(name)?;
        if let Some(at) = group.alarm {
            self.alarms.remove(&(at, name.to_owned()));
        }
        self.members_bytes -= group.bytes;
        self.offsets_bytes -= group.offsets.bytes(name.len());
        for topic in group.offsets.topics() {
            self.remove_holder(topic, name);
        }
        Some(group)
    }
}

//! Recovery of groups from their records.

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::classic::ClassicGroup;
use super::consumer::ConsumerGroup;
use super::coordinator::{Group, GroupCoordinator, Kind};
use super::keyed::{Replay, Replayed};
use super::limits::GroupConfig;
use super::record::{CommitsRecord, GroupsError, Record};
use super::request::Now;

impl GroupCoordinator {
    /// Creates a coordinator from the pieces of a snapshot and the records after it. Members' sessions begin with [`Self::resume`].
    pub fn recover<'a>(
        config: GroupConfig,
        now: Now,
        snapshot: impl IntoIterator<Item = &'a [u8]>,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, GroupsError> {
        let mut coordinator = Self::new(config, now);
        for payload in snapshot.into_iter().chain(payloads) {
            for record in Record::decode(payload)? {
                coordinator.apply(now, record);
            }
        }
        coordinator.measure_offsets();
        for group in coordinator.groups.values_mut() {
            group.bytes = group.measure();
            coordinator.members_bytes += group.bytes;
        }
        Ok(coordinator)
    }

    /// Restores the next group of `replay` and returns its name. Call it after all records have been read and all topics are known, until there is none.
    /// Members' sessions begin with [`Self::resume`] or [`Self::resume_group`].
    pub fn restore_next(&mut self, now: Now, replay: &mut Replay) -> Option<String> {
        let replayed = replay.pop_group(now, &self.topics)?;
        let name = replayed.group.clone();
        self.restore(now, replayed);
        Some(name)
    }

    pub(super) fn restore(&mut self, now: Now, replayed: Replayed) {
        let Replayed { group: name, records, stale } = replayed;
        for (topic, partitions) in stale {
            self.add_stale_offsets(&name, &topic, partitions);
        }
        for record in records {
            self.apply(now, record);
        }
        let Some(group) = self.groups.get_mut(&name) else { return };
        group.bytes = group.measure();
        self.members_bytes += group.bytes;
        self.offsets_bytes += group.offsets.bytes(name.len());
        let topics: Vec<TopicId> = group.offsets.topics().collect();
        for topic in topics {
            self.add_holder(topic, &name);
        }
    }

    /// Treats all recovered state as `records` records that are not durable, because the disk had no space for the last one.
    pub fn count_recovered_as_written(&mut self, records: u64) {
        self.appended = records;
        for group in self.groups.values_mut() {
            (group.members_seq, group.offsets_seq) = (records, records);
        }
    }

    /// Starts the session timeouts of all members. Call it when the broker begins to serve.
    pub fn resume(&mut self, now: Now) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            self.resume_group(now, &name);
        }
    }

    /// Starts the session timeouts of a group's members.
    pub fn resume_group(&mut self, now: Now, name: &str) {
        if self.groups.contains_key(name) {
            self.with(now, name, |group, cx, _| match &mut group.kind {
                Kind::Classic(group) => group.resume(cx),
                Kind::Consumer(group) => group.resume(cx),
            });
        }
    }

    pub(super) fn apply(&mut self, now: Now, record: Record) {
        match record {
            Record::Commits(commits) => self.apply_commits(now, commits),
            Record::TopicDeleted(topic) => {
                for group in self.groups.values_mut() {
                    group.offsets.remove_topic(TopicId(topic), 0);
                }
            }
            Record::OffsetsDeleted(name, topic, partitions) => {
                if let Some(group) = self.groups.get_mut(&name) {
                    let partitions: Vec<_> = partitions.into_iter().map(PartitionIndex).collect();
                    group.offsets.remove(TopicId(topic), &partitions, 0);
                }
            }
            Record::Classic(record) => {
                let name = record.group.clone();
                self.set_kind(name, Kind::Classic(Box::new(ClassicGroup::restore(record))));
            }
            Record::Consumer(record) => {
                let name = record.group.clone();
                let has_kind = self.groups.get(&name).is_some_and(|g| matches!(g.kind, Kind::Consumer(_)));
                if !has_kind {
                    self.set_kind(name.clone(), Kind::Consumer(Box::new(ConsumerGroup::new(&name))));
                }
                if let Some(Kind::Consumer(group)) = self.groups.get_mut(&name).map(|g| &mut g.kind) {
                    group.apply(now, record);
                }
            }
            Record::GroupDeleted(name) => {
                self.groups.remove(&name);
            }
            Record::Snapshot(snapshot) => {
                snapshot.commits.into_iter().for_each(|commits| self.apply_commits(now, commits));
                snapshot.classic.into_iter().for_each(|record| self.apply(now, Record::Classic(record)));
                snapshot.consumer.into_iter().for_each(|record| self.apply(now, Record::Consumer(record)));
            }
        }
    }

    fn apply_commits(&mut self, now: Now, commits: CommitsRecord) {
        let name = commits.group.clone();
        let group = self.groups.entry(name).or_insert_with_key(|name| Group::classic(name, now));
        group.offsets.take(commits);
    }

    fn set_kind(&mut self, name: String, kind: Kind) {
        match self.groups.get_mut(&name) {
            Some(group) => group.kind = kind,
            None => {
                self.groups.insert(name, Group::new(kind));
            }
        }
    }
}

//! The start: publishes what was recovered once every shard has opened its stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, TopicId, TopicPartition};
use highwater_protocol::text::with_topic_names;
use highwater_runtime::plane::ShardIndex;
use highwater_storage::state_log::Seq;

use super::ReadyReport;
use super::applier::{Applier, Freeing};
use crate::meta::{Change, Entry, Opened};

impl Applier {
    /// Returns whether there is a topic with this id, or may be one.
    fn may_know(&self, topic: TopicId) -> bool {
        let is_doubtful = self.doubtful.as_ref().and_then(Entry::topic) == Some(topic);
        is_doubtful || self.metadata.topic_by_id(topic).is_some()
    }

    /// A shard has opened its stores. When all have, the metadata is published for the first time; if this node has just joined, when it has received it.
    pub(super) fn handle_opened(&mut self, shard: ShardIndex, opened: Opened) {
        self.opened[usize::from(shard)] = Some(opened);
        if self.has_opened() && self.awaited.is_none() {
            // What was recovered is durable, and a full disk may have no space for a record.
            self.open(self.certain());
        }
    }

    /// Publishes the metadata for the first time, as soon as this node's state log is durable up to here.
    pub(super) fn open(&mut self, seq: Seq) {
        let mut report = ReadyReport {
            topics: self.metadata.topics().len(),
            partitions: self.metadata.partition_count(),
            warnings: Vec::new(),
        };
        let mut holders: BTreeMap<TopicId, BTreeSet<ShardIndex>> = BTreeMap::new();
        let mut epochs = Vec::new();
        let all: Vec<_> = self.opened.iter_mut().filter_map(Option::take).collect();
        for (shard, opened) in all.into_iter().enumerate() {
            for topic in opened.topics {
                holders.entry(topic).or_default().insert(shard as ShardIndex);
            }
            epochs.extend(opened.epochs.into_iter().filter(|(tp, _)| self.may_know(tp.topic)));
            let name_of = |id| self.metadata.topic_by_id(id).map(|topic| topic.name.clone());
            report.warnings.extend(opened.warnings.iter().map(|warning| with_topic_names(warning, name_of)));
        }
        // What is learned of a topic that is not known yet has to wait.
        let is_known =
            |(tp, _): &(TopicPartition, LeaderEpoch)| self.metadata.topic_by_id(tp.topic).is_some();
        let (known, later): (Vec<_>, Vec<_>) = epochs.into_iter().partition(is_known);
        for (tp, epoch) in known {
            self.metadata.learn_epoch(tp, epoch);
        }
        let deleting: Vec<TopicId> = self.metadata.deleting().keys().copied().collect();
        self.changes = self.metadata.topics().map(|t| Change::Topic(Arc::clone(t))).collect();
        let mut gone = Vec::new();
        for topic in deleting {
            match holders.remove(&topic) {
                Some(shards) => {
                    self.freeing.insert(topic, Freeing { shards, partitions: 0 });
                    self.changes.push(Change::Deleted(topic));
                }
                None => gone.push(topic),
            }
        }
        for topic in holders.into_keys().filter(|t| !self.may_know(*t)) {
            report.warnings.push(format!(
                "partitions of topic {topic} rest on disk and the metadata does not know it; they are kept and not served"
            ));
        }
        report.warnings.extend(self.room_warning());
        self.first_version = Some(self.metadata.version());
        self.ready = Some(report);
        // Before any other entry is written.
        self.mark(seq);
        self.apply_doubtful();
        for (tp, epoch) in later {
            self.metadata.learn_epoch(tp, epoch);
        }
        for topic in gone {
            self.write(&Entry::TopicGone { id: topic.0 });
        }
    }

    /// Everything that is certain is about to be published: the last record follows when it is certain too.
    fn apply_doubtful(&mut self) {
        let Some(entry) = self.doubtful.take() else { return };
        tracing::warn!(
            ?entry,
            "the last change of the metadata may not be durable; it takes effect when the disk has space to write it again"
        );
        self.apply(&entry).expect("it was tried when the log was read");
    }
}

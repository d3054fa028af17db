//! The start: publishes what was recovered once every shard has opened its stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, TopicId, TopicPartition};
use highwater_protocol::text::with_topic_names;
use highwater_runtime::plane::ShardIndex;

use super::{Controller, Freeing, ReadyReport};
use crate::meta::{Change, Entry, Opened, Record};

impl Controller {
    /// Returns whether there is a topic with this id, or may be one.
    pub(crate) fn may_know(&self, topic: TopicId) -> bool {
        let is_doubtful = self.doubtful.as_ref().and_then(Entry::topic) == Some(topic);
        is_doubtful || self.tip.topic_by_id(topic).is_some()
    }

    /// A shard has opened its stores. When all have, the metadata is published for the first time.
    pub(crate) fn handle_opened(&mut self, shard: ShardIndex, opened: Opened) {
        self.opened[usize::from(shard)] = Some(opened);
        if !self.opened.iter().all(Option::is_some) {
            return;
        }
        let mut report = ReadyReport {
            topics: self.tip.topics().len(),
            partitions: self.tip.partition_count(),
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
            let name_of = |id| self.tip.topic_by_id(id).map(|topic| topic.name.clone());
            report.warnings.extend(opened.warnings.iter().map(|warning| with_topic_names(warning, name_of)));
        }
        // What is learned of a topic that is not known yet has to wait.
        let is_known = |(tp, _): &(TopicPartition, LeaderEpoch)| self.tip.topic_by_id(tp.topic).is_some();
        let (known, later): (Vec<_>, Vec<_>) = epochs.into_iter().partition(is_known);
        for (tp, epoch) in known {
            self.tip.learn_epoch(tp, epoch);
        }
        let deleting: Vec<TopicId> = self.tip.deleting().keys().copied().collect();
        self.changes = self.tip.topics().map(|t| Change::Topic(Arc::clone(t))).collect();
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
        report.warnings.extend(self.room.warning(self.entries()));
        self.first_version = Some(self.tip.version());
        self.ready = Some(report);
        // Published before any record is written: what was recovered is durable, and a full disk may have no space for a record.
        self.mark(self.log.certain());
        self.apply_doubtful();
        for (tp, epoch) in later {
            self.tip.learn_epoch(tp, epoch);
        }
        self.register();
        for topic in gone {
            self.write_entry(&Entry::TopicGone { id: topic.0 });
        }
    }

    /// Registers this node, if something about it is new. The start does not wait for that.
    fn register(&mut self) {
        let known = self.tip.nodes().get(&self.node.id);
        if known.is_none_or(|known| **known != self.node) {
            let record = Record::NodeRegistered(self.node.to_record());
            tracing::info!(node = ?self.node, "registering this node");
            self.write(record);
        }
    }

    /// Everything that is certain is about to be published: the last record follows when it is certain too.
    fn apply_doubtful(&mut self) {
        let Some(entry) = self.doubtful.take() else { return };
        tracing::warn!(
            ?entry,
            "the last change of the metadata may not be durable; it takes effect when the disk has space to write it again"
        );
        if let Entry::Applied { record: Record::TopicDeleted { id }, .. } = entry
            && let Some(topic) = self.tip.topic_by_id(TopicId(id)).cloned()
        {
            self.begin_freeing(&topic);
        }
        let change = self.tip.apply(&entry).expect("checked when it was recovered");
        self.changes.extend(change);
        self.touched = true;
    }
}

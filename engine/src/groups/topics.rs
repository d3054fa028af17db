//! The topics as the coordinator knows them: names, ids and numbers of partitions.

use std::collections::BTreeMap;

use highwater_protocol::ids::TopicId;

/// The topics there are.
///
/// Invariant: both maps hold the same topics.
#[derive(Default, Debug)]
pub(super) struct Topics {
    by_name: BTreeMap<String, TopicId>,
    by_id: BTreeMap<TopicId, (String, u32)>,
    /// Counts their changes.
    version: u64,
}

impl Topics {
    /// A topic is new or has more partitions.
    pub(super) fn insert(&mut self, id: TopicId, name: &str, partitions: u32) {
        if self.by_id.get(&id).is_some_and(|(n, p)| n == name && *p == partitions) {
            return;
        }
        if let Some(old) = self.by_name.insert(name.to_owned(), id) {
            self.by_id.remove(&old);
        }
        self.by_id.insert(id, (name.to_owned(), partitions));
        self.version += 1;
    }

    /// A topic is gone.
    pub(super) fn remove(&mut self, id: TopicId) {
        if let Some((name, _)) = self.by_id.remove(&id) {
            self.by_name.remove(&name);
            self.version += 1;
        }
    }

    /// Another number when something about topics is new.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn id(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, id: TopicId) -> Option<&str> {
        self.by_id.get(&id).map(|(name, _)| name.as_str())
    }

    /// The number of partitions of a topic; none if there is no such topic.
    pub(super) fn partitions(&self, id: TopicId) -> Option<u32> {
        self.by_id.get(&id).map(|(_, partitions)| *partitions)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&str, TopicId)> {
        self.by_name.iter().map(|(name, id)| (name.as_str(), *id))
    }
}

//! Chooses the partitions of records: by key, or round-robin.

use std::rc::Rc;

use bytes::Bytes;
use highwater_protocol::partitioner::partition_for_key;

use super::schedule::splitmix;
use crate::scenario::Scenario;

/// Keys with their partitions, shared by the producers of a thread.
pub(crate) type Keys = Rc<[(u32, Bytes)]>;

/// Creates the keys of a scenario.
pub(crate) fn keys(scenario: &Scenario) -> Keys {
    let key = |n| Bytes::from(format!("key-{n:08}"));
    let keys = (0..scenario.record.keys).map(key);
    keys.map(|key| (partition_for_key(&key, scenario.topic.partitions), key)).collect()
}

/// Sequence of partitions and keys for the records of one producer.
pub(crate) struct Routes {
    keys: Keys,
    partitions: u32,
    next: u32,
    noise: u64,
}

impl Routes {
    /// Creates the routes of producer `which`. Producers start at different partitions and choose different keys.
    pub(crate) fn new(keys: Keys, partitions: u32, which: u32, producers: u32) -> Self {
        let next = (u64::from(which) * u64::from(partitions) / u64::from(producers)) as u32;
        Self { keys, partitions, next, noise: u64::from(which) }
    }

    pub(crate) fn next(&mut self) -> (u32, Option<Bytes>) {
        if self.keys.is_empty() {
            let here = self.next;
            self.next = if here + 1 == self.partitions { 0 } else { here + 1 };
            return (here, None);
        }
        let (partition, key) = &self.keys[(splitmix(&mut self.noise) % self.keys.len() as u64) as usize];
        (*partition, Some(key.clone()))
    }
}

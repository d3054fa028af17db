//! Chooses the partitions of records: by key, or round-robin, batch by batch.

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
    /// Records that go to the next partition before the one after it has its turn.
    records_left: u32,
    /// Records that go to one partition in a row, so that they fill a batch whatever the number of partitions is.
    batch_records: u32,
    noise: u64,
}

impl Routes {
    /// Creates the routes of producer `which`. Producers start at different partitions and choose different keys.
    pub(crate) fn new(keys: Keys, scenario: &Scenario, which: u32) -> Self {
        let (partitions, producers) = (scenario.topic.partitions, scenario.producers.count);
        let next = (u64::from(which) * u64::from(partitions) / u64::from(producers)) as u32;
        let batch_records = scenario.producers.batch_records.max(1);
        let records_left = batch_records;
        Self { keys, partitions, next, records_left, batch_records, noise: u64::from(which) }
    }

    pub(crate) fn next(&mut self) -> (u32, Option<Bytes>) {
        if self.keys.is_empty() {
            let here = self.next;
            self.records_left -= 1;
            if self.records_left == 0 {
                self.records_left = self.batch_records;
                self.next = if here + 1 == self.partitions { 0 } else { here + 1 };
            }
            return (here, None);
        }
        let (partition, key) = &self.keys[(splitmix(&mut self.noise) % self.keys.len() as u64) as usize];
        (*partition, Some(key.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    fn partitions(batch_records: u32, partitions: u32, which: u32, count: usize) -> Vec<u32> {
        let mut scenario = scenarios::find("small-batches").expect("it is built in");
        scenario.topic.partitions = partitions;
        scenario.producers.batch_records = batch_records;
        let mut routes = Routes::new(keys(&scenario), &scenario, which);
        (0..count).map(|_| routes.next().0).collect()
    }

    #[test]
    fn records_go_round_robin_and_a_whole_batch_at_a_time_if_its_records_are_limited() {
        assert_eq!(partitions(0, 3, 0, 5), [0, 1, 2, 0, 1]);
        assert_eq!(partitions(1, 3, 0, 5), [0, 1, 2, 0, 1]);
        assert_eq!(partitions(3, 2, 0, 8), [0, 0, 0, 1, 1, 1, 0, 0]);
        assert_eq!(
            partitions(2, 8, 3, 6),
            [6, 6, 7, 7, 0, 0],
            "the last of four producers begins at its part"
        );
    }
}

//! Sizes of partitions, and of the file system that they are on. To Kafka's clients all stores are one directory, the broker's data
//! directory, which is its `log.dirs` as well.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::topics::Refused;
use super::{Call, Named};
use crate::limits::KAFKA_SIZES_PER_REQUEST_MAX;
use crate::message::{Message, Query, QueryAnswer};
use crate::shard::Shard;

/// Topics with the partitions that a request is about, and their owners.
#[derive(Default)]
struct Wanted {
    topics: Vec<String>,
    /// The topic of each partition as its place in `topics`, and its number.
    partitions: Vec<(usize, i32)>,
    owners: BTreeMap<ShardIndex, Vec<(u32, TopicPartition)>>,
}

/// The file system of the data directory, in bytes; -1 is not known.
#[derive(Clone, Copy)]
struct FileSystem {
    total_bytes: i64,
    /// What this user may still take.
    usable_bytes: i64,
}

impl FileSystem {
    fn of(plane: &mut dyn Plane<Message>, dir: &Path) -> Self {
        let known =
            |bytes: io::Result<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        Self { total_bytes: known(plane.total_bytes(dir)), usable_bytes: known(plane.free_bytes(dir)) }
    }
}

impl Shard {
    pub(super) fn kafka_describe_log_dirs(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &DescribeLogDirsRequest<'_>,
    ) {
        let file_system = FileSystem::of(plane, &self.setup.data_dir);
        let Wanted { topics, partitions, owners } = match self.wanted_sizes(request) {
            Ok(wanted) => wanted,
            Err((error, _)) => return self.tell_log_dir(call, error, Vec::new(), file_system),
        };
        let queries = owners.into_iter().map(|(owner, list)| (owner, Query::Details(list))).collect();
        self.kafka_gather_from_owners(plane, call, queries, move |shard, call, answers| {
            let mut sizes = vec![None; partitions.len()];
            for answer in answers {
                let QueryAnswer::Details(details) = answer else {
                    unreachable!("a question is answered in its own kind, not with {answer:?}")
                };
                for (number, detail) in details {
                    sizes[number as usize] = Some(detail.bytes);
                }
            }
            let mut described: Vec<DescribeLogDirsTopic<'_>> = Vec::new();
            // A partition without a size was deleted meanwhile.
            let found = partitions.iter().zip(sizes).filter_map(|(at, size)| Some((*at, size?)));
            let mut last = None;
            for ((topic, partition_index), bytes) in found {
                if last.replace(topic) != Some(topic) {
                    let name = Cow::Borrowed(&topics[topic][..]);
                    described.push(DescribeLogDirsTopic { name, partitions: Vec::new() });
                }
                let partition_size = i64::try_from(bytes).unwrap_or(i64::MAX);
                let partition =
                    DescribeLogDirsPartition { partition_index, partition_size, ..Default::default() };
                described.last_mut().expect("pushed above").partitions.push(partition);
            }
            shard.tell_log_dir(call, KafkaError::NONE, described, file_system);
        });
    }

    fn wanted_sizes(&self, request: &DescribeLogDirsRequest<'_>) -> Result<Wanted, Refused> {
        let mut wanted = Wanted::default();
        match &request.topics {
            None => {
                let metadata = self.metadata.clone();
                for topic in metadata.iter().flat_map(|metadata| metadata.topics()) {
                    let all = 0..topic.stores.len() as i32;
                    self.want_sizes(&mut wanted, &Named::Known(topic.clone()), all)?;
                }
            }
            Some(topics) => {
                // A set, as to Kafka.
                let mut named: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
                for topic in topics {
                    named.entry(topic.topic).or_default().extend(&topic.partitions);
                }
                for (name, partitions) in named {
                    self.want_sizes(&mut wanted, &self.kafka_topic(name, [0; 16]), partitions.into_iter())?;
                }
            }
        }
        Ok(wanted)
    }

    /// Notes partitions of a topic; those that do not exist are in no directory.
    fn want_sizes(
        &self,
        wanted: &mut Wanted,
        topic: &Named,
        partitions: impl Iterator<Item = i32>,
    ) -> Result<(), Refused> {
        for index in partitions {
            let Ok((tp, owner)) = self.kafka_target(topic, index) else { continue };
            if wanted.partitions.len() == KAFKA_SIZES_PER_REQUEST_MAX {
                let text = format!("a request may be about {KAFKA_SIZES_PER_REQUEST_MAX} partitions at most");
                return Err((KafkaError::POLICY_VIOLATION, text));
            }
            let number = wanted.partitions.len() as u32;
            wanted.partitions.push((wanted.topics.len(), index));
            wanted.owners.entry(owner).or_default().push((number, tp));
        }
        wanted.topics.push(topic.name().to_owned());
        Ok(())
    }

    fn tell_log_dir(
        &mut self,
        call: Call,
        error_code: KafkaError,
        topics: Vec<DescribeLogDirsTopic<'_>>,
        file_system: FileSystem,
    ) {
        let result = DescribeLogDirsResult {
            // Versions before 3 have no error of their own for the whole request.
            error_code,
            log_dir: self.setup.data_dir.display().to_string().into(),
            topics,
            total_bytes: file_system.total_bytes,
            usable_bytes: file_system.usable_bytes,
        };
        let response = DescribeLogDirsResponse { error_code, results: vec![result], ..Default::default() };
        self.kafka_answer(call, &response);
    }
}

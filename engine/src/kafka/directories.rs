//! DescribeLogDirs: sizes of partitions and of their file system. To Kafka's clients all stores are one directory, the broker's data
//! directory, which is also its `log.dirs`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use highwater_protocol::ids::TopicPartition;

use super::Call;
use super::error::Refused;
use super::names::{Named, find_topic, target};
use crate::api::Details;
use crate::calls::FanOut;
use crate::limits::KAFKA_SIZES_PER_REQUEST_MAX;
use crate::shard::Context;

/// The topics and partitions of a request, with their owners.
struct Wanted {
    topics: Vec<String>,
    /// Each partition: index of its topic in `topics`, and its number.
    partitions: Vec<(usize, i32)>,
    items: FanOut<TopicPartition>,
}

/// The sizes of the data directory's file system, in bytes; -1 if unknown.
#[derive(Clone, Copy)]
struct FileSystem {
    total_bytes: i64,
    /// Bytes available to the broker's user.
    usable_bytes: i64,
}

impl FileSystem {
    fn of_data_dir(context: &mut Context<'_>) -> Self {
        let dir = &context.setup.data_dir;
        let known =
            |bytes: io::Result<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        Self {
            total_bytes: known(context.plane.total_bytes(dir)),
            usable_bytes: known(context.plane.free_bytes(dir)),
        }
    }
}

pub(super) fn describe_log_dirs(context: &mut Context<'_>, call: Call, request: &DescribeLogDirsRequest<'_>) {
    let file_system = FileSystem::of_data_dir(context);
    let Wanted { topics, partitions, items } = match wanted_sizes(context, request) {
        Ok(wanted) => wanted,
        Err((error, _)) => return tell_log_dir(context, call, error, Vec::new(), file_system),
    };
    context.query::<Details>(call.conn, items, move |context, details| {
        let sizes = details.into_iter().map(|details| details.map(|details| details.bytes));
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
        tell_log_dir(context, call, KafkaError::NONE, described, file_system);
    });
}

fn wanted_sizes(context: &Context<'_>, request: &DescribeLogDirsRequest<'_>) -> Result<Wanted, Refused> {
    let mut wanted = Wanted { topics: Vec::new(), partitions: Vec::new(), items: FanOut::new() };
    match &request.topics {
        None => {
            let metadata = context.metadata;
            for topic in metadata.iter().flat_map(|metadata| metadata.topics()) {
                let all = 0..topic.stores.len() as i32;
                want_sizes(context, &mut wanted, &Named::Known(topic.clone()), all)?;
            }
        }
        Some(topics) => {
            // A set, as in Kafka.
            let mut named: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for topic in topics {
                named.entry(topic.topic).or_default().extend(&topic.partitions);
            }
            for (name, partitions) in named {
                want_sizes(
                    context,
                    &mut wanted,
                    &find_topic(context, name, [0; 16]),
                    partitions.into_iter(),
                )?;
            }
        }
    }
    Ok(wanted)
}

/// Adds partitions of a topic; those that do not exist are in no directory.
fn want_sizes(
    context: &Context<'_>,
    wanted: &mut Wanted,
    topic: &Named,
    partitions: impl Iterator<Item = i32>,
) -> Result<(), Refused> {
    for index in partitions {
        let Ok((tp, owner)) = target(context, topic, index) else { continue };
        if wanted.partitions.len() == KAFKA_SIZES_PER_REQUEST_MAX {
            let text = format!("a request may be about {KAFKA_SIZES_PER_REQUEST_MAX} partitions at most");
            return Err((KafkaError::POLICY_VIOLATION, text));
        }
        wanted.partitions.push((wanted.topics.len(), index));
        wanted.items.push(owner, tp);
    }
    wanted.topics.push(topic.name().to_owned());
    Ok(())
}

fn tell_log_dir(
    context: &mut Context<'_>,
    call: Call,
    error_code: KafkaError,
    topics: Vec<DescribeLogDirsTopic<'_>>,
    file_system: FileSystem,
) {
    let result = DescribeLogDirsResult {
        // Versions before 3 have no error of their own for the whole request.
        error_code,
        log_dir: context.setup.data_dir.display().to_string().into(),
        topics,
        total_bytes: file_system.total_bytes,
        usable_bytes: file_system.usable_bytes,
    };
    let response = DescribeLogDirsResponse { error_code, results: vec![result], ..Default::default() };
    context.answer(call, &response);
}

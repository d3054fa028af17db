//! DescribeLogDirs: sizes of partitions and of their file system. To Kafka's clients all stores are one directory, the broker's data
//! directory, which is also its `log.dirs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::BytesMut;
use highwater_net::Entries;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use highwater_protocol::ids::TopicPartition;

use super::Call;
use super::error::Refused;
use super::names::{Named, find_topic, target};
use crate::api::{Details, PartitionDetails};
use crate::calls::FanOut;
use crate::limits::{KAFKA_SIZES_PER_REQUEST_MAX, PARTITIONS_PER_PART};
use crate::shard::{AnswerTo, Context, ReplyMemory};

/// The topics and partitions of a request, with their owners.
struct Wanted {
    topics: Vec<String>,
    /// Each partition: index of its topic in `topics`, and its number.
    partitions: Vec<(u32, i32)>,
    items: FanOut<TopicPartition>,
}

/// What each partition counts for in the memory of a response: while it is wanted, while its size is found, and in the list.
const PARTITION_BYTES: usize = 192;

/// The sizes of the data directory's file system, in bytes; -1 if unknown.
#[derive(Clone, Copy, Debug)]
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
    // A set, as in Kafka.
    let named = request.topics.as_ref().map(|topics| {
        let mut named: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for topic in topics {
            named.entry(topic.topic.to_owned()).or_default().extend(&topic.partitions);
        }
        named
    });
    let count = match &named {
        None => context.metadata.map_or(0, |metadata| metadata.partition_count()),
        Some(named) => named.values().map(BTreeSet::len).sum(),
    };
    let bytes = count.min(KAFKA_SIZES_PER_REQUEST_MAX) * PARTITION_BYTES;
    context.with_reply_memory(AnswerTo::Kafka(call), bytes, move |context, memory| {
        let (wanted, memory) = match (wanted_sizes(context, named), memory) {
            (Ok(wanted), Ok(memory)) => (wanted, memory),
            (Err((error, _)), _) => {
                let dir = LogDir { error, file_system, topics: Vec::new() };
                return dir.send(context, call, ReplyMemory::small());
            }
            (_, Err(error)) => {
                let dir = LogDir { error: error.into(), file_system, topics: Vec::new() };
                return dir.send(context, call, ReplyMemory::small());
            }
        };
        let Wanted { topics, partitions, items } = wanted;
        context.query::<Details>(call.conn, items, move |context, details| {
            let topics = topics.into_iter().map(|name| (name, Vec::new())).collect();
            let dir = LogDir { error: KafkaError::NONE, file_system, topics };
            context.fill(
                call.conn,
                (call, memory, dir),
                (partitions, details),
                fill_in,
                |context, answer| {
                    let (call, memory, mut dir) = answer;
                    dir.topics.retain(|(_, partitions)| !partitions.is_empty());
                    dir.send(context, call, memory);
                },
            );
        });
    });
}

/// Takes the size of a partition. One without a size was deleted meanwhile.
fn fill_in(
    (_, _, dir): &mut (Call, ReplyMemory, LogDir),
    (topic, partition_index): (u32, i32),
    details: Option<PartitionDetails>,
) {
    let Some(details) = details else { return };
    let partition_size = i64::try_from(details.bytes).unwrap_or(i64::MAX);
    let partition = DescribeLogDirsPartition { partition_index, partition_size, ..Default::default() };
    dir.topics[topic as usize].1.push(partition);
}

/// Finds these partitions, or all.
fn wanted_sizes(
    context: &Context<'_>,
    named: Option<BTreeMap<String, BTreeSet<i32>>>,
) -> Result<Wanted, Refused> {
    let mut wanted = Wanted { topics: Vec::new(), partitions: Vec::new(), items: FanOut::new() };
    let Some(named) = named else {
        let metadata = context.metadata;
        for topic in metadata.iter().flat_map(|metadata| metadata.topics()) {
            let all = 0..topic.stores.len() as i32;
            want_sizes(context, &mut wanted, &Named::Known(topic.clone()), all)?;
        }
        return Ok(wanted);
    };
    for (name, partitions) in named {
        let topic = find_topic(context, &name, [0; 16]);
        want_sizes(context, &mut wanted, &topic, partitions.into_iter())?;
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
        wanted.partitions.push((wanted.topics.len() as u32, index));
        wanted.items.push(owner, tp);
    }
    wanted.topics.push(topic.name().to_owned());
    Ok(())
}

/// The one directory of a response.
#[derive(Debug)]
struct LogDir {
    error: KafkaError,
    file_system: FileSystem,
    topics: Vec<(String, Vec<DescribeLogDirsPartition>)>,
}

impl LogDir {
    fn send(self, context: &mut Context<'_>, call: Call, memory: ReplyMemory) {
        let result = DescribeLogDirsResult {
            // Versions before 3 have no error of their own for the whole request.
            error_code: self.error,
            log_dir: context.setup.data_dir.display().to_string().into(),
            topics: Vec::new(),
            total_bytes: self.file_system.total_bytes,
            usable_bytes: self.file_system.usable_bytes,
        };
        let version = call.version();
        let Frame { front, back } = result.frame(version, self.topics.len());
        let pieces = memory.hold(front, Sizes { version, topics: self.topics }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    }
}

/// The topics of a response, with the sizes of their partitions.
#[derive(Debug)]
struct Sizes {
    version: i16,
    topics: Vec<(String, Vec<DescribeLogDirsPartition>)>,
}

impl Entries for Sizes {
    fn count(&self) -> usize {
        self.topics.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let (name, partitions) = &self.topics[entry];
        if part == 0 {
            DescribeLogDirsTopic::put_front(name, self.version, partitions.len(), out);
        }
        let from = part * PARTITIONS_PER_PART;
        for partition in partitions.iter().skip(from).take(PARTITIONS_PER_PART) {
            DescribeLogDirsTopic::put_partition(self.version, partition, out);
        }
        let more = partitions.len() > from + PARTITIONS_PER_PART;
        if !more {
            DescribeLogDirsTopic::put_back(self.version, out);
        }
        more
    }

    fn memory_bytes(&self) -> usize {
        // A `ReplyMemory` counts the partitions.
        size_of_val(&self.topics[..]) + self.topics.iter().map(|(name, _)| name.len()).sum::<usize>()
    }
}

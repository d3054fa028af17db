//! DescribeLogDirs: sizes of partitions and of their file system. To Kafka's clients all stores are one directory, the broker's data
//! directory, which is also its `log.dirs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use highwater_net::Entries;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::ConnId;

use super::Call;
use super::names::{Named, target};
use super::resolve::{LookupItem, NamedTopic, TopicLookup};
use crate::api::{Details, PartitionDetails};
use crate::calls::FanOut;
use crate::context::{AnswerTo, ClientJob, Context, ReplyMemory};
use crate::counters::Work;
use crate::limits::{KAFKA_SIZES_PER_REQUEST_MAX, PARTITIONS_PER_PART};
use crate::meta::Metadata;

/// Memory charged for each partition of a response: its entries in the query, in the answers and in the response.
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
    let (count, source) = match &request.topics {
        None => {
            let all = context.metadata.map(|metadata| AllPartitions::new(Arc::clone(metadata)));
            let count = context.metadata.map_or(0, |metadata| metadata.partition_count());
            (count, all.map(Source::All))
        }
        Some(topics) => {
            let count = topics.iter().map(|topic| topic.partitions.len()).sum();
            let named =
                topics.iter().map(|topic| NamedTopic::new(topic.topic, [0; 16], topic.partitions.clone()));
            (count, Some(Source::Named(TopicLookup::new(named.collect()))))
        }
    };
    let bytes = count.min(KAFKA_SIZES_PER_REQUEST_MAX) * PARTITION_BYTES;
    context.with_reply_memory(AnswerTo::Kafka(call), bytes, move |context, memory| match memory {
        Ok(memory) => context.begin_job(ResolveJob::new(call, memory, file_system, source)),
        Err(error) => {
            let dir = LogDir { error: error.into(), file_system, topics: Vec::new() };
            dir.send(context, call, ReplyMemory::small());
        }
    });
}

/// The source of the partitions to describe.
enum Source {
    All(AllPartitions),
    Named(TopicLookup<i32>),
}

/// All partitions of the topics that existed when the request arrived.
struct AllPartitions {
    metadata: Arc<Metadata>,
    /// The name of the last topic.
    last: String,
    /// The rest of its partitions.
    partitions: Range<i32>,
}

impl AllPartitions {
    fn new(metadata: Arc<Metadata>) -> Self {
        // No topic has an empty name.
        Self { metadata, last: String::new(), partitions: 0..0 }
    }

    fn next(&mut self, work: &mut Work) -> Option<LookupItem<i32>> {
        if let Some(partition) = self.partitions.next() {
            work.spend(1);
            return Some(LookupItem::Partition(partition));
        }
        let name = self.metadata.names_from(&self.last).find(|name| *name != self.last)?.to_owned();
        work.spend(2);
        let named = Named::find(Some(&self.metadata), &name, [0; 16]);
        self.partitions = 0..named.known().map_or(0, |topic| topic.partition_count() as i32);
        self.last = name;
        Some(LookupItem::Topic(named, self.partitions.len()))
    }
}

/// Finds the partitions of a request and their owners, as many as a turn allows.
struct ResolveJob {
    call: Call,
    memory: ReplyMemory,
    file_system: FileSystem,
    /// `None` when all partitions were added.
    source: Option<Source>,
    /// The topic of the next partitions, with its index in `topics`.
    topic: Option<(Named, u32)>,
    topics: Vec<String>,
    /// The index of each topic, as a request may name a topic twice.
    numbers: BTreeMap<String, u32>,
    /// The partitions, without duplicates as in Kafka: index of the topic in `topics`, and of the partition.
    seen: BTreeSet<(u32, i32)>,
    /// The same, in the order of the request.
    partitions: Vec<(u32, i32)>,
    items: FanOut<TopicPartition>,
    error: KafkaError,
}

impl ResolveJob {
    fn new(call: Call, memory: ReplyMemory, file_system: FileSystem, source: Option<Source>) -> Self {
        Self {
            call,
            memory,
            file_system,
            source,
            topic: None,
            topics: Vec::new(),
            numbers: BTreeMap::new(),
            seen: BTreeSet::new(),
            partitions: Vec::new(),
            items: FanOut::new(),
            error: KafkaError::NONE,
        }
    }

    fn add_topic(&mut self, named: Named) {
        let next = self.topics.len() as u32;
        let number = *self.numbers.entry(named.name().to_owned()).or_insert(next);
        if number == next {
            self.topics.push(named.name().to_owned());
        }
        self.topic = Some((named, number));
    }

    /// Adds a partition of the last topic. A partition that does not exist is left out: no directory has it.
    fn add_partition(&mut self, context: &Context<'_>, index: i32) {
        let Some((named, topic)) = &self.topic else { return };
        let Ok((tp, owner)) = target(context, named, index) else { return };
        if !self.seen.insert((*topic, index)) {
            return;
        }
        if self.partitions.len() == KAFKA_SIZES_PER_REQUEST_MAX {
            self.error = KafkaError::POLICY_VIOLATION;
            self.source = None;
            return;
        }
        self.partitions.push((*topic, index));
        self.items.push(owner, tp);
    }
}

impl ClientJob for ResolveJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over() {
            let next = match &mut self.source {
                None => return true,
                Some(Source::All(all)) => all.next(work),
                Some(Source::Named(named)) => named.next(context.metadata, work),
            };
            match next {
                None => self.source = None,
                Some(LookupItem::Topic(named, _)) => self.add_topic(named),
                Some(LookupItem::Partition(index)) => self.add_partition(context, index),
            }
        }
        self.source.is_none()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { call, memory, file_system, topics, partitions, items, error, .. } = *self;
        if error.is_err() {
            return LogDir { error, file_system, topics: Vec::new() }.send(context, call, memory);
        }
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
    }
}

/// Adds the size of a partition. A partition without a size was deleted meanwhile.
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

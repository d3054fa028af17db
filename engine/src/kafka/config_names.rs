//! Documentation of the names of topic configurations, and the broker's names for their defaults.

use std::sync::LazyLock;

use crate::meta::configs::{CONFIGS, Config, Effect, Kind};

/// The type of a setting's value, with Kafka's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub(super) enum Type {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
}

impl Type {
    pub(super) fn of(config: &Config) -> Self {
        match config.kind {
            Kind::Bool => Self::Boolean,
            Kind::Number(_, i64::MAX) => Self::Long,
            Kind::Number(..) => Self::Int,
            Kind::Ratio => Self::Double,
            Kind::OneOf(_) => Self::String,
            Kind::ListOf(_) | Kind::Text => Self::List,
        }
    }
}

/// A topic setting, the broker setting that is its default, and its documentation.
struct NameEntry {
    name: &'static str,
    broker_name: &'static str,
    text: &'static str,
}

const fn d(name: &'static str, broker_name: &'static str, text: &'static str) -> NameEntry {
    NameEntry { name, broker_name, text }
}

/// All topic settings, in the order of [`CONFIGS`].
const NAME_ENTRIES: &[NameEntry] = &[
    d(
        "cleanup.policy",
        "log.cleanup.policy",
        "Whether old records are deleted, the log is compacted by key, or both.",
    ),
    d("compression.gzip.level", "compression.gzip.level", "The compression level for gzip."),
    d("compression.lz4.level", "compression.lz4.level", "The compression level for lz4."),
    d(
        "compression.type",
        "compression.type",
        "How batches are compressed on disk; producer: as the producer sent them.",
    ),
    d("compression.zstd.level", "compression.zstd.level", "The compression level for zstd."),
    d(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        "How long tombstones of a compacted topic are retained.",
    ),
    d(
        "errors.deadletterqueue.group.enable",
        "",
        "Whether the topic may be used as the dead letter queue of groups.",
    ),
    d(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        "Delay before a removed segment file is deleted.",
    ),
    d(
        "flush.messages",
        "log.flush.interval.messages",
        "Number of records after which the log is flushed to disk.",
    ),
    d("flush.ms", "log.flush.interval.ms", "Time after which records are flushed to disk."),
    d(
        "follower.replication.throttled.replicas",
        "",
        "Replicas whose replication is throttled on the follower.",
    ),
    d(
        "highwater.record.validation",
        "",
        "How a batch is validated before it is appended. full: its header and every record, compressed or not. header: the header only; for trusted producers, and not in compacted topics. Not one of Kafka's settings.",
    ),
    d(
        "index.interval.bytes",
        "log.index.interval.bytes",
        "Bytes of records between two entries of the offset index.",
    ),
    d("leader.replication.throttled.replicas", "", "Replicas whose replication is throttled on the leader."),
    d(
        "local.retention.bytes",
        "log.local.retention.bytes",
        "Bytes of a partition that are kept on local disk after they were copied to remote storage.",
    ),
    d(
        "local.retention.ms",
        "log.local.retention.ms",
        "How long records are kept on local disk after they were copied to remote storage.",
    ),
    d(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        "Maximum time before a record becomes eligible for compaction.",
    ),
    d("max.message.bytes", "message.max.bytes", "Maximum size of a record batch."),
    d(
        "message.downconversion.enable",
        "log.message.downconversion.enable",
        "Whether batches are down-converted for old clients.",
    ),
    d(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "Maximum time that a record's timestamp may be ahead of the broker's clock.",
    ),
    d(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        "Maximum time that a record's timestamp may be behind the broker's clock.",
    ),
    d(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "Whether a record's timestamp is set by the producer or by the broker.",
    ),
    d(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        "Minimum ratio of uncompacted bytes before a log is compacted.",
    ),
    d(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        "Minimum time before a record is compacted.",
    ),
    d(
        "min.insync.replicas",
        "min.insync.replicas",
        "Minimum number of in-sync replicas for a write with acks=all.",
    ),
    d("preallocate", "log.preallocate", "Whether segment files are preallocated."),
    d("remote.copy.lag.bytes", "", "Bytes that may accumulate before they are copied to remote storage."),
    d("remote.copy.lag.ms", "", "Maximum delay before records are copied to remote storage."),
    d("remote.log.copy.disable", "", "Whether copying to remote storage is stopped."),
    d("remote.log.delete.on.disable", "", "Whether remote data is deleted when remote storage is disabled."),
    d("remote.storage.enable", "", "Whether records are copied to remote storage."),
    d(
        "retention.bytes",
        "log.retention.bytes",
        "Maximum size of a partition before its oldest records are deleted; -1 for no limit.",
    ),
    d("retention.ms", "log.retention.ms", "How long records are retained; -1 for ever."),
    d("segment.bytes", "log.segment.bytes", "The granularity of retention by size."),
    d("segment.index.bytes", "log.index.size.max.bytes", "Maximum size of a segment's index."),
    d("segment.jitter.ms", "log.roll.jitter.ms", "Maximum random jitter of the time at which segments roll."),
    d("segment.ms", "log.roll.ms", "The granularity of retention by time."),
    d(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        "Whether a replica outside the in-sync set may become leader.",
    ),
];

fn name_entry(config: &Config) -> Option<&'static NameEntry> {
    NAME_ENTRIES.iter().find(|entry| entry.name == config.name)
}

/// Returns the broker setting that is the default of a topic setting, if there is one.
pub(super) fn broker_name(config: &Config) -> Option<&'static str> {
    name_entry(config).map(|entry| entry.broker_name).filter(|name| !name.is_empty())
}

/// The description of a topic setting, without its value.
pub(super) struct ConfigDescription {
    /// The broker setting that is its default.
    pub(super) broker_name: Option<&'static str>,
    pub(super) documentation: String,
}

/// The descriptions, in the order of [`CONFIGS`]. Responses can have hundreds of thousands of entries, so they are built once.
pub(super) static CONFIG_DESCRIPTIONS: LazyLock<Vec<ConfigDescription>> = LazyLock::new(|| {
    let describe =
        |config| ConfigDescription { broker_name: broker_name(config), documentation: documentation(config) };
    CONFIGS.iter().map(describe).collect()
});

/// Returns the documentation of a topic setting, and what this broker does with it.
pub(super) fn documentation(config: &Config) -> String {
    let text = name_entry(config).map_or("", |entry| entry.text);
    let here = match config.effect {
        Effect::Honoured => "",
        Effect::Kept => " This broker stores the value and ignores it.",
        Effect::DefaultOnly => " This broker accepts only its default.",
    };
    format!("{text}{here}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_setting_is_described() {
        let described: Vec<_> = NAME_ENTRIES.iter().map(|entry| entry.name).collect();
        let names: Vec<_> = CONFIGS.iter().map(|config| config.name).collect();
        assert_eq!(described, names);
    }

    #[test]
    fn types_are_those_of_kafka() {
        let of = |name: &str| Type::of(crate::meta::configs::find(name).expect("there"));
        assert_eq!(of("retention.ms"), Type::Long);
        assert_eq!(of("segment.bytes"), Type::Int);
        assert_eq!(of("max.message.bytes"), Type::Int);
        assert_eq!(of("cleanup.policy"), Type::List);
        assert_eq!(of("min.cleanable.dirty.ratio"), Type::Double);
        assert_eq!(of("preallocate"), Type::Boolean);
    }
}

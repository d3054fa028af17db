//! Documentation of the names of topic configurations, and the broker's names for their defaults.

use std::sync::LazyLock;

use crate::meta::configs::{CONFIGS, Config, Effect, Kind};

/// Kafka's numbers for the types of values.
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

/// A name of a topic's configuration, the broker's name for its default, and its documentation.
struct Described {
    name: &'static str,
    of_broker: &'static str,
    text: &'static str,
}

const fn d(name: &'static str, of_broker: &'static str, text: &'static str) -> Described {
    Described { name, of_broker, text }
}

/// In the order of `metadata::configs::CONFIGS`.
const DESCRIBED: &[Described] = &[
    d(
        "cleanup.policy",
        "log.cleanup.policy",
        "Whether old records are deleted, or all but the last of each key, or both.",
    ),
    d("compression.gzip.level", "compression.gzip.level", "How hard gzip tries."),
    d("compression.lz4.level", "compression.lz4.level", "How hard lz4 tries."),
    d("compression.type", "compression.type", "How batches are compressed on disk; producer: as they came."),
    d("compression.zstd.level", "compression.zstd.level", "How hard zstd tries."),
    d(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        "How long tombstones of a compacted topic stay.",
    ),
    d(
        "errors.deadletterqueue.group.enable",
        "",
        "Whether groups may use the topic for records they cannot handle.",
    ),
    d(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        "How long a file waits between being dropped and deleted.",
    ),
    d("flush.messages", "log.flush.interval.messages", "After how many records they are forced to disk."),
    d("flush.ms", "log.flush.interval.ms", "After what time records are forced to disk."),
    d("follower.replication.throttled.replicas", "", "Replicas whose followers are slowed down."),
    d(
        "highwater.record.validation",
        "",
        "What is checked of a batch before it is appended. full: its header and its records, compressed or not. header: the header alone, which is taken for the records; only for producers that are trusted, and not in compacted topics. Not one of Kafka's settings.",
    ),
    d("index.interval.bytes", "log.index.interval.bytes", "How dense the index of offsets is."),
    d("leader.replication.throttled.replicas", "", "Replicas whose leaders are slowed down."),
    d(
        "local.retention.bytes",
        "log.local.retention.bytes",
        "How much stays here once it is stored remotely.",
    ),
    d(
        "local.retention.ms",
        "log.local.retention.ms",
        "How long records stay here once they are stored remotely.",
    ),
    d(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        "After what time a record is compacted at the latest.",
    ),
    d("max.message.bytes", "message.max.bytes", "Bytes of the largest batch."),
    d(
        "message.downconversion.enable",
        "log.message.downconversion.enable",
        "Whether batches are converted for old clients.",
    ),
    d(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "How far a timestamp may be ahead of the broker's clock.",
    ),
    d(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        "How far a timestamp may be behind the broker's clock.",
    ),
    d(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "Whether the producer or the broker stamps records.",
    ),
    d(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        "How much of a log has to be new before it is compacted.",
    ),
    d(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        "How old a record has to be before it is compacted.",
    ),
    d(
        "min.insync.replicas",
        "min.insync.replicas",
        "How many replicas must have a record before it is acknowledged.",
    ),
    d("preallocate", "log.preallocate", "Whether files are allocated whole."),
    d("remote.copy.lag.bytes", "", "How many bytes may wait before they are stored remotely."),
    d("remote.copy.lag.ms", "", "How long records may wait before they are stored remotely."),
    d("remote.log.copy.disable", "", "Whether nothing more is stored remotely."),
    d("remote.log.delete.on.disable", "", "Whether remote data goes when remote storage is switched off."),
    d("remote.storage.enable", "", "Whether records are stored remotely too."),
    d(
        "retention.bytes",
        "log.retention.bytes",
        "Bytes of a partition from which on its oldest records may go; -1 for no limit.",
    ),
    d("retention.ms", "log.retention.ms", "How long records stay; -1 for ever."),
    d("segment.bytes", "log.segment.bytes", "How fine retention by size can cut."),
    d("segment.index.bytes", "log.index.size.max.bytes", "Bytes of the index of a segment."),
    d(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        "How much segments of different partitions are spread in time.",
    ),
    d("segment.ms", "log.roll.ms", "How fine retention by time can cut."),
    d(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        "Whether a replica that lacks records may lead.",
    ),
];

fn described(config: &Config) -> Option<&'static Described> {
    DESCRIBED.iter().find(|entry| entry.name == config.name)
}

/// Returns the broker's name for this default.
pub(super) fn of_broker(config: &Config) -> Option<&'static str> {
    described(config).map(|entry| entry.of_broker).filter(|name| !name.is_empty())
}

/// The description of a name of a topic's configuration, without its value.
pub(super) struct Told {
    /// The broker's name for its default.
    pub(super) of_broker: Option<&'static str>,
    pub(super) documentation: String,
}

/// The descriptions, in the order of [`CONFIGS`]. Responses can have hundreds of thousands of entries, so they are built once.
pub(super) static TOLD: LazyLock<Vec<Told>> = LazyLock::new(|| {
    let told = |config| Told { of_broker: of_broker(config), documentation: documentation(config) };
    CONFIGS.iter().map(told).collect()
});

/// Returns the documentation.
pub(super) fn documentation(config: &Config) -> String {
    let text = described(config).map_or("", |entry| entry.text);
    let here = match config.effect {
        Effect::Honoured => "",
        Effect::Kept => " This broker keeps it and does not use it.",
        Effect::DefaultOnly => " This broker accepts only its default.",
    };
    format!("{text}{here}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_topics_configuration_is_described() {
        let described: Vec<_> = DESCRIBED.iter().map(|entry| entry.name).collect();
        let names: Vec<_> = CONFIGS.iter().map(|config| config.name).collect();
        assert_eq!(described, names);
    }

    #[test]
    fn types_are_kafkas() {
        let of = |name: &str| Type::of(crate::meta::configs::find(name).expect("there"));
        assert_eq!(of("retention.ms"), Type::Long);
        assert_eq!(of("segment.bytes"), Type::Int);
        assert_eq!(of("max.message.bytes"), Type::Int);
        assert_eq!(of("cleanup.policy"), Type::List);
        assert_eq!(of("min.cleanable.dirty.ratio"), Type::Double);
        assert_eq!(of("preallocate"), Type::Boolean);
    }
}

//! Topic configuration: Kafka's names, their values, and what they mean here.

use std::collections::BTreeMap;

use highwater_protocol::limits::{CONFIG_VALUE_BYTES_MAX, TOPIC_CONFIGS_MAX};
use highwater_storage::{CommitRule, CompactionConfig, PartitionConfig};

/// The type of a setting.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number of this range.
    Number(i64, i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of these, which may be empty.
    ListOf(&'static [&'static str]),
    /// A list whose entries are not validated.
    Text,
}

/// The effect of a setting on this broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// As documented by Kafka.
    Honoured,
    /// Stored and described without any effect: what it tunes does not exist here, or works differently.
    Kept,
    /// Only its default is accepted: any other value would have no effect.
    DefaultOnly,
}

/// A setting of topics.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Config {
    /// Kafka's name.
    pub name: &'static str,
    /// Its value unless set.
    pub default: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its effect.
    pub effect: Effect,
}

const MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;
const LONG_MAX: &str = "9223372036854775807";

macro_rules! configs {
    ($($name:literal, $default:expr, $kind:expr, $effect:ident;)+) => {
        /// Every topic setting of Kafka, and this broker's own, sorted by name.
        pub const CONFIGS: &[Config] = &[
            $(Config { name: $name, default: $default, kind: $kind, effect: Effect::$effect },)+
        ];
    };
}

configs! {
    "cleanup.policy", "delete", Kind::ListOf(&["compact", "delete"]), Honoured;
    "compression.gzip.level", "-1", Kind::Number(-1, 9), Kept;
    "compression.lz4.level", "9", Kind::Number(1, 17), Kept;
    "compression.type", "producer", Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Kept;
    "compression.zstd.level", "3", Kind::Number(-131_072, 22), Kept;
    "delete.retention.ms", "86400000", Kind::Number(0, MAX), Honoured;
    "errors.deadletterqueue.group.enable", "false", Kind::Bool, Kept;
    "file.delete.delay.ms", "60000", Kind::Number(0, MAX), Kept;
    "flush.messages", LONG_MAX, Kind::Number(1, MAX), Kept;
    "flush.ms", LONG_MAX, Kind::Number(0, MAX), Kept;
    "follower.replication.throttled.replicas", "", Kind::Text, Kept;
    "highwater.record.validation", "full", Kind::OneOf(&["full", "header"]), Honoured;
    "index.interval.bytes", "4096", Kind::Number(0, INT_MAX), Kept;
    "leader.replication.throttled.replicas", "", Kind::Text, Kept;
    "local.retention.bytes", "-2", Kind::Number(-2, MAX), Kept;
    "local.retention.ms", "-2", Kind::Number(-2, MAX), Kept;
    "max.compaction.lag.ms", LONG_MAX, Kind::Number(1, MAX), Honoured;
    "max.message.bytes", "1048588", Kind::Number(0, INT_MAX), Honoured;
    "message.downconversion.enable", "true", Kind::Bool, Kept;
    "message.timestamp.after.max.ms", "3600000", Kind::Number(0, MAX), Honoured;
    "message.timestamp.before.max.ms", LONG_MAX, Kind::Number(0, MAX), Honoured;
    "message.timestamp.type", "CreateTime", Kind::OneOf(&["CreateTime", "LogAppendTime"]), Honoured;
    "min.cleanable.dirty.ratio", "0.5", Kind::Ratio, Honoured;
    "min.compaction.lag.ms", "0", Kind::Number(0, MAX), Honoured;
    "min.insync.replicas", "1", Kind::Number(1, INT_MAX), Kept;
    "preallocate", "false", Kind::Bool, Kept;
    "remote.copy.lag.bytes", "0", Kind::Number(-1, MAX), Kept;
    "remote.copy.lag.ms", "0", Kind::Number(-1, MAX), Kept;
    "remote.log.copy.disable", "false", Kind::Bool, Kept;
    "remote.log.delete.on.disable", "false", Kind::Bool, Kept;
    "remote.storage.enable", "false", Kind::Bool, DefaultOnly;
    "retention.bytes", "-1", Kind::Number(i64::MIN, MAX), Honoured;
    "retention.ms", "604800000", Kind::Number(-1, MAX), Honoured;
    "segment.bytes", "1073741824", Kind::Number(14, INT_MAX), Honoured;
    "segment.index.bytes", "10485760", Kind::Number(4, INT_MAX), Kept;
    "segment.jitter.ms", "0", Kind::Number(0, MAX), Kept;
    "segment.ms", "604800000", Kind::Number(1, MAX), Honoured;
    "unclean.leader.election.enable", "false", Kind::Bool, Kept;
}

/// An invalid configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// No setting has this name.
    pub(super) fn unknown(name: &str) -> Self {
        Self(format!("Unknown topic config name: {name}"))
    }
}

/// Returns the setting with this name.
pub fn find(name: &str) -> Option<&'static Config> {
    CONFIGS.binary_search_by(|c| c.name.cmp(name)).ok().map(|at| &CONFIGS[at])
}

impl Config {
    /// Parses a value as Kafka does, with white space around it and booleans in any case, and returns its canonical form.
    /// Fails if the setting cannot have this value.
    pub fn parse(&self, value: &str) -> Result<String, ConfigError> {
        if value.len() > CONFIG_VALUE_BYTES_MAX {
            let text = format!("{}: a value has at most {CONFIG_VALUE_BYTES_MAX} bytes", self.name);
            return Err(ConfigError(text));
        }
        let trimmed = value.trim();
        let refuse = |what: String| {
            ConfigError(format!("Invalid value {value} for configuration {}: {what}", self.name))
        };
        let parsed = match self.kind {
            Kind::Bool => match trimmed.to_ascii_lowercase() {
                word if matches!(&*word, "true" | "false") => word,
                _ => return Err(refuse("Expected value to be either true or false".into())),
            },
            Kind::Number(min, max) => match trimmed.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => number.to_string(),
                Ok(_) => return Err(refuse(format!("a whole number from {min} to {max} is expected"))),
                Err(_) => {
                    let kind = if max == INT_MAX { "INT" } else { "LONG" };
                    return Err(refuse(format!("Not a number of type {kind}")));
                }
            },
            Kind::Ratio => match trimmed.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => trimmed.to_owned(),
                Ok(_) => return Err(refuse("a number from 0 to 1 is expected".into())),
                Err(_) => return Err(refuse("Not a number of type DOUBLE".into())),
            },
            Kind::OneOf(words) if words.contains(&trimmed) => trimmed.to_owned(),
            Kind::OneOf(words) => return Err(refuse(format!("String must be one of: {}", words.join(", ")))),
            Kind::ListOf(words) => {
                let list = distinct_entries(trimmed);
                if let Some(stranger) = list.iter().find(|entry| !words.contains(entry)) {
                    let what = format!("{stranger:?} is not one of: {}", words.join(", "));
                    return Err(refuse(what));
                }
                list.join(",")
            }
            Kind::Text => trimmed.to_owned(),
        };
        if self.effect == Effect::DefaultOnly && parsed != self.default {
            let what = format!("not available in this version; only {}={} is", self.name, self.default);
            return Err(refuse(what));
        }
        Ok(parsed)
    }
}

/// Returns the entries of a list without duplicates. An empty list has none; an empty entry between commas counts.
fn distinct_entries(list: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    if !list.is_empty() {
        for entry in list.split(',').map(str::trim) {
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    entries
}

/// Parses the settings of a new topic. If a name is repeated, the last value counts, as in Kafka.
pub fn parse(given: &[(String, String)]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut settings = BTreeMap::new();
    for (name, value) in given {
        let config = find(name).ok_or_else(|| ConfigError::unknown(name))?;
        settings.insert(name.clone(), config.parse(value)?);
    }
    Ok(settings)
}

/// Who sets the timestamps of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampSource {
    /// The producer.
    CreateTime,
    /// The broker.
    LogAppendTime,
}

/// The resolved configuration of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// Records older than this may be deleted; `None`: kept for ever.
    pub retention_ms: Option<i64>,
    /// The oldest records of a partition beyond this size may be deleted; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// Granularity of retention by size.
    pub segment_bytes: u64,
    /// Granularity of retention by time.
    pub segment_ms: i64,
    /// Bytes of the largest batch.
    pub max_message_bytes: usize,
    /// Replicas that have a batch before it is acknowledged. Without effect on partitions with one replica.
    pub min_insync: usize,
    /// Who sets the timestamps.
    pub timestamp: TimestampSource,
    /// How far behind the broker's clock a producer's timestamp may be.
    pub timestamp_before_max_ms: i64,
    /// How far ahead of the broker's clock a producer's timestamp may be.
    pub timestamp_after_max_ms: i64,
    /// How its partitions are compacted; `None`: they are not. Every record of a compacted topic needs a key.
    pub compaction: Option<CompactionConfig>,
    /// Whether batch headers are trusted instead of checking the records.
    pub trusts_headers: bool,
}

impl TopicConfig {
    /// Resolves settings.
    pub fn resolve(set: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        if set.len() > TOPIC_CONFIGS_MAX {
            return Err(ConfigError(format!("a topic has at most {TOPIC_CONFIGS_MAX} settings")));
        }
        for (name, value) in set {
            let Some(config) = find(name) else {
                return Err(ConfigError::unknown(name));
            };
            config.parse(value)?;
        }
        let number = |name: &str| -> i64 { value_of(set, name).trim().parse().expect("checked above") };
        let ratio = |name: &str| -> f64 { value_of(set, name).trim().parse().expect("checked above") };
        // Only the policy of deletion looks at age and size.
        let unlimited = |n: i64| (n >= 0 && deletes(set)).then_some(n);
        let (min_lag, max_lag) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
        if min_lag > max_lag {
            return Err(ConfigError(format!(
                "conflict topic config setting min.compaction.lag.ms ({min_lag}) > max.compaction.lag.ms ({max_lag})"
            )));
        }
        Ok(Self {
            retention_ms: unlimited(number("retention.ms")),
            retention_bytes: unlimited(number("retention.bytes")).map(|n| n as u64),
            segment_bytes: number("segment.bytes") as u64,
            segment_ms: number("segment.ms"),
            max_message_bytes: number("max.message.bytes") as usize,
            min_insync: number("min.insync.replicas") as usize,
            timestamp: match value_of(set, "message.timestamp.type") {
                "LogAppendTime" => TimestampSource::LogAppendTime,
                _ => TimestampSource::CreateTime,
            },
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            compaction: has_policy(set, "compact").then(|| CompactionConfig {
                dirty_ppm_min: (ratio("min.cleanable.dirty.ratio") * 1e6) as u32,
                lag_ms_min: min_lag,
                lag_ms_max: max_lag,
                delete_retention_ms: number("delete.retention.ms"),
            }),
            // Headers do not say whether records have keys.
            trusts_headers: value_of(set, "highwater.record.validation") == "header"
                && !has_policy(set, "compact"),
        })
    }

    /// Returns the configuration for the log of a partition.
    pub fn for_storage(&self) -> PartitionConfig {
        PartitionConfig {
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            // What is in the active extent is not compacted.
            segment_ms: self.segment_ms.min(self.compaction.map_or(i64::MAX, |c| c.lag_ms_max)),
            segment_bytes: self.segment_bytes,
            commit: CommitRule::OwnDisk,
            compaction: self.compaction,
        }
    }
}

fn value_of<'a>(set: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    match set.get(name) {
        Some(value) => value,
        None => find(name).expect("the names used here are in the table").default,
    }
}

/// Whether a topic's records are deleted by their age or place.
pub fn deletes(set: &BTreeMap<String, String>) -> bool {
    has_policy(set, "delete")
}

/// Whether a topic's records go only when a newer one of the same key makes them superfluous.
pub fn only_compacts(set: &BTreeMap<String, String>) -> bool {
    has_policy(set, "compact") && !deletes(set)
}

fn has_policy(set: &BTreeMap<String, String>, wanted: &str) -> bool {
    value_of(set, "cleanup.policy").split(',').any(|policy| policy.trim() == wanted)
}

/// A setting of a topic.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Setting<'a> {
    /// The setting's definition.
    pub config: &'static Config,
    /// The topic's own value, if set.
    pub set: Option<&'a str>,
}

impl<'a> Setting<'a> {
    /// Returns its value.
    pub fn value(&self) -> &'a str {
        self.set.unwrap_or(self.config.default)
    }
}

/// Every setting, in the order of [`CONFIGS`].
pub fn settings(set: &BTreeMap<String, String>) -> impl Iterator<Item = Setting<'_>> {
    CONFIGS.iter().map(|config| Setting { config, set: set.get(config.name).map(String::as_str) })
}

/// Every setting with its value, and whether it was set for this topic.
pub fn describe(set: &BTreeMap<String, String>) -> Vec<(String, String, bool)> {
    let all = settings(set);
    all.map(|s| (s.config.name.to_owned(), s.value().to_owned(), s.set.is_some())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(set: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        TopicConfig::resolve(&set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_table_is_sorted_and_every_default_is_a_value_of_its_kind() {
        assert!(CONFIGS.is_sorted_by(|a, b| a.name < b.name));
        for config in CONFIGS {
            assert_eq!(config.parse(config.default).as_deref(), Ok(config.default), "{}", config.name);
        }
    }

    #[test]
    fn the_defaults_are_kafkas() {
        let config = resolve(&[]).expect("the defaults can be");
        assert_eq!(config.for_storage(), PartitionConfig::default());
        assert_eq!(config.max_message_bytes, highwater_protocol::limits::BATCH_BYTES_DEFAULT);
        assert_eq!(config.timestamp_after_max_ms, 3_600_000);
    }

    #[test]
    fn minus_one_means_no_limit() {
        let config = resolve(&[("retention.ms", "-1"), ("retention.bytes", "-1")]).expect("can be");
        assert_eq!((config.retention_ms, config.retention_bytes), (None, None));
    }

    #[test]
    fn retention_is_for_topics_whose_records_are_deleted() {
        let of = |policy| {
            let set = [("cleanup.policy", policy), ("retention.ms", "5"), ("retention.bytes", "7")];
            let config = resolve(&set).expect("can be");
            (config.retention_ms, config.retention_bytes)
        };
        assert_eq!(of("compact"), (None, None));
        assert_eq!(of("delete"), (Some(5), Some(7)));
        assert_eq!(of("compact,delete"), (Some(5), Some(7)));
    }

    #[test]
    fn invalid_settings_are_rejected_with_their_name_and_the_valid_values() {
        for (name, value, says) in [
            ("retenton.ms", "1", "Unknown topic config name"),
            ("retention.ms", "-2", "from -1"),
            ("retention.ms", "soon", "Not a number of type LONG"),
            ("retention.ms", "", "Not a number of type LONG"),
            ("max.message.bytes", "99999999999", "to 2147483647"),
            ("max.message.bytes", "1 MB", "Not a number of type INT"),
            ("preallocate", "yes", "true or false"),
            ("min.cleanable.dirty.ratio", "1.5", "0 to 1"),
            ("message.timestamp.type", "createtime", "CreateTime, LogAppendTime"),
            ("cleanup.policy", "shred", "compact, delete"),
            ("cleanup.policy", "delete,,compact", "compact, delete"),
            ("compression.type", "brotli", "one of: uncompressed"),
            ("remote.storage.enable", "true", "only remote.storage.enable=false"),
        ] {
            let error = resolve(&[(name, value)]).expect_err("it has to be refused").to_string();
            assert!(error.contains(name) && error.contains(says), "{error}");
        }
        let error = resolve(&[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")]);
        assert!(error.is_err_and(|error| error.to_string().contains("conflict")));
    }

    #[test]
    fn values_are_parsed_as_kafka_parses_them_and_kept_in_one_form() {
        for (name, value, kept) in [
            ("preallocate", "True", "true"),
            ("preallocate", " FALSE\t", "false"),
            ("retention.ms", " 1000 ", "1000"),
            ("retention.ms", "+5", "5"),
            ("retention.bytes", "-7", "-7"),
            ("max.message.bytes", "104857600", "104857600"),
            ("min.cleanable.dirty.ratio", " 0.25 ", "0.25"),
            ("compression.type", " lz4 ", "lz4"),
            ("cleanup.policy", "", ""),
            ("cleanup.policy", " compact , delete ", "compact,delete"),
            ("cleanup.policy", "delete,delete", "delete"),
            ("follower.replication.throttled.replicas", " * ", "*"),
        ] {
            let config = find(name).expect("a name");
            assert_eq!(config.parse(value).as_deref(), Ok(kept), "{name}={value:?}");
        }
        let given = [("retention.ms", "1"), ("preallocate", "TRUE"), ("retention.ms", "2")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let parsed = parse(&given).expect("the last value of a name counts");
        let parsed: Vec<_> = parsed.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(parsed, [("preallocate", "true"), ("retention.ms", "2")]);
    }

    #[test]
    fn a_topic_without_a_policy_keeps_its_records() {
        let set = [("cleanup.policy", ""), ("retention.ms", "5"), ("retention.bytes", "7")];
        let config = resolve(&set).expect("can be");
        assert_eq!((config.retention_ms, config.retention_bytes), (None, None));
    }

    #[test]
    fn settings_without_effect_are_stored_and_shown() {
        let set = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
        TopicConfig::resolve(&set).expect("accepted");
        let shown = describe(&set);
        assert_eq!(shown.len(), CONFIGS.len());
        assert!(shown.contains(&("min.insync.replicas".into(), "2".into(), true)));
        assert!(shown.contains(&("retention.bytes".into(), "-1".into(), false)));
    }
}

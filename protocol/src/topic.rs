//! Rules for topic names.

use crate::ids::{PartitionIndex, TopicId, TopicPartition};
use crate::limits::TOPIC_NAME_BYTES_MAX;

/// Why a name is not a valid topic name. The text says what to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicNameError {
    /// The name is empty.
    #[error("the empty string is not allowed")]
    Empty,
    /// The name exceeds the limit.
    #[error("its length of {0} is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}")]
    TooLong(usize),
    /// The name is `.` or `..`.
    #[error("'.' and '..' are not allowed")]
    Dots,
    /// The name contains a character that is not allowed.
    #[error("{0:?} is not one of the ASCII alphanumerics, '.', '_' and '-'")]
    Character(char),
}

/// Checks a topic name against Kafka's rules: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
///
/// ```
/// use highwater_protocol::topic::{TopicNameError, validate_topic_name};
/// assert_eq!(validate_topic_name("orders.eu-1"), Ok(()));
/// assert_eq!(validate_topic_name("or ders"), Err(TopicNameError::Character(' ')));
/// ```
pub fn validate_topic_name(name: &str) -> Result<(), TopicNameError> {
    match name {
        "" => return Err(TopicNameError::Empty),
        "." | ".." => return Err(TopicNameError::Dots),
        _ => {}
    }
    if let Some(c) = name.chars().find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-'))
    {
        return Err(TopicNameError::Character(c));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong(name.len()));
    }
    Ok(())
}

/// The topic that keeps groups and the offsets that they have committed, as in Kafka.
pub const GROUPS_TOPIC: &str = "__consumer_offsets";

/// The topic whose only partition is the log of the cluster's metadata, as in Kafka. It is not listed to clients.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// That partition. Its topic has the id that Kafka gives it.
pub const METADATA_PARTITION: TopicPartition = TopicPartition {
    topic: TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    partition: PartitionIndex(0),
};

/// Topics in which a broker keeps its own state, as Kafka names them. Clients give these names a special meaning: they cannot create
/// such a topic, and only read one that there is.
pub const RESERVED_TOPIC_NAMES: [&str; 4] =
    [METADATA_TOPIC, GROUPS_TOPIC, "__share_group_state", "__transaction_state"];

/// Returns whether a topic name is reserved.
pub fn is_reserved_topic_name(name: &str) -> bool {
    name.starts_with("__") && RESERVED_TOPIC_NAMES.contains(&name)
}

/// Returns the form of a name that is equal for all topics whose names collide in Kafka's metrics, where `.` and `_` are the same.
/// `None` if the name has neither.
///
/// ```
/// use highwater_protocol::topic::collision_name;
/// assert_eq!(collision_name("a.b_c").as_deref(), Some("a_b_c"));
/// assert_eq!(collision_name("plain"), None);
/// ```
pub fn collision_name(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for name in ["a", "...", "-", "_x", "A.b-9", &"x".repeat(249)] {
            assert_eq!(validate_topic_name(name), Ok(()), "{name}");
        }
        assert_eq!(validate_topic_name(""), Err(TopicNameError::Empty));
        assert_eq!(validate_topic_name("."), Err(TopicNameError::Dots));
        assert_eq!(validate_topic_name(".."), Err(TopicNameError::Dots));
        assert_eq!(validate_topic_name(&"x".repeat(250)), Err(TopicNameError::TooLong(250)));
        for (name, bad) in [("a/b", '/'), ("ä", 'ä'), ("a\0", '\0'), ("a b", ' ')] {
            assert_eq!(validate_topic_name(name), Err(TopicNameError::Character(bad)), "{name}");
        }
    }
}

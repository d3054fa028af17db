//! The rule for topic names.

use crate::limits::TOPIC_NAME_BYTES_MAX;

/// Why a name cannot be a topic's. The text says what to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicNameError {
    /// No characters at all.
    #[error("a topic name cannot be empty")]
    Empty,
    /// Over the limit.
    #[error("a topic name has at most {TOPIC_NAME_BYTES_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// `.` or `..`.
    #[error("a topic cannot be named \".\" or \"..\"")]
    Dots,
    /// A character that is not allowed.
    #[error("a topic name consists of a-z, A-Z, 0-9, \".\", \"_\" and \"-\"; {0:?} is not allowed")]
    Character(char),
}

/// Kafka's rule: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
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

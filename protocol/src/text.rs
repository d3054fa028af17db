//! Formatting of messages: digit grouping, plural nouns, and names of topics.

use crate::ids::TopicId;

/// Formats `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Formats a number and its noun, given in the singular: `1 partition`, `2,000 partitions`. The noun gets an `s`, or `es` after
/// `ch` and `s`.
pub fn counted(n: usize, noun: &str) -> String {
    let ending = match noun {
        _ if n == 1 => "",
        noun if noun.ends_with("ch") || noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {noun}{ending}", grouped(n as u64))
}

/// The length of a topic's id in a text.
const ID_CHARS: usize = 36;

/// Replaces the ids of topics in a text by their names. An id without a name stays.
pub fn with_topic_names(text: &str, name_of: impl Fn(TopicId) -> Option<String>) -> String {
    let is_of_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_of_id(c)).unwrap_or(rest.len()));
        let id = Some(word).filter(|word| word.len() == ID_CHARS).and_then(|word| word.parse().ok());
        out += id.and_then(&name_of).as_deref().unwrap_or(word);
        let (between, later) = after.split_at(after.find(is_of_id).unwrap_or(after.len()));
        out += between;
        rest = later;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_topics_are_replaced_by_names_as_far_as_these_are_known() {
        let (known, other) = (TopicId([0xAB; 16]), TopicId([2; 16]));
        let name_of = |id| (id == known).then(|| "orders".to_owned());
        let named = |text: String| with_topic_names(&text, name_of);
        assert_eq!(
            named(format!("{known}/3: slab-000001 at 4096: a frame of {other}/0, not of {known}")),
            format!("orders/3: slab-000001 at 4096: a frame of {other}/0, not of orders")
        );
        for text in ["", "no id", "a-b-c é", "0123456789-0123456789-0123456789-0123"] {
            assert_eq!(named(text.to_owned()), text);
        }
    }

    #[test]
    fn digits_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn a_noun_is_plural_unless_the_count_is_one() {
        assert_eq!(counted(0, "partition"), "0 partitions");
        assert_eq!(counted(1, "partition"), "1 partition");
        assert_eq!(counted(1_000, "partition"), "1,000 partitions");
        assert_eq!(counted(2, "batch"), "2 batches");
        assert_eq!(counted(2, "address"), "2 addresses");
    }
}

//! Formatting of numbers in messages: digit grouping, and plural nouns.

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

#[cfg(test)]
mod tests {
    use super::*;

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

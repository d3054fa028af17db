//! Parsing of sizes and durations.

use std::time::Duration;

/// Parses a duration such as `500ms`, `20s` or `1h30m`. Returns seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is not a duration; examples: 500ms, 20s, 10m");
    let duration: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map(|duration| duration.as_secs_f64()).map_err(|_| wrong())
}

/// Parses a size such as `100`, `64KiB`, `1MiB` or `2GB`. Returns bytes.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(format!("`{text}` is not a size; examples: 100, 64KiB, 1MiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("`{text}` is not a size"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_parse_with_units() {
        assert_eq!(seconds("20s"), Ok(20.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("1h30m"), Ok(5400.0));
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("64KiB"), Ok(65536));
        assert_eq!(bytes("1 MiB"), Ok(1 << 20));
        for text in ["", "20", "-3s", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        for text in ["", "x", "1.5", "-1", "99999999999999999999", "9999999999999g"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

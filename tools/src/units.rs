//! Parsing and formatting of sizes, durations and times in arguments and configuration files.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// A size in bytes, parsed from `1048576`, `64KiB`, `1.5 GiB`, `2GB`. `K`, `M`, `G`, `T` alone are powers of 1024.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at(split);
        let wrong = || format!("`{text}` is not a size; examples: 512MiB, 2GiB, 1048576 (bytes)");
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(wrong);
        }
        let fraction: f64 = digits.parse().map_err(|_| wrong())?;
        let bytes = fraction * factor as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            let whole = self.0 >> shift;
            if whole > 0 && whole << shift == self.0 {
                return write!(f, "{whole}{unit}");
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Parses a count.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a count; example: 1000"))
}

/// Parses a duration with units: `500ms`, `90s`, `1h30m`, `7d` (a day is 24 hours).
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a duration; examples: 500ms, 90s, 1h30m, 7d"))?;
    span.to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("`{text}` has no fixed length; use days, hours, minutes, seconds"))
}

/// Parses a time: `@1735689600000` (milliseconds), `@-90m` (90 minutes before `now`), `2025-01-01`, `2025-01-01T00:00:00Z`. UTC unless it has
/// an offset. Returns milliseconds since the Unix epoch.
pub(crate) fn timestamp_ms(text: &str, now: Timestamp) -> Result<i64, String> {
    if let Some(rest) = text.strip_prefix('@') {
        if let Ok(millis) = rest.parse::<i64>()
            && millis >= 0
        {
            return Ok(millis);
        }
        if let Some(ago) = rest.strip_prefix('-') {
            let then = now.checked_sub(duration(ago)?).map_err(|e| e.to_string())?;
            return Ok(then.as_millisecond());
        }
        return Err(format!(
            "`{text}`: expected milliseconds since 1970 or -DURATION after @, such as @-90m"
        ));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let civil: jiff::civil::DateTime = text.parse().map_err(|_| {
        format!("`{text}` is not a time; examples: 2025-01-31T08:00:00Z, @1738310400000, @-90m")
    })?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).map(|z| z.timestamp().as_millisecond()).map_err(|e| e.to_string())
}

/// Formats a number of bytes, rounded: `1.4 GiB`, `37 KiB`, `512 B`.
pub(crate) fn readable_bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = 1_u64 << shift;
        if bytes >= whole {
            let value = bytes as f64 / whole as f64;
            return if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 64 << 10),
            ("64k", 64 << 10),
            ("1.5 GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            (" 7 MB ", 7_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "x", "-1", "1.2.3M", "9999999999T", "5 apples"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_formatted_size_parses_to_the_same_size() {
        for bytes in [0, 1, 1024, 1025, 3 << 29, 64 << 30, u64::MAX] {
            let size = ByteSize(bytes);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
    }

    #[test]
    fn durations_parse_with_units_only() {
        assert_eq!(duration("7d"), Ok(SignedDuration::from_hours(168)));
        assert_eq!(duration("1h30m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(duration("500ms"), Ok(SignedDuration::from_millis(500)));
        for text in ["", "7", "1mo", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_utc_unless_they_have_an_offset() {
        let now: Timestamp = "2025-06-01T12:00:00Z".parse().expect("a literal");
        for (text, millis) in [
            ("@1735689600000", 1_735_689_600_000),
            ("2025-01-01", 1_735_689_600_000),
            ("2025-01-01T00:00:00Z", 1_735_689_600_000),
            ("2025-01-01T01:00:00+01:00", 1_735_689_600_000),
            ("2025-01-01 00:00:00.250", 1_735_689_600_250),
            ("@-90m", now.as_millisecond() - 90 * 60 * 1000),
        ] {
            assert_eq!(timestamp_ms(text, now), Ok(millis), "{text}");
        }
        for text in ["", "@", "@x", "@-", "yesterday", "2025-13-01"] {
            assert!(timestamp_ms(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn byte_counts_are_rounded_for_display() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10 << 10, "10 KiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(readable_bytes(bytes), text);
        }
    }
}

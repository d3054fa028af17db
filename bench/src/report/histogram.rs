//! Serialization of histograms, in formats that other tools read: embedded in JSON, percentile files and interval logs.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::Percentiles;
use crate::outcome::{Interval, SIGNIFICANT_DIGITS};

/// Nanoseconds per microsecond, the unit of percentile files.
const NS_PER_HGRM_UNIT: f64 = 1e3;

/// Nanoseconds per millisecond, the unit of the maximum in interval logs.
const NS_PER_HLOG_UNIT: f64 = 1e6;

/// Number of lines of a percentile file for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Creates an auto-resizing histogram.
pub fn empty() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("a valid number of digits")
}

/// Encodes a histogram in HdrHistogram's V2 format, deflated, in base64.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("writing to a vector does not fail");
    BASE64_STANDARD.encode(bytes)
}

/// Decodes a histogram encoded by [`encode`]. Returns `None` if it is invalid.
pub fn decode(text: &str) -> Option<Histogram<u64>> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

impl Percentiles {
    /// Summarises a histogram. Returns `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
            count: histogram.len(),
            histogram: Some(encode(histogram)),
        })
    }

    /// Returns the full histogram, if it is included.
    pub fn full(&self) -> Option<Histogram<u64>> {
        decode(self.histogram.as_deref()?)
    }

    /// Merges the percentiles of several runs by their histograms, as percentiles cannot be averaged. Returns `None` if a histogram is
    /// missing.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut all = empty();
        for part in parts {
            all.add(part.full()?).expect("the histogram is auto-resizing");
        }
        Self::of(&all)
    }
}

/// Formats a percentile file (`.hgrm`) for HdrHistogram's tools, in microseconds.
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_HGRM_UNIT;
        let quantile = step.quantile_iterated_to();
        _ = write!(text, "{value:12.3} {quantile:2.12} {count:10}");
        // The last line has no distance to 100 %.
        if quantile < 1.0 {
            _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_HGRM_UNIT, histogram.stdev() / NS_PER_HGRM_UNIT);
    let max = histogram.max() as f64 / NS_PER_HGRM_UNIT;
    let sub_buckets = (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len());
    _ = writeln!(text, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", histogram.buckets());
    text
}

/// Formats an interval log (`.hlog`) for HdrHistogram's tools, with `tag` on each line.
pub fn hlog(started_ms: i64, tag: &str, intervals: &[Interval]) -> String {
    let started = Duration::from_millis(started_ms.max(0).unsigned_abs());
    let utc = jiff::Timestamp::from_millisecond(started_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let mut text = String::from("#[Histogram log format version 1.3]\n");
    _ = writeln!(text, "#[BaseTime: {:.3} (seconds since epoch)]", started.as_secs_f64());
    _ = writeln!(text, "#[StartTime: {:.3} (seconds since epoch), {utc}]", started.as_secs_f64());
    text.push_str(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    // Commas and white space would end the tag.
    let tag: String = tag.chars().map(|c| if c == ',' || c.is_whitespace() { '-' } else { c }).collect();
    for interval in intervals {
        _ = writeln!(
            text,
            "Tag={tag},{:.3},{:.3},{:.3},{}",
            interval.at.as_secs_f64(),
            interval.took.as_secs_f64(),
            interval.produce.max() as f64 / NS_PER_HLOG_UNIT,
            encode(&interval.produce)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = empty();
        for value in values {
            histogram.record(value).expect("it grows");
        }
        histogram
    }

    #[test]
    fn merged_percentiles_are_those_of_all_records() {
        let quick = Percentiles::of(&histogram((0..990).map(|_| 1_000))).expect("not empty");
        let slow = Percentiles::of(&histogram((0..10).map(|_| 1_000_000))).expect("not empty");
        let both = Percentiles::merged([&quick, &slow]).expect("both have histograms");
        assert_eq!((both.count, both.p50, both.p99), (1000, 1_000, 1_000));
        assert!(both.p999 >= 1_000_000 && both.max >= 1_000_000);
        let short = Percentiles { histogram: None, ..quick.clone() };
        assert!(Percentiles::merged([&quick, &short]).is_none());
        assert!(Percentiles::of(&empty()).is_none());
    }

    #[test]
    fn an_invalid_histogram_is_rejected() {
        let text = encode(&histogram([1, 2, 3]));
        assert_eq!(decode(&text).expect("one").len(), 3);
        assert!(decode(&text[..text.len() / 2]).is_none());
        assert!(decode("AAAA").is_none());
        assert!(decode("not base64").is_none());
    }

    #[test]
    fn a_percentile_file_has_the_columns_and_footer_of_the_format() {
        let text = hgrm(&histogram((1..=4).map(|i| i * 1_000)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        let end = lines.len();
        assert_eq!(lines[end - 4], "       4.001 1.000000000000          4");
        assert_eq!(lines[end - 3], "#[Mean    =        2.501, StdDeviation   =        1.118]");
        assert_eq!(lines[end - 2], "#[Max     =        4.001, Total count    =            4]");
        assert_eq!(lines[end - 1], "#[Buckets =            2, SubBuckets     =         2048]");
    }

    #[test]
    fn an_interval_log_has_a_line_for_each_interval_with_its_tag_and_histogram() {
        let interval = |second, value| Interval {
            at: Duration::from_secs(second),
            took: Duration::from_secs(1),
            records: 1,
            bytes: 1,
            produce: histogram([value]),
        };
        let text = hlog(1_700_000_000_500, "few big,1", &[interval(0, 2_000_000), interval(1, 5_000_000)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "#[Histogram log format version 1.3]");
        assert_eq!(lines[1], "#[BaseTime: 1700000000.500 (seconds since epoch)]");
        let parts: Vec<&str> = lines[5].split(',').collect();
        assert_eq!(parts[..3], ["Tag=few-big-1", "1.000", "1.000"]);
        assert!(parts[3].starts_with("5.0"), "{}", parts[3]);
        assert_eq!(decode(parts[4]).expect("a histogram").len(), 1);
        assert_eq!(lines.len(), 6);
    }
}

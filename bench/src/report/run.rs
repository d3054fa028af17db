//! Conversion of the outcome of a run to its entry in the report.

use super::{IntervalRow, Latencies, Limit, Percentiles, ProcessUse, Run};
use crate::outcome::{Interval, Outcome, Usage};

/// Bytes in the gigabyte of "CPU-seconds per GB".
pub const BYTES_PER_GB: f64 = 1e9;

impl Run {
    /// Converts an outcome. [`Run::set_limit`] adds the limit.
    pub fn of(outcome: &Outcome) -> Self {
        let scenario = &outcome.scenario;
        let seconds = outcome.measured.as_secs_f64();
        let uses = |usage: &Usage| ProcessUse::of(usage, outcome.bytes, seconds);
        Self {
            scenario: scenario.name.clone(),
            backend: outcome.backend.clone(),
            acknowledgement: outcome.acknowledgement.clone(),
            run: outcome.run,
            load: if scenario.load.rate > 0 { "open" } else { "closed" }.to_owned(),
            rate: scenario.load.rate,
            partitions: scenario.topic.partitions,
            record_bytes: scenario.record.bytes as u64,
            keys: scenario.record.keys,
            producers: scenario.producers.count,
            batch_bytes: scenario.producers.batch_bytes as u64,
            batch_records: scenario.producers.batch_records,
            linger_us: scenario.producers.linger_us,
            in_flight: scenario.producers.in_flight,
            outstanding: scenario.load.outstanding,
            compression: format!("{:?}", scenario.producers.compression).to_lowercase(),
            tail_consumers: scenario.consumers.tail,
            cold_consumers: scenario.consumers.cold,
            started_ms: outcome.started_ms,
            warmup_seconds: scenario.load.warmup_s,
            seconds,
            records: outcome.records,
            bytes: outcome.bytes,
            records_per_second: ratio(outcome.records as f64, seconds),
            bytes_per_second: ratio(outcome.bytes as f64, seconds),
            limit_name: None,
            limit_percent: None,
            latency_ns: Latencies {
                produce: Percentiles::of(&outcome.produce),
                end_to_end: Percentiles::of(&outcome.end_to_end),
                service: Percentiles::of(&outcome.service),
                send_delay: Percentiles::of(&outcome.send_delay),
            },
            errors: outcome.errors.clone(),
            lost: outcome.lost,
            duplicated: outcome.duplicated,
            reordered: outcome.reordered,
            saturated: outcome.saturated.is_some(),
            saturated_why: outcome.saturated.clone(),
            longest_gap_ns: outcome.longest_gap.as_nanos().min(u128::from(u64::MAX)) as u64,
            tail_records: outcome.tail_records,
            cold_limit_percent: None,
            cold_bytes_per_second: outcome.cold.map(|cold| ratio(cold.bytes as f64, cold.took.as_secs_f64())),
            generator: uses(&outcome.generator),
            broker: outcome.broker.as_ref().map(uses),
            intervals: outcome.intervals.iter().map(IntervalRow::of).collect(),
        }
    }

    /// Sets the limit of the machine that applies to the consumers of the backlog, in bytes per second.
    pub fn set_backlog_limit(&mut self, limit: &Limit) {
        let percent = |rate: f64| (limit.value > 0.0).then(|| 100.0 * rate / limit.value);
        self.cold_limit_percent = self.cold_bytes_per_second.and_then(percent);
    }

    /// Sets the limit of the machine that applies to this run. Its unit determines whether it is compared with bytes (`B/s`, `kB/s`, `MB/s`,
    /// `GB/s`) or records (any other unit).
    pub fn set_limit(&mut self, limit: &Limit) {
        let bytes = match limit.unit.as_str() {
            "B/s" => Some(1.0),
            "kB/s" => Some(1e3),
            "MB/s" => Some(1e6),
            "GB/s" => Some(1e9),
            _ => None,
        };
        let reached = bytes.map_or(self.records_per_second, |unit| self.bytes_per_second / unit);
        self.limit_name = Some(limit.name.clone());
        self.limit_percent = (limit.value > 0.0).then(|| 100.0 * reached / limit.value);
    }
}

impl ProcessUse {
    fn of(usage: &Usage, bytes: u64, seconds: f64) -> Self {
        Self {
            cpu_seconds: usage.cpu_seconds,
            cpu_seconds_per_gb: ratio(usage.cpu_seconds, bytes as f64 / BYTES_PER_GB),
            rss_bytes_max: usage.rss_bytes_max,
            context_switches: usage.context_switches,
            bytes_written: usage.bytes_written,
            bytes_written_per_byte: ratio(usage.bytes_written as f64, bytes as f64),
            syncs: usage.syncs,
            syncs_per_second: usage.syncs.map(|syncs| ratio(syncs as f64, seconds)),
        }
    }
}

impl IntervalRow {
    fn of(interval: &Interval) -> Self {
        Self {
            at_seconds: interval.at.as_secs_f64(),
            seconds: interval.took.as_secs_f64(),
            records: interval.records,
            bytes: interval.bytes,
            p50_ns: interval.produce.value_at_quantile(0.5),
            p99_ns: interval.produce.value_at_quantile(0.99),
            max_ns: interval.produce.max(),
        }
    }
}

/// Divides, with zero for division by zero, as JSON has no infinity.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::report::histogram::empty;
    use crate::scenario::{Arrival, Compression, Consumers, Load, Producers, RecordShape, Scenario, Topic};

    /// Returns an outcome of ten seconds with 100,000 records of 1,000 bytes each second. Latencies are `run` milliseconds, and ten times that
    /// for one in a hundred records.
    pub(in crate::report) fn outcome(run: u32) -> Outcome {
        let mut produce = empty();
        produce.record_n(u64::from(run) * 1_000_000, 990_000).expect("it grows");
        produce.record_n(u64::from(run) * 10_000_000, 10_000).expect("it grows");
        let interval = |second: u64| Interval {
            at: Duration::from_secs(second),
            took: Duration::from_secs(1),
            records: 100_000,
            bytes: 100_000_000,
            produce: produce.clone(),
        };
        let producers = Producers {
            count: 2,
            batch_bytes: 1 << 20,
            batch_records: 0,
            linger_us: 0,
            in_flight: 5,
            compression: Compression::None,
        };
        let load = Load {
            outstanding: 2_000,
            rate: 0,
            arrival: Arrival::Constant,
            warmup_s: 2.0,
            duration_s: 10.0,
            runs: 3,
        };
        Outcome {
            scenario: Scenario {
                name: "few-big".into(),
                about: "one partition, large batches".into(),
                topic: Topic { partitions: 1, replicas: 1, config: BTreeMap::new(), idle_partitions: 0 },
                record: RecordShape { bytes: 1_000, keys: 0 },
                producers,
                load,
                consumers: Consumers { tail: 1, cold: 0, backlog_bytes: 0 },
                disturbance: None,
            },
            backend: "native".into(),
            acknowledgement: "on stable storage of 1 of 1 replicas".into(),
            run,
            started_ms: 1_700_000_000_000,
            measured: Duration::from_secs(10),
            records: 1_000_000 + u64::from(run) * 10_000,
            bytes: 1_000_000_000 + u64::from(run) * 10_000_000,
            tail_records: 1_000_000,
            cold: None,
            service: produce.clone(),
            send_delay: empty(),
            end_to_end: produce.clone(),
            produce: produce.clone(),
            errors: BTreeMap::new(),
            lost: 0,
            duplicated: 0,
            reordered: 0,
            saturated: None,
            overloaded: None,
            unchecked: None,
            longest_gap: Duration::from_millis(12),
            intervals: (0..10).map(interval).collect(),
            generator: Usage { cpu_seconds: 0.5, rss_bytes_max: 50_000_000, ..Usage::default() },
            broker: Some(Usage {
                cpu_seconds: 0.25,
                rss_bytes_max: 400_000_000,
                context_switches: 12_000,
                bytes_written: 1_010_000_000,
                syncs: Some(5_000),
            }),
        }
    }

    #[test]
    fn rates_and_ratios_count_acknowledged_records() {
        let outcome = Outcome { records: 1_000_000, bytes: 1_000_000_000, ..outcome(1) };
        let run = Run::of(&outcome);
        assert!((run.records_per_second - 1e5).abs() < 1e-6);
        assert!((run.bytes_per_second - 1e8).abs() < 1e-3);
        let broker = run.broker.expect("a broker");
        assert!((broker.cpu_seconds_per_gb - 0.25).abs() < 1e-9);
        assert!((broker.bytes_written_per_byte - 1.01).abs() < 1e-9);
        assert_eq!(broker.syncs_per_second, Some(500.0));
        assert_eq!(run.load, "closed");
        assert!(run.latency_ns.send_delay.is_none());
        assert_eq!(run.intervals.len(), 10);
    }

    #[test]
    fn a_run_without_acknowledgements_has_zero_rates_and_no_latencies() {
        let run = Run::of(&Outcome { records: 0, bytes: 0, produce: empty(), ..outcome(1) });
        let broker = run.broker.expect("a broker");
        assert!(run.latency_ns.produce.is_none());
        assert!(run.bytes_per_second == 0.0 && broker.cpu_seconds_per_gb == 0.0);
    }

    #[test]
    fn the_unit_of_the_limit_selects_bytes_or_records() {
        let mut run = Run { records_per_second: 5e4, bytes_per_second: 1e9, ..Run::default() };
        let limit = |value, unit: &str| Limit { name: "it".into(), value, unit: unit.into() };
        let mut percent = |limit: &Limit| {
            run.set_limit(limit);
            run.limit_percent
        };
        assert_eq!(percent(&limit(2e9, "B/s")), Some(50.0));
        assert_eq!(percent(&limit(4_000.0, "MB/s")), Some(25.0));
        assert_eq!(percent(&limit(1e5, "records/s")), Some(50.0));
        assert_eq!(percent(&limit(0.0, "B/s")), None);
    }
}

//! The named limits of the machine, and the limit that applies to each workload. [`highwater_runtime::baseline`] measures them with the
//! simplest code that reaches them.

mod command;

use std::path::Path;
use std::time::Duration;

use highwater_runtime::baseline::{
    Disk, Durable, Exchange, Measured, Pipeline, Reads, Space, Stream, Writes, checksum, exchange,
    memory_copy, mesh_round_trip, stream, wake_up,
};

pub use command::LimitsCommand;
pub(crate) use command::positive;

use crate::BenchError;
use crate::report;
use crate::scenario::Scenario;

/// Numbers of connections of the loopback limits.
const CONNECTIONS: [usize; 3] = [1, 16, 256];

/// Frame sizes of the loopback limits, in bytes.
const FRAME_BYTES: [usize; 4] = [64, 4 << 10, 64 << 10, 1 << 20];

/// Size of a reply in bytes, whatever the size of the request.
const REPLY_BYTES: usize = 64;

/// Sizes of large writes in bytes, and numbers of writes in flight.
const WRITE_BYTES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const WRITE_DEPTHS: [usize; 3] = [1, 2, 8];

/// Size of small writes in bytes, and numbers of writes in flight.
const SMALL_BYTES: usize = 4 << 10;
const SMALL_DEPTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Size of large reads in bytes, and numbers of reads in flight.
const READ_BYTES: usize = 1 << 20;
const READ_DEPTHS: [usize; 2] = [1, 4];

/// Sizes of checksummed data, in bytes.
const CHECKSUM_BYTES: [usize; 3] = [128, 4 << 10, 1 << 20];

/// Divisor of the measuring time for limits that no workload is compared with. They only explain the others.
const EXPLANATORY_DIVISOR: u32 = 5;

/// Number of unacknowledged records, over all producers, above which each connection has more than one request in flight.
const PIPELINED_RECORDS_MIN: u64 = 1024;

/// A limit of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Name, made of what is measured, size, connections (`c`) or depth (`d`), durability and space.
    pub name: String,
    probe: Probe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    Pipeline(Pipeline),
    Small(Exchange),
    Stream(Stream),
    Request(Exchange),
    Writes(Writes),
    Reads(Reads),
    Checksum(usize),
    Copy(usize),
    Mesh { busy: bool },
    Wake,
}

/// Measures limits. Creates the written disk space only once.
pub struct Machine {
    disk: Disk,
}

impl Machine {
    /// Creates a machine that uses unnamed files in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { disk: Disk::new(dir) }
    }

    /// Measures a limit for `duration`, or for a fifth of it if no workload is compared with the limit.
    pub fn measure(&mut self, limit: &Limit, duration: Duration) -> Result<Measured, BenchError> {
        let shorter = duration / EXPLANATORY_DIVISOR;
        let measured = match limit.probe {
            Probe::Pipeline(pipeline) => pipeline.measure(&mut self.disk, duration),
            Probe::Small(small) => exchange(small, Some(&mut self.disk), duration),
            Probe::Stream(streams) => stream(streams, shorter),
            Probe::Request(requests) => exchange(requests, None, shorter),
            Probe::Writes(writes) => self.disk.writes(writes, shorter),
            Probe::Reads(reads) => self.disk.reads(reads, shorter),
            Probe::Checksum(bytes) => Ok(checksum(bytes, shorter)),
            Probe::Copy(bytes) => Ok(memory_copy(bytes, shorter)),
            Probe::Mesh { busy } => mesh_round_trip(busy, shorter),
            Probe::Wake => wake_up(shorter),
        };
        measured.map_err(|e| BenchError::failed(format_args!("limit {}: {e}", limit.name)))
    }
}

impl Limit {
    fn new(name: impl Into<String>, probe: Probe) -> Self {
        Self { name: name.into(), probe }
    }

    /// Returns the entry of the limit in a report.
    pub fn reported(&self, measured: &Measured) -> report::Limit {
        report::Limit { name: self.name.clone(), value: measured.value, unit: measured.unit.name().into() }
    }
}

/// Returns the limit that applies to a workload: small durable requests for batches of one record, otherwise large batches.
pub fn for_scenario(scenario: &Scenario) -> Limit {
    let producers = &scenario.producers;
    if producers.batch_records != 1 {
        return pipeline();
    }
    let outstanding = u64::from(producers.count) * u64::from(scenario.load.outstanding);
    if outstanding > PIPELINED_RECORDS_MIN { small(16) } else { small(1) }
}

/// Returns the limit that applies to consumers of a backlog: the disk's sequential reads.
pub fn for_backlog() -> Limit {
    reads(READ_DEPTHS[READ_DEPTHS.len() - 1])
}

fn pipeline() -> Limit {
    Limit::new("pipeline", Probe::Pipeline(Pipeline::new(Space::Written)))
}

fn small(in_flight: usize) -> Limit {
    let name = if in_flight == 1 { "pipeline-small".into() } else { format!("pipeline-small-{in_flight}") };
    Limit::new(name, Probe::Small(Exchange::small(in_flight)))
}

/// Returns all limits, starting with those that workloads are compared with.
pub fn all() -> Vec<Limit> {
    let fresh = Limit::new("pipeline-fresh", Probe::Pipeline(Pipeline::new(Space::Fresh)));
    let mut limits = vec![pipeline(), fresh, small(1), small(16)];
    for connections in CONNECTIONS {
        for frame_bytes in FRAME_BYTES {
            let name = format!("stream-{}-c{connections}", size(frame_bytes));
            limits.push(Limit::new(name, Probe::Stream(Stream { connections, frame_bytes })));
        }
        for request_bytes in FRAME_BYTES {
            let name = format!("request-{}-c{connections}", size(request_bytes));
            let requests = Exchange { connections, in_flight: 1, request_bytes, reply_bytes: REPLY_BYTES };
            limits.push(Limit::new(name, Probe::Request(requests)));
        }
    }
    for space in [Space::Written, Space::Fresh] {
        for durable in [Durable::EachWrite, Durable::SyncPerRound, Durable::No] {
            for bytes in WRITE_BYTES {
                limits.extend(WRITE_DEPTHS.map(|depth| writes(Writes { bytes, depth, durable, space })));
            }
        }
    }
    for durable in [Durable::EachWrite, Durable::SyncPerRound] {
        let small = |depth| writes(Writes { bytes: SMALL_BYTES, depth, durable, space: Space::Written });
        limits.extend(SMALL_DEPTHS.map(small));
    }
    limits.extend(READ_DEPTHS.map(reads));
    for bytes in CHECKSUM_BYTES {
        limits.push(Limit::new(format!("crc32c-{}", size(bytes)), Probe::Checksum(bytes)));
    }
    limits.push(Limit::new("copy-1MiB", Probe::Copy(1 << 20)));
    limits.push(Limit::new("mesh-asleep", Probe::Mesh { busy: false }));
    limits.push(Limit::new("mesh-busy", Probe::Mesh { busy: true }));
    limits.push(Limit::new("wake-eventfd", Probe::Wake));
    limits
}

fn reads(depth: usize) -> Limit {
    let name = format!("read-{}-d{depth}", size(READ_BYTES));
    Limit::new(name, Probe::Reads(Reads { bytes: READ_BYTES, depth }))
}

fn writes(writes: Writes) -> Limit {
    let durable = match writes.durable {
        Durable::EachWrite => "dsync",
        Durable::SyncPerRound => "sync",
        Durable::No => "plain",
    };
    let space = if writes.space == Space::Fresh { "-fresh" } else { "" };
    let name = format!("write-{}-d{}-{durable}{space}", size(writes.bytes), writes.depth);
    Limit::new(name, Probe::Writes(writes))
}

fn size(bytes: usize) -> String {
    match bytes {
        b if b >= 1 << 20 => format!("{}MiB", b >> 20),
        b if b >= 1 << 10 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    }
}

/// Returns the limits with these names. A name that is not a limit selects all limits that begin with it. No names select all.
pub fn named(names: &[String]) -> Result<Vec<Limit>, BenchError> {
    let all = all();
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen: Vec<Limit> = Vec::new();
    for name in names {
        let exact = all.iter().any(|limit| limit.name == *name);
        let matching =
            all.iter().filter(|limit| if exact { limit.name == *name } else { limit.name.starts_with(name) });
        let before = chosen.len();
        for limit in matching.clone() {
            if !chosen.contains(limit) {
                chosen.push(limit.clone());
            }
        }
        if before == chosen.len() && matching.count() == 0 {
            return Err(BenchError::failed(format_args!(
                "no limit {name}; names begin with pipeline, stream, request, write, read, crc32c, copy, mesh or wake, and \
                 `highwater bench limits` without --only shows all"
            )));
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    fn names(prefixes: &[&str]) -> Vec<String> {
        let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        named(&prefixes).expect("matching limits").into_iter().map(|limit| limit.name).collect()
    }

    #[test]
    fn the_names_of_limits_are_unique() {
        let mut names = names(&[]);
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_name_selects_one_limit_and_a_prefix_selects_all_that_begin_with_it() {
        assert_eq!(names(&["pipeline"]), ["pipeline"]);
        assert_eq!(names(&["pipeline-s"]), ["pipeline-small", "pipeline-small-16"]);
        assert_eq!(names(&["read", "read-1MiB-d4", "read"]), ["read-1MiB-d1", "read-1MiB-d4"]);
        assert_eq!(names(&["write-4KiB"]).len(), 2 * SMALL_DEPTHS.len());
        let e = named(&["speed".into()]).expect_err("no such limit").to_string();
        assert!(e.contains("no limit speed"), "{e}");
    }

    #[test]
    fn every_scenario_is_compared_with_an_existing_limit() {
        let all = all();
        for scenario in scenarios::all() {
            assert!(all.contains(&for_scenario(&scenario)), "{}", scenario.name);
        }
        let limit_of = |name: &str| for_scenario(&scenarios::find(name).expect("built in")).name;
        assert_eq!(limit_of("few-big"), "pipeline");
        assert_eq!(limit_of("small-batches"), "pipeline-small-16");
        assert!(all.contains(&for_backlog()));
    }

    #[test]
    fn a_measured_limit_is_reported_with_its_unit() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let limit = &named(&["crc32c-4KiB".into()]).expect("one limit")[0];
        let measured = Machine::new(dir.path()).measure(limit, Duration::from_millis(5)).expect("measured");
        let reported = limit.reported(&measured);
        assert_eq!((reported.name.as_str(), reported.unit.as_str()), ("crc32c-4KiB", "B/s"));
        assert!(reported.value > 0.0);
    }
}

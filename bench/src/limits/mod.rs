//! The machine's own limits by name, and which of them a workload runs into. They are measured by [`highwater_runtime::baseline`], with
//! the simplest code that reaches them.

mod command;

use std::path::Path;
use std::time::Duration;

use highwater_runtime::baseline::{
    Disk, Durable, Exchange, Measured, Pipeline, Reads, Space, Stream, Writes, checksum, exchange,
    memory_copy, mesh_round_trip, stream, wake_up,
};

pub use command::LimitsCommand;

use crate::BenchError;
use crate::report;
use crate::scenario::Scenario;

/// Connections of the loopback limits.
const CONNECTIONS: [usize; 3] = [1, 16, 256];

/// Bytes of their frames.
const FRAME_BYTES: [usize; 4] = [64, 4 << 10, 64 << 10, 1 << 20];

/// Bytes of a reply, which is short whatever was asked.
const REPLY_BYTES: usize = 64;

/// Bytes of large writes, and how many of them are in flight.
const WRITE_BYTES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const WRITE_DEPTHS: [usize; 3] = [1, 2, 8];

/// The same of small ones.
const SMALL_BYTES: usize = 4 << 10;
const SMALL_DEPTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Bytes of large reads, and how many of them are in flight.
const READ_BYTES: usize = 1 << 20;
const READ_DEPTHS: [usize; 2] = [1, 4];

/// Bytes under a checksum.
const CHECKSUM_BYTES: [usize; 3] = [128, 4 << 10, 1 << 20];

/// Of the given time, what limits take that are only there to explain those that workloads run into: a fifth.
const SHORTER: u32 = 5;

/// Records not acknowledged, over all producers, from which on a workload has more than one request of each connection in flight.
const DEEP: u64 = 1024;

/// A limit of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Its name: what, bytes, connections (`c`) or depth (`d`), how durable, where.
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

/// Where limits are measured: its written space is made once.
pub struct Machine {
    disk: Disk,
}

impl Machine {
    /// With files without names in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { disk: Disk::new(dir) }
    }

    /// Measures for this long, or a fifth of it where the limit is none that a workload runs into.
    pub fn measure(&mut self, limit: &Limit, duration: Duration) -> Result<Measured, BenchError> {
        let shorter = duration / SHORTER;
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

    /// As the report has it.
    pub fn reported(&self, measured: &Measured) -> report::Limit {
        report::Limit { name: self.name.clone(), value: measured.value, unit: measured.unit.name().into() }
    }
}

/// The limit that a workload runs into: batches of one record that of small durable requests, others that of large batches.
pub fn for_scenario(scenario: &Scenario) -> Limit {
    let producers = &scenario.producers;
    if producers.batch_records != 1 {
        return pipeline();
    }
    let unanswered = u64::from(producers.count) * u64::from(scenario.load.outstanding);
    if unanswered > DEEP { small(16) } else { small(1) }
}

fn pipeline() -> Limit {
    Limit::new("pipeline", Probe::Pipeline(Pipeline::new(Space::Written)))
}

fn small(in_flight: usize) -> Limit {
    let name = if in_flight == 1 { "pipeline-small".into() } else { format!("pipeline-small-{in_flight}") };
    Limit::new(name, Probe::Small(Exchange::small(in_flight)))
}

/// All limits, those that workloads run into first.
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
    for depth in READ_DEPTHS {
        let name = format!("read-{}-d{depth}", size(READ_BYTES));
        limits.push(Limit::new(name, Probe::Reads(Reads { bytes: READ_BYTES, depth })));
    }
    for bytes in CHECKSUM_BYTES {
        limits.push(Limit::new(format!("crc32c-{}", size(bytes)), Probe::Checksum(bytes)));
    }
    limits.push(Limit::new("copy-1MiB", Probe::Copy(1 << 20)));
    limits.push(Limit::new("mesh-asleep", Probe::Mesh { busy: false }));
    limits.push(Limit::new("mesh-busy", Probe::Mesh { busy: true }));
    limits.push(Limit::new("wake-eventfd", Probe::Wake));
    limits
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

/// The limits of these names; a name that is none stands for all that begin with it. No name: all.
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
                "there is no limit {name}; they begin with pipeline, stream, request, write, read, crc32c, copy, mesh or wake, and \
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

    fn names(of: &[&str]) -> Vec<String> {
        let of: Vec<String> = of.iter().map(ToString::to_string).collect();
        named(&of).expect("there are such limits").into_iter().map(|limit| limit.name).collect()
    }

    #[test]
    fn every_limit_has_a_name_of_its_own() {
        let mut names = names(&[]);
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_name_means_one_limit_and_a_beginning_all_of_its_kind_once() {
        assert_eq!(names(&["pipeline"]), ["pipeline"]);
        assert_eq!(names(&["pipeline-s"]), ["pipeline-small", "pipeline-small-16"]);
        assert_eq!(names(&["read", "read-1MiB-d4", "read"]), ["read-1MiB-d1", "read-1MiB-d4"]);
        assert_eq!(names(&["write-4KiB"]).len(), 2 * SMALL_DEPTHS.len());
        let e = named(&["speed".into()]).expect_err("no such limit").to_string();
        assert!(e.contains("no limit speed"), "{e}");
    }

    #[test]
    fn every_scenario_runs_into_a_limit_that_there_is() {
        let all = all();
        for scenario in scenarios::all() {
            assert!(all.contains(&for_scenario(&scenario)), "{}", scenario.name);
        }
        let of = |name: &str| for_scenario(&scenarios::find(name).expect("built in")).name;
        assert_eq!(of("few-big"), "pipeline");
        assert_eq!(of("small-batches"), "pipeline-small-16");
    }

    #[test]
    fn a_measured_limit_is_reported_with_its_unit() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let limit = &named(&["crc32c-4KiB".into()]).expect("there is one")[0];
        let measured = Machine::new(dir.path()).measure(limit, Duration::from_millis(5)).expect("measured");
        let reported = limit.reported(&measured);
        assert_eq!((reported.name.as_str(), reported.unit.as_str()), ("crc32c-4KiB", "B/s"));
        assert!(reported.value > 0.0);
    }
}

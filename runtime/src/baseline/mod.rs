//! Baselines: the limits of the machine itself, against which the broker's results are compared.
//!
//! The code here is as simple as possible: no protocol, no index, no log. A baseline that is too low would flatter the broker, so
//! each one is as fast as possible and can be verified with a common tool:
//!
//! | baseline | tool |
//! |---|---|
//! | [`stream`] | `iperf3 -s -1 -p 5299 & iperf3 -c 127.0.0.1 -p 5299 -l 1M -t 3` |
//! | [`Disk::writes`] | `fio --name=w --filename=FILE --size=512M --direct=1 --rw=write --bs=1M --ioengine=io_uring --iodepth=8 --time_based --runtime=3`, with `--sync=dsync` for durable ones; twice, so that the second overwrites what the first has written |
//! | [`Disk::reads`] | the same with `--rw=read` |

mod cpu;
mod crossing;
mod disk;
mod exchange;
mod meter;
mod pages;
mod pipeline;
mod ring;
mod scratch;
mod stream;

use std::io;

pub use cpu::{checksum, memory_copy};
pub use crossing::{mesh_round_trip, wake_up};
pub use disk::{Disk, Durable, Reads, Space, Writes};
pub use exchange::{Exchange, exchange};
pub use pipeline::Pipeline;
pub use scratch::{FRESH_BYTES_MAX, WRITTEN_BYTES};
pub use stream::{Stream, stream};

/// Unit of a measured value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes per second.
    BytesPerSecond,
    /// Operations per second.
    PerSecond,
    /// Nanoseconds per operation.
    Nanoseconds,
}

impl Unit {
    /// Returns the unit's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::BytesPerSecond => "B/s",
            Self::PerSecond => "1/s",
            Self::Nanoseconds => "ns",
        }
    }
}

/// A measured baseline.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// Processor time, if there are bytes or operations to divide it by.
    pub cpu: Option<Cpu>,
}

/// Seconds of processor time per GB, or per million operations.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cpu {
    /// Processor time of the side that stands for the broker, or of the only side.
    pub broker: f64,
    /// Processor time of the side that stands for the client.
    pub client: Option<f64>,
}

/// Why a baseline could not be measured.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct BaselineError {
    what: String,
    source: io::Error,
}

impl BaselineError {
    fn new(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self { what, source }
    }

    fn failed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), source: io::Error::other(why.into()) }
    }
}

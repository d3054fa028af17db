//! The machine's own limits, with the simplest code that reaches them: what results of the broker are a percentage of.
//!
//! Nothing here is a protocol, an index or a log. A slow limit flatters the broker that is compared with it, so each of these is as
//! fast as it could be made, and can be checked against a tool that everyone has:
//!
//! | limit | against |
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

/// What a value counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes a second.
    BytesPerSecond,
    /// Operations a second.
    PerSecond,
    /// Nanoseconds for one.
    Nanoseconds,
}

impl Unit {
    /// As reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BytesPerSecond => "B/s",
            Self::PerSecond => "1/s",
            Self::Nanoseconds => "ns",
        }
    }
}

/// A limit, measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// Processor time, where there are bytes or operations to divide it by.
    pub cpu: Option<Cpu>,
}

/// Seconds of processor time for each GB, or each million operations.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cpu {
    /// Of the side that stands for the broker. With only one side, its.
    pub broker: f64,
    /// Of the side that stands for the client.
    pub client: Option<f64>,
}

/// Why a limit could not be measured.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct LimitError {
    what: String,
    source: io::Error,
}

impl LimitError {
    fn new(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self { what, source }
    }

    fn refuse(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), source: io::Error::other(why.into()) }
    }
}

//! Direct sequential writes and reads, with a broker's queue depth.

use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use io_uring::{opcode, types};

use super::meter::{Meter, ThreadClock};
use super::pages::Pages;
use super::ring::{Done, Ring, all_of, outcome};
use super::scratch::{FRESH_BYTES_MAX, Scratch, WRITTEN_BYTES};
use super::{BaselineError, Cpu, Measured, Unit};

/// Writes up to this size are reported as operations, larger ones as bytes.
const OPERATIONS_UP_TO: usize = 4 << 10;

/// Bytes of each write that prepares written space.
const FILL_BYTES: usize = 1 << 20;

/// Number of those writes in flight.
const FILL_DEPTH: usize = 8;

/// State of the blocks that a write goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Blocks that were written before, as in a broker that has run for a while and reuses its space.
    Written,
    /// Blocks that are allocated but were never written.
    Fresh,
}

/// When a write counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durable {
    /// When the kernel reports it as written, durable or not.
    No,
    /// When it is durable; each write is durable by itself (`RWF_DSYNC`).
    EachWrite,
    /// When a round of `depth` writes and one `fdatasync` after it are done.
    SyncPerRound,
}

/// Sequential writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writes {
    /// Bytes of each write: whole pages.
    pub bytes: usize,
    /// Writes in flight.
    pub depth: usize,
    /// When a write counts as done.
    pub durable: Durable,
    /// State of the blocks that are written.
    pub space: Space,
}

/// Sequential reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reads {
    /// Bytes of each read: whole pages.
    pub bytes: usize,
    /// Reads in flight.
    pub depth: usize,
}

/// A directory on the disk under test, with written space that is prepared once.
pub struct Disk {
    dir: PathBuf,
    written_bytes: u64,
    fresh_bytes: u64,
    written: Option<Scratch>,
}

/// The scratch file of a measurement: the shared one, or one for this measurement only.
pub(super) enum Held<'a> {
    Kept(&'a Scratch),
    Own(Scratch),
}

impl Deref for Held<'_> {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        match self {
            Self::Kept(scratch) => scratch,
            Self::Own(scratch) => scratch,
        }
    }
}

impl Disk {
    /// Measures in this directory, with unnamed files. They take [`WRITTEN_BYTES`] for the lifetime of this value, and up to
    /// [`FRESH_BYTES_MAX`] more while fresh space is measured.
    pub fn new(dir: &Path) -> Self {
        Self::with_space(dir, WRITTEN_BYTES, FRESH_BYTES_MAX)
    }

    /// Like [`Disk::new`], with other sizes.
    pub fn with_space(dir: &Path, written_bytes: u64, fresh_bytes: u64) -> Self {
        Self { dir: dir.to_path_buf(), written_bytes, fresh_bytes, written: None }
    }

    pub(super) fn scratch(&mut self, space: Space) -> Result<Held<'_>, BaselineError> {
        if space == Space::Fresh {
            return Ok(Held::Own(Scratch::new(&self.dir, self.fresh_bytes)?));
        }
        let scratch = if let Some(scratch) = self.written.take() {
            scratch
        } else {
            let scratch = Scratch::new(&self.dir, self.written_bytes)?;
            fill(&scratch).map_err(BaselineError::new(format!("cannot write in {}", self.dir.display())))?;
            scratch
        };
        Ok(Held::Kept(self.written.insert(scratch)))
    }

    /// Measures writes: small ones in operations per second, others in bytes per second.
    pub fn writes(&mut self, writes: Writes, duration: Duration) -> Result<Measured, BaselineError> {
        let scratch = self.scratch(writes.space)?;
        let load = Load { bytes: writes.bytes, depth: writes.depth, kind: Kind::Write(writes.durable) };
        let around = writes.space == Space::Written;
        let result = Run::new(&scratch, load).and_then(|mut run| run.measure(duration, around));
        result.map_err(BaselineError::new("cannot measure direct writes"))
    }

    /// Measures reads of written space, in bytes per second.
    pub fn reads(&mut self, reads: Reads, duration: Duration) -> Result<Measured, BaselineError> {
        let scratch = self.scratch(Space::Written)?;
        let load = Load { bytes: reads.bytes, depth: reads.depth, kind: Kind::Read };
        let result = Run::new(&scratch, load).and_then(|mut run| run.measure(duration, true));
        result.map_err(BaselineError::new("cannot measure direct reads"))
    }
}

/// Writes the whole file once.
fn fill(scratch: &Scratch) -> io::Result<()> {
    let bytes = FILL_BYTES.min(scratch.bytes() as usize);
    let load = Load { bytes, depth: FILL_DEPTH, kind: Kind::Write(Durable::No) };
    let mut run = Run::new(scratch, load)?;
    while run.at < scratch.bytes() {
        run.start_free(scratch.bytes())?;
        run.wait()?;
    }
    run.drain()?;
    Ok(rustix::fs::fsync(scratch)?)
}

#[derive(Clone, Copy)]
struct Load {
    bytes: usize,
    depth: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write(Durable),
}

const SYNC: u64 = u64::MAX - 1;

struct Run<'a> {
    // Dropped first: it waits for the operations that use the other fields.
    ring: Ring,
    file: &'a Scratch,
    load: Load,
    buffers: Vec<Pages>,
    free: Vec<usize>,
    at: u64,
    count: u64,
    done: Vec<Done>,
}

impl<'a> Run<'a> {
    fn new(file: &'a Scratch, load: Load) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(64)?,
            file,
            load,
            buffers: (0..load.depth).map(|_| Pages::new(load.bytes)).collect(),
            free: (0..load.depth).rev().collect(),
            at: 0,
            count: 0,
            done: Vec::new(),
        })
    }

    /// Runs until the time is over, or until the space is used up unless it may start over at the beginning.
    fn measure(&mut self, duration: Duration, around: bool) -> io::Result<Measured> {
        let mut meter = Meter::start(duration);
        let clock = ThreadClock::start();
        let round = (self.load.bytes * self.load.depth) as u64;
        while !meter.is_over() {
            if self.at + round > self.file.bytes() {
                if !around {
                    break;
                }
                self.at = 0;
            }
            self.start_free(self.file.bytes())?;
            self.wait()?;
            if self.load.kind == Kind::Write(Durable::SyncPerRound) {
                self.drain()?;
                self.sync()?;
            }
            meter.sample(self.count);
        }
        self.drain()?;
        let (per_second, cpu) = (meter.per_second()?, clock.seconds());
        let bytes = self.load.bytes as f64;
        let (value, unit, parts) = if self.load.bytes <= OPERATIONS_UP_TO {
            (per_second, Unit::PerSecond, self.count as f64 / 1e6)
        } else {
            (per_second * bytes, Unit::BytesPerSecond, self.count as f64 * bytes / 1e9)
        };
        Ok(Measured { value, unit, cpu: Some(Cpu { broker: cpu / parts, client: None }) })
    }

    /// Starts an operation for every free buffer, as far as there is space.
    fn start_free(&mut self, end: u64) -> io::Result<()> {
        let file = types::Fd(self.file.as_raw_fd());
        while self.at + self.load.bytes as u64 <= end {
            let Some(buffer) = self.free.pop() else { break };
            let (memory, bytes) = (self.buffers[buffer].as_mut_ptr(), self.load.bytes as u32);
            let entry = match self.load.kind {
                Kind::Read => opcode::Read::new(file, memory, bytes).offset(self.at).build(),
                Kind::Write(durable) => {
                    let flags = if durable == Durable::EachWrite { libc::RWF_DSYNC } else { 0 };
                    opcode::Write::new(file, memory, bytes).offset(self.at).rw_flags(flags).build()
                }
            };
            // SAFETY: the buffer is not reused before the operation has completed, and is dropped after the ring.
            unsafe { self.ring.push(entry, buffer as u64)? };
            self.at += self.load.bytes as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = types::Fd(self.file.as_raw_fd());
        let entry = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the operation refers to no memory, and the file outlives the ring.
        unsafe { self.ring.push(entry, SYNC)? };
        self.drain()
    }

    fn drain(&mut self) -> io::Result<()> {
        while self.ring.in_flight() > 0 {
            self.wait()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        self.ring.wait(&mut self.done)?;
        for (name, result) in self.done.drain(..) {
            if name == SYNC {
                outcome(result)?;
            } else {
                all_of(result, self.load.bytes)?;
                self.free.push(name as usize);
                self.count += 1;
            }
        }
        Ok(())
    }
}

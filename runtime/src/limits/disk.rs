//! Direct sequential writes and reads, as deep as a broker's.

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
use super::{Cpu, LimitError, Measured, Unit};

/// Writes up to this size are told as operations, larger ones as bytes.
const OPERATIONS_UP_TO: usize = 4 << 10;

/// Bytes of one of the writes that make written space.
const FILL_BYTES: usize = 1 << 20;

/// Of those, how many are in flight.
const FILL_DEPTH: usize = 8;

/// What a write finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Blocks that were written before: those of a broker that has run for a while and uses its space again.
    Written,
    /// Blocks that are allocated and were never written.
    Fresh,
}

/// When a write counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durable {
    /// When the kernel says that it was written, wherever that is.
    No,
    /// When it is durable, each by itself (`RWF_DSYNC`).
    EachWrite,
    /// When a round of as many as the depth, and one `fdatasync` behind it, are done.
    SyncPerRound,
}

/// Sequential writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writes {
    /// Bytes of each: whole pages.
    pub bytes: usize,
    /// In flight.
    pub depth: usize,
    /// When one counts.
    pub durable: Durable,
    /// What they find.
    pub space: Space,
}

/// Sequential reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reads {
    /// Bytes of each: whole pages.
    pub bytes: usize,
    /// In flight.
    pub depth: usize,
}

/// A directory on the disk that is measured, and the written space in it, which is made once.
pub struct Disk {
    dir: PathBuf,
    written_bytes: u64,
    fresh_bytes: u64,
    written: Option<Scratch>,
}

/// A file to measure with: the one that is kept, or one for this measurement alone.
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
    /// Measures in this directory, with files that have no name. They take [`WRITTEN_BYTES`] as long as this value lives, and
    /// [`FRESH_BYTES_MAX`] more while fresh space is measured.
    pub fn new(dir: &Path) -> Self {
        Self::with_space(dir, WRITTEN_BYTES, FRESH_BYTES_MAX)
    }

    /// The same with other sizes.
    pub fn with_space(dir: &Path, written_bytes: u64, fresh_bytes: u64) -> Self {
        Self { dir: dir.to_path_buf(), written_bytes, fresh_bytes, written: None }
    }

    pub(super) fn scratch(&mut self, space: Space) -> Result<Held<'_>, LimitError> {
        if space == Space::Fresh {
            return Ok(Held::Own(Scratch::new(&self.dir, self.fresh_bytes)?));
        }
        let scratch = if let Some(scratch) = self.written.take() {
            scratch
        } else {
            let scratch = Scratch::new(&self.dir, self.written_bytes)?;
            fill(&scratch).map_err(LimitError::new(format!("cannot write in {}", self.dir.display())))?;
            scratch
        };
        Ok(Held::Kept(self.written.insert(scratch)))
    }

    /// Operations a second for small writes, bytes a second for others.
    pub fn writes(&mut self, writes: Writes, duration: Duration) -> Result<Measured, LimitError> {
        let scratch = self.scratch(writes.space)?;
        let way = Way { bytes: writes.bytes, depth: writes.depth, kind: Kind::Write(writes.durable) };
        let around = writes.space == Space::Written;
        let result = Run::new(&scratch, way).and_then(|mut run| run.measure(duration, around));
        result.map_err(LimitError::new("cannot measure direct writes"))
    }

    /// Bytes a second, of what was written before.
    pub fn reads(&mut self, reads: Reads, duration: Duration) -> Result<Measured, LimitError> {
        let scratch = self.scratch(Space::Written)?;
        let way = Way { bytes: reads.bytes, depth: reads.depth, kind: Kind::Read };
        let result = Run::new(&scratch, way).and_then(|mut run| run.measure(duration, true));
        result.map_err(LimitError::new("cannot measure direct reads"))
    }
}

/// Writes all of a file once.
fn fill(scratch: &Scratch) -> io::Result<()> {
    let bytes = FILL_BYTES.min(scratch.bytes() as usize);
    let way = Way { bytes, depth: FILL_DEPTH, kind: Kind::Write(Durable::No) };
    let mut run = Run::new(scratch, way)?;
    while run.at < scratch.bytes() {
        run.start_free(scratch.bytes())?;
        run.wait()?;
    }
    run.drain()?;
    Ok(rustix::fs::fsync(scratch)?)
}

#[derive(Clone, Copy)]
struct Way {
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
    // Dropped first: it waits for the operations that use the rest.
    ring: Ring,
    file: &'a Scratch,
    way: Way,
    buffers: Vec<Pages>,
    free: Vec<usize>,
    at: u64,
    count: u64,
    done: Vec<Done>,
}

impl<'a> Run<'a> {
    fn new(file: &'a Scratch, way: Way) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(64)?,
            file,
            way,
            buffers: (0..way.depth).map(|_| Pages::new(way.bytes)).collect(),
            free: (0..way.depth).rev().collect(),
            at: 0,
            count: 0,
            done: Vec::new(),
        })
    }

    /// Goes on until the time is over, or the space if it may not go around in it.
    fn measure(&mut self, duration: Duration, around: bool) -> io::Result<Measured> {
        let mut meter = Meter::start(duration);
        let clock = ThreadClock::start();
        let round = (self.way.bytes * self.way.depth) as u64;
        while !meter.is_over() {
            if self.at + round > self.file.bytes() {
                if !around {
                    break;
                }
                self.at = 0;
            }
            self.start_free(self.file.bytes())?;
            self.wait()?;
            if self.way.kind == Kind::Write(Durable::SyncPerRound) {
                self.drain()?;
                self.sync()?;
            }
            meter.look(self.count);
        }
        self.drain()?;
        let (per_second, cpu) = (meter.per_second()?, clock.seconds());
        let bytes = self.way.bytes as f64;
        let (value, unit, parts) = if self.way.bytes <= OPERATIONS_UP_TO {
            (per_second, Unit::PerSecond, self.count as f64 / 1e6)
        } else {
            (per_second * bytes, Unit::BytesPerSecond, self.count as f64 * bytes / 1e9)
        };
        Ok(Measured { value, unit, cpu: Some(Cpu { broker: cpu / parts, client: None }) })
    }

    /// Has every free buffer written or filled, as far as there is space.
    fn start_free(&mut self, end: u64) -> io::Result<()> {
        let file = types::Fd(self.file.as_raw_fd());
        while self.at + self.way.bytes as u64 <= end {
            let Some(buffer) = self.free.pop() else { break };
            let (place, bytes) = (self.buffers[buffer].as_mut_ptr(), self.way.bytes as u32);
            let entry = match self.way.kind {
                Kind::Read => opcode::Read::new(file, place, bytes).offset(self.at).build(),
                Kind::Write(durable) => {
                    let flags = if durable == Durable::EachWrite { libc::RWF_DSYNC } else { 0 };
                    opcode::Write::new(file, place, bytes).offset(self.at).rw_flags(flags).build()
                }
            };
            // SAFETY: the buffer is not given out again before the operation has completed, and dropped after the ring.
            unsafe { self.ring.push(entry, buffer as u64)? };
            self.at += self.way.bytes as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = types::Fd(self.file.as_raw_fd());
        let entry = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: names no memory, and the file outlives the ring.
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
                all_of(result, self.way.bytes)?;
                self.free.push(name as usize);
                self.count += 1;
            }
        }
        Ok(())
    }
}

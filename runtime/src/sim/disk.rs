//! The disk of a simulated node.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::blocks::{Block, Blocks, DiskImage, split};
use super::clock::SimClock;
use super::faults::{Damage, Fault, FaultKind, Faults};
use super::jobs::{blocks_of, heads};
use super::ledger::{CrashPolicy, Event, Inode, Ledger};
use super::record::Recording;
use super::rng::{SimRng, stream};
use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::fs::{FileId, OpenMode};
use crate::plane::{Completion, Durability, FileJob, Instant, Token, WRITE_BYTES_MAX};

/// Latency of operations, drawn uniformly from these ranges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Latency of a read.
    pub read: RangeInclusive<Duration>,
    /// Latency of a volatile write.
    pub write: RangeInclusive<Duration>,
    /// Latency of a durable write or a sync.
    pub sync: RangeInclusive<Duration>,
    /// Latency of a file job.
    pub job: RangeInclusive<Duration>,
}

impl Default for Latency {
    fn default() -> Self {
        let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
        Self {
            read: micros(20, 400),
            write: micros(10, 300),
            sync: micros(50, 2000),
            job: micros(500, 20_000),
        }
    }
}

/// Counts of the operations started on a disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DiskStats {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of those writes.
    pub bytes_written: u64,
    /// Syncs.
    pub syncs: u64,
    /// File jobs.
    pub jobs: u64,
    /// Bytes of the ranges that were punched.
    pub bytes_punched: u64,
}

/// A disk with files, a volatile cache, operations in flight and faults. Clones are handles to the same disk.
///
/// It checks its caller and panics on positions, lengths and addresses that direct I/O would reject, writes after the end of a
/// file or into a hole, overlapping writes in flight (to punch a hole is one), and files that are not open.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<State>>);

pub(super) struct State {
    pub(super) clock: SimClock,
    pub(super) rng: SimRng,
    pub(super) latency: Latency,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Faults,
    pub(super) ledger: Ledger,
    pub(super) files: BTreeMap<Inode, FileState>,
    pub(super) open: BTreeMap<FileId, (Inode, OpenMode)>,
    next_file: u32,
    next_inode: u32,
    next_op: u64,
    pub(super) in_flight: BTreeMap<(Instant, u64), InFlight>,
    recording: Option<Recording>,
    pub(super) stats: DiskStats,
}

/// The content of a file as reads see it.
pub(super) struct FileState {
    pub(super) path: PathBuf,
    pub(super) content: Blocks,
    /// Content of blocks before they were last written.
    pub(super) before: BTreeMap<usize, Option<Block>>,
    pub(super) unreadable: BTreeSet<usize>,
}

pub(super) struct InFlight {
    owner: u16,
    token: Token,
    pub(super) op: Op,
}

pub(super) enum Op {
    Write { inode: Inode, block: usize, data: Arc<[Block]>, requested: (Inode, usize), fails: Option<i32> },
    Read { inode: Inode, at: u64, buf: AlignedBuf },
    Sync { inode: Inode },
    Job { inode: Inode, job: FileJob },
    Punch { inode: Inode, block: usize, data: Arc<[Block]> },
}

impl SimDisk {
    /// Creates an empty disk.
    pub fn new(seed: u64) -> Self {
        Self::from_image(&DiskImage::default(), seed)
    }

    /// Creates a disk with this content.
    pub fn from_image(image: &DiskImage, seed: u64) -> Self {
        Self::with_clock(image, stream(seed, "disk", 0), SimClock::default())
    }

    pub(super) fn with_clock(image: &DiskImage, rng: SimRng, clock: SimClock) -> Self {
        let mut state = State {
            clock,
            rng,
            latency: Latency::default(),
            capacity: None,
            faults: Faults::default(),
            ledger: Ledger::default(),
            files: BTreeMap::new(),
            open: BTreeMap::new(),
            next_file: 0,
            next_inode: 0,
            next_op: 0,
            in_flight: BTreeMap::new(),
            recording: None,
            stats: DiskStats::default(),
        };
        state.start_from(image);
        Self(Rc::new(RefCell::new(state)))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Sets the latency of operations that start from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.state().latency = latency;
    }

    /// Limits the total size of all files; creating more fails with ENOSPC. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Injects a fault.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Removes all faults. (Damage at rest stays.)
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Damages a 4 KiB block of a file at rest.
    pub fn damage(&self, path: &Path, block: u64, damage: &Damage) {
        self.state().damage(path, block as usize, damage);
    }

    /// Simulates a power cut or a killed process: operations in flight never complete, open files are closed, and data that is not
    /// durable survives as the policy says.
    pub fn crash(&self, policy: CrashPolicy) {
        let mut state = self.state();
        assert!(state.recording.is_none(), "take the recording before the crash");
        let State { ledger, rng, .. } = &mut *state;
        let image = ledger.survivors(policy, rng);
        state.start_from(&image);
    }

    /// Ends the process without a power cut: operations in flight never complete but may have happened, in whole or in part, and
    /// open files are closed. Data that was not durable still is not, and a later crash may lose it.
    pub fn kill(&self) {
        self.state().kill();
    }

    /// Returns the content that is guaranteed to be durable now.
    pub fn image(&self) -> DiskImage {
        self.state().durable_image()
    }

    /// Starts recording everything that happens on the disk. No operation may be in flight, and nothing unsynced.
    pub fn record(&self) {
        let mut state = self.state();
        assert!(!state.ledger.has_pending(), "a recording must start with everything synced");
        let recording = Recording::new(state.ledger.clone());
        state.recording = Some(recording);
    }

    /// Adds a mark to the recording, for example for an acknowledgement.
    pub fn mark(&self, mark: u64) {
        self.state().log(Event::Mark(mark));
    }

    /// Ends the recording.
    pub fn take_recording(&self) -> Recording {
        self.state().recording.take().expect("a recording is in progress")
    }

    /// Returns the counts of operations.
    pub fn stats(&self) -> DiskStats {
        self.state().stats
    }

    /// Returns the number of operations that have not completed.
    pub fn in_flight(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Returns the time at which the next operation completes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().in_flight.first_key_value().map(|((due, _), _)| *due)
    }

    /// Completes the next operation.
    pub(super) fn complete_next(&self) -> Option<(u16, Token, Completion)> {
        let mut state = self.state();
        let ((_, id), operation) = state.in_flight.pop_first()?;
        let completion = state.complete(id, operation.op);
        Some((operation.owner, operation.token, completion))
    }

    pub(super) fn submit_write(
        &self,
        owner: u16,
        file: FileId,
        at: u64,
        data: &[u8],
        durability: Durability,
        token: Token,
    ) {
        assert!(data.as_ptr().addr().is_multiple_of(PAGE_BYTES), "direct I/O needs an aligned address");
        assert!(data.len() <= WRITE_BYTES_MAX, "a write of {} bytes is too large", data.len());
        let mut state = self.state();
        let latency = match durability {
            Durability::Volatile => state.latency.write.clone(),
            Durability::Durable => state.latency.sync.clone(),
        };
        let id = state.next_op();
        let op = state.begin_write(id, file, at, data, durability);
        state.launch(id, owner, token, &latency, op);
    }

    pub(super) fn submit_read(&self, owner: u16, file: FileId, at: u64, buf: AlignedBuf, token: Token) {
        check_aligned(at, buf.len());
        let mut state = self.state();
        let inode = state.inode(file);
        let latency = state.latency.read.clone();
        let id = state.next_op();
        state.stats.reads += 1;
        state.launch(id, owner, token, &latency, Op::Read { inode, at, buf });
    }

    pub(super) fn submit_sync(&self, owner: u16, file: FileId, token: Token) {
        let mut state = self.state();
        let latency = state.latency.sync.clone();
        let id = state.next_op();
        let op = state.begin_sync(id, file);
        state.launch(id, owner, token, &latency, op);
    }

    pub(super) fn submit_job(&self, owner: u16, job: FileJob, token: Token) {
        let mut state = self.state();
        let latency = state.latency.job.clone();
        let id = state.next_op();
        let op = state.begin_job(id, job);
        state.launch(id, owner, token, &latency, op);
    }
}

impl State {
    fn start_from(&mut self, image: &DiskImage) {
        let (ledger, inodes) = Ledger::of_image(image);
        self.files.clear();
        for (path, inode) in ledger.names() {
            let content = ledger.content(*inode).expect("a named file has content").clone();
            self.files.insert(*inode, FileState::new(path.clone(), content));
        }
        self.ledger = ledger;
        self.next_inode = inodes;
        self.open.clear();
        self.in_flight.clear();
    }

    fn durable_image(&self) -> DiskImage {
        // `LOSE_ALL` uses no random numbers, so the generator's state does not change.
        self.ledger.survivors(CrashPolicy::LOSE_ALL, &mut self.rng.clone())
    }

    pub(super) fn log(&mut self, event: Event) {
        self.ledger.apply(&event);
        if let Some(recording) = &mut self.recording {
            recording.push(event);
        }
    }

    pub(super) fn next_op(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    pub(super) fn next_inode(&mut self) -> Inode {
        self.next_inode += 1;
        Inode(self.next_inode - 1)
    }

    pub(super) fn inode(&self, file: FileId) -> Inode {
        self.open.get(&file).unwrap_or_else(|| panic!("{file:?} is not open")).0
    }

    pub(super) fn file(&self, inode: Inode) -> &FileState {
        &self.files[&inode]
    }

    pub(super) fn open_inode(&mut self, inode: Inode, mode: OpenMode) -> FileId {
        let file = FileId(self.next_file);
        self.next_file += 1;
        self.open.insert(file, (inode, mode));
        file
    }

    /// Forgets files that have no name, are not open and have no operation in flight.
    pub(super) fn forget_unused(&mut self) {
        let Self { files, open, in_flight, ledger, .. } = self;
        files.retain(|inode, file| {
            ledger.names().get(&file.path) == Some(inode)
                || open.values().any(|(open, _)| open == inode)
                || in_flight.values().any(|operation| operation.op.inode() == *inode)
        });
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        let inode = self.ledger.names()[from];
        self.log(Event::Renamed(from.to_path_buf(), to.to_path_buf()));
        if let Some(file) = self.files.get_mut(&inode) {
            file.path = to.to_path_buf();
        }
        self.forget_unused();
    }

    fn launch(&mut self, id: u64, owner: u16, token: Token, latency: &RangeInclusive<Duration>, op: Op) {
        let nanos = |d: &Duration| d.as_nanos() as u64;
        let takes = self.rng.random_range(nanos(latency.start())..=nanos(latency.end()));
        let due = self.clock.now().after(Duration::from_nanos(takes));
        self.in_flight.insert((due, id), InFlight { owner, token, op });
    }

    pub(super) fn begin_write(
        &mut self,
        id: u64,
        file: FileId,
        at: u64,
        data: &[u8],
        durability: Durability,
    ) -> Op {
        check_aligned(at, data.len());
        let (inode, mode) = *self.open.get(&file).unwrap_or_else(|| panic!("{file:?} is not open"));
        let state = &self.files[&inode];
        assert!(mode == OpenMode::ReadWrite, "{} is open for reading only", state.path.display());
        let end = at + data.len() as u64;
        assert!(
            end <= state.content.bytes(),
            "a write ends at {end}, after the end of {}",
            state.path.display()
        );
        let requested = (inode, at as usize / PAGE_BYTES);
        let mut data: Arc<[Block]> = split(data).into();
        let blocks = requested.1..requested.1 + data.len();
        self.assert_no_write_in_flight(inode, &blocks);
        assert!(
            !blocks.clone().any(|block| state.content.is_hole(block)),
            "a write at {at} goes to a hole in {}",
            state.path.display()
        );
        self.stats.writes += 1;
        self.stats.bytes_written += end - at;
        let path = &self.files[&inode].path;
        let (mut target, mut fails) = (requested, None);
        match self.faults.take_matching(path, at..end, FaultKind::is_of_write) {
            Some(FaultKind::WriteError(code)) => fails = Some(code),
            Some(FaultKind::WriteLost) => data = Arc::new([]),
            Some(FaultKind::WriteMisdirected { path, at }) => {
                let other =
                    *self.ledger.names().get(&path).expect("a misdirected write goes to an existing file");
                target = (other, at as usize / PAGE_BYTES);
                let room =
                    (self.files[&other].content.bytes() as usize / PAGE_BYTES).saturating_sub(target.1);
                data = data.iter().take(room).cloned().collect();
            }
            _ => {}
        }
        let (inode, block) = target;
        self.log(Event::WriteStarted { id, inode, block, data: data.clone(), durability });
        Op::Write { inode, block, data, requested, fails }
    }

    pub(super) fn begin_sync(&mut self, id: u64, file: FileId) -> Op {
        let inode = self.inode(file);
        self.stats.syncs += 1;
        self.log(Event::SyncStarted { id, inode });
        Op::Sync { inode }
    }

    pub(super) fn begin_job(&mut self, id: u64, job: FileJob) -> Op {
        if let FileJob::Create { bytes, .. } | FileJob::Replace { bytes, .. } = &job {
            check_aligned(*bytes, PAGE_BYTES);
        }
        self.stats.jobs += 1;
        match &job {
            FileJob::Punch { path, at, bytes } => return self.begin_punch(id, path, *at, *bytes),
            FileJob::PunchHeads { path, at, bytes, .. } => {
                let inode = self.check_can_punch(path, *at, *bytes);
                self.stats.bytes_punched += heads(&job).map(|head| head.end - head.start).sum::<u64>();
                self.log(Event::JobStarted { id, inode, job: job.clone() });
                return Op::Job { inode, job };
            }
            FileJob::Allocate { path, at, bytes } => {
                check_aligned(*at, *bytes as usize);
                // One that has no file is found out when it completes.
                let named = self.ledger.names().get(path).copied();
                let inode = named.unwrap_or_else(|| self.next_inode());
                self.log(Event::JobStarted { id, inode, job: job.clone() });
                return Op::Job { inode, job };
            }
            _ => {}
        }
        let inode = self.next_inode();
        self.log(Event::JobStarted { id, inode, job: job.clone() });
        Op::Job { inode, job }
    }

    pub(super) fn assert_no_write_in_flight(&self, inode: Inode, blocks: &Range<usize>) {
        for operation in self.in_flight.values() {
            let is_apart = |first: usize, len: usize| first + len <= blocks.start || blocks.end <= first;
            let is_apart = match &operation.op {
                Op::Write { requested: (other, first), data, .. } if *other == inode => {
                    is_apart(*first, data.len())
                }
                Op::Punch { inode: other, block, data } if *other == inode => is_apart(*block, data.len()),
                Op::Job { inode: other, job: FileJob::PunchHeads { at, bytes, .. } } if *other == inode => {
                    let punched = blocks_of(*at, *bytes);
                    is_apart(punched.start, punched.len())
                }
                _ => true,
            };
            assert!(is_apart, "two writes in flight overlap in {}", self.files[&inode].path.display());
        }
    }
}

impl FileState {
    pub(super) fn new(path: PathBuf, content: Blocks) -> Self {
        Self { path, content, before: BTreeMap::new(), unreadable: BTreeSet::new() }
    }
}

impl Op {
    fn inode(&self) -> Inode {
        match self {
            Self::Write { inode, .. }
            | Self::Read { inode, .. }
            | Self::Sync { inode }
            | Self::Job { inode, .. }
            | Self::Punch { inode, .. } => *inode,
        }
    }
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Panics if direct I/O would reject this position or length.
pub(super) fn check_aligned(at: u64, len: usize) {
    assert!(at.is_multiple_of(PAGE_BYTES as u64), "direct I/O at {at}, which is not a multiple of 4096");
    assert!(
        len > 0 && len.is_multiple_of(PAGE_BYTES),
        "direct I/O of {len} bytes, which is not a multiple of 4096"
    );
}

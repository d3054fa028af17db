//! What survives a power cut: the content that is guaranteed to be durable, and the changes that may or may not have reached it.
//!
//! Only [`Event`]s change the ledger, so replaying a recording of them leads to the same state.
//!
//! Rules, which promise no more than `plane.rs` and `fs.rs` do:
//! - A durable write is durable once it completes; a volatile one once a sync completes that started after the write completed.
//! - Until then it survives a crash in whole, in single sectors or not at all, independently of all other writes.
//! - Until it completes, a file job is undone, done, or has left a temporary file.
//! - A hole that is punched is a write of zero bytes.
//! - No later sync makes durable what a failed write or a failed sync covered: the kernel has dropped it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use rand::RngExt as _;

use super::blocks::{Block, Blocks, DiskImage, hole, is_hole};
use super::jobs::{blocks_of, heads, job_result, partial_file, tear};
use super::rng::SimRng;
use crate::buf::PAGE_BYTES;
use crate::fs::temporary_path;
use crate::plane::{Durability, FileJob};

/// A file, independent of its current name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Inode(pub u32);

/// An event on a disk. `id` connects a completion to its operation.
#[derive(Clone, Debug)]
pub enum Event {
    /// A directory was created.
    DirCreated(PathBuf),
    /// A file was renamed.
    Renamed(PathBuf, PathBuf),
    /// A write started.
    WriteStarted {
        /// Id of the operation.
        id: u64,
        /// The file.
        inode: Inode,
        /// Number of its first 4 KiB block.
        block: usize,
        /// The data, in blocks.
        data: Arc<[Arc<[u8; PAGE_BYTES]>]>,
        /// When the write completes.
        durability: Durability,
    },
    /// A write completed.
    WriteCompleted {
        /// Id of the operation.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A sync started.
    SyncStarted {
        /// Id of the operation.
        id: u64,
        /// The file.
        inode: Inode,
    },
    /// A sync completed.
    SyncCompleted {
        /// Id of the operation.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A file job started.
    JobStarted {
        /// Id of the operation.
        id: u64,
        /// The file that it creates.
        inode: Inode,
        /// The job.
        job: FileJob,
    },
    /// A file job completed.
    JobCompleted {
        /// Id of the operation.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The process ended while a write was in flight. Reads see these blocks of it, but none of them is durable.
    WriteInterrupted {
        /// Id of the operation.
        id: u64,
        /// The blocks that it changed.
        data: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    },
    /// The process ended while a sync was in flight.
    SyncInterrupted {
        /// Id of the operation.
        id: u64,
    },
    /// A mark set by the test.
    Mark(u64),
}

/// Probabilities that a change that is not durable survives a crash in whole or in part.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrashPolicy {
    /// Probability of surviving in whole.
    pub whole: f64,
    /// Probability of surviving in part.
    pub torn: f64,
}

impl CrashPolicy {
    /// Only durable data survives.
    pub const LOSE_ALL: Self = Self { whole: 0.0, torn: 0.0 };
    /// Everything survives, as if only the process had ended.
    pub const KEEP_ALL: Self = Self { whole: 1.0, torn: 0.0 };
    /// Everything that is not durable is torn.
    pub const TEAR_ALL: Self = Self { whole: 0.0, torn: 1.0 };
    /// A mixture of all three.
    pub const MIXED: Self = Self { whole: 0.4, torn: 0.3 };

    fn draw(self, rng: &mut SimRng) -> Survival {
        let dice: f64 = rng.random();
        if dice < self.whole {
            Survival::Whole
        } else if dice < self.whole + self.torn {
            Survival::Torn
        } else {
            Survival::Lost
        }
    }
}

enum Survival {
    Whole,
    Torn,
    Lost,
}

/// The durable content, and the changes that may reach it.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Inode>,
    /// Durable content of the files that have names.
    durable: BTreeMap<Inode, Blocks>,
    /// In the order in which they were applied: later changes supersede earlier ones.
    pending: Vec<Pending>,
    /// The writes that each sync in flight will make durable.
    syncs: BTreeMap<u64, Vec<u64>>,
}

#[derive(Clone)]
struct Pending {
    id: u64,
    inode: Inode,
    change: Change,
}

#[derive(Clone)]
enum Change {
    Write { block: usize, data: Vec<Option<Block>>, durability: Durability, state: WriteState },
    Job(FileJob),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteState {
    InFlight,
    Completed,
    /// Covered by an operation that failed.
    Abandoned,
}

impl Ledger {
    pub(super) fn of_image(image: &DiskImage) -> (Self, u32) {
        let mut ledger = Self { dirs: image.dirs.clone(), ..Self::default() };
        let mut next = 0;
        for (path, content) in &image.files {
            ledger.names.insert(path.clone(), Inode(next));
            ledger.durable.insert(Inode(next), content.clone());
            next += 1;
        }
        (ledger, next)
    }

    pub(super) fn names(&self) -> &BTreeMap<PathBuf, Inode> {
        &self.names
    }

    pub(super) fn dirs(&self) -> &BTreeSet<PathBuf> {
        &self.dirs
    }

    pub(super) fn content(&self, inode: Inode) -> Option<&Blocks> {
        self.durable.get(&inode)
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::DirCreated(path) => {
                self.dirs.extend(path.ancestors().map(PathBuf::from));
            }
            Event::Renamed(from, to) => {
                let inode = self.names.remove(from).expect("a renamed file exists");
                self.name(to.clone(), inode);
            }
            Event::WriteStarted { id, inode, block, data, durability } => {
                let change = Change::Write {
                    block: *block,
                    data: data.iter().cloned().map(Some).collect(),
                    durability: *durability,
                    state: WriteState::InFlight,
                };
                self.pending.push(Pending { id: *id, inode: *inode, change });
            }
            Event::WriteCompleted { id, ok } => self.write_completed(*id, *ok),
            Event::SyncStarted { id, inode } => {
                let covered = self.pending.iter().filter(|p| p.inode == *inode && p.is_completed());
                self.syncs.insert(*id, covered.map(|p| p.id).collect());
            }
            Event::SyncCompleted { id, ok } => {
                let covered = self.syncs.remove(id).expect("a sync completes only after it started");
                if *ok {
                    self.settle(&covered);
                } else {
                    self.abandon(&covered);
                }
            }
            Event::JobStarted { id, inode, job } => {
                self.pending.push(Pending { id: *id, inode: *inode, change: Change::Job(job.clone()) });
            }
            Event::JobCompleted { id, ok } => {
                let at = self.position(*id);
                let Pending { inode, change: Change::Job(job), .. } = self.pending.remove(at) else {
                    unreachable!("a completion has the kind of its operation")
                };
                if let (true, FileJob::Allocate { at, bytes, .. }) = (ok, &job) {
                    return self.allocate(inode, *at, *bytes);
                }
                if let (true, FileJob::PunchHeads { .. }) = (ok, &job) {
                    return heads(&job).for_each(|head| self.punch(*id, inode, &head));
                }
                match (ok, job_result(&job)) {
                    (true, Some((path, content))) => {
                        self.durable.insert(inode, content);
                        self.name(path, inode);
                    }
                    (true, None) => self.change_names(&job),
                    (false, _) => {}
                }
            }
            Event::WriteInterrupted { id, data: seen } => {
                let at = self.position(*id);
                if let Change::Write { data, durability, state, .. } = &mut self.pending[at].change {
                    (*durability, *state) = (Durability::Volatile, WriteState::Completed);
                    data.clone_from(seen);
                }
            }
            Event::SyncInterrupted { id } => {
                self.syncs.remove(id);
            }
            Event::Mark(_) => {}
        }
    }

    /// Replaces a block at rest.
    pub(super) fn damage(&mut self, inode: Inode, block: usize, content: Option<&Block>) {
        if let Some(durable) = self.durable.get_mut(&inode) {
            durable.set(block, content.cloned());
        }
        for pending in self.pending.iter_mut().filter(|p| p.inode == inode) {
            if let Change::Write { block: first, data, state: WriteState::Completed, .. } =
                &mut pending.change
                && let Some(slot) = block.checked_sub(*first).and_then(|at| data.get_mut(at))
            {
                *slot = content.cloned();
            }
        }
    }

    /// Returns the content of the disk after a crash at this moment.
    pub(super) fn survivors(&self, policy: CrashPolicy, rng: &mut SimRng) -> DiskImage {
        let mut names = self.names.clone();
        let mut content = self.durable.clone();
        let mut temporary_files = Vec::new();
        for Pending { inode, change, .. } in &self.pending {
            let survival = policy.draw(rng);
            match (change, survival) {
                (_, Survival::Lost) => {}
                (Change::Write { block, data, .. }, Survival::Whole) => {
                    if let Some(blocks) = content.get_mut(inode) {
                        for (at, data) in data.iter().enumerate() {
                            if let Some(data) = data {
                                blocks.set(block + at, Some(data.clone()));
                            }
                        }
                    }
                }
                (Change::Write { block, data, .. }, Survival::Torn) => {
                    if let Some(blocks) = content.get_mut(inode) {
                        for ((at, data), mask) in data.iter().enumerate().zip(tear(data.len(), rng)) {
                            if let Some(data) = data {
                                blocks.set_sectors(block + at, data, mask);
                            }
                        }
                    }
                }
                (Change::Job(FileJob::Allocate { at, bytes, .. }), Survival::Whole) => {
                    if let Some(blocks) = content.get_mut(inode) {
                        blocks.allocate(blocks_of(*at, *bytes));
                    }
                }
                (Change::Job(job @ FileJob::PunchHeads { .. }), survival) => {
                    let Some(blocks) = content.get_mut(inode) else { continue };
                    // Some of the heads, each as a whole.
                    for head in heads(job).filter(|_| matches!(survival, Survival::Whole) || rng.random()) {
                        blocks_of(head.start, head.end - head.start)
                            .for_each(|block| blocks.set(block, Some(hole())));
                    }
                }
                (Change::Job(job), Survival::Whole) => {
                    let Some((path, blocks)) = job_result(job) else {
                        match job {
                            FileJob::Remove { path } => {
                                names.remove(path);
                            }
                            FileJob::Publish { path } => {
                                if let Some(prepared) = names.remove(&temporary_path(path)) {
                                    names.insert(path.clone(), prepared);
                                }
                            }
                            _ => {}
                        }
                        continue;
                    };
                    if !matches!(job, FileJob::Create { .. }) || !names.contains_key(&path) {
                        content.insert(*inode, blocks);
                        names.insert(path, *inode);
                    }
                }
                (Change::Job(job), Survival::Torn) => temporary_files.extend(partial_file(job, rng)),
            }
        }
        let mut image = DiskImage { dirs: self.dirs.clone(), files: BTreeMap::new() };
        for (path, inode) in names {
            if let Some(content) = content.get(&inode) {
                image.files.insert(path, content.clone());
            }
        }
        image.files.extend(temporary_files);
        image
    }

    /// Makes a hole, durably.
    fn punch(&mut self, id: u64, inode: Inode, range: &Range<u64>) {
        let blocks = blocks_of(range.start, range.end - range.start);
        let change = Change::Write {
            block: blocks.start,
            data: vec![Some(hole()); blocks.len()],
            durability: Durability::Durable,
            state: WriteState::Completed,
        };
        self.pending.push(Pending { id, inode, change });
        self.settle(&[id]);
    }

    /// Gives holes space, durably: those on the disk, and those that may still reach it.
    fn allocate(&mut self, inode: Inode, at: u64, bytes: u64) {
        let blocks = blocks_of(at, bytes);
        if let Some(durable) = self.durable.get_mut(&inode) {
            durable.allocate(blocks.clone());
        }
        for pending in self.pending.iter_mut().filter(|p| p.inode == inode) {
            let Change::Write { block, data, .. } = &mut pending.change else { continue };
            for (_, content) in (*block..).zip(data).filter(|(at, _)| blocks.contains(at)) {
                if is_hole(content.as_ref()) {
                    *content = Some(Arc::new([0; PAGE_BYTES]));
                }
            }
        }
    }

    fn name(&mut self, path: PathBuf, inode: Inode) {
        if let Some(old) = self.names.insert(path, inode) {
            self.durable.remove(&old);
            // A file without a name cannot survive a crash.
            self.pending.retain(|p| p.inode != old || p.is_in_flight());
        }
    }

    fn change_names(&mut self, job: &FileJob) {
        match job {
            FileJob::Remove { path } => {
                if let Some(old) = self.names.remove(path) {
                    self.durable.remove(&old);
                    self.pending.retain(|p| p.inode != old || p.is_in_flight());
                }
            }
            FileJob::Publish { path } => {
                let prepared = self.names.remove(&temporary_path(path)).expect("the caller looked");
                self.name(path.clone(), prepared);
            }
            _ => {}
        }
    }

    fn position(&self, id: u64) -> usize {
        self.pending.iter().position(|p| p.id == id).expect("an operation completes only after it started")
    }

    fn write_completed(&mut self, id: u64, ok: bool) {
        let at = self.position(id);
        let Change::Write { durability, state, .. } = &mut self.pending[at].change else {
            unreachable!("a completion has the kind of its operation")
        };
        match (ok, *durability) {
            (false, _) => *state = WriteState::Abandoned,
            (true, Durability::Volatile) => *state = WriteState::Completed,
            (true, Durability::Durable) => self.settle(&[id]),
        }
        // A file that has lost its name since cannot survive a crash.
        let durable = &self.durable;
        self.pending.retain(|p| p.id != id || durable.contains_key(&p.inode));
    }

    /// Makes these writes durable. Earlier writes that they cover can no longer reach the disk.
    fn settle(&mut self, ids: &[u64]) {
        for id in ids {
            let Some(at) = self.pending.iter().position(|p| p.id == *id) else { continue };
            let Pending { inode, change: Change::Write { block, data, .. }, .. } = self.pending.remove(at)
            else {
                unreachable!("only writes become durable this way")
            };
            for older in self.pending[..at].iter_mut().filter(|p| p.inode == inode) {
                if let Change::Write { block: first, data: covered, .. } = &mut older.change {
                    for n in 0..data.len() {
                        if let Some(slot) = (block + n).checked_sub(*first).and_then(|at| covered.get_mut(at))
                        {
                            *slot = None;
                        }
                    }
                }
            }
            if let Some(durable) = self.durable.get_mut(&inode) {
                for (n, content) in data.into_iter().enumerate() {
                    if content.is_some() {
                        durable.set(block + n, content);
                    }
                }
            }
        }
        self.pending.retain(Pending::is_relevant);
    }

    fn abandon(&mut self, ids: &[u64]) {
        for pending in self.pending.iter_mut().filter(|p| ids.contains(&p.id)) {
            if let Change::Write { state, .. } = &mut pending.change {
                *state = WriteState::Abandoned;
            }
        }
    }
}

impl Pending {
    fn is_completed(&self) -> bool {
        matches!(self.change, Change::Write { state: WriteState::Completed, .. })
    }

    fn is_in_flight(&self) -> bool {
        matches!(self.change, Change::Job(_) | Change::Write { state: WriteState::InFlight, .. })
    }

    fn is_relevant(&self) -> bool {
        match &self.change {
            Change::Write { data, .. } => self.is_in_flight() || data.iter().any(Option::is_some),
            Change::Job(_) => true,
        }
    }
}

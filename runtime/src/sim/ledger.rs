//! What a power cut leaves: the content that is durable for certain, and the changes that may or may not have reached it.
//!
//! The ledger is driven by [`Event`]s alone, so a recording of them replays into the same state as the disk that made it.
//!
//! Rules (the promises of `plane.rs` and `fs.rs`, and not more than those):
//! - a durable write is durable once answered, a volatile one once a sync that began after its answer is answered;
//! - until then it survives a crash wholly, in single sectors or not at all, each independently of all others;
//! - a file job is undone, done, or a left-over temporary file, until answered;
//! - what a failed write or a failed sync covered is never made durable by a later sync: the kernel has forgotten it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rand::{Rng as _, RngExt as _};

use super::blocks::{Block, Blocks, DiskImage, split};
use super::rng::SimRng;
use crate::buf::PAGE_BYTES;
use crate::fs::temporary_path;
use crate::plane::{Durability, FileJob};

/// A file, whatever its name is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Inode(pub u32);

/// A step in the life of a disk. `id` ties an answer to its beginning.
#[derive(Clone, Debug)]
pub enum Event {
    /// A directory was made.
    DirMade(PathBuf),
    /// A file was renamed.
    Renamed(PathBuf, PathBuf),
    /// A write was handed to the disk.
    WriteBegun {
        /// Which operation.
        id: u64,
        /// The file.
        inode: Inode,
        /// Where: the number of its first 4 KiB block.
        block: usize,
        /// The data, in blocks.
        data: Arc<[Arc<[u8; PAGE_BYTES]>]>,
        /// What its answer means.
        durability: Durability,
    },
    /// A write was answered.
    WriteAnswered {
        /// Which operation.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A sync was handed to the disk.
    SyncBegun {
        /// Which operation.
        id: u64,
        /// The file.
        inode: Inode,
    },
    /// A sync was answered.
    SyncAnswered {
        /// Which operation.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// A file job was handed to the disk.
    JobBegun {
        /// Which operation.
        id: u64,
        /// The file that it will make.
        inode: Inode,
        /// What it is to do.
        job: FileJob,
    },
    /// A file job was answered.
    JobAnswered {
        /// Which operation.
        id: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The process ended while a write was in flight: of it, this is what reads see. Nothing of it is durable.
    WriteCut {
        /// Which operation.
        id: u64,
        /// The blocks it has changed.
        data: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    },
    /// The process ended while a sync was in flight.
    SyncCut {
        /// Which operation.
        id: u64,
    },
    /// The test noted something.
    Mark(u64),
}

/// How much of what was not durable survives a crash: probabilities of surviving wholly and partly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrashPolicy {
    /// Of surviving wholly.
    pub whole: f64,
    /// Of surviving in part.
    pub torn: f64,
}

impl CrashPolicy {
    /// Only what was durable survives.
    pub const LOSE_ALL: Self = Self { whole: 0.0, torn: 0.0 };
    /// Everything survives, as if only the process had died.
    pub const KEEP_ALL: Self = Self { whole: 1.0, torn: 0.0 };
    /// Everything that was not durable is torn.
    pub const TEAR_ALL: Self = Self { whole: 0.0, torn: 1.0 };
    /// A bit of all.
    pub const MIXED: Self = Self { whole: 0.4, torn: 0.3 };

    fn fate(self, rng: &mut SimRng) -> Fate {
        let dice: f64 = rng.random();
        if dice < self.whole {
            Fate::Whole
        } else if dice < self.whole + self.torn {
            Fate::Torn
        } else {
            Fate::Lost
        }
    }
}

enum Fate {
    Whole,
    Torn,
    Lost,
}

/// The durable content and what may reach it.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Inode>,
    /// Durable content of the files that have names.
    durable: BTreeMap<Inode, Blocks>,
    /// In the order in which they were applied: a later one covers an earlier one.
    pending: Vec<Pending>,
    /// The writes that each sync in flight will have made durable.
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
    Flying,
    Answered,
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
            Event::DirMade(path) => {
                self.dirs.extend(path.ancestors().map(PathBuf::from));
            }
            Event::Renamed(from, to) => {
                let inode = self.names.remove(from).expect("a file that is renamed exists");
                self.name(to.clone(), inode);
            }
            Event::WriteBegun { id, inode, block, data, durability } => {
                let change = Change::Write {
                    block: *block,
                    data: data.iter().cloned().map(Some).collect(),
                    durability: *durability,
                    state: WriteState::Flying,
                };
                self.pending.push(Pending { id: *id, inode: *inode, change });
            }
            Event::WriteAnswered { id, ok } => self.write_answered(*id, *ok),
            Event::SyncBegun { id, inode } => {
                let covered = self.pending.iter().filter(|p| p.inode == *inode && p.is_answered());
                self.syncs.insert(*id, covered.map(|p| p.id).collect());
            }
            Event::SyncAnswered { id, ok } => {
                let covered = self.syncs.remove(id).expect("a sync that is answered was begun");
                if *ok {
                    self.settle(&covered);
                } else {
                    self.abandon(&covered);
                }
            }
            Event::JobBegun { id, inode, job } => {
                self.pending.push(Pending { id: *id, inode: *inode, change: Change::Job(job.clone()) });
            }
            Event::JobAnswered { id, ok } => {
                let at = self.position(*id);
                let Pending { inode, change: Change::Job(job), .. } = self.pending.remove(at) else {
                    unreachable!("an answer fits what was asked")
                };
                match (ok, job_result(&job)) {
                    (true, Some((path, content))) => {
                        self.durable.insert(inode, content);
                        self.name(path, inode);
                    }
                    (true, None) => self.remove(&job),
                    (false, _) => {}
                }
            }
            Event::WriteCut { id, data: seen } => {
                let at = self.position(*id);
                if let Change::Write { data, durability, state, .. } = &mut self.pending[at].change {
                    (*durability, *state) = (Durability::Volatile, WriteState::Answered);
                    data.clone_from(seen);
                }
            }
            Event::SyncCut { id } => {
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
            if let Change::Write { block: first, data, state: WriteState::Answered, .. } = &mut pending.change
                && let Some(slot) = block.checked_sub(*first).and_then(|at| data.get_mut(at))
            {
                *slot = content.cloned();
            }
        }
    }

    /// What is there after a crash now.
    pub(super) fn survivors(&self, policy: CrashPolicy, rng: &mut SimRng) -> DiskImage {
        let mut names = self.names.clone();
        let mut content = self.durable.clone();
        let mut left_over = Vec::new();
        for Pending { inode, change, .. } in &self.pending {
            let fate = policy.fate(rng);
            match (change, fate) {
                (_, Fate::Lost) => {}
                (Change::Write { block, data, .. }, Fate::Whole) => {
                    if let Some(blocks) = content.get_mut(inode) {
                        for (at, data) in data.iter().enumerate() {
                            if let Some(data) = data {
                                blocks.set(block + at, Some(data.clone()));
                            }
                        }
                    }
                }
                (Change::Write { block, data, .. }, Fate::Torn) => {
                    if let Some(blocks) = content.get_mut(inode) {
                        for ((at, data), mask) in data.iter().enumerate().zip(tear(data.len(), rng)) {
                            if let Some(data) = data {
                                blocks.set_sectors(block + at, data, mask);
                            }
                        }
                    }
                }
                (Change::Job(job), Fate::Whole) => {
                    let Some((path, blocks)) = job_result(job) else {
                        if let FileJob::Remove { path } = job {
                            names.remove(path);
                        }
                        continue;
                    };
                    if !matches!(job, FileJob::Create { .. }) || !names.contains_key(&path) {
                        content.insert(*inode, blocks);
                        names.insert(path, *inode);
                    }
                }
                (Change::Job(job), Fate::Torn) => left_over.extend(half_done(job, rng)),
            }
        }
        let mut image = DiskImage { dirs: self.dirs.clone(), files: BTreeMap::new() };
        for (path, inode) in names {
            if let Some(content) = content.get(&inode) {
                image.files.insert(path, content.clone());
            }
        }
        image.files.extend(left_over);
        image
    }

    fn name(&mut self, path: PathBuf, inode: Inode) {
        if let Some(old) = self.names.insert(path, inode) {
            self.durable.remove(&old);
            // A file without a name is nothing a crash could leave.
            self.pending.retain(|p| p.inode != old || p.is_flying());
        }
    }

    fn remove(&mut self, job: &FileJob) {
        let FileJob::Remove { path } = job else { return };
        if let Some(old) = self.names.remove(path) {
            self.durable.remove(&old);
            self.pending.retain(|p| p.inode != old || p.is_flying());
        }
    }

    fn position(&self, id: u64) -> usize {
        self.pending.iter().position(|p| p.id == id).expect("what is answered was begun")
    }

    fn write_answered(&mut self, id: u64, ok: bool) {
        let at = self.position(id);
        let Change::Write { durability, state, .. } = &mut self.pending[at].change else {
            unreachable!("an answer fits what was asked")
        };
        match (ok, *durability) {
            (false, _) => *state = WriteState::Abandoned,
            (true, Durability::Volatile) => *state = WriteState::Answered,
            (true, Durability::Durable) => self.settle(&[id]),
        }
        // A file that lost its name meanwhile is nothing a crash could leave.
        let durable = &self.durable;
        self.pending.retain(|p| p.id != id || durable.contains_key(&p.inode));
    }

    /// These writes are durable, and whatever they cover can no longer come to light.
    fn settle(&mut self, ids: &[u64]) {
        for id in ids {
            let Some(at) = self.pending.iter().position(|p| p.id == *id) else { continue };
            let Pending { inode, change: Change::Write { block, data, .. }, .. } = self.pending.remove(at)
            else {
                unreachable!("only writes settle")
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
        self.pending.retain(Pending::may_matter);
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
    fn is_answered(&self) -> bool {
        matches!(self.change, Change::Write { state: WriteState::Answered, .. })
    }

    fn is_flying(&self) -> bool {
        matches!(self.change, Change::Job(_) | Change::Write { state: WriteState::Flying, .. })
    }

    fn may_matter(&self) -> bool {
        match &self.change {
            Change::Write { data, .. } => self.is_flying() || data.iter().any(Option::is_some),
            Change::Job(_) => true,
        }
    }
}

/// Which sectors of each block of a torn write have arrived: any, those before a point, or all but one.
pub(super) fn tear(blocks: usize, rng: &mut SimRng) -> Vec<u8> {
    let sectors = blocks * 8;
    let point = rng.random_range(0..sectors.max(1));
    let style = rng.random_range(0..3_u8);
    (0..blocks)
        .map(|block| match style {
            0 => rng.next_u64() as u8,
            1 => (0..8).filter(|n| block * 8 + n < point).fold(0, |mask, n| mask | 1 << n),
            _ => (0..8).filter(|n| block * 8 + n != point).fold(0, |mask, n| mask | 1 << n),
        })
        .collect()
}

/// Path and content of the file that a job makes, if it makes one.
pub(super) fn job_result(job: &FileJob) -> Option<(PathBuf, Blocks)> {
    match job {
        FileJob::Create { path, bytes } => Some((path.clone(), Blocks::zeroed(*bytes))),
        FileJob::Replace { path, content, bytes } => {
            Some((path.clone(), Blocks::with_content(content, *bytes)))
        }
        FileJob::Remove { .. } => None,
    }
}

/// The temporary file of a job that was cut off.
pub(super) fn half_done(job: &FileJob, rng: &mut SimRng) -> Option<(PathBuf, Blocks)> {
    let (path, content, bytes) = match job {
        FileJob::Create { path, bytes } => (path, &[][..], *bytes),
        FileJob::Replace { path, content, bytes } => (path, &content[..], *bytes),
        FileJob::Remove { .. } => return None,
    };
    let page = PAGE_BYTES as u64;
    let bytes = rng.random_range(0..=bytes / page) * page;
    let mut blocks = Blocks::zeroed(bytes);
    let content = split(&content[..content.len().min(bytes as usize)]);
    for ((at, data), mask) in content.iter().enumerate().zip(tear(content.len(), rng)) {
        blocks.set_sectors(at, data, mask);
    }
    Some((temporary_path(path), blocks))
}

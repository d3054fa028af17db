//! Proof 2: the fault table. Every 4 KiB block of every file of a small store × bit flips, zeroes, stale content, the content of another block,
//! EIO. Each time `verify` must report it, the store must open, every acknowledged record outside of the damaged block must be read byte for
//! byte, nothing else may be read, and lost records must be reported.
//!
//! Three stores are damaged: one that was stopped cleanly, one that was killed while idle, and one that was killed right after its last
//! acknowledgement. In the last one, frames of the last round that nothing proves durable may be treated as torn or never written if one of them
//! is damaged (`docs/disk-format.md`, reading after a crash).

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use highwater_protocol::frame::FrameKind;
use highwater_protocol::ids::{LogIndex, Offset, TopicPartition};
use highwater_runtime::fs::{Fs as _, OpenMode};
use highwater_runtime::sim::{Damage, DiskHarness, DiskImage, SimDisk};
use highwater_storage::inspect::{self, Dumped, ExtentState};
use highwater_storage::{DurableForm, PartitionConfig, PartitionSlot, StoreEvent};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::{DropSome, Log, Model};
use crate::node::{DATA, DIR, Node, tp};
use crate::workload::{REPLICATED, Workload};

const BLOCK: usize = 4096;
const FORM: DurableForm = DurableForm::SyncPerRound;

/// A frame's position on disk.
struct Rests {
    path: PathBuf,
    bytes: Range<u64>,
    index: u64,
}

/// The image of a closed store, and its known contents.
struct Sample {
    image: DiskImage,
    /// Earlier contents of blocks that have changed.
    stale: BTreeMap<(PathBuf, usize), Vec<u8>>,
    model: Model,
    frames: BTreeMap<(TopicPartition, i64), Rests>,
    /// Blocks with meaningful bytes.
    meaningful: BTreeMap<PathBuf, Vec<Range<u64>>>,
    /// Every frame with an index below this is proved durable by a later frame or by a checkpoint.
    proven: BTreeMap<TopicPartition, u64>,
}

/// How the store ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Stopped,
    KilledIdle,
    KilledAtOnce,
}

fn sample(end: End) -> Sample {
    let mut disk = DiskHarness::new(5);
    disk.create_dir_all(DATA.as_ref()).expect("an empty disk");
    let (node, _) = Node::open(disk, FORM).expect("an empty store opens");
    let mut work = Workload::new(node, 77);
    for n in 0..3u8 {
        let config = PartitionConfig { retention_ms: None, ..PartitionConfig::default() };
        // One partition's log is truncated now and then.
        work.add_partition(tp(n, 0), if n == 2 { REPLICATED } else { config });
    }
    let mut images = Vec::new();
    for round in 0..14 {
        for (tp, slot) in work.partitions() {
            for _ in 0..work.rng.random_range(1..4) {
                let bytes = work.rng.random_range(20..1500);
                work.append_to(tp, slot, bytes, false, 1);
            }
            if round % 4 == 1 {
                work.append_to(tp, slot, 9000, true, -1);
            }
            if round % 6 == 2 {
                work.configure_partition(tp, slot);
                work.set_state_of(tp, slot);
            }
        }
        work.settle();
        if round % 4 == 3 {
            let (tp, slot) = work.partitions()[2];
            work.commit_share(tp, slot, 0.5);
            let bounds = work.node.store.bounds(slot);
            let index = bounds.commit.index.0.midpoint(bounds.append_index.0);
            work.truncate_at(tp, slot, LogIndex(index));
            work.settle();
        }
        if round == 6 || round == 11 {
            rewrite(&mut work, round % 3);
        }
        if round % 5 == 4 {
            images.push(work.node.disk.disk().image());
        }
    }
    if end == End::KilledIdle {
        work.node.store.enforce_retention(&mut work.node.disk, work.wall_ms);
        work.settle();
    }
    if end == End::Stopped {
        work.node.store.shutdown(&mut work.node.disk);
        work.node.take_events();
        work.node.settle();
        assert!(work.node.events.iter().any(|event| matches!(event, StoreEvent::Closed)));
    }
    let image = work.node.disk.disk().image();
    let stale = stale_blocks(&images, &image);
    let mut sample = Sample {
        image,
        stale,
        model: work.model,
        frames: BTreeMap::new(),
        meaningful: BTreeMap::new(),
        proven: BTreeMap::new(),
    };
    sample.read_layout(end);
    sample
}

/// Rewrites part of the first log. Dropped records are not expected.
fn rewrite(work: &mut Workload, rest: i64) {
    let (tp, slot) = work.partitions()[0];
    let filter = DropSome { divisor: 3, rest };
    work.rewrite_from(tp, slot, 0, filter);
    work.settle();
    let kept: Vec<i64> = work.node.read_all(slot).batches.iter().map(|(base, _)| *base).collect();
    let log = work.model.logs.get_mut(&tp).expect("a partition of this test");
    let rewritten = log.rewrites.pop().expect("it was begun");
    let before = log.entries.len();
    let is_there = |base: i64| kept.binary_search(&base).is_ok();
    assert!(
        log.entries
            .iter()
            .all(|e| is_there(e.base) || (rewritten.offsets.contains(&e.base) && filter.drops(e.base)))
    );
    log.entries.retain(|entry| is_there(entry.base));
    assert!(log.entries.len() < before, "some of it was dropped");
}

/// Returns, for each block of the final image, the latest earlier content that differs.
fn stale_blocks(images: &[DiskImage], last: &DiskImage) -> BTreeMap<(PathBuf, usize), Vec<u8>> {
    let mut stale = BTreeMap::new();
    for (path, _) in last.files() {
        let now = last.read(path).expect("it is listed");
        for old in images.iter().filter_map(|image| image.read(path)) {
            for (n, (was, is)) in old.chunks(BLOCK).zip(now.chunks(BLOCK)).enumerate() {
                if was != is {
                    stale.insert((path.to_path_buf(), n), was.to_vec());
                }
            }
        }
    }
    stale
}

impl Sample {
    /// Reads from the undamaged store where everything is.
    fn read_layout(&mut self, end: End) {
        let mut disk = SimDisk::from_image(&self.image, 1);
        let listing = inspect::list(&mut disk, DATA.as_ref()).expect("it is whole");
        let store = &listing.stores[0];
        assert_eq!(store.clean, end == End::Stopped);
        for slab in &store.slabs {
            let used = slab.extents.iter().filter(|extent| extent.state != ExtentState::Free);
            let used = used
                .map(|extent| extent.place.at..extent.place.at + extent.holds.expect("in use").used_bytes);
            self.meaningful.entry(slab.path.clone()).or_default().extend(used);
        }
        for copy in ["state.a", "state.b"] {
            self.meaningful
                .insert(Path::new(DIR).join(copy), std::iter::once(0..store.state.used_bytes).collect());
        }
        for tp in self.model.logs.keys() {
            let mut path = PathBuf::new();
            let mut proven = 0;
            inspect::dump(&mut disk, DATA.as_ref(), *tp, Offset(0), &mut |dumped| {
                match dumped {
                    Dumped::Extent { path: of, .. } => path = of,
                    Dumped::Frame { at, frame } => {
                        proven = proven.max(frame.header().durable_index());
                        if frame.kind() == FrameKind::Batch {
                            let bytes = at..at + frame.header().frame_bytes() as u64;
                            let index = frame.header().index.get();
                            let rests = Rests { path: path.clone(), bytes, index };
                            self.frames.insert((*tp, frame.header().base_offset.get()), rests);
                        }
                    }
                    Dumped::Gap { .. } => panic!("it is whole"),
                }
                ControlFlow::Continue(())
            })
            .expect("it is whole");
            self.proven.insert(*tp, if end == End::KilledAtOnce { proven } else { u64::MAX });
        }
        let entries: usize = self.model.logs.values().map(|log| log.entries.len()).sum();
        assert_eq!(self.frames.len(), entries, "every batch is on disk");
        let verification = inspect::verify(&mut disk, DATA.as_ref(), &mut |_| {}).expect("readable");
        assert!(verification.findings.is_empty() && verification.notes.is_empty(), "{verification:?}");
    }

    /// Returns whether a block has meaningful bytes; if `damaged` is given, whether such a byte has changed.
    fn is_meaningful(&self, path: &Path, block: usize, after: Option<&[u8]>) -> bool {
        let from = block * BLOCK;
        let used = self.meaningful.get(path).into_iter().flatten();
        let mut used = used.map(|u| (u.start as usize).max(from)..(u.end as usize).min(from + BLOCK));
        let Some(after) = after else { return used.any(|u| !u.is_empty()) };
        let before = self.image.read(path).expect("it is listed");
        used.any(|u| !u.is_empty() && before[u.clone()] != after[u.start - from..u.end - from])
    }

    /// Damages one block and checks everything. Returns `None` if the damage would not change it.
    fn check(&self, path: &Path, block: usize, case: &Case) -> Option<Outcome> {
        let disk = SimDisk::from_image(&self.image, 3);
        let after = case.apply(self, &disk, path, block)?;
        let meaningful = self.is_meaningful(path, block, after.as_deref());
        let at = format!("{} block {block}, {case:?}", path.display());

        let mut looked = disk.clone();
        let verification =
            inspect::verify(&mut looked, DATA.as_ref(), &mut |_| {}).expect("damage is no error");
        let noticed = !verification.findings.is_empty() || !verification.notes.is_empty();
        let span = (block * BLOCK) as u64..((block + 1) * BLOCK) as u64;
        let hit = |rests: &Rests| {
            rests.path == path && rests.bytes.start < span.end && span.start < rests.bytes.end
        };
        let unproven =
            |((tp, _), rests): (&(TopicPartition, i64), &Rests)| hit(rests) && rests.index >= self.proven[tp];
        let excused = self.frames.iter().any(unproven);
        assert!(noticed || !meaningful || excused, "{at}: verify has not noticed {verification:?}");

        let (mut node, report) =
            Node::open(DiskHarness::on(disk), FORM).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(node.store.partitions().count(), self.model.logs.len(), "{at}: {report:?}");
        let span = (block * BLOCK) as u64..((block + 1) * BLOCK) as u64;
        let hit = |rests: &Rests| {
            rests.path == path && rests.bytes.start < span.end && span.start < rests.bytes.end
        };
        let mut lost = 0;
        for (tp, log) in &self.model.logs {
            let slot = node.ensure(*tp, log.config);
            let bounds = node.store.bounds(slot);
            let read = node.read_all(slot);
            node.read_from_every_offset(slot);
            let mut batches: BTreeMap<i64, Vec<u8>> = read.batches.iter().cloned().collect();
            // From here on frames may be treated as torn.
            let of_log = self.frames.range((*tp, 0)..=(*tp, i64::MAX));
            let torn = of_log
                .clone()
                .filter(|(_, r)| hit(r) && r.index >= self.proven[tp])
                .map(|(_, r)| r.index)
                .min();
            let mut lost_here = 0;
            for entry in &log.entries {
                let rests = &self.frames[&(*tp, entry.base)];
                if let Some(batch) = batches.remove(&entry.base) {
                    assert_eq!(batch[..], entry.batch[..], "{at}: {tp} offset {}", entry.base);
                    continue;
                }
                let excused = hit(rests) || torn.is_some_and(|torn| rests.index >= torn);
                assert!(
                    excused,
                    "{at}: {tp} offset {} is lost; {bounds:?} {:?} {report:?}",
                    entry.base, read.damaged
                );
                lost_here += 1;
            }
            assert!(batches.is_empty(), "{at}: {tp} {:?} were invented", batches.keys());
            if lost_here > 0 && torn.is_none() {
                let told = bounds.faulty
                    || report.findings.iter().any(|(of, _)| of == tp)
                    || !read.damaged.is_empty();
                assert!(told, "{at}: {tp} lost {lost_here} batches without a word");
            }
            lost += lost_here;
            check_replica(log, &node, slot, torn.is_some() || report.findings.iter().any(|(of, _)| of == tp))
                .unwrap_or_else(|why| panic!("{at}: {tp}: {why}; {report:?}"));
        }
        Some(Outcome { meaningful, lost })
    }
}

/// Checks the configurations of a log and the state of its replica. `is_damaged`: the log may lack frames.
fn check_replica(log: &Log, node: &Node, slot: PartitionSlot, is_damaged: bool) -> Result<(), String> {
    let state = node.store.replica_state(slot);
    if state != log.states.last().copied() {
        return Err(format!("the state of the replica is {state:?}"));
    }
    let found = node.store.configurations(slot).map(|(index, payload)| (index.0, &payload[..]));
    let found: Vec<(u64, &[u8])> = found.collect();
    let appended = log.configurations.iter().map(|known| (known.index, &known.payload[..]));
    let appended: Vec<(u64, &[u8])> = appended.collect();
    let is_right = found == appended || (is_damaged && found.iter().all(|known| appended.contains(known)));
    if is_right { Ok(()) } else { Err(format!("the configurations are {found:?}, not {appended:?}")) }
}

struct Outcome {
    meaningful: bool,
    lost: usize,
}

#[derive(Clone, Copy, Debug)]
enum Case {
    Flip(usize),
    Zero,
    Stale,
    Other(usize),
    Unreadable,
}

impl Case {
    /// Damages the block. Returns `None` if that changes nothing, else its new content, if it has one.
    #[expect(clippy::option_option, reason = "see above")]
    fn apply(&self, sample: &Sample, disk: &SimDisk, path: &Path, block: usize) -> Option<Option<Vec<u8>>> {
        let whole = sample.image.read(path).expect("it is listed");
        let of = |n: usize| whole.get(n * BLOCK..(n + 1) * BLOCK).map(<[u8]>::to_vec);
        let before = of(block)?;
        let mut after = before.clone();
        match *self {
            Self::Flip(bit) => after[bit / 8] ^= 1 << (bit % 8),
            Self::Zero => after.fill(0),
            Self::Stale => after.clone_from(sample.stale.get(&(path.to_path_buf(), block))?),
            Self::Other(distance) => after = of((block + distance) % (whole.len() / BLOCK))?,
            Self::Unreadable => {
                disk.damage(path, block as u64, &Damage::Unreadable);
                return Some(None);
            }
        }
        if after == before {
            return None;
        }
        let mut disk = disk.clone();
        let file = disk.open(path, OpenMode::ReadWrite).expect("it is listed");
        disk.write_at(file, (block * BLOCK) as u64, &after).expect("no faults");
        disk.sync_file(file).expect("no faults");
        disk.close_file(file);
        Some(Some(after))
    }
}

pub(crate) fn run(end: End) {
    let sample = sample(end);
    let mut rng = SmallRng::seed_from_u64(9);
    let (mut cases, mut meaningful, mut lost) = (0, 0, 0);
    let paths: Vec<(PathBuf, u64)> =
        sample.image.files().map(|(path, bytes)| (path.to_path_buf(), bytes)).collect();
    let flips = if crate::is_long() { 40 } else { 2 };
    for (path, bytes) in paths {
        for block in 0..bytes as usize / BLOCK {
            let mut all = vec![Case::Zero, Case::Stale, Case::Other(1), Case::Unreadable];
            all.extend((0..flips).map(|_| Case::Flip(rng.random_range(0..BLOCK * 8))));
            if crate::is_long() {
                all.extend([
                    Case::Other(2),
                    Case::Other(3),
                    Case::Other(7),
                    Case::Flip(0),
                    Case::Flip(BLOCK * 8 - 1),
                ]);
            }
            if !sample.is_meaningful(&path, block, None) && !crate::is_long() {
                all.truncate(3);
            }
            for case in &all {
                let Some(outcome) = sample.check(&path, block, case) else { continue };
                cases += 1;
                meaningful += usize::from(outcome.meaningful);
                lost += outcome.lost;
            }
        }
    }
    println!(
        "{cases} cases, {meaningful} of them to blocks that mean something, {lost} batches lost within damaged blocks"
    );
    assert!(meaningful > 200, "{meaningful}");
}

#[test]
fn no_damaged_block_of_a_stopped_store_goes_unnoticed_or_loses_more_than_itself() {
    run(End::Stopped);
}

#[test]
fn no_damaged_block_of_a_store_killed_while_idle_goes_unnoticed_or_loses_more_than_itself() {
    run(End::KilledIdle);
}

#[test]
fn no_damaged_block_of_a_killed_store_loses_more_than_itself_and_the_last_round() {
    run(End::KilledAtOnce);
}

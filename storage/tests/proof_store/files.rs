//! Proof 2, whole files: each file of a store, alone and with related files, is missing, empty, truncated at every page, extended, or replaced by
//! an older copy, by another store's file or by another cluster's. Each time the store opens or reports why it does not. Intact records are read
//! byte for byte, and nothing else is. Partitions that lost records report it; all others accept appends without overwriting anything; and every
//! partition can be deleted and created again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_protocol::batch::BatchProducer;
use highwater_protocol::ids::{ClusterId, Offset, StoreId, TopicPartition};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage, SimDisk};
use highwater_storage::{
    AppendError, DurableForm, OpenError, PartitionConfig, PartitionFinding, RecoveryReport, StoreConfig,
    StoreEvent,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::Model;
use crate::node::{DATA, DIR, Node, Setup, config, tp};
use crate::workload::{Workload, batch};

const PAGE: usize = 4096;
/// With a journal, which is one of the files.
const FORM: Setup = Setup { form: DurableForm::Dsync, journal: true };

/// Maximum number of warnings of one start, however much is wrong.
const WARNINGS_MAX: usize = 40;

/// The image of a closed store, and its image before the last stop and start.
struct Sample {
    image: DiskImage,
    older: DiskImage,
    model: Model,
}

fn round(work: &mut Workload, n: usize) {
    for (tp, slot) in work.partitions() {
        for _ in 0..work.rng.random_range(1..4) {
            let bytes = work.rng.random_range(20..1500);
            work.append_to(tp, slot, bytes, false, 1);
        }
        if n % 4 == 1 {
            work.append_to(tp, slot, 9000, true, -1);
        }
    }
    work.settle();
}

fn stop(work: &mut Workload) {
    work.node.store.shutdown(&mut work.node.disk);
    work.node.take_events();
    work.node.settle();
    assert!(work.node.events.iter().any(|event| matches!(event, StoreEvent::Closed)));
}

fn sample(of: &StoreConfig, topics: std::ops::Range<u8>, stopped: bool) -> Sample {
    let mut disk = DiskHarness::new(5);
    disk.create_dir_all(DATA.as_ref()).expect("an empty disk");
    let (node, _) = Node::open_with(disk, of.clone()).expect("an empty store opens");
    let mut work = Workload::new(node, 77);
    for n in topics {
        let config = PartitionConfig { retention_ms: None, ..PartitionConfig::default() };
        work.add_partition(tp(n, 0), config);
    }
    (0..8).for_each(|n| round(&mut work, n));
    stop(&mut work);
    let older = work.node.disk.disk().image();
    let (node, _) = Node::open_with(DiskHarness::on(SimDisk::from_image(&older, 6)), of.clone())
        .expect("what was stopped in order opens");
    work.resume_with(node);
    (0..8).for_each(|n| round(&mut work, n));
    if stopped {
        stop(&mut work);
    } else {
        work.node.store.enforce_retention(&mut work.node.disk, work.wall_ms);
        work.settle();
    }
    Sample { image: work.node.disk.disk().image(), older, model: work.model }
}

/// What happens to files.
#[derive(Clone, Debug)]
enum Case {
    Missing,
    Cut(usize),
    Grown(usize),
    Older,
    OtherStores,
    OtherClusters,
}

struct Proof {
    sample: Sample,
    other_store: DiskImage,
    other_cluster: DiskImage,
    cases: usize,
    not_opened: usize,
    lost: usize,
}

impl Proof {
    fn new(stopped: bool) -> Self {
        let this = config(FORM);
        let other = |config: StoreConfig| sample(&config, 20..24, true).image;
        Self {
            sample: sample(&this, 0..3, stopped),
            other_store: other(StoreConfig { store: StoreId(1), ..this.clone() }),
            other_cluster: other(StoreConfig { cluster: ClusterId([0xEE; 16]), ..this }),
            cases: 0,
            not_opened: 0,
            lost: 0,
        }
    }

    /// Returns the image with these files changed; `None` if that changes nothing.
    fn apply(&self, paths: &[&Path], case: &Case) -> Option<DiskImage> {
        let mut image = self.sample.image.clone();
        let mut changed = false;
        for path in paths {
            let before = image.read(path).expect("it is listed");
            let after = match case {
                Case::Missing => None,
                Case::Cut(bytes) => Some(before.get(..*bytes)?.to_vec()),
                Case::Grown(bytes) => {
                    let mut grown = before.clone();
                    grown.resize(before.len() + bytes, 0);
                    Some(grown)
                }
                Case::Older => Some(self.sample.older.read(path)?),
                Case::OtherStores => Some(self.other_store.read(path)?),
                Case::OtherClusters => Some(self.other_cluster.read(path)?),
            };
            changed |= after.as_ref() != Some(&before);
            match after {
                None => image.remove(path),
                Some(after) => image.put(path, &after),
            }
        }
        changed.then_some(image)
    }

    fn check(&mut self, paths: &[&Path], case: &Case) {
        let Some(image) = self.apply(paths, case) else { return };
        let at = format!("{case:?} {paths:?}");
        self.cases += 1;
        match Node::open_image(&image, 3, FORM) {
            Ok((node, report)) => self.check_open(&at, node, &report),
            Err(error) => {
                let named = paths.iter().any(|path| error.to_string().contains(&*path.to_string_lossy()));
                let named = named || error.to_string().contains(DIR);
                assert!(named && !matches!(error, OpenError::Io { .. }), "{at}: {error}");
                self.not_opened += 1;
            }
        }
    }

    fn check_open(&mut self, at: &str, mut node: Node, report: &RecoveryReport) {
        assert!(report.warnings.len() <= WARNINGS_MAX, "{at}: {} warnings", report.warnings.len());
        let mut readable: BTreeMap<TopicPartition, BTreeMap<i64, Vec<u8>>> = BTreeMap::new();
        for (tp, log) in &self.sample.model.logs {
            let slot = node.ensure(*tp, log.config);
            let bounds = node.store.bounds(slot);
            let read = node.read_all(slot);
            node.read_from_every_offset(slot);
            let batches: BTreeMap<i64, Vec<u8>> = read.batches.into_iter().collect();
            let lost = log.entries.iter().filter(|entry| match batches.get(&entry.base) {
                Some(batch) => {
                    assert_eq!(batch[..], entry.batch[..], "{at}: {tp} offset {}", entry.base);
                    false
                }
                None => true,
            });
            let lost = lost.count();
            let invented = batches.keys().filter(|base| !log.entries.iter().any(|e| e.base == **base));
            assert_eq!(invented.count(), 0, "{at}: {tp}");
            let is_faulty = |(of, finding): &(TopicPartition, PartitionFinding)| {
                of == tp && matches!(finding, PartitionFinding::Faulty { .. })
            };
            let told = bounds.faulty || report.findings.iter().any(is_faulty) || !read.damaged.is_empty();
            assert!(
                lost == 0 || told,
                "{at}: {tp} lost {lost} batches without a word: {bounds:?} {report:?}"
            );
            self.lost += lost;
            readable.insert(*tp, batches);
        }
        self.check_appends(at, &mut node, &readable);
        node.disk.crash(CrashPolicy::LOSE_ALL);
        let (mut node, _) = Node::open(node.disk, FORM).unwrap_or_else(|e| panic!("{at}: {e}"));
        self.check_still_readable(at, &mut node, &readable);
        self.delete_all(at, &mut node);
        node.disk.crash(CrashPolicy::LOSE_ALL);
        let (node, _) = Node::open(node.disk, FORM).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!(node.store.partitions().count(), 1, "{at}: what was deleted stays deleted");
    }

    /// Checks that intact partitions accept appends, and that no readable record is overwritten.
    fn check_appends(
        &self,
        at: &str,
        node: &mut Node,
        readable: &BTreeMap<TopicPartition, BTreeMap<i64, Vec<u8>>>,
    ) {
        for (tp, log) in &self.sample.model.logs {
            let slot = node.ensure(*tp, log.config);
            let bounds = node.store.bounds(slot);
            let epoch = bounds.last_epoch.map_or(0, |epoch| epoch.0);
            // Enough records to need new extents.
            for _ in 0..4 {
                let mut rng = SmallRng::seed_from_u64(1);
                let batch = batch(&mut rng, 2, 12_000, 1, BatchProducer::NONE);
                match node.append(slot, &batch, false, epoch, 1) {
                    Ok(_) => assert!(!bounds.faulty, "{at}: {tp}"),
                    Err(AppendError::Faulty) => assert!(bounds.faulty, "{at}: {tp}"),
                    Err(AppendError::Busy) => {}
                    Err(e) => panic!("{at}: {tp}: {e}"),
                }
                node.settle();
            }
            let after = node.store.bounds(slot);
            assert_eq!(after.durable_end, after.append_end, "{at}: {tp}");
            assert!(bounds.faulty || after.durable_end > bounds.durable_end, "{at}: {tp} takes records");
        }
        self.check_still_readable(at, node, readable);
    }

    fn check_still_readable(
        &self,
        at: &str,
        node: &mut Node,
        readable: &BTreeMap<TopicPartition, BTreeMap<i64, Vec<u8>>>,
    ) {
        for (tp, before) in readable {
            let slot = node.ensure(*tp, self.sample.model.logs[tp].config);
            let now: BTreeMap<i64, Vec<u8>> = node.read_all(slot).batches.into_iter().collect();
            for (base, batch) in before {
                assert!(now.get(base) == Some(batch), "{at}: {tp} offset {base} was overwritten");
            }
        }
    }

    /// Checks that everything can be deleted, and partitions created again in the remaining space.
    fn delete_all(&self, at: &str, node: &mut Node) {
        let all: Vec<_> = node.store.partitions().collect();
        for (_, slot) in &all {
            node.store.delete_partition(&mut node.disk, *slot);
        }
        node.settle();
        for (tp, _) in &all {
            let gone = |event: &StoreEvent| matches!(event, StoreEvent::Deleted { tp: of } if of == tp);
            assert!(node.events.iter().any(gone), "{at}: {tp} was not deleted");
        }
        node.store.enforce_retention(&mut node.disk, i64::MAX);
        let stats = node.store.stats();
        assert!(stats.free_bytes <= stats.slab_bytes, "{at}: {stats:?}");
        let slot = node.ensure(tp(99, 0), PartitionConfig::KEEP_ALL);
        let batch = self.sample.model.logs[&tp(0, 0)].entries[0].batch.clone();
        for _ in 0..30 {
            match node.append(slot, &batch, false, 1, 1) {
                Ok(_) | Err(AppendError::Busy | AppendError::Duplicate { .. }) => node.settle(),
                Err(e) => panic!("{at}: {e}"),
            }
        }
        assert!(node.store.bounds(slot).durable_end > Offset(0), "{at}");
    }
}

fn run(stopped: bool) {
    let mut proof = Proof::new(stopped);
    let files: Vec<(PathBuf, u64)> =
        proof.sample.image.files().map(|(path, bytes)| (path.to_path_buf(), bytes)).collect();
    for (path, bytes) in &files {
        let mut cases = vec![
            Case::Missing,
            Case::Cut(PAGE / 2),
            Case::Cut(*bytes as usize - PAGE / 2),
            Case::Grown(PAGE),
            Case::Grown(*bytes as usize),
            Case::Older,
            Case::OtherStores,
            Case::OtherClusters,
        ];
        cases.extend((0..*bytes as usize).step_by(PAGE).map(Case::Cut));
        for case in &cases {
            proof.check(&[path], case);
        }
    }
    let all = |is: &dyn Fn(&str) -> bool| -> Vec<&Path> {
        let named = |path: &&Path| is(&path.file_name().unwrap_or_default().to_string_lossy());
        files.iter().map(|(path, _)| path.as_path()).filter(named).collect()
    };
    let together = [
        all(&|name| matches!(name, "state.a" | "state.b")),
        all(&|name| name.starts_with("state.")),
        all(&|name| name.starts_with("slab-")),
        all(&|name| name != "state.mark"),
    ];
    for (n, paths) in together.iter().enumerate() {
        let whole = [
            Case::Missing,
            Case::Cut(0),
            Case::Cut(PAGE),
            Case::Cut(3 * PAGE),
            Case::Older,
            Case::OtherStores,
            Case::OtherClusters,
        ];
        // A store that is restored completely from an older copy cannot be distinguished from the older store.
        let is_whole_store = |case: &&Case| n == 3 && matches!(case, Case::Older);
        for case in whole.iter().filter(|case| !is_whole_store(case)) {
            proof.check(paths, case);
        }
    }
    let Proof { cases, not_opened, lost, .. } = proof;
    println!("{cases} cases, {not_opened} stores not opened, {lost} batches lost with their files");
    assert!(cases > 200 && not_opened > 0 && lost > 0);
}

#[test]
fn a_stopped_store_with_damaged_files_reports_what_is_lost_and_keeps_the_rest() {
    run(true);
}

#[test]
fn a_killed_store_with_damaged_files_reports_what_is_lost_and_keeps_the_rest() {
    run(false);
}

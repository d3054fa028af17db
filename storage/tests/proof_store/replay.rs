//! Proof 1: recorded I/O, replayed into every image that a power cut could have left.
//!
//! Each seed is a chain of lives of one store. A life is recorded random work. At every step of the recording the power is cut, with everything
//! that was not durable lost, kept, torn, or a random mixture of these. Each image (or a sample) is recovered and compared with the appends and
//! promises up to then. Then the store must accept appends, keep them over a second power cut, and still agree. The next life begins with one of
//! the images.

use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage, SimDisk};
use highwater_storage::DurableForm;
use highwater_storage::inspect::{self, FindingKind};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::{Model, Promises, promise};
use crate::node::{DATA, Node, Setup};
use crate::workload::Workload;

/// Seeds that have found bugs, in addition to those of a short run.
const FOUND: [u64; 2] = [66, 137];

/// How much to test.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) seeds: u64,
    pub(crate) lives: u32,
    pub(crate) steps: u32,
    /// Random mixtures at each step, beside lost, kept and torn.
    pub(crate) mixtures: u32,
    /// One in this many images is recovered.
    pub(crate) one_in: usize,
}

impl Effort {
    pub(crate) fn from_environment() -> Self {
        if crate::is_long() {
            Self { seeds: 100, lives: 4, steps: 400, mixtures: 3, one_in: 5 }
        } else {
            Self { seeds: 8, lives: 3, steps: 300, mixtures: 2, one_in: 4 }
        }
    }
}

/// Statistics of a run.
#[derive(Default, Debug)]
pub(crate) struct Tried {
    pub(crate) images: usize,
    pub(crate) recovered: usize,
    /// Number of rewritten parts of logs.
    pub(crate) rewrites: u64,
}

/// Runs the chain of lives of one seed. The error describes what is wrong, and where.
pub(crate) fn run_seed(seed: u64, effort: Effort, tried: &mut Tried) -> Result<(), String> {
    let form = if seed.is_multiple_of(2) { DurableForm::Dsync } else { DurableForm::SyncPerRound };
    let form = Setup { form, journal: seed % 4 < 2 };
    let mut disk = DiskHarness::new(seed);
    highwater_runtime::fs::Fs::create_dir_all(&mut disk, DATA.as_ref()).expect("an empty disk");
    let (node, _) = Node::open(disk, form).expect("an empty store opens");
    let mut work = Workload::new(node, seed);
    let mut pick = SmallRng::seed_from_u64(seed ^ 0xC4A5);
    for life in 0..effort.lives {
        work.begin();
        work.settle();
        work.node.disk.disk().record();
        work.acks.clear();
        for _ in 0..effort.steps {
            work.step();
        }
        tried.rewrites += work.node.store.stats().rewrites;
        let recording = work.node.disk.disk().take_recording();
        let mut promises = work.base.clone();
        let mut told = 0;
        let stop_at = pick.random_range(recording.events().len() / 2..=recording.events().len());
        let mut next = None;
        for (n, cut) in recording.crash_images(seed, effort.mixtures).enumerate() {
            tried.images += 1;
            for ack in &work.acks[told..cut.marks] {
                promise(&mut promises, *ack);
            }
            told = cut.marks;
            if cut.events >= stop_at && next.is_none() && cut.variant == pick.random_range(0..4) {
                next = Some((cut.image.clone(), promises.clone()));
            }
            if n % effort.one_in != (seed as usize + life as usize) % effort.one_in {
                continue;
            }
            tried.recovered += 1;
            let at = format!(
                "seed {seed}, life {life}, image {n} (event {}, variant {})",
                cut.events, cut.variant
            );
            check_write_bounds(&cut.image).map_err(|why| format!("{at}: {why}"))?;
            check_image(&cut.image, &work.model, &promises, seed ^ n as u64, form)
                .map_err(|why| format!("{at}: {why}"))?;
        }
        let (image, promises) = next.unwrap_or_else(|| (work.node.disk.disk().image(), promises.clone()));
        let (mut node, report) =
            Node::open_image(&image, seed + u64::from(life), form).map_err(|e| e.to_string())?;
        work.model
            .check(&mut node, &report, &promises)
            .map_err(|why| format!("seed {seed}, end of life {life}: {why}"))?;
        work.node = node;
    }
    Ok(())
}

/// No frame lies at or after the write bound of its extent: recovery would not find it.
fn check_write_bounds(image: &DiskImage) -> Result<(), String> {
    let mut disk = SimDisk::from_image(image, 0);
    let Ok(verification) = inspect::verify(&mut disk, DATA.as_ref(), &mut |_| {}) else {
        // The power was cut before there was a store.
        return Ok(());
    };
    let mut findings = verification.findings.iter();
    match findings.find(|finding| matches!(finding.kind, FindingKind::WriteBound { .. })) {
        None => Ok(()),
        Some(finding) => Err(format!("{}: {}", finding.at, finding.kind)),
    }
}

/// Recovers an image, compares, appends, cuts the power again, and compares again.
fn check_image(
    image: &DiskImage,
    model: &Model,
    promises: &Promises,
    seed: u64,
    form: Setup,
) -> Result<(), String> {
    let (mut node, report) =
        Node::open_image(image, seed, form).map_err(|e| format!("does not open: {e}"))?;
    model.check(&mut node, &report, promises)?;
    let first = report;
    let mut work = Workload::new(node, seed);
    work.model = model.clone();
    work.begin();
    for (tp, slot) in work.partitions() {
        let bytes = work.rng.random_range(10..3000);
        let bulk = work.rng.random_bool(0.2);
        work.append_to(tp, slot, bytes, bulk, 1);
        if work.rng.random_bool(0.5) {
            work.append_to(tp, slot, 50, false, 1);
        }
    }
    for _ in 0..work.rng.random_range(0..8) {
        work.node.flush();
        work.node.step();
    }
    if work.rng.random_bool(0.5) {
        work.settle();
    }
    work.note_events();
    let mut promises = work.base.clone();
    for ack in &work.acks {
        promise(&mut promises, *ack);
    }
    let policies = [CrashPolicy::LOSE_ALL, CrashPolicy::MIXED, CrashPolicy::TEAR_ALL, CrashPolicy::KEEP_ALL];
    let Workload { mut node, model, mut rng, .. } = work;
    node.disk.crash(policies[rng.random_range(0..4)]);
    let Node { disk, .. } = node;
    check_write_bounds(&disk.disk().image())?;
    let (mut node, report) =
        Node::open(disk, form).map_err(|e| format!("does not open a second time: {e}"))?;
    model
        .check(&mut node, &report, &promises)
        .map_err(|why| format!("after a second power cut: {why}\n first: {first:?}\n second: {report:?}"))
}

#[test]
fn no_power_cut_loses_what_was_acknowledged_or_invents_what_was_not_appended() {
    let effort = Effort::from_environment();
    let mut tried = Tried::default();
    for seed in (0..effort.seeds).chain(FOUND) {
        if let Err(why) = run_seed(seed, effort, &mut tried) {
            panic!("{why}");
        }
    }
    println!("{tried:?}");
    let least = if crate::is_long() { 100_000 } else { 10_000 };
    assert!(tried.recovered >= least && tried.rewrites >= effort.seeds * 2, "{tried:?}");
}

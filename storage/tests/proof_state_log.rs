//! The state log on a disk with a volatile cache: every image that a power cut could have left of a recorded run is opened, and opened again after
//! a power cut during the first recovery.
//!
//! `HIGHWATER_PROOF=long cargo test -p highwater-storage --test proof_state_log` runs more seeds.

use std::path::Path;

use highwater_protocol::ids::ClusterId;
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{DiskHarness, DiskImage, SimDisk};
use highwater_storage::state_log::{Owner, Recovered, Seq, StateLog};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const OWNER: Owner = Owner { purpose: *b"test", cluster: ClusterId([3; 16]), number: 0 };
const FILE_BYTES: u64 = 32 << 10;

fn open(disk: &mut DiskHarness) -> (StateLog, Recovered) {
    let opened = StateLog::open_sized(disk, Path::new("/d/meta"), OWNER, 1, FILE_BYTES);
    opened.expect("a power cut never loses a log")
}

fn on(image: &DiskImage, seed: u64) -> DiskHarness {
    DiskHarness::on(SimDisk::from_image(image, seed))
}

/// Pieces of a snapshot. Each has the number of payloads that it represents.
const PIECES: usize = 3;

/// Runs a turn of the owner: flushes the log, and adds a piece to a requested snapshot. `giving` is the number of payloads of the snapshot, and of
/// missing pieces.
fn turn(log: &mut StateLog, disk: &mut DiskHarness, giving: &mut Option<(u64, usize)>, appended: u64) {
    log.flush(disk);
    if log.wants_snapshot() {
        log.begin_snapshot();
        *giving = Some((appended, PIECES));
    }
    if let Some((covers, left)) = giving {
        log.add_to_snapshot(&covers.to_le_bytes());
        *left -= 1;
        if *left == 0 {
            log.end_snapshot(disk);
            *giving = None;
        }
    }
}

/// The state is the number of payloads. Payload `n` contains `n` and has a pseudorandom length.
fn payload(n: u64) -> Vec<u8> {
    let bytes = 8 + (n * 2_654_435_761 % 6000) as usize;
    n.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// Returns the number of payloads in a recovered log, after checking each.
fn count(recovered: &Recovered) -> u64 {
    assert!(recovered.damage.is_empty(), "a power cut is not damage: {:?}", recovered.damage);
    let mut n = 0;
    for piece in &recovered.snapshot {
        n = u64::from_le_bytes(piece[..].try_into().expect("eight bytes"));
    }
    let is_whole = recovered.snapshot.iter().all(|piece| piece == &recovered.snapshot[0]);
    assert!(is_whole && [0, PIECES].contains(&recovered.snapshot.len()), "{:?}", recovered.snapshot);
    for record in &recovered.records {
        n += 1;
        assert_eq!(record[..], payload(n));
    }
    n
}

fn check(image: &DiskImage, durable: u64, appended: u64, seed: u64) {
    let mut disk = on(image, seed);
    disk.disk().record();
    let (mut log, recovered) = open(&mut disk);
    let n = count(&recovered);
    assert!((durable..=appended).contains(&n), "{durable} durable, {appended} appended, {n} recovered");
    assert_eq!(log.durable(), Seq(n));
    // Nothing that recovery has returned is lost in a power cut during or after a later recovery.
    let recording = disk.disk().take_recording();
    for cut in recording.crash_images(seed, 1) {
        let least = if cut.events == recording.events().len() { n } else { durable };
        let again = count(&open(&mut on(&cut.image, seed)).1);
        assert!(
            (least..=appended).contains(&again),
            "{least}..={appended}, {again} after a second power cut"
        );
    }
    log.append(&payload(n + 1));
    let mut giving = None;
    turn(&mut log, &mut disk, &mut giving, n + 1);
    while giving.is_some() {
        turn(&mut log, &mut disk, &mut giving, n + 1);
    }
    for (token, completion) in disk.run_until_idle() {
        log.on_disk(&mut disk, token, completion).expect("no faults");
    }
    while let Some((token, completion)) = disk.step() {
        log.on_disk(&mut disk, token, completion).expect("no faults");
    }
    assert_eq!(log.durable(), Seq(n + 1));
    assert_eq!(count(&open(&mut on(&disk.disk().image(), seed)).1), n + 1);
}

#[test]
fn after_every_power_cut_a_log_has_everything_durable_and_nothing_that_was_not_appended() {
    let seeds = if std::env::var("HIGHWATER_PROOF").is_ok_and(|v| v == "long") { 40 } else { 3 };
    let mut images = 0;
    for seed in 0..seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut disk = DiskHarness::new(seed);
        disk.create_dir_all("/d".as_ref()).expect("an empty disk");
        let (mut log, _) = open(&mut disk);
        disk.disk().record();
        let (mut appended, mut giving) = (0, None);
        for _ in 0..150 {
            match rng.random_range(0..4) {
                0 => {
                    appended += 1;
                    log.append(&payload(appended));
                }
                1 => {
                    turn(&mut log, &mut disk, &mut giving, appended);
                }
                _ => {
                    let Some((token, completion)) = disk.step() else { continue };
                    let before = log.durable();
                    log.on_disk(&mut disk, token, completion).expect("no faults");
                    if log.durable() != before {
                        disk.disk().mark(log.durable().0);
                    }
                }
            }
        }
        for cut in disk.disk().take_recording().crash_images(seed, 2) {
            check(&cut.image, cut.last_mark.unwrap_or(0), appended, seed);
            images += 1;
        }
    }
    assert!(images > 200 * seeds, "{images} images");
}

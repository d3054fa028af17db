//! Crashes at every step of random work, with every operation in flight done, not done, or torn; and crashes in recovery itself.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::disk::MemDisk;
use super::*;

/// Opens, and checks what must hold after any crash.
fn check(disk: &mut MemDisk, appended: &[Vec<u8>], durable: usize) -> Vec<Vec<u8>> {
    let (owned, recovered) = Owned::open(disk).expect("a crash never loses a log");
    assert!(recovered.damage.is_empty(), "a crash is not damage: {:?}", recovered.damage);
    assert!(owned.state.len() >= durable, "{durable} were durable, {} are there", owned.state.len());
    assert_eq!(owned.state, appended[..owned.state.len()], "nothing is invented or reordered");
    owned.state
}

/// Recovers this image, also with a crash after each change that recovery makes, and goes on using it.
fn check_image(image: &MemDisk, appended: &[Vec<u8>], durable: usize) {
    let mut first = image.clone();
    let seen = check(&mut first, appended, durable);
    let changes = first.changes - image.changes;
    for n in 0..changes {
        let mut cut = image.clone();
        cut.changes_left = Some(n);
        assert!(open_on(&mut cut).is_err(), "the machine went off");
        cut.changes_left = None;
        check(&mut cut, appended, durable);
    }
    // What was told stays true, and the log can be used.
    let mut second = first.crashed(|_| false);
    let (mut owned, recovered) = Owned::open(&mut second).expect("readable");
    assert!(recovered.notes.is_empty(), "recovery left both copies equal: {:?}", recovered.notes);
    assert_eq!(owned.state, seen);
    owned.append(payload(999, 700));
    owned.settle(&mut second);
    assert_eq!(owned.log.durable(), owned.log.appended());
    let (again, _) = Owned::open(&mut second).expect("readable");
    assert_eq!(again.state, owned.state);
}

#[test]
fn no_crash_at_any_step_loses_a_durable_payload_or_invents_one() {
    let mut images = 0;
    for seed in 0..6 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut disk = MemDisk::default();
        let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
        for step in 0..120 {
            match rng.random_range(0..10) {
                0..4 => {
                    let bytes = *[10, 300, 5000, 20_000].get(rng.random_range(0..4)).expect("four");
                    owned.append(payload(step, bytes));
                }
                4..6 => owned.turn_end(&mut disk),
                6 if !owned.log.is_rotating() && rng.random_range(0..4) == 0 => {
                    owned.begin_snapshot();
                }
                _ if !disk.in_flight.is_empty() => {
                    let (token, completion) = disk.complete(rng.random_range(0..disk.in_flight.len()));
                    owned.log.on_disk(&mut disk, token, completion).expect("this disk fails no write");
                }
                _ => {}
            }
            let durable = owned.log.durable().0 as usize;
            check_image(&disk.crashed(|_| false), &owned.state, durable);
            images += 1;
            if !disk.in_flight.is_empty() {
                check_image(&disk.crashed(|_| true), &owned.state, durable);
                check_image(&disk.crashed(|sector| sector == 0), &owned.state, durable);
                check_image(&disk.crashed(|sector| sector != 0), &owned.state, durable);
                check_image(&disk.crashed(|_| rng.random_bool(0.5)), &owned.state, durable);
                images += 4;
            }
        }
    }
    assert!(images > 1500, "{images} images");
}

#[test]
fn a_crash_while_a_new_log_is_made_leaves_a_new_log() {
    for changes in 0..2 {
        let mut disk = MemDisk::default();
        disk.changes_left = Some(changes);
        assert!(open_on(&mut disk).is_err(), "the machine went off");
        disk.changes_left = None;
        let (_, recovered) = open_on(&mut disk).expect("as new");
        assert!(recovered.records.is_empty() && recovered.damage.is_empty(), "{recovered:?}");
    }
}

#[test]
fn a_record_of_an_older_generation_behind_the_end_is_never_taken() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    for n in 0..3 {
        owned.append(payload(n, 100));
        owned.turn_end(&mut disk);
        drain(&mut owned.log, &mut disk);
    }
    let old = disk.bytes(&paths()[0]).to_vec();
    owned.log.snapshot(&mut disk, &snapshot_of(&owned.state[..0]));
    drain(&mut owned.log, &mut disk);
    for path in paths() {
        disk.bytes_mut(&path)[8192..].copy_from_slice(&old[8192..]);
    }
    let (_, recovered) = open_on(&mut disk).expect("readable");
    assert!(recovered.records.is_empty(), "{:?}", recovered.records);
}

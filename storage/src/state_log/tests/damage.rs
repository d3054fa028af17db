//! Every block of either file, or of both, damaged in every way.

use super::disk::MemDisk;
use super::*;

const BLOCK: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize),
    Zero,
    /// What the block held before the last rotation.
    Stale,
    /// The content of another block of the same file.
    Other(usize),
    Unreadable,
}

const KINDS: [Damage; 9] = [
    Damage::Flip(0),
    Damage::Flip(9),
    Damage::Flip(63 * 8 + 1),
    Damage::Flip(20_000),
    Damage::Flip(BLOCK * 8 - 1),
    Damage::Zero,
    Damage::Stale,
    Damage::Other(1),
    Damage::Other(3),
];

/// A log with a snapshot of several blocks and records of one, three and one block; and its size in use.
fn sample() -> (MemDisk, Vec<Vec<u8>>, Vec<u8>, usize) {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    for n in 0..4 {
        owned.append(payload(n, 3000));
        owned.turn_end(&mut disk);
        drain(&mut owned.log, &mut disk);
    }
    let stale = disk.bytes(&paths()[0]).to_vec();
    owned.rotate(&mut disk);
    drain(&mut owned.log, &mut disk);
    for (n, bytes) in [(4, 50), (5, 9000), (6, 4028)] {
        owned.append(payload(n, bytes));
        owned.turn_end(&mut disk);
        drain(&mut owned.log, &mut disk);
    }
    let used = owned.log.position as usize;
    (disk, owned.state, stale, used)
}

/// Damages a block; tells whether that changed anything.
fn apply(disk: &mut MemDisk, copy: usize, block: usize, damage: Damage, stale: &[u8]) -> bool {
    let path = &paths()[copy];
    let span = block * BLOCK..(block + 1) * BLOCK;
    let before = disk.bytes(path)[span.clone()].to_vec();
    let bytes = disk.bytes_mut(path);
    match damage {
        Damage::Flip(bit) => bytes[span.start + bit / 8] ^= 1 << (bit % 8),
        Damage::Zero => bytes[span.clone()].fill(0),
        Damage::Stale => bytes[span.clone()].copy_from_slice(&stale[span.clone()]),
        Damage::Other(other) => bytes.copy_within(other * BLOCK..(other + 1) * BLOCK, span.start),
        Damage::Unreadable => {
            disk.unreadable.insert((path.clone(), span.start as u64));
            return true;
        }
    }
    disk.bytes(path)[span] != before
}

#[test]
fn damage_to_any_one_block_of_either_file_loses_nothing_and_is_told() {
    let (sample, state, stale, used) = sample();
    for copy in 0..2 {
        for block in 0..used / BLOCK + 2 {
            for damage in KINDS.into_iter().chain([Damage::Unreadable]) {
                let mut disk = sample.clone();
                let changed = apply(&mut disk, copy, block, damage, &stale);
                let (owned, recovered) = Owned::open(&mut disk).expect("one copy is whole");
                assert_eq!(owned.state, state, "{damage:?} of block {block} of copy {copy}");
                let told = recovered.damage.len() + recovered.notes.len();
                if changed {
                    assert!(told > 0, "{damage:?} of block {block} of copy {copy} was not noticed");
                }
                let last_record = block == used / BLOCK - 1;
                if changed && block < used / BLOCK && !last_record {
                    assert!(!recovered.damage.is_empty(), "{damage:?} of block {block} of copy {copy}");
                }
                disk.unreadable.clear();
                let (owned, recovered) = Owned::open(&mut disk).expect("healed");
                assert_eq!(owned.state, state);
                assert!(recovered.damage.is_empty() && recovered.notes.is_empty(), "healed: {recovered:?}");
            }
        }
    }
}

#[test]
fn damage_to_one_block_of_each_file_loses_nothing_unless_it_is_the_same_block() {
    let (sample, state, stale, used) = sample();
    let records_at = used / BLOCK - 5;
    for a in 0..used / BLOCK {
        for b in 0..used / BLOCK {
            let mut disk = sample.clone();
            apply(&mut disk, 0, a, Damage::Flip(77), &stale);
            apply(&mut disk, 1, b, Damage::Zero, &stale);
            // Blocks of the three-block record count as one.
            let place = |block: usize| {
                if (records_at + 1..records_at + 4).contains(&block) { records_at + 1 } else { block }
            };
            match Owned::open(&mut disk) {
                Ok((owned, recovered)) if place(a) != place(b) => {
                    assert_eq!(owned.state, state, "blocks {a} and {b}");
                    assert!(!recovered.damage.is_empty(), "blocks {a} and {b}");
                }
                Ok((owned, _)) => {
                    assert_eq!(
                        a,
                        used / BLOCK - 1,
                        "only the last record can look as if it had been cut off"
                    );
                    assert_eq!(owned.state, state[..state.len() - 1]);
                }
                Err(StateLogError::Damaged { .. }) => assert_eq!(place(a), place(b), "blocks {a} and {b}"),
                Err(e) => panic!("blocks {a} and {b}: {e}"),
            }
        }
    }
}

#[test]
fn a_missing_empty_or_cut_file_is_healed_from_the_other() {
    let (sample, state, _, _) = sample();
    for copy in 0..2 {
        for len in [None, Some(0), Some(4096), Some(20_480)] {
            let mut disk = sample.clone();
            match len {
                None => disk.remove(&paths()[copy]),
                Some(len) => disk.bytes_mut(&paths()[copy]).truncate(len),
            }
            let (owned, recovered) = Owned::open(&mut disk).expect("one copy is whole");
            assert_eq!(owned.state, state);
            assert!(!recovered.damage.is_empty(), "copy {copy}, {len:?}");
            let [a, b] = paths();
            assert_eq!(disk.bytes(&a), disk.bytes(&b));
        }
    }
}

#[test]
fn both_files_empty_or_zero_is_damage_and_not_a_new_log() {
    for len in [0, TINY as usize] {
        let (mut disk, ..) = sample();
        for path in paths() {
            *disk.bytes_mut(&path) = vec![0; len];
        }
        let refused = open_on(&mut disk).err().expect("refused");
        assert!(matches!(refused, StateLogError::Damaged { .. }), "{refused}");
    }
}

#[test]
fn a_damaged_new_generation_in_the_middle_of_a_rotation_falls_back_to_the_old_one() {
    let (mut disk, state, ..) = sample();
    let (mut owned, _) = Owned::open(&mut disk).expect("readable");
    owned.rotate(&mut disk);
    let (token, completion) = disk.complete(0);
    owned.log.on_disk(&mut disk, token, completion).expect("replaced");
    let half_way = disk.crashed(|_| false);
    for block in 0..8 {
        for copy in 0..2 {
            let mut disk = half_way.clone();
            apply(&mut disk, copy, block, Damage::Flip(1000), &[]);
            let (owned, recovered) = Owned::open(&mut disk).expect("the other copy is whole");
            assert_eq!(owned.state, state);
            assert!(copy == 1 || block > 3 || !recovered.damage.is_empty(), "block {block}: {recovered:?}");
        }
    }
}

#[test]
fn damage_to_any_one_block_while_one_file_is_new_and_the_other_is_not_loses_nothing() {
    let (mut disk, ..) = sample();
    let (mut owned, _) = Owned::open(&mut disk).expect("readable");
    owned.rotate(&mut disk);
    // Both files are prepared, the records since then are joined, and the first file gets its name. A record is written before each of
    // these, and one after.
    for n in 0..4 {
        owned.append(payload(7 + n, 3000));
        owned.log.flush(&mut disk);
        while let Some(write) = disk.next_write() {
            let (token, completion) = disk.complete(write);
            owned.log.on_disk(&mut disk, token, completion).expect("this disk fails no write");
        }
        if n < 3 {
            let (token, completion) = disk.complete(0);
            owned.log.on_disk(&mut disk, token, completion).expect("this disk fails no job");
        }
    }
    let first_blocks = paths().map(|path| disk.bytes(&path)[..BLOCK].to_vec());
    assert!(first_blocks[0] != first_blocks[1], "they are of different generations");
    assert!(owned.log.is_rotating() && owned.log.durable() == owned.log.appended());
    let half_way = disk.crashed(|_| false);
    for copy in 0..2 {
        for block in 0..disk.bytes(&paths()[copy]).len() / BLOCK {
            for damage in [Damage::Flip(1000), Damage::Flip(BLOCK * 8 - 1), Damage::Zero, Damage::Unreadable]
            {
                let mut disk = half_way.clone();
                apply(&mut disk, copy, block, damage, &[]);
                let (again, _) = Owned::open(&mut disk).expect("the other copy is whole");
                assert_eq!(again.state, owned.state, "{damage:?} of block {block} of copy {copy}");
                disk.unreadable.clear();
                let (again, recovered) = Owned::open(&mut disk).expect("healed");
                assert_eq!(again.state, owned.state);
                assert!(recovered.damage.is_empty() && recovered.notes.is_empty(), "healed: {recovered:?}");
            }
        }
    }
}

#[test]
fn bytes_that_contradict_themselves_under_right_checksums_do_not_panic() {
    let (sample, ..) = sample();
    // Each field of the header, in both copies, with a checksum that is right.
    for field in (8..128).step_by(4) {
        for value in [0u32, 1, 7, u32::MAX, 1 << 20] {
            let mut disk = sample.clone();
            for path in paths() {
                let bytes = disk.bytes_mut(&path);
                bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[4..BLOCK]);
                bytes[..4].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = open_on(&mut disk);
        }
    }
}

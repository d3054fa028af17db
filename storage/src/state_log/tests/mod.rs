//! The state log against a disk that completes, crashes and lies as told.

mod crash;
mod damage;
mod disk;

use std::path::{Path, PathBuf};

use highwater_protocol::ids::ClusterId;

use super::*;
use disk::MemDisk;

const OWNER: Owner = Owner { purpose: *b"test", cluster: ClusterId([7; 16]), number: 0 };
const TINY: u64 = 64 << 10;

fn stem() -> &'static Path {
    Path::new("d/meta")
}

fn paths() -> [PathBuf; 2] {
    open::copy_paths(stem())
}

fn open_on(disk: &mut MemDisk) -> Result<(StateLog, Recovered), StateLogError> {
    StateLog::open_sized(disk, stem(), OWNER, 9, TINY)
}

fn drain(log: &mut StateLog, disk: &mut MemDisk) {
    while !disk.in_flight.is_empty() {
        let (token, completion) = disk.complete(0);
        assert_eq!(token.0 >> 56, 9, "the top byte names the owner");
        log.on_disk(disk, token, completion).expect("this disk fails no write");
    }
}

/// The owner of a log under test: its state is the list of everything it ever appended.
struct Owned {
    log: StateLog,
    state: Vec<Vec<u8>>,
    /// How many payloads the snapshot that was begun stands for, and how many it has.
    snapshot: Option<(usize, usize)>,
}

impl Owned {
    fn open(disk: &mut MemDisk) -> Result<(Self, Recovered), StateLogError> {
        let (log, recovered) = open_on(disk)?;
        let state = state_of(&recovered);
        assert_eq!(log.durable(), Seq(state.len() as u64), "every payload has a number");
        Ok((Self { log, state, snapshot: None }, recovered))
    }

    fn append(&mut self, payload: Vec<u8>) {
        self.log.append(&payload);
        self.state.push(payload);
    }

    fn turn_end(&mut self, disk: &mut MemDisk) {
        self.log.flush(disk);
        if self.log.wants_snapshot() {
            self.begin_snapshot();
        }
        self.add_to_snapshot(disk);
    }

    fn begin_snapshot(&mut self) {
        self.log.begin_snapshot();
        self.snapshot = Some((self.state.len(), 0));
    }

    /// Adds two payloads to the snapshot that was begun, and ends it with the last one.
    fn add_to_snapshot(&mut self, disk: &mut MemDisk) {
        let Some((covers, added)) = self.snapshot.take() else { return };
        let next = (added + 2).min(covers);
        self.log.add_to_snapshot(&snapshot_of(&self.state[added..next]));
        if next == covers {
            self.log.end_snapshot(disk);
        } else {
            self.snapshot = Some((covers, next));
        }
    }

    fn rotate(&mut self, disk: &mut MemDisk) {
        self.begin_snapshot();
        while self.snapshot.is_some() {
            self.add_to_snapshot(disk);
        }
    }

    /// Takes turns until nothing is left to do.
    fn settle(&mut self, disk: &mut MemDisk) {
        self.turn_end(disk);
        drain(&mut self.log, disk);
        while self.snapshot.is_some() || self.log.wants_snapshot() {
            self.turn_end(disk);
            drain(&mut self.log, disk);
        }
    }
}

fn snapshot_of(state: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in state {
        format::push_payload(&mut bytes, payload);
    }
    bytes
}

fn state_of(recovered: &Recovered) -> Vec<Vec<u8>> {
    let snapshot = recovered.snapshot.concat();
    let mut rest = &snapshot[..];
    let mut state = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let (payload, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        state.push(payload.to_vec());
        rest = behind;
    }
    state.extend(recovered.records.iter().map(|r| r.to_vec()));
    state
}

fn payload(n: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (n * 31 + i * 7) as u8).collect()
}

#[test]
fn a_new_log_is_two_equal_files_and_holds_nothing() {
    let mut disk = MemDisk::default();
    let (log, recovered) = open_on(&mut disk).expect("an empty disk");
    assert!(recovered.snapshot.is_empty() && recovered.records.is_empty() && recovered.damage.is_empty());
    assert_eq!(log.durable(), Seq(0));
    let [a, b] = paths();
    assert_eq!(disk.bytes(&a), disk.bytes(&b));
    assert_eq!(disk.bytes(&a).len() as u64, TINY);
}

#[test]
fn payloads_of_a_turn_leave_as_one_record_and_are_durable_when_both_copies_have_it() {
    let mut disk = MemDisk::default();
    let (mut log, _) = open_on(&mut disk).expect("an empty disk");
    let seqs = [log.append(b"one"), log.append(b""), log.append(b"three")];
    assert_eq!(seqs, [Seq(1), Seq(2), Seq(3)]);
    log.flush(&mut disk);
    log.append(b"four");
    log.flush(&mut disk);
    assert_eq!(disk.in_flight.len(), 2, "one write per file, the rest waits");
    let (token, completion) = disk.complete(1);
    log.on_disk(&mut disk, token, completion).expect("written");
    assert_eq!(log.durable(), Seq(0), "one copy is not enough");
    let (token, completion) = disk.complete(0);
    log.on_disk(&mut disk, token, completion).expect("written");
    assert_eq!(log.durable(), Seq(3));
    assert!(!log.is_idle());
    drain(&mut log, &mut disk);
    assert_eq!(log.durable(), Seq(4));
    assert!(log.is_idle());
    let (_, recovered) = open_on(&mut disk).expect("readable");
    assert_eq!(recovered.records, [&b"one"[..], b"", b"three", b"four"]);
    assert!(recovered.damage.is_empty() && recovered.notes.is_empty());
}

#[test]
fn a_payload_larger_than_the_file_becomes_durable_with_the_next_snapshot() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    for n in 0..4 {
        owned.append(payload(n, 3 << 20));
        owned.settle(&mut disk);
        assert_eq!(owned.log.durable(), owned.log.appended());
    }
    let (again, recovered) = Owned::open(&mut disk).expect("readable");
    assert_eq!(again.state, owned.state);
    assert!(recovered.damage.is_empty());
}

#[test]
fn what_is_appended_during_a_snapshot_and_during_its_rotation_follows_it() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    (0..3).for_each(|n| owned.append(payload(n, 100)));
    owned.log.flush(&mut disk);
    owned.append(payload(3, 100));
    owned.begin_snapshot();
    owned.append(payload(4, 100));
    owned.add_to_snapshot(&mut disk);
    drain(&mut owned.log, &mut disk);
    assert_eq!(owned.log.durable(), Seq(5), "records go on being written");
    owned.append(payload(5, 100));
    owned.add_to_snapshot(&mut disk);
    assert!(owned.log.is_rotating() && !owned.log.wants_snapshot());
    owned.append(payload(6, 100));
    owned.log.flush(&mut disk);
    drain(&mut owned.log, &mut disk);
    assert_eq!(owned.log.durable(), Seq(7));
    let (again, recovered) = Owned::open(&mut disk).expect("readable");
    assert_eq!(again.state, owned.state);
    assert_eq!((recovered.snapshot.len(), recovered.records.len()), (2, 3));
}

#[test]
fn payloads_become_durable_while_a_rotation_waits_for_the_file_system() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    (0..3).for_each(|n| owned.append(payload(n, 100)));
    owned.settle(&mut disk);
    owned.rotate(&mut disk);
    let mut jobs = 0;
    while owned.log.is_rotating() {
        // Everything but the job.
        for n in 0..2 {
            owned.append(payload(10 * jobs + n, 3000));
            owned.log.flush(&mut disk);
            while let Some(write) = disk.next_write() {
                let (token, completion) = disk.complete(write);
                owned.log.on_disk(&mut disk, token, completion).expect("this disk fails no write");
            }
            assert_eq!(owned.log.durable(), owned.log.appended(), "while job {jobs} is on its way");
            let (again, recovered) = Owned::open(&mut disk.crashed(|_| false)).expect("readable");
            assert_eq!((again.state, recovered.damage), (owned.state.clone(), Vec::new()));
        }
        jobs += 1;
        let (token, completion) = disk.complete(0);
        owned.log.on_disk(&mut disk, token, completion).expect("this disk fails no job");
    }
    assert_eq!(jobs, 4, "each file is prepared, then each gets its name");
    drain(&mut owned.log, &mut disk);
    let (again, recovered) = Owned::open(&mut disk).expect("readable");
    assert_eq!(again.state, owned.state);
    assert!(recovered.damage.is_empty() && recovered.notes.is_empty(), "{recovered:?}");
}

#[test]
fn a_snapshot_that_is_begun_again_leaves_nothing_of_the_one_before() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    (0..3).for_each(|n| owned.append(payload(n, 100)));
    owned.begin_snapshot();
    owned.add_to_snapshot(&mut disk);
    owned.append(payload(3, 100));
    owned.rotate(&mut disk);
    drain(&mut owned.log, &mut disk);
    let (again, recovered) = Owned::open(&mut disk).expect("readable");
    assert_eq!(again.state, owned.state);
    assert!(recovered.records.is_empty());
}

#[test]
fn a_log_of_format_version_1_is_read_and_its_next_generation_has_the_current_one() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    (0..3).for_each(|n| owned.append(payload(n, 2000)));
    owned.log.snapshot(&mut disk, &snapshot_of(&owned.state));
    drain(&mut owned.log, &mut disk);
    for path in paths() {
        let file = disk.bytes_mut(&path);
        // Version 1 has the snapshot without its length, and no count of pieces.
        let used = 4096 + 4 + snapshot_of(&owned.state).len();
        file.copy_within(4100..used, 4096);
        file[used - 4..used].fill(0);
        file[8..12].copy_from_slice(&1_u32.to_le_bytes());
        let bytes = (used - 4100) as u64;
        file[56..64].copy_from_slice(&bytes.to_le_bytes());
        file[88..92].fill(0);
        for chunk in 0..2 {
            let crc = crc32c::crc32c(&file[4096 * (chunk + 1)..4096 * (chunk + 2)]);
            file[128 + 4 * chunk..132 + 4 * chunk].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&file[4..4096]);
        file[..4].copy_from_slice(&crc.to_le_bytes());
    }
    let (mut again, recovered) = Owned::open(&mut disk).expect("readable");
    assert_eq!((recovered.snapshot.len(), &again.state), (1, &owned.state));
    assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
    again.append(payload(3, 100));
    again.rotate(&mut disk);
    drain(&mut again.log, &mut disk);
    assert_eq!(disk.bytes(&paths()[0])[8], 2);
    assert_eq!(Owned::open(&mut disk).expect("readable").0.state, again.state);
}

#[test]
fn a_full_disk_makes_a_rotation_wait_and_loses_nothing() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    disk.full = true;
    for n in 0..20 {
        owned.append(payload(n, 5000));
        owned.settle(&mut disk);
    }
    assert!(owned.log.is_stalled() && owned.log.is_idle());
    let durable = owned.log.durable().0 as usize;
    let (again, _) = Owned::open(&mut disk.crashed(|_| false)).expect("readable");
    assert_eq!(again.state, owned.state[..durable]);
    disk.full = false;
    owned.log.retry_stalled(&mut disk);
    drain(&mut owned.log, &mut disk);
    assert_eq!(owned.log.durable(), Seq(20));
}

#[test]
fn a_record_written_during_a_rotation_that_replaces_one_file_after_the_other_is_in_both_new_files() {
    let mut disk = MemDisk::default();
    let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
    owned.append(payload(0, 100));
    owned.settle(&mut disk);
    owned.rotate(&mut disk);
    // The old files get it while the first new one is made.
    owned.append(payload(1, 100));
    owned.log.flush(&mut disk);
    for _ in 0..3 {
        let (token, completion) = disk.complete(0);
        owned.log.on_disk(&mut disk, token, completion).expect("this disk fails no write");
    }
    assert_eq!(owned.log.durable(), Seq(2));
    // There is no space for the second new file before the first has its name, and none after that.
    disk.full = true;
    drain(&mut owned.log, &mut disk);
    assert!(owned.log.is_stalled());
    let (again, _) = Owned::open(&mut disk.crashed(|_| false)).expect("readable");
    assert_eq!(again.state, owned.state);
    disk.full = false;
    owned.log.retry_stalled(&mut disk);
    drain(&mut owned.log, &mut disk);
    assert!(!owned.log.is_stalled() && owned.log.is_idle());
    for n in 2..4 {
        let (again, recovered) = Owned::open(&mut disk.crashed(|_| false)).expect("readable");
        assert_eq!(again.state, owned.state);
        assert!(recovered.damage.is_empty() && recovered.notes.is_empty(), "{recovered:?}");
        owned.append(payload(n, 100));
        owned.turn_end(&mut disk);
        drain(&mut owned.log, &mut disk);
    }
}

#[test]
fn a_record_that_finds_no_space_becomes_durable_with_a_rotation_and_a_crash_before_that_loses_nothing_durable()
 {
    for is_full_for_rotations in [false, true] {
        let mut disk = MemDisk::default();
        let (mut owned, _) = Owned::open(&mut disk).expect("an empty disk");
        owned.append(payload(0, 100));
        owned.turn_end(&mut disk);
        drain(&mut owned.log, &mut disk);
        (disk.full, disk.copies_on_write) = (true, true);
        owned.append(payload(1, 100));
        owned.turn_end(&mut disk);
        // One copy takes the record, the other does not.
        let (token, completion) = disk.complete(0);
        owned.log.on_disk(&mut disk, token, completion).expect("it may go on");
        disk.copies_on_write = false;
        owned.append(payload(2, 100));
        let (token, completion) = disk.complete(0);
        owned.log.on_disk(&mut disk, token, completion).expect("it may go on");
        assert_eq!(owned.log.durable(), Seq(1));
        assert!(owned.log.wants_snapshot() && !owned.log.is_idle());
        let (again, _) = Owned::open(&mut disk.crashed(|_| false)).expect("readable");
        assert!(owned.state.starts_with(&again.state) && !again.state.is_empty());
        disk.full = is_full_for_rotations;
        owned.settle(&mut disk);
        if is_full_for_rotations {
            assert!(owned.log.is_stalled() && owned.log.is_idle());
            assert_eq!(owned.log.durable(), Seq(1));
            disk.full = false;
            owned.log.retry_stalled(&mut disk);
            drain(&mut owned.log, &mut disk);
        }
        assert_eq!(owned.log.durable(), Seq(3));
        owned.append(payload(3, 100));
        owned.turn_end(&mut disk);
        drain(&mut owned.log, &mut disk);
        let (again, recovered) = Owned::open(&mut disk.crashed(|_| false)).expect("readable");
        assert_eq!(again.state, owned.state);
        assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
    }
}

#[test]
fn a_failed_write_ends_the_log() {
    let mut disk = MemDisk::default();
    let (mut log, _) = open_on(&mut disk).expect("an empty disk");
    log.append(b"x");
    log.flush(&mut disk);
    let (token, _) = disk.in_flight.remove(0);
    let fatal = log
        .on_disk(&mut disk, token, Completion::Write(Err(std::io::Error::from_raw_os_error(5))))
        .expect_err("EIO is final");
    assert!(fatal.0.contains("meta.a"), "{fatal}");
    let (token, completion) = disk.complete(0);
    assert!(log.on_disk(&mut disk, token, completion).is_err(), "and stays so");
    assert_eq!(log.durable(), Seq(0));
}

#[test]
fn another_clusters_log_another_purpose_and_a_newer_version_are_refused_untouched() {
    let mut disk = MemDisk::default();
    let (mut log, _) = open_on(&mut disk).expect("an empty disk");
    log.append(b"kept");
    log.flush(&mut disk);
    drain(&mut log, &mut disk);
    let before = paths().map(|p| disk.bytes(&p).to_vec());

    let other = Owner { cluster: ClusterId([8; 16]), ..OWNER };
    let refused = StateLog::open_sized(&mut disk, stem(), other, 9, TINY).err().expect("refused");
    assert!(matches!(refused, StateLogError::OtherCluster { .. }), "{refused}");
    let other = Owner { purpose: *b"oops", ..OWNER };
    let refused = StateLog::open_sized(&mut disk, stem(), other, 9, TINY).err().expect("refused");
    assert!(matches!(refused, StateLogError::OtherPurpose { .. }), "{refused}");
    assert_eq!(before, paths().map(|p| disk.bytes(&p).to_vec()));

    let header = disk.bytes_mut(&paths()[1]);
    header[8] = 3;
    let crc = crc32c::crc32c(&header[4..4096]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    let refused = open_on(&mut disk).err().expect("refused");
    assert!(matches!(refused, StateLogError::Newer { version: 3, .. }), "{refused}");
}

#[test]
fn a_lost_log_is_recreated_beside_its_damaged_files_and_wins_over_them_ever_after() {
    let mut disk = MemDisk::default();
    let (mut log, _) = open_on(&mut disk).expect("an empty disk");
    log.append(b"gone");
    log.flush(&mut disk);
    drain(&mut log, &mut disk);
    let old = disk.bytes(&paths()[0]).to_vec();
    for path in paths() {
        disk.bytes_mut(&path)[100] ^= 1;
    }
    let refused = open_on(&mut disk).err().expect("both headers are damaged");
    assert!(matches!(refused, StateLogError::Damaged { .. }), "{refused}");
    let mut log = StateLog::recreate(&mut disk, stem(), OWNER, 9).expect("writable");
    assert_eq!(disk.names(), ["d/meta.a", "d/meta.a.damaged", "d/meta.b", "d/meta.b.damaged", "d/meta.mark"]);
    log.append(b"new");
    log.flush(&mut disk);
    drain(&mut log, &mut disk);
    // The old content of one copy comes back, undamaged.
    *disk.bytes_mut(&paths()[1]) = old;
    let (_, recovered) = open_on(&mut disk).expect("readable");
    assert_eq!(recovered.records, [&b"new"[..]]);
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
}

//! The simulated disk gives exactly the guarantees of the real one.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{FileId, Fs as _, OpenMode};
use highwater_runtime::plane::{Completion, Disk as _, Durability, FileJob, Token};
use highwater_runtime::sim::{CrashPolicy, Damage, DiskHarness, DiskImage, Event, Fault, Latency, SimDisk};

const PAGE: usize = 4096;

fn page(fill: u8) -> Bytes {
    pages(1, fill)
}

fn pages(count: usize, fill: u8) -> Bytes {
    let mut buf = AlignedBuf::zeroed(count * PAGE);
    buf.fill(fill);
    let mut bytes = buf.freeze();
    bytes.truncate(count * PAGE);
    bytes
}

fn with_file(seed: u64, blocks: u64) -> (DiskHarness, FileId) {
    let mut disk = DiskHarness::new(seed);
    disk.create_dir_all("/data".as_ref()).unwrap();
    let file = disk.create_file("/data/log".as_ref(), blocks * PAGE as u64).unwrap();
    (disk, file)
}

fn write(disk: &mut DiskHarness, file: FileId, block: u64, data: Bytes, durability: Durability) {
    disk.write(file, block * PAGE as u64, data, durability, Token(block));
    assert!(disk.run_until_idle().iter().all(|(_, c)| matches!(c, Completion::Write(Ok(())))));
}

fn sync(disk: &mut DiskHarness, file: FileId) {
    disk.sync(file, Token(0));
    assert!(matches!(disk.run_until_idle()[..], [(Token(0), Completion::Sync(Ok(())))]));
}

/// Returns the first byte of each sector.
fn sectors(image: &DiskImage) -> Vec<u8> {
    image.read(Path::new("/data/log")).unwrap().chunks(512).map(|sector| sector[0]).collect()
}

fn reopen(disk: &mut DiskHarness) -> FileId {
    disk.open("/data/log".as_ref(), OpenMode::ReadWrite).unwrap()
}

#[test]
fn operations_complete_once_each_in_an_order_decided_by_the_seed() {
    let order = |seed| {
        let (mut disk, file) = with_file(seed, 64);
        for n in 0..64 {
            disk.write(file, n * PAGE as u64, page(n as u8), Durability::Durable, Token(n));
        }
        disk.run_until_idle().into_iter().map(|(token, _)| token.0).collect::<Vec<_>>()
    };
    let (first, other) = (order(1), order(2));
    assert_eq!(first, order(1));
    assert_ne!(first, other);
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..64).collect::<Vec<_>>());
    assert_ne!(first, sorted);
}

#[test]
fn reads_return_what_was_written_and_are_short_only_at_the_end() {
    let (mut disk, file) = with_file(1, 3);
    write(&mut disk, file, 1, page(7), Durability::Volatile);
    disk.read(file, PAGE as u64, AlignedBuf::new(4 * PAGE), Token(9));
    let Some((Token(9), Completion::Read(Ok((buf, filled))))) = disk.step() else { panic!("no read") };
    assert_eq!(filled, 2 * PAGE);
    assert_eq!((buf[0], buf[PAGE - 1], buf[PAGE]), (7, 7, 0));
}

#[test]
fn a_durable_write_survives_once_completed_and_a_volatile_one_only_with_a_sync() {
    let (mut disk, file) = with_file(1, 3);
    write(&mut disk, file, 0, page(1), Durability::Durable);
    write(&mut disk, file, 1, page(2), Durability::Volatile);
    sync(&mut disk, file);
    write(&mut disk, file, 2, page(3), Durability::Volatile);
    disk.crash(CrashPolicy::LOSE_ALL);
    let found: Vec<u8> = sectors(&disk.disk().image()).into_iter().step_by(8).collect();
    assert_eq!(found, [1, 2, 0]);
}

#[test]
fn a_sync_does_not_cover_a_write_that_completed_after_it_started() {
    let instantly = || Duration::ZERO..=Duration::ZERO;
    let (mut disk, file) = with_file(1, 1);
    let slowly: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(1);
    disk.disk().set_latency(Latency {
        read: instantly(),
        write: instantly(),
        sync: slowly,
        job: instantly(),
    });
    disk.write(file, 0, page(5), Durability::Volatile, Token(1));
    disk.sync(file, Token(2));
    let order: Vec<_> = disk.run_until_idle().into_iter().map(|(token, _)| token.0).collect();
    assert_eq!(order, [1, 2]);
    disk.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(sectors(&disk.disk().image()), [0; 8]);
}

#[test]
fn writes_in_flight_or_unsynced_survive_in_whole_in_part_or_not_at_all() {
    let (mut whole, mut torn, mut lost) = (0, 0, 0);
    for seed in 0..200 {
        let (mut disk, file) = with_file(seed, 1);
        disk.write(file, 0, page(9), Durability::Durable, Token(1));
        disk.crash(CrashPolicy::MIXED);
        assert!(disk.step().is_none(), "nothing completes after a crash");
        match sectors(&disk.disk().image()).iter().map(|byte| usize::from(*byte == 9)).sum::<usize>() {
            8 => whole += 1,
            0 => lost += 1,
            _ => torn += 1,
        }
    }
    assert!(whole > 20 && torn > 20 && lost > 20, "{whole} {torn} {lost}");
}

#[test]
fn a_later_write_is_never_undone_by_an_earlier_one_that_it_covers() {
    for seed in 0..50 {
        let (mut disk, file) = with_file(seed, 1);
        write(&mut disk, file, 0, page(1), Durability::Volatile);
        write(&mut disk, file, 0, page(2), Durability::Durable);
        disk.crash(CrashPolicy::MIXED);
        assert_eq!(sectors(&disk.disk().image()), [2; 8]);
    }
}

#[test]
fn until_it_completes_a_file_job_is_undone_or_done_or_leaves_a_temporary_file() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let (mut disk, file) = with_file(seed, 1);
        write(&mut disk, file, 0, page(1), Durability::Durable);
        let content = vec![Bytes::from_static(&[2; 3000]), Bytes::from_static(&[2; 2000])];
        disk.file_job(FileJob::Replace { path: "/data/log".into(), content, bytes: 8192 }, Token(1));
        disk.crash(CrashPolicy::MIXED);
        let image = disk.disk().image();
        let log = image.read(Path::new("/data/log")).unwrap();
        let old = log == vec![1; PAGE];
        let new = log == [vec![2; 5000], vec![0; 3192]].concat();
        assert!(old || new, "a mixture of both");
        seen.insert((new, image.files().any(|(path, _)| path == Path::new("/data/log.tmp"))));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(false, false), (false, true), (true, false)]);
}

#[test]
fn a_completed_file_job_lasts_and_the_replaced_file_can_be_read_until_it_is_closed() {
    let (mut disk, old) = with_file(3, 1);
    write(&mut disk, old, 0, page(1), Durability::Durable);
    disk.file_job(
        FileJob::Replace { path: "/data/log".into(), content: vec![page(2)], bytes: PAGE as u64 },
        Token(1),
    );
    let Some((_, Completion::Replaced(Ok(new)))) = disk.step() else { panic!("not replaced") };
    let mut buf = [0; PAGE];
    disk.read_at(old, 0, &mut buf).unwrap();
    assert_eq!(buf[0], 1);
    disk.read_at(new, 0, &mut buf).unwrap();
    assert_eq!(buf[0], 2);
    disk.close_file(old);
    disk.file_job(FileJob::Create { path: "/data/log".into(), bytes: 4096 }, Token(2));
    let Some((_, Completion::Created(Err(why)))) = disk.step() else { panic!("created twice") };
    assert_eq!(why.kind(), ErrorKind::AlreadyExists);
    disk.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(sectors(&disk.disk().image()), [2; 8]);
}

#[test]
fn names_directories_and_renames_behave_as_in_a_file_system() {
    let (mut disk, _) = with_file(3, 1);
    disk.create_dir_all("/data/store-000".as_ref()).unwrap();
    assert_eq!(disk.create_file("/nowhere/x".as_ref(), 4096).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.open("/data/x".as_ref(), OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
    disk.rename("/data/log".as_ref(), "/data/store-000/log".as_ref()).unwrap();
    disk.crash(CrashPolicy::LOSE_ALL);
    let names = |disk: &mut DiskHarness, dir: &str| {
        disk.list(dir.as_ref()).unwrap().into_iter().map(|e| (e.name, e.is_dir, e.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut disk, "/data"), [("store-000".to_owned(), true, 0)]);
    assert_eq!(names(&mut disk, "/data/store-000"), [("log".to_owned(), false, 4096)]);
}

#[test]
fn a_full_disk_rejects_new_files_until_there_is_space() {
    let (mut disk, _) = with_file(1, 4);
    disk.disk().set_capacity(Some(6 * PAGE as u64));
    disk.file_job(FileJob::Create { path: "/data/next".into(), bytes: 4 * PAGE as u64 }, Token(1));
    let Some((_, Completion::Created(Err(why)))) = disk.step() else { panic!("there was no space") };
    assert_eq!(why.kind(), ErrorKind::StorageFull);
    disk.disk().set_capacity(None);
    assert!(disk.create_file("/data/next".as_ref(), 4 * PAGE as u64).is_ok());
}

#[test]
fn faults_hit_only_their_range_and_their_number_of_operations() {
    let (mut disk, file) = with_file(1, 4);
    disk.disk().inject(Fault::read_error("/data/log").within(PAGE as u64..2 * PAGE as u64).times(1));
    let mut buf = [0; PAGE];
    assert!(disk.read_at(file, 0, &mut buf).is_ok());
    assert_eq!(disk.read_at(file, PAGE as u64, &mut buf).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(disk.read_at(file, PAGE as u64, &mut buf).is_ok());
    disk.disk().inject(Fault::write_error("/data/log"));
    disk.write(file, 0, page(1), Durability::Durable, Token(1));
    assert!(matches!(disk.step(), Some((_, Completion::Write(Err(_))))));
    disk.disk().clear_faults();
    write(&mut disk, file, 0, page(1), Durability::Durable);
}

#[test]
fn after_a_failed_sync_no_later_one_makes_those_writes_durable() {
    let (mut disk, file) = with_file(1, 1);
    disk.disk().inject(Fault::sync_error("/data/log").times(1));
    write(&mut disk, file, 0, page(1), Durability::Volatile);
    disk.sync(file, Token(1));
    assert!(matches!(disk.step(), Some((_, Completion::Sync(Err(_))))));
    sync(&mut disk, file);
    disk.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(sectors(&disk.disk().image()), [0; 8]);
}

#[test]
fn a_misdirected_write_completes_but_goes_elsewhere_and_a_lost_one_nowhere() {
    let (mut disk, file) = with_file(1, 3);
    disk.disk().inject(Fault::misdirected_write("/data/log", "/data/log", 2 * PAGE as u64).times(1));
    write(&mut disk, file, 0, page(1), Durability::Durable);
    disk.disk().inject(Fault::lost_write("/data/log").times(1));
    write(&mut disk, file, 1, page(2), Durability::Durable);
    let found: Vec<u8> = sectors(&disk.disk().image()).into_iter().step_by(8).collect();
    assert_eq!(found, [0, 0, 1]);
}

#[test]
fn damage_at_rest_is_visible_immediately_and_after_a_crash() {
    let (mut disk, file) = with_file(1, 6);
    for block in 0..6 {
        write(&mut disk, file, block, page(10 + block as u8), Durability::Durable);
        write(&mut disk, file, block, page(20 + block as u8), Durability::Durable);
    }
    let log = Path::new("/data/log");
    disk.disk().damage(log, 0, &Damage::FlipBit(3));
    disk.disk().damage(log, 1, &Damage::Zero);
    disk.disk().damage(log, 2, &Damage::Stale);
    disk.disk().damage(log, 3, &Damage::SwapWith(log.into(), 4));
    disk.disk().damage(log, 5, &Damage::Unreadable);
    let mut buf = vec![0; 5 * PAGE];
    disk.read_at(file, 0, &mut buf).unwrap();
    let seen = |buf: &[u8]| buf.iter().step_by(PAGE).copied().collect::<Vec<_>>();
    assert_eq!(seen(&buf), [28, 0, 12, 24, 23]);
    assert!(disk.read_at(file, 5 * PAGE as u64, &mut [0; PAGE]).is_err());
    write(&mut disk, file, 5, page(1), Durability::Durable);
    assert!(disk.read_at(file, 5 * PAGE as u64, &mut [0; PAGE]).is_ok());
    disk.crash(CrashPolicy::LOSE_ALL);
    let file = reopen(&mut disk);
    disk.read_at(file, 0, &mut buf).unwrap();
    assert_eq!(seen(&buf), [28, 0, 12, 24, 23]);
}

#[test]
#[should_panic(expected = "overlap")]
fn two_overlapping_writes_in_flight_are_a_bug_of_the_caller() {
    let (mut disk, file) = with_file(1, 4);
    disk.write(file, 0, pages(2, 1), Durability::Durable, Token(1));
    disk.write(file, PAGE as u64, page(2), Durability::Durable, Token(2));
}

#[test]
#[should_panic(expected = "aligned address")]
fn a_write_from_an_unaligned_address_is_a_bug_of_the_caller() {
    let (mut disk, file) = with_file(1, 4);
    disk.write(file, 0, pages(2, 1).slice(512..512 + PAGE), Durability::Durable, Token(1));
}

#[test]
#[should_panic(expected = "not open")]
fn a_file_id_is_invalid_after_a_crash() {
    let (mut disk, file) = with_file(1, 4);
    disk.crash(CrashPolicy::KEEP_ALL);
    disk.sync(file, Token(1));
}

#[test]
fn crash_images_contain_what_was_acknowledged_and_nothing_that_was_not_written() {
    let (mut disk, file) = with_file(4, 8);
    disk.disk().record();
    for block in 0..8 {
        disk.write(file, block * PAGE as u64, page(block as u8 + 1), Durability::Volatile, Token(block));
        if block % 2 == 1 {
            disk.run_until_idle();
            sync(&mut disk, file);
            disk.disk().mark(block);
        }
    }
    let recording = disk.disk().take_recording();
    assert!(matches!(recording.events()[0], Event::WriteStarted { block: 0, .. }));
    let mut torn = 0;
    for crash in recording.crash_images(1, 5) {
        let found = sectors(&crash.image);
        let acknowledged = crash.last_mark.map_or(0, |block| (block as usize + 1) * 8);
        for (at, byte) in found.iter().enumerate() {
            let written = (at / 8 + 1) as u8;
            assert!(*byte == written || (*byte == 0 && at >= acknowledged), "{crash:?}: {found:?}");
        }
        torn += u32::from(found.chunks(8).any(|block| block.iter().any(|b| *b != block[0])));
    }
    assert!(torn > 10);
    let again = recording.crash_images(1, 5).from_event(9).next().unwrap();
    assert_eq!((again.events, again.variant), (9, 0));
}

#[test]
fn ten_thousand_images_of_several_megabytes_are_cheap() {
    let (mut disk, file) = with_file(5, 1024);
    disk.disk().record();
    for round in 0..250_u64 {
        let at = round * 4 % 1020 * PAGE as u64;
        disk.write(file, at, pages(4, round as u8), Durability::Volatile, Token(round));
        disk.run_until_idle();
        if round % 8 == 7 {
            sync(&mut disk, file);
        }
    }
    let recording = disk.disk().take_recording();
    let mut images = 0;
    for crash in recording.crash_images(1, 20) {
        // Recovery of an image makes a disk of it and reads a part.
        let mut disk = SimDisk::from_image(&crash.image, 1);
        let file = disk.open("/data/log".as_ref(), OpenMode::ReadWrite).unwrap();
        disk.read_at(file, 0, &mut [0; PAGE]).unwrap();
        images += 1;
    }
    assert!(images > 10_000, "{images}");
}

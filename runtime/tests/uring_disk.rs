//! Disk I/O: many operations at once, files that are closed with operations in flight, new files.

mod uring_support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};
use highwater_runtime::fs::{FileId, Fs, OpenMode};
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, Durability, FileJob, ListenerId, Plane, ShardApp,
    ShardIndex, Token,
};
use highwater_runtime::{HostKind, OsFs, RuntimeConfig, available_cpus, start};
use uring_support::{HOSTS, pattern};

type Step = fn(&mut Disk, &mut dyn Plane<()>);

/// Runs steps. The next one starts when every operation of the previous one has completed, exactly once.
struct Disk {
    dir: PathBuf,
    file: Option<FileId>,
    steps: Vec<Step>,
    next: usize,
    pending: BTreeMap<u64, usize>,
    answers: BTreeMap<u64, Completion>,
}

impl Disk {
    fn expect(&mut self, token: u64) -> Token {
        assert!(self.pending.insert(token, 1).is_none());
        Token(token)
    }

    fn file(&self) -> FileId {
        self.file.expect("an open file")
    }
}

impl ShardApp for Disk {
    type Message = ();

    fn on_accept(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: ListenerId, _: SocketAddr) {}
    fn on_connected(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: Token, _: Result<(), ConnectError>) {}
    fn on_recv(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: &[u8]) {}
    fn on_bulk(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: AlignedBuf) {}
    fn on_sent(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: usize) {}
    fn on_closed(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: CloseReason) {}
    fn on_message(&mut self, _: &mut dyn Plane<()>, _: ShardIndex, (): ()) {}
    fn on_migrated(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: ListenerId, _: SocketAddr, (): ()) {}
    fn on_timer(&mut self, _: &mut dyn Plane<()>, _: Token) {}
    fn on_shutdown(&mut self, _: &mut dyn Plane<()>) {}

    fn on_disk(&mut self, _: &mut dyn Plane<()>, token: Token, completion: Completion) {
        assert_eq!(self.pending.remove(&token.0), Some(1), "an operation completes once");
        self.answers.insert(token.0, completion);
    }

    fn on_turn_end(&mut self, plane: &mut dyn Plane<()>) {
        while self.pending.is_empty() {
            let Some(step) = self.steps.get(self.next) else { return plane.exit() };
            self.next += 1;
            step(self, plane);
        }
    }
}

fn run(host: HostKind, dir: &Path, steps: &[Step]) {
    let mut config = RuntimeConfig::new(available_cpus().expect("affinity")[..1].to_vec());
    config.host = host;
    config.ring_entries = 64;
    let (dir, steps) = (dir.to_path_buf(), steps.to_vec());
    let runtime = start(config, move |_, _| {
        Ok(Disk {
            dir: dir.clone(),
            file: None,
            steps: steps.clone(),
            next: 0,
            pending: BTreeMap::new(),
            answers: BTreeMap::new(),
        })
    });
    runtime.expect("starts").wait().expect("every step succeeds");
}

fn page(n: u64) -> Bytes {
    let mut buf = AlignedBuf::new(PAGE_BYTES);
    buf.copy_from_slice(&pattern(n, PAGE_BYTES));
    buf.freeze()
}

/// More than the plane has in flight at once.
const PAGES: u64 = 2500;

fn create(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    let path = disk.dir.join("slab");
    let bytes = PAGES * PAGE_BYTES as u64;
    plane.file_job(FileJob::Create { path, bytes }, disk.expect(0));
}

fn take_created(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    let Some(Completion::Created(Ok(file))) = disk.answers.remove(&0) else { panic!("created") };
    disk.file = Some(file);
    assert_eq!(plane.file_bytes(file).expect("size"), PAGES * PAGE_BYTES as u64);
}

fn write_all(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    for n in 0..PAGES {
        let durability = if n % 3 == 0 { Durability::Durable } else { Durability::Volatile };
        // Not in file order.
        let at = (n * 7 % PAGES) * PAGE_BYTES as u64;
        plane.write(disk.file(), at, page(n * 7 % PAGES), durability, disk.expect(n));
    }
}

fn sync(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    assert!(disk.answers.values().all(|done| matches!(done, Completion::Write(Ok(())))));
    assert_eq!(disk.answers.len() as u64, PAGES);
    disk.answers.clear();
    plane.sync(disk.file(), disk.expect(1));
}

fn read_all_and_close(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    assert!(matches!(disk.answers.remove(&1), Some(Completion::Sync(Ok(())))));
    for n in 0..PAGES {
        plane.read(disk.file(), n * PAGE_BYTES as u64, AlignedBuf::new(PAGE_BYTES), disk.expect(n));
    }
    // Across the end of the file, and beyond it.
    plane.read(
        disk.file(),
        (PAGES - 2) * PAGE_BYTES as u64,
        AlignedBuf::new(5 * PAGE_BYTES),
        disk.expect(PAGES),
    );
    plane.read(
        disk.file(),
        (PAGES + 9) * PAGE_BYTES as u64,
        AlignedBuf::new(PAGE_BYTES),
        disk.expect(PAGES + 1),
    );
    plane.close_file(disk.file());
}

fn check_read_and_use_the_closed_number(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    for n in 0..PAGES + 2 {
        let Some(Completion::Read(Ok((buf, bytes)))) = disk.answers.remove(&n) else { panic!("read {n}") };
        match n {
            PAGES => assert_eq!(bytes, 2 * PAGE_BYTES, "short at the end"),
            n if n > PAGES => assert_eq!(bytes, 0, "nothing after the end"),
            n => assert!(bytes == PAGE_BYTES && buf[..] == page(n)[..], "page {n}"),
        }
    }
    plane.write(disk.file(), 0, page(0), Durability::Durable, disk.expect(0));
    plane.read(disk.file(), 0, AlignedBuf::new(PAGE_BYTES), disk.expect(1));
    plane.sync(disk.file(), disk.expect(2));
}

fn check_refused(disk: &mut Disk, _: &mut dyn Plane<()>) {
    assert!(matches!(disk.answers.remove(&0), Some(Completion::Write(Err(_)))));
    assert!(matches!(disk.answers.remove(&1), Some(Completion::Read(Err(_)))));
    assert!(matches!(disk.answers.remove(&2), Some(Completion::Sync(Err(_)))));
}

const WRITE_AND_READ: [Step; 7] = [
    create,
    take_created,
    write_all,
    sync,
    read_all_and_close,
    check_read_and_use_the_closed_number,
    check_refused,
];

#[test]
fn more_operations_than_fit_in_the_ring_complete_and_a_closed_file_completes_those_in_flight() {
    for host in HOSTS {
        let dir = tempfile::tempdir().expect("temporary directory");
        run(host, dir.path(), &WRITE_AND_READ);
    }
}

#[test]
fn a_file_system_without_direct_io_works_as_well() {
    // Usually tmpfs, which for most of its life had no O_DIRECT. If it is missing there is nothing to test.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    run(HostKind::Thread, dir.path(), &WRITE_AND_READ);
}

fn jobs(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    let page = PAGE_BYTES as u64;
    let (a, b) = (disk.dir.join("a"), disk.dir.join("b"));
    plane.file_job(FileJob::Create { path: a.clone(), bytes: page }, disk.expect(0));
    plane.file_job(FileJob::Create { path: a.clone(), bytes: page }, disk.expect(1));
    let content = vec![Bytes::from_static(b"first")];
    plane.file_job(FileJob::Replace { path: b.clone(), content, bytes: page }, disk.expect(2));
    let content = vec![Bytes::from_static(b"sec"), Bytes::new(), Bytes::from_static(b"ond")];
    plane.file_job(FileJob::Replace { path: b, content, bytes: 2 * page }, disk.expect(3));
    let nowhere = disk.dir.join("none/at/all");
    plane.file_job(FileJob::Create { path: nowhere.clone(), bytes: page }, disk.expect(4));
    let content = vec![Bytes::from(vec![0; PAGE_BYTES + 1])];
    plane.file_job(FileJob::Replace { path: a, content, bytes: page }, disk.expect(5));
}

fn check_jobs(disk: &mut Disk, plane: &mut dyn Plane<()>) {
    let mut answer = |n| disk.answers.remove(&n).expect("completed");
    assert!(matches!(answer(0), Completion::Created(Ok(_))));
    assert!(
        matches!(answer(1), Completion::Created(Err(e)) if e.kind() == std::io::ErrorKind::AlreadyExists)
    );
    let (Completion::Replaced(Ok(old)), Completion::Replaced(Ok(new))) = (answer(2), answer(3)) else {
        panic!("replaced twice")
    };
    let mut buf = vec![0; 2 * PAGE_BYTES];
    assert_eq!(plane.read_at(old, 0, &mut buf).expect("the old file is still open"), PAGE_BYTES);
    assert_eq!(&buf[..6], b"first\0");
    assert_eq!(plane.read_at(new, 0, &mut buf).expect("the new file"), 2 * PAGE_BYTES);
    assert_eq!(&buf[..7], b"second\0");
    assert!(matches!(answer(4), Completion::Created(Err(_))));
    assert!(matches!(answer(5), Completion::Replaced(Err(_))), "the content is larger than the file");
}

#[test]
fn file_jobs_run_in_order_and_each_completes() {
    for host in HOSTS {
        let dir = tempfile::tempdir().expect("temporary directory");
        run(host, dir.path(), &[jobs, check_jobs]);
        let mut fs = OsFs::new();
        let names: Vec<_> = fs.list(dir.path()).expect("list").into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "b"], "no temporary file is left");
        let b = fs.open(&dir.path().join("b"), OpenMode::Read).expect("the file exists");
        assert_eq!(fs.file_bytes(b).expect("size"), 2 * PAGE_BYTES as u64);
    }
}

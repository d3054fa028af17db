//! The disk: with many operations in flight, each completes exactly once, and reads return what was written.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use rand::RngExt as _;

use super::app::{Behaviour, Ctx};
use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::fs::{FileId, OpenMode};
use crate::plane::{Completion, Durability, FileJob, WRITE_BYTES_MAX};
use crate::sim::{SimRng, stream};

pub(super) const DISK_OK: &[u8] = b"disk ok";

const FILE_BYTES: usize = 4 << 20;

/// Expected completion of an operation.
enum Expected {
    Write,
    Sync,
    /// This many bytes of the model, starting at `at`.
    Read {
        at: usize,
        bytes: usize,
    },
    /// This many bytes of the file that was replaced.
    ReadOld {
        bytes: usize,
    },
    Made,
    Published,
    Punched,
    Fails(ErrorKind),
}

pub(super) struct DiskCheck {
    rng: SimRng,
    seed: u64,
    begun: bool,
    step: u32,
    in_flight: BTreeMap<u32, Expected>,
    next_token: u32,
    file: Option<FileId>,
    old: Option<(FileId, Vec<u8>)>,
    /// Expected content of the file.
    model: Vec<u8>,
}

impl DiskCheck {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: stream(seed, "disk check", 0),
            seed,
            begun: false,
            step: 0,
            in_flight: BTreeMap::new(),
            next_token: 0,
            file: None,
            old: None,
            model: vec![0; FILE_BYTES],
        }
    }

    fn path(&self, ctx: &Ctx<'_, '_>) -> PathBuf {
        ctx.dir.join(format!("check-{}", self.seed))
    }

    fn file(&self) -> FileId {
        self.file.expect("the first step created the file")
    }

    fn expect(&mut self, ctx: &Ctx<'_, '_>, expected: Expected) -> crate::plane::Token {
        let token = self.next_token;
        self.next_token += 1;
        self.in_flight.insert(token, expected);
        ctx.token(token)
    }

    fn job(&mut self, ctx: &mut Ctx<'_, '_>, job: FileJob, expected: Expected) {
        let token = self.expect(ctx, expected);
        ctx.plane.file_job(job, token);
    }

    fn write(&mut self, ctx: &mut Ctx<'_, '_>, at: usize, bytes: usize, durability: Durability) {
        let mut buf = AlignedBuf::new(bytes);
        let fill: u8 = self.rng.random();
        for (n, byte) in buf.iter_mut().enumerate() {
            *byte = fill ^ (n >> 9) as u8;
        }
        self.model[at..at + bytes].copy_from_slice(&buf);
        let token = self.expect(ctx, Expected::Write);
        ctx.plane.write(self.file(), at as u64, buf.freeze(), durability, token);
    }

    fn read(&mut self, ctx: &mut Ctx<'_, '_>, at: usize, bytes: usize) {
        let filled = self.model.len().saturating_sub(at).min(bytes);
        let token = self.expect(ctx, Expected::Read { at, bytes: filled });
        ctx.plane.read(self.file(), at as u64, AlignedBuf::new(bytes), token);
    }

    fn sync(&mut self, ctx: &mut Ctx<'_, '_>) {
        let token = self.expect(ctx, Expected::Sync);
        ctx.plane.sync(self.file(), token);
    }

    /// Issues many writes that do not overlap, some of them durable.
    fn write_many(&mut self, ctx: &mut Ctx<'_, '_>) {
        let mut at = 0;
        while at + 16 * PAGE_BYTES <= FILE_BYTES {
            let bytes = self.rng.random_range(1..=4) * PAGE_BYTES;
            let durability = if self.rng.random() { Durability::Durable } else { Durability::Volatile };
            self.write(ctx, at, bytes, durability);
            at += bytes + self.rng.random_range(0..3) * PAGE_BYTES;
        }
    }

    fn read_all(&mut self, ctx: &mut Ctx<'_, '_>) {
        let mut at = 0;
        while at < self.model.len() {
            let bytes = self.rng.random_range(1..=32) * PAGE_BYTES;
            self.read(ctx, at, bytes);
            at += bytes;
        }
        // Large reads, of which some go beyond the end.
        for _ in 0..4 {
            let at = self.rng.random_range(0..self.model.len() / PAGE_BYTES) * PAGE_BYTES;
            let bytes = self.rng.random_range(1..=512) * PAGE_BYTES;
            self.read(ctx, at, bytes);
        }
        self.read(ctx, self.model.len(), PAGE_BYTES);
    }

    /// Starts the next step, when all operations of the previous one have completed.
    fn next_step(&mut self, ctx: &mut Ctx<'_, '_>) {
        let path = self.path(ctx);
        let step = self.step;
        self.step += 1;
        match step {
            0 => {
                ctx.plane.create_dir_all(ctx.dir).expect("the directory can be made");
                self.job(ctx, FileJob::Create { path, bytes: FILE_BYTES as u64 }, Expected::Made);
            }
            1 => {
                let nowhere = ctx.dir.join("nowhere").join("file");
                self.job(
                    ctx,
                    FileJob::Create { path, bytes: 4096 },
                    Expected::Fails(ErrorKind::AlreadyExists),
                );
                self.job(
                    ctx,
                    FileJob::Create { path: nowhere, bytes: 4096 },
                    Expected::Fails(ErrorKind::NotFound),
                );
                self.read_all(ctx);
            }
            2 | 5 => self.write_many(ctx),
            3 => {
                self.sync(ctx);
                self.read_all(ctx);
            }
            4 => self.write(ctx, FILE_BYTES / 2, WRITE_BYTES_MAX, Durability::Durable),
            6 => {
                self.read_all(ctx);
                self.sync(ctx);
                self.sync(ctx);
            }
            7 => {
                self.check_names(ctx);
                self.old = Some((self.file(), self.model.clone()));
                let content: Vec<u8> = (0..5000_u32).map(|n| n as u8 ^ 0x5A).collect();
                self.model = [&content[..], &[0; 8192 - 5000]].concat();
                self.job(
                    ctx,
                    FileJob::Replace {
                        path,
                        content: vec![content[..100].to_vec().into(), content[100..].to_vec().into()],
                        bytes: 8192,
                    },
                    Expected::Made,
                );
            }
            8 => {
                self.read_all(ctx);
                // Operations in flight on a file that is being closed still complete.
                let old = self.old.as_ref().expect("it was just replaced").0;
                for _ in 0..4 {
                    let token = self.expect(ctx, Expected::ReadOld { bytes: 64 << 10 });
                    ctx.plane.read(old, 0, AlignedBuf::new(64 << 10), token);
                }
                ctx.plane.close_file(old);
            }
            9 => {
                self.write(ctx, 4096, 4096, Durability::Volatile);
            }
            10 => self.sync(ctx),
            11 => self.read_all(ctx),
            12..=15 => self.prepare_and_publish(ctx, step),
            16..=21 => self.punch_and_allocate(ctx, step),
            _ => {
                ctx.plane.close_file(self.file());
                ctx.reply(DISK_OK);
            }
        }
    }

    /// Makes a file in two parts, and writes to it in between.
    fn prepare_and_publish(&mut self, ctx: &mut Ctx<'_, '_>, step: u32) {
        let path = self.path(ctx);
        match step {
            12 => {
                ctx.plane.close_file(self.file());
                self.model = vec![0x11; 8192];
                let content = vec![self.model.clone().into()];
                self.job(ctx, FileJob::Prepare { path, content, bytes: 8192 }, Expected::Made);
            }
            13 => {
                let named = ctx.plane.open(&path, OpenMode::Read).expect("the file exists");
                let mut page = vec![0; 4096];
                ctx.plane.read_at(named, 0, &mut page).expect("it can be read");
                assert!(page != self.model[..4096], "a prepared file does not have its name yet");
                ctx.plane.close_file(named);
                self.write(ctx, 4096, 4096, Durability::Durable);
            }
            14 => self.job(ctx, FileJob::Publish { path }, Expected::Published),
            _ => {
                self.read_all(ctx);
                let named = ctx.plane.open(&path, OpenMode::Read).expect("the file exists");
                let mut whole = vec![0; 8192];
                ctx.plane.read_at(named, 0, &mut whole).expect("it can be read");
                assert!(whole == self.model, "a published file is the one that was prepared");
                ctx.plane.close_file(named);
            }
        }
    }

    /// Returns part of the file to the file system, and allocates it again.
    fn punch_and_allocate(&mut self, ctx: &mut Ctx<'_, '_>, step: u32) {
        let path = self.path(ctx);
        match step {
            16 => {
                self.model[4096..8192].fill(0);
                self.job(ctx, FileJob::Punch { path, at: 4096, bytes: 4096 }, Expected::Punched);
            }
            17 => {
                self.model[..4096].fill(0);
                self.job(
                    ctx,
                    FileJob::PunchHeads { path, at: 0, bytes: 8192, every: 4096, head_bytes: 4096 },
                    Expected::Punched,
                );
            }
            18 | 20 => self.read_all(ctx),
            19 => self.job(ctx, FileJob::Allocate { path, at: 0, bytes: 8192 }, Expected::Punched),
            _ => self.write(ctx, 4096, 4096, Durability::Durable),
        }
    }

    /// Checks that blocking calls see the same files.
    fn check_names(&mut self, ctx: &mut Ctx<'_, '_>) {
        let path = self.path(ctx);
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        let found = ctx.plane.list(ctx.dir).expect("the directory exists");
        assert!(found.is_sorted(), "names are sorted");
        let ours: Vec<_> = found.iter().filter(|entry| entry.name.starts_with(&name)).collect();
        assert_eq!(ours.len(), 1, "no temporary file is left: {ours:?}");
        assert_eq!((ours[0].bytes, ours[0].is_dir), (FILE_BYTES as u64, false));
        let file = ctx.plane.open(&path, OpenMode::Read).expect("the file exists");
        assert_eq!(ctx.plane.file_bytes(file).expect("it is open"), FILE_BYTES as u64);
        let mut buf = vec![1; 64 << 10];
        let filled = ctx.plane.read_at(file, 4096, &mut buf).expect("it can be read");
        assert_eq!(filled, buf.len());
        assert!(buf == self.model[4096..4096 + filled], "a blocking read returned other bytes");
        ctx.plane.close_file(file);
    }

    fn check(&mut self, expected: Expected, completion: Completion) {
        match (expected, completion) {
            (Expected::Write, Completion::Write(result))
            | (Expected::Sync, Completion::Sync(result))
            | (Expected::Published, Completion::Published(result))
            | (Expected::Punched, Completion::Punched(result) | Completion::Allocated(result)) => {
                result.expect("the disk has no faults");
            }
            (
                Expected::Made,
                Completion::Created(result) | Completion::Replaced(result) | Completion::Prepared(result),
            ) => {
                self.file = Some(result.expect("the disk has no faults"));
            }
            (Expected::Fails(kind), Completion::Created(Err(why))) => assert_eq!(why.kind(), kind),
            (Expected::Read { at, bytes }, Completion::Read(result)) => {
                let (buf, filled) = result.expect("the disk has no faults");
                assert_eq!(filled, bytes, "a read at {at}");
                assert!(buf[..filled] == self.model[at..at + filled], "a read at {at} returned other bytes");
            }
            (Expected::ReadOld { bytes }, Completion::Read(result)) => {
                let (buf, filled) = result.expect("the disk has no faults");
                assert_eq!(filled, bytes);
                let old = &self.old.as_ref().expect("it was replaced").1;
                assert!(buf[..filled] == old[..filled], "the replaced file has changed");
            }
            (_, other) => panic!("unexpected completion: {other:?}"),
        }
    }
}

impl Behaviour for DiskCheck {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        if !std::mem::replace(&mut self.begun, true) {
            self.next_step(ctx);
        }
    }

    fn disk(&mut self, ctx: &mut Ctx<'_, '_>, token: u32, completion: Completion) {
        let expected = self.in_flight.remove(&token).expect("every operation completes once");
        self.check(expected, completion);
        if self.in_flight.is_empty() {
            self.next_step(ctx);
        }
    }
}

/// Runs file jobs one at a time with nothing else to do: each completion has to wake a sleeping shard.
#[derive(Default)]
pub(super) struct JobByJob {
    done: u32,
}

impl JobByJob {
    const JOBS: u32 = 12;

    fn next(&self, ctx: &mut Ctx<'_, '_>) {
        ctx.plane.create_dir_all(ctx.dir).expect("the directory can be made");
        let path = ctx.dir.join(format!("job-{}", self.done));
        let token = ctx.token(self.done);
        ctx.plane.file_job(FileJob::Create { path, bytes: 4096 }, token);
    }
}

impl Behaviour for JobByJob {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        self.next(ctx);
    }

    fn disk(&mut self, ctx: &mut Ctx<'_, '_>, token: u32, completion: Completion) {
        assert_eq!(token, self.done);
        let Completion::Created(result) = completion else { panic!("unexpected completion: {completion:?}") };
        let file = result.expect("the disk has no faults");
        ctx.plane.close_file(file);
        self.done += 1;
        if self.done == Self::JOBS {
            ctx.reply(DISK_OK);
        } else {
            self.next(ctx);
        }
    }
}

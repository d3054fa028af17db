//! Replacing both files by a new generation, while records go on.
//!
//! 1. *Preparing.* The new files are written under temporary names, with the base. Records go into the old ones, and are kept in memory.
//! 2. *Joining.* These records are written to the new files too. From here on old and new files hold the same, and every record goes
//!    into all four.
//! 3. *Publishing.* The new files get their names, `.a` first. Then the old ones are closed.
//!
//! Whichever names a crash leaves, the files that have them hold every durable payload, each by itself. And a record waits for writes only:
//! creating a file, giving it a name and syncing its directory can take as long as the file system likes. Only when the old files run out of
//! space before that is done, or the new ones, do records wait for its end.
//!
//! *A full disk* may have space for one new file and not for two. Then records wait, and the files are replaced one after the other: the
//! first gets its name, which frees the space of the old one, before the second is prepared.

use std::io;

use highwater_runtime::fs::{FileId, is_out_of_space};
use highwater_runtime::plane::{Disk, FileJob};

use super::base::NewFile;
use super::{Fatal, Group, StateLog, TOKEN_JOB};

/// A new generation that is being written.
pub(super) struct Rotation {
    file: NewFile,
    /// Number of the last payload in its base.
    pub(super) covers: u64,
    pub(super) stage: Stage,
    pub(super) files: [Option<FileId>; 2],
    /// Records of the old files that are not in the base, in order, until the new files have them all.
    pub(super) carried: Vec<Group>,
    /// How many of them the new files have.
    joined: usize,
    /// Where the next record goes in the new files.
    pub(super) position: u64,
    /// The same, after the carried records that the new files do not have yet.
    reserved: u64,
    /// Number of the last payload that the new files have.
    recorded: u64,
    /// The file that is being replaced alone, since there is no space for two: records wait.
    alone: Option<usize>,
    /// There was no space for it.
    is_stalled: bool,
    /// There was no space in the new files for a record that the old ones do not have either.
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// This file is being made under a temporary name.
    Preparing(usize),
    /// The disk had no space for this file.
    PrepareStalled(usize),
    /// Records of the old files are being written to the new ones.
    Joining,
    /// This file is being given its name.
    Publishing(usize),
    /// The disk had no space for the name of this file.
    PublishStalled(usize),
    /// Both have their names; a record is still on its way.
    Published,
}

impl Rotation {
    pub(super) fn new(file: NewFile, covers: u64) -> Self {
        Self {
            covers,
            stage: Stage::Preparing(0),
            files: [None; 2],
            carried: Vec::new(),
            joined: 0,
            position: file.records_at,
            reserved: file.records_at,
            recorded: covers,
            alone: None,
            is_stalled: false,
            failed: false,
            file,
        }
    }

    /// Whether it waits for space on the disk.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::PrepareStalled(_) | Stage::PublishStalled(_))
    }

    /// Whether the new files have everything that the old ones have.
    pub(super) fn is_joined(&self) -> bool {
        matches!(self.stage, Stage::Publishing(_) | Stage::PublishStalled(_) | Stage::Published)
    }

    /// Whether records wait for its end.
    pub(super) fn holds_records(&self) -> bool {
        self.alone.is_some()
    }

    /// The new files that a record is written to.
    pub(super) fn targets(&self) -> impl Iterator<Item = FileId> {
        let taken =
            self.files.iter().enumerate().filter(|(copy, _)| self.alone.is_none_or(|alone| alone == *copy));
        taken.map(|(_, file)| file.expect("it was prepared"))
    }

    /// The records of the old files are yet to be written to new ones.
    fn restart_joining(&mut self) {
        self.joined = 0;
        self.position = self.file.records_at;
        self.recorded = self.covers;
    }

    /// Makes sure that a record will find room in the new files.
    pub(super) fn reserve(&mut self, record_bytes: u64) -> bool {
        let fits = self.reserved + record_bytes <= self.file.file_bytes;
        if fits {
            self.reserved += record_bytes;
        }
        fits
    }

    /// The new files have a record.
    pub(super) fn on_joined(&mut self, last_seq: u64, bytes: u64) {
        assert!(last_seq > self.recorded, "numbers only grow");
        self.recorded = last_seq;
        self.position += bytes;
        assert!(self.position <= self.reserved, "room was reserved for it");
        if self.stage == Stage::Joining {
            self.joined += 1;
        }
    }
}

impl StateLog {
    /// Whether a rotation found no space on the disk and has not succeeded since. Then call [`retry_stalled`](Self::retry_stalled)
    /// from a timer: records that find no room in the old files do not become durable until it succeeds.
    pub fn is_stalled(&self) -> bool {
        self.rotation.as_ref().is_some_and(|rotation| rotation.is_stalled)
    }

    /// Retries a rotation that found no space on the disk.
    pub fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        match self.rotation.as_ref().map(|rotation| rotation.stage) {
            Some(Stage::PrepareStalled(copy)) => self.prepare(disk, copy),
            Some(Stage::PublishStalled(copy)) => self.publish(disk, copy),
            _ => {}
        }
    }

    /// Begins to make a new file.
    pub(super) fn prepare(&mut self, disk: &mut dyn Disk, copy: usize) {
        let rotation = self.rotation.as_mut().expect("called during a rotation");
        rotation.stage = Stage::Preparing(copy);
        let job = FileJob::Prepare {
            path: self.paths[copy].clone(),
            content: rotation.file.content.clone(),
            bytes: rotation.file.file_bytes,
        };
        let token = self.token(TOKEN_JOB | copy as u64);
        disk.file_job(job, token);
    }

    fn publish(&mut self, disk: &mut dyn Disk, copy: usize) {
        let rotation = self.rotation.as_mut().expect("called during a rotation");
        rotation.stage = Stage::Publishing(copy);
        let token = self.token(TOKEN_JOB | copy as u64);
        disk.file_job(FileJob::Publish { path: self.paths[copy].clone() }, token);
    }

    pub(super) fn on_prepared(
        &mut self,
        disk: &mut dyn Disk,
        copy: usize,
        result: io::Result<FileId>,
    ) -> Result<(), Fatal> {
        let rotation = self.rotation.as_mut().expect("a job was answered, so a rotation was on its way");
        assert!(rotation.stage == Stage::Preparing(copy), "one job at a time");
        match result {
            Ok(file) => rotation.files[copy] = Some(file),
            Err(e) if is_out_of_space(&e) && copy == 1 && rotation.alone.is_none() => {
                // Once the first file has its name, the space of the old one is free.
                rotation.alone = Some(0);
            }
            Err(e) if is_out_of_space(&e) => {
                rotation.stage = Stage::PrepareStalled(copy);
                self.note_stall(copy);
                return Ok(());
            }
            Err(e) => return Err(Fatal(format!("could not replace {}: {e}", self.paths[copy].display()))),
        }
        if copy == 0 {
            self.prepare(disk, 1);
        } else {
            rotation.stage = Stage::Joining;
            self.start_record(disk);
        }
        Ok(())
    }

    fn note_stall(&mut self, copy: usize) {
        let rotation = self.rotation.as_mut().expect("the caller looked");
        if !std::mem::replace(&mut rotation.is_stalled, true) {
            tracing::error!(path = %self.paths[copy].display(), "the disk is full: no space to rewrite a state log; it waits");
        }
    }

    /// Writes the next of the records that the new files do not have yet; begins to publish these when there is none. Returns true if a record
    /// is on its way.
    pub(super) fn join_next(&mut self, disk: &mut dyn Disk) -> bool {
        let Some(rotation) = self.rotation.as_mut().filter(|r| r.stage == Stage::Joining) else {
            return false;
        };
        let joined = rotation.joined;
        if joined == rotation.carried.len() {
            let copy = rotation.alone.unwrap_or(0);
            self.publish(disk, copy);
            return false;
        }
        // They stay with the rotation: a second file that is made alone gets them too.
        let carried = std::mem::take(&mut rotation.carried);
        self.write_group(disk, &carried[joined], false, true);
        self.rotation.as_mut().expect("it is there").carried = carried;
        true
    }

    /// A record found no space in the new files.
    pub(super) fn on_join_failed(&mut self, disk: &mut dyn Disk) {
        let rotation = self.rotation.as_mut().expect("a record was written to its files");
        if rotation.is_joined() {
            // The old ones do not count as having it either. The next rotation begins with everything.
            rotation.failed = true;
            return;
        }
        // They must not get their names without it: they are made again when there is space.
        let first = usize::from(rotation.alone == Some(1));
        rotation.stage = Stage::PrepareStalled(first);
        rotation.alone = rotation.alone.filter(|alone| *alone == 1);
        rotation.restart_joining();
        for file in rotation.files[first..].iter_mut().filter_map(Option::take) {
            disk.close_file(file);
        }
        self.note_stall(first);
    }

    pub(super) fn on_published(
        &mut self,
        disk: &mut dyn Disk,
        copy: usize,
        result: io::Result<()>,
    ) -> Result<(), Fatal> {
        let rotation = self.rotation.as_mut().expect("a job was answered, so a rotation was on its way");
        assert!(rotation.stage == Stage::Publishing(copy), "one job at a time");
        match result {
            Ok(()) if copy == 0 && rotation.alone.is_some() => {
                rotation.alone = Some(1);
                rotation.restart_joining();
                let new = rotation.files[0].expect("it was published");
                disk.close_file(std::mem::replace(&mut self.files[0], new));
                self.prepare(disk, 1);
            }
            Ok(()) if copy == 0 => self.publish(disk, 1),
            Ok(()) if self.writing.is_some() => rotation.stage = Stage::Published,
            Ok(()) => {
                self.finish_rotation(disk);
                self.start_record(disk);
            }
            Err(e) if is_out_of_space(&e) => {
                rotation.stage = Stage::PublishStalled(copy);
                self.note_stall(copy);
            }
            Err(e) => return Err(Fatal(format!("could not replace {}: {e}", self.paths[copy].display()))),
        }
        Ok(())
    }

    /// Both files are of the new generation.
    pub(super) fn finish_rotation(&mut self, disk: &mut dyn Disk) {
        let done = self.rotation.take().expect("the caller looked");
        let covered = (done.covers + 1).saturating_sub(self.first_pending()) as usize;
        // The base has them.
        self.take_pending(covered);
        for (file, new) in self.files.iter_mut().zip(done.files) {
            let new = new.expect("both were prepared");
            let old = std::mem::replace(file, new);
            if old != new {
                disk.close_file(old);
            }
        }
        self.record_failed = done.failed;
        self.doubtful = None;
        self.generation += 1;
        self.file_bytes = done.file.file_bytes;
        self.position = done.position;
        self.durable = self.durable.max(done.recorded).max(done.covers);
        self.write_mark(disk);
    }
}

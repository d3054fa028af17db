//! A small durable log, kept twice: `X.a` and `X.b`.
//!
//! ```text
//!   header block | base: snapshot, payloads carried over | record | record | … | zero bytes
//! ```
//!
//! *Writing.* The payloads appended in a turn leave as one record, written at the same position of both files. A record is durable
//! when both copies have it, and only then does the next one start. So at most the last record can be missing or torn, and
//! any one damaged block in either file (or in each, unless it is the same block) is survived and reported.
//!
//! A third file, [`mark`], says which generation the log has reached: so a log that is lost, or was replaced by an old copy, is not
//! taken for a new one.
//!
//! *Rotation.* When the space for records runs out, the owner gives a snapshot. `.a` is replaced by a new generation that begins
//! with it, then `.b`. Nothing is recorded in the new generation before both files have it; what is appended meanwhile waits in
//! memory.
//!
//! *A snapshot takes many turns.* [`begin_snapshot`](StateLog::begin_snapshot) sets its position: it stands for everything appended
//! before that. The owner then adds one piece a turn, and payloads appended meanwhile are recorded in the old generation as usual.
//! They are also kept in memory: [`end_snapshot`](StateLog::end_snapshot) carries them over into the base of the new generation.
//! A crash before the rotation loses nothing, because the old generation is complete.
//!
//! *A full disk.* A file system that copies on write can have no space for a record either. Then the record is given up and the log
//! rotated: the snapshot replaces it, and new files share no blocks with a copy. A rotation that finds no space waits until
//! [`retry_stalled`](StateLog::retry_stalled).
//!
//! *Opening.* [`recover`] reads both copies together; then they are made equal before anything else happens, so what the owner was
//! given stays true after the next crash.
//!
//! The owner's part: after [`flush`](StateLog::flush), if [`wants_snapshot`](StateLog::wants_snapshot), give one. When the space has
//! run out nothing becomes durable until it is complete.

mod base;
pub mod format;
mod mark;
mod open;
pub mod recover;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::Bytes;
use highwater_runtime::fs::is_out_of_space;
use highwater_runtime::plane::{Completion, Disk, Durability, FileId, FileJob, Token, WRITE_BYTES_MAX};

use base::{BaseBuilder, NewFile};
pub use format::Owner;
pub(crate) use mark::mark_path;
pub(crate) use open::copy_paths;
pub use open::{Recovered, StateLogError, read_image};

/// Size of a file that holds little.
pub const FILE_BYTES_DEFAULT: u64 = 256 << 10;

/// Bytes of one payload, and of one piece of a snapshot.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Bytes of a snapshot that an owner adds in one turn, unless one entry of it is larger.
pub const SNAPSHOT_BYTES_PER_TURN: usize = 128 << 10;

/// Bytes of payloads in one record, unless a single payload is larger.
const RECORD_PAYLOADS_BYTES_MAX: usize = (256 << 10) - format::BLOCK_BYTES;

/// Number of an appended payload. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(pub u64);

/// The log cannot go on: the disk is not to be trusted. The process has to end with the exit code for disk errors.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// A small durable log, kept twice. See the module's doc.
///
/// Call [`flush`](Self::flush) at the end of a turn, and pass every completion whose token has this log's `token_space` in its top byte to
/// [`on_disk`](Self::on_disk).
pub struct StateLog {
    owner: Owner,
    paths: [PathBuf; 2],
    files: [FileId; 2],
    /// `None` if there was no space for one.
    mark: Option<FileId>,
    mark_writes: MarkWrites,
    token_space: u8,
    generation: u64,
    file_bytes_min: u64,
    file_bytes: u64,
    /// Where the next record goes.
    position: u64,
    last_seq: u64,
    durable: u64,
    /// Payloads that are in no record yet, each preceded by its length, and where each ends.
    pending: Vec<u8>,
    pending_ends: Vec<usize>,
    writing: Option<Writing>,
    /// The last payload recovered, while it is not certain to be durable.
    doubtful: Option<u64>,
    /// The disk had no space for a record: nothing more is written to these files.
    record_failed: bool,
    /// The snapshot that the owner is giving.
    snapshot: Option<Snapshot>,
    rotation: Option<Rotation>,
    failed: Option<Fatal>,
}

/// A record that is being written to both files.
struct Writing {
    record: Bytes,
    last_seq: u64,
    /// Bytes answered, per file. One write per file is in flight while this is less than the record's length.
    written: [usize; 2],
    /// There was no space for a part of it.
    failed: bool,
}

/// A snapshot that is not complete.
struct Snapshot {
    base: BaseBuilder,
    /// Payloads appended since it was begun, each preceded by its length.
    carried: Vec<u8>,
    carried_count: u32,
}

/// A new generation that is being written.
struct Rotation {
    file: NewFile,
    /// Number of the last payload in its base.
    covers: u64,
    stage: Stage,
    /// There was no space for it.
    is_stalled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A record is still being written to the old files.
    Waiting,
    /// This copy is being replaced.
    Replacing(usize),
    /// The disk had no space for this copy.
    Stalled(usize),
}

/// Whether the mark is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MarkWrites {
    Idle,
    InFlight,
    /// Another generation has begun meanwhile, so it is written once more.
    Outdated,
}

/// Flags in a token's low bits. Bit 0 is the copy.
const TOKEN_REPLACE: u64 = 2;
const TOKEN_MARK: u64 = 4;

impl StateLog {
    /// Appends a payload. The next [`flush`](Self::flush) starts writing it.
    pub fn append(&mut self, payload: &[u8]) -> Seq {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payload of {} bytes", payload.len());
        format::push_payload(&mut self.pending, payload);
        self.pending_ends.push(self.pending.len());
        if let Some(snapshot) = &mut self.snapshot {
            format::push_payload(&mut snapshot.carried, payload);
            snapshot.carried_count += 1;
        }
        self.last_seq += 1;
        Seq(self.last_seq)
    }

    /// Starts writing the payloads appended so far, if nothing is being written.
    pub fn flush(&mut self, disk: &mut dyn Disk) {
        if self.failed.is_some() {
            return;
        }
        self.start_record(disk);
    }

    /// Takes the result of an operation of this log.
    pub fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        completion: Completion,
    ) -> Result<(), Fatal> {
        if let Some(fatal) = &self.failed {
            return Err(fatal.clone());
        }
        let copy = (token.0 & 1) as usize;
        let outcome = match completion {
            Completion::Write(result) if token.0 & TOKEN_MARK != 0 => self.on_marked(disk, result),
            Completion::Write(result) => self.on_written(disk, copy, result),
            Completion::Replaced(result) => self.on_replaced(disk, copy, result),
            other => panic!("a state log starts no operation that ends in {other:?}"),
        };
        if let Err(fatal) = &outcome {
            self.failed = Some(fatal.clone());
        }
        outcome
    }

    /// Every payload up to this number is on stable storage in both files, as far as is known.
    pub fn durable(&self) -> Seq {
        Seq(self.durable)
    }

    /// The same, without the last payload recovered by a start that found no space on the disk to write it again: it may come from a write that
    /// failed, and be lost with the next power cut.
    pub fn certain(&self) -> Seq {
        Seq(self.doubtful.map_or(self.durable, |last| last.saturating_sub(1)))
    }

    /// The size that files holding little have from the next generation on. A busy log rotates less often in larger files.
    pub fn set_file_bytes_min(&mut self, bytes: u64) {
        self.file_bytes_min = bytes;
    }

    /// The number of the last payload appended.
    pub fn appended(&self) -> Seq {
        Seq(self.last_seq)
    }

    /// Whether the owner should begin a snapshot now: three quarters of the space for records are used, what waits does not fit, or the
    /// disk had no space for a record.
    pub fn wants_snapshot(&self) -> bool {
        if self.snapshot.is_some() || self.rotation.is_some() || self.failed.is_some() {
            return false;
        }
        if self.record_failed {
            return true;
        }
        let next = self.position + self.next_record().map_or(0, |(_, _, bytes)| bytes as u64);
        let quarter = self.file_bytes / 4;
        next > self.file_bytes || self.position > self.file_bytes - quarter
    }

    /// Begins a snapshot, which will stand for every payload appended so far. Not to be called while another snapshot
    /// [is being written](Self::is_rotating); one that was begun and not ended is dropped.
    pub fn begin_snapshot(&mut self) {
        assert!(self.rotation.is_none(), "one snapshot at a time");
        self.snapshot =
            Some(Snapshot { base: BaseBuilder::with_snapshot(), carried: Vec::new(), carried_count: 0 });
    }

    /// Adds a piece to the snapshot that was begun. [`SNAPSHOT_BYTES_PER_TURN`] bytes of pieces a turn keep turns short.
    pub fn add_to_snapshot(&mut self, piece: &[u8]) {
        assert!(piece.len() <= PAYLOAD_BYTES_MAX, "piece of {} bytes", piece.len());
        self.snapshot.as_mut().expect("a snapshot was begun").base.push_piece(piece);
    }

    /// Ends the snapshot that was begun: the new generation starts with it and with the payloads appended meanwhile.
    pub fn end_snapshot(&mut self, disk: &mut dyn Disk) {
        let Snapshot { mut base, carried, carried_count } =
            self.snapshot.take().expect("a snapshot was begun");
        base.push_carried(&carried, carried_count);
        // Payloads that are in no record yet are in the base.
        self.pending.clear();
        self.pending_ends.clear();
        let covers = self.last_seq;
        let file = base.finish(self.owner, self.generation + 1, covers + 1, self.file_bytes_min);
        self.rotation = Some(Rotation { file, covers, stage: Stage::Waiting, is_stalled: false });
        if self.writing.is_none() {
            self.start_replace(disk, 0);
        }
    }

    /// Gives a snapshot of one piece.
    pub fn snapshot(&mut self, disk: &mut dyn Disk, piece: &[u8]) {
        self.begin_snapshot();
        self.add_to_snapshot(piece);
        self.end_snapshot(disk);
    }

    /// Whether a new generation is being written, or waits for space.
    pub fn is_rotating(&self) -> bool {
        self.rotation.is_some()
    }

    /// Whether nothing is being written and nothing waits to be. True also while the log waits for space on a full disk, and while a
    /// snapshot is not complete and nothing needs it.
    pub fn is_idle(&self) -> bool {
        let resting = match &self.rotation {
            None => self.pending.is_empty() && !self.record_failed,
            Some(rotation) => matches!(rotation.stage, Stage::Stalled(_)),
        };
        self.writing.is_none() && resting && self.mark_writes == MarkWrites::Idle
    }

    /// Whether a rotation found no space on the disk and has not succeeded since. Then call [`retry_stalled`](Self::retry_stalled)
    /// from a timer: nothing becomes durable until it succeeds.
    pub fn is_stalled(&self) -> bool {
        self.rotation.as_ref().is_some_and(|rotation| rotation.is_stalled)
    }

    /// Retries a rotation that found no space on the disk.
    pub fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        if let Some(Rotation { stage: Stage::Stalled(copy), .. }) = self.rotation {
            self.start_replace(disk, copy);
        }
    }

    /// Closes both files. Writes in flight are completed, waiting payloads are not written.
    pub fn close(self, disk: &mut dyn Disk) {
        for file in self.files.into_iter().chain(self.mark) {
            disk.close_file(file);
        }
    }

    /// The payloads that fit in the next record: how many, the bytes they take, the bytes of the record.
    fn next_record(&self) -> Option<(usize, usize, usize)> {
        let count = self.pending_ends.partition_point(|end| *end <= RECORD_PAYLOADS_BYTES_MAX).max(1);
        let bytes = *self.pending_ends.get(count - 1)?;
        Some((count, bytes, format::record_bytes(bytes)))
    }

    fn start_record(&mut self, disk: &mut dyn Disk) {
        if self.writing.is_some() || self.rotation.is_some() || self.record_failed {
            return;
        }
        let Some((count, bytes, record_bytes)) = self.next_record() else { return };
        if self.position + record_bytes as u64 > self.file_bytes {
            return; // wants_snapshot() says so
        }
        let first_seq = self.last_seq + 1 - self.pending_ends.len() as u64;
        let payloads = &self.pending[..bytes];
        let record = format::encode_record(
            self.owner,
            self.generation,
            first_seq,
            self.position,
            payloads,
            count as u32,
        )
        .freeze();
        self.pending.drain(..bytes);
        self.pending_ends.drain(..count);
        for end in &mut self.pending_ends {
            *end -= bytes;
        }
        let last_seq = first_seq + count as u64 - 1;
        self.writing = Some(Writing { record, last_seq, written: [0; 2], failed: false });
        self.write_chunk(disk, 0);
        self.write_chunk(disk, 1);
    }

    fn write_chunk(&mut self, disk: &mut dyn Disk, copy: usize) {
        let writing = self.writing.as_ref().expect("called while a record is on its way");
        let from = writing.written[copy];
        let to = (from + WRITE_BYTES_MAX).min(writing.record.len());
        let data = writing.record.slice(from..to);
        disk.write(
            self.files[copy],
            self.position + from as u64,
            data,
            Durability::Durable,
            self.token(copy as u64),
        );
    }

    fn on_written(
        &mut self,
        disk: &mut dyn Disk,
        copy: usize,
        result: std::io::Result<()>,
    ) -> Result<(), Fatal> {
        let writing = self.writing.as_mut().expect("a write was answered, so a record was on its way");
        let len = writing.record.len();
        match result {
            Ok(()) => writing.written[copy] = (writing.written[copy] + WRITE_BYTES_MAX).min(len),
            Err(e) if is_out_of_space(&e) => {
                writing.failed = true;
                writing.written[copy] = len;
            }
            Err(e) => return Err(Fatal(format!("could not write {}: {e}", self.paths[copy].display()))),
        }
        if writing.written[copy] < len {
            self.write_chunk(disk, copy);
            return Ok(());
        }
        if writing.written == [len; 2] {
            if writing.failed {
                self.record_failed = true;
            } else {
                assert!(writing.last_seq > self.durable, "numbers only grow");
                self.durable = writing.last_seq;
                self.position += len as u64;
            }
            self.writing = None;
            if self.rotation.is_some() {
                self.start_replace(disk, 0);
            } else {
                self.start_record(disk);
            }
        }
        Ok(())
    }

    fn start_replace(&mut self, disk: &mut dyn Disk, copy: usize) {
        let rotation = self.rotation.as_mut().expect("called during a rotation");
        rotation.stage = Stage::Replacing(copy);
        let job = FileJob::Replace {
            path: self.paths[copy].clone(),
            content: rotation.file.content.clone(),
            bytes: rotation.file.file_bytes,
        };
        let token = self.token(TOKEN_REPLACE | copy as u64);
        disk.file_job(job, token);
    }

    fn on_replaced(
        &mut self,
        disk: &mut dyn Disk,
        copy: usize,
        result: std::io::Result<FileId>,
    ) -> Result<(), Fatal> {
        let rotation =
            self.rotation.as_mut().expect("a replacement was answered, so a rotation was on its way");
        assert!(rotation.stage == Stage::Replacing(copy), "one replacement at a time");
        let file = match result {
            Ok(file) => file,
            Err(e) if is_out_of_space(&e) => {
                if !std::mem::replace(&mut rotation.is_stalled, true) {
                    tracing::error!(path = %self.paths[copy].display(), "the disk is full: no space to rewrite a state log; it waits");
                }
                rotation.stage = Stage::Stalled(copy);
                return Ok(());
            }
            Err(e) => return Err(Fatal(format!("could not replace {}: {e}", self.paths[copy].display()))),
        };
        disk.close_file(std::mem::replace(&mut self.files[copy], file));
        if copy == 0 {
            self.start_replace(disk, 1);
            return Ok(());
        }
        let done = self.rotation.take().expect("it was there above");
        self.record_failed = false;
        self.doubtful = None;
        self.generation += 1;
        self.file_bytes = done.file.file_bytes;
        self.position = done.file.records_at;
        assert!(done.covers >= self.durable, "a base holds everything before it");
        self.durable = done.covers;
        self.write_mark(disk);
        self.start_record(disk);
        Ok(())
    }

    fn write_mark(&mut self, disk: &mut dyn Disk) {
        let Some(file) = self.mark else { return };
        if self.mark_writes != MarkWrites::Idle {
            self.mark_writes = MarkWrites::Outdated;
            return;
        }
        self.mark_writes = MarkWrites::InFlight;
        let block = mark::encode(self.owner, self.generation).freeze();
        disk.write(file, 0, block, Durability::Durable, self.token(TOKEN_MARK));
    }

    fn on_marked(&mut self, disk: &mut dyn Disk, result: std::io::Result<()>) -> Result<(), Fatal> {
        let outdated = std::mem::replace(&mut self.mark_writes, MarkWrites::Idle) == MarkWrites::Outdated;
        match result {
            // A file system that copies on write may be too full for it. The next generation tries again.
            Err(e) if !is_out_of_space(&e) => {
                Err(Fatal(format!("could not write the mark of {}: {e}", self.paths[0].display())))
            }
            _ => {
                if outdated {
                    self.write_mark(disk);
                }
                Ok(())
            }
        }
    }

    fn token(&self, low: u64) -> Token {
        Token(u64::from(self.token_space) << 56 | low)
    }
}

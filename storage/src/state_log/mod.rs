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
//! with it, then `.b`. Records go on meanwhile, and none of them waits for a name to change: see [`rotation`].
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
mod rotation;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::Bytes;
use highwater_runtime::fs::{FileId, is_out_of_space};
use highwater_runtime::plane::{Completion, Disk, Durability, Token, WRITE_BYTES_MAX};

use base::BaseBuilder;
pub use format::Owner;
pub(crate) use mark::mark_path;
pub(crate) use open::copy_paths;
pub use open::{Recovered, StateLogError, read_image};
use rotation::{Rotation, Stage};

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

/// Payloads that are recorded together.
struct Group {
    first_seq: u64,
    count: u32,
    /// Each preceded by its length.
    payloads: Vec<u8>,
}

impl Group {
    fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count) - 1
    }
}

/// A record that is being written to its files.
struct Writing {
    last_seq: u64,
    copies: Vec<CopyWrite>,
    /// Bytes of the record in the files of this generation, if it goes there.
    bytes: Option<u64>,
    /// The same of the generation that a rotation makes.
    next_bytes: Option<u64>,
    /// There was no space for a part of it.
    failed: bool,
}

/// One file of a record. One write per file is in flight while not all of it is written.
struct CopyWrite {
    file: FileId,
    at: u64,
    record: Bytes,
    written: usize,
}

/// A snapshot that is not complete.
struct Snapshot {
    base: BaseBuilder,
    /// Payloads appended since it was begun, each preceded by its length.
    carried: Vec<u8>,
    carried_count: u32,
}

/// Whether the mark is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MarkWrites {
    Idle,
    InFlight,
    /// Another generation has begun meanwhile, so it is written once more.
    Outdated,
}

/// Flags in a token's low bits. The two lowest are the number of the file.
const TOKEN_FILE: u64 = 3;
const TOKEN_JOB: u64 = 4;
const TOKEN_MARK: u64 = 8;

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
        let copy = (token.0 & TOKEN_FILE) as usize;
        let outcome = match completion {
            Completion::Write(result) if token.0 & TOKEN_MARK != 0 => self.on_marked(disk, result),
            Completion::Write(result) => self.on_written(disk, copy, result),
            Completion::Prepared(result) => self.on_prepared(disk, copy, result),
            Completion::Published(result) => self.on_published(disk, copy, result),
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

    /// Whether payloads were appended that are in no record yet.
    pub fn has_pending(&self) -> bool {
        !self.pending_ends.is_empty()
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

    /// Nothing is recorded in these files any more: what follows is durable only with the next snapshot.
    pub fn hold_records(&mut self) {
        self.record_failed = true;
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
        let covers = self.last_seq;
        let file = base.finish(self.owner, self.generation + 1, covers + 1, self.file_bytes_min);
        self.rotation = Some(Rotation::new(file, covers));
        self.prepare(disk, 0);
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
            Some(rotation) => rotation.is_waiting(),
        };
        self.writing.is_none() && resting && self.mark_writes == MarkWrites::Idle
    }

    /// Closes both files. Writes in flight are completed, waiting payloads are not written.
    pub fn close(self, disk: &mut dyn Disk) {
        for file in self.files.into_iter().chain(self.mark) {
            disk.close_file(file);
        }
    }

    /// The payloads that fit in the next record: how many, the bytes they take, the bytes of the record. Those that are in the base of the
    /// next generation and those that are not are in different records.
    fn next_record(&self) -> Option<(usize, usize, usize)> {
        let mut count = self.pending_ends.partition_point(|end| *end <= RECORD_PAYLOADS_BYTES_MAX).max(1);
        if let Some(rotation) = &self.rotation {
            let covered = (rotation.covers + 1).saturating_sub(self.first_pending());
            count = if covered == 0 { count } else { count.min(covered as usize) };
        }
        let bytes = *self.pending_ends.get(count - 1)?;
        Some((count, bytes, format::record_bytes(bytes)))
    }

    /// Number of the first payload that is in no record yet.
    fn first_pending(&self) -> u64 {
        self.last_seq + 1 - self.pending_ends.len() as u64
    }

    /// Takes payloads from the front of those that are in no record yet.
    fn take_pending(&mut self, count: usize) -> Group {
        let first_seq = self.first_pending();
        let bytes = count.checked_sub(1).map_or(0, |last| self.pending_ends[last]);
        let payloads = self.pending.drain(..bytes).collect();
        self.pending_ends.drain(..count);
        for end in &mut self.pending_ends {
            *end -= bytes;
        }
        Group { first_seq, count: count as u32, payloads }
    }

    fn start_record(&mut self, disk: &mut dyn Disk) {
        if self.writing.is_some() || self.join_next(disk) || self.record_failed {
            return;
        }
        if self.rotation.as_ref().is_some_and(Rotation::holds_records) {
            return;
        }
        let Some((count, _, record_bytes)) = self.next_record() else { return };
        if self.position + record_bytes as u64 > self.file_bytes {
            return; // wants_snapshot() says so
        }
        let first_seq = self.first_pending();
        let mut is_joined = false;
        if let Some(rotation) = self.rotation.as_mut().filter(|rotation| first_seq > rotation.covers) {
            if !rotation.reserve(record_bytes as u64) {
                return;
            }
            is_joined = rotation.is_joined();
        }
        let group = self.take_pending(count);
        self.write_group(disk, &group, true, is_joined);
        if let Some(rotation) = self.rotation.as_mut().filter(|r| first_seq > r.covers && !is_joined) {
            rotation.carried.push(group);
        }
    }

    /// Starts writing a record to the files of this generation, of the next one, or both.
    fn write_group(&mut self, disk: &mut dyn Disk, group: &Group, here: bool, next: bool) {
        let encode = |generation, at| {
            let Group { first_seq, count, payloads } = group;
            format::encode_record(self.owner, generation, *first_seq, at, payloads, *count).freeze()
        };
        let mut copies = Vec::new();
        let (mut bytes, mut next_bytes) = (None, None);
        if here {
            let (at, record) = (self.position, encode(self.generation, self.position));
            bytes = Some(record.len() as u64);
            let copy = |file| CopyWrite { file, at, record: record.clone(), written: 0 };
            copies.extend(self.files.map(copy));
        }
        if let Some(rotation) = self.rotation.as_ref().filter(|_| next) {
            let (at, record) = (rotation.position, encode(self.generation + 1, rotation.position));
            next_bytes = Some(record.len() as u64);
            let copy = |file| CopyWrite { file, at, record: record.clone(), written: 0 };
            copies.extend(rotation.targets().map(copy));
        }
        let files = copies.len();
        self.writing = Some(Writing { last_seq: group.last_seq(), copies, bytes, next_bytes, failed: false });
        for copy in 0..files {
            self.write_chunk(disk, copy);
        }
    }

    fn write_chunk(&mut self, disk: &mut dyn Disk, copy: usize) {
        let writing = self.writing.as_ref().expect("called while a record is on its way");
        let CopyWrite { file, at, record, written } = &writing.copies[copy];
        let data = record.slice(*written..(written + WRITE_BYTES_MAX).min(record.len()));
        disk.write(*file, at + *written as u64, data, Durability::Durable, self.token(copy as u64));
    }

    fn on_written(
        &mut self,
        disk: &mut dyn Disk,
        copy: usize,
        result: std::io::Result<()>,
    ) -> Result<(), Fatal> {
        let writing = self.writing.as_mut().expect("a write was answered, so a record was on its way");
        let CopyWrite { record, written, .. } = &mut writing.copies[copy];
        match result {
            Ok(()) => *written = (*written + WRITE_BYTES_MAX).min(record.len()),
            Err(e) if is_out_of_space(&e) => {
                writing.failed = true;
                *written = record.len();
            }
            Err(e) => {
                let path = &self.paths[copy % 2];
                return Err(Fatal(format!("could not write {}: {e}", path.display())));
            }
        }
        if *written < record.len() {
            self.write_chunk(disk, copy);
        } else if writing.copies.iter().all(|copy| copy.written == copy.record.len()) {
            self.finish_record(disk);
        }
        Ok(())
    }

    /// All files have the record, or it found no space.
    fn finish_record(&mut self, disk: &mut dyn Disk) {
        let Writing { last_seq, bytes, next_bytes, failed, .. } =
            self.writing.take().expect("the caller looked");
        if failed {
            self.record_failed |= bytes.is_some();
            if next_bytes.is_some() {
                self.on_join_failed(disk);
            }
        } else {
            if let Some(bytes) = bytes {
                assert!(last_seq > self.durable, "numbers only grow");
                self.durable = last_seq;
                self.position += bytes;
            }
            if let (Some(bytes), Some(rotation)) = (next_bytes, &mut self.rotation) {
                rotation.on_joined(last_seq, bytes);
            }
        }
        if self.rotation.as_ref().is_some_and(|rotation| rotation.stage == Stage::Published) {
            self.finish_rotation(disk);
        }
        self.start_record(disk);
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

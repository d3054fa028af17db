//! Disk reads: filled piece by piece, with few pieces at the disk while it also has writes.
//!
//! A disk serves its requests in an order of its own. A write that is submitted beside megabytes of reads is served with them, and an acknowledgement
//! waits for it. A read of [`READ_PIECE_BYTES`] at a time is as fast as a larger one on every disk whose bandwidth is the limit, so reads are submitted
//! in pieces, first come, first served:
//!
//! ```text
//!   reads:    [ A A A A ] [ B B B B ] [ C ]
//!   pieces:   done done  at the disk  waiting ...
//!                        `- 2 beside writes, more and more without
//! ```
//!
//! Two pieces beside writes, because one of them keeps the disk busy while this shard handles the completion of the other. Each time that a few pieces
//! were read without any write, one more may be at the disk; the next write ends that. So a log that is appended to every millisecond keeps its
//! latency, and a shard that only reads uses all of a disk that serves many requests at once. No clock is needed.
//!
//! Invariant: a piece waits only while as many as may be are at the disk. So each completion starts the next ones, and none is forgotten.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::UringPlane;
use super::limits::{
    READ_PIECE_BYTES, READ_PIECES_BESIDE_WRITES, READ_PIECES_MAX, READ_PIECES_PER_STEP, WAITING_MAX,
};
use super::ring::Cqe;
use super::token::Op;
use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::osfs::OpenFile;
use crate::plane::{Completion, Token};
use crate::slab::Key;

/// How many pieces may be at the disk. See the module's doc.
#[derive(Debug)]
pub(super) struct ReadWindow {
    /// Pieces at the disk.
    pieces: usize,
    pieces_max: usize,
    /// Writes and syncs in flight.
    writes: usize,
    /// Pieces that were read since the last write or the last step.
    undisturbed: usize,
}

impl ReadWindow {
    pub(super) fn new() -> Self {
        Self { pieces: 0, pieces_max: READ_PIECES_BESIDE_WRITES, writes: 0, undisturbed: 0 }
    }

    fn has_room(&self) -> bool {
        self.pieces < self.pieces_max
    }

    fn handle_piece_start(&mut self) {
        self.pieces += 1;
    }

    fn handle_piece_end(&mut self) {
        self.pieces -= 1;
        if self.writes > 0 {
            return;
        }
        self.undisturbed += 1;
        if self.undisturbed >= READ_PIECES_PER_STEP {
            self.undisturbed = 0;
            self.pieces_max = (self.pieces_max + 1).min(READ_PIECES_MAX);
        }
    }

    /// A write or a sync starts.
    pub(super) fn handle_write_start(&mut self) {
        self.writes += 1;
        self.undisturbed = 0;
        self.pieces_max = READ_PIECES_BESIDE_WRITES;
    }

    /// A write or a sync has completed.
    pub(super) fn handle_write_end(&mut self) {
        self.writes -= 1;
    }
}

/// A read, from its start to its completion.
pub(super) struct ReadOp {
    token: Token,
    /// Keeps the file open: closing a file id does not affect operations in flight.
    file: Arc<OpenFile>,
    at: u64,
    /// Written to by the kernel while pieces are in flight: no reference to its bytes is made before the last of them has completed.
    buf: AlignedBuf,
    /// Bytes for which pieces were started, or that are not read any more.
    started: usize,
    pieces_in_flight: usize,
    /// Bytes that the file has, as far as that is known.
    filled: usize,
    error: Option<io::Error>,
}

/// Part of a read in flight: the bytes of its buffer that are still to be filled.
pub(super) struct ReadPiece {
    read: Key,
    from: usize,
    to: usize,
}

impl ReadOp {
    pub(super) fn new(token: Token, file: Arc<OpenFile>, at: u64, buf: AlignedBuf) -> Self {
        let filled = buf.len();
        Self { token, file, at, buf, started: 0, pieces_in_flight: 0, filled, error: None }
    }

    /// Returns the next piece. `None`: all were started.
    fn next_piece(&mut self, read: Key) -> Option<ReadPiece> {
        let (from, end) = (self.started, self.buf.len());
        if from >= end {
            return None;
        }
        let to = (from + READ_PIECE_BYTES).min(end);
        self.started = to;
        self.pieces_in_flight += 1;
        Some(ReadPiece { read, from, to })
    }

    fn entry(&self, piece: &ReadPiece) -> squeue::Entry {
        assert!(
            piece.from < piece.to && piece.to <= self.buf.len(),
            "a piece lies in the buffer of its read"
        );
        // SAFETY: `from` lies within the buffer.
        let memory = unsafe { self.buf.memory().add(piece.from) };
        let bytes = (piece.to - piece.from) as u32;
        let at = self.at + piece.from as u64;
        opcode::Read::new(types::Fd(self.file.as_raw_fd()), memory.as_ptr(), bytes).offset(at).build()
    }

    /// Handles the completion of a piece. Returns whether the piece continues.
    fn advance(&mut self, piece: &mut ReadPiece, outcome: io::Result<usize>) -> bool {
        match outcome {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => return true,
            Err(e) => {
                self.error.get_or_insert(e);
                self.started = self.buf.len();
            }
            Ok(n) => {
                piece.from += n;
                if piece.from < piece.to {
                    if n > 0 && n.is_multiple_of(PAGE_BYTES) {
                        return true;
                    }
                    // The file ends here.
                    self.filled = self.filled.min(piece.from);
                    self.started = self.buf.len();
                }
            }
        }
        self.pieces_in_flight -= 1;
        false
    }

    fn is_done(&self) -> bool {
        self.pieces_in_flight == 0 && self.started >= self.buf.len()
    }

    fn completion(self) -> (Token, Completion) {
        let result = self.error.map_or(Ok((self.buf, self.filled)), Err);
        (self.token, Completion::Read(result))
    }
}

impl<M: Send + 'static> UringPlane<M> {
    /// Queues a read, and starts what may start.
    pub(super) fn queue_read(&mut self, read: ReadOp) {
        assert!(self.reads_waiting.len() < WAITING_MAX, "more than {WAITING_MAX} disk reads are waiting");
        let key = self.reads.insert(read);
        self.reads_waiting.push_back(key);
        self.start_reads();
    }

    fn start_reads(&mut self) {
        while self.read_window.has_room()
            && let Some(key) = self.reads_waiting.front().copied()
        {
            // A read that has failed or met the end of its file needs no further pieces, and may be gone.
            let Some(piece) = self.reads.get_mut(key).and_then(|read| read.next_piece(key)) else {
                self.reads_waiting.pop_front();
                continue;
            };
            self.read_window.handle_piece_start();
            let key = self.read_pieces.insert(piece);
            self.push_read_piece(key);
        }
    }

    fn push_read_piece(&mut self, key: Key) {
        let Some(piece) = self.read_pieces.get(key) else { return };
        let Some(read) = self.reads.get(piece.read) else { return };
        let entry = read.entry(piece);
        self.has_new_disk_ops = true;
        // SAFETY: buffer and file stay in the slab until the last piece has completed, and the buffer is not accessed before that.
        unsafe { self.ring.push(entry, Op::ReadPiece(key)) };
    }

    /// Handles the completion of a piece. Returns the result of the read if that was its last one.
    pub(super) fn on_read_piece_completed(&mut self, key: Key, cqe: Cqe) -> Option<(Token, Completion)> {
        let piece = self.read_pieces.get_mut(key)?;
        let of = piece.read;
        let read = self.reads.get_mut(of)?;
        if read.advance(piece, cqe.outcome()) {
            self.push_read_piece(key);
            return None;
        }
        let is_done = read.is_done();
        self.read_pieces.remove(key);
        self.read_window.handle_piece_end();
        let done = if is_done { self.reads.remove(of) } else { None };
        self.start_reads();
        done.map(ReadOp::completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fs as _;
    use crate::osfs::OsFs;

    /// Ends a piece and starts others, as a shard with endless reads does. Returns how many are at the disk then.
    fn step(window: &mut ReadWindow) -> usize {
        window.handle_piece_end();
        fill(window)
    }

    fn fill(window: &mut ReadWindow) -> usize {
        while window.has_room() {
            window.handle_piece_start();
        }
        window.pieces
    }

    #[test]
    fn beside_writes_two_pieces_are_at_the_disk_however_many_are_read() {
        let mut window = ReadWindow::new();
        window.handle_write_start();
        assert_eq!(fill(&mut window), READ_PIECES_BESIDE_WRITES);
        for _ in 0..100 {
            // The next write starts when the one before it ends, as commit rounds do.
            window.handle_write_start();
            window.handle_write_end();
            assert_eq!(step(&mut window), READ_PIECES_BESIDE_WRITES);
        }
    }

    #[test]
    fn without_writes_pieces_become_more_one_by_one_and_the_next_write_ends_that() {
        let mut window = ReadWindow::new();
        fill(&mut window);
        for expected in READ_PIECES_BESIDE_WRITES..READ_PIECES_MAX {
            for _ in 1..READ_PIECES_PER_STEP {
                assert_eq!(step(&mut window), expected);
            }
            assert_eq!(step(&mut window), expected + 1);
        }
        for _ in 0..10 * READ_PIECES_PER_STEP {
            assert_eq!(step(&mut window), READ_PIECES_MAX);
        }
        window.handle_write_start();
        for left in (READ_PIECES_BESIDE_WRITES..READ_PIECES_MAX).rev() {
            assert_eq!(step(&mut window), left, "none starts before enough have ended");
        }
        assert_eq!(step(&mut window), READ_PIECES_BESIDE_WRITES);
    }

    #[test]
    fn a_log_that_is_appended_to_again_and_again_keeps_reads_few_in_the_pauses() {
        let mut window = ReadWindow::new();
        fill(&mut window);
        for _ in 0..100 {
            window.handle_write_start();
            window.handle_write_end();
            for _ in 1..READ_PIECES_PER_STEP {
                assert_eq!(step(&mut window), READ_PIECES_BESIDE_WRITES);
            }
        }
    }

    const BYTES: usize = 3 * READ_PIECE_BYTES - PAGE_BYTES;

    fn read() -> ReadOp {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut fs = OsFs::new();
        let file = fs.create_file(&dir.path().join("f"), 4096).expect("create");
        let file = Arc::clone(fs.file(file).expect("open"));
        ReadOp::new(Token(1), file, 0, AlignedBuf::new(BYTES))
    }

    fn pieces(read: &mut ReadOp) -> Vec<ReadPiece> {
        std::iter::from_fn(|| read.next_piece(Key::default())).collect()
    }

    fn bytes(piece: &ReadPiece) -> usize {
        piece.to - piece.from
    }

    #[test]
    fn pieces_cover_a_read_and_may_complete_in_any_order() {
        let mut read = read();
        let mut pieces = pieces(&mut read);
        let sizes: Vec<_> = pieces.iter().map(bytes).collect();
        assert_eq!(sizes, [READ_PIECE_BYTES, READ_PIECE_BYTES, READ_PIECE_BYTES - PAGE_BYTES]);
        for piece in pieces.iter_mut().rev() {
            assert!(!read.is_done());
            let bytes = bytes(piece);
            assert!(!read.advance(piece, Ok(bytes)));
        }
        assert!(read.is_done());
        let (_, Completion::Read(Ok((buf, filled)))) = read.completion() else { panic!("a read") };
        assert_eq!((buf.len(), filled), (BYTES, BYTES));
    }

    #[test]
    fn a_short_piece_continues_until_the_file_ends_and_the_earliest_end_counts() {
        let mut read = read();
        let mut pieces = pieces(&mut read);
        assert!(!read.advance(&mut pieces[2], Ok(0)));
        assert!(read.advance(&mut pieces[1], Ok(PAGE_BYTES)));
        assert!(read.advance(&mut pieces[1], Err(io::Error::from_raw_os_error(libc::EAGAIN))));
        assert!(!read.advance(&mut pieces[1], Ok(100)), "a partial page is the end of the file");
        assert!(!read.advance(&mut pieces[0], Ok(READ_PIECE_BYTES)));
        let (_, Completion::Read(Ok((_, filled)))) = read.completion() else { panic!("a read") };
        assert_eq!(filled, READ_PIECE_BYTES + PAGE_BYTES + 100);
    }

    #[test]
    fn a_read_fails_when_its_pieces_in_flight_have_ended_and_starts_no_others() {
        let mut read = read();
        let [mut first, mut second] =
            [0, 0].map(|_| read.next_piece(Key::default()).expect("there are three"));
        assert!(!read.advance(&mut first, Err(io::Error::from_raw_os_error(libc::EIO))));
        assert!(!read.is_done(), "the kernel still writes to its buffer");
        assert!(read.next_piece(Key::default()).is_none());
        let bytes = bytes(&second);
        assert!(!read.advance(&mut second, Ok(bytes)));
        assert!(read.is_done());
        let (_, Completion::Read(Err(e))) = read.completion() else { panic!("it failed") };
        assert_eq!(e.raw_os_error(), Some(libc::EIO));
    }
}

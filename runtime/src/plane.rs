//! The interface between a shard and the machine.
//!
//! ```text
//!            on_accept  on_connected  on_recv  on_bulk  on_sent  on_closed  on_disk  on_message  on_migrated  on_timer  on_turn_end
//!               |            |          |        |        |         |         |         |            |           |         |
//!   ShardApp  --+------------+----------+--------+--------+---------+---------+---------+------------+-----------+---------+--
//!               |                                                                                                          |
//!   Plane       +-- connect send stream recv_into pause resume close migrate | write read sync file_job | post | set_timer
//! ```
//!
//! Rules for every plane:
//! 1. No `on_*` method is called from inside a method of the plane: results always arrive in a later call.
//! 2. Every disk operation and file job completes with exactly one `on_disk` call with its token. Operations may complete in any
//!    order.
//! 3. A buffer passed to an operation belongs to the plane until the operation completes. A buffer being written is never changed
//!    (it is [`Bytes`], so it cannot be).
//! 4. Sends of a connection leave in the order in which they were queued, and completely, even if the kernel splits them.
//! 5. After `on_closed` a connection id is invalid; it is never reused on this shard. Calls with a closed connection are ignored.
//! 6. Every [`Net::connect`] has exactly one outcome, an `on_connected` with its token, unless the shard exits first. If it failed, the
//!    connection id is invalid and there is no `on_closed`; otherwise the connection ends like an accepted one. Before `on_connected`,
//!    only [`Net::close`] may be called with the id.
//! 7. Messages from one shard to another arrive in the order in which they were posted, and none is lost.
//! 8. `on_turn_end` is called after every group of calls, before the plane sleeps.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::buf::AlignedBuf;
use crate::fs::{FileId, Fs};

/// A connection of this shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// The listening socket that accepted a connection: an index into the list that the shards were started with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub u16);

/// The addresses of a connection's two endpoints. Both are canonical: no IPv4 address is mapped into IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Endpoints {
    /// The address of the other side.
    pub(crate) peer: SocketAddr,
    /// The address of this side: of an accepted connection, the one that the client connected to.
    pub(crate) local: SocketAddr,
}

impl Endpoints {
    /// Converts addresses from the kernel.
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| match address.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
            // Unchanged: a link-local address has a scope.
            IpAddr::V6(_) => address,
        };
        Self { peer: canonical(peer), local: canonical(local) }
    }
}

/// Number of a shard within the broker, from 0.
pub type ShardIndex = u16;

/// Identifies an operation: chosen by the caller and returned with its result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Time since the plane started, in nanoseconds. Monotonic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(pub u64);

impl Instant {
    /// Returns the instant `d` later.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Returns the time since `earlier`, or zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// When a write completes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// When it was handed to the device; a [`Disk::sync`] that starts later makes it durable.
    Volatile,
    /// When it is on stable storage (RWF_DSYNC).
    Durable,
}

/// Result of a disk operation. The variant corresponds to the request.
#[derive(Debug)]
pub enum Completion {
    /// A write: everything was written, or an error. Short writes are not reported.
    Write(std::io::Result<()>),
    /// A read: the buffer and the number of bytes filled, fewer than requested only at the end of the file.
    Read(std::io::Result<(AlignedBuf, usize)>),
    /// A sync.
    Sync(std::io::Result<()>),
    /// A [`FileJob::Create`]: the new file, open.
    Created(std::io::Result<FileId>),
    /// A [`FileJob::Replace`]: the new file, open. The [`FileId`] of the replaced file stays valid until it is closed.
    Replaced(std::io::Result<FileId>),
    /// A [`FileJob::Prepare`]: the new file, open.
    Prepared(std::io::Result<FileId>),
    /// A [`FileJob::Publish`]. The [`FileId`]s of the file and of the one that it replaced stay valid until they are closed.
    Published(std::io::Result<()>),
    /// A [`FileJob::Remove`].
    Removed(std::io::Result<()>),
    /// A [`FileJob::PunchHeads`] or a [`FileJob::Punch`].
    Punched(std::io::Result<()>),
    /// A [`FileJob::Allocate`].
    Allocated(std::io::Result<()>),
}

/// Slow work on file names and on the space of files, which runs outside the shard's thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileJob {
    /// Creates a file of this size: under a temporary name, allocated, synced, renamed, and its directory synced. Its content reads
    /// as zero bytes. Fails with `AlreadyExists` if the name is taken.
    Create {
        /// Final path.
        path: PathBuf,
        /// Size in bytes.
        bytes: u64,
    },
    /// Creates a file with this content, padded with zero bytes to `bytes`, that atomically replaces any file with the same name:
    /// temporary name, write, sync, rename, directory sync. All of it is actually written, so later writes go to written space. If
    /// the disk is full, the space of the file [`RESERVE_NAME`](crate::fs::RESERVE_NAME) in the same directory is used.
    Replace {
        /// Final path.
        path: PathBuf,
        /// Content at the start of the file: these pieces in order, so that a large one needs no buffer of its size.
        content: Vec<Bytes>,
        /// Size in bytes.
        bytes: u64,
    },
    /// The first part of a [`Replace`](Self::Replace): creates the file under its temporary name, writes and syncs it. It can be written
    /// to like any other; a start after a crash removes it.
    Prepare {
        /// Final path.
        path: PathBuf,
        /// Content at the start of the file.
        content: Vec<Bytes>,
        /// Size in bytes.
        bytes: u64,
    },
    /// The second part: gives a file that was prepared its final name, atomically in the place of any file with that name, and syncs the
    /// directory.
    Publish {
        /// Final path.
        path: PathBuf,
    },
    /// Removes a file's name, and frees its space once it is not open any more; syncs the directory. Succeeds if the file does not
    /// exist.
    Remove {
        /// Path.
        path: PathBuf,
    },
    /// Returns the first `head_bytes` of each `every` bytes of a range to the file system, durably. A crash before it has completed leaves each of
    /// these heads as a whole, or nothing of it: file systems journal such a change. The same rules apply as for a [`Punch`](Self::Punch).
    PunchHeads {
        /// Path of the file.
        path: PathBuf,
        /// First byte, a multiple of 4096.
        at: u64,
        /// Length in bytes, a multiple of 4096.
        bytes: u64,
        /// Distance of the heads, a multiple of 4096.
        every: u64,
        /// Length of each, a multiple of 4096.
        head_bytes: u64,
    },
    /// Returns a range of a file to the file system (`FALLOC_FL_PUNCH_HOLE`). The size of the file stays, and the range reads as zero bytes.
    /// This is not durable before a [`Disk::sync`] that starts later: until then a crash may bring back any page of the range. No write of
    /// the range may be in flight, and none may start before the range was allocated again.
    Punch {
        /// Path of the file.
        path: PathBuf,
        /// First byte, a multiple of 4096.
        at: u64,
        /// Length in bytes, a multiple of 4096.
        bytes: u64,
    },
    /// Allocates the pages of a range that are holes, durably. They read as zero bytes; the others keep their content.
    Allocate {
        /// Path of the file.
        path: PathBuf,
        /// First byte, a multiple of 4096.
        at: u64,
        /// Length in bytes, a multiple of 4096.
        bytes: u64,
    },
}

/// Disk I/O. Offsets, lengths and addresses are multiples of 4096, because the files are opened for direct I/O.
pub trait Disk: Fs {
    /// Writes all of `data`, at most [`WRITE_BYTES_MAX`] bytes.
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token);
    /// Fills `buf` from file position `at`. The plane reads it in pieces and few of them at a time, so that writes do not wait behind megabytes of
    /// reads; the application bounds the memory of the reads that it starts.
    fn read(&mut self, file: FileId, at: u64, buf: AlignedBuf, token: Token);
    /// Makes durable every write of this file that has completed (fdatasync).
    fn sync(&mut self, file: FileId, token: Token);
    /// Starts a file job.
    fn file_job(&mut self, job: FileJob, token: Token);
}

/// Maximum size of a disk write, in bytes.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// Sends up to this size are copied; larger ones are held until all their bytes have been sent.
pub const SEND_COPY_BYTES_MAX: usize = 512;

/// Messages that may wait for one shard on the posting side. See [`Plane::post`].
pub const BACKLOG_MAX: usize = 1 << 20;

/// How to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// After everything queued has been sent.
    AfterSends,
    /// Immediately.
    Now,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it. Queued data was sent, if the peer still accepted it.
    Peer,
    /// This side closed it.
    Local,
    /// It failed.
    Error(String),
}

/// Maximum number of outgoing connections of one shard, with those that are not connected yet.
pub const OUTGOING_CONNECTIONS_MAX: usize = 4096;

/// Maximum time that a [`Net::connect`] may take.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// An outgoing connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot connect to {to}: {why}")]
pub struct ConnectError {
    /// The address.
    pub to: SocketAddr,
    /// What happened.
    pub why: ConnectFailure,
}

/// Why an outgoing connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// Nothing accepts connections at this address.
    #[error("connection refused; nothing listens there")]
    Refused,
    /// There is no route to the host or network, or this machine has no address of that family.
    #[error("unreachable ({0})")]
    Unreachable(String),
    /// Nothing answered within this time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// This side closed the connection first.
    #[error("closed before it was connected")]
    Closed,
    /// The shard has [`OUTGOING_CONNECTIONS_MAX`] outgoing connections.
    #[error("this shard has reached its limit of {} outgoing connections", OUTGOING_CONNECTIONS_MAX)]
    LimitReached,
    /// The process or the machine is out of file descriptors.
    #[error("out of file descriptors ({0}); raise `ulimit -n` (LimitNOFILE=)")]
    OutOfFiles(String),
    /// Another error of the operating system.
    #[error("{0}")]
    Failed(String),
}

/// The shard's connections.
///
/// An accepted connection is in *hello mode*: one receive at a time, of at most 4 KiB, so that it can still
/// [`migrate`](Plane::migrate). After [`stream`](Net::stream) the plane receives ahead. An outgoing connection has no hello mode, because
/// the shard that needs it opens it: it receives ahead from the start, and cannot migrate.
pub trait Net {
    /// Opens a connection to an address (TCP, without delay, closed when the process executes another program). `on_connected` reports
    /// the outcome with this token, after `within` at the latest, or [`CONNECT_TIME_MAX`] if that is shorter.
    fn connect(&mut self, to: SocketAddr, within: Duration, token: Token) -> ConnId;
    /// Queues bytes after those already queued. The plane coalesces sends; `on_sent` reports when bytes have been sent.
    fn send(&mut self, conn: ConnId, data: Bytes);
    /// Returns the address of this side. Of an accepted connection it is the address that the client connected to, even if the listener
    /// accepts connections to any address; for IPv4 clients of an IPv6 listener it is an IPv4 address. Returns `None` once the
    /// connection is closed, and while it is not connected yet.
    fn local_addr(&self, conn: ConnId) -> Option<SocketAddr>;
    /// Returns the bytes that are queued and not yet taken by the kernel.
    fn send_queue_bytes(&self, conn: ConnId) -> usize;
    /// Ends hello mode. Without effect on an outgoing connection.
    fn stream(&mut self, conn: ConnId);
    /// Receives the next bytes of this connection, after those passed to `on_recv`, directly into `buf`, from its byte `filled` up
    /// to its byte `end`. Then `on_bulk` returns the buffer, and `on_recv` continues. (Buffers are whole pages but messages are
    /// not: the bytes from `end` on are not touched.)
    ///
    /// Must be called from `on_recv` or `on_bulk` of this connection, after all bytes passed to it have been consumed.
    fn recv_into(&mut self, conn: ConnId, buf: AlignedBuf, filled: usize, end: usize);
    /// Stops receiving. Bytes already received may still be passed to `on_recv`.
    fn pause(&mut self, conn: ConnId);
    /// Resumes receiving.
    fn resume(&mut self, conn: ConnId);
    /// Closes a connection: `on_closed` follows, and no other event. [`Close::Now`] also ends a close after sends that takes too
    /// long (the plane itself gives up after half a minute). If the connection is not connected yet, `on_connected` follows instead,
    /// with [`ConnectFailure::Closed`].
    fn close(&mut self, conn: ConnId, how: Close);
    /// Stops accepting connections.
    fn stop_accepting(&mut self);
}

/// A shard's interface to the machine. `M` is the type of messages between shards.
pub trait Plane<M>: Disk + Net {
    /// Returns the index of this shard.
    fn shard(&self) -> ShardIndex;
    /// Returns the number of shards.
    fn shards(&self) -> u16;
    /// Returns the time at the start of this turn.
    fn now(&self) -> Instant;
    /// Returns the time that the longest turn of this shard took so far, with that during which its thread had no core. It is for statistics; in
    /// simulation, turns take none.
    fn longest_turn(&self) -> Duration;
    /// Returns milliseconds since the Unix epoch, for timestamps of records. May jump.
    fn wall_clock_ms(&self) -> i64;
    /// Returns a random number; in simulation it depends on the seed.
    fn random_u64(&mut self) -> u64;
    /// Sends a message to another shard, or to this one.
    ///
    /// The plane queues messages that the receiver has no space for. An application that posts for clients checks
    /// [`backlog`](Self::backlog) before it starts a request, and starts none while the backlog is long. More than [`BACKLOG_MAX`]
    /// messages waiting for one shard are a bug of the application.
    fn post(&mut self, to: ShardIndex, message: M);
    /// Returns the number of messages posted by this shard that wait for space in another shard's queue or for a later turn of this
    /// shard. When messages for other shards have found space, `on_turn_end` is called again.
    fn backlog(&self) -> usize;
    /// Calls `on_timer` with this token once, at this time or soon after. Timers that are due fire in the order of their times.
    fn set_timer(&mut self, at: Instant, token: Token);
    /// Moves an accepted connection in hello mode to another shard together with `payload`; it appears there in `on_migrated`. Must be called
    /// from `on_recv` of that connection. Its id is invalid afterwards, without an `on_closed`.
    ///
    /// `unread` are bytes that were received but not consumed: the new owner receives them first. Queued sends leave before the
    /// connection moves, without an `on_sent`.
    fn migrate(&mut self, conn: ConnId, to: ShardIndex, payload: M, unread: Bytes);
    /// Ends this shard's loop after this turn. Other shards continue until they exit too.
    fn exit(&mut self);
    /// Logs why the process cannot continue, and ends it with this exit code, without unwinding or flushing. In simulation, the
    /// node dies.
    fn fatal(&mut self, exit_code: u8, why: String);
}

/// A shard's application: the broker, or a test.
pub trait ShardApp: Sized {
    /// Message between shards.
    type Message: Send + 'static;

    /// A connection was accepted.
    fn on_accept(
        &mut self,
        plane: &mut dyn Plane<Self::Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    );
    /// An outgoing connection is open, or could not be made. See [`Net::connect`].
    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<Self::Message>,
        conn: ConnId,
        token: Token,
        outcome: Result<(), ConnectError>,
    );
    /// Bytes were received. They are valid only during the call.
    fn on_recv(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, data: &[u8]);
    /// The buffer of a [`Net::recv_into`] was filled up to `end`.
    fn on_bulk(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, buf: AlignedBuf);
    /// The kernel has taken `bytes` more bytes.
    fn on_sent(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, bytes: usize);
    /// A connection was closed.
    fn on_closed(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, reason: CloseReason);
    /// A disk operation or file job completed.
    fn on_disk(&mut self, plane: &mut dyn Plane<Self::Message>, token: Token, completion: Completion);
    /// A message from another shard.
    fn on_message(&mut self, plane: &mut dyn Plane<Self::Message>, from: ShardIndex, message: Self::Message);
    /// A connection moved here from another shard. It is in hello mode.
    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<Self::Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
        payload: Self::Message,
    );
    /// A timer fired.
    fn on_timer(&mut self, plane: &mut dyn Plane<Self::Message>, token: Token);
    /// The broker was asked to stop (SIGTERM, SIGINT, or the embedding program). Called once; the shard ends with [`Plane::exit`].
    fn on_shutdown(&mut self, plane: &mut dyn Plane<Self::Message>);
    /// All events of this turn have been delivered. The place to start a commit round.
    fn on_turn_end(&mut self, plane: &mut dyn Plane<Self::Message>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_has_ipv4_addresses() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal");
        let ends = Endpoints::new(address("[::ffff:10.0.0.9]:4000"), address("[::ffff:10.0.0.1]:9092"));
        assert_eq!(ends, Endpoints { peer: address("10.0.0.9:4000"), local: address("10.0.0.1:9092") });
        let (peer, local) = (address("[fe80::9%3]:4000"), address("[::1]:9092"));
        assert_eq!(Endpoints::new(peer, local), Endpoints { peer, local });
    }
}

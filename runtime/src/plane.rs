//! The seam between a shard and the machine.
//!
//! ```text
//!            on_accept  on_recv  on_bulk  on_sent  on_closed  on_disk  on_message  on_migrated  on_timer  on_turn_end
//!               |          |        |        |         |         |         |            |           |         |
//!   ShardApp  --+----------+--------+--------+---------+---------+---------+------------+-----------+---------+--
//!               |                                                                                             |
//!   Plane       +-- send stream recv_into pause resume close migrate | write read sync file_job | post | set_timer
//! ```
//!
//! Rules that every plane keeps:
//! 1. No `on_*` method is called from inside a method of the plane: results always arrive in a later call.
//! 2. Every disk operation and file job is answered by exactly one `on_disk` with its token. Operations may complete in any order.
//! 3. A buffer handed to an operation belongs to the plane until its answer; a written buffer is never changed meanwhile
//!    (it is [`Bytes`], so it cannot be).
//! 4. Sends of a connection leave in the order they were queued, whole, whatever partial sends the kernel makes of them.
//! 5. After `on_closed` a connection number means nothing; it is never given to another connection of this shard. Calls that name a
//!    closed connection are ignored.
//! 6. Messages from one shard to another arrive in the order they were posted, none lost.
//! 7. `on_turn_end` is called after every group of calls, before the plane sleeps.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::buf::AlignedBuf;
use crate::fs::Fs;

/// A connection of this shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Which of the listening sockets a connection came in by: an index into the list that the shards were started with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub u16);

/// The addresses of a connection's two ends. Both are canonical: no IPv4 address is mapped into IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ends {
    /// Where the client is.
    pub(crate) peer: SocketAddr,
    /// What the client has connected to.
    pub(crate) local: SocketAddr,
}

impl Ends {
    /// Ends as the kernel knows them.
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| match address.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
            // As it came: a link-local address has a scope.
            IpAddr::V6(_) => address,
        };
        Self { peer: canonical(peer), local: canonical(local) }
    }
}

/// An open file of this shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

/// A core's number within the broker, from 0.
pub type ShardIndex = u16;

/// Names an operation: chosen by whoever starts it, given back with its result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Time since the plane started. Never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(pub u64);

impl Instant {
    /// The moment this much later.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// How long a write has to last before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// Handed to the device; a [`Disk::sync`] that starts later makes it durable.
    Volatile,
    /// On stable storage (RWF_DSYNC).
    Durable,
}

/// What came of a disk operation. The variant follows from what was asked.
#[derive(Debug)]
pub enum Completion {
    /// A write: everything was written, or why not. Short writes never surface.
    Write(std::io::Result<()>),
    /// A read: the buffer, of which this many bytes were filled (fewer than asked only at the end of the file).
    Read(std::io::Result<(AlignedBuf, usize)>),
    /// A sync.
    Sync(std::io::Result<()>),
    /// A [`FileJob::Create`]: the new file, open.
    Created(std::io::Result<FileId>),
    /// A [`FileJob::Replace`]: the new file, open. The [`FileId`] of the file it replaced stays valid until closed.
    Replaced(std::io::Result<FileId>),
    /// A [`FileJob::Remove`].
    Removed(std::io::Result<()>),
}

/// Slow work on names, done beside the shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileJob {
    /// A new file of this size: made under a temporary name, allocated, synced, renamed, its directory synced.
    /// Its content reads as zero bytes. Fails with `AlreadyExists` rather than touch a file of that name.
    Create {
        /// Its final path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file with this content, padded with zero bytes to `bytes`, that takes the place of any file of that name in one step:
    /// temporary name, write, sync, rename, directory sync. All of it is really written, so later writes land in written space.
    /// If the disk is full, the space of the file [`RESERVE_NAME`](crate::fs::RESERVE_NAME) in the same directory is used up for it.
    Replace {
        /// Its final path.
        path: PathBuf,
        /// How it begins.
        content: Bytes,
        /// Its size.
        bytes: u64,
    },
    /// Takes a file's name away, and its space once nobody has it open; its directory synced. No error if it is not there.
    Remove {
        /// Its path.
        path: PathBuf,
    },
}

/// The log's way to the disk. Offsets, lengths and addresses are multiples of 4096: these files are opened for direct I/O.
pub trait Disk: Fs {
    /// Writes all of `data`, at most [`WRITE_BYTES_MAX`] of it.
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token);
    /// Fills `buf`, all of its capacity, from `at` on.
    fn read(&mut self, file: FileId, at: u64, buf: AlignedBuf, token: Token);
    /// Makes every write of this file that was answered before durable (fdatasync).
    fn sync(&mut self, file: FileId, token: Token);
    /// Starts slow work on names.
    fn file_job(&mut self, job: FileJob, token: Token);
}

/// Bytes of one disk write at most.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// Sends up to this size are copied; what is larger stays in use until all of it has left.
pub const SEND_COPY_BYTES_MAX: usize = 512;

/// Messages that may wait for one shard, where they were posted. See [`Plane::post`].
pub const BACKLOG_MAX: usize = 1 << 20;

/// How to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// After everything queued has been sent.
    AfterSends,
    /// At once.
    Now,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClosedBecause {
    /// The other side closed it. What was queued has been sent, if that side still took it.
    Peer,
    /// This side asked for it.
    Local,
    /// It broke.
    Error(String),
}

/// The shard's connections.
///
/// A new connection is in *hello mode*: one receive at a time, of at most 4 KiB, so that it can still [`migrate`](Plane::migrate). After
/// [`stream`](Net::stream) the plane receives ahead.
pub trait Net {
    /// Queues bytes to be sent behind what is queued already. The plane coalesces; `on_sent` tells when they have left.
    fn send(&mut self, conn: ConnId, data: Bytes);
    /// The address that the connection was made to: on a listener for all addresses of the machine, the one its client used.
    /// IPv4 clients of an IPv6 listener have connected to an IPv4 address. None once the connection is gone.
    fn local_addr(&self, conn: ConnId) -> Option<SocketAddr>;
    /// Bytes queued and not yet taken by the kernel.
    fn send_queue_bytes(&self, conn: ConnId) -> usize;
    /// Ends hello mode.
    fn stream(&mut self, conn: ConnId);
    /// Bulk: the next bytes of this connection, those behind what `on_recv` has been given, are received straight into `buf`
    /// from its byte `filled` up to its byte `end`. Then `on_bulk` gives it back, and then `on_recv` goes on. (Buffers are
    /// whole pages, messages are not: the bytes from `end` on are not touched.)
    /// To be called from `on_recv` or `on_bulk` of this connection only, after all bytes given there have been used.
    fn recv_into(&mut self, conn: ConnId, buf: AlignedBuf, filled: usize, end: usize);
    /// Stops receiving. What was received already may still be given to `on_recv`.
    fn pause(&mut self, conn: ConnId);
    /// Goes on receiving.
    fn resume(&mut self, conn: ConnId);
    /// Ends a connection: `on_closed` follows, and nothing else is told of it. [`Close::Now`] also ends a close after sends that takes too
    /// long (the plane itself gives that up after half a minute).
    fn close(&mut self, conn: ConnId, how: Close);
    /// Stops accepting connections.
    fn stop_accepting(&mut self);
}

/// Everything a shard sees of the machine. `M` is what shards send each other.
pub trait Plane<M>: Disk + Net {
    /// Which shard this is.
    fn shard(&self) -> ShardIndex;
    /// How many shards there are.
    fn shards(&self) -> u16;
    /// The time, as of the start of this turn.
    fn now(&self) -> Instant;
    /// Milliseconds since the Unix epoch, for the timestamps of records. May jump.
    fn wall_clock_ms(&self) -> i64;
    /// A random number; in simulation, of the seed.
    fn random_u64(&mut self) -> u64;
    /// Sends a message to another shard, or to this one.
    ///
    /// The plane keeps what there is no room for. Whoever posts on behalf of clients looks at [`backlog`](Self::backlog) before taking up a
    /// request and takes up none while it is long; more than [`BACKLOG_MAX`] messages that wait for one shard are a bug of the application.
    fn post(&mut self, to: ShardIndex, message: M);
    /// Messages that were posted here and wait: for room in another shard's queue, or for a later turn of this shard. `on_turn_end` is called
    /// again when some of those for other shards have found room.
    fn backlog(&self) -> usize;
    /// Calls `on_timer` with this token at that time or soon after, once. Those that are due are called in the order of their times.
    fn set_timer(&mut self, at: Instant, token: Token);
    /// Moves a connection that is in hello mode, and with it `baggage`, to another shard, where it appears in `on_migrated`.
    /// To be called from `on_recv` of that connection only; its number is void afterwards, without `on_closed`.
    /// `unread` are bytes that were received but not used: the new owner is given them first.
    /// What is queued to be sent leaves before the connection moves; `on_sent` tells nobody of it.
    fn migrate(&mut self, conn: ConnId, to: ShardIndex, baggage: M, unread: Bytes);
    /// Ends this shard's loop after this turn. The others go on until they do the same.
    fn exit(&mut self);
    /// The process cannot go on: says why and ends it with this code, without unwinding, flushing or hoping. In simulation, the node dies.
    fn fatal(&mut self, exit_code: u8, why: String);
}

/// A shard's application: the broker, or a test.
pub trait ShardApp: Sized {
    /// What shards send each other.
    type Message: Send + 'static;

    /// A connection has come in.
    fn on_accept(
        &mut self,
        plane: &mut dyn Plane<Self::Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    );
    /// Bytes have come in. They are valid during the call only.
    fn on_recv(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, data: &[u8]);
    /// The buffer of [`Net::recv_into`] holds its `end - filled` bytes.
    fn on_bulk(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, buf: AlignedBuf);
    /// This many more bytes have been taken by the kernel.
    fn on_sent(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, bytes: usize);
    /// A connection is gone.
    fn on_closed(&mut self, plane: &mut dyn Plane<Self::Message>, conn: ConnId, because: ClosedBecause);
    /// A disk operation or file job is done.
    fn on_disk(&mut self, plane: &mut dyn Plane<Self::Message>, token: Token, completion: Completion);
    /// A message of another shard.
    fn on_message(&mut self, plane: &mut dyn Plane<Self::Message>, from: ShardIndex, message: Self::Message);
    /// A connection has moved here from another shard. It is in hello mode.
    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<Self::Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
        baggage: Self::Message,
    );
    /// A timer is due.
    fn on_timer(&mut self, plane: &mut dyn Plane<Self::Message>, token: Token);
    /// The broker was asked to stop (SIGTERM, SIGINT, or the embedding program). Called once; end with [`Plane::exit`].
    fn on_shutdown(&mut self, plane: &mut dyn Plane<Self::Message>);
    /// Everything that had happened has been told. The place to start a commit round.
    fn on_turn_end(&mut self, plane: &mut dyn Plane<Self::Message>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_has_ipv4_addresses() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal");
        let ends = Ends::new(address("[::ffff:10.0.0.9]:4000"), address("[::ffff:10.0.0.1]:9092"));
        assert_eq!(ends, Ends { peer: address("10.0.0.9:4000"), local: address("10.0.0.1:9092") });
        let (peer, local) = (address("[fe80::9%3]:4000"), address("[::1]:9092"));
        assert_eq!(Ends::new(peer, local), Ends { peer, local });
    }
}

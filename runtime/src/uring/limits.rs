//! Limits of the io_uring plane, in one place. Each name contains the unit.

use std::time::Duration;

use crate::buf::PAGE_BYTES;
use crate::plane::{OUTGOING_CONNECTIONS_MAX, SEND_COPY_BYTES_MAX};

/// Completions dispatched in one turn, so that no kind of event is delayed for long by another.
pub(crate) const TURN_COMPLETIONS_MAX: usize = 256;

/// Messages taken from each other shard in one turn.
pub(crate) const TURN_MESSAGES_MAX: usize = 256;

/// Timers fired in one turn.
pub(crate) const TURN_TIMERS_MAX: usize = 256;

/// Completion queue entries per submission queue entry: multishot operations complete many times.
pub(crate) const COMPLETIONS_PER_SUBMISSION: u32 = 4;

/// Accepted connections of one shard. The user data of an operation has space for 2^28.
pub(crate) const CONNECTIONS_MAX: usize = 1 << 20;

/// Bytes of one receive in hello mode.
pub(crate) const HELLO_RECV_BYTES_MAX: u32 = 4096;

/// Provided receive buffers of a shard. A power of two.
pub(crate) const RECV_BUFFERS: u16 = 128;

/// Bytes of each provided receive buffer: enough for hundreds of small messages in one completion.
pub(crate) const RECV_BUFFER_BYTES: usize = 16 << 10;

/// Bytes of the receive that looks for the next header after a bulk. Bytes of the next bulk in it are copied, so it is small; it
/// can hold the header and prefix of any message.
pub(crate) const PROBE_RECV_BYTES: u32 = 512;

/// Consecutive probes without a bulk after which a connection receives ahead again.
pub(crate) const PROBES_MAX: u8 = 4;

/// A bulk with at most this many bytes missing is completed by copying from receive-ahead buffers, because cancelling the multishot
/// receive would cost more.
pub(crate) const BULK_COPY_BYTES_MAX: usize = 16 << 10;

/// Chunks of one send.
pub(crate) const SEND_CHUNKS_MAX: usize = 64;

/// Bytes of a chunk that small sends are copied into.
pub(crate) const SEND_STAGE_BYTES: usize = 8 << 10;

/// How long a connection that is being closed, or whose peer has finished, may take to accept what is queued for it.
pub(crate) const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a closed connection waits for the peer to close, discarding data that still arrives. Closing with unread bytes would
/// reset the connection and could destroy the last reply in transit.
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// TCP keepalive: idle time before the first probe, interval between probes, and probes without a reply before the connection is
/// dropped.
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE_PROBES: u32 = 6;

/// Pause before accepting again after the process ran out of file descriptors or memory.
pub(crate) const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Writes and syncs of one shard in flight; more are queued in order.
pub(crate) const DISK_OPS_IN_FLIGHT_MAX: usize = 1024;

/// Bytes of the sends of a turn from which on what it has for the disk is submitted before them. Copying as much takes ten times as long as a system
/// call.
pub(crate) const LARGE_SENDS_BYTES: usize = 64 << 10;

/// Bytes of a read that are submitted to the disk at once.
pub(crate) const READ_PIECE_BYTES: usize = 256 << 10;

/// Pieces of reads that are at the disk beside writes.
pub(crate) const READ_PIECES_BESIDE_WRITES: usize = 2;

/// Pieces of reads that are at the disk of a shard that does not write.
pub(crate) const READ_PIECES_MAX: usize = 8;

/// Pieces that are read without any write before one more may be at the disk: as many as a large read has.
pub(crate) const READ_PIECES_PER_STEP: usize = 4;

/// Disk operations of one shard that are queued, and timers. More indicate a bug of the application.
pub(crate) const WAITING_MAX: usize = 1 << 20;

/// Messages in the queue from one shard to another.
pub(crate) const MESH_QUEUE_MESSAGES: usize = 1024;

/// How long a shard that ends waits for others to take its last messages.
pub(crate) const MESH_DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a shard that ends waits for its cancelled operations.
pub(crate) const CANCEL_TIME_MAX: Duration = Duration::from_secs(10);

const _: () = {
    assert!(READ_PIECE_BYTES.is_multiple_of(PAGE_BYTES) && READ_PIECES_BESIDE_WRITES <= READ_PIECES_MAX);
    assert!(RECV_BUFFERS.is_power_of_two());
    assert!(CONNECTIONS_MAX + OUTGOING_CONNECTIONS_MAX <= 1 << 28);
    assert!(HELLO_RECV_BYTES_MAX as usize <= RECV_BUFFER_BYTES);
    assert!(PROBE_RECV_BYTES as usize <= RECV_BUFFER_BYTES);
    assert!(SEND_COPY_BYTES_MAX <= SEND_STAGE_BYTES);
    assert!(MESH_QUEUE_MESSAGES.is_power_of_two());
};

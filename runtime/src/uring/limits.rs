//! Every limit of the io_uring plane, in one place, each with its unit in its name.

use std::time::Duration;

use crate::plane::SEND_COPY_BYTES_MAX;

/// Completions dispatched in one turn, so that no kind of event waits long for another.
pub(crate) const TURN_COMPLETIONS_MAX: usize = 256;

/// Messages taken from one other shard in one turn.
pub(crate) const TURN_MESSAGES_MAX: usize = 256;

/// Timers fired in one turn.
pub(crate) const TURN_TIMERS_MAX: usize = 256;

/// Completion queue entries for each submission queue entry: multishot operations complete many times.
pub(crate) const COMPLETIONS_PER_SUBMISSION: u32 = 4;

/// Connections of one shard. The number of a connection in a ring's user data has room for 2^28.
pub(crate) const CONNECTIONS_MAX: usize = 1 << 20;

/// Bytes of one receive in hello mode.
pub(crate) const HELLO_RECV_BYTES_MAX: u32 = 4096;

/// Provided receive buffers of a shard. A power of two.
pub(crate) const RECV_BUFFERS: u16 = 128;

/// Bytes of each provided receive buffer: enough for hundreds of small frames in one completion.
pub(crate) const RECV_BUFFER_BYTES: usize = 16 << 10;

/// Bytes of the receive that looks for the next header after a bulk. What of it belongs to the next bulk is copied, so it is
/// small; it holds the header and prefix of any message.
pub(crate) const PROBE_RECV_BYTES: u32 = 512;

/// Probes in a row without a bulk after which a connection goes back to receiving ahead.
pub(crate) const PROBES_MAX: u8 = 4;

/// A bulk with at most this many bytes missing is completed by copying from the receive-ahead buffers: cancelling the
/// multishot receive would cost more.
pub(crate) const BULK_COPY_BYTES_MAX: usize = 16 << 10;

/// Pieces of one send.
pub(crate) const SEND_PIECES_MAX: usize = 64;

/// Bytes of a piece that small sends are copied into.
pub(crate) const SEND_STAGE_BYTES: usize = 8 << 10;

/// How long a connection that is being closed, or whose other side has finished, may take to accept what is queued for it.
pub(crate) const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a closed connection waits for the other side's end, discarding what still comes. Closing with unread bytes would
/// reset the connection and could destroy the last reply on its way.
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// Silence after which the other side is asked whether it is still there, how often, and how many answers may be missing.
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE_PROBES: u32 = 6;

/// Pause before accepting again after the process ran out of file descriptors.
pub(crate) const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Disk operations of one shard in the kernel; more wait in order.
pub(crate) const DISK_OPS_IN_FLIGHT_MAX: usize = 1024;

/// Disk operations of one shard that wait for their turn, and timers. More means that the application has lost count: our bug.
pub(crate) const WAITING_MAX: usize = 1 << 20;

/// Messages on their way from one shard to another.
pub(crate) const MESH_QUEUE_MESSAGES: usize = 1024;

/// How long a shard that ends waits for others to take its last messages.
pub(crate) const MESH_DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a shard that ends waits for its cancelled operations.
pub(crate) const CANCEL_TIME_MAX: Duration = Duration::from_secs(10);

const _: () = {
    assert!(RECV_BUFFERS.is_power_of_two());
    assert!(CONNECTIONS_MAX <= 1 << 28);
    assert!(HELLO_RECV_BYTES_MAX as usize <= RECV_BUFFER_BYTES);
    assert!(PROBE_RECV_BYTES as usize <= RECV_BUFFER_BYTES);
    assert!(SEND_COPY_BYTES_MAX <= SEND_STAGE_BYTES);
    assert!(MESH_QUEUE_MESSAGES.is_power_of_two());
};

//! Limits of peer channels, in one place.

use std::time::Duration;

use highwater_protocol::frame::{FRAME_HEADER_BYTES, frame_bytes};
use highwater_protocol::limits::{BATCH_BYTES_MAX, BULK_BYTES_MIN};

use crate::raft::REPLICAS_MAX;

/// Oldest version of the protocol that this build speaks.
pub const VERSION_MIN: u16 = 1;

/// Newest version of the protocol that this build speaks.
pub const VERSION_MAX: u16 = 1;

/// Bytes of the body of a hello or of its reply, in any version: a hello fits into the receives of a connection that can still move to another shard.
pub const HELLO_BODY_BYTES_MAX: usize = 2 << 10;

/// Bytes of the body of a request to join or of its reply. Such a connection does not move to another shard, so it need not fit into one receive.
pub const JOIN_BODY_BYTES_MAX: usize = 32 << 10;

/// Bytes of the body of any other message. Senders begin another message before that.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Bytes at which a sender ends a message. What follows goes into another one.
pub const BODY_BYTES_FULL: usize = 256 << 10;

/// Bytes of one entry of a message.
pub(crate) const ENTRY_BYTES_MAX: usize = 512 << 10;

const _: () = assert!(
    BODY_BYTES_FULL + ENTRY_BYTES_MAX <= BODY_BYTES_MAX,
    "an entry fits into a message that is not full"
);

/// Runs of one append. An append of two turns of [`READ_BYTES_MAX`] has fewer frames; a single larger frame has one.
pub const RUNS_PER_APPEND_MAX: usize = 32 << 10;

const _: () =
    assert!(2 * READ_BYTES_MAX / FRAME_HEADER_BYTES <= RUNS_PER_APPEND_MAX, "every frame may begin a run");
const _: () = assert!(RUNS_PER_APPEND_MAX * 12 + 64 <= ENTRY_BYTES_MAX);

/// Members of a configuration in a message. A joint configuration has up to twice as many as others.
pub const MEMBERS_MAX: usize = 2 * REPLICAS_MAX;

/// Handles that one side of a channel may give away in a session. The channel is replaced by another one when they are used up.
pub const HANDLES_MAX: usize = 1 << 20;

/// Frames of one entry of a group, in bytes: one of the largest frames, or many small ones.
pub const ENTRY_FRAMES_BYTES_MAX: usize = frame_bytes(BATCH_BYTES_MAX);

/// Payload bytes from which on a frame is received into pages of its own.
pub const LARGE_FRAME_BYTES_MIN: usize = BULK_BYTES_MIN;

/// Bytes of small frames that are handed on in one piece.
pub(crate) const SMALL_FRAMES_BYTES: usize = 256 << 10;

/// Bytes that are received into lent pages at a time. While they are, the channel does not see that the peer is alive.
pub const LEND_BYTES_MAX: usize = 4 << 20;

/// Statements about leaders in one message.
pub const LEADERS_PER_MESSAGE_MAX: usize = 4 << 10;

/// Credit that a side grants by default, in bytes: frames that it has not yet taken into its logs.
pub const CREDIT_BYTES_DEFAULT: u64 = 16 << 20;

/// Credit that a side may grant, in bytes.
pub const CREDIT_BYTES_MAX: u64 = 1 << 30;

/// Frames of one partition that may be on their way or unacknowledged, in bytes. A replica that has more of them leaves the group.
pub const WINDOW_BYTES_MAX: usize = 4 << 20;

/// Sends of one partition that are counted one by one until they are acknowledged. More are counted together.
pub const WINDOW_SENDS_MAX: usize = 32;

/// Bytes that a lagging partition reads and sends when it is its turn.
pub const READ_BYTES_MAX: usize = 512 << 10;

/// Partitions of a channel that may read from disk at a time.
pub const READS_MAX: usize = 4;

/// Bytes that are queued to be sent, from which on no lagging partition gets a turn: those at the end would wait for them.
pub const SEND_QUEUE_BYTES_MAX: usize = 1 << 20;

/// Bytes of votes, acknowledgements and other messages without frames that wait to be sent. With more the channel is closed.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of the text in a goodbye.
pub const GOODBYE_TEXT_BYTES_MAX: usize = 200;

/// Time between two messages of a side that has nothing to say.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Silence of the peer after which it is lost, unless the owner sets another one: the election timeout.
pub const SILENCE_DEFAULT: Duration = Duration::from_millis(500);

/// Time from the beginning of a connection to the end of the handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(3);

/// Shortest time between two attempts to connect.
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);

/// Longest time between two attempts to connect.
pub const RECONNECT_MAX: Duration = Duration::from_secs(2);

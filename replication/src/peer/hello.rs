//! The handshake: who opens a channel, what the two sides say first, and whether they accept each other.
//!
//! The side with the smaller (node, shard) opens the connection and sends a [`Hello`], which names the shard that it wants. Any shard of the other node can
//! accept the connection, read the hello ([`Hello::take`]) and [judge](judge) it. It moves the connection to the shard that the hello names,
//! which answers. A refusal says why, in a form that the opener can act on and print.
//!
//! Both sides contribute a random number to the session, so neither can be given bytes of an earlier one: every message carries a tag of both.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use highwater_protocol::ids::{ClusterId, NodeId, ShardId};
use highwater_protocol::native::DecodeError;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::PeerError;
use super::header::{Kind, PEER_HEADER_BYTES, PeerHeader};
use super::limits::{HELLO_BODY_BYTES_MAX, VERSION_MAX, VERSION_MIN};

/// First bytes of the body of a hello and of its reply.
pub const HELLO_MAGIC: [u8; 8] = *b"HWPEER\r\n";

/// A shard of a node. The smaller one of two opens the channel between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerShard {
    /// The node.
    pub node: NodeId,
    /// Its shard.
    pub shard: ShardId,
}

impl PeerShard {
    /// Returns whether this shard opens the channel to `peer`. Exactly one of two shards of different nodes does.
    pub fn opens_to(self, peer: Self) -> bool {
        self.node != peer.node && self < peer
    }
}

/// This side of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// The cluster.
    pub cluster: ClusterId,
    /// This shard.
    pub me: PeerShard,
    /// Incarnation of the node's disk.
    pub incarnation: u32,
    /// Shards of this node.
    pub shards: u16,
    /// Random number of this process.
    pub process: u64,
}

/// The two random numbers of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Session {
    /// Chosen by the side that opened the connection.
    pub opener: u64,
    /// Chosen by the other side.
    pub acceptor: u64,
}

impl Session {
    /// The tag in every message of the session. Never 0, which is that of hellos.
    pub(crate) fn tag(self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.opener.to_le_bytes()), &self.acceptor.to_le_bytes()) | 1
    }
}

/// One attempt to open a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// Random number of the opener's process.
    pub process: u64,
    /// Increases with each attempt of this process to reach the same shard.
    pub number: u32,
}

impl Attempt {
    /// Returns whether a connection with this attempt replaces one with the `current` attempt. A connection that was delayed on its way does
    /// not replace a later one of the same process. Those of different processes are not ordered: the one that arrives last counts.
    pub fn replaces(self, current: Self) -> bool {
        self.process != current.process || self.number > current.number
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HelloBody {
    magic: [u8; 8],
    version_min: U16,
    version_max: U16,
    shard: U16,
    peer_shard: U16,
    cluster: [u8; 16],
    node: U32,
    peer_node: U32,
    incarnation: U32,
    attempt: U32,
    process: U64,
    session: U64,
}

const _: () = assert!(size_of::<HelloBody>() == 64);

/// The first message of a connection, from the side that opened it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Oldest version of the protocol that the sender speaks.
    pub version_min: u16,
    /// Newest version of the protocol that the sender speaks.
    pub version_max: u16,
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: PeerShard,
    /// Incarnation of the sender's disk.
    pub incarnation: u32,
    /// The shard that the sender wants to reach.
    pub to: PeerShard,
    /// Which attempt this is.
    pub attempt: Attempt,
    /// The sender's part of the session.
    pub session: u64,
}

impl Hello {
    /// Returns the hello of a shard that opens a connection.
    pub fn new(local: &Local, to: PeerShard, attempt: u32, session: u64) -> Self {
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster: local.cluster,
            from: local.me,
            incarnation: local.incarnation,
            to,
            attempt: Attempt { process: local.process, number: attempt },
            session,
        }
    }

    pub(crate) fn encode(&self) -> [u8; 64] {
        let body = HelloBody {
            magic: HELLO_MAGIC,
            version_min: U16::new(self.version_min),
            version_max: U16::new(self.version_max),
            shard: U16::new(self.from.shard.0),
            peer_shard: U16::new(self.to.shard.0),
            cluster: self.cluster.0,
            node: U32::new(self.from.node.0),
            peer_node: U32::new(self.to.node.0),
            incarnation: U32::new(self.incarnation),
            attempt: U32::new(self.attempt.number),
            process: U64::new(self.attempt.process),
            session: U64::new(self.session),
        };
        zerocopy::transmute!(body)
    }

    /// Reads the body of a hello. Later versions may append fields.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, PeerError> {
        let hello = HelloBody::read_from_prefix(body)
            .map_err(|_| truncated(Kind::Hello, size_of::<HelloBody>(), body))?;
        let hello = hello.0;
        let (version_min, version_max) = (hello.version_min.get(), hello.version_max.get());
        if version_min > version_max {
            return Err(invalid(Kind::Hello, "versions", version_max));
        }
        Ok(Self {
            version_min,
            version_max,
            cluster: ClusterId(hello.cluster),
            from: PeerShard { node: NodeId(hello.node.get()), shard: ShardId(hello.shard.get()) },
            incarnation: hello.incarnation.get(),
            to: PeerShard { node: NodeId(hello.peer_node.get()), shard: ShardId(hello.peer_shard.get()) },
            attempt: Attempt { process: hello.process.get(), number: hello.attempt.get() },
            session: hello.session.get(),
        })
    }

    /// Reads the hello at the start of a new connection's bytes. Returns it with the number of its bytes, or `None` if more are needed.
    ///
    /// For a connection that is not yet on the shard that the hello names. What follows the hello stays unread.
    pub fn take(bytes: &[u8]) -> Result<Option<(Self, usize)>, PeerError> {
        let first = take_first(Kind::Hello, bytes, HELLO_BODY_BYTES_MAX)?;
        first.map(|(body, end)| Self::decode(body).map(|hello| (hello, end))).transpose()
    }
}

/// Returns the body of the first message of a connection and the end of the message, if it is complete.
pub(crate) fn take_first(
    kind: Kind,
    bytes: &[u8],
    body_bytes_max: usize,
) -> Result<Option<(&[u8], usize)>, PeerError> {
    let Some((head, rest)) = bytes.split_at_checked(PEER_HEADER_BYTES) else { return Ok(None) };
    let Some(header) = PeerHeader::parse(head) else { return Ok(None) };
    let body_bytes = header.body_bytes.get() as usize;
    if header.kind.get() != kind as u16 || body_bytes > body_bytes_max {
        return Err(PeerError::NotAPeer);
    }
    let seen = rest.get(..body_bytes.min(rest.len())).unwrap_or_default();
    let magic = seen.get(..HELLO_MAGIC.len().min(seen.len())).unwrap_or_default();
    if !HELLO_MAGIC.starts_with(magic) {
        return Err(PeerError::NotAPeer);
    }
    let Some(body) = rest.get(..body_bytes) else { return Ok(None) };
    if header.crc.get() != header.checksum(body) {
        return Err(PeerError::Checksum { kind });
    }
    if (header.session.get(), header.sequence.get()) != (0, 0) {
        return Err(PeerError::Sequence { kind, expected: 0, found: header.sequence.get() });
    }
    Ok(Some((body, PEER_HEADER_BYTES.saturating_add(body_bytes))))
}

/// Why a hello is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The two sides have no version in common.
    #[error(
        "the peer speaks versions {min} to {max} of the protocol between nodes; use releases that follow each other"
    )]
    Version {
        /// Oldest version of the side that refuses.
        min: u16,
        /// Newest version of the side that refuses.
        max: u16,
    },
    /// The two nodes are of different clusters.
    #[error("the peer belongs to another cluster; check the addresses of the nodes")]
    Cluster,
    /// Another node has this address.
    #[error("node {node} answers at this address; check the addresses of the nodes")]
    Node {
        /// The node that refuses.
        node: NodeId,
    },
    /// The node that refuses does not know the other one as a member of the cluster.
    #[error("the peer does not know this node as a member of the cluster")]
    UnknownNode,
    /// The node has no such shard: the number of its shards has changed.
    #[error("the peer has {shards} shards")]
    Shard {
        /// Its shards.
        shards: u16,
    },
    /// The other side has to open the connection.
    #[error("the peer opens the connection between the two shards itself")]
    Opener,
    /// There is a later connection of the same process.
    #[error("a later connection has replaced this one")]
    Superseded,
    /// A reason that a later version has.
    #[error("for reason {0}, which this version does not know")]
    Other(u16),
}

impl Refusal {
    /// The number of the reason and its detail.
    fn code(self) -> (u16, u16) {
        match self {
            Self::Version { .. } => (1, 0),
            Self::Cluster => (2, 0),
            Self::Node { .. } => (3, 0),
            Self::UnknownNode => (4, 0),
            Self::Shard { shards } => (5, shards),
            Self::Opener => (6, 0),
            Self::Superseded => (7, 0),
            Self::Other(code) => (code, 0),
        }
    }
}

/// Decides whether a hello is accepted. Returns the version to speak.
///
/// `knows`: the sender is a member of the cluster. `current`: the attempt of the connection that the two shards have now.
///
/// | the hello | refused with |
/// |---|---|
/// | has no version in common with this build | `Version` |
/// | is of another cluster | `Cluster` |
/// | wants another node | `Node` |
/// | is from a node that is not a member | `UnknownNode` |
/// | wants a shard that this node does not have | `Shard` |
/// | is from the larger (node, shard), or from this node | `Opener` |
/// | is of the same process as the current connection, and not a later attempt | `Superseded` |
/// | is any other | accepted |
pub fn judge(local: &Local, hello: &Hello, knows: bool, current: Option<Attempt>) -> Result<u16, Refusal> {
    let version = hello.version_max.min(VERSION_MAX);
    if version < hello.version_min.max(VERSION_MIN) {
        return Err(Refusal::Version { min: VERSION_MIN, max: VERSION_MAX });
    }
    if hello.cluster != local.cluster {
        return Err(Refusal::Cluster);
    }
    if hello.to.node != local.me.node {
        return Err(Refusal::Node { node: local.me.node });
    }
    if !knows {
        return Err(Refusal::UnknownNode);
    }
    if hello.to.shard.0 >= local.shards {
        return Err(Refusal::Shard { shards: local.shards });
    }
    if !hello.from.opens_to(hello.to) {
        return Err(Refusal::Opener);
    }
    if current.is_some_and(|current| !hello.attempt.replaces(current)) {
        return Err(Refusal::Superseded);
    }
    Ok(version)
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReplyBody {
    magic: [u8; 8],
    code: U16,
    version: U16,
    version_min: U16,
    version_max: U16,
    node: U32,
    incarnation: U32,
    shard: U16,
    shards: U16,
    reserved: U32,
    session: U64,
}

const _: () = assert!(size_of::<ReplyBody>() == 40);

/// The answer to a hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HelloReply {
    /// The version that the two sides speak from now on, or why the hello is not accepted.
    pub outcome: Result<u16, Refusal>,
    /// The sender.
    pub from: PeerShard,
    /// Incarnation of the sender's disk.
    pub incarnation: u32,
    /// The sender's part of the session.
    pub session: u64,
}

impl HelloReply {
    pub(crate) fn encode(&self) -> [u8; 40] {
        let (code, shards) = self.outcome.err().map_or((0, 0), Refusal::code);
        let body = ReplyBody {
            magic: HELLO_MAGIC,
            code: U16::new(code),
            version: U16::new(self.outcome.unwrap_or(0)),
            version_min: U16::new(VERSION_MIN),
            version_max: U16::new(VERSION_MAX),
            node: U32::new(self.from.node.0),
            incarnation: U32::new(self.incarnation),
            shard: U16::new(self.from.shard.0),
            shards: U16::new(shards),
            reserved: U32::ZERO,
            session: U64::new(self.session),
        };
        zerocopy::transmute!(body)
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, PeerError> {
        let reply = ReplyBody::read_from_prefix(body)
            .map_err(|_| truncated(Kind::HelloReply, size_of::<ReplyBody>(), body))?
            .0;
        let version = reply.version.get();
        let node = NodeId(reply.node.get());
        let outcome = match reply.code.get() {
            0 if (VERSION_MIN..=VERSION_MAX).contains(&version) => Ok(version),
            0 => return Err(invalid(Kind::HelloReply, "version", version)),
            1 => Err(Refusal::Version { min: reply.version_min.get(), max: reply.version_max.get() }),
            2 => Err(Refusal::Cluster),
            3 => Err(Refusal::Node { node }),
            4 => Err(Refusal::UnknownNode),
            5 => Err(Refusal::Shard { shards: reply.shards.get() }),
            6 => Err(Refusal::Opener),
            7 => Err(Refusal::Superseded),
            code => Err(Refusal::Other(code)),
        };
        let from = PeerShard { node, shard: ShardId(reply.shard.get()) };
        Ok(Self { outcome, from, incarnation: reply.incarnation.get(), session: reply.session.get() })
    }
}

fn truncated(kind: Kind, need: usize, body: &[u8]) -> PeerError {
    PeerError::Body { kind, error: DecodeError::Truncated { field: "body", need, have: body.len() } }
}

fn invalid(kind: Kind, field: &'static str, value: u16) -> PeerError {
    PeerError::Body { kind, error: DecodeError::Invalid { field, value: i64::from(value) } }
}

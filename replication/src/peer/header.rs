//! The header before every message, with the checksum of the message.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BytesMut;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::limits::{BODY_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX, HELLO_BODY_BYTES_MAX, JOIN_BODY_BYTES_MAX};

/// Bytes of a [`PeerHeader`].
pub const PEER_HEADER_BYTES: usize = 16;

/// Header of every message, in both directions.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PeerHeader {
    /// Bytes of the body. The frames of a group follow its body and are not counted.
    pub body_bytes: U32,
    /// CRC-32C of the header's other bytes and of the body. Frames have their own checksums.
    pub crc: U32,
    /// Tag of the session. 0 in a hello.
    pub session: U32,
    /// A [`Kind`].
    pub kind: U16,
    /// Number of the message on this connection and in this direction, from 0, modulo 2¹⁶.
    pub sequence: U16,
}

const _: () = assert!(core::mem::size_of::<PeerHeader>() == PEER_HEADER_BYTES);

/// Kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Kind {
    /// First message of the side that opened the connection.
    Hello = 1,
    /// First message of the other side.
    HelloReply = 2,
    /// Names partitions by handles.
    Bind = 3,
    /// Releases handles.
    Unbind = 4,
    /// The partitions of these handles are not on this shard.
    Elsewhere = 5,
    /// Entries of leaders' logs, with their frames.
    Group = 6,
    /// How far logs are durable.
    Acks = 7,
    /// Every other message between replicas.
    Control = 8,
    /// The peer may send more frames.
    Credit = 9,
    /// Nothing but a sign of life.
    Heartbeat = 10,
    /// Last message of a side.
    Goodbye = 11,
    /// A node asks to be a member of the cluster: the only message of its side.
    Join = 12,
    /// The answer.
    JoinReply = 13,
    /// A request to the controller of the cluster.
    ControllerRequest = 14,
    /// The reply to one.
    ControllerReply = 15,
    /// Which partitions the sender's node leads.
    Leaders = 16,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Hello,
        Self::HelloReply,
        Self::Bind,
        Self::Unbind,
        Self::Elsewhere,
        Self::Group,
        Self::Acks,
        Self::Control,
        Self::Credit,
        Self::Heartbeat,
        Self::Goodbye,
        Self::Join,
        Self::JoinReply,
        Self::ControllerRequest,
        Self::ControllerReply,
        Self::Leaders,
    ];

    /// Returns the kind with this number, if there is one.
    pub fn from_u16(n: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == n)
    }

    /// Returns the limit of the body, in bytes.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Hello | Self::HelloReply => HELLO_BODY_BYTES_MAX,
            Self::Join | Self::JoinReply => JOIN_BODY_BYTES_MAX,
            Self::Bind
            | Self::Unbind
            | Self::Elsewhere
            | Self::Group
            | Self::Acks
            | Self::Control
            | Self::ControllerRequest
            | Self::ControllerReply
            | Self::Leaders => BODY_BYTES_MAX,
            Self::Credit => 8,
            Self::Heartbeat => 0,
            Self::Goodbye => GOODBYE_TEXT_BYTES_MAX.saturating_add(8),
        }
    }
}

impl PeerHeader {
    /// Returns the header at the start of `bytes`, or `None` if they are too few.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Returns the header of a message with this body, with its checksum. The body may be longer than a peer accepts.
    pub fn new(kind: Kind, session: u32, sequence: u16, body: &[u8]) -> Self {
        let mut header = Self {
            body_bytes: U32::new(body.len() as u32),
            crc: U32::ZERO,
            session: U32::new(session),
            kind: U16::new(kind as u16),
            sequence: U16::new(sequence),
        };
        header.crc = U32::new(header.checksum(body));
        header
    }

    /// Returns the checksum of a message with this header.
    pub fn checksum(&self, body: &[u8]) -> u32 {
        let crc = crc32c::crc32c(self.body_bytes.as_bytes());
        let crc = crc32c::crc32c_append(crc, self.session.as_bytes());
        let crc = crc32c::crc32c_append(crc, self.kind.as_bytes());
        let crc = crc32c::crc32c_append(crc, self.sequence.as_bytes());
        crc32c::crc32c_append(crc, body)
    }
}

/// The header of a message with this body.
pub(crate) fn sealed(kind: Kind, session: u32, sequence: u16, body: &[u8]) -> PeerHeader {
    debug_assert!(body.len() <= kind.body_bytes_max(), "{kind:?}: {} bytes", body.len());
    PeerHeader::new(kind, session, sequence, body)
}

/// Appends a message to `out`.
pub(crate) fn put_message(out: &mut BytesMut, kind: Kind, session: u32, sequence: u16, body: &[u8]) {
    out.extend_from_slice(sealed(kind, session, sequence, body).as_bytes());
    out.extend_from_slice(body);
}

//! The request of a node that wants to join, and the answers to it.
//!
//! ```text
//!   both begin with the header of peers (session 0, sequence 0) and the magic of a hello
//!   JoinRequest  = magic, version u16, disk [16], seeds u32, node option u32, member_of option [16], Registration
//!   Registration = address string, shards u16, rack option string, clients list (protocol u8, address string)
//!   JoinReply    = magic, version u16, tag u8, fields of the answer
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_protocol::native::{DecodeError, Reader};

use crate::peer::limits::JOIN_BODY_BYTES_MAX;
use crate::peer::{HELLO_MAGIC, Kind, PeerError, put_message, take_first};

/// Version of the messages. A later version may append fields; a receiver ignores what it does not know.
const VERSION: u16 = 1;

/// Bytes of an address, `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// Bytes of the name of a rack.
pub const RACK_BYTES_MAX: usize = 255;

/// Addresses for clients of a node.
pub const CLIENT_ADDRESSES_MAX: usize = 64;

/// Members that a reply names.
pub const CONTACTS_MAX: usize = 64;

/// Bytes of the reason of a refusal.
pub const REASON_BYTES_MAX: usize = 500;

const _: () = assert!(1024 + CLIENT_ADDRESSES_MAX * (5 + ADDRESS_BYTES_MAX) <= JOIN_BODY_BYTES_MAX);
const _: () = assert!(1024 + CONTACTS_MAX * (14 + ADDRESS_BYTES_MAX) <= JOIN_BODY_BYTES_MAX);

const WELCOME: u8 = 1;
const WITHOUT_CLUSTER: u8 = 2;
const ASK: u8 = 3;
const NOT_NOW: u8 = 4;
const REFUSED: u8 = 5;

/// Identity of a node's data directory: random, made with it. All zeros for directories that are older than these ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct DiskId(pub [u8; 16]);

/// Identifies a list of seeds, to see whether two nodes were given the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SeedList(pub u32);

impl SeedList {
    /// Returns the identity of this list. The order counts, because the first seed founds the cluster.
    pub fn of<'a>(seeds: impl IntoIterator<Item = &'a str>) -> Self {
        let crc = |crc, seed: &str| crc32c::crc32c_append(crc32c::crc32c_append(crc, seed.as_bytes()), b"\n");
        Self(seeds.into_iter().fold(0, crc))
    }
}

/// A node asks to be a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// Its disk.
    pub disk: DiskId,
    /// The seeds that it was given.
    pub seeds: SeedList,
    /// The id that it wants, if not just any.
    pub node: Option<NodeId>,
    /// The cluster that it is a member of, if it is: then it has something new to tell about itself.
    pub member_of: Option<ClusterId>,
    /// What it tells the cluster about itself.
    pub registration: Registration,
}

/// What a node tells its cluster about itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Registration {
    /// The address at which other nodes reach it.
    pub address: String,
    /// The number of its shards.
    pub shards: u16,
    /// The rack that it is in, if one is configured.
    pub rack: Option<String>,
    /// Where clients reach it, in the order of its listeners.
    pub clients: Vec<ClientListener>,
}

/// An address for clients of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientListener {
    /// The protocol that is spoken there: 0 for Highwater's own, 1 for Kafka's.
    pub protocol: u8,
    /// The address.
    pub address: String,
}

/// A member of the cluster that a new one can connect to. It learns of all members from the cluster's metadata, which come from these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contact {
    /// Its id.
    pub node: NodeId,
    /// Incarnation of its disk.
    pub incarnation: u32,
    /// The number of its shards.
    pub shards: u16,
    /// The address at which other nodes reach it.
    pub address: String,
}

/// What a member knows of itself and of its cluster when it joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's id.
    pub node: NodeId,
    /// Incarnation of its disk.
    pub incarnation: u32,
    /// The node that founded the cluster: the first voter for the metadata.
    pub founder: NodeId,
}

/// Why a member cannot decide about a request now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotNow {
    /// The cluster's metadata has no leader.
    #[error("the cluster has no controller at the moment")]
    NoLeader,
    /// The node is starting.
    #[error("the node is starting")]
    Starting,
    /// The node that had the sender's address is still taken to be running.
    #[error("the cluster has not yet missed the node that had this address before")]
    StillRunning,
    /// The metadata cannot grow.
    #[error("the disk of the controller is full")]
    DiskFull,
    /// A reason of a later version.
    #[error("for reason {0}, which this version does not know")]
    Other(u8),
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JoinReply {
    /// The registration of the node is committed. The member that decides is the first contact.
    Welcome(Membership, Vec<Contact>),
    /// The node that answers has no cluster either.
    WithoutCluster {
        /// Its disk.
        disk: DiskId,
        /// The seeds that it was given.
        seeds: SeedList,
    },
    /// The node with this address decides.
    Ask(String),
    /// Ask again later.
    NotNow(NotNow),
    /// The node cannot be a member as it is, for this reason.
    Refused(String),
}

impl JoinRequest {
    /// Returns the bytes of the message.
    pub fn encode(&self) -> Bytes {
        let mut out = head();
        out.put_slice(&self.disk.0);
        out.put_u32_le(self.seeds.0);
        out.put_u8(u8::from(self.node.is_some()));
        if let Some(node) = self.node {
            out.put_u32_le(node.0);
        }
        out.put_u8(u8::from(self.member_of.is_some()));
        if let Some(cluster) = self.member_of {
            out.put_slice(&cluster.0);
        }
        self.registration.put(&mut out);
        message(Kind::Join, &out)
    }

    /// Reads the request at the start of a new connection's bytes; `None` if more bytes are needed. Returns an error for everything else that a
    /// connection can begin with.
    pub fn take(bytes: &[u8]) -> Result<Option<Self>, PeerError> {
        take(Kind::Join, bytes, |reader| {
            Ok(Self {
                disk: DiskId(reader.array("disk")?),
                seeds: SeedList(reader.u32("seeds")?),
                node: reader.option("node", |reader| reader.u32("node"))?.map(NodeId),
                member_of: reader.option("member of", |reader| reader.array("cluster"))?.map(ClusterId),
                registration: Registration::read(reader)?,
            })
        })
    }
}

impl Registration {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.address, ADDRESS_BYTES_MAX);
        out.put_u16_le(self.shards);
        out.put_u8(u8::from(self.rack.is_some()));
        if let Some(rack) = &self.rack {
            put_text(out, rack, RACK_BYTES_MAX);
        }
        let clients = self.clients.get(..CLIENT_ADDRESSES_MAX).unwrap_or(&self.clients);
        out.put_u32_le(clients.len() as u32);
        for client in clients {
            out.put_u8(client.protocol);
            put_text(out, &client.address, ADDRESS_BYTES_MAX);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let client = |reader: &mut Reader<'_>| {
            let protocol = reader.u8("client protocol")?;
            Ok(ClientListener { protocol, address: reader.string("client address", ADDRESS_BYTES_MAX)? })
        };
        Ok(Self {
            address: reader.string("address", ADDRESS_BYTES_MAX)?,
            shards: reader.u16("shards")?,
            rack: reader.option("rack", |reader| reader.string("rack", RACK_BYTES_MAX))?,
            clients: reader.list("clients", 5, CLIENT_ADDRESSES_MAX, client)?,
        })
    }
}

impl Contact {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.node.0);
        out.put_u32_le(self.incarnation);
        out.put_u16_le(self.shards);
        put_text(out, &self.address, ADDRESS_BYTES_MAX);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node: NodeId(reader.u32("contact")?),
            incarnation: reader.u32("contact incarnation")?,
            shards: reader.u16("contact shards")?,
            address: reader.string("contact address", ADDRESS_BYTES_MAX)?,
        })
    }
}

impl JoinReply {
    /// Returns the bytes of the message.
    pub fn encode(&self) -> Bytes {
        let mut out = head();
        match self {
            Self::Welcome(Membership { cluster, node, incarnation, founder }, contacts) => {
                out.put_u8(WELCOME);
                out.put_slice(&cluster.0);
                out.put_u32_le(node.0);
                out.put_u32_le(*incarnation);
                out.put_u32_le(founder.0);
                let contacts = contacts.get(..CONTACTS_MAX).unwrap_or(contacts);
                out.put_u32_le(contacts.len() as u32);
                for contact in contacts {
                    contact.put(&mut out);
                }
            }
            Self::WithoutCluster { disk, seeds } => {
                out.put_u8(WITHOUT_CLUSTER);
                out.put_slice(&disk.0);
                out.put_u32_le(seeds.0);
            }
            Self::Ask(address) => {
                out.put_u8(ASK);
                put_text(&mut out, address, ADDRESS_BYTES_MAX);
            }
            Self::NotNow(why) => {
                out.put_u8(NOT_NOW);
                out.put_u8(match why {
                    NotNow::NoLeader => 1,
                    NotNow::Starting => 2,
                    NotNow::StillRunning => 3,
                    NotNow::DiskFull => 4,
                    NotNow::Other(code) => *code,
                });
            }
            Self::Refused(reason) => {
                out.put_u8(REFUSED);
                put_text(&mut out, reason, REASON_BYTES_MAX);
            }
        }
        message(Kind::JoinReply, &out)
    }

    /// Reads the reply from the bytes of a connection; `None` if more bytes are needed.
    pub fn take(bytes: &[u8]) -> Result<Option<Self>, PeerError> {
        take(Kind::JoinReply, bytes, |reader| match reader.u8("tag")? {
            WELCOME => {
                let membership = Membership {
                    cluster: ClusterId(reader.array("cluster")?),
                    node: NodeId(reader.u32("node")?),
                    incarnation: reader.u32("incarnation")?,
                    founder: NodeId(reader.u32("founder")?),
                };
                Ok(Self::Welcome(membership, reader.list("contacts", 14, CONTACTS_MAX, Contact::read)?))
            }
            WITHOUT_CLUSTER => Ok(Self::WithoutCluster {
                disk: DiskId(reader.array("disk")?),
                seeds: SeedList(reader.u32("seeds")?),
            }),
            ASK => Ok(Self::Ask(reader.string("address", ADDRESS_BYTES_MAX)?)),
            NOT_NOW => Ok(Self::NotNow(match reader.u8("reason")? {
                1 => NotNow::NoLeader,
                2 => NotNow::Starting,
                3 => NotNow::StillRunning,
                4 => NotNow::DiskFull,
                code => NotNow::Other(code),
            })),
            REFUSED => Ok(Self::Refused(reader.string("reason", REASON_BYTES_MAX)?)),
            tag => Err(DecodeError::Invalid { field: "tag", value: i64::from(tag) }),
        })
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn head() -> Vec<u8> {
    let mut out = HELLO_MAGIC.to_vec();
    out.put_u16_le(VERSION);
    out
}

/// Appends a string, cut off at its limit: a reason may quote what the peer has sent.
fn put_text(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    let text = text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default();
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn message(kind: Kind, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_message(&mut out, kind, 0, 0, body);
    out.freeze()
}

fn take<T>(
    kind: Kind,
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, PeerError> {
    let Some((body, _)) = take_first(kind, bytes, JOIN_BODY_BYTES_MAX)? else { return Ok(None) };
    let mut reader = Reader::new(body);
    let decode = || {
        // The magic was checked with the header.
        reader.array::<{ HELLO_MAGIC.len() }>("magic")?;
        match reader.u16("version")? {
            0 => Err(DecodeError::Invalid { field: "version", value: 0 }),
            _ => read(&mut reader),
        }
    };
    decode().map(Some).map_err(|error| PeerError::Body { kind, error })
}

//! A group of the classic protocol.

use super::wire::{Reader, Writer};
use super::{HIGHWATER_TAG, RecordError};

/// A group of the classic protocol with its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMetadata {
    /// The kind of group; empty if it has none.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The leader.
    pub leader: Option<String>,
    /// Since when it is in its state, in milliseconds since the Unix epoch; −1 if that is unknown.
    pub state_timestamp: i64,
    /// The members.
    pub members: Vec<ClassicMember>,
}

/// A member of a group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicMember {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Its rebalance timeout; −1 if it has none of its own.
    pub rebalance_timeout_ms: i32,
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol that was chosen.
    pub subscription: Vec<u8>,
    /// Its assignment.
    pub assignment: Vec<u8>,
    /// All its protocols, if these are not just the one that was chosen. A field of our own: Kafka forgets the others at a failover.
    pub protocols: Vec<OtherProtocol>,
}

/// A protocol that a member supports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherProtocol {
    /// Its name.
    pub name: String,
    /// The member's metadata for it; `None`: it is the member's `subscription`.
    pub metadata: Option<Vec<u8>>,
}

/// Version that Kafka writes, and that other tools know. It has no tagged fields.
const PLAIN: i16 = 3;
/// First version with tagged fields.
const FLEXIBLE: i16 = 4;

impl GroupMetadata {
    pub(super) fn encode(&self) -> Vec<u8> {
        let is_plain = self.members.iter().all(|member| member.protocols.is_empty());
        let mut w = if is_plain { Writer::new(PLAIN, false) } else { Writer::new(FLEXIBLE, true) };
        w.string(&self.protocol_type);
        w.i32(self.generation);
        w.nullable_string(self.protocol.as_deref());
        w.nullable_string(self.leader.as_deref());
        w.i64(self.state_timestamp);
        w.list(&self.members, |w, member| member.write(w));
        w.tagged(&[]);
        w.finish()
    }

    pub(super) fn decode(mut r: Reader<'_>, version: i16) -> Result<Self, RecordError> {
        if !matches!(version, 0..=FLEXIBLE) {
            return Err(RecordError::Version { value: "GroupMetadata", version });
        }
        if version >= FLEXIBLE {
            r = r.flexible();
        }
        let group = Self {
            protocol_type: r.string("protocol type")?,
            generation: r.i32("generation")?,
            protocol: r.nullable_string("protocol")?,
            leader: r.nullable_string("leader")?,
            state_timestamp: if version >= 2 { r.i64("state timestamp")? } else { -1 },
            members: r.list("members", |r| ClassicMember::read(r, version))?,
        };
        r.tagged(|_, _| Ok(false))?;
        r.finish()?;
        Ok(group)
    }
}

impl ClassicMember {
    fn write(&self, w: &mut Writer) {
        w.string(&self.member);
        w.nullable_string(self.instance.as_deref());
        w.string(&self.client_id);
        w.string(&self.client_host);
        w.i32(self.rebalance_timeout_ms);
        w.i32(self.session_timeout_ms);
        w.bytes(&self.subscription);
        w.bytes(&self.assignment);
        let protocols = |w: &mut Writer| {
            w.list(&self.protocols, |w, protocol| {
                w.string(&protocol.name);
                w.nullable_bytes(protocol.metadata.as_deref());
                w.tagged(&[]);
            });
        };
        w.tagged(&[(HIGHWATER_TAG, (!self.protocols.is_empty()).then(|| Writer::field(protocols)))]);
    }

    fn read(r: &mut Reader<'_>, version: i16) -> Result<Self, RecordError> {
        let mut member = Self {
            member: r.string("member id")?,
            instance: if version >= 3 { r.nullable_string("instance id")? } else { None },
            client_id: r.string("client id")?,
            client_host: r.string("client host")?,
            rebalance_timeout_ms: if version >= 1 { r.i32("rebalance timeout")? } else { -1 },
            session_timeout_ms: r.i32("session timeout")?,
            subscription: r.bytes("subscription")?,
            assignment: r.bytes("assignment")?,
            protocols: Vec::new(),
        };
        r.tagged(|tag, r| {
            if tag != HIGHWATER_TAG {
                return Ok(false);
            }
            member.protocols = r.list("protocols", |r| {
                let protocol =
                    OtherProtocol { name: r.string("protocol")?, metadata: r.nullable_bytes("metadata")? };
                r.tagged(|_, _| Ok(false))?;
                Ok(protocol)
            })?;
            Ok(true)
        })?;
        Ok(member)
    }
}

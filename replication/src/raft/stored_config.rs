//! The form in which a configuration is kept in a log. See `docs/disk-format.md`.

use highwater_protocol::ids::NodeId;

use super::config::{Config, Member, Part, REPLICAS_MAX};
use super::types::ReplicaId;

/// The version of the form.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 2;
/// Bytes of a member, in logs and in messages.
pub(crate) const MEMBER_BYTES: usize = 9;
const _: () = assert!(2 * REPLICAS_MAX <= u8::MAX as usize, "the number of members fits");

/// Why bytes are not a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredConfigError {
    /// The length is not that of the number of members.
    #[error("a configuration has {bytes} bytes, which its number of members does not")]
    Length {
        /// The number of bytes.
        bytes: usize,
    },
    /// A later version of the broker has written it.
    #[error("a configuration has version {0}, and this broker knows version {VERSION}")]
    Version(u8),
    /// A member has a part that does not exist.
    #[error("a member of a configuration has part {0}, which does not exist")]
    Part(u8),
    /// A member is there twice, there are too many, or none of them votes.
    #[error("a configuration has a member twice, too many of them, or none that votes")]
    Members,
}

impl Config {
    /// Returns the configuration as it is kept in a log.
    pub fn to_stored(&self) -> Vec<u8> {
        let members = self.members();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + MEMBER_BYTES * members.len());
        bytes.extend([VERSION, members.len() as u8]);
        bytes.extend(members.iter().flat_map(|member| member.to_bytes()));
        bytes
    }

    /// Returns the configuration that was kept in a log as these bytes.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, StoredConfigError> {
        let length = StoredConfigError::Length { bytes: bytes.len() };
        let Some(([version, count], rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(length);
        };
        if *version != VERSION {
            return Err(StoredConfigError::Version(*version));
        }
        let (members, []) = rest.as_chunks::<MEMBER_BYTES>() else { return Err(length) };
        if members.len() != usize::from(*count) {
            return Err(length);
        }
        let members: Result<Vec<Member>, _> = members.iter().map(read_member).collect();
        Self::from_members(members?).ok_or(StoredConfigError::Members)
    }
}

impl Member {
    /// Returns the member as it is in logs and messages.
    pub(crate) fn to_bytes(self) -> [u8; MEMBER_BYTES] {
        let Self { id, part } = self;
        let ([n0, n1, n2, n3], [i0, i1, i2, i3]) = (id.node.0.to_le_bytes(), id.incarnation.to_le_bytes());
        [n0, n1, n2, n3, i0, i1, i2, i3, part as u8]
    }
}

fn read_member(bytes: &[u8; MEMBER_BYTES]) -> Result<Member, StoredConfigError> {
    let [n0, n1, n2, n3, i0, i1, i2, i3, part] = *bytes;
    let node = NodeId(u32::from_le_bytes([n0, n1, n2, n3]));
    let incarnation = u32::from_le_bytes([i0, i1, i2, i3]);
    let part = Part::from_code(part).ok_or(StoredConfigError::Part(part))?;
    Ok(Member { id: ReplicaId { node, incarnation }, part })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u32, incarnation: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), incarnation }
    }

    fn joint() -> Config {
        let before = Config::new([id(1, 0), id(2, 0)], [id(3, 7)]).expect("valid");
        before.towards(&Config::new([id(1, 0), id(3, 7)], [id(2, 0)]).expect("valid"))
    }

    #[test]
    fn a_configuration_has_these_bytes() {
        let bytes = joint().to_stored();
        let member = |node: u8, incarnation: u8, part: u8| [node, 0, 0, 0, incarnation, 0, 0, 0, part];
        let members = [member(1, 0, 1), member(2, 0, 4), member(3, 7, 2)].concat();
        assert_eq!(bytes, [&[1, 3][..], &members].concat());
        assert_eq!(Config::from_stored(&bytes), Ok(joint()));
    }

    #[test]
    fn bytes_that_are_no_configuration_are_refused() {
        let good = joint().to_stored();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Config::from_stored(&bytes)
        };
        let length = |bytes| Err(StoredConfigError::Length { bytes });
        for end in 0..good.len() {
            assert_eq!(Config::from_stored(&good[..end]), length(end), "{end} bytes");
        }
        assert_eq!(with(0, 2), Err(StoredConfigError::Version(2)));
        assert_eq!(with(1, 2), length(good.len()));
        assert_eq!(with(10, 5), Err(StoredConfigError::Part(5)));
        assert_eq!(with(11, 1), Err(StoredConfigError::Members), "one twice");
        assert_eq!(Config::from_stored(&[1, 0]), Err(StoredConfigError::Members), "nobody");
    }
}

//! Decides about a request to join: which node the sender becomes.

use highwater_protocol::ids::NodeId;

use super::messages::{DiskId, JoinRequest};
use crate::mutants::{Mutant, is_planted};

/// Largest id of a node. Kafka's clients have it as a signed number.
const NODE_ID_MAX: u32 = i32::MAX as u32;

/// A node that is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberNode<'a> {
    /// Its id.
    pub node: NodeId,
    /// Its disk.
    pub disk: DiskId,
    /// Incarnation of the disk.
    pub incarnation: u32,
    /// The address at which other nodes reach it.
    pub address: &'a str,
}

/// Which node the sender of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// A member already: the registration need not be changed.
    Member(NodeId, u32),
    /// To be registered with this id and incarnation.
    Register(NodeId, u32),
}

/// Why a node cannot join as it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// Another node runs under the id.
    #[error("node {node} is running at {address}; give the new node another id (--node-id), or none")]
    IsRunning {
        /// The id.
        node: NodeId,
        /// Where the node runs.
        address: String,
    },
    /// The member with the sender's address has not been missed yet.
    #[error("node {0} has this address and is still taken to be running")]
    StillRunning(NodeId),
    /// The node is registered with another id.
    #[error(
        "the data directory belongs to node {node} of this cluster, not to node {wanted}; start it without --node-id, or with an empty data directory"
    )]
    OtherId {
        /// Its id.
        node: NodeId,
        /// The id that it wants.
        wanted: NodeId,
    },
    /// The id is not possible.
    #[error("node id {0} is not possible: the range is 0 to {NODE_ID_MAX}")]
    InvalidId(NodeId),
    /// The sender was a member, with a disk that has been replaced since.
    #[error("the cluster has replaced the disk of the node; start it with an empty data directory")]
    Replaced,
    /// The disk has no id.
    #[error("the request has no disk id")]
    NoDisk,
    /// A node would need an incarnation after the last possible one.
    #[error("node {0} has used up its incarnations; give the new node another id (--node-id), or none")]
    OutOfIncarnations(NodeId),
}

/// Decides which node the sender of a request is. `members`: all registered nodes. `is_running`: whether a node can be reached.
///
/// | disk | wanted id | address | decision |
/// |---|---|---|---|
/// | of a member | the member's, or none | any | that member |
/// | of a member | another | any | `OtherId` |
/// | new, and of a member once | any | any | `Replaced` |
/// | new | of a member that is running | any | `IsRunning` |
/// | new | of another member | any | that member, next incarnation: its disk was replaced |
/// | new | of nobody | any | a new node with this id |
/// | new | none | of a member that is running | `StillRunning` |
/// | new | none | of another member | that member, next incarnation |
/// | new | none | of nobody | a new node with the smallest free id |
pub fn admit(
    members: &[MemberNode<'_>],
    is_running: impl Fn(NodeId) -> bool,
    request: &JoinRequest,
) -> Result<Admission, AdmissionError> {
    if request.disk == DiskId::default() {
        return Err(AdmissionError::NoDisk);
    }
    if let Some(wanted) = request.node.filter(|node| node.0 > NODE_ID_MAX) {
        return Err(AdmissionError::InvalidId(wanted));
    }
    if let Some(member) = members.iter().find(|member| member.disk == request.disk) {
        return match request.node {
            Some(wanted) if wanted != member.node => {
                Err(AdmissionError::OtherId { node: member.node, wanted })
            }
            _ => Ok(Admission::Member(member.node, member.incarnation)),
        };
    }
    if request.member_of.is_some() {
        return Err(AdmissionError::Replaced);
    }
    let replaced = members.iter().find(|member| match request.node {
        Some(wanted) => member.node == wanted,
        None => member.address == request.registration.address,
    });
    match (replaced, request.node) {
        (Some(member), None) if is_running(member.node) => Err(AdmissionError::StillRunning(member.node)),
        (Some(member), _) if is_running(member.node) => {
            Err(AdmissionError::IsRunning { node: member.node, address: member.address.to_owned() })
        }
        // The last incarnation is that of replicas that take no part.
        (Some(member), _) if member.incarnation >= u32::MAX - 1 => {
            Err(AdmissionError::OutOfIncarnations(member.node))
        }
        (Some(member), _) => {
            let next = u32::from(!is_planted(Mutant::IncarnationReused));
            Ok(Admission::Register(member.node, member.incarnation + next))
        }
        (None, Some(wanted)) => Ok(Admission::Register(wanted, 0)),
        (None, None) => {
            let is_free = |id: &u32| members.iter().all(|member| member.node.0 != *id);
            let id =
                (0..=NODE_ID_MAX).find(is_free).expect("a cluster has far fewer nodes than there are ids");
            Ok(Admission::Register(NodeId(id), 0))
        }
    }
}

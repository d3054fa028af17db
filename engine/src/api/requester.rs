//! Who has sent a request to the controller.

use highwater_protocol::ids::NodeId;
use highwater_runtime::plane::ShardIndex;

use super::Ticket;

/// Who gets the reply of the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Requester {
    /// A shard of this node.
    Shard(ShardIndex, Ticket),
    /// Another node. The reply only has a meaning in the session in which the request came.
    Node {
        /// The node.
        node: NodeId,
        /// The session.
        session: u64,
        /// The node's number of the request.
        number: u64,
    },
    /// Nobody: the metadata shows what has become of the request.
    Nobody,
}

//! Nodes that ask to be members of the cluster: the leader of the metadata decides which node each one is, and registers it.
//!
//! A request is decided on the tip, so two that arrive together do not get the same id. It is answered with a welcome when the registration is committed and
//! every shard of this node has applied it: a leader that forgot it could give the same id and incarnation to another disk.

use highwater_protocol::ids::NodeId;
use highwater_replication::join::{
    Admission, AdmissionError, Contact, JoinReply, JoinRequest, MemberNode, Membership, NotNow, admit,
};

use super::Controller;
use super::proposer::Proposer;
use crate::api::{ApiError, ControllerReply, Reach, Requester};
use crate::data_dir::Identity;
use crate::meta::Node;
use crate::mutants::{Mutant, is_planted};

impl Controller {
    /// Decides about a node that asks to be a member. `reach`: whether this node, which leads the metadata, reaches another one.
    pub(crate) fn join(
        &mut self,
        to: Requester,
        identity: Identity,
        request: &JoinRequest,
        reach: &dyn Fn(NodeId) -> Reach,
    ) {
        let me = self.node.id;
        let reach = |node| if node == me { Reach::Connected } else { reach(node) };
        self.proposer.join(to, identity, request, &reach);
        self.advance();
    }
}

impl Proposer {
    fn join(
        &mut self,
        to: Requester,
        identity: Identity,
        request: &JoinRequest,
        reach: &dyn Fn(NodeId) -> Reach,
    ) {
        if let Some(other) = request.member_of.filter(|cluster| *cluster != identity.cluster) {
            let why = format!("it is a member of cluster {other}, and this is cluster {}", identity.cluster);
            return self.reply(to, Ok(ControllerReply::Join(JoinReply::Refused(why))));
        }
        let decided = self.decide(request, reach).and_then(|node| match self.propose_node(&node) {
            Ok(()) => Ok(node),
            Err(ApiError::InvalidNode(why)) => Err(Ok(JoinReply::Refused(why))),
            Err(error) => Err(Err(error)),
        });
        match decided {
            Ok(node) => {
                let reply = Ok(ControllerReply::Join(self.welcome(identity, &node)));
                if is_planted(Mutant::WelcomeBeforeCommitted) {
                    return self.reply(to, reply);
                }
                self.answer_when_applied(to, reply);
            }
            Err(outcome) => self.reply(to, outcome.map(ControllerReply::Join)),
        }
    }

    /// Returns the node that the sender of a request is, as it is to be registered; or the reply.
    fn decide(
        &self,
        request: &JoinRequest,
        reach: &dyn Fn(NodeId) -> Reach,
    ) -> Result<Node, Result<JoinReply, ApiError>> {
        let refused = |why: String| Ok(JoinReply::Refused(why));
        let node = Node::of_registration(&request.registration, request.disk).map_err(refused)?;
        let nodes = self.tip().map_err(Err)?.nodes();
        // Empty for a node that does not listen for others; no request has an empty address.
        let address_of = |node: &Node| node.peer.as_ref().map(ToString::to_string).unwrap_or_default();
        let addresses: Vec<String> = nodes.values().map(|node| address_of(node)).collect();
        let members: Vec<MemberNode<'_>> = nodes
            .values()
            .zip(&addresses)
            .map(|(node, address)| MemberNode {
                node: node.id,
                disk: node.disk,
                incarnation: node.incarnation,
                address,
            })
            .collect();
        let (id, incarnation) = match admit(&members, |node| reach(node) != Reach::Missed, request) {
            Ok(Admission::Member(id, incarnation) | Admission::Register(id, incarnation)) => {
                (id, incarnation)
            }
            Err(AdmissionError::StillRunning(_)) => return Err(Ok(JoinReply::NotNow(NotNow::StillRunning))),
            // It may be down already: one that has the same address is.
            Err(AdmissionError::IsRunning { node, address })
                if reach(node) == Reach::Recent || address == request.registration.address =>
            {
                return Err(Ok(JoinReply::NotNow(NotNow::StillRunning)));
            }
            Err(error) => return Err(refused(error.to_string())),
        };
        Ok(Node { id, incarnation, ..node })
    }

    /// Returns the reply to a node whose registration is committed.
    fn welcome(&self, identity: Identity, node: &Node) -> JoinReply {
        let membership = Membership {
            cluster: identity.cluster,
            node: node.id,
            incarnation: node.incarnation,
            founder: identity.founder,
        };
        let contact = |of: &Node| {
            let address = of.peer.as_ref()?.to_string();
            Some(Contact { node: of.id, incarnation: of.incarnation, shards: of.shards, address })
        };
        let nodes = self.tip().map(|tip| tip.nodes().values()).into_iter().flatten();
        let (me, others): (Vec<_>, Vec<_>) =
            nodes.filter(|other| other.id != node.id).partition(|other| other.id == identity.node);
        let contacts = me.into_iter().chain(others).filter_map(|other| contact(other)).collect();
        JoinReply::Welcome(membership, contacts)
    }
}

//! Nodes that ask to be members of the cluster, on shard 0.

use highwater_replication::join::{JoinReply, JoinRequest, NotNow};
use highwater_runtime::plane::Plane;

use super::Shard;
use crate::api::{ApiError, ControllerReply, Reach, Requester, Service};
use crate::message::Message;

impl Shard {
    /// Decides about a node that asks to be a member, if this node leads the metadata. Otherwise the reply names the one that does: it
    /// is not forwarded, because the leader has to know which nodes are connected.
    pub(super) fn handle_join(
        &mut self,
        plane: &mut dyn Plane<Message>,
        to: Requester,
        request: &JoinRequest,
    ) {
        let (now, identity) = (plane.now(), self.setup.identity);
        let (peers, partitions) = (&self.peers, &self.partitions);
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.ready && !lead.controller.is_starting())
        else {
            return self.reply_of_controller(plane, to, Err(ApiError::Starting(Service::Controller)));
        };
        if lead.controller.decides() {
            let reach =
                |node| peers.as_ref().map_or(Reach::Recent, |exchange| exchange.peers.reach(node, now));
            return lead.controller.join(to, identity, request, &reach);
        }
        let leader = partitions.metadata().and_then(|(_, log)| log.leader());
        let leader = leader.and_then(|leader| lead.controller.metadata().nodes().get(&leader));
        let address =
            leader.filter(|leader| leader.id != identity.node).and_then(|leader| leader.peer.as_ref());
        let reply = address
            .map_or(JoinReply::NotNow(NotNow::NoLeader), |address| JoinReply::Ask(address.to_string()));
        self.reply_of_controller(plane, to, Ok(ControllerReply::Join(reply)));
    }
}

//! Brings requests to the controller of the cluster, which is on the node that leads the metadata, and its replies back. See
//! [`Forwarding`](crate::meta::Forwarding).

use highwater_protocol::ids::NodeId;
use highwater_replication::peer::Kind;
use highwater_runtime::plane::Plane;

use super::Shard;
use super::lead::{Lead, service_of};
use crate::api::{ApiError, ControllerReply, ControllerRequest, CreateGroupsTopic, RegisterNode, Requester};
use crate::limits::REMOTE_REQUESTS_MAX;
use crate::message::Message;
use crate::meta::{ForwardedReply, read_request, write_reply};
use crate::partition::Partitions;
use crate::peers::{ForController, SessionNumber};

impl Lead {
    /// Returns the other node that leads the metadata, if that is known, and a request of this node is for it.
    pub(super) fn leader_elsewhere(
        &self,
        partitions: &Partitions,
        request: &ControllerRequest,
    ) -> Option<NodeId> {
        // Groups of an earlier build are carried over by the node that has them, alone.
        if let ControllerRequest::CreateGroupsTopic(CreateGroupsTopic { for_old_groups: true }) = request {
            return None;
        }
        let (_, log) = partitions.metadata()?;
        (self.ready && !log.is_leader()).then(|| log.leader()).flatten()
    }
}

impl Shard {
    /// Has the node that leads register this one, if something about it is new since its last start. Each leader is asked once in its term.
    pub(super) fn register_at_leader(&mut self) {
        let Some(lead) = &mut self.lead else { return };
        let Some(node) = lead.controller.wants_registration() else { return };
        let Some((_, log)) = self.partitions.metadata() else { return };
        let Some(leader) = log.leader().filter(|_| lead.ready && !log.is_leader()) else { return };
        let asked = Some((leader, log.epoch()));
        if lead.registering == asked {
            return;
        }
        let request = ControllerRequest::RegisterNode(RegisterNode(node.clone()));
        // Without a way to the leader it is tried again.
        if self.forward(Requester::Nobody, leader, &request).is_ok()
            && let Some(lead) = &mut self.lead
        {
            lead.registering = asked;
        }
    }

    /// Sends a request to the node that leads. An error: it gets no other reply.
    pub(super) fn forward(
        &mut self,
        to: Requester,
        leader: NodeId,
        request: &ControllerRequest,
    ) -> Result<(), ApiError> {
        let (Some(lead), Some(exchange)) = (&mut self.lead, &mut self.peers) else {
            return Err(ApiError::NotController);
        };
        let (number, message) = lead.forwarding.begin(to, leader, service_of(request), request)?;
        if exchange.peers.send_controller(leader, None, Kind::ControllerRequest, message) {
            return Ok(());
        }
        lead.forwarding.abandon(number);
        Err(ApiError::NotController)
    }

    /// Replies to a request to the controller.
    pub(super) fn reply_of_controller(
        &mut self,
        plane: &mut dyn Plane<Message>,
        to: Requester,
        outcome: Result<ControllerReply, ApiError>,
    ) {
        match to {
            Requester::Shard(shard, ticket) => plane.post(shard, Message::ControllerReply(ticket, outcome)),
            Requester::Node { node, session, number } => {
                let Some(lead) = &mut self.lead else { return };
                lead.remote_requests = lead.remote_requests.saturating_sub(1);
                if let Some(exchange) = &mut self.peers {
                    let end = lead.controller.metadata().next_offset();
                    let (session, reply) = (SessionNumber(session), write_reply(number, end, &outcome));
                    // Without the session, nobody waits for it.
                    exchange.peers.send_controller(node, Some(session), Kind::ControllerReply, reply);
                }
            }
            Requester::Nobody => {}
        }
    }

    /// Passes replies of other nodes on, in their order, when this node has applied what they are about.
    pub(super) fn pass_replies_on(&mut self, plane: &mut dyn Plane<Message>) {
        let is_stopping = self.drain.is_some();
        while let Some(lead) = &mut self.lead
            && let Some(ForwardedReply { to, outcome, .. }) = lead.replies.pop_front_if(|reply| {
                is_stopping || reply.outcome.is_err() || lead.controller.has_applied(reply.end)
            })
        {
            self.reply_of_controller(plane, to, outcome);
        }
    }

    /// Handles what other nodes have sent to the controller, and from it.
    pub(super) fn receive_for_controller(&mut self, plane: &mut dyn Plane<Message>) {
        while let Some(exchange) = &mut self.peers
            && let Some(received) = exchange.poll_controller()
            && let Some(lead) = &mut self.lead
        {
            match received {
                ForController::Request { peer, session, body } => match read_request(&body) {
                    Ok((number, request)) => {
                        let to = Requester::Node { node: peer.node, session: session.0, number };
                        lead.remote_requests += 1;
                        if lead.remote_requests > REMOTE_REQUESTS_MAX {
                            self.reply_of_controller(plane, to, Err(ApiError::NotController));
                        } else {
                            self.request_of_controller(plane, to, request);
                        }
                    }
                    Err(error) => exchange.peers.reject(plane, peer, session, &error.to_string()),
                },
                ForController::Reply { peer, session, body } => {
                    match lead.forwarding.handle_reply(peer.node, &body) {
                        Ok(Some(reply)) => lead.replies.push_back(reply),
                        Ok(None) => {}
                        Err(error) => exchange.peers.reject(plane, peer, session, &error.to_string()),
                    }
                }
                ForController::Lost(node) => {
                    for to in lead.forwarding.handle_lost(node) {
                        self.reply_of_controller(plane, to, Err(ApiError::NotController));
                    }
                }
            }
        }
    }
}

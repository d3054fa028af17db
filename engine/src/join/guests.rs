//! Connections of other nodes that look for a cluster too.

use std::collections::BTreeMap;

use highwater_replication::join::{JoinReply, JoinRequest};
use highwater_replication::peer::limits::HANDSHAKE_TIME;
use highwater_runtime::plane::{Close, ConnId, Instant, Net};

use crate::limits::PEER_GREETINGS_MAX;

/// A connection whose request has not arrived, or whose answer is on its way.
#[derive(Debug)]
struct Guest {
    received: Vec<u8>,
    is_answered: bool,
    deadline: Instant,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Guests {
    conns: BTreeMap<ConnId, Guest>,
}

impl Guests {
    /// Returns when [`handle_deadline`](Self::handle_deadline) is to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.conns.values().map(|guest| guest.deadline).min()
    }

    pub(super) fn handle_accepted(&mut self, net: &mut dyn Net, now: Instant, conn: ConnId) {
        if self.conns.len() >= PEER_GREETINGS_MAX {
            return net.close(conn, Close::Now);
        }
        let deadline = now.after(HANDSHAKE_TIME);
        self.conns.insert(conn, Guest { received: Vec::new(), is_answered: false, deadline });
    }

    /// Handles received bytes. Answers the request when it is complete.
    pub(super) fn handle_received(
        &mut self,
        net: &mut dyn Net,
        conn: ConnId,
        data: &[u8],
        answer: impl FnOnce() -> JoinReply,
    ) {
        let Some(guest) = self.conns.get_mut(&conn).filter(|guest| !guest.is_answered) else { return };
        guest.received.extend_from_slice(data);
        match JoinRequest::take(&guest.received) {
            Ok(None) => {}
            Ok(Some(request)) => {
                tracing::debug!(address = request.registration.address, "another node looks for a cluster");
                guest.is_answered = true;
                net.send(conn, answer().encode());
                net.close(conn, Close::AfterSends);
            }
            Err(error) => {
                // A member that does not know yet that this node's disk was replaced opens channels.
                tracing::debug!("a connection to the listener for other nodes is closed: {error}");
                net.close(conn, Close::Now);
            }
        }
    }

    pub(super) fn handle_closed(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    /// Closes the connections that have taken too long.
    pub(super) fn handle_deadline(&mut self, net: &mut dyn Net, now: Instant) {
        for (conn, _) in self.conns.extract_if(.., |_, guest| guest.deadline <= now) {
            net.close(conn, Close::Now);
        }
    }
}

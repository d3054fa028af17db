//! The requests of a [`Joiner`], over the network.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_replication::join::{JoinReply, Joiner, JoinerConfig};
use highwater_replication::peer::limits::HANDSHAKE_TIME;
use highwater_runtime::plane::{Close, CloseReason, ConnId, ConnectError, Instant, Plane, Token};

use super::progress::Progress;
use crate::address::{HostPort, Resolve};

/// A request under way.
#[derive(Debug)]
struct Attempt {
    /// Its number for the [`Joiner`].
    number: usize,
    received: Vec<u8>,
}

/// Sends the requests of a [`Joiner`], one over each connection, until it has an [outcome](Joiner::outcome).
pub(crate) struct Asking {
    pub(crate) joiner: Joiner,
    names: Arc<dyn Resolve>,
    attempts: BTreeMap<ConnId, Attempt>,
    progress: Progress,
}

impl Asking {
    /// Creates one that has not sent anything. `names` resolves the addresses of seeds.
    pub(crate) fn new(config: JoinerConfig, names: Arc<dyn Resolve>, now: Instant) -> Self {
        Self {
            joiner: Joiner::new(config, now),
            names,
            attempts: BTreeMap::new(),
            progress: Progress::default(),
        }
    }

    /// Returns whether a connection is that of a request.
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.attempts.contains_key(&conn)
    }

    /// Begins the requests that are due, and reports what has changed. Call it at the end of each turn.
    pub(crate) fn run<M>(&mut self, plane: &mut dyn Plane<M>) {
        let now = plane.now();
        while let Some((number, address)) = self.joiner.poll_attempt(now) {
            let found = address.parse::<HostPort>().and_then(|address| self.names.resolve(&address));
            match found {
                Ok(address) => {
                    let conn = plane.connect(address, HANDSHAKE_TIME, Token(0));
                    self.attempts.insert(conn, Attempt { number, received: Vec::new() });
                }
                Err(reason) => self.joiner.handle_failed(now, number, reason, plane.random_u64()),
            }
        }
        self.progress.report(&self.joiner);
    }

    /// Handles the outcome of opening a connection.
    pub(crate) fn handle_connected<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        conn: ConnId,
        outcome: Result<(), ConnectError>,
    ) {
        match outcome {
            Ok(()) if self.owns(conn) => plane.send(conn, self.joiner.request()),
            Ok(()) => plane.close(conn, Close::Now),
            Err(error) => self.fail(plane, conn, error.to_string()),
        }
    }

    /// Handles bytes of a reply.
    pub(crate) fn handle_received<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, data: &[u8]) {
        let Some(attempt) = self.attempts.get_mut(&conn) else { return };
        attempt.received.extend_from_slice(data);
        match JoinReply::take(&attempt.received) {
            Ok(None) => {}
            Ok(Some(reply)) => {
                let number = attempt.number;
                self.attempts.remove(&conn);
                plane.close(conn, Close::Now);
                self.joiner.handle_reply(plane.now(), number, reply, plane.random_u64());
            }
            Err(error) => {
                plane.close(conn, Close::Now);
                self.fail(plane, conn, format!("it does not answer as a node does: {error}"));
            }
        }
    }

    /// Handles the end of a connection.
    pub(crate) fn handle_closed<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, because: CloseReason) {
        let reason = match because {
            CloseReason::Error(error) => format!("the connection was lost: {error}"),
            CloseReason::Peer | CloseReason::Local => "it closed the connection without an answer".to_owned(),
        };
        self.fail(plane, conn, reason);
    }

    /// Gives up the requests that have taken too long.
    pub(crate) fn handle_deadline<M>(&mut self, plane: &mut dyn Plane<M>) {
        let now = plane.now();
        let late = self.joiner.handle_deadline(now, || plane.random_u64());
        for (conn, _) in self.attempts.extract_if(.., |_, attempt| late.contains(&attempt.number)) {
            plane.close(conn, Close::Now);
        }
    }

    /// Ends a request without an answer.
    fn fail<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, reason: String) {
        if let Some(attempt) = self.attempts.remove(&conn) {
            self.joiner.handle_failed(plane.now(), attempt.number, reason, plane.random_u64());
        }
    }
}

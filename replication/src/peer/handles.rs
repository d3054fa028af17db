//! Handles: 32-bit numbers for the partitions of a session.
//!
//! Each side numbers what it sends about, from 0 and without gaps, and never uses a number again in the session: a message that names a handle cannot be
//! taken for one about another partition. A number is bound by the sender before its first use. With the session both tables end.

use highwater_protocol::ids::LogIndex;

use super::body::Route;
use super::error::PeerError;
use super::header::Kind;
use super::limits::HANDLES_MAX;
use crate::mutants::{Mutant, is_planted};

/// What this side knows of a handle that it has bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) route: Route,
    /// The log end that was acknowledged last.
    pub(crate) acked: LogIndex,
    /// Number of the batch that has the last message.
    pub(crate) batch: u64,
    /// Where in the batch the last acknowledgement is.
    pub(crate) ack_at: usize,
}

/// The handles of this side.
#[derive(Clone, Debug)]
pub(crate) struct Handles {
    list: Vec<Bound>,
    by_route: ahash::HashMap<Route, u32>,
    /// Only if a bug is planted.
    free: Vec<u32>,
}

impl Default for Handles {
    fn default() -> Self {
        let by_route = ahash::HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        Self { list: Vec::new(), by_route, free: Vec::new() }
    }
}

impl Handles {
    pub(crate) fn get(&self, route: &Route) -> Option<u32> {
        self.by_route.get(route).copied()
    }

    /// Binds a route. Returns `None` if all handles of the session are used up.
    pub(crate) fn bind(&mut self, route: Route) -> Option<u32> {
        let bound = Bound { route, acked: LogIndex(0), batch: 0, ack_at: 0 };
        let handle = match self.free.pop() {
            Some(handle) => {
                self.list[handle as usize] = bound;
                handle
            }
            None if self.list.len() >= HANDLES_MAX => return None,
            None => {
                self.list.push(bound);
                (self.list.len() - 1) as u32
            }
        };
        self.by_route.insert(route, handle);
        Some(handle)
    }

    /// Releases a route. Returns its handle.
    pub(crate) fn unbind(&mut self, route: &Route) -> Option<u32> {
        let handle = self.by_route.remove(route)?;
        if is_planted(Mutant::HandleReused) {
            self.free.push(handle);
        }
        Some(handle)
    }

    /// Returns a handle that was bound, whether or not it was released since.
    pub(crate) fn bound(&mut self, handle: u32) -> &mut Bound {
        &mut self.list[handle as usize]
    }

    /// Returns the route of a handle that the peer names.
    pub(crate) fn route(&self, kind: Kind, handle: u32) -> Result<Route, PeerError> {
        let unbound = PeerError::UnboundHandle { kind, handle };
        self.list.get(handle as usize).map(|bound| bound.route).ok_or(unbound)
    }
}

/// What this side knows of a handle of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    pub(crate) route: Route,
    /// The log end that the peer acknowledged last.
    pub(crate) acked: LogIndex,
}

/// The handles of the peer.
#[derive(Clone, Default, Debug)]
pub(crate) struct RemoteHandles {
    list: Vec<Option<Remote>>,
}

impl RemoteHandles {
    pub(crate) fn bind(&mut self, handle: u32, route: Route) -> Result<(), PeerError> {
        let expected = self.list.len() as u32;
        let remote = Some(Remote { route, acked: LogIndex(0) });
        if let Some(place) = self.list.get_mut(handle as usize).filter(|_| is_planted(Mutant::HandleReused)) {
            *place = remote;
            return Ok(());
        }
        if handle != expected || self.list.len() >= HANDLES_MAX {
            return Err(PeerError::HandleOrder { expected, found: handle });
        }
        self.list.push(remote);
        Ok(())
    }

    pub(crate) fn unbind(&mut self, handle: u32) -> Result<(), PeerError> {
        self.get_mut(Kind::Unbind, handle)?;
        self.list[handle as usize] = None;
        Ok(())
    }

    pub(crate) fn get_mut(&mut self, kind: Kind, handle: u32) -> Result<&mut Remote, PeerError> {
        let unbound = PeerError::UnboundHandle { kind, handle };
        self.list.get_mut(handle as usize).and_then(Option::as_mut).ok_or(unbound)
    }
}

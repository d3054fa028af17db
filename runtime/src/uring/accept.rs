//! Accepting connections.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{opcode, types};
use rustix::net::sockopt;

use super::UringPlane;
use super::conn::Conn;
use super::limits::{
    ACCEPT_RETRY_AFTER, CONNECTIONS_MAX, KEEPALIVE_AFTER, KEEPALIVE_EVERY, KEEPALIVE_PROBES,
};
use super::ring::Cqe;
use super::token::Op;
use super::turn::Due;
use crate::plane::{Endpoints, ListenerId};
use crate::slab::Key;

/// A listening socket of a shard.
pub(super) struct Listener {
    /// `None` once it has stopped.
    socket: Option<TcpListener>,
    accepting: bool,
}

impl Listener {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self { socket: Some(socket), accepting: false }
    }
}

impl<M: Send + 'static> UringPlane<M> {
    /// Accepts from a listener until accepting is stopped.
    pub(super) fn accept(&mut self, index: u16) {
        let listener = &mut self.listeners[usize::from(index)];
        let Some(socket) = &listener.socket else { return };
        if listener.accepting || self.accept_stopped {
            return;
        }
        listener.accepting = true;
        let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the entry refers to no memory; the socket is kept until this operation has ended (see `on_accepted`).
        unsafe { self.ring.push(entry, Op::Accept(index)) };
    }

    /// Handles a completion of an accept. Returns the new connection, if there is one.
    pub(super) fn on_accepted(&mut self, index: u16, cqe: Cqe) -> Option<Key> {
        // SAFETY: a successful accept returns a new descriptor that nothing else owns.
        let result = cqe.outcome().map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        let listener = &mut self.listeners[usize::from(index)];
        if !cqe.more() {
            listener.accepting = false;
            if self.accept_stopped {
                listener.socket = None;
            } else if result.as_ref().is_err_and(is_exhaustion) {
                self.timers.set(self.now.after(ACCEPT_RETRY_AFTER), Due::Accept(index));
            } else {
                self.accept(index);
            }
        }
        match result {
            // Dropping the socket informs the client, which would otherwise wait for a reply.
            Ok(_) if self.accept_stopped => None,
            Ok(socket) => self.adopt_accepted(socket, ListenerId(index)),
            Err(e) => {
                if is_exhaustion(&e) {
                    tracing::warn!(
                        error = %e,
                        "cannot accept connections: out of file descriptors or memory; raise `ulimit -n` (LimitNOFILE=)"
                    );
                }
                None
            }
        }
    }

    fn adopt_accepted(&mut self, socket: OwnedFd, listener: ListenerId) -> Option<Key> {
        // A connection that is already closed has no peer.
        let peer = rustix::net::getpeername(&socket).ok().flatten()?.try_into().ok()?;
        let local = rustix::net::getsockname(&socket).ok()?.try_into().ok()?;
        prepare_socket(&socket);
        if self.conns.len() >= CONNECTIONS_MAX {
            tracing::warn!(%peer, "rejected a connection: this shard has reached the limit of {CONNECTIONS_MAX}");
            return None;
        }
        Some(self.conns.insert(Conn::accepted(socket, listener, Endpoints::new(peer, local))))
    }

    /// Stops accepting. A socket with an accept in flight is closed when that has ended.
    pub(super) fn close_listeners(&mut self) {
        self.accept_stopped = true;
        for index in 0..self.listeners.len() {
            let listener = &mut self.listeners[index];
            if listener.accepting {
                self.cancel(Op::Accept(index as u16));
            } else {
                listener.socket = None;
            }
        }
    }
}

/// Sets options that are useful but not essential.
pub(super) fn prepare_socket(socket: &OwnedFd) {
    // Replies are already coalesced here; the kernel's delay would only add latency.
    let _ = sockopt::set_tcp_nodelay(socket, true);
    // Detects a peer whose machine vanished within two minutes.
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEPALIVE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES);
}

fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

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
use crate::plane::{Ends, ListenerId};
use crate::slab::Key;

/// One listening socket of a shard.
pub(super) struct Listener {
    /// None once it has stopped.
    socket: Option<TcpListener>,
    accepting: bool,
}

impl Listener {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self { socket: Some(socket), accepting: false }
    }
}

impl<M: Send + 'static> UringPlane<M> {
    /// Accepts from a listener until told otherwise.
    pub(super) fn accept(&mut self, index: u16) {
        let listener = &mut self.listeners[usize::from(index)];
        let Some(socket) = &listener.socket else { return };
        if listener.accepting || self.accept_stopped {
            return;
        }
        listener.accepting = true;
        let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the entry names no memory; the socket is kept until this operation has ended (see `on_accepted`).
        unsafe { self.ring.push(entry, Op::Accept(index)) };
    }

    /// A completion of an accept: the new connection, if there is one.
    pub(super) fn on_accepted(&mut self, index: u16, cqe: Cqe) -> Option<Key> {
        // SAFETY: a successful accept gives a new descriptor that nobody else knows of.
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
            // Dropping the socket tells the client; a descriptor that nobody reads would leave it waiting.
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
        // A connection that is gone already has no peer.
        let peer = rustix::net::getpeername(&socket).ok().flatten()?.try_into().ok()?;
        let local = rustix::net::getsockname(&socket).ok()?.try_into().ok()?;
        prepare_socket(&socket);
        if self.conns.len() >= CONNECTIONS_MAX {
            tracing::warn!(%peer, "refused a connection: this shard has {CONNECTIONS_MAX}");
            return None;
        }
        Some(self.conns.insert(Conn::new(socket, listener, Ends::new(peer, local))))
    }

    /// Stops accepting; a socket that is still being accepted from is closed when that has ended.
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

/// Options that make a connection better, but that it works without.
fn prepare_socket(socket: &OwnedFd) {
    // Replies are coalesced here; the kernel's own delay would only add to them.
    let _ = sockopt::set_tcp_nodelay(socket, true);
    // A client whose machine vanished is found out in two minutes instead of never.
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEPALIVE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES);
}

fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

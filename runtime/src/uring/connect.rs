//! Opening connections.
//!
//! The socket is opened by a system call of its own: it cannot block, it is rare, and the connection needs an id at once. The ring
//! connects it, and a timer of the plane limits the time. A connect that is given up, because its time is over or it was closed, is
//! cancelled; its connection stays in the slab until the operation has ended, because the kernel uses its socket and its address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types};
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, ipproto};

use super::UringPlane;
use super::accept::prepare_socket;
use super::conn::{Conn, State};
use super::net::conn_id;
use super::ring::Cqe;
use super::token::Op;
use super::turn::Due;
use crate::plane::{
    CONNECT_TIME_MAX, ConnId, ConnectError, ConnectFailure, Endpoints, OUTGOING_CONNECTIONS_MAX, Token,
};
use crate::slab::Key;

/// A connect in flight.
pub(super) struct Connect {
    /// Read by the kernel.
    address: SocketAddrAny,
    to: SocketAddr,
    within: Duration,
    token: Token,
}

impl<M: Send + 'static> UringPlane<M> {
    pub(super) fn start_connect(&mut self, to: SocketAddr, within: Duration, token: Token) -> ConnId {
        let socket = if self.outgoing < OUTGOING_CONNECTIONS_MAX {
            open_socket(to).map_err(|e| failure_of(&e))
        } else {
            Err(ConnectFailure::LimitReached)
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(why) => {
                let id = conn_id(self.conns.unused_key());
                self.connects_failed.push_back((id, token, ConnectError { to, why }));
                return id;
            }
        };
        let within = within.min(CONNECT_TIME_MAX);
        let connect = Box::new(Connect { address: to.into(), to, within, token });
        let fd = types::Fd(socket.as_raw_fd());
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let key = self.conns.insert(Conn::connecting(socket, Endpoints::new(to, unknown), connect));
        self.outgoing += 1;
        let connect = self.conns.get(key).and_then(|conn| conn.connect.as_ref()).expect("it was just added");
        let (address, bytes) = (connect.address.as_ptr().cast(), connect.address.addr_len());
        let entry = opcode::Connect::new(fd, address, bytes).build();
        // SAFETY: the address is in a box, which the connection keeps with its socket until this operation has completed (see
        // `Conn::is_quiet`), and nothing changes it.
        unsafe { self.ring.push(entry, Op::Connect(key)) };
        self.timers.set(self.now.after(within), Due::ConnectTimeout(key));
        conn_id(key)
    }

    /// Handles the completion of a connect. Returns what to report to the application.
    pub(super) fn on_connect_completed(
        &mut self,
        key: Key,
        cqe: Cqe,
    ) -> Option<(Token, Result<(), ConnectError>)> {
        let conn = self.conns.get_mut(key)?;
        let Connect { to, token, .. } = *conn.connect.take()?;
        if !matches!(conn.state, State::Connecting) {
            // It was given up, and that was reported.
            self.remove_if_ended(key);
            return None;
        }
        let outcome = cqe.outcome().map_err(|e| failure_of(&e)).and_then(|_| endpoints(&conn.socket, to));
        let outcome = match outcome {
            Ok(endpoints) => {
                conn.endpoints = endpoints;
                conn.state = State::Open;
                self.queue_receive(key);
                Ok(())
            }
            Err(why) => {
                conn.state = State::Dead;
                self.remove_if_ended(key);
                Err(ConnectError { to, why })
            }
        };
        Some((token, outcome))
    }

    /// Handles the end of the time that a connection has to be connected.
    pub(super) fn on_connect_timeout(&mut self, key: Key) {
        if let Some(Conn { state: State::Connecting, connect: Some(connect), .. }) = self.conns.get(key) {
            self.fail_connect(key, ConnectFailure::TimedOut(connect.within));
        }
    }

    /// Gives up a connect.
    pub(super) fn fail_connect(&mut self, key: Key, why: ConnectFailure) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(connect) = &conn.connect else { return };
        let error = ConnectError { to: connect.to, why };
        self.connects_failed.push_back((conn_id(key), connect.token, error));
        // The socket is not shut down: the operation would try again.
        conn.state = State::Dead;
        self.cancel(Op::Connect(key));
    }
}

fn open_socket(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    prepare_socket(&socket);
    Ok(socket)
}

/// Returns the addresses of a connected socket.
fn endpoints(socket: &OwnedFd, to: SocketAddr) -> Result<Endpoints, ConnectFailure> {
    let local = rustix::net::getsockname(socket).map_err(|e| failure_of(&e.into()))?;
    let local = SocketAddr::try_from(local).map_err(|e| failure_of(&e.into()))?;
    let endpoints = Endpoints::new(to, local);
    if is_connected_to_itself(endpoints) { Err(ConnectFailure::Refused) } else { Ok(endpoints) }
}

/// Returns whether the kernel has connected a socket to itself. It does when nothing listens at a port of this machine and it chooses
/// that port as the local one.
fn is_connected_to_itself(endpoints: Endpoints) -> bool {
    endpoints.local == endpoints.peer
}

fn failure_of(e: &io::Error) -> ConnectFailure {
    match e.raw_os_error() {
        Some(libc::ECONNREFUSED) => ConnectFailure::Refused,
        Some(
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN | libc::EAFNOSUPPORT,
        ) => ConnectFailure::Unreachable(e.to_string()),
        Some(libc::EMFILE | libc::ENFILE) => ConnectFailure::OutOfFiles(e.to_string()),
        _ => ConnectFailure::Failed(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_connected_to_itself_is_recognized() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal");
        let (a, b) = (address("127.0.0.1:40000"), address("127.0.0.1:40001"));
        assert!(is_connected_to_itself(Endpoints::new(a, a)));
        assert!(!is_connected_to_itself(Endpoints::new(a, b)));
    }

    #[test]
    fn errors_of_the_operating_system_keep_their_kind() {
        let failure = |code| failure_of(&io::Error::from_raw_os_error(code));
        assert_eq!(failure(libc::ECONNREFUSED), ConnectFailure::Refused);
        assert!(matches!(failure(libc::EHOSTUNREACH), ConnectFailure::Unreachable(_)));
        assert!(matches!(failure(libc::ENETUNREACH), ConnectFailure::Unreachable(_)));
        assert!(matches!(failure(libc::EMFILE), ConnectFailure::OutOfFiles(_)));
        assert!(matches!(failure(libc::ETIMEDOUT), ConnectFailure::Failed(_)));
        let error = ConnectError { to: ([10, 0, 0, 1], 9092).into(), why: failure(libc::ETIMEDOUT) };
        let text = error.to_string();
        assert!(
            text.starts_with("cannot connect to 10.0.0.1:9092: ") && text.contains("timed out"),
            "{text}"
        );
    }
}

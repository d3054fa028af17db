//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Connections that the kernel may queue for a listening socket until a shard accepts them.
const BACKLOG: i32 = 4096;

/// An address of this process at which nothing listens yet: connections are refused.
#[derive(Debug)]
pub struct ReservedAddress {
    socket: TcpListener,
    address: SocketAddr,
}

/// Reserves an address. Port 0 selects a free port.
///
/// A port that is already in use is an error that names the address: `SO_REUSEPORT`, with which two brokers would silently share a
/// port, is never set. `SO_REUSEADDR` is set, so that a restarted broker need not wait for old connections to time out.
pub fn reserve(address: SocketAddr) -> io::Result<ReservedAddress> {
    open(address).map_err(|e| explain(address, &e))
}

/// Listens on an address, as [`reserve`] and then [`ReservedAddress::listen`] do.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    reserve(address)?.listen()
}

impl ReservedAddress {
    /// Returns the address, with its actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections from now on. Sockets of repeated calls accept from one queue.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let listen = || {
            rustix::net::listen(&self.socket, BACKLOG)?;
            self.socket.try_clone()
        };
        listen().map_err(|e| explain(self.address, &e))
    }
}

fn open(address: SocketAddr) -> io::Result<ReservedAddress> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    let socket = TcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok(ReservedAddress { socket, address })
}

fn explain(address: SocketAddr, e: &io::Error) -> io::Error {
    // The kernel has no IPv6.
    let is_foreign_family = e.raw_os_error() == Some(libc::EAFNOSUPPORT);
    let kind = if is_foreign_family { io::ErrorKind::AddrNotAvailable } else { e.kind() };
    let why = match kind {
        io::ErrorKind::AddrInUse => format!(
            "cannot listen on {address}: the port is in use; stop the process that holds it (`ss -ltnp 'sport = :{}'`) or choose another port",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "cannot listen on {address}: this machine has no such address; use one of its own, or 0.0.0.0 for all"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {address}: not permitted; ports below 1024 need CAP_NET_BIND_SERVICE")
        }
        _ => format!("cannot listen on {address}: {e}"),
    };
    io::Error::new(kind, why)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let first = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = first.local_addr().expect("address");
        let e = bind(address).expect_err("the port is taken");
        assert_eq!(e.kind(), io::ErrorKind::AddrInUse);
        assert!(e.to_string().contains(&address.to_string()), "{e}");
        drop(first);
        bind(address).expect("free again");
    }

    #[test]
    fn a_reserved_address_refuses_connections_until_it_is_listened_on() {
        let reserved = reserve(([127, 0, 0, 1], 0).into()).expect("a free port");
        let refused = TcpStream::connect(reserved.address()).expect_err("nothing listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let first = reserved.listen().expect("it is ours");
        let _again = reserved.listen().expect("it still is");
        TcpStream::connect(reserved.address()).expect("it listens");
        assert_eq!(first.local_addr().expect("address"), reserved.address());
    }

    #[test]
    fn a_foreign_address_is_an_error_that_says_what_to_do() {
        let e = bind(([192, 0, 2, 1], 0).into()).expect_err("no host has an address of TEST-NET-1");
        assert!(e.to_string().contains("0.0.0.0"), "{e}");
    }
}

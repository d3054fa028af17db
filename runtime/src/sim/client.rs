//! A test's connection to a simulated node.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::network::{Network, Socket};
use super::pipe::StreamEnd;

/// How a connection ended, as seen by the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEnd {
    /// The node closed it after sending everything.
    Finished,
    /// It broke, or was not accepted.
    Reset,
}

/// The client's end of a connection, created by [`SimWorld::connect`](super::SimWorld::connect). Data moves only while the world
/// runs. Dropping it closes the connection.
pub struct SimClient {
    network: Rc<RefCell<Network>>,
    socket: Socket,
    finished: bool,
    closed: bool,
}

impl SimClient {
    pub(super) fn new(network: Rc<RefCell<Network>>, socket: Socket) -> Self {
        Self { network, socket, finished: false, closed: false }
    }

    /// Sends bytes; they are queued until the peer reads.
    pub fn send(&mut self, data: impl Into<Bytes>) {
        assert!(!self.finished && !self.closed, "cannot send on a closed connection");
        self.network.borrow_mut().send(self.socket, data.into());
    }

    /// Returns the bytes that are queued for sending.
    pub fn send_queue_bytes(&self) -> usize {
        self.network.borrow().queued_bytes(self.socket)
    }

    /// Returns the bytes that have arrived and were not received yet.
    pub fn available_bytes(&self) -> usize {
        self.network.borrow().arrived_bytes(self.socket)
    }

    /// Receives everything that has arrived. A client that does not receive blocks the sender.
    pub fn receive(&mut self) -> Vec<u8> {
        self.receive_up_to(usize::MAX)
    }

    /// Receives at most `bytes` bytes of what has arrived.
    pub fn receive_up_to(&mut self, bytes: usize) -> Vec<u8> {
        self.network.borrow_mut().read(self.socket, bytes)
    }

    /// Returns how the connection ended, once everything before its end was received.
    pub fn end(&self) -> Option<ClientEnd> {
        match self.network.borrow().end(self.socket)? {
            StreamEnd::Fin => Some(ClientEnd::Finished),
            StreamEnd::Reset | StreamEnd::TimedOut => Some(ClientEnd::Reset),
        }
    }

    /// Ends the sending side after everything queued; receiving continues.
    pub fn finish(&mut self) {
        self.finished = true;
        self.network.borrow_mut().finish_sending(self.socket);
    }

    /// Closes the connection after everything queued; bytes that arrive later are discarded.
    pub fn close(&mut self) {
        self.closed = true;
        self.network.borrow_mut().finish(self.socket);
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        self.closed = true;
        self.network.borrow_mut().abandon(self.socket, true);
    }

    /// Blocks the connection in both directions until [`heal`](SimClient::heal).
    pub fn cut(&mut self) {
        self.network.borrow_mut().set_cut(self.socket.link, true);
    }

    /// Ends a [`cut`](SimClient::cut).
    pub fn heal(&mut self) {
        self.network.borrow_mut().set_cut(self.socket.link, false);
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        if !self.closed {
            self.close();
        }
    }
}

//! A connection of the test to a simulated node.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::network::{LinkId, Network, Side, StreamEnd};

/// How a connection ended, seen from the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEnd {
    /// The node closed it after everything it had sent.
    Finished,
    /// It broke, or nobody accepted it.
    Reset,
}

/// The client's end of a connection; made by [`SimWorld::connect`](super::SimWorld::connect). Nothing moves until the world does.
/// Dropping it closes the connection.
pub struct SimClient {
    network: Rc<RefCell<Network>>,
    link: LinkId,
    finished: bool,
    closed: bool,
}

impl SimClient {
    pub(super) fn new(network: Rc<RefCell<Network>>, link: LinkId) -> Self {
        Self { network, link, finished: false, closed: false }
    }

    /// Sends bytes; they may wait for the other side to read.
    pub fn send(&mut self, data: impl Into<Bytes>) {
        assert!(!self.finished && !self.closed, "nothing is sent on a closed connection");
        self.network.borrow_mut().send(self.link, Side::Connecting, data.into());
    }

    /// Bytes that are waiting to be sent.
    pub fn send_queue_bytes(&self) -> usize {
        self.network.borrow().queued_bytes(self.link, Side::Connecting)
    }

    /// Bytes that have arrived and were not yet received.
    pub fn available_bytes(&self) -> usize {
        self.network.borrow().arrived_bytes(self.link, Side::Connecting)
    }

    /// Takes everything that has arrived. A client that never calls this holds the sender back.
    pub fn receive(&mut self) -> Vec<u8> {
        self.receive_up_to(usize::MAX)
    }

    /// Takes up to so many bytes of what has arrived.
    pub fn receive_up_to(&mut self, bytes: usize) -> Vec<u8> {
        self.network.borrow_mut().read(self.link, Side::Connecting, bytes)
    }

    /// Whether the other side has ended it, and everything before that was received.
    pub fn end(&self) -> Option<ClientEnd> {
        match self.network.borrow().end(self.link, Side::Connecting)? {
            StreamEnd::Fin => Some(ClientEnd::Finished),
            StreamEnd::Reset => Some(ClientEnd::Reset),
        }
    }

    /// Sends the end after everything queued; goes on receiving.
    pub fn finish(&mut self) {
        self.finished = true;
        self.network.borrow_mut().finish_sending(self.link, Side::Connecting);
    }

    /// Ends it after everything queued; what still comes is thrown away.
    pub fn close(&mut self) {
        self.closed = true;
        self.network.borrow_mut().finish(self.link, Side::Connecting);
    }

    /// Breaks it.
    pub fn reset(&mut self) {
        self.closed = true;
        self.network.borrow_mut().abandon(self.link, Side::Connecting, true);
    }

    /// Nothing gets through in either direction until [`heal`](SimClient::heal).
    pub fn cut(&mut self) {
        self.network.borrow_mut().set_cut(self.link, true);
    }

    /// Ends a cut.
    pub fn heal(&mut self) {
        self.network.borrow_mut().set_cut(self.link, false);
    }
}

impl Drop for SimClient {
    fn drop(&mut self) {
        if !self.closed {
            self.close();
        }
    }
}

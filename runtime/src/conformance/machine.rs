//! The interface between a scenario and the plane that runs the application.

use std::net::SocketAddr;

use crate::sim::SimRng;

/// A client's connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(pub usize);

/// Runs a [`TestApp`](super::TestApp) on each shard of a plane, and connects clients. Panics if anything exceeds a generous time
/// limit.
pub trait Machine {
    /// Starts that many shards with that many listeners. Called once.
    fn start(&mut self, shards: u16, listeners: u16);
    /// Connects a client.
    fn connect(&mut self, listener: u16) -> ClientId;
    /// Returns the address that a client connected to.
    fn address(&self, client: ClientId) -> SocketAddr;
    /// Returns an address that refuses connections.
    fn refusing(&mut self) -> SocketAddr;
    /// Returns an address that does not answer connection requests.
    fn unanswering(&mut self) -> SocketAddr;
    /// Sends, now or during a later wait. Never waits.
    fn send(&mut self, client: ClientId, data: &[u8]);
    /// Waits for at most `bytes_max` bytes. Returns none if the connection has ended or is broken.
    fn receive(&mut self, client: ClientId, bytes_max: usize) -> Vec<u8>;
    /// Closes the sending side after everything was sent; receiving continues.
    fn finish(&mut self, client: ClientId);
    /// Closes a client's connection.
    fn close(&mut self, client: ClientId);
    /// Resets a client's connection.
    fn reset(&mut self, client: ClientId);
    /// Asks the shards to stop.
    fn shutdown(&mut self);
    /// Waits until all shards have stopped.
    fn wait(&mut self);
    /// Randomness for the scenario.
    fn random(&mut self) -> &mut SimRng;
}

/// Receives exactly `bytes` bytes.
pub(super) fn receive_exact(machine: &mut dyn Machine, client: ClientId, bytes: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        let part = machine.receive(client, bytes - all.len());
        assert!(!part.is_empty(), "the connection ended after {} of {bytes} bytes", all.len());
        all.extend(part);
    }
    all
}

/// Receives until the connection ends.
pub(super) fn receive_to_end(machine: &mut dyn Machine, client: ClientId) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let part = machine.receive(client, usize::MAX);
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

/// Receives these bytes exactly.
pub(super) fn expect(machine: &mut dyn Machine, client: ClientId, what: &[u8]) {
    let got = receive_exact(machine, client, what.len());
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(what));
}

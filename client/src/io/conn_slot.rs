//! A slot for a connection: the current connection, and the backoff of attempts to establish one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::conn::Conn;
use crate::core::backoff::Backoff;
use crate::lock::lock;

/// A slot for a connection to one shard.
#[derive(Debug)]
pub(super) struct ConnSlot {
    conn: Mutex<Option<(Arc<Conn>, Instant)>>,
    /// Locked while connecting, so that there is one attempt at a time.
    pub(super) attempts: tokio::sync::Mutex<Attempts>,
}

#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl ConnSlot {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            conn: Mutex::default(),
            attempts: tokio::sync::Mutex::new(Attempts { backoff, not_before: None }),
        }
    }

    /// Returns the connection and when it was established.
    pub(super) fn conn(&self) -> MutexGuard<'_, Option<(Arc<Conn>, Instant)>> {
        lock(&self.conn)
    }

    pub(super) fn live(&self) -> Option<Arc<Conn>> {
        self.conn().as_ref().map(|(conn, _)| conn.clone()).filter(|conn| !conn.is_closed())
    }
}

impl Attempts {
    /// Waits for the pause after the last failure to end.
    pub(super) async fn wait(&mut self) {
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at.into()).await;
        }
    }

    /// Counts a failure and returns the pause until the next attempt.
    pub(super) fn fail(&mut self) -> Duration {
        let wait = self.backoff.fail(rand::random());
        self.not_before = Some(Instant::now() + wait);
        wait
    }

    /// Returns the number of failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    pub(super) fn succeed(&mut self) {
        self.backoff.succeed();
        self.not_before = None;
    }
}

/// Returns whether an advertised address can be connected to. The wildcard address, which means every address of the
/// broker's machine, cannot.
pub(super) fn is_connectable(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    !matches!(host, "" | "0.0.0.0" | "[::]" | "::")
}

#[cfg(test)]
mod tests {
    use super::is_connectable;

    #[test]
    fn a_wildcard_address_cannot_be_connected_to() {
        for address in ["0.0.0.0:9191", "[::]:9191", ":9191", ""] {
            assert!(!is_connectable(address), "{address}");
        }
        for address in ["localhost:9191", "10.0.0.1:9191", "[::1]:9191", "broker-0.example:1"] {
            assert!(is_connectable(address), "{address}");
        }
    }
}

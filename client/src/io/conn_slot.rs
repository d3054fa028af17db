//! A place for a connection: the one there is, and the pace of attempts to make one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::conn::Conn;
use crate::core::backoff::Backoff;
use crate::lock::lock;

/// A place for a connection.
#[derive(Debug)]
pub(super) struct ConnSlot {
    conn: Mutex<Option<(Arc<Conn>, Instant)>>,
    /// Held while connecting: one attempt at a time.
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

    /// The connection and since when it stands.
    pub(super) fn conn(&self) -> MutexGuard<'_, Option<(Arc<Conn>, Instant)>> {
        lock(&self.conn)
    }

    pub(super) fn live(&self) -> Option<Arc<Conn>> {
        self.conn().as_ref().map(|(conn, _)| conn.clone()).filter(|conn| !conn.is_closed())
    }
}

impl Attempts {
    /// Waits out the pause that the last failure asks for.
    pub(super) async fn wait(&mut self) {
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at.into()).await;
        }
    }

    /// Counts a failure and says how long it will be until the next attempt.
    pub(super) fn fail(&mut self) -> Duration {
        let wait = self.backoff.fail(rand::random());
        self.not_before = Some(Instant::now() + wait);
        wait
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    pub(super) fn succeed(&mut self) {
        self.backoff.succeed();
        self.not_before = None;
    }
}

/// Whether an advertised address can be connected to: the address that means "every address of this machine" cannot.
pub(super) fn is_connectable(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    !matches!(host, "" | "0.0.0.0" | "[::]" | "::")
}

#[cfg(test)]
mod tests {
    use super::is_connectable;

    #[test]
    fn an_address_that_means_every_address_is_no_place_to_connect_to() {
        for address in ["0.0.0.0:9191", "[::]:9191", ":9191", ""] {
            assert!(!is_connectable(address), "{address}");
        }
        for address in ["localhost:9191", "10.0.0.1:9191", "[::1]:9191", "broker-0.example:1"] {
            assert!(is_connectable(address), "{address}");
        }
    }
}

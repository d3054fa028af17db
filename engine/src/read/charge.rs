//! Counts of memory in use, on any shard.
//!
//! The memory of a read is charged to the shard that reads, before the read begins. The charge moves with the bytes, even to another shard, and
//! ends when the last slice of them is dropped: when they have been sent, or their connection is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use highwater_runtime::plane::SEND_COPY_BYTES_MAX;

/// A count of bytes in use. Clones share it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        let before = self.0.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "{bytes} bytes released of {before}");
    }
}

/// Bytes of a shard's memory that a connection has reserved. They are freed when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    shard: Gauge,
    connection: Gauge,
}

impl Charge {
    pub(crate) fn new(bytes: usize, shard: &Gauge, connection: &Gauge) -> Self {
        shard.add(bytes);
        connection.add(bytes);
        Self { bytes, shard: shard.clone(), connection: connection.clone() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frees all but `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        drop(self.split(rest));
    }

    /// Splits off a charge of `bytes`, or of all that are left.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { bytes, shard: self.shard.clone(), connection: self.connection.clone() }
    }

    /// Returns a charge to the same connection for bytes that are in memory already.
    pub(crate) fn of_copy(&self, bytes: usize) -> Self {
        Self::new(bytes, &self.shard, &self.connection)
    }

    /// Attaches the charge to slices, in proportion to their length. Slices that are so small that the plane copies them are not charged.
    pub(crate) fn hold_all(mut self, slices: Vec<Bytes>) -> Vec<Bytes> {
        let (memory, total) = (self.bytes, slices.iter().map(Bytes::len).sum::<usize>().max(1));
        let hold = |slice: Bytes| {
            let part = self.split(memory * slice.len() / total);
            if slice.len() > SEND_COPY_BYTES_MAX { part.hold(slice) } else { slice }
        };
        slices.into_iter().map(hold).collect()
    }

    /// Attaches the charge to `bytes` until their last slice is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shard.take(self.bytes);
        self.connection.take(self.bytes);
    }
}

struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_charged_until_their_last_slice_is_dropped() {
        let (shard, connection) = (Gauge::default(), Gauge::default());
        let mut charge = Charge::new(1000, &shard, &connection);
        charge.shrink_to(700);
        let first = charge.split(300).hold(Bytes::from(vec![1; 200]));
        let second = charge.hold(Bytes::from(vec![2; 400]));
        assert_eq!((shard.bytes(), connection.bytes()), (700, 700));
        let slice = first.slice(10..20);
        drop(first);
        assert_eq!(shard.bytes(), 700);
        drop(slice);
        assert_eq!((shard.bytes(), connection.bytes()), (400, 400));
        std::thread::spawn(move || drop(second)).join().expect("it ends");
        assert_eq!((shard.bytes(), connection.bytes()), (0, 0));
    }
}

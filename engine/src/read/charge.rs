//! Memory that is counted for as long as it is in use, wherever that is.
//!
//! What a read holds is charged before it is read, to the shard that reads. The charge goes along with the bytes, also to another shard, and
//! ends with the last slice of them: when they were sent, or when their connection is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use highwater_runtime::plane::SEND_COPY_BYTES_MAX;

/// Bytes of memory in use. Clones count the same.
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

/// Bytes of memory that a connection has of a shard's. They are given back when this is dropped.
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

    /// Gives back all but so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        drop(self.split(rest));
    }

    /// A charge of so many of its bytes, or all that it has.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { bytes, shard: self.shard.clone(), connection: self.connection.clone() }
    }

    /// A charge of the same connection for bytes that are in memory already.
    pub(crate) fn of_copy(&self, bytes: usize) -> Self {
        Self::new(bytes, &self.shard, &self.connection)
    }

    /// What was read, each slice charged for by its length. What is so small that the plane copies it is not charged any more.
    pub(crate) fn hold_all(mut self, slices: Vec<Bytes>) -> Vec<Bytes> {
        let (memory, total) = (self.bytes, slices.iter().map(Bytes::len).sum::<usize>().max(1));
        let hold = |slice: Bytes| {
            let part = self.split(memory * slice.len() / total);
            if slice.len() > SEND_COPY_BYTES_MAX { part.hold(slice) } else { slice }
        };
        slices.into_iter().map(hold).collect()
    }

    /// The bytes, which are charged for until the last slice of them is dropped.
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
    fn what_is_held_is_charged_until_its_last_slice_is_gone() {
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

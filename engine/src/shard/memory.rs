//! The memory that a shard uses for requests and for data on its way to clients.

use highwater_runtime::plane::ConnId;

use super::Shard;

impl Shard {
    /// Returns the bytes of memory of requests and of data on its way to clients.
    pub fn memory_bytes(&self) -> usize {
        self.admission.used_bytes() + self.send_budget.used()
    }

    /// Returns the bytes of memory of data on its way to clients.
    pub fn send_bytes(&self) -> usize {
        self.send_budget.used()
    }

    /// Returns the bytes of memory that the decoders of checks use.
    pub fn decoder_bytes(&self) -> usize {
        self.partitions.decoder_bytes()
    }

    /// Panics unless the charges of all connections add up to the memory in use, for requests and for data on its way to clients.
    pub fn assert_memory_adds_up(&self) {
        let requests: usize = self.connections.values().map(|connection| connection.charged.total()).sum();
        let is_gone = |conn: &ConnId| !self.connections.contains_key(conn);
        let left: usize =
            self.kafka.producing().filter(|(conn, _)| is_gone(conn)).map(|(_, bytes)| bytes).sum();
        assert_eq!(self.admission.used_bytes(), requests + left, "memory for requests");
        let queued: usize = self.connections.values().map(|connection| connection.queue.uncharged()).sum();
        let native: usize = self.connections.values().map(|connection| connection.account.held()).sum();
        self.send_budget.assert_adds_up(
            queued,
            native + self.kafka.held() + self.searches.held() + self.compaction.held(),
        );
    }
}

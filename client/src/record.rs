//! Records to send and records received.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use highwater_protocol::ids::{Offset, Timestamp};

/// A record to send.
///
/// ```
/// use highwater_client::Record;
///
/// let record = Record::new("paid").key("u-42").header("trace", "7f3a");
/// assert_eq!(record.value(), Some(&b"paid"[..]));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<RecordHeader>,
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) partition: Option<u32>,
    pub(crate) timestamp: Option<Timestamp>,
}

/// A header of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// The header's name. UTF-8 by convention; nothing enforces it.
    pub key: Bytes,
    /// The header's value.
    pub value: Option<Bytes>,
}

impl Record {
    /// Creates a record with this value.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::tombstone() }
    }

    /// Creates a record without a value. In a compacted topic it deletes its key.
    pub fn tombstone() -> Self {
        Self { key: None, value: None, headers: Vec::new(), topic: None, partition: None, timestamp: None }
    }

    /// Sets the key. Records with the same key go to the same partition, in order: the partition that a Kafka client
    /// would choose.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(RecordHeader { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Adds a header without a value.
    #[must_use]
    pub fn null_header(mut self, key: impl Into<Bytes>) -> Self {
        self.headers.push(RecordHeader { key: key.into(), value: None });
        self
    }

    /// Sets the topic, if it is not the producer's own. A producer can send to many topics. To send many records to one
    /// of them, pass a clone of an `Arc<str>`.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Sets the partition, whatever the key is.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp. Default: the time of sending.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Returns the value.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Returns the key, if there is one.
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Returns key and value, for example of a record that [`TrySendError`](crate::TrySendError) returned.
    pub fn into_parts(self) -> (Option<Bytes>, Option<Bytes>) {
        (self.key, self.value)
    }

    /// Returns the topic, if it was set.
    pub fn topic_name(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &[RecordHeader] {
        &self.headers
    }

    /// Returns the bytes that the record takes of the producer's buffer. Never less than it takes in a batch.
    pub(crate) fn charge(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize =
            self.headers.iter().map(|header| header.key.len() + len(&header.value) + 10).sum();
        RECORD_OVERHEAD_BYTES + len(&self.key) + len(&self.value) + headers
    }
}

/// Maximum encoded size of a record's length, attributes and deltas, and of the lengths of its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 36;

impl From<Bytes> for Record {
    fn from(value: Bytes) -> Self {
        Self::new(value)
    }
}

/// A received record that shares the memory it arrived in.
///
/// Cheap to clone. Keeping one keeps the buffer of its whole batch alive; copy what you keep for long.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConsumedRecord {
    /// The topic it was read from.
    pub topic: Arc<str>,
    /// The partition it was read from.
    pub partition: u32,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<RecordHeader>,
}

impl ConsumedRecord {
    /// Returns the value; empty for a tombstone.
    pub fn value(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }

    /// Returns the key, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }
}

/// Returns the current time in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::batch::{BatchBuilder, Compression, Header, NewRecord};

    #[test]
    fn into_parts_returns_the_key_and_the_value_of_a_record() {
        let value = Bytes::from(vec![7; 100]);
        let (key, back) = Record::new(value.clone()).key("k").into_parts();
        assert_eq!(key.as_deref(), Some(&b"k"[..]));
        assert_eq!(back.map(|back| back.as_ptr()), Some(value.as_ptr()));
        assert_eq!(Record::tombstone().into_parts(), (None, None));
    }

    #[test]
    fn the_charge_of_a_record_covers_its_encoded_size() {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.append(&NewRecord::new(Timestamp(i64::MAX), None, None)).unwrap();
        for len in [0, 1, 63, 64, 8191, 8192, 1 << 20] {
            let record = Record::new(vec![0; len]).key(vec![1; len / 2]).header(vec![2; len / 3], "x");
            let headers = [Header { key: &record.headers[0].key, value: Some(b"x") }];
            let (key, value) = (record.key_bytes(), record.value());
            // The maximum timestamp delta.
            let new = NewRecord { timestamp: Timestamp(i64::MIN), key, value, headers: &headers };
            let taken = builder.bytes_with(&new) - builder.bytes();
            assert!(record.charge() >= taken, "{len}: {} < {taken}", record.charge());
        }
    }
}

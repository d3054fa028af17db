//! Records that were not delivered, for the caller who did not wait for each of them.

use std::fmt;

use crate::error::{Outcome, ProduceError};
use crate::limits::FAILED_RECORDS_MAX;
use crate::record::Record;

/// Records that failed, returned by [`Producer::flush`](crate::Producer::flush) and [`Producer::close`](crate::Producer::close).
///
/// These are the records that failed since the last flush and whose [`Delivery`](crate::Delivery) did not return the error, for example
/// because it was dropped. Each is reported once.
#[derive(Clone, Debug)]
pub struct DeliveryError {
    count: u64,
    first: ProduceError,
    records: Vec<FailedRecord>,
}

/// A record that was not delivered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedRecord {
    /// The record, with the topic, the partition and the timestamp that were chosen for it: it can be sent again as it is.
    pub record: Record,
    /// Why it failed. [`ProduceError::outcome`] says whether it may have been written all the same.
    pub error: ProduceError,
}

impl DeliveryError {
    /// Maximum number of failed records that are kept until a flush, as long as they fit into 1 MiB. More are counted. What
    /// [`Producer::close`](crate::Producer::close) gives up is returned whole.
    pub const RECORDS_MAX: usize = FAILED_RECORDS_MAX;

    pub(crate) fn new(count: u64, first: ProduceError, records: Vec<FailedRecord>) -> Self {
        Self { count, first, records }
    }

    /// Both, of two topics.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.count += other.count;
        self.records.extend(other.records);
        self
    }

    /// How many records failed. At least one.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Why the first of them failed.
    pub fn first(&self) -> &ProduceError {
        &self.first
    }

    /// The records that are still there, those of a partition in order: the first of those that failed, and all that closing gave up.
    pub fn records(&self) -> &[FailedRecord] {
        &self.records
    }

    /// As [`DeliveryError::records`], to be sent again or put elsewhere.
    pub fn into_records(self) -> Vec<FailedRecord> {
        self.records
    }
}

impl FailedRecord {
    /// Whether the record was written.
    pub fn outcome(&self) -> Outcome {
        self.error.outcome()
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "a record was not delivered: {}", self.first),
            count => write!(f, "{count} records were not delivered; the first: {}", self.first),
        }
    }
}

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.first)
    }
}

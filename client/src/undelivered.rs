//! Failed records whose deliveries did not return the error.

use std::fmt;

use crate::error::{ProduceError, WriteOutcome};
use crate::limits::FAILED_RECORDS_MAX;
use crate::record::Record;

/// Failed records, returned by [`Producer::flush`](crate::Producer::flush) and [`Producer::close`](crate::Producer::close).
///
/// Contains the records that failed since the last flush and whose [`Delivery`](crate::Delivery) did not return the error, for
/// example because it was dropped. Each failure is reported once.
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
    /// The record, with the topic, partition and timestamp chosen for it: it can be sent again as it is.
    pub record: Record,
    /// Why it failed. [`ProduceError::outcome`] says whether it may have been written anyway.
    pub error: ProduceError,
}

impl DeliveryError {
    /// Maximum number of failed records kept until a flush. They are also limited to 1 MiB. Further failures are only
    /// counted. Records that [`Producer::close`](crate::Producer::close) gives up are all returned.
    pub const RECORDS_MAX: usize = FAILED_RECORDS_MAX;

    pub(crate) fn new(count: u64, first: ProduceError, records: Vec<FailedRecord>) -> Self {
        Self { count, first, records }
    }

    /// Merges the failures of two topics.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.count += other.count;
        self.records.extend(other.records);
        self
    }

    /// Returns the number of failed records. At least one.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns why the first record failed.
    pub fn first(&self) -> &ProduceError {
        &self.first
    }

    /// Returns the failed records that were kept, in order for each partition: the first that failed, and all that
    /// closing gave up.
    pub fn records(&self) -> &[FailedRecord] {
        &self.records
    }

    /// Like [`DeliveryError::records`], by value, for example to send them again.
    pub fn into_records(self) -> Vec<FailedRecord> {
        self.records
    }
}

impl FailedRecord {
    /// Returns whether the record was written.
    pub fn outcome(&self) -> WriteOutcome {
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

//! Failed records whose failure was not reported to the user.
//!
//! A failure is *seen* when its delivery returns the error. The next flush or close reports the failures that were not
//! seen until then and starts a new period; deliveries of earlier periods do not change the log any more.

use std::sync::{Arc, Mutex};

use crate::error::ProduceError;
use crate::limits::{FAILED_RECORDS_BYTES_MAX, FAILED_RECORDS_MAX};
use crate::lock::lock;
use crate::record::Record;
use crate::undelivered::{DeliveryError, FailedRecord};

/// See the module documentation. Clones share one log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures(Arc<Mutex<FailureLog>>);

#[derive(Debug, Default)]
struct FailureLog {
    period: u64,
    /// Number of failed batches in this period.
    batches: u64,
    unreported: u64,
    first: Option<ProduceError>,
    kept: Vec<KeptRecord>,
    kept_bytes: usize,
}

#[derive(Debug)]
struct KeptRecord {
    batch: u64,
    index: u32,
    failed: FailedRecord,
}

/// Why a batch failed, and its entry in the log.
#[derive(Clone, Debug)]
pub(crate) struct BatchFailure {
    pub(crate) error: ProduceError,
    records: u32,
    log: Failures,
    period: u64,
    batch: u64,
}

impl Failures {
    /// Adds a failed batch of `count` records. `records` returns those that still exist; how many are kept is limited
    /// unless `keep_all`.
    pub(crate) fn add(
        &self,
        count: u32,
        error: ProduceError,
        records: impl FnOnce(usize) -> Vec<Record>,
        keep_all: bool,
    ) -> BatchFailure {
        let mut log = lock(&self.0);
        let batch = log.batches;
        log.batches += 1;
        log.unreported += u64::from(count);
        log.first.get_or_insert_with(|| error.clone());
        let room = if keep_all { usize::MAX } else { FAILED_RECORDS_MAX.saturating_sub(log.kept.len()) };
        let records = if room == 0 { Vec::new() } else { records(room) };
        for (index, record) in (0..).zip(records) {
            let bytes = log.kept_bytes + record.charge();
            if !keep_all && bytes > FAILED_RECORDS_BYTES_MAX {
                break;
            }
            log.kept_bytes = bytes;
            log.kept.push(KeptRecord { batch, index, failed: FailedRecord { record, error: error.clone() } });
        }
        BatchFailure { error, records: count, log: self.clone(), period: log.period, batch }
    }

    /// Takes the unreported failures and starts a new period.
    pub(crate) fn take(&self) -> Option<DeliveryError> {
        let mut log = lock(&self.0);
        let next = FailureLog { period: log.period + 1, ..FailureLog::default() };
        let FailureLog { unreported, first, kept, .. } = std::mem::replace(&mut *log, next);
        let first = first.filter(|_| unreported > 0)?;
        let records: Vec<_> = kept.into_iter().map(|kept| kept.failed).collect();
        let first = records.first().map_or(first, |failed| failed.error.clone());
        Some(DeliveryError::new(unreported, first, records))
    }
}

impl BatchFailure {
    /// Marks a record as seen: its delivery has returned the error.
    pub(crate) fn mark_seen(&self, index: u32) {
        let mut log = lock(&self.log.0);
        if log.period != self.period {
            return;
        }
        log.unreported -= 1;
        let is_it = |kept: &KeptRecord| (kept.batch, kept.index) == (self.batch, index);
        if let Some(at) = log.kept.iter().position(is_it) {
            let kept = log.kept.remove(at);
            log.kept_bytes -= kept.failed.record.charge();
        }
    }

    /// Returns the failure without its records, if another flush has taken it.
    pub(crate) fn taken(&self) -> Option<DeliveryError> {
        let is_taken = lock(&self.log.0).period != self.period;
        is_taken.then(|| DeliveryError::new(self.records.into(), self.error.clone(), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ProduceErrorKind, WriteOutcome};

    fn error(text: &str) -> ProduceError {
        ProduceError::new(ProduceErrorKind::TimedOut, WriteOutcome::NotWritten, text)
    }

    fn add(failures: &Failures, count: u32, bytes: usize) -> BatchFailure {
        let records = |max| (0..count as usize).take(max).map(|_| Record::new(vec![7; bytes])).collect();
        failures.add(count, error("late"), records, false)
    }

    #[test]
    fn unseen_failures_are_taken_once_with_their_records() {
        let failures = Failures::default();
        assert!(failures.take().is_none());
        let batch = add(&failures, 3, 10);
        batch.mark_seen(1);
        let taken = failures.take().unwrap();
        assert_eq!((taken.count(), taken.records().len()), (2, 2));
        assert!(failures.take().is_none());
        // A delivery of an earlier period changes nothing.
        batch.mark_seen(0);
        add(&failures, 1, 10);
        assert_eq!(failures.take().unwrap().count(), 1);
    }

    #[test]
    fn failures_seen_by_all_deliveries_are_forgotten() {
        let failures = Failures::default();
        let batch = add(&failures, 2, 10);
        batch.mark_seen(0);
        batch.mark_seen(1);
        assert!(failures.take().is_none());
    }

    #[test]
    fn records_are_kept_up_to_their_limits_and_counted_beyond() {
        let failures = Failures::default();
        for _ in 0..50 {
            add(&failures, 1000, 10);
        }
        let taken = failures.take().unwrap();
        assert_eq!((taken.count(), taken.records().len()), (50_000, FAILED_RECORDS_MAX));
        for _ in 0..50 {
            add(&failures, 1, 100_000);
        }
        let taken = failures.take().unwrap();
        assert_eq!((taken.count(), taken.records().len()), (50, 10));
    }

    #[test]
    fn two_waiters_for_the_same_batch_both_get_its_failure() {
        let failures = Failures::default();
        let batch = add(&failures, 4, 10);
        assert!(batch.taken().is_none());
        failures.take().unwrap();
        assert_eq!(batch.taken().unwrap().count(), 4);
    }
}

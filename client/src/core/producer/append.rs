//! Adds records to batches, and completes a batch that is full or has its number of records.

use std::time::Instant;

use highwater_protocol::batch::{AppendError, Header, NewRecord};
use highwater_protocol::ids::Timestamp;
use highwater_protocol::partitioner::partition_for_key;

use super::super::lane::{Batch, Payload};
use super::{Appended, NotAppended, ProducerCore};
use crate::record::Record;

impl ProducerCore {
    /// Appends a record to the batch of its partition. `now` is called only if this opens a batch.
    pub(crate) fn append(
        &mut self,
        record: &Record,
        timestamp: Timestamp,
        charge: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Appended, NotAppended> {
        if self.closed {
            return Err(NotAppended::Closed);
        }
        let partition = self.partition_of(record)?;
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|header| Header { key: &header.key, value: header.value.as_deref() })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let record = NewRecord { timestamp, key, value, headers: &headers };
        match partition {
            Some(partition) => self.append_to(partition, &record, charge, now),
            None => self.append_sticky(&record, charge, now),
        }
    }

    /// Returns the partition that a record must go to. None: any partition.
    fn partition_of(&self, record: &Record) -> Result<Option<u32>, NotAppended> {
        let partitions = self.partitions();
        match (record.partition, &record.key) {
            (Some(partition), _) if partition < partitions => Ok(Some(partition)),
            (Some(partition), _) => Err(NotAppended::NoPartition { partition, partitions }),
            (None, _) if partitions == 0 => Err(NotAppended::NoPartition { partition: 0, partitions }),
            (None, Some(key)) => Ok(Some(partition_for_key(key, partitions))),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn append_to(
        &mut self,
        partition: u32,
        record: &NewRecord<'_>,
        charge: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Appended, NotAppended> {
        if let Some(appended) = self.append_open(partition, record, charge)? {
            return Ok(appended);
        }
        let mut builder = self.builder();
        let bytes = builder.bytes_with(record);
        if bytes > self.batch_bytes_max {
            self.spare.push(builder);
            return Err(NotAppended::TooLarge { bytes, max: self.batch_bytes_max });
        }
        if let Err(error) = builder.append(record) {
            self.spare.push(builder);
            return Err(error.into());
        }
        let now = now();
        let id = self.next_batch;
        self.next_batch += 1;
        let lane = &mut self.lanes[partition as usize];
        let closed = lane.close_open();
        let full = builder.bytes() >= self.batch_bytes || self.batch_records_max <= 1;
        let appended = lane.begin(id, builder, now).add_record(partition, charge, true);
        if full {
            lane.close_open();
        }
        self.note_closed(partition, closed || full);
        Ok(appended)
    }

    /// The lane of a partition may have something to send: a batch was opened, or closed.
    fn note_closed(&mut self, partition: u32, is_closed: bool) {
        if is_closed && partition == self.sticky_partition() {
            self.advance_sticky();
        }
        self.mark_ready(partition);
    }

    /// Appends a record to the partition's open batch, if there is one with room for it.
    pub(super) fn append_open(
        &mut self,
        partition: u32,
        record: &NewRecord<'_>,
        charge: usize,
    ) -> Result<Option<Appended>, NotAppended> {
        let Some(open) = self.lanes[partition as usize].open_mut() else { return Ok(None) };
        let Payload::Building(builder) = &mut open.payload else { panic!("an open batch is being built") };
        // The charge is an upper bound of the record's size: compute the exact size only near the limit.
        let fits = builder.bytes() + charge <= self.batch_bytes;
        if fits || builder.bytes_with(record) <= self.batch_bytes {
            match builder.append(record) {
                Ok(()) => {
                    let is_complete = open.records + 1 >= self.batch_records_max;
                    let appended = open.add_record(partition, charge, is_complete);
                    if is_complete {
                        self.lanes[partition as usize].close_open();
                        self.note_closed(partition, true);
                    }
                    return Ok(Some(appended));
                }
                Err(AppendError::Full) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

impl Batch {
    fn add_record(&mut self, partition: u32, charge: usize, wake: bool) -> Appended {
        let index = self.records;
        self.records += 1;
        self.charged += charge;
        Appended { partition, ticket: self.ticket.clone(), index, wake }
    }
}

impl From<AppendError> for NotAppended {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Headers(count) => Self::Headers(count),
            AppendError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            _ => panic!("an empty batch is never full"),
        }
    }
}

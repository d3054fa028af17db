//! Reads ahead for fetches: the next partition of a fetch while one is read from disk, and the records after those of a finished fetch. See
//! [`crate::read`].

use highwater_runtime::plane::Plane;

use super::fetch_read::room;
use super::fetch_tasks::Task;
use crate::kafka_message::PartitionRead;
use crate::limits::{READ_AHEAD_LOOKS_MAX, READ_AHEAD_PARTITIONS_MAX, READ_AHEAD_TIME_MAX};
use crate::message::Message;
use crate::read::{ReadAt, ReadMemory};
use crate::shard::Shard;
use crate::shard::timers::Timer;

impl Shard {
    /// Starts to read the next partition that is on disk while one is being read from disk, if the response has room for both.
    pub(super) fn read_ahead_in_fetch(&mut self, plane: &mut dyn Plane<Message>, task: &Task) {
        let reading = task.fetch.reads[task.reading as usize];
        let room_left = task.fetch.max_bytes.saturating_sub(task.bytes + room(task, reading));
        if room_left == 0 || task.fetched.len() >= task.fetch.reads.len() {
            return;
        }
        let next = task.fetch.reads.iter().skip(task.reading as usize + 1).take(READ_AHEAD_LOOKS_MAX);
        for read in next {
            self.kafka.read.turn.spend(0);
            let read = PartitionRead { max_bytes: read.max_bytes.min(room_left), ..*read };
            if self.read_ahead(plane, task, read) {
                return;
            }
        }
    }

    /// Starts to read the records after those of a finished fetch, if they are on disk. Its client will probably fetch them next.
    pub(super) fn read_ahead_of_next_fetch(&mut self, plane: &mut dyn Plane<Message>, task: &Task) {
        if task.failed || self.drain.is_some() {
            return;
        }
        for number in task.with_records.iter().take(READ_AHEAD_PARTITIONS_MAX) {
            let read = task.fetch.reads[*number as usize];
            let cursors = self.kafka.read.cursors.get(&(task.from, task.fetch.conn));
            let Some(cursor) = cursors.and_then(|cursors| cursors.get(&read.tp)) else { continue };
            let offset = cursor.offset();
            self.read_ahead(plane, task, PartitionRead { offset, ..read });
        }
    }

    fn read_ahead(&mut self, plane: &mut dyn Plane<Message>, task: &Task, read: PartitionRead) -> bool {
        let Ok((partition, _)) = self.partitions.answering(read.tp, read.known_epoch) else { return false };
        let Some(up_to) = self.partitions.readable_end(partition) else { return false };
        let key = (task.from, task.fetch.conn);
        let cursor = self.kafka.read.cursor(key, read.tp, read.offset);
        let at = ReadAt { partition, cursor, bytes_max: read.max_bytes.max(1), needs: 0, up_to };
        let (queued, now) = (self.uncharged_of(task), plane.now());
        let account = self.kafka.read.accounts.entry(key).or_default();
        let memory = ReadMemory { budget: &mut self.send_budget, account, queued, consumer: Some(key) };
        let begun = self.reads.begin_ahead(plane, &mut self.partitions, memory, now, at);
        if begun && !std::mem::replace(&mut self.kafka.read.has_ahead_timer, true) {
            self.timers.set_after(plane, READ_AHEAD_TIME_MAX, Timer::ReadAhead);
        }
        begun
    }

    /// Drops read-ahead data that was not fetched in time.
    pub(in crate::shard) fn expire_read_ahead(&mut self, plane: &mut dyn Plane<Message>) {
        self.kafka.read.has_ahead_timer = self.reads.expire_ahead(plane.now());
        if self.kafka.read.has_ahead_timer {
            self.timers.set_after(plane, READ_AHEAD_TIME_MAX, Timer::ReadAhead);
        }
    }
}

//! Reads ahead for fetches: the next partition of a fetch while one is read from disk, and what follows the records of a fetch that has ended. See
//! [`crate::read`].

use highwater_runtime::plane::Plane;

use super::fetch_read::room;
use super::fetch_tasks::Task;
use crate::limits::{READ_AHEAD_LOOKS_MAX, READ_AHEAD_PARTITIONS_MAX, READ_AHEAD_TIME_MAX};
use crate::message::{Message, Want};
use crate::read::{ReadAt, ReadMemory};
use crate::shard::Shard;
use crate::shard::timers::Timer;

impl Shard {
    /// A partition of a fetch is being read from disk: begins to read the next one that is on disk too, if the response has room for both.
    pub(super) fn read_ahead_in_fetch(&mut self, plane: &mut dyn Plane<Message>, task: &Task) {
        let reading = task.ask.wants[task.reading as usize];
        let left = task.ask.max_bytes.saturating_sub(task.bytes + room(task, reading));
        if left == 0 || task.fetched.len() >= task.ask.wants.len() {
            return;
        }
        let next = task.ask.wants.iter().skip(task.reading as usize + 1).take(READ_AHEAD_LOOKS_MAX);
        for want in next {
            self.kafka.read.turn.spend(0);
            let want = Want { max_bytes: want.max_bytes.min(left), ..*want };
            if self.read_ahead(plane, task, want) {
                return;
            }
        }
    }

    /// A fetch ends: begins to read what follows its records, as far as that is on disk. Its client will probably fetch that next.
    pub(super) fn read_ahead_of_next_fetch(&mut self, plane: &mut dyn Plane<Message>, task: &Task) {
        if task.failed || self.drain.is_some() {
            return;
        }
        for number in task.with_records.iter().take(READ_AHEAD_PARTITIONS_MAX) {
            let want = task.ask.wants[*number as usize];
            let places = self.kafka.read.places.get(&(task.from, task.ask.conn));
            let Some(cursor) = places.and_then(|places| places.get(&want.tp)) else { continue };
            let offset = cursor.offset();
            self.read_ahead(plane, task, Want { offset, ..want });
        }
    }

    fn read_ahead(&mut self, plane: &mut dyn Plane<Message>, task: &Task, want: Want) -> bool {
        let Some(partition) = self.partitions.find(want.tp) else { return false };
        let Some(up_to) = self.partitions.readable_end(partition) else { return false };
        let key = (task.from, task.ask.conn);
        let cursor = self.kafka.read.cursor(key, want.tp, want.offset);
        let at = ReadAt { partition, cursor, bytes_max: want.max_bytes.max(1), needs: 0, up_to };
        let (queued, now) = (self.uncharged_of(task), plane.now());
        let account = self.kafka.read.accounts.entry(key).or_default();
        let memory = ReadMemory { budget: &mut self.send_budget, account, queued, consumer: Some(key) };
        let begun = self.reads.begin_ahead(plane, &mut self.partitions, memory, now, at);
        if begun && !std::mem::replace(&mut self.kafka.read.has_ahead_timer, true) {
            self.timers.set_after(plane, READ_AHEAD_TIME_MAX, Timer::ReadAhead);
        }
        begun
    }

    /// Drops what was read ahead and nobody has fetched.
    pub(in crate::shard) fn expire_read_ahead(&mut self, plane: &mut dyn Plane<Message>) {
        self.kafka.read.has_ahead_timer = self.reads.expire_ahead(plane.now());
        if self.kafka.read.has_ahead_timer {
            self.timers.set_after(plane, READ_AHEAD_TIME_MAX, Timer::ReadAhead);
        }
    }
}

//! Fetch on the shard that owns partitions: reads them one after the other. A fetch that has read too little is parked until there is more or
//! the connection's shard requests a reply.
//!
//! ```text
//!   kafka_read --> Queued --> run: read, read, .. --> enough, or must not wait --> Fetched
//!                    ^           |   ^                 else
//!                    |        Reading (disk)            v
//!                    +---- a high watermark moves --- Parked
//! ```
//!
//! A parked fetch keeps the results of its partitions without their records. When it continues, it reads the partitions that have moved, and those
//! whose records it dropped; the others have nothing new.
//!
//! Each read reserves memory of this shard, which is charged until the records have been sent. If there is no memory, a fetch that has read
//! records replies with those, and one that has not waits `InLine`.
//!
//! A turn has a limit on partitions and bytes for all fetches together ([`FetchTurn`](super::fetch_tasks::FetchTurn)). A fetch that is not finished by then is `Partway` and continues in a
//! later turn. A fetch that arrives while others are queued is queued too, and long polls that are woken together share turns in the same way.

use std::collections::BTreeSet;

use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Plane, ShardIndex};

use super::fetch_tasks::{State, Task, Unread};
use super::records::batches;
use crate::counters::Work;
use crate::kafka_message::{Fetched, KafkaMessage, OwnerFetch, PartitionRead};
use crate::limits::KAFKA_FETCH_READS_PER_STEP_MAX;
use crate::message::Message;
use crate::partition::{FetchId, PartitionId, Waiter};
use crate::read::{ChargedRead, InLine, ReadAt, ReadFor, ReadMemory, ReadStep};
use crate::reply_to::RequestId;
use crate::shard::Shard;
use crate::shard::work::Job;

impl Shard {
    /// Begins a fetch of this shard's partitions, for this or another shard.
    pub(super) fn kafka_read(&mut self, plane: &mut dyn Plane<Message>, from: ShardIndex, fetch: OwnerFetch) {
        let fetches = &mut self.kafka.read;
        let id = fetches.begin(from, fetch);
        if fetches.ready.is_empty() && fetches.turn.admits_new() {
            self.run_kafka_fetch(plane, id);
        } else {
            fetches.ready.push_back(id);
        }
    }

    /// Makes a fetch reply with the records that it has. If it waits for memory and another owner has returned records, it returns none.
    pub(super) fn kafka_read_now(
        &mut self,
        from: ShardIndex,
        conn: ConnId,
        request: RequestId,
        has_some: bool,
    ) {
        let fetches = &mut self.kafka.read;
        let Some(id) = fetches.by_request.get(&(from, conn, request)).copied() else { return };
        let Some(task) = fetches.tasks.get_mut(&id) else { return };
        task.fetch.no_wait = true;
        if task.state == State::InLine && has_some {
            task.unread = Unread::Cut;
            task.state = State::Partway;
            fetches.ready.push_back(id);
            if let Some(account) = fetches.accounts.get_mut(&(from, conn)) {
                self.send_budget.leave(account, InLine::KafkaFetch(id));
            }
        } else {
            fetches.wake(id);
        }
    }

    /// Retries a fetch that waits for memory. Returns the bytes that it has read. It keeps its place if the turn has no reads left.
    pub(in crate::shard) fn try_kafka_fetch(&mut self, plane: &mut dyn Plane<Message>, id: FetchId) -> usize {
        let fetches = &mut self.kafka.read;
        let Some(task) = fetches.tasks.get(&id).filter(|task| task.state == State::InLine) else { return 0 };
        if let Some(account) = fetches.accounts.get_mut(&(task.from, task.fetch.conn)) {
            account.is_tried();
        }
        if !fetches.turn.admits_waiting() {
            if let Some(task) = self.kafka.read.tasks.remove(&id) {
                self.wait_for_memory(id, task);
            }
            return 0;
        }
        let before = fetches.turn.bytes();
        self.run_kafka_fetch(plane, id);
        self.kafka.read.turn.bytes() - before
    }

    /// Drops the cursors and fetches of a closed connection.
    pub(super) fn forget_kafka_reader(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        conn: ConnId,
    ) {
        if let Some(mut account) = self.kafka.read.accounts.remove(&(from, conn))
            && let Some(id) = self.kafka.read.fetch_in_line(from, conn)
        {
            self.send_budget.leave(&mut account, InLine::KafkaFetch(id));
        }
        self.reads.forget_ahead((from, conn));
        let forgetting = Forgetting(self.kafka.read.forget(from, conn));
        self.begin_job(plane, forgetting);
    }

    /// Wakes a fetch because the high watermark of a partition has moved, or this replica does not answer for it any more.
    pub(in crate::shard) fn wake_kafka_fetch(&mut self, id: FetchId, partition: PartitionId) {
        self.kafka.read.partition_moved(id, partition);
    }

    /// Runs fetches that can continue, up to the limits of this turn.
    pub(in crate::shard) fn run_kafka_fetches(&mut self, plane: &mut dyn Plane<Message>) {
        while !self.kafka.read.turn.is_over()
            && let Some(id) = self.kafka.read.ready.pop_front()
        {
            self.run_kafka_fetch(plane, id);
        }
    }

    /// Ends the turn of fetches. Returns whether some can continue in another turn.
    pub(in crate::shard) fn end_fetch_turn(&mut self) -> bool {
        self.kafka.read.turn.end();
        !self.kafka.read.ready.is_empty()
    }

    /// Returns whether fetches that wait for memory have used their share of this turn.
    pub(in crate::shard) fn is_fetch_turn_over(&self) -> bool {
        !self.kafka.read.turn.admits_waiting()
    }

    /// Returns the largest numbers of partitions and of bytes read for Kafka fetches in one turn so far.
    pub fn busiest_turn_fetches(&self) -> (usize, usize) {
        self.kafka.read.turn.most()
    }

    /// Handles the end of a read from disk.
    pub(in crate::shard) fn on_kafka_read(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: FetchId,
        found: ChargedRead,
    ) {
        let Some(mut task) = self.kafka.read.tasks.remove(&id) else { return };
        self.take_read(&mut task, found);
        self.advance(plane, id, task);
    }

    /// Starts or continues a fetch.
    fn run_kafka_fetch(&mut self, plane: &mut dyn Plane<Message>, id: FetchId) {
        let Some(task) = self.kafka.read.tasks.remove(&id) else { return };
        self.advance(plane, id, task);
    }

    /// Continues a fetch, for up to [`KAFKA_FETCH_READS_PER_STEP_MAX`] partitions and the limits of this turn.
    fn advance(&mut self, plane: &mut dyn Plane<Message>, id: FetchId, mut task: Task) {
        let mut steps = 0..KAFKA_FETCH_READS_PER_STEP_MAX;
        while let Some(number) = task.next_to_read() {
            if steps.next().is_none() || self.kafka.read.turn.is_over() {
                return self.pause_fetch(id, task);
            }
            task.reading = number;
            match self.read_partition(plane, id, &task) {
                ReadStep::Pending => {
                    task.state = State::Reading;
                    self.kafka.read.turn.spend(0);
                    self.read_ahead_in_fetch(plane, &task);
                    self.kafka.read.tasks.insert(id, task);
                    return;
                }
                ReadStep::Done(found) => self.take_read(&mut task, found),
                ReadStep::NoMemory if task.bytes > 0 => task.unread = Unread::Cut,
                ReadStep::NoMemory => return self.wait_for_memory(id, task),
            }
        }
        // A fetch that leaves records unread has no room for more, or its next read continues where a disk read ended: waiting would not add
        // anything.
        let has_enough = task.bytes >= task.fetch.min_bytes;
        if task.fetch.no_wait || task.failed || task.unread > Unread::Nothing || has_enough {
            self.finish_kafka_read(plane, id, task);
        } else {
            self.park(plane, id, task);
        }
    }

    /// Queues a fetch that has read nothing for memory.
    fn wait_for_memory(&mut self, id: FetchId, mut task: Task) {
        task.state = State::InLine;
        let queued = self.uncharged_of(&task);
        let account = self.kafka.read.accounts.entry((task.from, task.fetch.conn)).or_default();
        self.send_budget.wait(account, queued, InLine::KafkaFetch(id));
        self.kafka.read.tasks.insert(id, task);
    }

    /// Returns the bytes that are queued for the connection of a fetch and count toward this shard's memory without being charged.
    pub(super) fn uncharged_of(&self, task: &Task) -> usize {
        let connection = self.connections.get(&task.fetch.conn).filter(|_| task.from == self.me);
        connection.map_or(0, |connection| connection.queue.uncharged())
    }

    /// Queues a fetch behind the others that can continue.
    fn pause_fetch(&mut self, id: FetchId, mut task: Task) {
        task.state = State::Partway;
        self.kafka.read.tasks.insert(id, task);
        self.kafka.read.ready.push_back(id);
    }

    /// Reads a partition, up to the room that is left in the response.
    fn read_partition(&mut self, plane: &mut dyn Plane<Message>, id: FetchId, task: &Task) -> ReadStep {
        let read = task.fetch.reads[task.reading as usize];
        let nothing = ReadStep::Done(ChargedRead::AtEnd);
        let Ok((partition, _)) = self.partitions.answering(read.tp, read.known_epoch) else { return nothing };
        let Some(up_to) = self.partitions.readable_end(partition) else { return nothing };
        let bytes_max = room(task, read);
        if bytes_max == 0 || task.unread == Unread::Cut {
            return nothing;
        }
        let key = (task.from, task.fetch.conn);
        let cursor = self.kafka.read.cursor(key, read.tp, read.offset);
        // What does not fit is not read: a later fetch begins with it. Without a read ahead, the next frame may be as large as those before.
        let expected = match self.reads.bytes_ahead(key, partition, read.offset) {
            None if bytes_max < read.max_bytes => cursor.frame_bytes(),
            bytes => bytes.unwrap_or(0),
        };
        if task.bytes > 0 && expected > bytes_max {
            return nothing;
        }
        if let Some(step) = self.reads.take_ahead(key, partition, read.offset, bytes_max, id) {
            return step;
        }
        let at = ReadAt { partition, cursor, bytes_max, needs: task.needs, up_to };
        let queued = self.uncharged_of(task);
        let account = self.kafka.read.accounts.entry(key).or_default();
        let memory = ReadMemory { budget: &mut self.send_budget, account, queued, consumer: Some(key) };
        self.reads.begin(plane, &mut self.partitions, memory, ReadFor::Kafka(id), at)
    }

    /// Adds the result of a read of the next partition to a fetch.
    fn take_read(&mut self, task: &mut Task, found: ChargedRead) {
        if let ChargedRead::NeedsMemory(bytes) = found {
            // The batch is read again, alone if necessary.
            task.needs = bytes;
            if task.bytes > 0 {
                task.unread = Unread::Cut;
            }
            return;
        }
        task.needs = 0;
        let read = task.fetch.reads[task.reading as usize];
        let mut fetched = Fetched::nothing(read.number, KafkaError::NONE);
        // Also after a read: the replica may have ceased to lead while it was under way.
        match self.partitions.answering(read.tp, read.known_epoch) {
            Err(error) => fetched.error = KafkaError::from(&error),
            Ok((_, partition)) => {
                fetched.high_watermark = partition.high_watermark();
                fetched.log_start = self.partitions.bounds(partition).log_start;
            }
        }
        match found {
            ChargedRead::Frames(frames, charge) if !fetched.error.is_err() => {
                let (records, bytes) = batches(frames.bytes, charge);
                // Only the first batch of the response may exceed the maximum.
                let fits = task.bytes == 0 || bytes <= room(task, read);
                if !fits || frames.next.offset() < fetched.high_watermark {
                    task.unread = task.unread.max(Unread::More);
                }
                if fits {
                    (fetched.records, fetched.bytes) = (records, bytes);
                    self.kafka.read.remember((task.from, task.fetch.conn), read.tp, frames.next);
                }
            }
            // What is there does not fit any more.
            ChargedRead::AtEnd if task.bytes > 0 && read.offset < fetched.high_watermark => {
                task.unread = task.unread.max(Unread::More);
            }
            _ if fetched.error.is_err() => {}
            ChargedRead::Frames(..) | ChargedRead::AtEnd | ChargedRead::NeedsMemory(_) => {}
            ChargedRead::OutOfRange { .. } => fetched.error = KafkaError::OFFSET_OUT_OF_RANGE,
            ChargedRead::AfterDamage { end } => {
                if let Some(id) = self.partitions.find(read.tp) {
                    drop(self.partitions.note_offset_after_damage(id, read.offset, end));
                }
                // Consumers keep their position and try again.
                fetched.error = KafkaError::KAFKA_STORAGE_ERROR;
            }
            ChargedRead::Damaged { resume_at } => {
                if let Some(id) = self.partitions.find(read.tp) {
                    // The response has no field for the text.
                    drop(self.partitions.note_damage(id, read.offset, resume_at));
                }
                fetched.error = KafkaError::CORRUPT_MESSAGE;
            }
        }
        if fetched.error.is_err() {
            (fetched.high_watermark, fetched.log_start) = (Offset(-1), Offset(-1));
            task.failed = true;
        }
        self.kafka.read.turn.spend(fetched.bytes);
        task.put(task.reading, fetched);
    }

    /// Parks a fetch that has read too little until one of its partitions has more.
    fn park(&mut self, plane: &mut dyn Plane<Message>, id: FetchId, mut task: Task) {
        for _ in 0..KAFKA_FETCH_READS_PER_STEP_MAX {
            if self.kafka.read.turn.is_over() {
                break;
            }
            let Some(number) = task.to_list.pop_front() else { break };
            self.kafka.read.turn.spend(0);
            let (read, fetched) = (&task.fetch.reads[number as usize], &task.fetched[number as usize]);
            let partition = self.partitions.answering(read.tp, read.known_epoch).ok().map(|(id, _)| id);
            // The high watermark may have moved, or the replica may have ceased to answer, while another one was read from disk.
            let waits_for = partition.filter(|partition| {
                let here = self.partitions.get_mut(*partition);
                here.is_some_and(|here| here.wait_for_more(Waiter::Kafka(id), fetched.high_watermark))
            });
            match waits_for {
                Some(partition) => task.waits.insert((partition, number)),
                None => task.to_read.insert(number),
            };
        }
        // Partitions that have moved meanwhile are read before it waits.
        if !task.to_list.is_empty() || !task.to_read.is_empty() {
            return self.pause_fetch(id, task);
        }
        let (from, request, bytes) = (task.from, task.fetch.request, task.bytes);
        let notify = task.fetch.shared && bytes > task.reported;
        task.reported = bytes;
        task.drop_records();
        task.state = State::Parked;
        self.kafka.read.tasks.insert(id, task);
        if notify {
            self.notify_fetch(plane, from, KafkaMessage::FetchBytes(request, bytes));
        }
    }

    fn finish_kafka_read(&mut self, plane: &mut dyn Plane<Message>, id: FetchId, task: Task) {
        self.kafka.read.by_request.remove(&(task.from, task.fetch.conn, task.fetch.request));
        self.read_ahead_of_next_fetch(plane, &task);
        let mut unpark = Unpark { fetch: id, waits: task.waits };
        if !self.at_once(|shard, work| shard.unpark_some(&mut unpark, work)) {
            self.jobs.add(Box::new(unpark));
        }
        self.notify_fetch(plane, task.from, KafkaMessage::Fetched(task.fetch.request, task.fetched));
    }

    fn unpark_some(&mut self, Unpark { fetch, waits }: &mut Unpark, work: &mut Work) -> bool {
        while !work.is_over()
            && let Some((partition, _)) = waits.pop_first()
        {
            work.spend(1);
            if let Some(partition) = self.partitions.get_mut(partition) {
                partition.waiters.remove(&Waiter::Kafka(*fetch));
            }
        }
        waits.is_empty()
    }

    fn notify_fetch(&mut self, plane: &mut dyn Plane<Message>, to: ShardIndex, message: KafkaMessage) {
        if to == self.me {
            self.on_kafka_message(plane, to, message);
        } else {
            plane.post(to, Message::Kafka(Box::new(message)));
        }
    }
}

/// Removes a finished fetch from the waiters of its partitions.
struct Unpark {
    fetch: FetchId,
    waits: BTreeSet<(PartitionId, u32)>,
}

impl Job for Unpark {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        _: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if shard.unpark_some(&mut self, work) { None } else { Some(self) }
    }
}

/// Ends the fetches of a closed connection.
struct Forgetting(Vec<(FetchId, Task)>);

impl Job for Forgetting {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        let Self(tasks) = &mut *self;
        while !work.is_over()
            && let Some((id, mut task)) = tasks.pop()
        {
            work.spend(1 + task.fetch.reads.len());
            let unread = task.fetch.reads.iter().skip(task.fetched.len());
            task.fetched.extend(unread.map(|read| Fetched::nothing(read.number, KafkaError::NONE)));
            shard.finish_kafka_read(plane, id, task);
        }
        if tasks.is_empty() { None } else { Some(self) }
    }
}

/// Returns the bytes that may be read from the next partition.
pub(super) fn room(task: &Task, read: PartitionRead) -> usize {
    read.max_bytes.max(1).min(task.fetch.max_bytes.max(1).saturating_sub(task.bytes))
}

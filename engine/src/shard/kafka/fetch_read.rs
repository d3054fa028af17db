//! Fetch on the shard that owns partitions: reads them one after the other. If that returns too little, the fetch is parked until there is
//! more or the connection's shard asks for a reply.
//!
//! ```text
//!   kafka_read --> Queued --> run: read, read, .. --> enough, or must not wait --> Fetched
//!                    ^           |   ^                 else
//!                    |        Reading (disk)            v
//!                    +---- a high watermark moves --- Parked
//! ```
//!
//! A parked fetch keeps the results of its partitions without their records. When it continues, it reads the partitions that have moved, and again those
//! whose records it dropped; the others have nothing new.
//!
//! Each read reserves memory of this shard, which is charged until the records have been sent. Without memory, a fetch that has read something
//! replies with that, and one that has not waits `InLine`.
//!
//! A turn has a limit on partitions and bytes for all fetches together ([`FetchTurn`](super::fetch_tasks::FetchTurn)). A fetch that is not finished by then is `Partway` and continues in a
//! later turn. A fetch that arrives while others are queued is queued too, and long polls that are woken together share turns in the same way.

use std::collections::BTreeSet;

use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Plane, ShardIndex};

use super::fetch_tasks::{Left, State, Task};
use super::records::batches;
use crate::limits::KAFKA_FETCH_READS_PER_STEP_MAX;
use crate::message::{FetchAsk, Fetched, KafkaMessage, Message, RequestId, Want};
use crate::partition::PartitionId;
use crate::read::{ChargedRead, FetchId, InLine, ReadAt, ReadFor, ReadMemory, ReadStep, Waiter};
use crate::shard::Shard;
use crate::shard::work::{Job, Work};

impl Shard {
    /// Begins a fetch of this shard's partitions, for this or another shard.
    pub(super) fn kafka_read(&mut self, plane: &mut dyn Plane<Message>, from: ShardIndex, ask: FetchAsk) {
        let owner = &mut self.kafka.read;
        let id = owner.begin(from, ask);
        if owner.ready.is_empty() && owner.turn.admits_new() {
            self.run_kafka_fetch(plane, id);
        } else {
            owner.ready.push_back(id);
        }
    }

    /// Makes a fetch reply with what it has read. If it waits for memory and another owner has returned something, it returns nothing.
    pub(super) fn kafka_read_now(
        &mut self,
        from: ShardIndex,
        conn: ConnId,
        request: RequestId,
        has_some: bool,
    ) {
        let owner = &mut self.kafka.read;
        let Some(id) = owner.by_request.get(&(from, conn, request)).copied() else { return };
        let Some(task) = owner.tasks.get_mut(&id) else { return };
        task.ask.now = true;
        if task.state == State::InLine && has_some {
            task.left = Left::Cut;
            task.state = State::Partway;
            owner.ready.push_back(id);
            if let Some(account) = owner.accounts.get_mut(&(from, conn)) {
                self.send_budget.leave(account, InLine::KafkaFetch(id));
            }
        } else {
            owner.wake(id);
        }
    }

    /// Retries a fetch that waits for memory. Returns the bytes that it has read. If the turn has no reads left, it keeps its place.
    pub(in crate::shard) fn try_kafka_fetch(&mut self, plane: &mut dyn Plane<Message>, id: FetchId) -> usize {
        let owner = &mut self.kafka.read;
        let Some(task) = owner.tasks.get(&id).filter(|task| task.state == State::InLine) else { return 0 };
        if let Some(account) = owner.accounts.get_mut(&(task.from, task.ask.conn)) {
            account.is_tried();
        }
        if !owner.turn.admits_waiting() {
            if let Some(task) = self.kafka.read.tasks.remove(&id) {
                self.wait_for_memory(id, task);
            }
            return 0;
        }
        let before = owner.turn.bytes();
        self.run_kafka_fetch(plane, id);
        self.kafka.read.turn.bytes() - before
    }

    /// A connection was closed: drops its fetches, which would otherwise store their cursors again, for ever.
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

    /// The high watermark of a partition has moved, or the partition was deleted.
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
            match self.read_wanted(plane, id, &task) {
                ReadStep::Pending => {
                    task.state = State::Reading;
                    self.kafka.read.turn.spend(0);
                    self.read_ahead_in_fetch(plane, &task);
                    self.kafka.read.tasks.insert(id, task);
                    return;
                }
                ReadStep::Done(found) => self.take_read(&mut task, found),
                ReadStep::NoMemory if task.bytes > 0 => task.left = Left::Cut,
                ReadStep::NoMemory => return self.wait_for_memory(id, task),
            }
        }
        // A fetch that leaves records unread has no room for more, or its next read continues where a disk read ended: waiting would not add
        // anything.
        let has_enough = task.bytes >= task.ask.min_bytes;
        if task.ask.now || task.failed || task.left > Left::Nothing || has_enough {
            self.finish_kafka_read(plane, id, task);
        } else {
            self.park(plane, id, task);
        }
    }

    /// Queues a fetch that has read nothing for memory.
    fn wait_for_memory(&mut self, id: FetchId, mut task: Task) {
        task.state = State::InLine;
        let queued = self.uncharged_of(&task);
        let account = self.kafka.read.accounts.entry((task.from, task.ask.conn)).or_default();
        self.send_budget.wait(account, queued, InLine::KafkaFetch(id));
        self.kafka.read.tasks.insert(id, task);
    }

    /// Returns the bytes that are queued for the connection of a fetch and count toward this shard's memory without being charged.
    pub(super) fn uncharged_of(&self, task: &Task) -> usize {
        let connection = self.connections.get(&task.ask.conn).filter(|_| task.from == self.me);
        connection.map_or(0, |connection| connection.queue.uncharged())
    }

    /// Lets other fetches run before this one continues.
    fn pause_fetch(&mut self, id: FetchId, mut task: Task) {
        task.state = State::Partway;
        self.kafka.read.tasks.insert(id, task);
        self.kafka.read.ready.push_back(id);
    }

    /// Reads a partition, up to the room that is left in the response.
    fn read_wanted(&mut self, plane: &mut dyn Plane<Message>, id: FetchId, task: &Task) -> ReadStep {
        let want = task.ask.wants[task.reading as usize];
        let nothing = ReadStep::Done(ChargedRead::AtEnd);
        let Some(partition) = self.partitions.find(want.tp) else { return nothing };
        let Some(up_to) = self.partitions.readable_end(partition) else { return nothing };
        let bytes_max = room(task, want);
        if bytes_max == 0 || task.left == Left::Cut {
            return nothing;
        }
        let key = (task.from, task.ask.conn);
        let cursor = self.kafka.read.cursor(key, want.tp, want.offset);
        // What does not fit is not read: a later fetch begins with it. Without a read ahead, the next frame may be as large as those before.
        let expected = match self.reads.bytes_ahead(key, partition, want.offset) {
            None if bytes_max < want.max_bytes => cursor.frame_bytes(),
            bytes => bytes.unwrap_or(0),
        };
        if task.bytes > 0 && expected > bytes_max {
            return nothing;
        }
        if let Some(step) = self.reads.take_ahead(key, partition, want.offset, bytes_max, id) {
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
            // It is read again, alone if necessary.
            task.needs = bytes;
            if task.bytes > 0 {
                task.left = Left::Cut;
            }
            return;
        }
        task.needs = 0;
        let want = task.ask.wants[task.reading as usize];
        let mut fetched = Fetched::nothing(want.number, KafkaError::NONE);
        match self.partitions.of(want.tp) {
            None => fetched.error = KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
            Some(partition) => {
                fetched.high_watermark = partition.high_watermark();
                fetched.log_start = self.partitions.bounds(partition).log_start;
            }
        }
        match found {
            ChargedRead::Frames(frames, charge) if !fetched.error.is_err() => {
                let (records, bytes) = batches(frames.bytes, charge);
                // Only the first batch of the response may exceed the maximum.
                let fits = task.bytes == 0 || bytes <= room(task, want);
                if !fits || frames.next.offset() < fetched.high_watermark {
                    task.left = task.left.max(Left::More);
                }
                if fits {
                    (fetched.records, fetched.bytes) = (records, bytes);
                    self.kafka.read.remember((task.from, task.ask.conn), want.tp, frames.next);
                }
            }
            // What is there does not fit any more.
            ChargedRead::AtEnd if task.bytes > 0 && want.offset < fetched.high_watermark => {
                task.left = task.left.max(Left::More);
            }
            ChargedRead::Frames(..) | ChargedRead::AtEnd | ChargedRead::NeedsMemory(_) => {}
            ChargedRead::OutOfRange { .. } => fetched.error = KafkaError::OFFSET_OUT_OF_RANGE,
            ChargedRead::Damaged { resume_at } => {
                if let Some(id) = self.partitions.find(want.tp) {
                    // The response has no field for the text.
                    drop(self.partitions.note_damage(id, want.offset, resume_at));
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
            let (want, fetched) = (&task.ask.wants[number as usize], &task.fetched[number as usize]);
            let partition = self.partitions.find(want.tp);
            // The high watermark may have moved, or the partition may have been deleted, while another one was read from disk.
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
        let (from, request, bytes) = (task.from, task.ask.request, task.bytes);
        let tell = task.ask.shared && bytes > task.reported;
        task.reported = bytes;
        task.drop_records();
        task.state = State::Parked;
        self.kafka.read.tasks.insert(id, task);
        if tell {
            self.tell_fetch(plane, from, KafkaMessage::FetchBytes(request, bytes));
        }
    }

    fn finish_kafka_read(&mut self, plane: &mut dyn Plane<Message>, id: FetchId, task: Task) {
        self.kafka.read.by_request.remove(&(task.from, task.ask.conn, task.ask.request));
        self.read_ahead_of_next_fetch(plane, &task);
        let mut leaving = Unlisting { fetch: id, waits: task.waits };
        if !self.at_once(|shard, work| shard.unlist_some(&mut leaving, work)) {
            self.jobs.add(Box::new(leaving));
        }
        self.tell_fetch(plane, task.from, KafkaMessage::Fetched(task.ask.request, task.fetched));
    }

    fn unlist_some(&mut self, Unlisting { fetch, waits }: &mut Unlisting, work: &mut Work) -> bool {
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

    fn tell_fetch(&mut self, plane: &mut dyn Plane<Message>, to: ShardIndex, message: KafkaMessage) {
        if to == self.me {
            self.on_kafka_message(plane, to, message);
        } else {
            plane.post(to, Message::Kafka(Box::new(message)));
        }
    }
}

/// A finished fetch that is still listed as a waiter of partitions.
struct Unlisting {
    fetch: FetchId,
    waits: BTreeSet<(PartitionId, u32)>,
}

impl Job for Unlisting {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        _: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if shard.unlist_some(&mut self, work) { None } else { Some(self) }
    }
}

/// Fetches of a closed connection.
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
            work.spend(1 + task.ask.wants.len());
            let unread = task.ask.wants.iter().skip(task.fetched.len());
            task.fetched.extend(unread.map(|want| Fetched::nothing(want.number, KafkaError::NONE)));
            shard.finish_kafka_read(plane, id, task);
        }
        if tasks.is_empty() { None } else { Some(self) }
    }
}

/// Returns the bytes that may be read from the next partition.
pub(super) fn room(task: &Task, want: Want) -> usize {
    want.max_bytes.max(1).min(task.ask.max_bytes.max(1).saturating_sub(task.bytes))
}

//! Fetch on the shard of the connection: sends one request to each owner of partitions, and builds the response when all have replied.
//!
//! Owners park a fetch that has read too little. The first owner that has enough bytes replies, and then the others are told to reply without
//! waiting. All of them are when the client's maximum wait is over.
//!
//! A fetch begins when its response is the next to be sent on its connection. The records that it reads are charged to the owners' memory until
//! they have been sent. If it began earlier, it would hold that memory while the responses before it are sent, which may need it themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{FetchPartition, FetchRequest};
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Instant, Plane, ShardIndex};

use super::{Call, Kafka, Named, Pending};
use crate::counters::Work;
use crate::kafka::{LookupItem, NamedTopic, TopicLookup, known_epoch};
use crate::kafka_message::{Fetched, KafkaMessage, OwnerFetch, PartitionRead};
use crate::limits::{
    FETCH_ANSWER_BYTES_FREE, FETCH_ANSWER_BYTES_PER_PARTITION, FETCH_WAIT_MAX, KAFKA_FETCH_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
};
use crate::message::Message;
use crate::read::{InLine, MemoryRequest};
use crate::reply_to::RequestId;
use crate::shard::Shard;
use crate::shard::connection::Stage;
use crate::shard::timers::Timer;
use crate::shard::work::Job;

/// A request whose partitions are being read.
pub(in crate::shard) struct FetchPending {
    pub(super) call: Call,
    /// Topics, each with the number of its entries in `partitions`.
    pub(super) topics: Vec<(Named, usize)>,
    pub(super) partitions: Vec<(i32, Option<Fetched>)>,
    pub(super) max_bytes: usize,
    /// Whether the client reads only committed records.
    pub(super) committed: bool,
    min_bytes: usize,
    /// Owners that have not replied, with the bytes that they have reported.
    owners: BTreeMap<ShardIndex, usize>,
    /// Whether the owners were told not to wait.
    no_wait: bool,
    /// Whether the owners know that another one has returned records.
    has_some: bool,
    until: Option<Instant>,
}

/// A fetch that has not begun.
pub(in crate::shard) struct NextFetch {
    pending: FetchPending,
    /// The requests to the owners.
    requests: BTreeMap<ShardIndex, Vec<PartitionRead>>,
    until: Instant,
}

impl NextFetch {
    /// Returns the bytes of its response without the records: topic names and the fields of each partition.
    fn answer_bytes(&self) -> usize {
        let names: usize = self.pending.topics.iter().map(|(named, _)| named.name().len()).sum();
        let bytes = names + self.pending.partitions.len() * FETCH_ANSWER_BYTES_PER_PARTITION;
        if bytes < FETCH_ANSWER_BYTES_FREE { 0 } else { bytes }
    }
}

/// A fetch whose partitions are being looked up, in slices: it may name a hundred thousand topics.
struct ResolveFetch {
    next: Box<NextFetch>,
    lookup: TopicLookup<FetchPartition>,
}

impl Job for ResolveFetch {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        let conn = self.next.pending.call.conn;
        if !shard.connections.contains_key(&conn) {
            return None;
        }
        if !shard.resolve_some(&mut self, work) {
            return Some(self);
        }
        shard.fetch_resolved(plane, conn, self.next);
        // Its connection may have been paused meanwhile.
        shard.resume(plane, conn);
        None
    }
}

impl Shard {
    /// Returns the maximum bytes of records in a response. A larger first batch is returned whole.
    pub(super) fn kafka_fetch_bytes_max(&self, asked: i32) -> usize {
        let max = KAFKA_FETCH_BYTES_MAX.min(SEND_QUEUE_BYTES_MAX).min(self.send_budget.share(0));
        usize::try_from(asked).unwrap_or(0).min(max)
    }

    pub(super) fn kafka_fetch(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &FetchRequest<'_>,
    ) {
        // Fetch sessions are not supported, so an existing one must be another broker's. A request to start or end one needs no state.
        if !matches!(request.session_epoch, -1 | 0) {
            return self.fail_fetch(call, KafkaError::FETCH_SESSION_ID_NOT_FOUND);
        }
        let max_bytes = self.kafka_fetch_bytes_max(request.max_bytes);
        // A response never has more bytes than that.
        let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(FETCH_WAIT_MAX);
        let pending = FetchPending {
            call,
            topics: Vec::new(),
            partitions: Vec::new(),
            max_bytes,
            committed: request.isolation_level == 1,
            min_bytes,
            owners: BTreeMap::new(),
            no_wait: wait.is_zero() || min_bytes == 0 || self.drain.is_some(),
            has_some: false,
            until: None,
        };
        let next = NextFetch { pending, requests: BTreeMap::new(), until: plane.now().after(wait) };
        let topics = request.topics.iter();
        let topics =
            topics.map(|topic| NamedTopic::new(topic.topic, topic.topic_id, topic.partitions.clone()));
        let lookup = TopicLookup::new(topics.collect());
        let mut job = ResolveFetch { next: Box::new(next), lookup };
        if self.at_once(|shard, work| shard.resolve_some(&mut job, work)) {
            self.fetch_resolved(plane, call.conn, job.next);
        } else if let Some(connection) = self.connections.get_mut(&call.conn) {
            connection.resolving_fetch = Some(call.slot);
            self.jobs.add(Box::new(job));
        }
    }

    /// Looks up partitions of a fetch while there is `work` left. Returns true when all are done.
    fn resolve_some(&self, job: &mut ResolveFetch, work: &mut Work) -> bool {
        let ResolveFetch { next, lookup } = job;
        let NextFetch { pending, requests, .. } = &mut **next;
        while !work.is_over() {
            match lookup.next(self.metadata.as_ref(), work) {
                None => return true,
                Some(LookupItem::Topic(named, partitions)) => pending.topics.push((named, partitions)),
                Some(LookupItem::Partition(partition)) => {
                    let Some((named, _)) = pending.topics.last() else { continue };
                    let number = pending.partitions.len() as u32;
                    let fetched = match self.kafka_target(named, partition.partition) {
                        Ok((tp, owner)) => {
                            let max_bytes = usize::try_from(partition.partition_max_bytes).unwrap_or(0);
                            let read = PartitionRead {
                                number,
                                tp,
                                known_epoch: known_epoch(partition.current_leader_epoch),
                                offset: Offset(partition.fetch_offset),
                                max_bytes,
                            };
                            requests.entry(owner).or_default().push(read);
                            None
                        }
                        Err(error) => {
                            pending.no_wait = true;
                            Some(Fetched::nothing(number, error))
                        }
                    };
                    pending.partitions.push((partition.partition, fetched));
                }
            }
        }
        lookup.is_done()
    }

    /// Continues a fetch after all of its partitions were looked up.
    fn fetch_resolved(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, next: Box<NextFetch>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.resolving_fetch = None;
        if connection.stage != Stage::Closing {
            connection.next_fetch = Some(next);
            self.begin_next_fetch(plane, conn);
        }
    }

    /// Begins the next fetch of a connection, if its response is the next to be sent and there is memory for it.
    pub(in crate::shard) fn begin_next_fetch(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let queued = connection.queue.bytes();
        let is_sending = connection.sending.is_some();
        let Some(next) = &connection.next_fetch else { return };
        let (slot, answer_bytes) = (next.pending.call.slot, next.answer_bytes());
        if is_sending || !connection.kafka().is_some_and(|kafka| kafka.replies.is_next(slot)) {
            return;
        }
        // This only checks that there is memory now: the response is charged when it is built. The memory for requests limits how many of
        // these exist at once.
        let memory = MemoryRequest { most: answer_bytes, least: answer_bytes };
        let may_begin =
            answer_bytes == 0 || self.send_budget.reserve(&mut connection.account, queued, memory).is_some();
        if !may_begin {
            return self.send_budget.wait(&mut connection.account, queued, InLine::KafkaConnection(conn));
        }
        if let Some(next) = connection.next_fetch.take() {
            self.begin_fetch(plane, *next);
        }
    }

    fn begin_fetch(&mut self, plane: &mut dyn Plane<Message>, next: NextFetch) {
        let NextFetch { mut pending, mut requests, until } = next;
        if requests.is_empty() {
            return self.begin_fetch_answer(pending);
        }
        let conn = pending.call.conn;
        self.kafka.fetching.insert(conn);
        pending.owners = requests.keys().map(|owner| (*owner, 0)).collect();
        pending.no_wait |= until <= plane.now() || self.drain.is_some();
        let (no_wait, shared) = (pending.no_wait, requests.len() > 1);
        let (max_bytes, min_bytes) = (pending.max_bytes, pending.min_bytes);
        pending.until = (!no_wait).then_some(until);
        let until = pending.until;
        let id = self.kafka_wait(Pending::Fetch(pending));
        let request_for =
            |reads| OwnerFetch { request: id, conn, reads, max_bytes, min_bytes, shared, no_wait };
        let here = requests.remove(&self.me);
        for (owner, reads) in requests {
            plane.post(owner, Message::Kafka(Box::new(KafkaMessage::Fetch(request_for(reads)))));
        }
        // This shard is last: it may have enough at once, and then the others, which have their requests by then, are told not to wait.
        if let Some(reads) = here {
            self.kafka_read(plane, self.me, request_for(reads));
        }
        // Most fetches have been answered by now.
        if let Some(until) = until
            && self.kafka.pending.contains_key(&id)
        {
            self.timers.set(plane, until, Timer::KafkaFetch(id));
        }
    }

    /// Handles a report of an owner that has some bytes, but fewer than the minimum.
    pub(super) fn on_fetch_bytes(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        request: RequestId,
        bytes: usize,
    ) {
        let Some(Pending::Fetch(pending)) = self.kafka.pending.get_mut(&request) else { return };
        if let Some(there) = pending.owners.get_mut(&from) {
            *there = bytes;
        }
        if pending.owners.values().sum::<usize>() >= pending.min_bytes {
            self.kafka_fetch_timed_out(plane, request);
        }
    }

    /// Handles the reply of an owner.
    pub(super) fn on_fetched(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        request: RequestId,
        fetched: Vec<Fetched>,
    ) {
        let Some(Pending::Fetch(pending)) = self.kafka.pending.get_mut(&request) else { return };
        pending.owners.remove(&from);
        let has_some = fetched.iter().any(|fetched| fetched.bytes > 0);
        for mut fetched in fetched {
            // The topic was deleted while the request was in flight. A request with topic ids gets the error for unknown ids.
            if fetched.error == KafkaError::UNKNOWN_TOPIC_OR_PARTITION && pending.call.version() >= 13 {
                fetched.error = KafkaError::UNKNOWN_TOPIC_ID;
            }
            if let Some((_, place)) = pending.partitions.get_mut(fetched.number as usize) {
                *place = Some(fetched);
            }
        }
        if !pending.owners.is_empty() {
            // An owner that replies by itself has enough, has no room for more, or has failed: no other owner has to wait any longer.
            return self.end_fetch_wait(plane, request, has_some);
        }
        if let Some(Pending::Fetch(pending)) = self.kafka.pending.remove(&request) {
            if let Some(until) = pending.until {
                self.timers.cancel(until, Timer::KafkaFetch(request));
            }
            self.begin_fetch_answer(pending);
        }
    }

    /// Ends the wait of a fetch.
    pub(in crate::shard) fn kafka_fetch_timed_out(
        &mut self,
        plane: &mut dyn Plane<Message>,
        request: RequestId,
    ) {
        self.end_fetch_wait(plane, request, false);
    }

    /// Tells the owners not to wait for more records, and not for memory either if another owner has returned records.
    fn end_fetch_wait(&mut self, plane: &mut dyn Plane<Message>, request: RequestId, has_some: bool) {
        let Some(Pending::Fetch(pending)) = self.kafka.pending.get_mut(&request) else { return };
        let known = std::mem::replace(&mut pending.no_wait, true) && (pending.has_some || !has_some);
        pending.has_some |= has_some;
        if known {
            return;
        }
        let (conn, has_some) = (pending.call.conn, pending.has_some);
        let owners: Vec<_> = pending.owners.keys().copied().collect();
        for owner in owners {
            if owner == self.me {
                self.kafka_read_now(owner, conn, request, has_some);
            } else {
                let message = KafkaMessage::FetchNow { conn, request, has_some };
                plane.post(owner, Message::Kafka(Box::new(message)));
            }
        }
    }

    /// Ends the waits of all fetches, because the broker is stopping. They return the records that they have.
    pub(in crate::shard) fn end_kafka_waits(&mut self, plane: &mut dyn Plane<Message>) {
        for request in self.kafka.fetches() {
            self.kafka_fetch_timed_out(plane, request);
        }
    }
}

impl Kafka {
    fn fetches(&self) -> Vec<RequestId> {
        let is_fetch =
            |(id, pending): (&RequestId, &Pending)| matches!(pending, Pending::Fetch(_)).then_some(*id);
        self.pending.iter().filter_map(is_fetch).collect()
    }

    /// Removes the state of a closed connection.
    pub(in crate::shard) fn forget_connection(&mut self, conn: ConnId) {
        self.unrouted.forget_connection(conn);
        if self.fetching.remove(&conn) {
            self.gone.push(conn);
        }
    }
}

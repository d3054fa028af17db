//! Fetch on the shard of the connection: each owner of partitions is asked once, and the answer is put together when all have answered.
//!
//! The owners park a fetch that finds too little. The first that has enough, or more than it may give, answers, and then the others are
//! told not to wait; so are all of them when the client's time is over.
//!
//! A fetch begins when its answer is the next to leave on its connection. What it reads is charged to the owners' memory until it was sent, and
//! would wait there for the answers before it, while those may wait for that memory.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{FetchPartition, FetchRequest};
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Instant, Plane, ShardIndex};

use super::{Call, Kafka, Named, Pending};
use crate::kafka::{LookUp, LookedUp, NamedTopic};
use crate::limits::{
    FETCH_ANSWER_BYTES_FREE, FETCH_ANSWER_BYTES_PER_PARTITION, FETCH_WAIT_MAX, KAFKA_FETCH_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
};
use crate::message::{FetchAsk, Fetched, KafkaMessage, Message, RequestId, Want};
use crate::read::{InLine, Wanted};
use crate::shard::Shard;
use crate::shard::connection::Stage;
use crate::shard::timers::Timer;
use crate::shard::work::{Job, Work};

/// A request whose partitions are being read.
pub(in crate::shard) struct FetchPending {
    pub(super) call: Call,
    /// Topics, each with how many of `partitions` are of it.
    pub(super) topics: Vec<(Named, usize)>,
    pub(super) partitions: Vec<(i32, Option<Fetched>)>,
    pub(super) max_bytes: usize,
    /// Only what is committed is wanted.
    pub(super) committed: bool,
    min_bytes: usize,
    /// Owners that have not answered, with the bytes that they said are there.
    owners: BTreeMap<ShardIndex, usize>,
    /// Owners were told not to wait.
    now: bool,
    /// Owners were told that another has given something.
    has_some: bool,
    until: Option<Instant>,
}

/// A fetch that was not begun.
pub(in crate::shard) struct NextFetch {
    pending: FetchPending,
    /// What to ask the owners for.
    asks: BTreeMap<ShardIndex, Vec<Want>>,
    until: Instant,
}

impl NextFetch {
    /// Bytes that its answer has beside records: topics' names, and what is said of each partition.
    fn answer_bytes(&self) -> usize {
        let names: usize = self.pending.topics.iter().map(|(named, _)| named.name().len()).sum();
        let bytes = names + self.pending.partitions.len() * FETCH_ANSWER_BYTES_PER_PARTITION;
        if bytes < FETCH_ANSWER_BYTES_FREE { 0 } else { bytes }
    }
}

/// A fetch whose partitions are looked up, as many as a turn allows: it may name a hundred thousand topics.
struct Resolving {
    next: Box<NextFetch>,
    wanted: LookUp<FetchPartition>,
}

impl Job for Resolving {
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
        // Its connection may have stopped to be read meanwhile.
        shard.resume(plane, conn);
        None
    }
}

impl Shard {
    /// Bytes of records that an answer may have, apart from a first batch that is larger.
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
        // There are no sessions: one that a client goes on with is from somewhere else. One that it begins or ends needs no memory of it.
        if !matches!(request.session_epoch, -1 | 0) {
            return self.refuse_fetch(call, KafkaError::FETCH_SESSION_ID_NOT_FOUND);
        }
        let max_bytes = self.kafka_fetch_bytes_max(request.max_bytes);
        // More than an answer may have never comes.
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
            now: wait.is_zero() || min_bytes == 0 || self.drain.is_some(),
            has_some: false,
            until: None,
        };
        let next = NextFetch { pending, asks: BTreeMap::new(), until: plane.now().after(wait) };
        let topics = request.topics.iter();
        let topics = topics.map(|topic| NamedTopic::new(topic.topic, topic.topic_id, &topic.partitions));
        let wanted = LookUp::new(topics.collect());
        let mut resolving = Resolving { next: Box::new(next), wanted };
        if self.at_once(|shard, work| shard.resolve_some(&mut resolving, work)) {
            self.fetch_resolved(plane, call.conn, resolving.next);
        } else if let Some(connection) = self.connections.get_mut(&call.conn) {
            connection.resolving_fetch = Some(call.slot);
            self.jobs.add(Box::new(resolving));
        }
    }

    /// Looks up partitions of a fetch while there is `work` left. True when all are.
    fn resolve_some(&self, resolving: &mut Resolving, work: &mut Work) -> bool {
        let Resolving { next, wanted } = resolving;
        let NextFetch { pending, asks, .. } = &mut **next;
        while !work.is_over() {
            match wanted.next(self.metadata.as_ref(), work) {
                None => return true,
                Some(LookedUp::Topic(named, partitions)) => pending.topics.push((named, partitions)),
                Some(LookedUp::Partition(wanted)) => {
                    let Some((named, _)) = pending.topics.last() else { continue };
                    let number = pending.partitions.len() as u32;
                    let epoch = wanted.current_leader_epoch;
                    let fetched = match self.kafka_target_in_epoch(named, wanted.partition, epoch) {
                        Ok((tp, owner)) => {
                            let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
                            let want = Want { number, tp, offset: Offset(wanted.fetch_offset), max_bytes };
                            asks.entry(owner).or_default().push(want);
                            None
                        }
                        Err(error) => {
                            pending.now = true;
                            Some(Fetched::nothing(number, error))
                        }
                    };
                    pending.partitions.push((wanted.partition, fetched));
                }
            }
        }
        wanted.is_done()
    }

    /// All partitions of a fetch are looked up.
    fn fetch_resolved(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, next: Box<NextFetch>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.resolving_fetch = None;
        if connection.stage != Stage::Closing {
            connection.next_fetch = Some(next);
            self.begin_next_fetch(plane, conn);
        }
    }

    /// Begins the fetch of a connection that was not begun, if it is its turn and there is memory for its answer.
    pub(in crate::shard) fn begin_next_fetch(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let queued = connection.queue.bytes();
        let is_sending = connection.sending.is_some();
        let Some(next) = &connection.next_fetch else { return };
        let (slot, answer_bytes) = (next.pending.call.slot, next.answer_bytes());
        if is_sending || !connection.kafka().is_some_and(|kafka| kafka.replies.is_next(slot)) {
            return;
        }
        // What is kept of requests bounds how many of these are made at once; they are charged for when they are.
        let wanted = Wanted { most: answer_bytes, least: answer_bytes };
        let may_begin =
            answer_bytes == 0 || self.send_budget.reserve(&mut connection.account, queued, wanted).is_some();
        if !may_begin {
            return self.send_budget.wait(&mut connection.account, queued, InLine::KafkaConnection(conn));
        }
        if let Some(next) = connection.next_fetch.take() {
            self.begin_fetch(plane, *next);
        }
    }

    fn begin_fetch(&mut self, plane: &mut dyn Plane<Message>, next: NextFetch) {
        let NextFetch { mut pending, mut asks, until } = next;
        if asks.is_empty() {
            return self.tell_fetched(pending);
        }
        let conn = pending.call.conn;
        self.kafka.fetching.insert(conn);
        pending.owners = asks.keys().map(|owner| (*owner, 0)).collect();
        pending.now |= until <= plane.now() || self.drain.is_some();
        let (now, shared) = (pending.now, asks.len() > 1);
        let (max_bytes, min_bytes) = (pending.max_bytes, pending.min_bytes);
        pending.until = (!now).then_some(until);
        let until = pending.until;
        let id = self.kafka_wait(Pending::Fetch(pending));
        let ask = |wants| FetchAsk { request: id, conn, wants, max_bytes, min_bytes, shared, now };
        let here = asks.remove(&self.me);
        for (owner, wants) in asks {
            plane.post(owner, Message::Kafka(Box::new(KafkaMessage::Fetch(ask(wants)))));
        }
        // This shard at last: it may have enough at once, and the others can be told so only when they have been asked.
        if let Some(wants) = here {
            self.kafka_read(plane, self.me, ask(wants));
        }
        // Often it is answered by now.
        if let Some(until) = until
            && self.kafka.pending.contains_key(&id)
        {
            self.timers.set(plane, until, Timer::KafkaFetch(id));
        }
    }

    /// An owner has bytes, and thinks them too few.
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
            self.kafka_fetch_waited(plane, request);
        }
    }

    /// An owner has answered.
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
            // The topic went while the request was on its way. Who knows topics by id is told so.
            if fetched.error == KafkaError::UNKNOWN_TOPIC_OR_PARTITION && pending.call.version() >= 13 {
                fetched.error = KafkaError::UNKNOWN_TOPIC_ID;
            }
            if let Some((_, place)) = pending.partitions.get_mut(fetched.number as usize) {
                *place = Some(fetched);
            }
        }
        if !pending.owners.is_empty() {
            // An owner that was not told to answers when nobody has to wait any longer: it has enough, or cannot give what is there,
            // or something is wrong.
            return self.hurry_fetch(plane, request, has_some);
        }
        if let Some(Pending::Fetch(pending)) = self.kafka.pending.remove(&request) {
            if let Some(until) = pending.until {
                self.timers.cancel(until, Timer::KafkaFetch(request));
            }
            self.tell_fetched(pending);
        }
    }

    /// A fetch may not wait any longer.
    pub(in crate::shard) fn kafka_fetch_waited(
        &mut self,
        plane: &mut dyn Plane<Message>,
        request: RequestId,
    ) {
        self.hurry_fetch(plane, request, false);
    }

    /// Tells owners not to wait for more, unless they know; and not for memory, if there is something to answer with.
    fn hurry_fetch(&mut self, plane: &mut dyn Plane<Message>, request: RequestId, has_some: bool) {
        let Some(Pending::Fetch(pending)) = self.kafka.pending.get_mut(&request) else { return };
        let known = std::mem::replace(&mut pending.now, true) && (pending.has_some || !has_some);
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

    /// The broker stops: whoever waits gets what there is.
    pub(in crate::shard) fn end_kafka_waits(&mut self, plane: &mut dyn Plane<Message>) {
        for request in self.kafka.fetches() {
            self.kafka_fetch_waited(plane, request);
        }
    }
}

impl Kafka {
    fn fetches(&self) -> Vec<RequestId> {
        let is_fetch =
            |(id, pending): (&RequestId, &Pending)| matches!(pending, Pending::Fetch(_)).then_some(*id);
        self.pending.iter().filter_map(is_fetch).collect()
    }

    /// A connection is gone.
    pub(in crate::shard) fn connection_is_gone(&mut self, conn: ConnId) {
        self.unrouted.forget_connection(conn);
        if self.fetching.remove(&conn) {
            self.gone.push(conn);
        }
    }
}

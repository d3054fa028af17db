//! A shard: one core's share of the broker, as a synchronous state machine.
//!
//! Requests arrive in `on_recv` and are handled at once, as far as memory allows. A request that has to wait for the disk, for another shard or
//! for other clients is stored with the component that it waits for. At the end of each turn the stores start a commit round with everything
//! appended, and the replies that are ready are sent together.
//!
//! Invariant: a partition belongs to exactly one shard, and no other shard accesses it.
//!
//! Invariant: no acknowledgement is sent before the partition's consensus allows it.

mod carry_over;
mod compaction;
mod connection;
mod connection_map;
mod connections;
mod context;
mod drain;
mod forward;
mod groups;
mod join;
mod kafka;
mod large_replies;
mod lead;
mod leaders;
mod line;
mod long_answers;
mod memory;
mod metadata_log;
mod partitions;
mod peers;
mod produce;
mod publish;
mod query;
mod readers;
mod requests;
mod resend;
mod run_readers;
mod search;
mod sending;
mod space;
mod statistics;
mod subscribe;
mod timers;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    Close, CloseReason, Completion, ConnId, ConnectError, Instant, ListenerId, Plane, ShardApp, ShardIndex,
    Token,
};

use compaction::CompactionShare;
use connection::Via;
use connection_map::Connections;
use drain::Drain;
use groups::Groups;
use kafka::Kafka;
use lead::Lead;
use line::Line;
use publish::{MetadataStep, Preparing, Publishing};
use query::{OpenQuery, QueryId};
use readers::Readers;
use search::Searches;
use timers::{Timer, Timers};
use work::Jobs;

use crate::api::Ticket;
use crate::calls::{Calls, Reply};
use crate::context::{Finish, ProducerIds};
use crate::counters::Counters;
use crate::leaders::Leaders;
use crate::limits::{PUSH_BYTES_PER_TURN_MAX, SPACE_INTERVAL};
use crate::message::Message;
use crate::meta::Metadata;
use crate::partition::{Partitions, open_all};
use crate::peers::{Exchange, LeaderTable};
use crate::read::{Reads, SendBudget};
use crate::session::{Admission, ConnectionLimits};
use crate::setup::{OpenError, ShardSetup};

/// One core's share of the broker. See the module's doc.
pub struct Shard {
    setup: Arc<ShardSetup>,
    me: ShardIndex,
    lead: Option<Box<Lead>>,
    /// The coordinators of groups.
    groups: Box<Groups>,
    /// `None` until shard 0 publishes it for the first time.
    metadata: Option<Arc<Metadata>>,
    /// Who leads what.
    leaders: Leaders,
    /// The leader table, on shard 0 of a broker that connects to others.
    leader_table: Option<Box<LeaderTable>>,
    partitions: Partitions,
    /// What the partitions exchange with other nodes, if this broker listens for any.
    peers: Option<Box<Exchange>>,
    /// Work that is split over turns, and how much was done.
    jobs: Jobs,
    /// Connections whose long answers can continue.
    long_answers: VecDeque<ConnId>,

    connections: Connections,
    /// Limits on the number of connections.
    connection_limits: ConnectionLimits,
    /// Decides whether another request is handled now.
    admission: Admission,
    /// Memory for data on its way to clients.
    send_budget: SendBudget,
    line: Line,

    readers: Readers,
    last_reader: u64,
    last_turn: u64,
    /// Connections with readers that can run.
    ready: VecDeque<ConnId>,
    /// Reads of all readers that wait for the disk.
    reads: Reads,
    searches: Searches,
    compaction: CompactionShare,

    /// Requests to other shards.
    calls: Calls<dyn Finish>,
    /// Queries that this shard is answering.
    queries: BTreeMap<QueryId, OpenQuery>,
    last_query: u64,
    producer_ids: ProducerIds,
    /// Pending requests of Kafka clients.
    kafka: Kafka,

    timers: Timers,
    /// Counters, apart from those of the stores.
    counted: Counters,
    retention_at: Instant,
    /// Whether the next look at free space is scheduled.
    is_space_timer_set: bool,
    drain: Option<Drain>,
    /// The deadline for closing the stores, once that has begun.
    close_by: Instant,
    /// On shard 0: shards that have answered their clients.
    drained_shards: u16,
    /// Reusable buffers.
    arena: BytesMut,
}

impl Shard {
    /// Opens and recovers this shard's part of the data directory. Blocks.
    pub fn open(plane: &mut dyn Plane<Message>, setup: &Arc<ShardSetup>) -> Result<Self, OpenError> {
        let me = plane.shard();
        let (stores, mut opened) = open_all(plane, &setup.of_stores())?;
        let mut partitions = Partitions::new(
            me,
            setup.replica(),
            stores,
            setup.limits.decoder_bytes_max,
            resend::is_sent_again,
        );
        let lead = match me {
            0 => Some(Box::new(Lead::open(plane, setup, &mut opened.warnings)?)),
            _ => None,
        };
        let groups = Box::new(Groups::new(setup, groups::now(plane)));
        plane.post(0, Message::Opened(Box::new(opened)));
        let peers = peers::open(plane, setup);
        if peers.is_some() {
            partitions.want_reports();
        }
        let mut timers = Timers::default();
        let retention_at = plane.now().after(setup.limits.cleanup_interval);
        timers.set(plane, retention_at, Timer::Retention);
        timers.set_after(plane, setup.limits.cleanup_interval, Timer::Compaction);
        Ok(Self {
            setup: Arc::clone(setup),
            me,
            lead,
            groups,
            metadata: None,
            leaders: Leaders::default(),
            leader_table: leaders::open_table(plane, setup),
            partitions,
            peers,
            jobs: Jobs::default(),
            long_answers: VecDeque::new(),
            connections: Connections::default(),
            connection_limits: ConnectionLimits::new(setup.limits.connections_max),
            admission: Admission::new(setup.limits.request_bytes_max),
            send_budget: SendBudget::new(setup.limits.send_bytes_max),
            line: Line::default(),
            readers: Readers::new(),
            last_reader: 0,
            last_turn: 0,
            ready: VecDeque::new(),
            reads: Reads::default(),
            searches: Searches::default(),
            compaction: CompactionShare::default(),
            calls: Calls::default(),
            queries: BTreeMap::new(),
            last_query: 0,
            producer_ids: ProducerIds::default(),
            kafka: Kafka::default(),
            timers,
            counted: Counters::default(),
            retention_at,
            is_space_timer_set: false,
            drain: None,
            close_by: Instant(0),
            drained_shards: 0,
            arena: BytesMut::new(),
        })
    }

    /// Handles a reply to a request to another shard.
    fn handle_call_reply(&mut self, plane: &mut dyn Plane<Message>, ticket: Ticket, reply: Reply) {
        let connections = &self.connections;
        let finished = self.calls.handle_reply(ticket, reply, |conn| connections.contains_key(&conn));
        let mut context = self.context(plane);
        context.post_requests();
        if let Some(call) = finished {
            call.finish(&mut context);
        }
    }

    fn enforce_retention(&mut self, plane: &mut dyn Plane<Message>) {
        self.partitions.begin_retention();
        self.look_for_free_space(plane);
        if let Some(lead) = &mut self.lead {
            lead.controller.retry_stalled(plane);
            lead.make_reserve(plane, &self.setup.data_dir);
            lead.carry_over(plane);
        }
        self.groups.coordinators.retry_stalled();
        let full = self.partitions.is_full() || self.log_is_stalled();
        let interval = self.setup.limits.cleanup_interval;
        self.plan_retention(plane, if full { interval.min(SPACE_INTERVAL) } else { interval });
    }

    /// Returns whether the metadata log or the coordinators wait for disk space.
    fn log_is_stalled(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.controller.is_stalled())
            || self.groups.coordinators.is_stalled()
    }

    /// Schedules the next time that retention is enforced, and that a full disk is checked for space.
    fn plan_retention(&mut self, plane: &mut dyn Plane<Message>, after: Duration) {
        self.timers.cancel(self.retention_at, Timer::Retention);
        self.retention_at = plane.now().after(after);
        self.timers.set(plane, self.retention_at, Timer::Retention);
    }
}

impl ShardApp for Shard {
    type Message = Message;

    fn on_accept(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    ) {
        let Some(local) = plane.local_addr(conn) else { return };
        if let Some(exchange) = self.peers.as_mut().filter(|_| self.setup.is_for_peers(listener)) {
            return exchange.peers.handle_accepted(plane, conn);
        }
        let via = Via { listener, local, peer };
        if listener.0 < self.setup.kafka.first_listener {
            self.accept(plane, conn, via);
        } else {
            self.accept_kafka(plane, conn, via);
        }
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        _token: Token,
        outcome: Result<(), ConnectError>,
    ) {
        // No other component opens connections.
        let exchange = self.peers.as_mut().expect("only connections to other nodes are opened");
        exchange.peers.handle_connected(plane, conn, outcome);
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, data: &[u8]) {
        if let Some(exchange) = self.peers.as_mut().filter(|exchange| exchange.peers.owns(conn)) {
            if let Some(arrival) = exchange.peers.handle_received(plane, conn, data) {
                self.peer_arrived(plane, conn, arrival);
            }
            return;
        }
        self.counted.received += data.len() as u64;
        self.receive(plane, conn, data);
    }

    fn on_bulk(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, buf: AlignedBuf) {
        match &mut self.peers {
            Some(exchange) if exchange.peers.owns(conn) => exchange.peers.handle_bulk(plane, conn, buf),
            _ => self.receive_bulk(plane, conn, buf),
        }
    }

    fn on_sent(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: usize) {
        match &mut self.peers {
            Some(exchange) if exchange.peers.owns(conn) => exchange.peers.handle_sent(conn, bytes),
            _ => self.on_bytes_sent(plane, conn, bytes),
        }
    }

    fn on_closed(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, because: CloseReason) {
        tracing::debug!(?conn, ?because, "connection closed");
        match &mut self.peers {
            Some(exchange) if exchange.peers.owns(conn) => exchange.peers.handle_closed(plane, conn),
            _ => self.remove_connection(conn),
        }
    }

    fn on_disk(&mut self, plane: &mut dyn Plane<Message>, token: Token, completion: Completion) {
        self.disk_completed(plane, token, completion);
    }

    fn on_message(&mut self, plane: &mut dyn Plane<Message>, from: ShardIndex, message: Message) {
        match message {
            Message::Greeted(_) | Message::Placed | Message::PeerGreeted(_) => {
                tracing::error!(from, "a message that accompanies a connection arrived without one");
            }
            Message::Opened(opened) => {
                if let Some(lead) = &mut self.lead {
                    lead.controller.handle_opened(from, *opened);
                    lead.follow_log(&self.partitions);
                }
            }
            Message::Prepare(prepare) => {
                if prepare.is_carrying_over {
                    self.groups.coordinators.await_carry_over();
                }
                self.jobs.add_metadata(MetadataStep::Prepare(Preparing::new(prepare)));
            }
            Message::Prepared(version) => self.handle_prepared(plane, from, version),
            Message::Publish(publish) => {
                self.jobs.add_metadata(MetadataStep::Publish(Publishing::new(publish)));
            }
            Message::Applied(version) => {
                if let Some(lead) = &mut self.lead {
                    lead.controller.handle_applied(from, version);
                }
            }
            Message::Led(statements) => self.handle_led(statements),
            Message::Leaders(leaders) => self.leaders = leaders,
            Message::Gone(topics) => {
                if let Some(lead) = &mut self.lead {
                    lead.controller.handle_gone(from, &topics);
                }
            }
            Message::ControllerRequest(ticket, request) => {
                self.handle_controller_request(plane, from, ticket, *request);
            }
            Message::ControllerReply(ticket, reply) => {
                self.handle_call_reply(plane, ticket, Reply::Controller(reply));
            }
            Message::GroupRequest(ticket, request) => {
                self.handle_group_request(plane, from, ticket, *request);
            }
            Message::GroupReply(ticket, reply) => self.handle_call_reply(plane, ticket, Reply::Group(reply)),
            Message::CarryOver(records) => self.groups.coordinators.carry_over(records),
            Message::CarriedOver => self.handle_carried_over(plane),
            Message::Serve => self.groups.coordinators.end_carry_over(),
            Message::PartitionQuery(ticket, query) => self.on_query(plane, from, ticket, query),
            Message::PartitionAnswer(ticket, answer) => {
                self.handle_call_reply(plane, ticket, Reply::Owner(answer));
            }
            Message::Kafka(message) => self.on_kafka_message(plane, from, *message),
            Message::MemoryShort => self.cut_slow_readers(plane),
            Message::ReleaseSpace(kept) => self.release_space(plane, kept),
            Message::Continue => {}
            Message::Drained => self.on_drained(plane),
            Message::Close => self.on_close(plane),
        }
    }

    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
        baggage: Message,
    ) {
        let Some(local) = plane.local_addr(conn) else { return };
        let via = Via { listener, local, peer };
        match baggage {
            Message::Greeted(greeting) => self.migrated(plane, conn, via, &greeting),
            Message::Placed => self.kafka_migrated(plane, conn, via),
            Message::PeerGreeted(hello) => match &mut self.peers {
                Some(exchange) => exchange.peers.handle_migrated(plane, conn, &hello),
                None => plane.close(conn, Close::Now),
            },
            other => {
                tracing::error!(?conn, message = ?other, "a connection arrived with an unexpected message");
                plane.close(conn, Close::Now);
            }
        }
    }

    fn on_timer(&mut self, plane: &mut dyn Plane<Message>, _token: Token) {
        self.timers.on_timer(plane.now());
        while let Some(timer) = self.timers.pop(plane) {
            match timer {
                Timer::Sweep => self.sweep(plane),
                Timer::Retention => self.enforce_retention(plane),
                Timer::Fetch(reader) => self.fetch_timed_out(reader),
                Timer::KafkaFetch(request) => self.kafka_fetch_timed_out(plane, request),
                Timer::Drain => self.drain_timed_out(plane),
                Timer::Groups => self.groups_are_due(plane),
                Timer::Line => self.check_line(plane),
                Timer::ReadAhead => self.expire_read_ahead(plane),
                Timer::Compaction => self.scan_for_compaction(plane),
                Timer::CompactionStep => self.allow_compaction(),
                Timer::Space => self.return_free_space(plane),
                Timer::Peers => self.peers_are_due(plane),
                Timer::Nodes => self.nodes_are_due(plane),
            }
        }
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<Message>) {
        self.shut_down(plane);
    }

    fn on_turn_end(&mut self, plane: &mut dyn Plane<Message>) {
        let mut more = self.run_jobs(plane);
        more |= self.run_groups(plane);
        more |= self.receive_from_peers(plane);
        more |= self.run_metadata_log(plane);
        let wall_ms = plane.wall_clock_ms();
        more |= self.partitions.run_retention(plane, wall_ms);
        // The disk first: it works while the rest of the turn runs.
        more |= self.partitions.flush(plane);
        self.poll_partitions(plane);
        more |= self.run_leaders(plane);
        more |= self.send_to_peers(plane);
        more |= self.run_line(plane, PUSH_BYTES_PER_TURN_MAX);
        self.run_kafka_fetches(plane);
        more |= self.run_checks(plane);
        more |= self.run_searches(plane);
        more |= self.run_compaction(plane);
        more |= self.run_metadata_log(plane);
        more |= self.run_lead(plane);
        more |= self.answer_groups(plane);
        self.counted.longest_turn = plane.longest_turn().as_micros() as u64;
        self.publish_counters();
        self.send_replies(plane);
        more |= self.run_long_answers(plane);
        more |= self.run_readers(plane, PUSH_BYTES_PER_TURN_MAX);
        // Paused connections have a share of their own, so that new requests cannot keep them waiting for ever.
        more |= self.admission.end_share();
        self.resume_memory_waiters(plane);
        more |= self.admission.end_share();
        self.notify_kafka_shards(plane);
        self.send_replies(plane);
        // Resumed requests may have appended too, and no event may be left behind: there may be no other turn for a long time.
        more |= self.partitions.flush(plane);
        more |= self.poll_partitions(plane);
        more |= self.send_to_peers(plane);
        more |= self.end_fetch_turn();
        self.notify_kafka_shards(plane);
        self.plan_line(plane);
        self.run_drain(plane);
        self.jobs.end_turn();
        more |= self.admission.end_turn();
        if more || self.connections.are_dirty() || !self.ready.is_empty() {
            plane.post(self.me, Message::Continue);
        }
    }
}

//! The life of a connection: accept, hello, migration, requests, pausing, close.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use highwater_net::{NativeConn, ProtocolViolation, Received, Reply, Request, Step};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::ShardId;
use highwater_protocol::limits::BULK_BYTES_MIN;
use highwater_protocol::native::{
    FEATURE_DAMAGE, FEATURE_GROUPS, Hello, HelloReply, MessageKind, PROTOCOL_VERSION, error_message,
};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{Close, ConnId, Plane};

use super::Shard;
use super::connection::{Connection, Net, Stage, Via};
use super::timers::Timer;
use crate::api::{ApiError, Service};
use crate::limits::{CLOSING_TIME_MAX, SWEEP_INTERVAL};
use crate::message::{Greeting, Message};
use crate::native;
use crate::read::InLine;
use crate::session::{ClientProtocol, Load, RequestBytes};

/// Why the handling of a connection's input stopped.
enum Input {
    /// All input was consumed.
    Used,
    /// No further request may be handled for now.
    Full,
    /// The connection has moved to another shard, or is closed.
    Gone,
    /// It violated the protocol.
    Violation(ProtocolViolation),
}

/// Sends the error and closes a connection that is not accepted. `id` is the request id of its hello.
fn reject_connection(plane: &mut dyn Plane<Message>, conn: ConnId, via: Via, id: u64, error: &ApiError) {
    tracing::debug!(peer = %via.peer, "connection refused: {error}");
    let message = error_message(MessageKind::Hello as u16, id, native::code_of(error), &error.to_string());
    plane.send(conn, message);
    plane.close(conn, Close::AfterSends);
}

impl Shard {
    pub(super) fn accept(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, via: Via) {
        if let Err(error) = self.check_room_for(plane, via.peer.ip(), ClientProtocol::Native) {
            return reject_connection(plane, conn, via, 0, &error);
        }
        let net = NativeConn::new(plane.now(), self.setup.limits.batch_bytes_max);
        self.insert_connection(plane, conn, Connection::new(Net::Native(net), via, Stage::Hello));
    }

    /// Checks whether another connection is allowed. If there are too many from one address, closes the one that has been silent longest.
    pub(super) fn check_room_for(
        &mut self,
        plane: &mut dyn Plane<Message>,
        address: IpAddr,
        protocol: ClientProtocol,
    ) -> Result<(), ApiError> {
        if self.drain.is_some() {
            return Err(ApiError::Stopping(Service::Partitions));
        }
        if let Some(silent) = self.connection_limits.to_drop(address, protocol) {
            self.close(plane, silent, Close::Now);
            self.remove_connection(silent);
        }
        self.connection_limits.check(address, protocol)
    }

    pub(super) fn insert_connection(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        mut connection: Connection,
    ) {
        let (ip, protocol) = (connection.via.peer.ip(), connection.net.protocol());
        connection.silent =
            self.connection_limits.insert(conn, ip, protocol, connection.stage == Stage::Hello);
        if self.connections.is_empty() {
            self.timers.set_after(plane, SWEEP_INTERVAL, Timer::Sweep);
        }
        self.connections.insert(conn, connection);
    }

    /// Notes that a connection has sent something.
    pub(super) fn note_active(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && let Some(number) = connection.silent.take()
        {
            self.connection_limits.note_active(connection.via.peer.ip(), connection.net.protocol(), number);
        }
    }

    /// Removes a connection and everything that it waits for.
    pub(super) fn remove_connection(&mut self, conn: ConnId) {
        self.note_active(conn);
        self.forget_batches(conn);
        self.recharge(conn);
        let Some(mut connection) = self.connections.remove(&conn) else { return };
        self.kafka.forget_connection(conn);
        self.connection_limits.remove(connection.via.peer.ip(), connection.net.protocol());
        let left = RequestBytes { whole: connection.producing, ..RequestBytes::default() };
        self.admission.recharge(connection.charged, left);
        self.send_budget.unqueue(connection.queue.uncharged());
        let who = match connection.net.protocol() {
            ClientProtocol::Native => InLine::Readers(conn),
            ClientProtocol::Kafka => InLine::KafkaConnection(conn),
        };
        self.send_budget.leave(&mut connection.account, who);
        let readers = connection.readers().collect();
        self.remove_readers(readers);
    }

    /// Takes over a connection that moved here.
    pub(super) fn migrated(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        via: Via,
        greeting: &Greeting,
    ) {
        if let Err(error) = self.check_room_for(plane, via.peer.ip(), ClientProtocol::Native) {
            return reject_connection(plane, conn, via, greeting.id, &error);
        }
        let net = NativeConn::greeted(self.setup.limits.batch_bytes_max);
        self.insert_connection(plane, conn, Connection::new(Net::Native(net), via, Stage::Open));
        self.accept_hello(plane, conn, &greeting.hello, greeting.id);
    }

    fn accept_hello(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, hello: &Hello, id: u64) {
        let features = hello.features & (FEATURE_GROUPS | FEATURE_DAMAGE);
        let reply = Reply::body(&HelloReply {
            version: PROTOCOL_VERSION,
            features,
            node: self.setup.identity.node,
            shard: ShardId(self.me),
            shards: self.setup.shards,
            cluster: self.setup.identity.cluster,
            broker_version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        self.note_active(conn);
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.stage = Stage::Open;
        connection.features = features;
        connection.client_name.clone_from(&hello.client_name);
        let slot = connection.native().replies.open(MessageKind::Hello, id, 0, 0);
        plane.stream(conn);
        self.reply(conn, slot, reply);
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), (ErrorCode, String)> {
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION) {
            let text = format!(
                "this broker supports version {PROTOCOL_VERSION} of the protocol, the client versions {} to {}",
                hello.version_min, hello.version_max
            );
            return Err((ErrorCode::UnsupportedVersion, text));
        }
        let cluster = self.setup.identity.cluster;
        if let Some(wanted) = hello.cluster.filter(|wanted| *wanted != cluster) {
            let text =
                format!("this broker belongs to cluster {cluster}; the client expects cluster {wanted}");
            return Err((ErrorCode::BadHello, text));
        }
        match hello.shard {
            Some(shard) if shard.0 >= self.setup.shards => {
                let text = format!(
                    "there is no shard {shard}: this broker has {} shards, numbered from 0",
                    self.setup.shards
                );
                Err((ErrorCode::BadHello, text))
            }
            _ => Ok(()),
        }
    }

    /// Handles a hello. Returns false if the connection has moved to another shard.
    fn handle_hello(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        hello: Hello,
        id: u64,
        unread: &[u8],
    ) -> Result<bool, ProtocolViolation> {
        self.check_hello(&hello).map_err(|(code, text)| ProtocolViolation {
            kind: MessageKind::Hello as u16,
            id,
            code,
            text,
        })?;
        match hello.shard {
            Some(shard) if shard.0 != self.me => {
                let baggage = Message::Greeted(Box::new(Greeting { hello, id }));
                plane.migrate(conn, shard.0, baggage, Bytes::copy_from_slice(unread));
                self.remove_connection(conn);
                Ok(false)
            }
            _ => {
                tracing::debug!(?conn, client = hello.client_name, "hello");
                self.accept_hello(plane, conn, &hello, id);
                Ok(true)
            }
        }
    }

    pub(super) fn receive(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, data: &[u8]) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.stage == Stage::Closing {
            return;
        }
        if connection.paused {
            connection.held.extend_from_slice(data);
            return;
        }
        let is_new = connection.stage == Stage::Hello && connection.kafka().is_some();
        if is_new && !self.place_kafka(plane, conn, data) {
            return;
        }
        self.take_input(plane, conn, data);
        self.lend_pages(plane, conn);
    }

    /// Handles the filled pages of a large batch.
    pub(super) fn receive_bulk(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, pages: AlignedBuf) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.stage == Stage::Closing {
            return;
        }
        connection.net.return_bulk(pages);
        self.take_input(plane, conn, &[]);
        self.lend_pages(plane, conn);
    }

    /// If a large batch is being received, receives the rest of it directly into its pages.
    fn lend_pages(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !connection.paused
            && let Some(lent) = connection.net.lend_bulk()
        {
            self.counted.received += (lent.end - lent.filled) as u64;
            plane.recv_into(conn, lent.pages, lent.filled, lent.end);
        }
    }

    /// Handles requests in `data` until a limit is reached, and stores the rest.
    fn take_input(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, mut data: &[u8]) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.kafka().is_some() {
            return self.take_kafka_input(plane, conn, data);
        }
        // Requests borrow from the decoder while they are handled.
        let mut decoder = std::mem::take(&mut connection.native().input);
        let outcome = loop {
            if !decoder.is_inside_message() && !self.accepts_request(plane, conn) {
                break Input::Full;
            }
            match decoder.next(&mut data) {
                Ok(Step::More) => break Input::Used,
                Ok(Step::WantsRoom(_)) => {
                    if !self.may_receive_large(conn, decoder.is_produce()) {
                        break Input::Full;
                    }
                    decoder.admit();
                }
                Ok(Step::WantsTurn) => {
                    if !self.may_decode_large(conn, decoder.is_produce()) {
                        break Input::Full;
                    }
                    decoder.grant_turn();
                }
                Ok(Step::Request(Received { request: Request::Hello(hello), id, .. })) => {
                    match self.handle_hello(plane, conn, hello, id, data) {
                        Ok(true) => {}
                        Ok(false) => break Input::Gone,
                        Err(violation) => break Input::Violation(violation),
                    }
                }
                Ok(Step::Request(received)) => self.request(plane, conn, received),
                Err(violation) => break Input::Violation(violation),
            }
        };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.native().input = decoder;
        match outcome {
            Input::Used => self.resume_receiving(plane, conn),
            Input::Full => self.pause_receiving(plane, conn, data),
            Input::Gone => {}
            Input::Violation(violation) => self.close_with_error(plane, conn, &violation),
        }
        self.recharge(conn);
    }

    /// Continues receiving after all input was consumed.
    pub(super) fn resume_receiving(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.net.note_progress(plane.now(), true);
        if std::mem::take(&mut connection.paused) {
            plane.resume(conn);
        }
    }

    /// Pauses receiving and stores the rest of the input, because no further request may be handled for now.
    pub(super) fn pause_receiving(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, rest: &[u8]) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !rest.is_empty() {
            connection.held = rest.to_vec();
        }
        connection.net.note_progress(plane.now(), false);
        if !std::mem::replace(&mut connection.paused, true) {
            plane.pause(conn);
        }
    }

    pub(super) fn accepts_request(&mut self, plane: &dyn Plane<Message>, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get(&conn) else { return false };
        if connection.stage == Stage::Hello {
            return true;
        }
        // Requests wait until the shard has the metadata.
        let waits = self.metadata.is_none() || self.drain.is_some() || self.partitions.holds(conn);
        let send_queue_max = self.send_budget.share(connection.queue.bytes());
        if waits || !connection.accepts_request(send_queue_max) {
            return false;
        }
        let may = self.may_admit_request(plane);
        self.wait_unless(conn, may)
    }

    /// Returns whether the rest of a large request may be received. If not, the connection resumes when it may.
    pub(super) fn may_receive_large(&mut self, conn: ConnId, is_produce: bool) -> bool {
        self.is_in_turn_for_large(conn, is_produce) && {
            let may = self.admission.may_receive_large();
            self.wait_unless(conn, may)
        }
    }

    /// Returns whether a complete large request may be decoded. Connections that already wait come first. If not, the connection resumes when
    /// it may.
    pub(super) fn may_decode_large(&mut self, conn: ConnId, is_produce: bool) -> bool {
        self.is_in_turn_for_large(conn, is_produce) && {
            let may = self.admission.may_decode_large();
            self.wait_unless(conn, may)
        }
    }

    /// Returns whether earlier requests allow a large one. A large request without records waits until everything before it is answered and
    /// sent: its decoded form uses many times its size, and would stay in memory for ever behind a reply that the client does not receive.
    fn is_in_turn_for_large(&self, conn: ConnId, is_produce: bool) -> bool {
        is_produce || self.connections.get(&conn).is_none_or(Connection::is_answered)
    }

    /// Adds the connection to those that wait for admission if `may` is false. Returns `may`.
    fn wait_unless(&mut self, conn: ConnId, may: bool) -> bool {
        if !may {
            self.want_memory(conn);
        }
        may
    }

    /// Returns whether the shard may handle another request, from any connection.
    fn may_admit_request(&self, plane: &dyn Plane<Message>) -> bool {
        self.admission.may_admit(Load {
            open_calls: self.calls.open(),
            backlog: plane.backlog(),
            is_sending_overdrawn: self.send_budget.is_overdrawn(),
        })
    }

    fn want_memory(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !std::mem::replace(&mut connection.wants_memory, true)
        {
            self.admission.wait(conn);
        }
    }

    /// Updates how much of the memory for requests a connection uses.
    pub(super) fn recharge(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let mut now = connection.net.request_bytes();
        now.whole += connection.silent_batch;
        if connection.silent_batch >= BULK_BYTES_MIN {
            now.large += connection.silent_batch;
        }
        self.admission.recharge(connection.charged, now);
        connection.charged = now;
    }

    /// Resumes a paused connection if its limits allow.
    pub(super) fn resume(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !connection.paused {
            return;
        }
        let held = std::mem::take(&mut connection.held);
        self.take_input(plane, conn, &held);
    }

    /// Resumes connections that wait for memory, while there is some.
    pub(super) fn resume_memory_waiters(&mut self, plane: &mut dyn Plane<Message>) {
        self.admission.set_resuming(true);
        for _ in 0..self.admission.waiting() {
            if !self.may_admit_request(plane) {
                break;
            }
            let Some(conn) = self.admission.pop_waiting() else { break };
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.wants_memory = false;
                self.resume(plane, conn);
            }
        }
        self.admission.set_resuming(false);
    }

    /// Sends the error to the peer and closes the connection.
    pub(super) fn close_with_error(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        violation: &ProtocolViolation,
    ) {
        if let Some(connection) = self.connections.get(&conn) {
            tracing::debug!(peer = %connection.via.peer, code = %violation.code, "dropped: {}", violation.text);
        }
        self.counted.requests_failed += 1;
        let message = error_message(violation.kind, violation.id, violation.code, &violation.text);
        self.send(plane, conn, message);
        self.close(plane, conn, Close::AfterSends);
    }

    /// Closes a connection. Its pending work is dropped at once; the connection itself is removed when the plane reports it closed.
    pub(super) fn close(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, how: Close) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.stage = Stage::Closing;
        connection.closing_since = Some(plane.now());
        connection.held = Vec::new();
        connection.sending = None;
        connection.next_fetch = None;
        connection.large_replies = BTreeMap::new();
        connection.runnable.readers.clear();
        self.forget_batches(conn);
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let readers: Vec<_> = connection.readers().collect();
        connection.subscriptions.clear();
        connection.ended_subscriptions.clear();
        connection.fetches.clear();
        self.remove_readers(readers);
        plane.close(conn, how);
    }

    /// Closes connections that have missed a deadline.
    pub(super) fn sweep(&mut self, plane: &mut dyn Plane<Message>) {
        let now = plane.now();
        let (mut overdue, mut kafka) = (Vec::new(), Vec::new());
        for (conn, connection) in self.connections.iter_mut().filter(|(_, c)| c.stage != Stage::Closing) {
            match &mut connection.net {
                Net::Native(native) => overdue.extend(native.overdue(now).map(|why| (*conn, why))),
                Net::Kafka(side) => kafka.extend(side.overdue(now).map(|why| (*conn, why))),
            }
        }
        for (conn, why) in overdue {
            self.close_with_error(plane, conn, &why.violation());
        }
        for (conn, why) in kafka {
            self.drop_kafka(plane, conn, &why.to_string());
        }
        if self.send_budget.is_short() {
            self.cut_slow_readers(plane);
        }
        for (conn, connection) in self.connections.iter() {
            if connection.closing_since.is_some_and(|since| now.since(since) >= CLOSING_TIME_MAX) {
                plane.close(*conn, Close::Now);
            }
        }
        if !self.connections.is_empty() {
            self.timers.set_after(plane, SWEEP_INTERVAL, Timer::Sweep);
        }
    }
}

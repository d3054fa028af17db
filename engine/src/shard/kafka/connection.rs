//! Connections of Kafka clients. They have no hello, are assigned to shards in rotation, and are closed without an error message.

use bytes::Bytes;
use highwater_net::kafka::{KafkaConn, KafkaStep, ReplyTail};
use highwater_runtime::plane::{Close, ConnId, Plane};

use crate::kafka_message::KafkaMessage;
use crate::message::Message;
use crate::session::ClientProtocol;
use crate::shard::Shard;
use crate::shard::connection::{Connection, Net, Stage, Via};

/// Why the handling of a connection's input stopped.
enum Input {
    Used,
    Full,
    Violation(String),
}

impl Shard {
    pub(in crate::shard) fn accept_kafka(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, via: Via) {
        self.begin_kafka(plane, conn, via, Stage::Hello);
    }

    /// Takes over a connection that moved here.
    pub(in crate::shard) fn kafka_migrated(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        via: Via,
    ) {
        if self.begin_kafka(plane, conn, via, Stage::Open) {
            plane.stream(conn);
        }
    }

    /// Returns false if there are too many connections.
    fn begin_kafka(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, via: Via, stage: Stage) -> bool {
        if let Err(error) = self.check_room_for(plane, via.peer.ip(), ClientProtocol::Kafka) {
            tracing::debug!(peer = %via.peer, "connection refused: {error}");
            plane.close(conn, Close::Now);
            return false;
        }
        let net = Net::Kafka(KafkaConn::new(plane.now(), self.setup.limits.batch_bytes_max));
        self.insert_connection(plane, conn, Connection::new(net, via, stage));
        true
    }

    /// Assigns a connection to a shard when its first bytes arrive. Returns true if it stays on this one.
    ///
    /// The kernel wakes the shard that has waited longest, which on a quiet broker is always the same one, and Kafka's clients cannot choose.
    pub(in crate::shard) fn place_kafka(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        first: &[u8],
    ) -> bool {
        let shard = self.kafka.rotation.next(plane.shards(), plane.random_u64());
        if shard != self.me {
            plane.migrate(conn, shard, Message::Placed, Bytes::copy_from_slice(first));
            self.remove_connection(conn);
            return false;
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.stage = Stage::Open;
        }
        self.note_active(conn);
        plane.stream(conn);
        true
    }

    /// Handles requests in `data` until a limit is reached, and stores the rest.
    pub(in crate::shard) fn take_kafka_input(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        mut data: &[u8],
    ) {
        let Some(kafka) = self.connections.get_mut(&conn).and_then(Connection::kafka) else { return };
        // Requests borrow from the decoder while they are handled.
        let mut decoder = std::mem::take(&mut kafka.input);
        let outcome = loop {
            if !decoder.is_inside_request() && !self.accepts_request(plane, conn) {
                break Input::Full;
            }
            match decoder.next(&mut data) {
                Ok(KafkaStep::More) => break Input::Used,
                Ok(KafkaStep::WantsRoom(_)) => {
                    if !self.may_receive_large(conn, decoder.is_produce()) {
                        break Input::Full;
                    }
                    decoder.admit();
                }
                Ok(KafkaStep::WantsTurn) => {
                    if !self.may_decode_large(conn, decoder.is_produce()) {
                        break Input::Full;
                    }
                    decoder.grant_turn();
                }
                Ok(KafkaStep::Request(received)) => self.kafka_request(plane, conn, received),
                Err(violation) => break Input::Violation(violation.text),
            }
        };
        if let Some(kafka) = self.connections.get_mut(&conn).and_then(Connection::kafka) {
            kafka.input = decoder;
        }
        match outcome {
            Input::Used => self.resume_receiving(plane, conn),
            Input::Full => self.pause_receiving(plane, conn, data),
            Input::Violation(text) => self.drop_kafka(plane, conn, &text),
        }
        self.recharge(conn);
    }

    /// Closes a connection after a violation of the protocol. Kafka's protocol has no message for that.
    pub(in crate::shard) fn drop_kafka(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, why: &str) {
        let Some(connection) = self.connections.get(&conn) else { return };
        tracing::debug!(peer = %connection.via.peer, "dropped: {why}");
        self.counted.requests_failed += 1;
        self.close(plane, conn, Close::AfterSends);
    }

    /// Sends the responses that are next in order.
    pub(in crate::shard) fn send_kafka_replies_of(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let mut out = self.take_arena();
        while let Some(tail) = self
            .connections
            .get_mut(&conn)
            .filter(|connection| connection.sending.is_none())
            .and_then(Connection::kafka)
            .and_then(|kafka| kafka.replies.pop(&mut out))
        {
            match tail {
                ReplyTail::Bytes { rest, .. } if rest.is_empty() => {}
                ReplyTail::Bytes { rest, records_bytes } => {
                    self.send(plane, conn, out.split().freeze());
                    self.send_records(plane, conn, rest, records_bytes);
                }
                ReplyTail::Long(long) => {
                    self.send(plane, conn, out.split().freeze());
                    self.begin_long_answer(conn, long);
                }
            }
        }
        if !out.is_empty() {
            self.send(plane, conn, out.split().freeze());
        }
        self.arena = out;
        self.recharge(conn);
        let is_over = |c: &Connection| c.stage == Stage::Ending && c.is_answered();
        if self.connections.get(&conn).is_some_and(is_over) {
            return self.drop_kafka(plane, conn, "a request without a response failed");
        }
        self.begin_large_reply(plane, conn);
        self.begin_next_fetch(plane, conn);
        self.resume(plane, conn);
    }

    /// Notifies other shards of closed connections, and sends them the outcomes of their batches.
    pub(in crate::shard) fn notify_kafka_shards(&mut self, plane: &mut dyn Plane<Message>) {
        for conn in std::mem::take(&mut self.kafka.gone) {
            for shard in 0..plane.shards() {
                plane.post(shard, Message::Kafka(Box::new(KafkaMessage::Closed(conn))));
            }
        }
        let mut produced = std::mem::take(&mut self.kafka.produced);
        while let Some((first, _)) = produced.first() {
            let shard = first.shard;
            let (now, later) = produced.into_iter().partition(|(to, _)| to.shard == shard);
            plane.post(shard, Message::Kafka(Box::new(KafkaMessage::Appended(now))));
            produced = later;
        }
    }
}

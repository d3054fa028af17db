//! The connections of a shard, and which of them have replies to send.

use std::collections::BTreeMap;
use std::net::IpAddr;

use highwater_net::Reply;
use highwater_net::kafka::KafkaReply;
use highwater_runtime::plane::ConnId;

use super::connection::{Connection, Stage};
use crate::address::HostPort;
use crate::context::{AnswerTo, Clients, KafkaCall, LargeReply, NativeCall};

/// All connections, in a deterministic order.
#[derive(Default)]
pub(super) struct Connections {
    all: BTreeMap<ConnId, Connection>,
    /// Connections that may have replies to send.
    dirty: Vec<ConnId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the methods are called like those of a map")]
impl Connections {
    pub(super) fn get(&self, conn: &ConnId) -> Option<&Connection> {
        self.all.get(conn)
    }

    pub(super) fn get_mut(&mut self, conn: &ConnId) -> Option<&mut Connection> {
        self.all.get_mut(conn)
    }

    pub(super) fn contains_key(&self, conn: &ConnId) -> bool {
        self.all.contains_key(conn)
    }

    pub(super) fn insert(&mut self, conn: ConnId, connection: Connection) {
        self.all.insert(conn, connection);
    }

    pub(super) fn remove(&mut self, conn: &ConnId) -> Option<Connection> {
        self.all.remove(conn)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ConnId> {
        self.all.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Connection> {
        self.all.values()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ConnId, &Connection)> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&ConnId, &mut Connection)> {
        self.all.iter_mut()
    }

    /// Notes that a connection may have replies to send.
    pub(super) fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(connection) = self.all.get_mut(&conn)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(conn);
        }
    }

    /// Returns whether any connection may have replies to send.
    pub(super) fn are_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes the connections that may have replies to send.
    pub(super) fn take_dirty(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.dirty)
    }
}

impl Clients for Connections {
    fn reply(&mut self, call: NativeCall, reply: Reply) {
        let Some(connection) = self.all.get_mut(&call.conn) else { return };
        connection.native().replies.fill(call.slot, reply);
        self.mark_dirty(call.conn);
    }

    fn kafka_reply(&mut self, call: KafkaCall, reply: KafkaReply) {
        let Some(connection) = self.all.get_mut(&call.conn) else { return };
        if connection.stage == Stage::Closing {
            return;
        }
        let Some(kafka) = connection.kafka() else { return };
        kafka.replies.fill(call.slot, reply);
        self.mark_dirty(call.conn);
    }

    fn close_after_replies(&mut self, conn: ConnId) {
        if let Some(connection) = self.all.get_mut(&conn) {
            if connection.stage == Stage::Open {
                connection.stage = Stage::Ending;
            }
            self.mark_dirty(conn);
        }
    }

    fn advertised_to(&self, conn: ConnId, advertised: &[Option<HostPort>]) -> Option<HostPort> {
        let via = self.all.get(&conn)?.via;
        let advertised = advertised.get(usize::from(via.listener.0)).cloned().flatten();
        Some(advertised.unwrap_or_else(|| via.local.into()))
    }

    fn name_and_address(&self, conn: ConnId) -> Option<(&str, IpAddr)> {
        let connection = self.all.get(&conn)?;
        Some((connection.client_name.as_str(), connection.via.peer.ip()))
    }

    fn add_long_answer(&mut self, conn: ConnId) -> bool {
        let connection = self.all.get_mut(&conn);
        connection.map(|connection| connection.long_answers += 1).is_some()
    }

    fn remove_long_answer(&mut self, conn: ConnId) {
        if let Some(connection) = self.all.get_mut(&conn) {
            connection.long_answers -= 1;
        }
    }

    fn add_large_reply(&mut self, to: AnswerTo, reply: LargeReply) {
        let Some(connection) = self.all.get_mut(&to.conn()) else { return };
        if connection.stage == Stage::Closing {
            return;
        }
        connection.large_replies.insert(to.slot(), reply);
        self.mark_dirty(to.conn());
    }
}

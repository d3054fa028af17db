//! Builds large replies when there is memory for them. See [`ReplyMemory`].

use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use crate::context::ReplyMemory;
use crate::message::Message;
use crate::read::{InLine, MemoryRequest};
use crate::session::ClientProtocol;

impl Shard {
    /// Builds the first large reply of a connection, if it is the next to be sent and there is memory for it. Returns false if there is no
    /// memory.
    pub(super) fn begin_large_reply(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return true };
        let Some((slot, reply)) = connection.large_replies.first_key_value() else { return true };
        if connection.sending.is_some() || !connection.net.is_next(*slot) {
            return true;
        }
        let memory = MemoryRequest { most: reply.bytes, least: reply.bytes };
        let (queued, who) = match connection.net.protocol() {
            ClientProtocol::Native => (connection.queue.uncharged(), InLine::Readers(conn)),
            ClientProtocol::Kafka => (connection.queue.bytes(), InLine::KafkaConnection(conn)),
        };
        let Some(charge) = self.send_budget.reserve(&mut connection.account, queued, memory) else {
            self.send_budget.wait(&mut connection.account, queued, who);
            return false;
        };
        if let Some((_, reply)) = connection.large_replies.pop_first() {
            (reply.begin)(&mut self.context(plane), Ok(ReplyMemory::charged(charge)));
        }
        true
    }
}

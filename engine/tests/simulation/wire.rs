//! A client's connection in the simulated world.

use std::net::SocketAddr;
use std::time::Duration;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ShardId, Timestamp, TopicPartition};
use highwater_protocol::native::{
    Acks, Body, Hello, MessageKind, PROTOCOL_VERSION, WIRE_HEADER_BYTES, WireHeader, error_text, message,
    produce_head,
};
use highwater_runtime::sim::SimClient;

use crate::node::{TICK, World};

/// Virtual time after which a client gives up waiting for a reply.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(2);

/// A message from the broker.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kind: MessageKind,
    pub(crate) id: u64,
    pub(crate) body: Result<Vec<u8>, (ErrorCode, String)>,
}

pub(crate) struct Wire {
    client: SimClient,
    received: Vec<u8>,
    next_id: u64,
}

impl Wire {
    /// Connects and sends the hello. Its reply is skipped.
    pub(crate) fn connect(world: &mut World, to: SocketAddr, shard: Option<u16>) -> Self {
        let mut client = world.connect(to);
        let hello = Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: 0,
            shard: shard.map(ShardId),
            cluster: None,
            client_name: "simulation".into(),
        };
        client.send(message(0, &hello));
        Self { client, received: Vec::new(), next_id: 0 }
    }

    pub(crate) fn send(&mut self, body: &impl Body) -> u64 {
        self.next_id += 1;
        self.client.send(message(self.next_id, body));
        self.next_id
    }

    /// Returns the id of the next request.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id + 1
    }

    pub(crate) fn send_with_id(&mut self, make: impl FnOnce(u64) -> Vec<u8>) -> u64 {
        self.next_id += 1;
        self.client.send(make(self.next_id));
        self.next_id
    }

    pub(crate) fn send_batch(&mut self, to: TopicPartition, batch: &[u8]) -> u64 {
        self.send_with_id(|id| [&produce_head(id, to, Acks::All, batch.len())[..], batch].concat())
    }

    /// Sends a record of this size, without an idempotent producer.
    pub(crate) fn produce(&mut self, to: TopicPartition, bytes: usize) -> u64 {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        let value = vec![b'x'; bytes];
        builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(&value))).expect("it fits");
        self.send_batch(to, &builder.finish(BatchProducer::NONE).expect("there is a record"))
    }

    pub(crate) fn send_raw(&mut self, bytes: impl Into<bytes::Bytes>) {
        self.client.send(bytes);
    }

    /// Returns whether the connection is closed and everything before that was received.
    pub(crate) fn is_over(&self) -> bool {
        self.client.end().is_some()
    }

    /// Waits for the next message. Returns `None` if the connection is closed or that takes too long.
    pub(crate) fn wait(&mut self, world: &mut World) -> Option<Answer> {
        let until = world.now().after(ANSWER_TIME_MAX);
        while world.now() < until && !self.is_over() {
            world.run_for(TICK);
            self.receive(usize::MAX);
            if let Some(answer) = self.pop() {
                return Some(answer);
            }
        }
        None
    }

    /// Receives at most this many bytes.
    pub(crate) fn receive(&mut self, bytes_max: usize) {
        let bytes = self.client.receive_up_to(bytes_max);
        self.received.extend_from_slice(&bytes);
    }

    /// Returns the next complete message, without the reply to the hello.
    pub(crate) fn pop(&mut self) -> Option<Answer> {
        loop {
            let header = WireHeader::parse(&self.received)?;
            let end = WIRE_HEADER_BYTES + header.body_bytes.get() as usize;
            if self.received.len() < end {
                return None;
            }
            let body: Vec<u8> = self.received.drain(..end).skip(WIRE_HEADER_BYTES).collect();
            let kind = header.kind().expect("a kind that exists");
            let body = match header.error() {
                None => Ok(body),
                Some(code) => Err((code, error_text(&body))),
            };
            if kind == MessageKind::Hello && body.is_ok() {
                continue;
            }
            return Some(Answer { kind, id: header.request_id.get(), body });
        }
    }
}

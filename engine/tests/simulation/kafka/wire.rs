//! A Kafka client's connection in the simulated world.

use std::collections::VecDeque;
use std::net::SocketAddr;

use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ProducePartition, ProduceRequest, ProduceTopic};
use highwater_net::kafka::schema::Message;
use highwater_runtime::sim::SimClient;

use crate::kafka_wire::{Answer, request};
use crate::node::World;

pub(crate) struct Wire {
    client: SimClient,
    received: Vec<u8>,
    next: i32,
    /// Requests without a response.
    pending: VecDeque<(i32, ApiKey, i16)>,
}

impl Wire {
    pub(crate) fn connect(world: &mut World, to: SocketAddr) -> Self {
        Self { client: world.connect(to), received: Vec::new(), next: 0, pending: VecDeque::new() }
    }

    /// Returns the correlation id of the next request.
    pub(crate) fn next_id(&self) -> i32 {
        self.next + 1
    }

    pub(crate) fn send<'a>(&mut self, api: ApiKey, version: i16, body: &impl Message<'a>) {
        self.next += 1;
        self.client.send(request(api, version, self.next, body).freeze());
        self.pending.push_back((self.next, api, version));
    }

    /// Sends a batch to one partition of a topic.
    pub(crate) fn produce(&mut self, topic: &str, index: i32, acks: i16, records: &[u8]) {
        let partition_data = vec![ProducePartition { index, records: Some(records) }];
        let topic_data = vec![ProduceTopic { name: topic, topic_id: [0; 16], partition_data }];
        let request = ProduceRequest { transactional_id: None, acks, timeout_ms: 30_000, topic_data };
        self.send(ApiKey::Produce, 9, &request);
    }

    /// Returns the number of requests without a response.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Closes the connection. Bytes that were sent still arrive.
    pub(crate) fn close(&mut self) {
        self.client.close();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.client.end().is_some()
    }

    /// Receives a byte if one has arrived. Returns whether the next response has begun to arrive.
    pub(crate) fn has_begun_to_receive(&mut self) -> bool {
        self.received.extend_from_slice(&self.client.receive_up_to(1));
        !self.received.is_empty()
    }

    /// Receives at most this many bytes. Returns the next response if it is complete.
    pub(crate) fn receive(&mut self, bytes_max: usize) -> Option<(ApiKey, Answer)> {
        let bytes = self.client.receive_up_to(bytes_max);
        self.received.extend_from_slice(&bytes);
        let length = u32::from_be_bytes(self.received.get(..4)?.try_into().expect("four bytes"));
        let end = 4 + length as usize;
        if self.received.len() < end {
            return None;
        }
        let bytes = self.received.drain(..end).skip(4).collect();
        let (id, api, version) = self.pending.pop_front().expect("a request is pending");
        let answer = Answer::new(api, version, bytes);
        assert_eq!(answer.correlation_id, id, "answers come in order");
        Some((api, answer))
    }
}

//! A producer that retries for ever: unacknowledged batches are sent again, in order, with the same sequence numbers.

use std::net::SocketAddr;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::ProducerId;
use highwater_protocol::native::{Body, InitProducerReply, MessageKind, ProduceReply, empty_message};
use highwater_runtime::sim::SimRng;

use crate::lane::Lane;
use crate::node::World;
use crate::wire::Wire;

pub(crate) struct Producer {
    pub(crate) lane: Lane,
    shard: u16,
    rng: SimRng,
    wire: Option<Wire>,
    id: Option<ProducerId>,
}

impl Producer {
    pub(crate) fn new(lane: Lane, shard: u16, rng: SimRng) -> Self {
        Self { lane, shard, rng, wire: None, id: None }
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr) {
        if self.wire.as_ref().is_some_and(Wire::is_over) {
            self.wire = None;
        }
        if self.wire.is_none() {
            let mut wire = Wire::connect(world, address, Some(self.shard));
            self.lane.start_again();
            if self.id.is_none() {
                wire.send_with_id(|id| empty_message(MessageKind::InitProducer, id).to_vec());
            }
            self.wire = Some(wire);
        }
        if self.receive() {
            self.wire = None;
            return;
        }
        self.send();
    }

    /// Handles replies. Returns true if it has to reconnect.
    fn receive(&mut self) -> bool {
        let Some(wire) = &mut self.wire else { return false };
        wire.receive(usize::MAX);
        while let Some(answer) = wire.pop() {
            match (answer.kind, answer.body) {
                (MessageKind::InitProducer, Ok(body)) => {
                    self.id = Some(InitProducerReply::decode(&body).expect("a reply").producer);
                }
                (MessageKind::Produce, Ok(body)) => {
                    let reply = ProduceReply::decode(&body).expect("a reply");
                    self.lane.acknowledged(answer.id, reply.base_offset.get());
                }
                // All batches after a rejected one are sent again.
                (_, Err((code, text))) => {
                    assert!(code.is_retryable() || code == ErrorCode::OutOfOrderSequence, "{code}: {text}");
                    return true;
                }
                (kind, Ok(_)) => panic!("unexpected {kind:?}"),
            }
        }
        false
    }

    fn send(&mut self) {
        let (Some(wire), Some(id)) = (&mut self.wire, self.id) else { return };
        self.lane.create_batches(&mut self.rng);
        let to = self.lane.to();
        while let Some(batch) = self.lane.send_next(id, wire.next_id()) {
            wire.send_batch(to, &batch);
        }
    }
}

//! Producer ids for Kafka clients, out of the same blocks as the native protocol's.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{InitProducerIdRequest, InitProducerIdResponse};
use highwater_protocol::ids::ProducerId;
use highwater_runtime::plane::Plane;

use super::Call;
use super::transactions::NO_TRANSACTIONS;
use crate::message::Message;
use crate::shard::Shard;
use crate::shard::admin::WantsProducerId;

impl Shard {
    pub(super) fn kafka_init_producer_id(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &InitProducerIdRequest<'_>,
    ) {
        if request.transactional_id.is_some() {
            return self.give_kafka_producer_id(call, Err(NO_TRANSACTIONS));
        }
        // A producer that asks for the next epoch of its id gets a new id, as from Kafka.
        self.init_producer(plane, WantsProducerId::Kafka(call));
    }

    pub(in crate::shard) fn give_kafka_producer_id(
        &mut self,
        call: Call,
        given: Result<ProducerId, KafkaError>,
    ) {
        let response = match given {
            Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
            // One that a client tries again.
            Err(KafkaError::REQUEST_TIMED_OUT | KafkaError::NOT_LEADER_OR_FOLLOWER) => {
                InitProducerIdResponse {
                    error_code: KafkaError::COORDINATOR_NOT_AVAILABLE,
                    producer_epoch: -1,
                    ..Default::default()
                }
            }
            Err(error_code) => {
                InitProducerIdResponse { error_code, producer_epoch: -1, ..Default::default() }
            }
        };
        self.kafka_answer(call, &response);
    }
}

//! InitProducerId. Kafka's producers and native producers get ids from the same blocks.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{InitProducerIdRequest, InitProducerIdResponse};
use highwater_protocol::ids::ProducerId;

use super::Call;
use super::transactions::NO_TRANSACTIONS;
use crate::context::Context;

pub(super) fn init_producer_id(context: &mut Context<'_>, call: Call, request: &InitProducerIdRequest<'_>) {
    if request.transactional_id.is_some() {
        return answer(context, call, Err(NO_TRANSACTIONS));
    }
    // A producer that asks for the next epoch of its id gets a new id, as from Kafka.
    context.assign_producer_id(move |context, given| answer(context, call, given.map_err(KafkaError::from)));
}

fn answer(context: &mut Context<'_>, call: Call, given: Result<ProducerId, KafkaError>) {
    let response = match given {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(error_code) => InitProducerIdResponse { error_code, producer_epoch: -1, ..Default::default() },
    };
    context.answer(call, &response);
}

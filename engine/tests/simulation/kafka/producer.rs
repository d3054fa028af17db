//! An idempotent producer to all partitions that retries for ever.

use std::net::SocketAddr;

use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducePartition, ProduceRequest, ProduceResponse,
    ProduceTopic,
};
use highwater_protocol::ids::ProducerId;
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use super::wire::Wire;
use super::{TOPIC, succeeded};
use crate::kafka_wire::Answer;
use crate::lane::Lane;
use crate::node::World;

/// The last version in which topics have names.
const PRODUCE_VERSION_MAX: i16 = 12;

/// Maximum number of requests in flight.
const REQUESTS_MAX: usize = 5;

pub(crate) struct KafkaProducer {
    pub(crate) lanes: Vec<Lane>,
    rng: SimRng,
    wire: Option<Wire>,
    id: Option<ProducerId>,
}

impl KafkaProducer {
    pub(crate) fn new(lanes: Vec<Lane>, rng: SimRng) -> Self {
        Self { lanes, rng, wire: None, id: None }
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr) {
        if self.wire.as_ref().is_some_and(Wire::is_over) {
            self.wire = None;
        }
        if self.wire.is_none() {
            let mut wire = Wire::connect(world, address);
            self.lanes.iter_mut().for_each(Lane::start_again);
            if self.id.is_none() {
                let init = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
                wire.send(ApiKey::InitProducerId, 4, &init);
            }
            self.wire = Some(wire);
        }
        while let Some((api, answer)) = self.wire.as_mut().and_then(|wire| wire.receive(usize::MAX)) {
            if !self.take(api, &answer) {
                self.wire = None;
                return;
            }
        }
        self.send();
    }

    /// Handles responses. Returns false if it has to reconnect.
    fn take(&mut self, api: ApiKey, answer: &Answer) -> bool {
        if api == ApiKey::InitProducerId {
            let response: InitProducerIdResponse = answer.body();
            if succeeded(response.error_code) {
                self.id = Some(ProducerId(response.producer_id));
            }
            return self.id.is_some();
        }
        let response: ProduceResponse<'_> = answer.body();
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let mut all_taken = true;
        for partition in partitions {
            if succeeded(partition.error_code) {
                let lane = &mut self.lanes[partition.index as usize];
                lane.acknowledged(answer.correlation_id as u64, partition.base_offset);
            } else {
                // All batches after a rejected one are sent again.
                all_taken = false;
            }
        }
        all_taken
    }

    fn send(&mut self) {
        let (Some(wire), Some(id)) = (&mut self.wire, self.id) else { return };
        for lane in &mut self.lanes {
            lane.create_batches(&mut self.rng);
        }
        while wire.pending() < REQUESTS_MAX {
            let request = wire.next_id() as u64;
            let batches = self.lanes.iter_mut().map(|lane| (lane.to(), lane.send_next(id, request)));
            let batches: Vec<_> = batches.filter_map(|(to, batch)| Some((to, batch?))).collect();
            if batches.is_empty() {
                return;
            }
            let partition_data = batches
                .iter()
                .map(|(to, batch)| ProducePartition { index: to.partition.0 as i32, records: Some(batch) });
            let partition_data = partition_data.collect();
            let topic = ProduceTopic { name: TOPIC, topic_id: [0; 16], partition_data };
            let version = self.rng.random_range(3..=PRODUCE_VERSION_MAX);
            wire.send(
                ApiKey::Produce,
                version,
                &ProduceRequest {
                    transactional_id: None,
                    acks: -1,
                    timeout_ms: 30_000,
                    topic_data: vec![topic],
                },
            );
        }
    }
}

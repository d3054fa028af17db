//! An administrator who gives the topic more partitions now and then.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use super::{PARTITIONS_MAX, Round, TOPIC};
use crate::kafka::wire::Wire;

pub(super) struct Grower {
    rng: SimRng,
    wire: Option<Wire>,
    /// The requested number of partitions, until the broker has confirmed it.
    wanted: Option<i32>,
}

impl Grower {
    pub(super) fn new(rng: SimRng) -> Self {
        Self { rng, wire: None, wanted: None }
    }

    /// Returns whether the number of partitions is known.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_none()
    }

    pub(super) fn poll(&mut self, round: &mut Round<'_>) {
        let partitions = round.ledger.partitions;
        if self.wanted.is_none()
            && !round.is_quiet
            && partitions < PARTITIONS_MAX
            && self.rng.random_bool(0.001)
        {
            self.wanted = Some(partitions + 1);
        }
        let Some(wanted) = self.wanted else { return };
        if self.wire.as_ref().is_none_or(Wire::is_over) {
            self.wire = Some(Wire::connect(round.world, round.address));
        }
        let Some(wire) = &mut self.wire else { return };
        if let Some((_, answer)) = wire.receive(usize::MAX) {
            let response: CreatePartitionsResponse<'_> = answer.body();
            match response.results[0].error_code {
                // The second error: it has that many already, from a request whose response was lost.
                KafkaError::NONE | KafkaError::INVALID_PARTITIONS => {
                    round.ledger.partitions = wanted;
                    self.wanted = None;
                    return;
                }
                KafkaError::NOT_CONTROLLER
                | KafkaError::COORDINATOR_LOAD_IN_PROGRESS
                | KafkaError::KAFKA_STORAGE_ERROR => {}
                error => panic!("{error:?}: {:?}", response.results[0].error_message),
            }
        }
        if wire.pending() == 0 {
            let topic = CreatePartitionsTopic { name: TOPIC, count: wanted, assignments: None };
            let request =
                CreatePartitionsRequest { topics: vec![topic], timeout_ms: 1000, validate_only: false };
            wire.send(ApiKey::CreatePartitions, 3, &request);
        }
    }
}

//! Clients outside of groups that read committed offsets and the states of groups.

use std::collections::BTreeMap;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    ListGroupsRequest, ListGroupsResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use super::{RETRIED, Round, TOPIC};
use crate::kafka::wire::Wire;

/// Reads all offsets of a group.
pub(super) struct OffsetReader {
    group: &'static str,
    rng: SimRng,
    wire: Option<Wire>,
    /// The lower bound of each partition's offset when the request was sent.
    known: Vec<i64>,
}

impl OffsetReader {
    pub(super) fn new(group: &'static str, rng: SimRng) -> Self {
        Self { group, rng, wire: None, known: Vec::new() }
    }

    pub(super) fn poll(&mut self, round: &mut Round<'_>) {
        if self.wire.as_ref().is_none_or(Wire::is_over) {
            self.wire = Some(Wire::connect(round.world, round.address));
        }
        let Some(wire) = &mut self.wire else { return };
        if let Some((_, answer)) = wire.receive(usize::MAX) {
            let response: OffsetFetchResponse<'_> = answer.body();
            if response.error_code == KafkaError::NONE {
                let topic = response.topics.iter().find(|topic| topic.name == TOPIC);
                let found: BTreeMap<i32, i64> = topic
                    .iter()
                    .flat_map(|topic| &topic.partitions)
                    .map(|partition| (partition.partition_index, partition.committed_offset))
                    .collect();
                for (partition, known) in (0..).zip(&self.known) {
                    let offset = found.get(&partition).map_or(0, |offset| (*offset).max(0));
                    round.ledger.read(self.group, partition, *known, offset);
                }
            } else {
                assert!(RETRIED.contains(&response.error_code), "{:?}", response.error_code);
            }
        }
        if wire.pending() == 0 && self.rng.random_bool(0.02) {
            let known = (0..round.ledger.partitions).map(|p| round.ledger.offset(self.group, p).known);
            self.known = known.collect();
            let request = OffsetFetchRequest {
                group_id: self.group,
                topics: None,
                require_stable: true,
                ..Default::default()
            };
            wire.send(ApiKey::OffsetFetch, 7, &request);
        }
    }
}

/// Reads the states of all groups.
#[derive(Default)]
pub(super) struct StateReader {
    wire: Option<Wire>,
    states: BTreeMap<String, String>,
}

impl StateReader {
    /// The state of a group when it was last read.
    pub(super) fn of(&self, group: &str) -> Option<&str> {
        self.states.get(group).map(String::as_str)
    }

    pub(super) fn poll(&mut self, round: &mut Round<'_>) {
        if !round.is_quiet {
            return;
        }
        if self.wire.as_ref().is_none_or(Wire::is_over) {
            self.wire = Some(Wire::connect(round.world, round.address));
        }
        let Some(wire) = &mut self.wire else { return };
        if let Some((_, answer)) = wire.receive(usize::MAX) {
            let response: ListGroupsResponse<'_> = answer.body();
            if response.error_code == KafkaError::NONE {
                let listed = response.groups.into_iter();
                self.states = listed.map(|g| (g.group_id.into_owned(), g.group_state.into_owned())).collect();
            } else {
                assert!(RETRIED.contains(&response.error_code), "{:?}", response.error_code);
            }
        }
        if wire.pending() == 0 {
            wire.send(ApiKey::ListGroups, 4, &ListGroupsRequest::default());
        }
    }
}

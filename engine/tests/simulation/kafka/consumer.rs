//! A consumer of all partitions with long polls that commits its positions and resumes from them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, OffsetCommitPartition, OffsetCommitRequest,
    OffsetCommitResponse, OffsetCommitTopic, OffsetFetchRequest, OffsetFetchResponse, OffsetFetchTopic,
};
use highwater_protocol::batch::BatchHeader;
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use super::wire::Wire;
use super::{TOPIC, succeeded};
use crate::kafka_wire::Answer;
use crate::node::World;
use crate::seen::Seen;

const GROUP: &str = "readers";

pub(crate) struct KafkaConsumer {
    /// By partition.
    pub(crate) seen: Vec<Seen>,
    rng: SimRng,
    wire: Option<Wire>,
    /// Positions whose commit was acknowledged, by partition.
    committed: BTreeMap<i32, i64>,
    /// Positions whose commit was sent, acknowledged or not.
    attempted: BTreeMap<i32, i64>,
}

impl KafkaConsumer {
    pub(crate) fn new(seen: Vec<Seen>, rng: SimRng) -> Self {
        Self { seen, rng, wire: None, committed: BTreeMap::new(), attempted: BTreeMap::new() }
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr) {
        if self.wire.as_ref().is_some_and(Wire::is_over) {
            self.wire = None;
        }
        if self.wire.is_none() {
            self.wire = Some(Wire::connect(world, address));
            self.ask_for_positions();
        }
        // It is slow at times.
        if self.rng.random_bool(0.3) {
            return;
        }
        let bytes_max = self.rng.random_range(1..100_000);
        let Some((api, answer)) = self.wire.as_mut().and_then(|wire| wire.receive(bytes_max)) else { return };
        let taken = match api {
            ApiKey::Fetch => self.take_records(&answer),
            ApiKey::OffsetCommit => self.take_commit(&answer),
            ApiKey::OffsetFetch => self.take_positions(&answer),
            other => unreachable!("{other:?}"),
        };
        match self.rng.random_range(0..10) {
            _ if !taken => self.wire = None,
            0 => self.commit(),
            1 => self.ask_for_positions(),
            _ => self.fetch(),
        }
    }

    fn fetch(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let partitions = self.seen.iter().map(|seen| FetchPartition {
            partition: seen.from().partition.0 as i32,
            fetch_offset: seen.next(),
            current_leader_epoch: -1,
            partition_max_bytes: self.rng.random_range(1..100_000),
            ..Default::default()
        });
        let topic = FetchTopic { topic: TOPIC, topic_id: [0; 16], partitions: partitions.collect() };
        let request = FetchRequest {
            max_wait_ms: self.rng.random_range(0..50),
            min_bytes: self.rng.random_range(0..20_000),
            max_bytes: self.rng.random_range(1..200_000),
            topics: vec![topic],
            ..Default::default()
        };
        wire.send(ApiKey::Fetch, self.rng.random_range(4..=12), &request);
    }

    fn take_records(&mut self, answer: &Answer) -> bool {
        let response: FetchResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::NONE);
        let mut all_there = true;
        for got in response.responses.iter().flat_map(|topic| &topic.partitions) {
            if !succeeded(got.error_code) {
                all_there = false;
                continue;
            }
            let seen = &mut self.seen[got.partition_index as usize];
            seen.note_high_watermark(got.high_watermark);
            let mut rest = got.records.unwrap_or_default();
            while !rest.is_empty() {
                let bytes = BatchHeader::parse(rest).expect("a batch").batch_bytes();
                let (batch, left) = rest.split_at(bytes);
                seen.take(batch);
                rest = left;
            }
        }
        all_there
    }

    fn commit(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let partitions = self.seen.iter().map(|seen| OffsetCommitPartition {
            partition_index: seen.from().partition.0 as i32,
            committed_offset: seen.next(),
            committed_leader_epoch: -1,
            committed_metadata: Some("how far it is"),
        });
        let partitions: Vec<_> = partitions.collect();
        self.attempted = partitions.iter().map(|p| (p.partition_index, p.committed_offset)).collect();
        let topic = OffsetCommitTopic { name: TOPIC, partitions, ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: GROUP,
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        wire.send(ApiKey::OffsetCommit, 8, &request);
    }

    fn take_commit(&mut self, answer: &Answer) -> bool {
        let response: OffsetCommitResponse<'_> = answer.body();
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let all_kept = partitions.filter(|partition| !succeeded(partition.error_code)).count() == 0;
        if all_kept {
            self.committed.clone_from(&self.attempted);
        }
        all_kept
    }

    fn ask_for_positions(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let indexes = self.seen.iter().map(|seen| seen.from().partition.0 as i32).collect();
        let topic = OffsetFetchTopic { name: TOPIC, partition_indexes: indexes };
        let request = OffsetFetchRequest { group_id: GROUP, topics: Some(vec![topic]), ..Default::default() };
        wire.send(ApiKey::OffsetFetch, 7, &request);
    }

    fn take_positions(&mut self, answer: &Answer) -> bool {
        let response: OffsetFetchResponse<'_> = answer.body();
        if !succeeded(response.error_code) {
            return false;
        }
        for kept in response.topics.iter().flat_map(|topic| &topic.partitions) {
            assert_eq!(kept.error_code, KafkaError::NONE);
            let of = |positions: &BTreeMap<i32, i64>| positions.get(&kept.partition_index).copied();
            let (least, most) = (of(&self.committed).unwrap_or(-1), of(&self.attempted).unwrap_or(-1));
            let offset = kept.committed_offset;
            assert!((least..=most).contains(&offset), "{offset}, committed {least}, attempted {most}");
            if offset >= 0 {
                assert_eq!(kept.metadata.as_deref(), Some("how far it is"));
                self.committed.insert(kept.partition_index, offset);
            }
        }
        true
    }
}

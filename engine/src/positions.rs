//! The positions of named consumers: a pure state machine of commits.

use std::collections::BTreeMap;

use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{CommitOffsetsRequest, CommittedOffset};
use rkyv::rancor;
use rkyv::util::AlignedVec;

use crate::limits::POSITIONS_BYTES_MAX;

const FORMAT_VERSION: u8 = 1;

/// What is written down: one commit, or, in a snapshot, all positions of a consumer in a topic.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct CommitRecord {
    consumer: String,
    topic: [u8; 16],
    positions: Vec<PositionRecord>,
}

#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct PositionRecord {
    partition: u32,
    offset: i64,
    leader_epoch: i32,
    metadata: String,
}

/// A payload of the positions' log.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Payload {
    Commits(Vec<CommitRecord>),
    TopicDeleted([u8; 16]),
}

/// Positions by consumer, topic and partition.
#[derive(Default, Debug)]
pub struct Positions {
    by_consumer: BTreeMap<String, BTreeMap<TopicId, BTreeMap<PartitionIndex, Position>>>,
    /// About what a snapshot takes.
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Position {
    offset: Offset,
    leader_epoch: i32,
    metadata: String,
}

/// About what a position takes in a snapshot, apart from its metadata.
const POSITION_BYTES: usize = 32;
/// The same for a consumer in a topic, apart from its name.
const CONSUMER_BYTES: usize = 64;

impl Position {
    fn bytes(&self) -> usize {
        POSITION_BYTES + self.metadata.len()
    }
}

/// The log holds what cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the consumers' positions cannot be read: {0}")]
pub struct PositionsError(String);

/// All positions together are over their limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyPositions;

impl Positions {
    /// What a snapshot and the payloads behind it add up to.
    pub fn recover<'a>(
        snapshot: Option<&'a [u8]>,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, PositionsError> {
        let mut positions = Self::default();
        for payload in snapshot.into_iter().chain(payloads) {
            match decode(payload)? {
                Payload::Commits(commits) => commits.into_iter().for_each(|c| positions.take(c)),
                Payload::TopicDeleted(topic) => positions.remove_topic(TopicId(topic)),
            }
        }
        Ok(positions)
    }

    /// Takes a commit. Gives the payload to write down.
    pub fn commit(&mut self, request: CommitOffsetsRequest) -> Result<Vec<u8>, TooManyPositions> {
        let more: usize = request.positions.iter().map(|p| POSITION_BYTES + p.metadata.len()).sum();
        if self.bytes + more + CONSUMER_BYTES + request.consumer.len() > POSITIONS_BYTES_MAX {
            return Err(TooManyPositions);
        }
        let record = CommitRecord {
            consumer: request.consumer,
            topic: request.topic.0,
            positions: request
                .positions
                .into_iter()
                .map(|p| PositionRecord {
                    partition: p.partition.0,
                    offset: p.offset.0,
                    leader_epoch: p.leader_epoch,
                    metadata: p.metadata,
                })
                .collect(),
        };
        let payload = encode(&Payload::Commits(vec![record.clone()]));
        self.take(record);
        Ok(payload)
    }

    /// Forgets a topic that was deleted. Gives the payload to write down, if there was anything.
    pub fn delete_topic(&mut self, topic: TopicId) -> Option<Vec<u8>> {
        let before = self.bytes;
        self.remove_topic(topic);
        (self.bytes < before).then(|| encode(&Payload::TopicDeleted(topic.0)))
    }

    /// Topics that anybody has a position in.
    pub fn topics(&self) -> Vec<TopicId> {
        let mut topics: Vec<TopicId> = self.by_consumer.values().flat_map(|t| t.keys().copied()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// A consumer's positions in a topic, by partition.
    pub fn read(&self, consumer: &str, topic: TopicId) -> Vec<CommittedOffset> {
        let Some(positions) = self.by_consumer.get(consumer).and_then(|t| t.get(&topic)) else {
            return Vec::new();
        };
        positions
            .iter()
            .map(|(partition, p)| CommittedOffset {
                partition: *partition,
                offset: p.offset,
                leader_epoch: p.leader_epoch,
                metadata: p.metadata.clone(),
            })
            .collect()
    }

    /// All of it, as the payload of a state log.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let commits = self
            .by_consumer
            .iter()
            .flat_map(|(consumer, topics)| topics.iter().map(move |(topic, p)| (consumer, topic, p)))
            .map(|(consumer, topic, positions)| CommitRecord {
                consumer: consumer.clone(),
                topic: topic.0,
                positions: positions
                    .iter()
                    .map(|(partition, p)| PositionRecord {
                        partition: partition.0,
                        offset: p.offset.0,
                        leader_epoch: p.leader_epoch,
                        metadata: p.metadata.clone(),
                    })
                    .collect(),
            })
            .collect();
        encode(&Payload::Commits(commits))
    }

    fn take(&mut self, record: CommitRecord) {
        let name_bytes = record.consumer.len();
        let of_topic =
            self.by_consumer.entry(record.consumer).or_default().entry(TopicId(record.topic)).or_default();
        if of_topic.is_empty() {
            self.bytes += CONSUMER_BYTES + name_bytes;
        }
        for p in record.positions {
            let position =
                Position { offset: Offset(p.offset), leader_epoch: p.leader_epoch, metadata: p.metadata };
            self.bytes += position.bytes();
            if let Some(old) = of_topic.insert(PartitionIndex(p.partition), position) {
                self.bytes -= old.bytes();
            }
        }
    }

    fn remove_topic(&mut self, topic: TopicId) {
        let mut removed = 0;
        self.by_consumer.retain(|name, topics| {
            if let Some(positions) = topics.remove(&topic) {
                removed +=
                    CONSUMER_BYTES + name.len() + positions.values().map(Position::bytes).sum::<usize>();
            }
            !topics.is_empty()
        });
        self.bytes -= removed;
    }
}

fn encode(payload: &Payload) -> Vec<u8> {
    let body = rkyv::to_bytes::<rancor::Error>(payload).expect("memory is the only limit");
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(FORMAT_VERSION);
    out.extend_from_slice(&body);
    out
}

fn decode(payload: &[u8]) -> Result<Payload, PositionsError> {
    match payload.split_first() {
        Some((&FORMAT_VERSION, body)) => {
            let mut aligned = AlignedVec::<16>::with_capacity(body.len());
            aligned.extend_from_slice(body);
            rkyv::from_bytes::<Payload, rancor::Error>(&aligned).map_err(|e| PositionsError(e.to_string()))
        }
        Some((version, _)) => Err(PositionsError(format!("format version {version}; start a newer build"))),
        None => Err(PositionsError("an empty payload".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(consumer: &str, topic: u8, positions: &[(u32, i64)]) -> CommitOffsetsRequest {
        CommitOffsetsRequest {
            consumer: consumer.into(),
            topic: TopicId([topic; 16]),
            positions: positions
                .iter()
                .map(|(partition, offset)| CommittedOffset {
                    partition: PartitionIndex(*partition),
                    offset: Offset(*offset),
                    leader_epoch: -1,
                    metadata: format!("at {offset}"),
                })
                .collect(),
        }
    }

    fn offsets(positions: &Positions, consumer: &str, topic: u8) -> Vec<(u32, i64)> {
        positions
            .read(consumer, TopicId([topic; 16]))
            .iter()
            .inspect(|p| assert_eq!(p.metadata, format!("at {}", p.offset)))
            .map(|p| (p.partition.0, p.offset.0))
            .collect()
    }

    #[test]
    fn the_last_commit_counts_before_and_after_a_restart() {
        let mut live = Positions::default();
        let mut log = Vec::new();
        for c in [
            commit("a", 1, &[(0, 5), (1, 6)]),
            commit("b", 1, &[(0, 1)]),
            commit("a", 2, &[(9, 9)]),
            commit("a", 1, &[(1, 60), (2, 7)]),
        ] {
            log.push(live.commit(c).expect("few"));
        }
        let from_log = Positions::recover(None, log.iter().map(Vec::as_slice)).expect("readable");
        let snapshot = live.encode_snapshot();
        let from_snapshot = Positions::recover(Some(&snapshot), [].into_iter()).expect("readable");
        for positions in [&live, &from_log, &from_snapshot] {
            assert_eq!(offsets(positions, "a", 1), [(0, 5), (1, 60), (2, 7)]);
            assert_eq!(offsets(positions, "b", 1), [(0, 1)]);
            assert_eq!(offsets(positions, "a", 2), [(9, 9)]);
            assert_eq!(offsets(positions, "c", 1), []);
            assert_eq!(positions.bytes, live.bytes);
        }
    }

    #[test]
    fn a_deleted_topic_takes_its_positions_along() {
        let mut live = Positions::default();
        let mut log = vec![
            live.commit(commit("a", 1, &[(0, 5), (1, 6)])).expect("few"),
            live.commit(commit("a", 2, &[(0, 7)])).expect("few"),
        ];
        assert_eq!(live.delete_topic(TopicId([3; 16])), None);
        log.push(live.delete_topic(TopicId([1; 16])).expect("there were some"));
        let again = Positions::recover(None, log.iter().map(Vec::as_slice)).expect("readable");
        for positions in [&live, &again] {
            assert_eq!(offsets(positions, "a", 1), []);
            assert_eq!(positions.topics(), [TopicId([2; 16])]);
            assert_eq!(positions.bytes, CONSUMER_BYTES + 1 + POSITION_BYTES + "at 7".len());
        }
    }

    #[test]
    fn what_all_positions_take_is_bounded() {
        let mut live = Positions::default();
        let big = |offset| CommitOffsetsRequest {
            positions: vec![CommittedOffset {
                metadata: "x".repeat(POSITIONS_BYTES_MAX / 3),
                partition: PartitionIndex(offset as u32),
                offset: Offset(offset),
                leader_epoch: 0,
            }],
            ..commit("a", 1, &[])
        };
        live.commit(big(1)).expect("a third");
        live.commit(big(2)).expect("another");
        assert_eq!(live.commit(big(3)), Err(TooManyPositions));
        assert_eq!(live.read("a", TopicId([1; 16])).len(), 2);
    }

    #[test]
    fn bytes_of_another_kind_are_an_error() {
        assert!(Positions::recover(None, [&[7_u8, 0][..]].into_iter()).is_err());
        assert!(Positions::recover(Some(&[]), [].into_iter()).is_err());
        assert!(Positions::recover(None, [&[1_u8, 0, 3][..]].into_iter()).is_err());
    }
}

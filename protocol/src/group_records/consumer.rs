//! Groups of the consumer protocol (KIP-848). All values have version 0, in the flexible form.

use super::wire::{Reader, Writer};
use super::{HIGHWATER_TAG, RecordError};

type Result<T> = core::result::Result<T, RecordError>;

/// The only version.
const VERSION: i16 = 0;

/// Tag of the first tagged field that Kafka defined in a struct.
const KAFKA_TAG: u32 = 0;

/// The epoch of a consumer group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsumerGroupMetadata {
    /// The epoch.
    pub epoch: i32,
    /// Hash of the topics that it subscribes to. Its function is the coordinator's own.
    pub metadata_hash: i64,
    /// Since when it has had no members, in milliseconds since the Unix epoch. A field of our own: in Kafka the offsets of such a group
    /// expire by their commit times.
    pub empty_since_ms: Option<i64>,
}

/// The topics that a consumer group subscribes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsumerGroupPartitionMetadata {
    /// The topics.
    pub topics: Vec<TopicMetadata>,
}

/// A topic with subscribers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicMetadata {
    /// Its id.
    pub topic_id: [u8; 16],
    /// Its name.
    pub topic_name: String,
    /// Its partitions.
    pub partitions: i32,
    /// The racks of its partitions.
    pub racks: Vec<PartitionRacks>,
}

/// The racks of a partition's replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRacks {
    /// The partition.
    pub partition: i32,
    /// The racks.
    pub racks: Vec<String>,
}

/// A member of a consumer group and its subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerGroupMemberMetadata {
    /// Its instance id.
    pub instance: Option<String>,
    /// Its rack.
    pub rack: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// The topics that it subscribes to by name.
    pub topic_names: Vec<String>,
    /// The regular expression that it subscribes with.
    pub topic_regex: Option<String>,
    /// Its rebalance timeout.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it prefers.
    pub assignor: Option<String>,
    /// What it said in the classic protocol, if it speaks that.
    pub classic: Option<ClassicMemberMetadata>,
}

/// What a member of a consumer group that speaks the classic protocol said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicMemberMetadata {
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// The protocols that it supports, each with its metadata.
    pub protocols: Vec<(String, Vec<u8>)>,
}

/// The epoch of a consumer group's target assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetAssignmentMetadata {
    /// The epoch.
    pub epoch: i32,
    /// When it was computed, in milliseconds since the Unix epoch; 0 if that is unknown.
    pub timestamp: i64,
}

/// The target assignment of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetAssignmentMember {
    /// The partitions that it shall have.
    pub partitions: Vec<TargetPartitions>,
}

/// Partitions of a topic that a member shall have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetPartitions {
    /// The topic.
    pub topic_id: [u8; 16],
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The current assignment of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrentMemberAssignment {
    /// The epoch of the member.
    pub epoch: i32,
    /// The epoch before that one.
    pub previous_epoch: i32,
    /// 0 stable, 1 revoking partitions, 2 waiting for partitions that others still have.
    pub state: i8,
    /// The partitions that it has.
    pub assigned: Vec<CurrentPartitions>,
    /// The partitions that it is to give up.
    pub revoking: Vec<CurrentPartitions>,
}

/// Partitions of a topic that a member has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrentPartitions {
    /// The topic.
    pub topic_id: [u8; 16],
    /// The partitions.
    pub partitions: Vec<i32>,
    /// For each partition the epoch of the member when it was assigned. Kafka before 4.3 does not keep them.
    ///
    /// Invariant: as many as partitions.
    pub epochs: Option<Vec<i32>>,
}

/// The topics that a regular expression matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegularExpression {
    /// The topics.
    pub topics: Vec<String>,
    /// The version of the topics that the expression was matched with.
    pub version: i64,
    /// When it was matched, in milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// Checks the version of a value, and returns a reader for its form.
fn flexible<'a>(r: Reader<'a>, value: &'static str, version: i16) -> Result<Reader<'a>> {
    if version == VERSION { Ok(r.flexible()) } else { Err(RecordError::Version { value, version }) }
}

/// Reads the end of a value without tagged fields that we know.
fn end(mut r: Reader<'_>) -> Result<()> {
    skip_tagged(&mut r)?;
    r.finish()
}

fn skip_tagged(r: &mut Reader<'_>) -> Result<()> {
    r.tagged(|_, _| Ok(false))
}

impl ConsumerGroupMetadata {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.i32(self.epoch);
        let hash = (self.metadata_hash != 0).then(|| Writer::field(|w| w.i64(self.metadata_hash)));
        let empty_since = self.empty_since_ms.map(|ms| Writer::field(|w| w.i64(ms)));
        w.tagged(&[(KAFKA_TAG, hash), (HIGHWATER_TAG, empty_since)]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "ConsumerGroupMetadata", version)?;
        let mut group = Self { epoch: r.i32("epoch")?, ..Self::default() };
        r.tagged(|tag, r| {
            match tag {
                KAFKA_TAG => group.metadata_hash = r.i64("metadata hash")?,
                HIGHWATER_TAG => group.empty_since_ms = Some(r.i64("empty since")?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        r.finish()?;
        Ok(group)
    }
}

impl ConsumerGroupPartitionMetadata {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.list(&self.topics, |w, topic| {
            w.uuid(topic.topic_id);
            w.string(&topic.topic_name);
            w.i32(topic.partitions);
            w.list(&topic.racks, |w, of| {
                w.i32(of.partition);
                w.list(&of.racks, |w, rack| w.string(rack));
                w.tagged(&[]);
            });
            w.tagged(&[]);
        });
        w.tagged(&[]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "ConsumerGroupPartitionMetadata", version)?;
        let topics = r.list("topics", |r| {
            let topic = TopicMetadata {
                topic_id: r.uuid("topic id")?,
                topic_name: r.string("topic name")?,
                partitions: r.i32("number of partitions")?,
                racks: r.list("partition metadata", |r| {
                    let partition = r.i32("partition")?;
                    let racks = r.list("racks", |r| r.string("rack"))?;
                    skip_tagged(r)?;
                    Ok(PartitionRacks { partition, racks })
                })?,
            };
            skip_tagged(r)?;
            Ok(topic)
        })?;
        end(r)?;
        Ok(Self { topics })
    }
}

impl ConsumerGroupMemberMetadata {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.nullable_string(self.instance.as_deref());
        w.nullable_string(self.rack.as_deref());
        w.string(&self.client_id);
        w.string(&self.client_host);
        w.list(&self.topic_names, |w, name| w.string(name));
        w.nullable_string(self.topic_regex.as_deref());
        w.i32(self.rebalance_timeout_ms);
        w.nullable_string(self.assignor.as_deref());
        let classic = self.classic.as_ref().map(|classic| Writer::field(|w| classic.write(w)));
        w.tagged(&[(KAFKA_TAG, classic)]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "ConsumerGroupMemberMetadata", version)?;
        let mut member = Self {
            instance: r.nullable_string("instance id")?,
            rack: r.nullable_string("rack")?,
            client_id: r.string("client id")?,
            client_host: r.string("client host")?,
            topic_names: r.list("topic names", |r| r.string("topic name"))?,
            topic_regex: r.nullable_string("regular expression")?,
            rebalance_timeout_ms: r.i32("rebalance timeout")?,
            assignor: r.nullable_string("assignor")?,
            classic: None,
        };
        r.tagged(|tag, r| {
            if tag == KAFKA_TAG {
                member.classic = ClassicMemberMetadata::read(r)?;
            }
            Ok(tag == KAFKA_TAG)
        })?;
        r.finish()?;
        Ok(member)
    }
}

impl ClassicMemberMetadata {
    /// Writes it as a nullable struct.
    fn write(&self, w: &mut Writer) {
        w.i8(1);
        w.i32(self.session_timeout_ms);
        w.list(&self.protocols, |w, (name, metadata)| {
            w.string(name);
            w.bytes(metadata);
            w.tagged(&[]);
        });
        w.tagged(&[]);
    }

    fn read(r: &mut Reader<'_>) -> Result<Option<Self>> {
        if r.i8("classic member")? < 0 {
            return Ok(None);
        }
        let session_timeout_ms = r.i32("session timeout")?;
        let protocols = r.list("protocols", |r| {
            let protocol = (r.string("protocol")?, r.bytes("metadata")?);
            skip_tagged(r)?;
            Ok(protocol)
        })?;
        skip_tagged(r)?;
        Ok(Some(Self { session_timeout_ms, protocols }))
    }
}

impl TargetAssignmentMetadata {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.i32(self.epoch);
        let timestamp = (self.timestamp != 0).then(|| Writer::field(|w| w.i64(self.timestamp)));
        w.tagged(&[(KAFKA_TAG, timestamp)]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "TargetAssignmentMetadata", version)?;
        let mut target = Self { epoch: r.i32("epoch")?, timestamp: 0 };
        r.tagged(|tag, r| {
            if tag == KAFKA_TAG {
                target.timestamp = r.i64("timestamp")?;
            }
            Ok(tag == KAFKA_TAG)
        })?;
        r.finish()?;
        Ok(target)
    }
}

impl TargetAssignmentMember {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.list(&self.partitions, |w, of| {
            w.uuid(of.topic_id);
            w.list(&of.partitions, |w, partition| w.i32(*partition));
            w.tagged(&[]);
        });
        w.tagged(&[]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "TargetAssignmentMember", version)?;
        let partitions = r.list("topic partitions", |r| {
            let topic_id = r.uuid("topic id")?;
            let partitions = r.list("partitions", |r| r.i32("partition"))?;
            skip_tagged(r)?;
            Ok(TargetPartitions { topic_id, partitions })
        })?;
        end(r)?;
        Ok(Self { partitions })
    }
}

impl CurrentMemberAssignment {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.i32(self.epoch);
        w.i32(self.previous_epoch);
        w.i8(self.state);
        for partitions in [&self.assigned, &self.revoking] {
            w.list(partitions, |w, of| of.write(w));
        }
        w.tagged(&[]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "CurrentMemberAssignment", version)?;
        let assignment = Self {
            epoch: r.i32("epoch")?,
            previous_epoch: r.i32("previous epoch")?,
            state: r.i8("state")?,
            assigned: r.list("assigned partitions", CurrentPartitions::read)?,
            revoking: r.list("partitions to revoke", CurrentPartitions::read)?,
        };
        end(r)?;
        Ok(assignment)
    }
}

impl CurrentPartitions {
    fn write(&self, w: &mut Writer) {
        w.uuid(self.topic_id);
        w.list(&self.partitions, |w, partition| w.i32(*partition));
        let epochs = self.epochs.as_ref().map(|epochs| {
            assert_eq!(epochs.len(), self.partitions.len(), "an epoch for each partition");
            Writer::field(|w| w.list(epochs, |w, epoch| w.i32(*epoch)))
        });
        w.tagged(&[(KAFKA_TAG, epochs)]);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let topic_id = r.uuid("topic id")?;
        let partitions = r.list("partitions", |r| r.i32("partition"))?;
        let mut epochs = None;
        r.tagged(|tag, r| {
            if tag == KAFKA_TAG {
                epochs = r.nullable_list("assignment epochs", |r| r.i32("assignment epoch"))?;
            }
            Ok(tag == KAFKA_TAG)
        })?;
        let have = epochs.as_ref().map_or(partitions.len(), Vec::len);
        if have != partitions.len() {
            return Err(RecordError::Entries { field: "assignment epochs", have, want: partitions.len() });
        }
        Ok(Self { topic_id, partitions, epochs })
    }
}

impl RegularExpression {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(VERSION, true);
        w.list(&self.topics, |w, name| w.string(name));
        w.i64(self.version);
        w.i64(self.timestamp);
        w.tagged(&[]);
        w.finish()
    }

    pub(super) fn decode(r: Reader<'_>, version: i16) -> Result<Self> {
        let mut r = flexible(r, "RegularExpression", version)?;
        let expression = Self {
            topics: r.list("topics", |r| r.string("topic"))?,
            version: r.i64("version")?,
            timestamp: r.i64("timestamp")?,
        };
        end(r)?;
        Ok(expression)
    }
}

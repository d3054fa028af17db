//! The body of `Leaders`: which partitions the sender's node leads, and which it has ceased to lead.
//!
//! A node speaks for itself only, from its shard 0 to the shards 0 of the others. On a new channel it says everything that it leads, and then what changes. Once it
//! has said [everything](LeaderNews::is_complete), what it said on earlier channels and did not repeat does not hold any more.
//!
//! ```text
//!   body      = complete u8, statements
//!   statement = topic id, partition u32, epoch i32, leads u8, shard u16, count u8, nodes in sync u32 each
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use bytes::BufMut as _;
use highwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, ShardId, TopicId, TopicPartition};
use highwater_protocol::native::{DecodeError, Reader};

use super::channel::Channel;
use super::header::Kind;
use super::limits::{BODY_BYTES_MAX, LEADERS_PER_MESSAGE_MAX};
use crate::raft::REPLICAS_MAX;

/// Bytes of a statement with as many nodes as a partition can have.
const STATEMENT_BYTES_MAX: usize = 28 + 4 * REPLICAS_MAX;

const _: () = assert!(LEADERS_PER_MESSAGE_MAX * STATEMENT_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(REPLICAS_MAX <= u8::MAX as usize);

/// What a node says about its replica of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderStatement {
    /// The partition.
    pub partition: TopicPartition,
    /// The term of the leader.
    pub epoch: LeaderEpoch,
    /// The replica leads in this term; false: it has ceased to.
    pub leads: bool,
    /// The shard of the replica.
    pub shard: ShardId,
    /// The nodes of the voters that the leader reaches and that have nearly all of its log, itself among them.
    pub in_sync: Arc<[NodeId]>,
}

/// Statements of a node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LeaderNews {
    /// With these, everything that the node leads was said in this session.
    pub is_complete: bool,
    /// The statements, at most [`LEADERS_PER_MESSAGE_MAX`].
    pub statements: Vec<LeaderStatement>,
}

impl LeaderNews {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.is_complete)];
        for statement in &self.statements {
            let LeaderStatement { partition, epoch, leads, shard, in_sync } = statement;
            out.put_slice(&partition.topic.0);
            out.put_u32_le(partition.partition.0);
            out.put_i32_le(epoch.0);
            out.put_u8(u8::from(*leads));
            out.put_u16_le(shard.0);
            let in_sync = in_sync.get(..REPLICAS_MAX).unwrap_or(in_sync);
            out.put_u8(in_sync.len() as u8);
            for node in in_sync {
                out.put_u32_le(node.0);
            }
        }
        out
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let is_complete = reader.bool("complete")?;
        let mut statements = Vec::new();
        while !reader.rest().is_empty() {
            if statements.len() == LEADERS_PER_MESSAGE_MAX {
                return Err(DecodeError::Invalid { field: "statements", value: statements.len() as i64 });
            }
            statements.push(LeaderStatement::read(reader)?);
        }
        Ok(Self { is_complete, statements })
    }
}

impl LeaderStatement {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let topic = TopicId(reader.array("topic id")?);
        let partition = TopicPartition { topic, partition: PartitionIndex(reader.u32("partition")?) };
        let epoch = reader.i32("epoch")?;
        if epoch < 0 {
            return Err(DecodeError::Invalid { field: "epoch", value: i64::from(epoch) });
        }
        let leads = reader.bool("leads")?;
        let shard = ShardId(reader.u16("shard")?);
        let count = reader.u8("nodes in sync")?;
        if usize::from(count) > REPLICAS_MAX {
            return Err(DecodeError::Invalid { field: "nodes in sync", value: i64::from(count) });
        }
        let nodes = (0..count).map(|_| reader.u32("node in sync").map(NodeId));
        let in_sync = nodes.collect::<Result<_, _>>()?;
        Ok(Self { partition, epoch: LeaderEpoch(epoch), leads, shard, in_sync })
    }
}

impl Channel {
    /// Sends what this node says about the partitions that it leads. Returns whether the channel is open.
    ///
    /// Panics with more than [`LEADERS_PER_MESSAGE_MAX`] statements.
    pub fn send_leaders(&mut self, news: &LeaderNews) -> bool {
        assert!(news.statements.len() <= LEADERS_PER_MESSAGE_MAX, "a message has a limit");
        if !self.is_open() {
            return false;
        }
        self.outbox.whole(Kind::Leaders, news.encode().into());
        self.check_queue()
    }
}

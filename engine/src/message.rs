//! Messages between shards.

use std::sync::Arc;

use highwater_protocol::ids::TopicId;
use highwater_protocol::native::Hello;
use highwater_replication::peer::LeaderStatement;

use crate::api::{ApiError, ControllerReply, ControllerRequest, PartitionAnswer, PartitionQuery, Ticket};
use crate::coord::groups::{GroupBatch, GroupReply, GroupRequest};
use crate::kafka_message::KafkaMessage;
use crate::leaders::Leaders;
use crate::meta::{Change, Opened, Publish};

/// A message from one shard to another, or to itself.
#[derive(Debug)]
pub enum Message {
    /// Accompanies a native connection that moves to the shard that its hello names.
    Greeted(Box<Greeting>),
    /// Accompanies a Kafka connection that moves to the shard that it was assigned to.
    Placed,
    /// Accompanies a connection of another node that moves to the shard that its hello names.
    PeerGreeted(Box<highwater_replication::peer::Hello>),
    /// To shard 0: this shard has opened its stores.
    Opened(Box<Opened>),
    /// From shard 0: changes of the metadata, for the group coordinator and the partitions of this shard. Clients do not see them yet.
    Prepare(Prepare),
    /// To shard 0: this shard has prepared all changes up to this version.
    Prepared(u64),
    /// From shard 0, after every shard has replied with `Prepared`: changes of the metadata.
    Publish(Publish),
    /// To shard 0: this shard has applied all changes up to this version.
    Applied(u64),
    /// To shard 0: which partitions replicas of this shard lead, or have ceased to lead.
    Led(Vec<LeaderStatement>),
    /// From shard 0: who leads what.
    Leaders(Leaders),
    /// To shard 0: this shard's stores have nothing left of these topics.
    Gone(Vec<TopicId>),
    /// To shard 0.
    ControllerRequest(Ticket, Box<ControllerRequest>),
    /// From shard 0.
    ControllerReply(Ticket, Result<ControllerReply, ApiError>),
    /// To the shard with the coordinator of these groups.
    GroupRequest(Ticket, Box<GroupRequest>),
    /// From the coordinator.
    GroupReply(Ticket, Result<GroupReply, ApiError>),
    /// From shard 0: what an earlier build kept of the groups of this shard.
    CarryOver(Vec<GroupBatch>),
    /// To shard 0: all of it is durable in the partitions.
    CarriedOver,
    /// From shard 0: nothing is left to be carried over.
    Serve,
    /// To the owner of the partitions.
    PartitionQuery(Ticket, PartitionQuery),
    /// From the owner.
    PartitionAnswer(Ticket, PartitionAnswer),
    /// On behalf of a Kafka client.
    Kafka(Box<KafkaMessage>),
    /// To every shard: connections wait for memory on the sender, so clients that do not receive what is queued for them are disconnected.
    MemoryShort,
    /// To every shard: return free space to the file system; each store keeps this many bytes.
    ReleaseSpace(u64),
    /// To itself: there is work left for another turn.
    Continue,
    /// To shard 0: this shard has answered its clients and closed their connections.
    Drained,
    /// From shard 0: all shards have; close the stores and exit.
    Close,
}

/// Changes of the metadata that every group coordinator and every owner of partitions must know before a client of any shard sees them.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// The version of the metadata after these changes.
    pub version: u64,
    /// The changes, in order.
    pub changes: Arc<[Change]>,
    /// Whether groups of an earlier build are being carried over: nobody serves before they are.
    pub is_carrying_over: bool,
}

/// A hello that another shard has received.
#[derive(Debug)]
pub struct Greeting {
    /// The hello.
    pub hello: Hello,
    /// The request id, which the reply echoes.
    pub id: u64,
}

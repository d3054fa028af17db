//! Finds out which node of which cluster this is: from the data directory, or by joining a cluster or founding one.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{Contact, DiskId, Joined, JoinerConfig, Membership as Admitted};
use highwater_runtime::{Cpu, OsFs, RuntimeConfig};

use super::config::BrokerConfig;
use super::listeners::Bound;
use super::signals::Stopper;
use super::start::explain;
use crate::address::{HostPort, Resolve};
use crate::data_dir::{self, Identity, Membership};
use crate::join::{JoinEnd, Joining};
use crate::meta::Node;
use crate::peers::PeerNode;
use crate::start_error::StartError;

/// This node in its cluster.
pub(super) struct Member {
    pub(super) identity: Identity,
    /// Other members, if the metadata of this node does not have them yet.
    pub(super) nodes: Vec<PeerNode>,
}

/// What joining needs of a process that starts.
pub(super) struct Start<'a> {
    pub(super) config: &'a BrokerConfig,
    pub(super) bound: &'a Bound,
    /// The node as it registers itself; its identity does not count.
    pub(super) node: &'a Node,
    pub(super) names: Arc<dyn Resolve>,
    pub(super) stopper: &'a Stopper,
    pub(super) lock: &'a Arc<File>,
    pub(super) cpu: Cpu,
}

impl Start<'_> {
    /// Returns which node this is. Waits until it is a member of a cluster.
    ///
    /// | directory | seeds | |
    /// |---|---|---|
    /// | of a member | any | that member |
    /// | empty | some | a member of the cluster of the seeds, or its founder |
    /// | empty | none | the founder of a cluster of one |
    pub(super) fn member(&self) -> Result<Member, StartError> {
        let found = data_dir::membership(&mut OsFs::new(), &self.config.data_dir, DiskId(random_id()))?;
        match found {
            Membership::Member(identity, contacts) => Ok(Member { identity, nodes: peer_nodes(&contacts) }),
            Membership::None(disk) if self.config.seeds.is_empty() => Ok(self.founder(disk)),
            Membership::None(disk) => self.join(disk),
        }
    }

    fn founder(&self, disk: DiskId) -> Member {
        let node = self.config.node_id.unwrap_or(NodeId(0));
        Member { identity: Identity::founder(ClusterId(random_id()), node, disk), nodes: Vec::new() }
    }

    /// Joins the cluster of the seeds, or founds it.
    fn join(&self, disk: DiskId) -> Result<Member, StartError> {
        match self.ask(disk)? {
            JoinEnd::Joined(Joined::Founder) => Ok(self.founder(disk)),
            JoinEnd::Joined(Joined::Member(admitted, contacts)) => {
                let Admitted { cluster, node, incarnation, founder } = admitted;
                tracing::info!(%cluster, node = node.0, incarnation, "joined a cluster");
                let nodes = peer_nodes(&contacts);
                data_dir::keep_welcome(&mut OsFs::new(), &self.config.data_dir, admitted, contacts)?;
                Ok(Member { identity: Identity { cluster, node, incarnation, founder, disk }, nodes })
            }
            JoinEnd::Refused(why) => {
                Err(StartError::Refused(format!("the node cannot join the cluster: {why}")))
            }
            JoinEnd::Stopped => Err(StartError::Stopped),
        }
    }

    /// Runs a shard that asks the seeds until it is over.
    fn ask(&self, disk: DiskId) -> Result<JoinEnd, StartError> {
        let registration = self.node.to_registration();
        let config = JoinerConfig {
            disk,
            node: self.config.node_id,
            member_of: None,
            registration: registration
                .ok_or_else(|| StartError::Internal("a node with seeds has an address".into()))?,
            seeds: self.config.seeds.iter().map(ToString::to_string).collect(),
        };
        tracing::info!(seeds = ?config.seeds, address = config.registration.address, "joining a cluster");
        let runtime = RuntimeConfig {
            host: self.config.host,
            listeners: self.bound.listen_for_peers()?,
            held: Some(Arc::clone(self.lock)),
            ..RuntimeConfig::new(vec![self.cpu])
        };
        let end = Arc::new(Mutex::new(None));
        let (names, slot) = (Arc::clone(&self.names), Arc::clone(&end));
        let runtime = highwater_runtime::start(runtime, move |_, plane| {
            let slot = Arc::clone(&slot);
            let on_end =
                Box::new(move |end| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(end));
            Ok(Joining::new(plane, config.clone(), Arc::clone(&names), on_end))
        })
        .map_err(explain)?;
        self.stopper.set(runtime.shutdown_handle());
        runtime.wait().map_err(|error| StartError::Internal(error.to_string()))?;
        let end = end.lock().unwrap_or_else(PoisonError::into_inner).take();
        end.ok_or_else(|| {
            StartError::Internal("the shard that joins a cluster has ended without an outcome".into())
        })
    }
}

fn peer_nodes(contacts: &[Contact]) -> Vec<PeerNode> {
    contacts.iter().filter_map(peer_node).collect()
}

/// Returns a member as this node connects to it.
fn peer_node(contact: &Contact) -> Option<PeerNode> {
    let address: HostPort = contact.address.parse().ok()?;
    Some(PeerNode { id: contact.node, address, shards: contact.shards })
}

pub(super) fn random_id() -> [u8; 16] {
    *uuid::Uuid::new_v4().as_bytes()
}

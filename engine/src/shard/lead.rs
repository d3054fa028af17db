//! The controller, which runs on shard 0.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use highwater_runtime::fs::RESERVE_NAME;
use highwater_runtime::plane::{Completion, Disk, FileJob, Plane, ShardIndex, Token};

use super::Shard;
use super::carry_over::read_old_groups;
use super::metadata_log::MetadataReader;
use crate::api::{ApiError, ControllerReply, ControllerRequest, RegisterNode, Requester, Service, Ticket};
use crate::coord::carry_over::CarryOver;
use crate::data_dir::{META, RESERVE_BYTES};
use crate::limits::{ANSWERS_PER_TURN_MAX, HELD_CONTROLLER_REQUESTS_MAX};
use crate::message::{Message, Prepare};
use crate::meta::controller::{Action, Controller};
use crate::meta::{ForwardedReply, Forwarding, MetadataRoom, Node, Publish};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{META_SPACE, RESERVE_SPACE};
use crate::setup::{OpenError, ShardSetup};

pub(super) struct Lead {
    pub(super) controller: Controller,
    /// The number of partitions that the groups' topic gets when it is created.
    pub(super) groups_partitions: u32,
    /// The migration of an earlier build's groups, if there are any.
    pub(super) carry_over: Option<CarryOver>,
    pub(super) reader: MetadataReader,
    /// Requests that have arrived before this node decides, as it is about to.
    held: VecDeque<(Requester, ControllerRequest)>,
    /// Requests that are with the controller of another node.
    pub(super) forwarding: Forwarding,
    /// Replies that have come back before this node has applied what they are about.
    pub(super) replies: VecDeque<ForwardedReply>,
    /// The leader that was asked to register this node, and its term.
    pub(super) registering: Option<(NodeId, LeaderEpoch)>,
    /// Requests of other nodes that have no reply.
    pub(super) remote_requests: usize,
    /// Changes that not all shards have prepared yet, in order.
    preparing: VecDeque<Publish>,
    /// The version of the metadata that each shard has prepared.
    prepared: Vec<u64>,
    /// Whether the reserve file of the data directory is being created.
    making_reserve: bool,
    pub(super) ready: bool,
}

impl Lead {
    pub(super) fn open(
        plane: &mut dyn Plane<Message>,
        setup: &ShardSetup,
        warnings: &mut Vec<String>,
    ) -> Result<Self, OpenError> {
        let (log, recovered) = setup.open_log(plane, META, *b"META", META_SPACE, warnings)?;
        let room = MetadataRoom::new(&setup.limits);
        let has_joined = !setup.identity.is_founder();
        let node = setup.registration.clone();
        let controller = Controller::new(node, has_joined, log, &recovered, usize::from(setup.stores), room)?;
        let metadata = controller.metadata();
        let without_store =
            metadata.topics().find(|t| t.local_partitions().any(|(_, store)| store.0 >= setup.stores));
        if let Some(topic) = without_store {
            return Err(OpenError::Incomplete(format!(
                "topic {} has partitions in a store whose directory is missing from {}; restore the missing store-… directory",
                topic.name,
                setup.data_dir.display()
            )));
        }
        let prepared = vec![0; usize::from(setup.shards)];
        Ok(Self {
            controller,
            groups_partitions: setup.groups_partitions,
            carry_over: read_old_groups(plane, setup, warnings)?,
            reader: MetadataReader::default(),
            held: VecDeque::new(),
            forwarding: Forwarding::default(),
            replies: VecDeque::new(),
            registering: None,
            remote_requests: 0,
            preparing: VecDeque::new(),
            prepared,
            making_reserve: false,
            ready: false,
        })
    }

    /// Recreates the data directory's reserve file, whose space a log may have used to be rewritten on a full disk.
    pub(super) fn make_reserve(&mut self, disk: &mut dyn Disk, data_dir: &Path) {
        if !std::mem::replace(&mut self.making_reserve, true) {
            let job = FileJob::Create { path: data_dir.join(RESERVE_NAME), bytes: RESERVE_BYTES };
            disk.file_job(job, Token(u64::from(RESERVE_SPACE) << 56));
        }
    }

    /// Handles the end of the job: the reserve file was created, already existed, or there is no space for it yet.
    pub(super) fn reserve_made(&mut self, disk: &mut dyn Disk, completion: &Completion) {
        self.making_reserve = false;
        if let Completion::Created(Ok(file)) = completion {
            disk.close_file(*file);
        }
    }

    /// Handles a request. [`Controller::poll`] returns the reply. An error means that the request was rejected and gets no other reply.
    fn handle(
        &mut self,
        to: Requester,
        request: ControllerRequest,
        random: impl FnMut() -> u64,
    ) -> Result<(), ApiError> {
        let is_starting = self.controller.is_starting();
        if is_starting && self.ready && self.held.len() < HELD_CONTROLLER_REQUESTS_MAX {
            self.held.push_back((to, request));
            return Ok(());
        }
        if is_starting || !self.ready {
            return Err(ApiError::Starting(service_of(&request)));
        }
        match request {
            ControllerRequest::CreateTopic(request) => {
                self.controller.create_topic(to, &request, topic_id(random));
            }
            ControllerRequest::DeleteTopic(request) => self.controller.delete_topic(to, &request.0),
            ControllerRequest::DeleteTopicById(request) => self.controller.delete_topic_by_id(to, request.0),
            ControllerRequest::AlterTopic(request) => self.controller.alter_topic(to, &request),
            ControllerRequest::ConfigureTopic(request) => self.controller.configure_topic(to, &request),
            ControllerRequest::CreateGroupsTopic(request)
                if request.for_old_groups && !self.is_carrying_over() =>
            {
                self.controller.answer_when_applied(to, Ok(ControllerReply::Done));
            }
            ControllerRequest::CreateGroupsTopic(_) => {
                self.controller.create_groups_topic(to, self.groups_partitions, topic_id(random));
            }
            ControllerRequest::RegisterNode(request) => self.controller.register_node(to, &request.0),
            ControllerRequest::Join(_) => {
                return Err(ApiError::Internal(
                    "a request to join is for the shard, which knows who is connected",
                ));
            }
            ControllerRequest::ReserveProducerIds => self.controller.producer_ids(to),
        }
        Ok(())
    }
}

impl Lead {
    /// Has every shard prepare changes before they are published, so that no client finds a partition whose owner has not created it yet, or
    /// commits offsets to a topic that its coordinator does not know yet.
    fn prepare(&mut self, plane: &mut dyn Plane<Message>, publish: Publish) {
        let prepare = Prepare {
            version: publish.version,
            changes: Arc::clone(&publish.changes),
            is_carrying_over: self.is_carrying_over(),
        };
        for shard in 0..plane.shards() {
            plane.post(shard, Message::Prepare(prepare.clone()));
        }
        if is_planted(Mutant::PublishedBeforePrepared) {
            return send_to_all(plane, &publish);
        }
        self.preparing.push_back(publish);
    }

    /// Returns whether groups of an earlier build are still to be carried over.
    fn is_carrying_over(&self) -> bool {
        self.carry_over.as_ref().is_some_and(|carry_over| !carry_over.is_over())
    }

    /// Publishes the changes that all shards have prepared.
    fn handle_prepared(&mut self, plane: &mut dyn Plane<Message>, from: ShardIndex, version: u64) {
        self.prepared[usize::from(from)] = version;
        let everywhere = self.prepared.iter().copied().min().unwrap_or(0);
        while let Some(publish) = self.preparing.pop_front_if(|publish| publish.version <= everywhere) {
            send_to_all(plane, &publish);
        }
    }
}

/// Publishes changes to the clients of every shard.
fn send_to_all(plane: &mut dyn Plane<Message>, publish: &Publish) {
    for shard in 0..plane.shards() {
        plane.post(shard, Message::Publish(publish.clone()));
    }
}

pub(super) fn service_of(request: &ControllerRequest) -> Service {
    match request {
        ControllerRequest::CreateTopic(_)
        | ControllerRequest::DeleteTopic(_)
        | ControllerRequest::DeleteTopicById(_)
        | ControllerRequest::AlterTopic(_)
        | ControllerRequest::ConfigureTopic(_)
        | ControllerRequest::RegisterNode(_)
        | ControllerRequest::Join(_) => Service::Controller,
        ControllerRequest::CreateGroupsTopic(_) => Service::Groups,
        ControllerRequest::ReserveProducerIds => Service::ProducerIds,
    }
}

/// Generates the id of a new topic.
pub(super) fn topic_id(mut random: impl FnMut() -> u64) -> TopicId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random().to_le_bytes());
    bytes[8..].copy_from_slice(&random().to_le_bytes());
    TopicId(*uuid::Builder::from_random_bytes(bytes).as_uuid().as_bytes())
}

impl Shard {
    /// Registers a node that was admitted to the cluster, at the end of the next turn. The metadata shows what has become of it.
    pub fn admit(&mut self, node: Node) {
        let Some(lead) = &mut self.lead else { return };
        let request = ControllerRequest::RegisterNode(RegisterNode(node));
        lead.held.push_back((Requester::Nobody, request));
    }

    /// Returns how many records of the metadata this node has applied.
    pub fn metadata_end(&self) -> Option<Offset> {
        self.lead.as_ref().map(|lead| lead.controller.metadata().next_offset())
    }

    /// Returns whether this node leads the metadata and decides.
    pub fn decides_metadata(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.controller.decides())
    }

    /// Returns how many replicas the first partition of a topic has.
    pub fn replicas_of(&self, topic: &str) -> usize {
        let topic = self.metadata.as_ref().and_then(|metadata| metadata.topic(topic));
        topic.map_or(0, |topic| topic.replicas(PartitionIndex(0)).len())
    }

    pub(super) fn handle_controller_request(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        request: ControllerRequest,
    ) {
        self.request_of_controller(plane, Requester::Shard(from, ticket), request);
    }

    /// Has the controller of the cluster handle a request, here or on the node that leads.
    pub(super) fn request_of_controller(
        &mut self,
        plane: &mut dyn Plane<Message>,
        to: Requester,
        request: ControllerRequest,
    ) {
        let Some(lead) = &mut self.lead else {
            let error = ApiError::Internal("a controller request was sent to a shard other than 0");
            return self.reply_of_controller(plane, to, Err(error));
        };
        if let ControllerRequest::Join(request) = &request {
            return self.handle_join(plane, to, &request.0);
        }
        let outcome = if let Requester::Shard(..) = to
            && let Some(leader) = lead.leader_elsewhere(&self.partitions, &request)
        {
            self.forward(to, leader, &request)
        } else {
            lead.handle(to, request, || plane.random_u64())
        };
        if let Err(error) = outcome {
            self.reply_of_controller(plane, to, Err(error));
        }
    }

    /// Handles the requests that have waited until this node decides, or is known not to.
    pub(super) fn handle_held_requests(&mut self, plane: &mut dyn Plane<Message>) {
        let is_stopping = self.drain.is_some();
        while let Some(lead) = self.lead.as_mut().filter(|lead| is_stopping || !lead.controller.is_starting())
            && let Some((to, request)) = lead.held.pop_front()
        {
            if is_stopping {
                self.reply_of_controller(plane, to, Err(ApiError::Stopping(service_of(&request))));
            } else {
                self.request_of_controller(plane, to, request);
            }
        }
    }

    /// Flushes decisions to the metadata log, publishes those that are durable, and sends replies. Returns whether more is left for the next turn.
    pub(super) fn run_lead(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Some(lead) = &mut self.lead else { return false };
        let more = lead.controller.flush(plane);
        let mut left = ANSWERS_PER_TURN_MAX;
        let mut replies = Vec::new();
        while left > 0
            && let Some(action) = lead.controller.poll()
        {
            left -= 1;
            match action {
                Action::Publish(publish) => {
                    if !std::mem::replace(&mut lead.ready, true) {
                        lead.carry_over(plane);
                    }
                    left = left.saturating_sub(publish.changes.len());
                    lead.prepare(plane, publish);
                }
                Action::Reply(to, outcome) => replies.push((to, outcome)),
                Action::Ready(report) => (self.setup.on_ready)(report),
            }
        }
        for (to, outcome) in replies {
            self.reply_of_controller(plane, to, outcome);
        }
        self.pass_replies_on(plane);
        more || left == 0
    }

    /// Handles the report of a shard that it has prepared all changes up to a version.
    pub(super) fn handle_prepared(&mut self, plane: &mut dyn Plane<Message>, from: ShardIndex, version: u64) {
        if let Some(lead) = &mut self.lead {
            lead.handle_prepared(plane, from, version);
        }
    }
}

//! The controller and the group coordinator, which run on shard 0.

use std::path::Path;

use highwater_protocol::ids::TopicId;
use highwater_runtime::fs::RESERVE_NAME;
use highwater_runtime::plane::{Completion, Disk, FileJob, Instant, Plane, ShardIndex, Token};

use super::Shard;
use super::setup::{OpenError, ShardSetup};
use super::timers::Timer;
use crate::api::{ApiError, ControllerReply, ControllerRequest, Service};
use crate::broker::data_dir::{META, OFFSETS, RESERVE_BYTES};
use crate::coord::groups::Now;
use crate::coord::groups_log::GroupsLog;
use crate::limits::ANSWERS_PER_TURN_MAX;
use crate::message::{Message, Ticket};
use crate::meta::controller::{Action, Controller};
use crate::meta::{Change, MetadataRoom};
use crate::partition::{META_SPACE, OFFSETS_SPACE, RESERVE_SPACE};

pub(super) struct Lead {
    pub(super) controller: Controller,
    pub(super) groups: GroupsLog,
    /// When the timer for groups is due.
    groups_timer: Option<Instant>,
    /// Whether the reserve file of the data directory is being created.
    making_reserve: bool,
    ready: bool,
}

impl Lead {
    pub(super) fn open(
        plane: &mut dyn Plane<Message>,
        setup: &ShardSetup,
        warnings: &mut Vec<String>,
    ) -> Result<Self, OpenError> {
        let (log, recovered) = setup.open_log(plane, META, *b"META", META_SPACE, warnings)?;
        let room = MetadataRoom::new(&setup.limits);
        let controller = Controller::new(log, &recovered, usize::from(setup.stores), setup.shards, room)?;
        let metadata = controller.tip();
        let homeless = metadata.topics().find(|t| t.stores.iter().any(|s| s.0 >= setup.stores));
        if let Some(topic) = homeless {
            return Err(OpenError::Incomplete(format!(
                "topic {} has partitions in a store whose directory is missing from {}; restore the missing store-… directory",
                topic.name,
                setup.data_dir.display()
            )));
        }
        let (log, recovered) = setup.open_log(plane, OFFSETS, *b"OFFS", OFFSETS_SPACE, warnings)?;
        let mut groups = GroupsLog::new(log, &recovered, setup.groups, now(plane))?;
        groups.retain_topics(|id| controller.may_know(id));
        warnings.extend(groups.warning());
        Ok(Self { controller, groups, groups_timer: None, making_reserve: false, ready: false })
    }

    /// Recreates the reserve file of the data directory, if a log used it to be rewritten on a full disk.
    pub(super) fn make_reserve(&mut self, disk: &mut dyn Disk, data_dir: &Path) {
        if !std::mem::replace(&mut self.making_reserve, true) {
            let job = FileJob::Create { path: data_dir.join(RESERVE_NAME), bytes: RESERVE_BYTES };
            disk.file_job(job, Token(u64::from(RESERVE_SPACE) << 56));
        }
    }

    /// The reserve file was created, existed already, or there is no space for it yet.
    pub(super) fn reserve_made(&mut self, disk: &mut dyn Disk, completion: &Completion) {
        self.making_reserve = false;
        if let Completion::Created(Ok(file)) = completion {
            disk.close_file(*file);
        }
    }

    /// Returns whether one of its logs waits for disk space.
    pub(super) fn is_stalled(&self) -> bool {
        self.controller.is_stalled() || self.groups.is_stalled()
    }

    /// Carries out a request; the reply comes by [`Controller::poll`] or [`GroupsLog::poll`].
    fn handle(
        &mut self,
        to: (ShardIndex, Ticket),
        request: ControllerRequest,
        now: Now,
        mut random: impl FnMut() -> u64,
    ) -> Result<(), ApiError> {
        if !self.ready {
            return Err(ApiError::Starting(service_of(&request)));
        }
        let mut random_id = || {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&random().to_le_bytes());
            id[8..].copy_from_slice(&random().to_le_bytes());
            id
        };
        match request {
            ControllerRequest::CreateTopic(request) => {
                let id = *uuid::Builder::from_random_bytes(random_id()).as_uuid().as_bytes();
                self.controller.create_topic(to, &request, TopicId(id));
            }
            ControllerRequest::DeleteTopic(request) => {
                if let Some(topic) = self.controller.delete_topic(to, &request.0) {
                    self.groups.delete_topic(topic);
                }
            }
            ControllerRequest::DeleteTopicById(request) => {
                if let Some(topic) = self.controller.delete_topic_by_id(to, request.0) {
                    self.groups.delete_topic(topic);
                }
            }
            ControllerRequest::AlterTopic(request) => self.controller.alter_topic(to, &request),
            ControllerRequest::ConfigureTopic(request) => self.controller.configure_topic(to, &request),
            ControllerRequest::ReserveProducerIds => self.controller.producer_ids(to),
            ControllerRequest::Group(request) => self.groups.handle(now, to, request, random_id()),
            ControllerRequest::DescribeGroup { name, bytes_max } => {
                let request = self.groups.describe(name, bytes_max);
                self.groups.handle(now, to, request, random_id());
            }
        }
        Ok(())
    }
}

fn service_of(request: &ControllerRequest) -> Service {
    match request {
        ControllerRequest::Group(_) | ControllerRequest::DescribeGroup { .. } => Service::Groups,
        ControllerRequest::CreateTopic(_)
        | ControllerRequest::DeleteTopic(_)
        | ControllerRequest::DeleteTopicById(_)
        | ControllerRequest::AlterTopic(_)
        | ControllerRequest::ConfigureTopic(_) => Service::Controller,
        ControllerRequest::ReserveProducerIds => Service::ProducerIds,
    }
}

impl Shard {
    pub(super) fn handle_controller_request(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        request: ControllerRequest,
    ) {
        let now = now(plane);
        let outcome = match &mut self.lead {
            Some(lead) => lead.handle((from, ticket), request, now, || plane.random_u64()),
            None => Err(ApiError::Internal("a request for shard 0 came to another shard")),
        };
        if let Err(error) = outcome {
            plane.post(from, Message::ControllerReply(ticket, Err(error)));
        }
    }

    /// Flushes decisions to the logs, publishes those that are durable, and sends replies. Returns whether there is more to do than one turn
    /// allows.
    pub(super) fn run_lead(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Some(lead) = &mut self.lead else { return false };
        let mut more = lead.controller.flush(plane);
        let mut left = ANSWERS_PER_TURN_MAX;
        while left > 0
            && let Some(action) = lead.controller.poll()
        {
            left -= 1;
            match action {
                Action::Publish(publish) => {
                    if !std::mem::replace(&mut lead.ready, true) {
                        // Not earlier: other shards may take longer to recover than a session timeout.
                        lead.groups.resume(now(plane));
                    }
                    // Before any shard knows the topic, so that nobody can commit offsets to one that is unknown here.
                    left = left.saturating_sub(publish.changes.len());
                    for change in publish.changes.iter() {
                        match change {
                            Change::Topic(topic) => lead.groups.handle_topic(topic),
                            Change::Deleted(topic) => lead.groups.delete_topic(*topic),
                        }
                    }
                    for shard in 0..plane.shards() {
                        plane.post(shard, Message::Publish(publish.clone()));
                    }
                }
                Action::Reply(shard, ticket, outcome) => {
                    plane.post(shard, Message::ControllerReply(ticket, outcome));
                }
                Action::Ready(report) => (self.setup.on_ready)(report),
            }
        }
        more |= lead.groups.run(now(plane));
        more |= lead.groups.flush(plane);
        while left > 0
            && let Some(((shard, ticket), reply)) = lead.groups.poll()
        {
            left -= 1;
            plane.post(shard, Message::ControllerReply(ticket, Ok(ControllerReply::Group(reply))));
        }
        self.plan_groups(plane);
        more || left == 0
    }

    /// Sets the timer for the next deadline of the groups.
    fn plan_groups(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.ready && self.drain.is_none()) else { return };
        let at = Instant(lead.groups.next_deadline().saturating_mul(NANOS_PER_MS));
        if lead.groups_timer == Some(at) {
            return;
        }
        if let Some(before) = lead.groups_timer.replace(at) {
            self.timers.cancel(before, Timer::Groups);
        }
        self.timers.set(plane, at, Timer::Groups);
    }

    /// The timer for groups is due.
    pub(super) fn groups_are_due(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(lead) = &mut self.lead else { return };
        lead.groups_timer = None;
        // Members cannot send heartbeats while the broker stops, so none is removed.
        if self.drain.is_none() {
            lead.groups.handle_time(now(plane));
        }
    }
}

const NANOS_PER_MS: u64 = 1_000_000;

fn now(plane: &mut dyn Plane<Message>) -> Now {
    Now { ms: plane.now().0 / NANOS_PER_MS, wall_ms: plane.wall_clock_ms() }
}

//! Carries over the groups of an earlier build on shard 0; see [`crate::coord::carry_over`].

use std::sync::Arc;

use highwater_protocol::topic::GROUPS_TOPIC;
use highwater_runtime::plane::{Completion, FileJob, Plane, Token};
use highwater_storage::state_log::StateLogError;

use super::Shard;
use super::groups::now;
use super::lead::{Lead, topic_id};
use crate::coord::carry_over::{CarryOver, NextStep};
use crate::coord::groups::GroupCoordinator;
use crate::coord::placement::GroupOwners;
use crate::data_dir::{OFFSETS, OFFSETS_FILES};
use crate::message::Message;
use crate::partition::{EXIT_DISK, OFFSETS_SPACE};
use crate::setup::{OpenError, ShardSetup};

/// Reads the log of an earlier build, if there is one. Blocks.
pub(super) fn read_old_groups(
    plane: &mut dyn Plane<Message>,
    setup: &ShardSetup,
    warnings: &mut Vec<String>,
) -> Result<Option<CarryOver>, OpenError> {
    let dir = &setup.data_dir;
    let entries = plane.list(dir).map_err(|error| StateLogError::Io { path: dir.clone(), error })?;
    if !entries.iter().any(|entry| OFFSETS_FILES.contains(&entry.name.as_str())) {
        return Ok(None);
    }
    let (log, recovered) = setup.open_log(plane, OFFSETS, *b"OFFS", OFFSETS_SPACE, warnings)?;
    let snapshot = recovered.snapshot.iter().map(|piece| &piece[..]);
    let records = recovered.records.iter().map(|record| &record[..]);
    let old = GroupCoordinator::recover(setup.groups, now(plane), snapshot, records)?;
    log.close(plane);
    tracing::info!(groups = old.usage().groups, "groups and offsets of an earlier build are carried over");
    Ok(Some(CarryOver::new(old)))
}

impl Lead {
    /// Sends what is carried over to the coordinators; before that, creates the topic that keeps groups. Tries again later if that fails.
    pub(super) fn carry_over(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(carry_over) = self.carry_over.as_mut().filter(|carry_over| carry_over.is_unsent()) else {
            return;
        };
        if !self.ready || !self.controller.decides() {
            return;
        }
        if self.controller.metadata().topic(GROUPS_TOPIC).is_none() {
            let id = topic_id(|| plane.random_u64());
            if let Err(error) = self.controller.write_groups_topic(self.groups_partitions, id) {
                tracing::error!("the groups of an earlier build cannot be carried over yet: {error}");
                return;
            }
        }
        let metadata = self.controller.metadata();
        let Some(topic) = metadata.topic(GROUPS_TOPIC) else { return };
        let owners = GroupOwners::new(Arc::clone(topic), plane.shards());
        let topics = metadata.topics().map(|topic| &**topic);
        for (shard, changes) in carry_over.send(topics, &owners, plane.shards()) {
            plane.post(shard, Message::CarryOver(changes));
        }
    }
}

impl Shard {
    /// A coordinator has made durable what was carried over to it.
    pub(super) fn handle_carried_over(&mut self, plane: &mut dyn Plane<Message>) {
        let lead = self.lead.as_mut();
        let next = lead.and_then(|lead| lead.carry_over.as_mut()).and_then(CarryOver::handle_carried);
        self.continue_carry_over(plane, next);
    }

    /// An old file was removed.
    pub(super) fn handle_old_file_removed(
        &mut self,
        plane: &mut dyn Plane<Message>,
        completion: &Completion,
    ) {
        if let Completion::Removed(Err(error)) = completion {
            // As long as it is there, the next start would take its offsets for the last ones.
            let why = format!("the groups log of an earlier build cannot be removed: {error}");
            return plane.fatal(EXIT_DISK, why);
        }
        let lead = self.lead.as_mut();
        let next = lead
            .and_then(|lead| lead.carry_over.as_mut())
            .and_then(|carry_over| carry_over.handle_removed(OFFSETS_FILES.len()));
        self.continue_carry_over(plane, next);
    }

    fn continue_carry_over(&mut self, plane: &mut dyn Plane<Message>, next: Option<NextStep>) {
        match next {
            Some(NextStep::RemoveFile(number)) => {
                let path = self.setup.data_dir.join(OFFSETS_FILES[number]);
                plane.file_job(FileJob::Remove { path }, Token(u64::from(OFFSETS_SPACE) << 56));
            }
            Some(NextStep::Serve) => {
                tracing::info!("the groups and offsets of an earlier build have been carried over");
                for shard in 0..plane.shards() {
                    plane.post(shard, Message::Serve);
                }
            }
            None => {}
        }
    }
}

//! The groups made durable: the coordinator with one log on shard 0, many changes in one write.

use std::collections::BTreeMap;

use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token as DiskToken};
use highwater_storage::state_log::{Fatal, Recovered, SNAPSHOT_BYTES_PER_TURN, StateLog};

use crate::api::Ticket;
use crate::coord::groups::{
    GroupConfig, GroupCoordinator, GroupReply, GroupRequest, GroupsError, Now, SnapshotCursor, Token,
};
use crate::meta::Topic;

pub(crate) struct GroupsLog {
    log: StateLog,
    /// How far the snapshot has got that is being written.
    snapshot: Option<SnapshotCursor>,
    coordinator: GroupCoordinator,
    /// The log's number before the coordinator's first record; both count on from there.
    base: u64,
    /// Who waits for the reply to which token.
    waiting: BTreeMap<Token, (ShardIndex, Ticket)>,
    last_token: u64,
}

impl GroupsLog {
    pub(crate) fn new(
        log: StateLog,
        recovered: &Recovered,
        config: GroupConfig,
        now: Now,
    ) -> Result<Self, GroupsError> {
        let records = recovered.records.iter().map(|r| &r[..]);
        let snapshot = recovered.snapshot.iter().map(|piece| &piece[..]);
        let mut coordinator = GroupCoordinator::recover(config, now, snapshot, records)?;
        let base = log.certain().0;
        if base < log.appended().0 {
            coordinator.count_recovered_as_written(log.appended().0 - base);
        }
        Ok(Self { log, snapshot: None, coordinator, base, waiting: BTreeMap::new(), last_token: 0 })
    }

    /// Questions come from now on: members' sessions begin anew.
    pub(crate) fn resume(&mut self, now: Now) {
        self.coordinator.resume(now);
    }

    /// Handles a request. The reply is returned by [`poll`](Self::poll) once everything it reports is durable.
    pub(crate) fn handle(
        &mut self,
        now: Now,
        to: (ShardIndex, Ticket),
        request: GroupRequest,
        random: [u8; 16],
    ) {
        self.last_token += 1;
        let token = Token(self.last_token);
        self.waiting.insert(token, to);
        self.coordinator.handle_stalled(now, self.log.is_stalled());
        self.coordinator.handle(now, token, request, random);
    }

    /// A topic is new or has changed.
    pub(crate) fn handle_topic(&mut self, topic: &Topic) {
        self.coordinator.handle_topic(topic.id, &topic.name, topic.stores.len() as u32);
    }

    /// Forgets a topic.
    pub(crate) fn delete_topic(&mut self, topic: TopicId) {
        self.coordinator.handle_topic_deleted(topic);
    }

    /// Returns what to warn of at a start, if there are more offsets than may be kept.
    pub(crate) fn warning(&self) -> Option<String> {
        self.coordinator.too_many_offsets()
    }

    /// Forgets the offsets in topics that it does not know. To be called when it knows those that there are.
    pub(crate) fn retain_known_topics(&mut self) {
        self.coordinator.retain_known_topics();
    }

    /// When [`Self::handle_time`] has something to do, in milliseconds of [`Now::ms`].
    pub(crate) fn next_deadline(&self) -> u64 {
        self.coordinator.next_deadline()
    }

    pub(crate) fn handle_time(&mut self, now: Now) {
        self.coordinator.handle_stalled(now, self.log.is_stalled());
        self.coordinator.handle_time(now);
    }

    /// To be called once a turn: goes on with what takes more than one. True if more is left.
    pub(crate) fn run(&mut self, now: Now) -> bool {
        self.coordinator.handle_stalled(now, self.log.is_stalled());
        self.coordinator.run(now)
    }

    /// See [`GroupCoordinator::busiest_turn_work`].
    pub(crate) fn busiest_turn_work(&self) -> usize {
        self.coordinator.busiest_turn_work()
    }

    /// A reply whose time has come.
    pub(crate) fn poll(&mut self) -> Option<((ShardIndex, Ticket), GroupReply)> {
        let (token, reply) = self.coordinator.poll_reply()?;
        let to = self.waiting.remove(&token).expect("every token is answered once");
        Some((to, reply))
    }

    /// To be called at the end of every turn. Returns true if there is more to do than one turn may take.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        while let Some((seq, payload)) = self.coordinator.poll_record() {
            let appended = self.log.append(&payload);
            assert_eq!(appended.0, self.base + seq, "the coordinator's records are all that this log has");
        }
        self.log.flush(disk);
        if self.log.wants_snapshot() {
            self.log.begin_snapshot();
            self.snapshot = Some(SnapshotCursor::default());
        }
        let more = self.continue_snapshot(disk);
        self.coordinator.handle_durable(self.log.certain().0.saturating_sub(self.base));
        more
    }

    /// Writes the next piece of the snapshot, if there is one. Returns true if it is not complete.
    fn continue_snapshot(&mut self, disk: &mut dyn Disk) -> bool {
        let Some(cursor) = &mut self.snapshot else { return false };
        if let Some(piece) = self.coordinator.snapshot_piece(cursor, SNAPSHOT_BYTES_PER_TURN) {
            self.log.add_to_snapshot(&piece);
            return true;
        }
        self.snapshot = None;
        self.log.end_snapshot(disk);
        false
    }

    /// An operation of the log is done.
    pub(crate) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: DiskToken,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.log.on_disk(disk, token, completion)
    }

    /// Tries again what the disk had no space for.
    pub(crate) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        self.log.retry_stalled(disk);
    }

    /// Whether the log waits for space on the disk.
    pub(crate) fn is_stalled(&self) -> bool {
        self.log.is_stalled()
    }

    /// Whether everything kept is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.log.is_idle()
    }
}

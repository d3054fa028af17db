//! Consumers' positions made durable: one log on shard 0, many commits in one write.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::TopicId;
use highwater_protocol::native::{CommitOffsetsRequest, ReadOffsetsReply, ReadOffsetsRequest};
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token};
use highwater_storage::state_log::{Fatal, Recovered, Seq, StateLog};

use crate::limits::POSITIONS_BYTES_MAX;
use crate::message::Ticket;
use crate::positions::{Positions, PositionsError};

pub(crate) struct PositionsLog {
    log: StateLog,
    positions: Positions,
    waiting: VecDeque<(Seq, (ShardIndex, Ticket), Reply)>,
}

impl PositionsLog {
    pub(crate) fn new(log: StateLog, recovered: &Recovered) -> Result<Self, PositionsError> {
        let records = recovered.records.iter().map(|r| &r[..]);
        let positions = Positions::recover(recovered.snapshot.as_deref(), records)?;
        Ok(Self { log, positions, waiting: VecDeque::new() })
    }

    /// Keeps positions; the answer comes when they are durable.
    pub(crate) fn commit(&mut self, to: (ShardIndex, Ticket), request: CommitOffsetsRequest) {
        let reply = if self.log.is_stalled() {
            Reply::error(ErrorCode::StorageFull, "the disk is full: positions cannot be kept")
        } else {
            match self.positions.commit(request) {
                Ok(payload) => {
                    self.log.append(&payload);
                    Reply::Empty
                }
                Err(_) => Reply::error(
                    ErrorCode::TooLarge,
                    format!(
                        "the positions of all consumers have reached their limit of {POSITIONS_BYTES_MAX} bytes"
                    ),
                ),
            }
        };
        self.waiting.push_back((self.log.appended(), to, reply));
    }

    /// Gives positions, once they are durable: what a consumer was told once must not go back.
    pub(crate) fn read(&mut self, to: (ShardIndex, Ticket), request: &ReadOffsetsRequest) {
        let positions = self.positions.read(&request.consumer, request.topic);
        self.waiting.push_back((self.log.appended(), to, Reply::body(&ReadOffsetsReply { positions })));
    }

    /// Forgets a topic.
    pub(crate) fn delete_topic(&mut self, topic: TopicId) {
        if let Some(payload) = self.positions.delete_topic(topic) {
            self.log.append(&payload);
        }
    }

    /// Forgets the topics that `keep` says no to: a crash may have come between a topic's deletion and this log's.
    pub(crate) fn retain_topics(&mut self, keep: impl Fn(TopicId) -> bool) {
        for topic in self.positions.topics() {
            if !keep(topic) {
                self.delete_topic(topic);
            }
        }
    }

    /// An answer whose time has come.
    pub(crate) fn poll(&mut self) -> Option<((ShardIndex, Ticket), Reply)> {
        let (seq, ..) = self.waiting.front()?;
        if *seq > self.log.durable() {
            return None;
        }
        self.waiting.pop_front().map(|(_, to, reply)| (to, reply))
    }

    /// To be called at the end of every turn.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) {
        self.log.flush(disk);
        if self.log.wants_snapshot() {
            self.log.snapshot(disk, Bytes::from(self.positions.encode_snapshot()));
        }
    }

    /// An operation of the log is done.
    pub(crate) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.log.on_disk(disk, token, completion)
    }

    /// Tries again what the disk had no space for.
    pub(crate) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        if self.log.is_stalled() {
            self.log.retry_stalled(disk);
        }
    }

    /// Whether everything kept is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.log.is_idle()
    }
}

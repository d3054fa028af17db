//! What a start makes of a partition's log: the replica that continues it.

use std::collections::VecDeque;

use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_replication::raft::{
    Config, ConfigEntry, HardState, LogEnd, Replica, ReplicaId, Restored, Run, StoredConfigError,
};
use highwater_storage::{Bounds, EpochStart, LogPoint, PartitionSlot, ReplicaState, Store};

use super::{Consensus, hard_state};

/// What a store has of a replica.
pub(crate) struct Recovered {
    pub(crate) bounds: Bounds,
    /// Where the first frame is that is left.
    pub(crate) first: LogPoint,
    /// The epochs of the frames, and of the one before the first, if known.
    pub(crate) epochs: Vec<EpochStart>,
    /// The last state that was made durable.
    pub(crate) state: Option<ReplicaState>,
    /// The configurations in the log, and the one at its start.
    pub(crate) configs: Result<Vec<ConfigEntry>, UnknownReplicas>,
}

/// Why it is not known who takes part in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum UnknownReplicas {
    #[error("the map of the store was lost, and retention had removed the frame that says which they are")]
    Lost,
    #[error(transparent)]
    Invalid(#[from] StoredConfigError),
}

impl Recovered {
    /// Returns what a store has of a partition.
    pub(crate) fn of(store: &Store, slot: PartitionSlot) -> Self {
        let configs = store.configurations(slot).map(|(index, payload)| {
            let config = Config::from_stored(payload)?;
            Ok(ConfigEntry { index, config })
        });
        Self {
            bounds: store.bounds(slot),
            first: store.first_point(slot),
            epochs: store.epochs(slot).collect(),
            state: store.replica_state(slot),
            configs: if store.has_lost_configuration(slot) {
                Err(UnknownReplicas::Lost)
            } else {
                configs.collect()
            },
        }
    }

    /// Returns the position before the first frame.
    fn start(&self) -> LogEnd {
        let before = self.epochs.iter().rev().find(|start| start.index < self.first.index);
        LogEnd { end: self.first.index, epoch: before.map_or(LeaderEpoch(0), |start| start.epoch) }
    }

    /// Returns the epochs that begin with one of the frames.
    fn runs(&self) -> Vec<Run> {
        let here = self.epochs.iter().filter(|epoch| epoch.index >= self.first.index);
        here.map(|EpochStart { epoch, index, .. }| Run { start: *index, epoch: *epoch }).collect()
    }

    /// Returns the state that the replica starts with. Where none was recorded, and in the terms of frames that are gone, nobody else can
    /// have led: the log says what it is.
    fn hard(&self) -> HardState {
        let recorded = self.state.map_or(HardState::NEW, hard_state);
        let of_log = self.epochs.last().map_or(LeaderEpoch(0), |last| last.epoch);
        let lost = self.bounds.last_epoch.filter(|_| self.bounds.epoch_is_new);
        // The start has taken the next epoch after those of the frames that are gone.
        let lost = lost.map_or(LeaderEpoch(0), |epoch| LeaderEpoch(epoch.0 - 1));
        let term = if self.state.is_some() { lost } else { lost.max(of_log) };
        if term > recorded.term { HardState { term, vote: None, ..recorded } } else { recorded }
    }
}

impl Consensus {
    /// Continues with the replica that a store has. `first`: the configuration that the partition was created with. A replica that is alone
    /// leads on, or elects itself, in the term that [`term`](Self::term) returns; others wait for a leader.
    pub(crate) fn new(me: ReplicaId, recovered: &Recovered, first: &Config, min_insync: usize) -> Self {
        let bounds = recovered.bounds;
        let (configs, is_known) = recovered.all_configs(first);
        let is_alone = is_known && configs.last().is_some_and(|last| last.config.is_only(me));
        let forgot = recovered.state.is_none() && !is_alone && bounds.append_index > LogIndex(0);
        // Its vote and promises are forgotten, or who takes part is. As another replica it takes no part, until it is given one.
        let id = if forgot || !is_known { ReplicaId { incarnation: u32::MAX, ..me } } else { me };
        let restored = Restored {
            hard: recovered.hard(),
            start: recovered.start(),
            runs: recovered.runs(),
            end: bounds.append_index,
            durable_end: bounds.durable_index,
            commit_end: if is_alone { bounds.durable_index } else { bounds.commit.index },
            configs,
            end_lost: bounds.faulty && !is_alone,
        };
        let end = LogPoint { index: bounds.append_index, offset: bounds.append_end };
        let durable = LogPoint { index: bounds.durable_index, offset: bounds.durable_end };
        // What else the store has found is committed when it is durable.
        let committed = if is_alone { durable } else { bounds.commit };
        let mut consensus = Self {
            replica: Replica::new(id, restored, 1),
            marks: VecDeque::new(),
            durable,
            committed,
            acknowledged: committed.offset,
            // Records before the start of the log were committed.
            high_watermark: committed.offset.max(bounds.log_start),
            term_start: Offset(0),
            led: None,
            answered: None,
            could_append: false,
            held: None,
            start_offset: bounds.append_end,
        };
        consensus.set_min_insync(min_insync);
        if end.index > committed.index {
            consensus.mark(end);
        }
        if recovered.state.is_none() && !is_alone && !forgot {
            consensus.replica.record_first_state();
        }
        if is_alone && (bounds.epoch_is_new || !consensus.replica.resume()) {
            consensus.replica.handle_election_timeout();
        }
        consensus.take_changes();
        consensus.has_begun_to_answer();
        consensus
    }
}

impl Recovered {
    /// Returns the configurations from the one in effect at the log's start on. False: one of them cannot be read.
    fn all_configs(&self, first: &Config) -> (Vec<ConfigEntry>, bool) {
        let created = ConfigEntry { index: LogIndex(0), config: first.clone() };
        match &self.configs {
            Err(error) => {
                tracing::error!("a partition takes no part, because its replicas are not known: {error}");
                (vec![created], false)
            }
            // Before the first one that is in the log, the one that the partition was created with is in effect.
            Ok(stored) => {
                let created =
                    stored.first().is_none_or(|one| one.index >= self.first.index).then_some(created);
                (created.into_iter().chain(stored.iter().cloned()).collect(), true)
            }
        }
    }
}

//! The store: commands in, completions in, events out.
//!
//! One file for each thing it does; all of them are `impl Store`:
//! [`append`] puts batches into tails, [`replica`] frames of other replicas, [`replica_state`] keeps what these must not forget, [`cut`] cuts logs off, [`round`] makes them durable, [`space`] finds room for extents, [`slabs`] for slabs, [`punch`] returns some to the file system,
//! [`journal`] puts small tails into the journal and [`write_back`] takes them from there to the extents,
//! [`stall`] waits for space with what was appended, [`record`] keeps the map, [`snapshot`] writes it anew, [`known_producers`] bounds what is remembered of producers,
//! [`read`] and [`find`] drive reads and searches, each of them a [`task`], [`read_index`] those of other replicas, [`read_queue`] starts their disk reads, [`retention`] lets go, [`rewrite`] replaces extents, [`open`] begins and [`close`] ends it; [`accept_loss`] is for the repair of a stopped broker's data.

mod accept_loss;
mod alloc;
mod append;
mod cached;
mod close;
mod cut;
mod find;
mod journal;
mod known_producers;
mod open;
mod punch;
mod read;
mod read_index;
mod read_queue;
mod record;
mod replica;
mod replica_state;
mod retention;
mod rewrite;
mod round;
mod slabs;
mod snapshot;
mod space;
mod stall;
mod task;
mod write_back;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::ids::{LogIndex, PartitionIndex, TopicId, TopicPartition};
use highwater_runtime::plane::{Completion, Disk, Token};
use highwater_runtime::slab::Slab;

use crate::api::{Bounds, PartitionSlot, ProducerCheck, StoreEvent, StoreStats};
use crate::config::{PartitionConfig, StoreConfig};
use crate::limits::PARTITIONS_PER_STORE_MAX;
use crate::mac::StoreMacs;
use crate::partition::{CacheBudget, Partition};
use crate::producers::{ActiveProducer, ProducerStamp};
use crate::state_log::{Seq, StateLog};

pub use accept_loss::{AcceptLossError, GivenUp};
use journal::Journal;
use known_producers::KnownProducers;

use open::Orphans;
use read_queue::Reads;
use rewrite::Rewrite;
use round::Rounds;
use snapshot::MapSnapshot;
use space::Space;

/// The logs of the partitions of one shard. See the crate's doc.
///
/// Order of calls: any number of commands and completions, then [`flush`](Self::flush) at the end of the turn, then
/// [`poll_event`](Self::poll_event) until it is empty.
pub struct Store {
    config: StoreConfig,
    /// By slot.
    partitions: Slab<Box<Partition>>,
    by_tp: BTreeMap<TopicPartition, PartitionSlot>,
    events: VecDeque<Queued>,
    stats: StoreStats,
    state: StateLog,
    space: Space,
    rounds: Rounds,
    journal: Journal,
    reads: Reads,
    budget: CacheBudget,
    known_producers: KnownProducers,
    /// Partitions with something for a round.
    dirty: VecDeque<PartitionSlot>,
    /// Partitions whose durable end waits for the map.
    waiting_for_map: Vec<PartitionSlot>,
    /// Partitions that wait for space on the disk with what was appended to them.
    stalled: BTreeSet<PartitionSlot>,
    /// Partitions of whose logs a part is being cut off.
    cuts: VecDeque<PartitionSlot>,
    /// The part of a log that is being rewritten.
    rewrite: Option<Box<Rewrite>>,
    /// The map waits for space on the disk.
    map_stalled: bool,
    /// Partitions appended to since their last checkpoint.
    touched: VecDeque<PartitionSlot>,
    /// How many of these get a checkpoint in the round that is going on.
    checkpoints_left: usize,
    /// Partitions whose write bounds are due to be raised.
    bounds_due: VecDeque<PartitionSlot>,
    /// The snapshot of the map that is being written.
    snapshot: Option<MapSnapshot>,
    /// Frames whose extents' headers are damaged: the partitions that they belong to are out of service.
    orphans: Orphans,
    /// The codes of frames, and whether the map knows of them.
    macs: StoreMacs,
    macs_recorded: bool,
    /// The place at which the next step of retention begins.
    retention_at: usize,
    unacked_bytes: u64,
    appended_since_checkpoint: u64,
    /// Replies that wait for the map.
    promises: VecDeque<(Seq, StoreEvent)>,
    /// The last record of the map when the store was opened, if it had been shut down in order.
    untouched: Option<Seq>,
    phase: Phase,
}

/// An event that was not taken yet. What is durable is looked up when the event is taken, so there is one per partition at most.
enum Queued {
    Durable(PartitionSlot),
    Event(StoreEvent),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// No appends any more; rounds go on until everything is durable.
    Draining,
    /// The last snapshot of the map is being written.
    Closing,
    Closed,
    /// The disk is not to be trusted.
    Failed,
}

/// What the byte below the token space says.
const TOKEN_KIND_SHIFT: u32 = 48;
/// The state log's own tokens.
const TOKEN_STATE: u64 = 0;
/// A token of this store.
const TOKEN_STORE: u64 = 1;

impl Store {
    /// The partitions of this store.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, PartitionSlot)> {
        self.by_tp.iter().map(|(tp, slot)| (*tp, *slot))
    }

    /// The partitions of one topic in this store.
    pub fn partitions_of(&self, topic: TopicId) -> impl Iterator<Item = (TopicPartition, PartitionSlot)> {
        let at = |index| TopicPartition { topic, partition: PartitionIndex(index) };
        self.by_tp.range(at(0)..=at(u32::MAX)).map(|(tp, slot)| (*tp, *slot))
    }

    /// The slot of this partition, made (in memory only) if there is none. Updates its configuration.
    pub fn ensure_partition(&mut self, tp: TopicPartition, config: PartitionConfig) -> PartitionSlot {
        if let Some(slot) = self.by_tp.get(&tp) {
            let partition = self.partitions.get_mut(slot.0).expect("a partition with a name is there");
            partition.configure(config);
            return *slot;
        }
        assert!(self.partitions.len() < PARTITIONS_PER_STORE_MAX, "too many partitions in one store");
        let slot = PartitionSlot(self.partitions.next_key());
        let mut partition = Partition::new(slot, tp, config);
        if let Some(orphan) = self.orphans.of(tp.tag(), LogIndex(0)) {
            // It has records, and where its log begins is not known.
            tracing::error!(partition = %tp, "out of service: {}", open::orphan_fault(&orphan));
            partition.faulty = true;
        }
        self.partitions.insert(Box::new(partition));
        self.by_tp.insert(tp, slot);
        slot
    }

    /// What the partition knows of a batch's producer.
    pub fn check_producer(&self, slot: PartitionSlot, batch: &BatchHeader) -> ProducerCheck {
        self.partition(slot).map_or(ProducerCheck::New, |p| p.producers.check(&ProducerStamp::of(batch)))
    }

    /// How many idempotent producers the partition knows.
    pub fn producer_count(&self, slot: PartitionSlot) -> usize {
        self.partition(slot).map_or(0, |p| p.producers.len())
    }

    /// The idempotent producers that the partition knows, by id.
    pub fn active_producers(&self, slot: PartitionSlot) -> impl Iterator<Item = ActiveProducer> {
        self.partition(slot).into_iter().flat_map(|p| p.producers.active())
    }

    /// Where the log of a partition begins and ends. Panics if it was deleted.
    pub fn bounds(&self, slot: PartitionSlot) -> Bounds {
        self.partition(slot).expect("the slot of a deleted partition is not used again").bounds()
    }

    /// Starts what can be started: records of the map, slabs, a commit round. Call it at the end of every turn. Returns true if
    /// there is more to do than one turn may take: then another turn has to follow, whether or not a completion comes in.
    pub fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        let mut more = false;
        match self.phase {
            Phase::Failed | Phase::Closed => return false,
            Phase::Open | Phase::Draining => {
                self.grow_space(disk);
                self.go_on_cutting(disk);
                self.give_up_changed_rewrite();
                more |= self.continue_checkpoints();
                more |= self.flush_map(disk);
                self.start_round(disk);
                self.continue_write_back(disk);
                self.trim_journal(disk);
            }
            Phase::Closing => more |= self.continue_snapshot(disk),
        }
        more | self.close_if_drained(disk)
    }

    /// A completion of an operation that this store started: its token has the store's token space as its top byte.
    pub fn on_disk(&mut self, disk: &mut dyn Disk, token: Token, completion: Completion) {
        assert!((token.0 >> 56) as u8 == self.config.token_space, "a completion of another owner");
        if self.phase == Phase::Failed {
            return;
        }
        match token.0 >> TOKEN_KIND_SHIFT & 0xff {
            TOKEN_STATE => match self.state.on_disk(disk, token, completion) {
                Ok(()) => {
                    self.follow_map_stall();
                    self.on_map_durable(disk);
                }
                Err(fatal) => self.fail(fatal.0),
            },
            TOKEN_STORE => {
                self.on_operation(disk, (token.0 & ((1 << TOKEN_KIND_SHIFT) - 1)) as usize, completion);
            }
            other => panic!("no token of a store has kind {other}"),
        }
    }

    /// The next thing that the owner has to know.
    pub fn poll_event(&mut self) -> Option<StoreEvent> {
        loop {
            match self.events.pop_front()? {
                Queued::Event(event) => return Some(event),
                Queued::Durable(slot) => {
                    let Some(partition) = self.partition_mut(slot) else { continue };
                    partition.flags.event = false;
                    let durable = partition.durable;
                    return Some(StoreEvent::Durable {
                        slot,
                        durable_index: durable.index,
                        durable_offset: durable.offset,
                    });
                }
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            cache_bytes: self.budget.bytes(),
            unacked_bytes: self.unacked_bytes,
            slab_bytes: self.space.alloc.slab_bytes(),
            free_bytes: self.space.alloc.free_bytes(),
            hole_bytes: self.space.alloc.hole_bytes(),
            ..self.stats
        }
    }

    /// Whether the map waits for space on the disk. Try again with [`enforce_retention`](Self::enforce_retention).
    pub fn is_stalled(&self) -> bool {
        self.state.is_stalled()
    }

    /// Whether records appended to a partition wait for space on the disk, or the map does. Try again with
    /// [`enforce_retention`](Self::enforce_retention).
    pub fn waits_for_space(&self, slot: PartitionSlot) -> bool {
        self.is_stalled() || self.partition(slot).is_some_and(|partition| partition.stalled)
    }

    /// Bytes of memory in buffers: the cache and what waits for the disk.
    pub fn memory_bytes(&self) -> u64 {
        self.budget.bytes() + self.unacked_bytes
    }

    /// What the store was opened with.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    fn partition(&self, slot: PartitionSlot) -> Option<&Partition> {
        let partition = self.partitions.get(slot.0)?;
        (!partition.deleting).then_some(partition)
    }

    fn partition_mut(&mut self, slot: PartitionSlot) -> Option<&mut Partition> {
        let partition = self.partitions.get_mut(slot.0)?;
        (!partition.deleting).then_some(partition)
    }

    fn push_event(&mut self, event: StoreEvent) {
        self.events.push_back(Queued::Event(event));
    }

    /// The disk is not to be trusted any more. Nothing is acknowledged from here on.
    fn fail(&mut self, why: String) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            self.events.clear();
            self.push_event(StoreEvent::Fatal(why));
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.config.dir)
            .field("partitions", &self.by_tp.len())
            .field("stats", &self.stats())
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

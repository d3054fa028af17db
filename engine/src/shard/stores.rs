//! The stores of a shard: opening, commit rounds, and what they report.

use std::collections::VecDeque;

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{LogIndex, Offset, StoreId, TopicId, TopicPartition};
use highwater_runtime::plane::{Completion, ConnId, Plane, Token};
use highwater_storage::mac::MAC_KEY_BYTES;
use highwater_storage::{
    Cursor, MacKey, PartitionFinding, RecoveryReport, Slot, Store, StoreConfig, StoreEvent,
};

use super::Shard;
use super::kafka::Waiting;
use super::partition::{Ack, AckTo, Refusal};
use super::readers::deleted;
use super::send_budget::Wanted;
use super::setup::{OpenError, ShardSetup};
use crate::broker::data_dir::store_dir;
use crate::limits::{
    EVENTS_PER_POLL_MAX, READ_MEMORY_BYTES_MIN, SPACE_INTERVAL, START_WARNINGS_MAX, STORES_PER_SHARD_MAX,
};
use crate::message::{Message, Opened};

/// Token spaces: the top byte of a disk operation's token says whose it is.
pub(super) const META_SPACE: u8 = 1;
pub(super) const OFFSETS_SPACE: u8 = 2;
pub(super) const RESERVE_SPACE: u8 = 3;
const STORE_SPACE_FIRST: u8 = 8;
const _: () = assert!(STORE_SPACE_FIRST as usize + STORES_PER_SHARD_MAX <= 256);

/// A store of this shard.
pub(super) struct StoreEntry {
    pub(super) id: StoreId,
    pub(super) store: Store,
    /// Connections with a batch that waits for room, first come, first served.
    pub(super) stalled: VecDeque<ConnId>,
    /// Batches of Kafka clients that wait for room.
    pub(super) waiting: Waiting,
    /// The disk had no space the last time it was asked for some.
    pub(super) full: bool,
    pub(super) closed: bool,
}

impl StoreEntry {
    /// The memory that a read of so many bytes takes, of which the next frame needs at least `needs`.
    pub(super) fn memory_wanted(&self, slot: Slot, cursor: Cursor, bytes_max: usize, needs: usize) -> Wanted {
        let limits = &self.store.config().limits;
        let most = if self.store.is_cached(slot, cursor) {
            // The last chunk is held whole.
            bytes_max.saturating_add(limits.chunk_bytes_max)
        } else {
            bytes_max.min(limits.read_bytes_max)
        };
        Wanted { most: most.max(READ_MEMORY_BYTES_MIN).max(needs), least: needs }
    }
}

/// Opens the stores that are this shard's, and says what they hold.
pub(super) fn open_all(
    plane: &mut dyn Plane<Message>,
    setup: &ShardSetup,
) -> Result<(Vec<StoreEntry>, Opened), OpenError> {
    let mut entries = Vec::new();
    let mut opened = Opened { epochs: Vec::new(), topics: Vec::new(), warnings: Vec::new() };
    let mine = (plane.shard()..setup.stores).step_by(usize::from(setup.shards));
    for (number, id) in mine.enumerate() {
        if number >= STORES_PER_SHARD_MAX {
            return Err(OpenError::Config(format!(
                "one core would serve more than {STORES_PER_SHARD_MAX} stores; start with more cores"
            )));
        }
        let config = StoreConfig {
            dir: store_dir(&setup.data_dir, id),
            cluster: setup.identity.cluster,
            store: StoreId(id),
            token_space: STORE_SPACE_FIRST + number as u8,
            new_mac_key: new_mac_key(plane),
            limits: setup.limits.store,
            durable_form: setup.durable_form,
        };
        let (store, report) = Store::open(config, plane)?;
        tell_findings(StoreId(id), report, &mut opened.warnings);
        opened.topics.extend(store.partitions().map(|(tp, _)| tp.topic));
        entries.push(StoreEntry {
            id: StoreId(id),
            store,
            stalled: VecDeque::new(),
            waiting: Waiting::default(),
            full: false,
            closed: false,
        });
    }
    opened.topics.sort_unstable();
    opened.topics.dedup();
    Ok((entries, opened))
}

/// A secret for a store that has none yet.
fn new_mac_key(plane: &mut dyn Plane<Message>) -> MacKey {
    let mut key = MacKey([0; MAC_KEY_BYTES]);
    for half in key.0.chunks_mut(size_of::<u64>()) {
        half.copy_from_slice(&plane.random_u64().to_le_bytes());
    }
    key
}

/// What recovery found goes to the log and to whoever starts the broker.
fn tell_findings(store: StoreId, report: RecoveryReport, warnings: &mut Vec<String>) {
    tracing::info!(
        store = store.0,
        partitions = report.partitions,
        extents = report.extents,
        scanned = report.bytes_scanned,
        "store opened"
    );
    let mut faulty = Vec::new();
    for (tp, finding) in report.findings {
        match finding {
            PartitionFinding::Truncated { end } => {
                tracing::info!(%tp, %end, "frames that were never acknowledged are gone");
            }
            PartitionFinding::Faulty { at, why } => faulty.push(format!(
                "partition {tp} is damaged at offset {at}: {why}; it serves what can be read and takes no new records"
            )),
        }
    }
    warn_some(warnings, faulty, "partitions that are damaged; `highwater topic describe` shows them");
    let of_store = |what: String| format!("store-{:03}: {what}", store.0);
    let told = report.warnings.into_iter().map(of_store).collect();
    warn_some(
        warnings,
        told,
        &format!("warnings of store-{:03}; `highwater log verify` finds all damage", store.0),
    );
    if report.map_rebuilt {
        warnings.push(of_store("its map was lost and rebuilt from the extents".into()));
    }
    let moved = report.quarantined.iter().map(|(from, to)| {
        format!("{}: nothing knows this file; it was moved to {}", from.display(), to.display())
    });
    warn_some(warnings, moved.collect(), "files that nothing knows were moved to quarantine");
}

/// Adds warnings of one kind: the first ones, and how many more there are.
fn warn_some(warnings: &mut Vec<String>, mut of_a_kind: Vec<String>, what: &str) {
    let more = of_a_kind.len().saturating_sub(START_WARNINGS_MAX);
    of_a_kind.truncate(START_WARNINGS_MAX);
    warnings.append(&mut of_a_kind);
    if more > 0 {
        warnings.push(format!("and {more} more {what}"));
    }
}

/// The index of the store that a token belongs to.
fn store_of(token: Token) -> Option<usize> {
    usize::from((token.0 >> 56) as u8).checked_sub(usize::from(STORE_SPACE_FIRST))
}

impl Shard {
    pub(super) fn disk_completed(
        &mut self,
        plane: &mut dyn Plane<Message>,
        token: Token,
        completion: Completion,
    ) {
        let result = match ((token.0 >> 56) as u8, &mut self.lead) {
            (META_SPACE, Some(lead)) => lead.controller.on_disk(plane, token, completion),
            (OFFSETS_SPACE, Some(lead)) => lead.groups.on_disk(plane, token, completion),
            (RESERVE_SPACE, Some(lead)) => {
                lead.reserve_made(plane, &completion);
                Ok(())
            }
            _ => {
                let index = store_of(token).expect("tokens are numbered by their owners");
                self.stores[index].store.on_disk(plane, token, completion);
                Ok(())
            }
        };
        if let Err(fatal) = result {
            plane.fatal(EXIT_DISK, format!("the disk is not to be trusted: {fatal}"));
        }
        let waits = self.lead.as_ref().is_some_and(|lead| lead.is_stalled());
        if waits && self.retention_at > plane.now().after(SPACE_INTERVAL) {
            self.plan_retention(plane, SPACE_INTERVAL);
        }
    }

    /// Starts commit rounds with what this turn has appended.
    pub(super) fn flush_stores(&mut self, plane: &mut dyn Plane<Message>) {
        for entry in &mut self.stores {
            entry.store.flush(plane);
        }
    }

    /// Takes what the stores have to say, as much as one turn takes. False if that is nothing.
    pub(super) fn poll_stores(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let mut any = false;
        for store in 0..self.stores.len() {
            let mut room = false;
            let mut left = EVENTS_PER_POLL_MAX;
            while left > 0
                && let Some(event) = self.stores[store].store.poll_event()
            {
                left -= 1;
                any = true;
                room |= matches!(
                    event,
                    // On a full disk, who waits for room is refused.
                    StoreEvent::Durable { .. }
                        | StoreEvent::SpaceAvailable
                        | StoreEvent::RoomAvailable
                        | StoreEvent::StorageFull(_)
                        | StoreEvent::Stalled { .. }
                );
                self.on_store_event(plane, store, event);
            }
            if room {
                self.retry_stalled_of(plane, store);
            }
        }
        any
    }

    fn on_store_event(&mut self, plane: &mut dyn Plane<Message>, store: usize, event: StoreEvent) {
        match event {
            StoreEvent::Durable { slot, durable_index, durable_offset } => {
                self.on_durable(store, slot, durable_index, durable_offset);
            }
            StoreEvent::Read { id, result } => {
                if let Some(read) = self.reads.remove(&(store, id)) {
                    self.on_read(plane, read, result);
                } else {
                    self.on_kafka_read(plane, (store, id), result);
                }
            }
            StoreEvent::Found { id, result } => self.on_found(plane, (store, id), result),
            StoreEvent::LogStart { slot, offset } => self.on_log_start(plane, store, slot, offset),
            StoreEvent::Deleted { tp } => self.on_partition_gone(plane, tp),
            StoreEvent::StorageFull(why) => {
                tracing::error!(store = self.stores[store].id.0, "the disk is full: {why}");
                self.stores[store].full = true;
                self.plan_retention(plane, SPACE_INTERVAL);
            }
            StoreEvent::Stalled { slot } => self.refuse_waiting(store, slot),
            StoreEvent::SpaceAvailable => {
                tracing::info!(store = self.stores[store].id.0, "there is space on the disk again");
                self.stores[store].full = false;
            }
            // Whoever waits for room tries again after the last event.
            StoreEvent::RoomAvailable
            // This broker holds the only replica of each of its partitions: nobody asks for these.
            | StoreEvent::ReadByIndex { .. }
            | StoreEvent::Truncated { .. }
            | StoreEvent::Started { .. } => {}
            StoreEvent::Fatal(why) => {
                plane.fatal(EXIT_DISK, format!("the disk is not to be trusted: {why}"));
            }
            StoreEvent::Closed => {
                self.stores[store].closed = true;
            }
        }
    }

    /// More of a partition's log is on stable storage: producers and readers hear what follows from that.
    fn on_durable(&mut self, store: usize, slot: Slot, index: LogIndex, offset: Offset) {
        let me = self.setup.identity.node;
        let Some(id) = self.partitions.of_slot(store, slot) else { return };
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let moved = partition.handle_durable(me, me, index, offset);
        while let Some(ack) = self.partitions.get_mut(id).and_then(super::partition::Partition::pop_acked) {
            self.acknowledge(store, slot, ack);
        }
        if moved {
            self.wake_waiters(id);
        }
    }

    /// What was appended to a partition waits for space on the disk: its producers hear that instead of waiting too. For them it is unknown
    /// whether their batches will be there; a batch that is sent again is recognised.
    fn refuse_waiting(&mut self, store: usize, slot: Slot) {
        let Some(id) = self.partitions.of_slot(store, slot) else { return };
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let text = format!("{}: the disk is full", partition.name());
        let acks: Vec<_> = partition.take_acks().collect();
        for ack in acks {
            self.refuse_ack(ack, (ErrorCode::StorageFull, text.clone()));
        }
    }

    /// A producer that waits for its acknowledgement does not get one.
    fn refuse_ack(&mut self, ack: Ack, (code, text): Refusal) {
        match ack.to {
            AckTo::Native(conn, slot) => self.reply(conn, slot, Reply::Error { code, text }),
            AckTo::Kafka(to) => self.tell_produced(to, Err((code.into(), text))),
        }
    }

    fn retry_stalled_of(&mut self, plane: &mut dyn Plane<Message>, store: usize) {
        for _ in 0..self.stores[store].stalled.len() {
            let Some(conn) = self.stores[store].stalled.pop_front() else { return };
            // What waits on goes to the back: it waits for its own partition, others may not.
            self.retry_stalled(plane, conn);
        }
        self.retry_kafka_appends(plane, store);
    }

    /// A deleted partition's space is free.
    fn on_partition_gone(&mut self, plane: &mut dyn Plane<Message>, tp: TopicPartition) {
        if let Some(freeing) = self.freeing.get_mut(&tp.topic) {
            freeing.missing -= 1;
        }
        self.free_topic_if_gone(plane, tp.topic);
    }

    /// Tells shard 0 when nothing of a deleted topic is left here.
    pub(super) fn free_topic_if_gone(&mut self, plane: &mut dyn Plane<Message>, topic: TopicId) {
        if self.freeing.get(&topic).is_some_and(|freeing| freeing.all_listed && freeing.missing == 0) {
            self.freeing.remove(&topic);
            plane.post(0, Message::Gone(vec![topic]));
        }
    }

    /// Nobody can do anything with a partition any more; those who wait for it hear that.
    pub(super) fn forget_partition(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: super::partition::PartitionId,
    ) {
        self.wake_waiters(id);
        self.end_readers_of(plane, id);
        self.abandon_searches(plane, id);
        let Some(mut partition) = self.partitions.remove(id) else { return };
        self.abandon_moves(plane, partition.store, partition.slot);
        let acks: Vec<_> = partition.take_acks().collect();
        for ack in acks {
            self.refuse_ack(ack, deleted());
        }
    }
}

/// A disk error on a write or a sync.
pub(super) const EXIT_DISK: u8 = 74;

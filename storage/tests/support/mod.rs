//! A store on a simulated disk, with helpers for tests.
#![allow(dead_code, unreachable_pub, reason = "not every test uses everything")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BatchHeader, BatchProducer, Compression, NewRecord, Work};
use highwater_protocol::frame::{FRAME_HEADER_BYTES, Frame, Frames as FrameIter};
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, LogIndex, Offset, PartitionIndex, ProducerId, StoreId, Timestamp, TopicId,
    TopicPartition,
};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage};
use highwater_storage::{
    AppendError, Appended, Cursor, DurableForm, FindOutcome, FindResult, MacKey, PartitionConfig,
    PartitionSlot, Payload, ReadId, ReadLimits, ReadOutcome, ReadResult, RecoveryReport, SearchMemory, Store,
    StoreConfig, StoreEvent, StoreLimits,
};

pub const EPOCH: LeaderEpoch = LeaderEpoch(1);
pub const HOUR_MS: i64 = 60 * 60 * 1000;

/// Returns partition `n` of the only topic.
pub fn tp(n: u32) -> TopicPartition {
    TopicPartition { topic: TopicId([9; 16]), partition: PartitionIndex(n) }
}

pub fn config() -> StoreConfig {
    StoreConfig {
        dir: PathBuf::from("/data/store-000"),
        cluster: ClusterId([5; 16]),
        store: StoreId(0),
        token_space: 3,
        new_mac_key: MacKey([0x6D; 16]),
        limits: StoreLimits::tiny(),
        durable_form: DurableForm::Dsync,
    }
}

/// Returns small limits, with a journal for even seeds.
pub fn journal_in_half_of(seed: u64) -> StoreLimits {
    if seed.is_multiple_of(2) { StoreLimits::tiny_with_journal() } else { StoreLimits::tiny() }
}

/// Returns the disk with both copies of the store's map zeroed.
pub fn without_map(mut image: DiskImage) -> DiskImage {
    for copy in ["a", "b"] {
        let path = format!("/data/store-000/state.{copy}");
        let bytes = image.read(path.as_ref()).expect("it is there").len();
        image.put(path.as_ref(), &vec![0; bytes]);
    }
    image
}

/// The ways in which a crash treats unsynced writes.
pub const CRASH_POLICIES: [CrashPolicy; 4] =
    [CrashPolicy::LOSE_ALL, CrashPolicy::KEEP_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED];

/// A record read back: offset, timestamp, value.
pub type Rec = (i64, i64, Vec<u8>);

/// Creates a batch with these values, a millisecond apart.
pub fn batch_at(timestamp: i64, values: &[&[u8]]) -> Bytes {
    batch_of(Compression::None, BatchProducer::NONE, timestamp, values)
}

pub fn batch(values: &[&[u8]]) -> Bytes {
    batch_at(1_000, values)
}

/// Creates a batch with one value of `fill` bytes.
pub fn filled(fill: u8, bytes: usize) -> Bytes {
    batch(&[&vec![fill; bytes]])
}

pub fn batch_of(
    compression: Compression,
    producer: BatchProducer,
    timestamp: i64,
    values: &[&[u8]],
) -> Bytes {
    let mut builder = BatchBuilder::new(compression, 0);
    for (at, value) in (timestamp..).zip(values) {
        builder.append(&NewRecord::new(Timestamp(at), None, Some(value))).expect("a test's batch is small");
    }
    builder.finish(producer).expect("it has records").freeze()
}

pub fn producer(id: i64, epoch: i16, sequence: i32) -> BatchProducer {
    BatchProducer { id: ProducerId(id), epoch, sequence }
}

fn header(batch: &[u8]) -> BatchHeader {
    *BatchHeader::parse(batch).expect("a batch")
}

/// Returns a batch in a receive buffer.
pub fn small(batch: &[u8]) -> Payload<'_> {
    Payload::small(header(batch), batch)
}

/// Returns a batch as received into pages.
pub fn bulk(batch: &[u8]) -> Payload<'static> {
    Payload::bulk(header(batch), pages(batch))
}

/// Returns pages that contain a received batch.
pub fn pages(batch: &[u8]) -> AlignedBuf {
    let mut pages = AlignedBuf::new(FRAME_HEADER_BYTES + batch.len());
    pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch.len()].copy_from_slice(batch);
    pages
}

/// A store on its disk.
pub struct Bed {
    pub disk: DiskHarness,
    pub store: Store,
    pub config: StoreConfig,
    pub report: RecoveryReport,
    /// Events taken, except those of reads.
    pub events: Vec<StoreEvent>,
    pub reads: BTreeMap<ReadId, ReadResult>,
    pub founds: BTreeMap<ReadId, FindResult>,
    pub wall_ms: i64,
    /// The work that a search may do at a time.
    pub search_work: Work,
    /// Bytes of frames that a rewrite may read in a turn.
    pub rewrite_bytes: usize,
}

impl Bed {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, config())
    }

    pub fn with(seed: u64, config: StoreConfig) -> Self {
        Self::on(DiskHarness::new(seed), config)
    }

    pub fn on(mut disk: DiskHarness, config: StoreConfig) -> Self {
        let (store, report) = Store::open(config.clone(), &mut disk).expect("the store opens");
        Self {
            disk,
            store,
            config,
            report,
            events: Vec::new(),
            reads: BTreeMap::new(),
            founds: BTreeMap::new(),
            wall_ms: 1_000_000,
            search_work: Work::MAX,
            rewrite_bytes: usize::MAX,
        }
    }

    /// Ends a turn. Returns true if there is more to do than fits one turn.
    pub fn turn(&mut self) -> bool {
        let more = self.store.flush(&mut self.disk);
        let more = self.store.continue_rewrite(&mut self.disk, &mut self.rewrite_bytes.clone()) || more;
        while let Some(event) = self.store.poll_event() {
            match event {
                StoreEvent::Read { id, result } => drop(self.reads.insert(id, result)),
                StoreEvent::Searched { id, result } => drop(self.founds.insert(id, result)),
                event => self.events.push(event),
            }
        }
        more
    }

    /// Handles one completion and runs the turn that it causes. Returns false if nothing is in flight and nothing is left to do.
    pub fn step(&mut self) -> bool {
        let more = self.turn();
        let Some((token, completion)) = self.disk.step() else { return more };
        self.store.on_disk(&mut self.disk, token, completion);
        self.turn();
        true
    }

    /// Runs until nothing is in flight.
    pub fn settle(&mut self) {
        while self.step() {}
    }

    pub fn slot(&mut self, n: u32) -> PartitionSlot {
        self.store
            .ensure_partition(tp(n), PartitionConfig { segment_ms: i64::MAX, ..PartitionConfig::KEEP_ALL })
    }

    pub fn try_append(&mut self, slot: PartitionSlot, batch: &[u8]) -> Result<Appended, AppendError> {
        self.append_payload(slot, || small(batch))
    }

    pub fn try_append_bulk(&mut self, slot: PartitionSlot, batch: &[u8]) -> Result<Appended, AppendError> {
        self.append_payload(slot, || bulk(batch))
    }

    /// Returns the newest epoch, in which batches are appended.
    pub fn epoch(&self, slot: PartitionSlot) -> LeaderEpoch {
        let is_there = self.store.partitions().any(|(_, there)| there == slot);
        let last = is_there.then(|| self.store.bounds(slot).last_epoch).flatten();
        last.unwrap_or(EPOCH)
    }

    /// Appends a batch, and waits for a slab if it needs one.
    fn append_payload<'a>(
        &mut self,
        slot: PartitionSlot,
        payload: impl Fn() -> Payload<'a>,
    ) -> Result<Appended, AppendError> {
        let epoch = self.epoch(slot);
        loop {
            let appended = self.store.append(&mut self.disk, slot, payload(), epoch, self.wall_ms);
            if appended != Err(AppendError::Busy) || !self.store.awaits_slab() {
                return appended;
            }
            self.step();
        }
    }

    pub fn append(&mut self, slot: PartitionSlot, batch: &[u8]) -> Appended {
        self.try_append(slot, batch).expect("the append is taken")
    }

    /// Appends a batch and waits until it is durable.
    pub fn append_durably(&mut self, slot: PartitionSlot, batch: &[u8]) -> Appended {
        let appended = self.append(slot, batch);
        self.settle();
        assert!(self.store.bounds(slot).durable_end >= appended.next_offset, "settled and not durable");
        appended
    }

    pub fn read(&mut self, slot: PartitionSlot, cursor: Cursor, max_bytes: usize) -> ReadResult {
        self.read_up_to(slot, cursor, max_bytes, Offset(i64::MAX))
    }

    pub fn read_up_to(
        &mut self,
        slot: PartitionSlot,
        cursor: Cursor,
        max_bytes: usize,
        up_to: Offset,
    ) -> ReadResult {
        self.read_within(
            slot,
            cursor,
            ReadLimits { bytes_max: max_bytes, memory_bytes_max: usize::MAX },
            up_to,
        )
    }

    pub fn read_within(
        &mut self,
        slot: PartitionSlot,
        cursor: Cursor,
        limits: ReadLimits,
        up_to: Offset,
    ) -> ReadResult {
        match self.store.read(&mut self.disk, slot, cursor, limits, up_to) {
            ReadOutcome::Ready(result) => result,
            ReadOutcome::Pending(id) => loop {
                if let Some(result) = self.reads.remove(&id) {
                    break result;
                }
                assert!(self.step(), "a read was never answered");
            },
        }
    }

    pub fn find(&mut self, slot: PartitionSlot, at: i64) -> FindResult {
        self.find_within(slot, at, SearchMemory::UNLIMITED)
    }

    pub fn find_within(&mut self, slot: PartitionSlot, at: i64, memory: SearchMemory) -> FindResult {
        let mut work = self.search_work;
        let outcome = self.store.find_time(&mut self.disk, slot, Timestamp(at), memory, &mut work);
        self.found(outcome)
    }

    pub fn find_last(&mut self, slot: PartitionSlot) -> FindResult {
        let outcome = self.store.find_last(
            &mut self.disk,
            slot,
            SearchMemory::UNLIMITED,
            &mut self.search_work.clone(),
        );
        self.found(outcome)
    }

    fn found(&mut self, outcome: FindOutcome) -> FindResult {
        match outcome {
            FindOutcome::Ready(result) => result,
            FindOutcome::Pending(id) => loop {
                let more = self.store.continue_searches(&mut self.disk, &mut self.search_work.clone());
                self.turn();
                if let Some(result) = self.founds.remove(&id) {
                    break result;
                }
                assert!(more || self.step(), "a search was never answered");
            },
        }
    }

    /// Reads all records from an offset on. Also returns the damaged ranges that were skipped.
    pub fn read_all(
        &mut self,
        slot: PartitionSlot,
        from: i64,
        max_bytes: usize,
    ) -> (Vec<Rec>, Vec<(i64, i64)>) {
        let mut cursor = Cursor::at(Offset(from));
        let (mut records, mut skipped) = (Vec::new(), Vec::new());
        loop {
            match self.read(slot, cursor, max_bytes) {
                ReadResult::Frames(frames) => {
                    let mut bytes = 0;
                    let before = records.len();
                    for slice in &frames.bytes {
                        bytes += slice.len();
                        records_of(slice, from, &mut records);
                    }
                    let batches = frames.bytes.iter().map(batches_of).sum::<usize>();
                    assert!(
                        bytes <= max_bytes || batches == 1,
                        "{bytes} bytes in {batches} batches, {max_bytes} wanted"
                    );
                    assert!(records.len() > before, "frames without a record that was asked for");
                    assert_eq!(frames.next.offset().0, records.last().expect("there is one").0 + 1);
                    cursor = frames.next;
                }
                ReadResult::AtEnd => return (records, skipped),
                ReadResult::Damaged { resume_at } => {
                    assert!(resume_at > cursor.offset(), "damage leads forward");
                    skipped.push((cursor.offset().0, resume_at.0));
                    cursor = Cursor::at(resume_at);
                }
                other => panic!("reading at {cursor:?}: {other:?}"),
            }
        }
    }

    /// Reads the values of all records. Nothing may be damaged, and offsets must have no gaps.
    pub fn values(&mut self, slot: PartitionSlot) -> Vec<Vec<u8>> {
        let start = self.store.bounds(slot).log_start;
        let (records, skipped) = self.read_all(slot, start.0, 64 << 10);
        assert_eq!(skipped, []);
        for (at, record) in (start.0..).zip(&records) {
            assert_eq!(record.0, at, "offsets have no gaps");
        }
        assert_eq!(start.0 + records.len() as i64, self.store.bounds(slot).durable_end.0);
        records.into_iter().map(|record| record.2).collect()
    }

    /// Returns whether such an event has occurred.
    pub fn saw(&self, is: impl Fn(&StoreEvent) -> bool) -> bool {
        self.events.iter().any(is)
    }

    /// Shuts the store down and opens it again.
    pub fn restart(mut self) -> Self {
        self.store.shutdown(&mut self.disk);
        self.settle();
        assert!(
            self.saw(|event| matches!(event, StoreEvent::Closed)),
            "shut down and not closed: {:?}",
            self.events
        );
        self.disk.crash(CrashPolicy::LOSE_ALL);
        self.again()
    }

    /// Accepts what the start found to be lost, in every partition that it took out of service, and opens the store again.
    pub fn accept_losses(mut self) -> Self {
        for (tp, _) in self.report.lost.clone() {
            let slot = self.slot(tp.partition.get());
            self.store.accept_loss(slot, &self.report).expect("it can be accepted");
            while self.store.begin_epoch_after_loss(&mut self.disk, slot) == Err(AppendError::Busy) {
                assert!(self.step(), "the slab is made");
            }
        }
        self.restart()
    }

    /// Cuts the power and opens the store again.
    pub fn crash(mut self, policy: CrashPolicy) -> Self {
        self.disk.crash(policy);
        self.again()
    }

    /// Opens the store again, on the disk as it is.
    pub fn again(self) -> Self {
        let (wall_ms, search_work, rewrite_bytes) = (self.wall_ms, self.search_work, self.rewrite_bytes);
        Self { wall_ms, search_work, rewrite_bytes, ..Self::on(self.disk, self.config) }
    }
}

fn batches_of(slice: &Bytes) -> usize {
    FrameIter::new(slice).filter(|frame| frame.as_ref().expect("frames are whole").batch().is_some()).count()
}

pub fn records_of(slice: &Bytes, from: i64, records: &mut Vec<Rec>) {
    let mut at = 0;
    while at < slice.len() {
        let frame = Frame::checked(&slice[at..]).expect("a reader is given good frames only");
        at += frame.header().frame_bytes();
        let Some(batch) = frame.batch() else { continue };
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch).expect("it decompresses") {
            let record = record.expect("records are good");
            if record.offset.0 >= from {
                let value = record.value.expect("a test's record has a value").to_vec();
                records.push((record.offset.0, record.timestamp.0, value));
            }
        }
    }
    assert_eq!(at, slice.len(), "a slice holds whole frames");
}

/// Returns the index below which everything is durable.
pub fn durable_index(bed: &Bed, slot: PartitionSlot) -> LogIndex {
    bed.store.bounds(slot).durable_index
}

/// Plants a bug and checks that it is found.
#[cfg(feature = "mutants")]
pub fn is_found(mutant: highwater_storage::mutants::Mutant, check: fn()) {
    use highwater_storage::mutants::plant;

    plant(Some(mutant));
    let run = std::panic::catch_unwind(check);
    plant(None);
    assert!(run.is_err(), "{mutant:?} was not found");
}

/// Plants a bug and checks that one of the first `seeds_max` runs of a proof finds it, by an error or by a failed assertion.
#[cfg(feature = "mutants")]
pub fn is_found_within(
    seeds_max: u64,
    mutant: highwater_storage::mutants::Mutant,
    run: fn(u64) -> Result<usize, String>,
) {
    use highwater_storage::mutants::plant;

    plant(Some(mutant));
    let found = (0..seeds_max).find_map(|seed| {
        let run = std::panic::catch_unwind(|| run(seed));
        run.unwrap_or_else(|_| Err(format!("seed {seed}: an assertion failed"))).err()
    });
    plant(None);
    println!("{mutant:?}: {}", found.as_deref().unwrap_or("not found"));
    assert!(found.is_some(), "{mutant:?} was not found in {seeds_max} seeds");
}

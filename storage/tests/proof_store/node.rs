//! A store on a simulated disk, driven step by step.

use std::path::PathBuf;

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::{Frame, FrameKind, Frames};
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, Offset, PartitionIndex, StoreId, TopicId, TopicPartition,
};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::sim::{DiskHarness, DiskImage, SimDisk};
use highwater_storage::{
    AppendError, Appended, Cursor, DurableForm, MacKey, OpenError, PartitionConfig, PartitionSlot, Payload,
    ReadLimits, ReadOutcome, ReadResult, RecoveryReport, Store, StoreConfig, StoreEvent, StoreLimits,
};

pub(crate) const DATA: &str = "/data";
pub(crate) const DIR: &str = "/data/store-000";
pub(crate) const CLUSTER: ClusterId = ClusterId([0xC1; 16]);

/// Bytes of frames that a rewrite may read in a turn.
const REWRITE_BYTES: usize = 8000;

/// How rounds become durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) form: DurableForm,
    pub(crate) journal: bool,
}

impl From<DurableForm> for Setup {
    fn from(form: DurableForm) -> Self {
        Self { form, journal: false }
    }
}

pub(crate) fn config(setup: impl Into<Setup>) -> StoreConfig {
    let Setup { form, journal } = setup.into();
    StoreConfig {
        dir: PathBuf::from(DIR),
        cluster: CLUSTER,
        store: StoreId(0),
        token_space: 7,
        new_mac_key: MacKey([0xA5; 16]),
        limits: if journal { StoreLimits::tiny_with_journal() } else { StoreLimits::tiny() },
        durable_form: form,
    }
}

pub(crate) fn tp(topic: u8, partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId([topic; 16]), partition: PartitionIndex(partition) }
}

/// The contents of a partition, as read.
#[derive(Default)]
pub(crate) struct ReadLog {
    /// Base offset and bytes of every batch.
    pub(crate) batches: Vec<(i64, Vec<u8>)>,
    /// Where reads found damage, and where they continued.
    pub(crate) damaged: Vec<(i64, i64)>,
}

pub(crate) struct Node {
    pub(crate) disk: DiskHarness,
    pub(crate) store: Store,
    /// Events that have not been examined.
    pub(crate) events: Vec<StoreEvent>,
}

impl Node {
    pub(crate) fn open(
        disk: DiskHarness,
        setup: impl Into<Setup>,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open_with(disk, config(setup))
    }

    pub(crate) fn open_with(
        mut disk: DiskHarness,
        config: StoreConfig,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let (store, report) = Store::open(config, &mut disk)?;
        Ok((Self { disk, store, events: Vec::new() }, report))
    }

    pub(crate) fn open_image(
        image: &DiskImage,
        seed: u64,
        setup: impl Into<Setup>,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open(DiskHarness::on(SimDisk::from_image(image, seed)), setup)
    }

    pub(crate) fn ensure(&mut self, tp: TopicPartition, config: PartitionConfig) -> PartitionSlot {
        self.store.ensure_partition(tp, config)
    }

    pub(crate) fn append(
        &mut self,
        slot: PartitionSlot,
        batch: &[u8],
        bulk: bool,
        epoch: i32,
        wall_ms: i64,
    ) -> Result<Appended, AppendError> {
        let batch_header = *header(batch);
        let payload = if bulk {
            let mut pages = AlignedBuf::zeroed(64 + batch.len());
            pages[64..64 + batch.len()].copy_from_slice(batch);
            Payload::bulk(batch_header, pages)
        } else {
            Payload::small(batch_header, batch)
        };
        self.store.append(&mut self.disk, slot, payload, LeaderEpoch(epoch), wall_ms)
    }

    /// Completes one disk operation. Returns false if none was in flight.
    pub(crate) fn step(&mut self) -> bool {
        let Some((token, completion)) = self.disk.step() else { return false };
        assert_eq!(token.0 >> 56, 7, "the top byte of a token names its owner");
        self.store.on_disk(&mut self.disk, token, completion);
        self.take_events();
        true
    }

    /// Ends a turn. Returns true if there is more to do than fits one turn.
    pub(crate) fn flush(&mut self) -> bool {
        let more = self.store.flush(&mut self.disk);
        let more = self.store.continue_rewrite(&mut self.disk, &mut REWRITE_BYTES.clone()) || more;
        self.take_events();
        more
    }

    pub(crate) fn take_events(&mut self) {
        while let Some(event) = self.store.poll_event() {
            if let StoreEvent::Fatal(why) = &event {
                panic!("the disk did nothing wrong: {why}");
            }
            self.events.push(event);
        }
    }

    /// Runs until nothing is in flight.
    pub(crate) fn settle(&mut self) {
        loop {
            let more = self.flush();
            if !self.step() && !more {
                return;
            }
        }
    }

    /// Reads once, and waits for the disk if necessary.
    pub(crate) fn read(
        &mut self,
        slot: PartitionSlot,
        cursor: Cursor,
        max_bytes: usize,
        up_to: Offset,
    ) -> ReadResult {
        let limits = ReadLimits { bytes_max: max_bytes, memory_bytes_max: usize::MAX };
        match self.store.read(&mut self.disk, slot, cursor, limits, up_to) {
            ReadOutcome::Ready(result) => result,
            ReadOutcome::Pending(id) => loop {
                self.take_events();
                let answer = self
                    .events
                    .iter()
                    .position(|e| matches!(e, StoreEvent::Read { id: of, .. } if *of == id));
                if let Some(at) = answer {
                    let StoreEvent::Read { result, .. } = self.events.remove(at) else {
                        unreachable!("just matched")
                    };
                    return result;
                }
                assert!(self.step(), "a read waits for ever");
            },
        }
    }

    /// Reads everything from the start of a log to its durable end.
    pub(crate) fn read_all(&mut self, slot: PartitionSlot) -> ReadLog {
        let bounds = self.store.bounds(slot);
        let mut log = ReadLog::default();
        let mut cursor = Cursor::at(bounds.log_start);
        while cursor.offset() < bounds.durable_end {
            match self.read(slot, cursor, 40 << 10, bounds.durable_end) {
                ReadResult::Frames(frames) => {
                    assert!(frames.next.offset() > cursor.offset(), "a read gets on");
                    for bytes in &frames.bytes {
                        collect(bytes, &mut log);
                    }
                    cursor = frames.next;
                }
                ReadResult::Damaged { resume_at } => {
                    assert!(
                        resume_at > cursor.offset(),
                        "damage is passed over: {} to {resume_at}",
                        cursor.offset()
                    );
                    log.damaged.push((cursor.offset().0, resume_at.0));
                    cursor = Cursor::at(resume_at);
                }
                // The rest was dropped by a rewrite.
                ReadResult::AtEnd => break,
                other => panic!("offset {} of {bounds:?}: {other:?}", cursor.offset()),
            }
        }
        log
    }
}

impl Node {
    /// Reads from every offset before the durable end. Each read must return records or report which are lost, and make progress, so that every
    /// reader reaches the end, wherever it begins.
    pub(crate) fn read_from_every_offset(&mut self, slot: PartitionSlot) {
        let bounds = self.store.bounds(slot);
        for offset in bounds.log_start.0..bounds.durable_end.0 {
            let next = match self.read(slot, Cursor::at(Offset(offset)), 1, bounds.durable_end) {
                ReadResult::Frames(frames) => frames.next.offset(),
                ReadResult::Damaged { resume_at } => resume_at,
                other => panic!("offset {offset} of {bounds:?}: {other:?}"),
            };
            assert!(
                (offset + 1..=bounds.durable_end.0).contains(&next.0),
                "offset {offset} of {bounds:?} goes on at {next}"
            );
        }
    }
}

/// The batches in whole contiguous frames.
fn collect(bytes: &[u8], log: &mut ReadLog) {
    for frame in Frames::new(bytes) {
        let frame: Frame<'_> = frame.expect("reads give whole frames");
        frame.check().expect("reads give good frames");
        if frame.kind() == FrameKind::Batch {
            log.batches.push((frame.header().base_offset.get(), frame.payload().to_vec()));
        }
    }
}

pub(crate) fn header(batch: &[u8]) -> &BatchHeader {
    BatchHeader::parse(batch).expect("a batch of this test")
}

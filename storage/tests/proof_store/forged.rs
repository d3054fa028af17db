//! Proof 3: forged frames. The value of a record holds the bytes of a whole frame, with valid checksums, an offset of the sender's choice, and
//! each code ([`highwater_storage::mac`]) that a client could have seen. Then each bit of the header of the frame around it is flipped, so that
//! recovery has to search for the next frame. The forged frame must neither be read nor influence recovery.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use highwater_protocol::batch::{BatchBuilder, BatchHeader, BatchProducer, Compression, NewRecord, stamp};
use highwater_protocol::frame::{
    FRAME_HEADER_BYTES, Frame, FrameHeader, FramePlace, Frames, frame_bytes, write_batch_frame,
};
use highwater_protocol::ids::{
    ClusterId, ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset, ProducerId, StoreId, Timestamp,
    TopicPartition,
};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{DiskHarness, DiskImage, SimDisk};
use highwater_storage::inspect::{self, Dumped};
use highwater_storage::layout::{
    EXTENT_HEADER_BYTES, EXTENT_VERSION, EXTENT_VERSION_WITHOUT_MACS, ExtentId, PAGE_BYTES, Place, SlabId,
    slab_name,
};
use highwater_storage::mac::{MacKey, StoreMacs};
use highwater_storage::{
    AppendError, Cursor, DurableForm, FindOutcome, FindResult, PartitionConfig, ProducerCheck, ReadResult,
    SearchMemory, StoreEvent,
};
use zerocopy::FromBytes as _;

use crate::node::{CLUSTER, DATA, DIR, Node, header, tp};

const FORM: DurableForm = DurableForm::Dsync;
const DISGUISED: &[u8] = b"nobody has sent this record";
/// The producer that the forger tries to fence.
const VICTIM: i64 = 77;

fn batch(producer: BatchProducer, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for value in values {
        builder.append(&NewRecord::new(Timestamp(5), None, Some(value))).expect("it is small");
    }
    builder.finish(producer).expect("it is not empty").to_vec()
}

/// Creates a whole frame around records that nobody has sent.
fn disguised(place: FramePlace, offset: i64, records: usize) -> Vec<u8> {
    let producer = BatchProducer { id: ProducerId(VICTIM), epoch: 99, sequence: 0 };
    let batch = batch(producer, &vec![DISGUISED; records]);
    let mut frame = vec![0; frame_bytes(batch.len())];
    frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch.len()].copy_from_slice(&batch);
    stamp(&mut frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch.len()], Offset(offset), LeaderEpoch(1));
    let header = *BatchHeader::parse(&frame[FRAME_HEADER_BYTES..]).expect("a batch");
    write_batch_frame(&mut frame, &header, place);
    Frame::checked(&frame).expect("as right as any");
    frame
}

/// A log in one extent, and the position in the slab of the frame around the forged ones.
struct Attack {
    image: DiskImage,
    around: Range<usize>,
    /// Its offset, and the end of the log.
    offset: i64,
    end: i64,
}

fn append(node: &mut Node, tp: TopicPartition, batch: &[u8]) -> (i64, FrameHeader) {
    let slot = node.ensure(tp, PartitionConfig::KEEP_ALL);
    let appended = loop {
        match node.append(slot, batch, false, 1, 1) {
            // There is no slab yet.
            Err(AppendError::Busy) => node.settle(),
            appended => break appended.expect("there is room"),
        }
    };
    node.settle();
    let (offset, durable_end) = (appended.base_offset, node.store.bounds(slot).durable_end);
    // Frames as stored, which clients can see.
    let ReadResult::Frames(frames) = node.read(slot, Cursor::at(offset), 1, durable_end) else {
        panic!("it is durable")
    };
    let frame = Frames::new(&frames.bytes[0]).next().expect("a frame").expect("a good one");
    (offset.0, *frame.header())
}

/// With `behind`, records are appended after the attack.
fn attack(behind: usize, is_stopped: bool) -> Attack {
    let mut disk = DiskHarness::new(5);
    disk.create_dir_all(DATA.as_ref()).expect("an empty disk");
    let (mut node, _) = Node::open(disk, FORM).expect("an empty store opens");
    let tp = tp(1, 0);
    let victim = BatchProducer { id: ProducerId(VICTIM), epoch: 0, sequence: 0 };
    let (_, first) = append(&mut node, tp, &batch(victim, &[b"of the victim"]));
    let (before, seen) = append(&mut node, tp, &batch(BatchProducer::NONE, &[b"of the forger"]));
    let offset = before + 1;
    // Values of one batch, so that one of them lies where a frame can begin. Each holds frames with every known code.
    let mut values = Vec::new();
    for shift in 0..8 {
        let mut value = vec![0xEE; shift];
        for mac in [first.mac.get(), seen.mac.get()] {
            for (index, at) in [(seen.index.get() + 1, offset), (seen.index.get() + 2, offset + 3)] {
                let place = FramePlace {
                    incarnation: Incarnation(seen.incarnation.get()),
                    index: LogIndex(index),
                    durable_index: LogIndex(index),
                    commit_index: LogIndex(index),
                    partition_tag: seen.partition_tag.get(),
                    mac,
                };
                value.extend(disguised(place, at, 2));
            }
        }
        values.push(value);
    }
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let (at, _) = append(&mut node, tp, &batch(BatchProducer::NONE, &values));
    assert_eq!(at, offset);
    for n in 0..behind {
        append(&mut node, tp, &batch(BatchProducer::NONE, &[&[n as u8; 50]]));
    }
    let slot = node.ensure(tp, PartitionConfig::KEEP_ALL);
    let end = node.store.bounds(slot).durable_end.0;
    if is_stopped {
        node.store.shutdown(&mut node.disk);
        node.take_events();
        node.settle();
        assert!(node.events.iter().any(|event| matches!(event, StoreEvent::Closed)));
    }
    let image = node.disk.disk().image();
    let slab = image.read(&slab()).expect("the slab is there");
    let mut from = EXTENT_HEADER_BYTES;
    loop {
        let (header, _) = FrameHeader::ref_from_prefix(&slab[from..]).expect("the frame is there");
        if header.base_offset.get() == offset {
            let around = from..from + header.frame_bytes();
            return Attack { image, around, offset, end };
        }
        from += header.frame_bytes();
    }
}

fn slab() -> std::path::PathBuf {
    Path::new(DIR).join(slab_name(SlabId(0)))
}

impl Attack {
    /// Opens the store with this bit of the header flipped, and reads everything.
    fn check(&self, bit: usize, behind: usize, is_stopped: bool) {
        let at = format!("bit {bit}, {behind} records behind, stopped: {is_stopped}");
        let mut image = self.image.clone();
        let mut bytes = image.read(&slab()).expect("the slab is there");
        bytes[self.around.start + bit / 8] ^= 1 << (bit % 8);
        image.put(&slab(), &bytes);
        let (mut node, report) = Node::open_image(&image, 3, FORM).unwrap_or_else(|e| panic!("{at}: {e}"));
        let slot = node.ensure(tp(1, 0), PartitionConfig::KEEP_ALL);
        let bounds = node.store.bounds(slot);
        let read = node.read_all(slot);
        for (offset, batch) in &read.batches {
            assert!(
                *offset != self.offset && !(self.offset..self.offset + 8).contains(offset),
                "{at}: a record in disguise is at offset {offset}"
            );
            assert!(header(batch).producer_epoch.get() < 99, "{at}: a record in disguise at offset {offset}");
        }
        // Real records are served, and lost ones are reported.
        let really = read.batches.len() as i64;
        if is_stopped || behind > 0 {
            assert_eq!(really, 2 + behind as i64, "{at}: {read:?} {report:?}", read = read.damaged);
            assert_eq!(bounds.durable_end.0, self.end, "{at}: {report:?}");
            assert_eq!(read.damaged, [(self.offset, self.offset + 8)], "{at}");
        } else {
            // Damage in the last round before a kill looks like an unfinished write.
            assert_eq!(
                (really, bounds.durable_end.0, bounds.faulty),
                (2, self.offset, false),
                "{at}: {report:?}"
            );
        }
        node.read_from_every_offset(slot);
        if let FindOutcome::Ready(FindResult::At(offset, _)) =
            node.store.find_time(&mut node.disk, slot, Timestamp(5), SearchMemory::UNLIMITED, &mut 1_000_000)
        {
            assert_eq!(offset, Offset(0), "{at}");
        }
        let next = BatchProducer { id: ProducerId(VICTIM), epoch: 0, sequence: 1 };
        let check = node.store.check_producer(slot, header(&batch(next, &[b"more of the victim"])));
        assert_eq!(check, ProducerCheck::New, "{at}: the victim is shut out");
    }
}

/// Creates a batch of one large value, each page of which begins with the header of an extent at that position, if positions are given. Returns it
/// with the position in the slab of the frame's first byte.
fn batch_of_headers(frame_at: Option<u64>) -> Vec<u8> {
    const BYTES: usize = 40_000;
    let plain = vec![0xEE; BYTES];
    let first = batch(BatchProducer::NONE, &[&plain]);
    let Some(frame_at) = frame_at else { return first };
    let value_at = frame_at as usize
        + FRAME_HEADER_BYTES
        + first.windows(8).position(|bytes| bytes == [0xEE; 8]).expect("the value is in the batch");
    let mut value = plain;
    let mut page = value_at.next_multiple_of(PAGE_BYTES);
    for n in 0u64.. {
        let within = page - value_at;
        let Some(here) = value.get_mut(within..within + PAGE_BYTES) else { break };
        let key = MacKey([0x11; 16]);
        let id = ExtentId {
            // Of this store, and of another one.
            cluster: if n % 3 == 0 { ClusterId([9; 16]) } else { CLUSTER },
            store: StoreId(0),
            place: Place { slab: SlabId(0), at: page as u64 },
            version: if n % 2 == 0 { EXTENT_VERSION } else { EXTENT_VERSION_WITHOUT_MACS },
            log2_bytes: 12,
            sequence: ExtentSequence(1 << 40),
            generation: 0,
            incarnation: Incarnation(1 << 40),
            tp: tp(200, 0),
            base_index: LogIndex(5),
            base_offset: Offset(5),
            leader_epoch: LeaderEpoch(1),
            has_gaps: false,
            abandoned: false,
            configured: false,
            end: None,
            macs: (n % 2 == 0).then_some(StoreMacs { key, since: Incarnation(1) }),
        };
        here.copy_from_slice(&id.to_block());
        if n % 3 == 1 {
            // Of a newer version.
            here[4..6].copy_from_slice(&(EXTENT_VERSION + 1).to_le_bytes());
            let crc = crc32c::crc32c(&here[4..]);
            here[..4].copy_from_slice(&crc.to_le_bytes());
        }
        page += PAGE_BYTES;
    }
    batch(BatchProducer::NONE, &[&value])
}

/// A store with a large batch in its third extent, and the position in the slab of that batch's frame.
fn with_headers(frame_at: Option<u64>) -> (Node, u64) {
    let mut disk = DiskHarness::new(5);
    disk.create_dir_all(DATA.as_ref()).expect("an empty disk");
    let (mut node, _) = Node::open(disk, FORM).expect("an empty store opens");
    let slot = node.ensure(tp(1, 0), PartitionConfig::KEEP_ALL);
    let small = batch(BatchProducer::NONE, &[&[1; 3000]]);
    let large = batch_of_headers(frame_at);
    for n in 0..12 {
        let (batch, is_bulk) = if n == 11 { (&large, true) } else { (&small, false) };
        while node.append(slot, batch, is_bulk, 1, 1) == Err(AppendError::Busy) {
            node.settle();
        }
        node.settle();
    }
    let mut at_of_last = 0;
    let mut disk = node.disk.disk().clone();
    inspect::dump(&mut disk, DATA.as_ref(), tp(1, 0), Offset(11), &mut |dumped| {
        if let Dumped::Frame { at, frame } = dumped
            && frame.header().base_offset.get() == 11
            && frame.batch().is_some()
        {
            at_of_last = at;
        }
        ControlFlow::Continue(())
    })
    .expect("it is whole");
    (node, at_of_last)
}

#[test]
fn a_record_that_poses_as_the_header_of_an_extent_is_not_believed_when_the_map_is_rebuilt() {
    let (_, frame_at) = with_headers(None);
    assert!(frame_at.is_multiple_of(PAGE_BYTES as u64), "a bulk frame has pages of its own");
    let (mut node, at) = with_headers(Some(frame_at));
    assert_eq!(at, frame_at);
    let slot = node.ensure(tp(1, 0), PartitionConfig::KEEP_ALL);
    let before = node.read_all(slot).batches;
    let mut image = node.disk.disk().image();
    for copy in ["state.a", "state.b"] {
        let path = Path::new(DIR).join(copy);
        let bytes = image.read(&path).expect("it is there").len();
        image.put(&path, &vec![0; bytes]);
    }
    let mut disk = SimDisk::from_image(&image, 3);
    let listing = inspect::list(&mut disk, DATA.as_ref()).expect("readable");
    let listed: Vec<_> = listing.stores[0].partitions.iter().map(|partition| partition.tp).collect();
    assert_eq!(listed, [tp(1, 0)]);
    let (mut node, report) = Node::open_image(&image, 3, FORM).expect("it opens");
    assert!(report.map_rebuilt && report.findings.is_empty(), "{report:?}");
    assert_eq!(node.store.partitions().map(|(tp, _)| tp).collect::<Vec<_>>(), [tp(1, 0)]);
    let slot = node.ensure(tp(1, 0), PartitionConfig::KEEP_ALL);
    let after = node.read_all(slot);
    assert_eq!((after.batches.len(), after.damaged.len()), (12, 0));
    assert!(after.batches == before, "every record is what it was");
}

pub(crate) fn run() {
    for behind in [0, 3] {
        for is_stopped in [true, false] {
            let attack = attack(behind, is_stopped);
            for bit in 0..8 * FRAME_HEADER_BYTES {
                attack.check(bit, behind, is_stopped);
            }
        }
    }
}

#[test]
fn a_record_that_poses_as_a_frame_is_never_read_whichever_bit_of_the_real_header_flips() {
    run();
}

//! The tables in `docs/disk-format.md` match the code.

use std::collections::BTreeMap;
use std::mem::offset_of;

use highwater_protocol::frame::FrameHeader;
use highwater_protocol::ids::{
    ClusterId, ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset, PartitionIndex, StoreId, TopicId,
    TopicPartition,
};
use highwater_storage::journal::format::{EntryHeader, PieceHeader};
use highwater_storage::layout::{EXTENT_VERSION, ExtentEnd, ExtentId, Place, SlabId};
use highwater_storage::mac::{MacKey, StoreMacs};
use highwater_storage::state_log::format::{FileHeader, RecordHeader};

const DOCUMENT: &str = include_str!("../../docs/disk-format.md");

/// Returns the fields of the table under a heading: name, offset, length.
fn table(heading: &str) -> Vec<(String, usize, usize)> {
    let (_, behind) =
        DOCUMENT.split_once(&format!("\n### {heading}\n")).expect("the document has this section");
    let rows =
        behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2)
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let number = |cell: &str| cell.parse::<usize>().expect("a number");
            (cells[3].trim_matches('`').to_owned(), number(cells[1]), number(cells[2]))
        })
        .collect()
}

/// Checks that the rows have no gaps, cover the whole struct, and match the offsets in the code.
fn compare(heading: &str, size: usize, offsets: &[(&str, usize)]) {
    let rows = table(heading);
    let mut end = 0;
    for (name, offset, bytes) in &rows {
        assert_eq!(*offset, end, "{heading}: {name} does not begin where the field before it ends");
        end += bytes;
    }
    assert_eq!(end, size, "{heading}: the size");
    let code: BTreeMap<&str, usize> = offsets.iter().copied().collect();
    let document: BTreeMap<&str, usize> =
        rows.iter().map(|(name, offset, _)| (name.as_str(), *offset)).collect();
    assert_eq!(document, code, "{heading}");
}

macro_rules! offsets {
    ($type:ty: $($field:ident),*) => { &[$((stringify!($field), offset_of!($type, $field))),*] };
}

#[test]
fn the_table_of_the_frame_header_matches_the_code() {
    let offsets = offsets!(FrameHeader: header_crc, magic, version, kind, payload_bytes, payload_crc, incarnation, index,
        mac, base_offset, last_offset_delta, leader_epoch, partition_tag, undurable, uncommitted);
    compare("Frame header", size_of::<FrameHeader>(), offsets);
}

#[test]
fn the_tables_of_the_state_log_match_the_code() {
    let offsets = offsets!(FileHeader: header_crc, magic, version, purpose, cluster, generation, first_seq, file_bytes,
        snapshot_bytes, carried_bytes, carried_count, chunk_bytes, chunk_count, number, snapshot_count, reserved, chunk_crcs);
    compare("State log header", size_of::<FileHeader>(), offsets);
    let offsets = offsets!(RecordHeader: header_crc, magic, generation, first_seq, position, payload_bytes, count,
        payload_crc, purpose, cluster);
    compare("State log record", size_of::<RecordHeader>(), offsets);
}

#[test]
fn the_tables_of_the_journal_match_the_code() {
    let offsets = offsets!(EntryHeader: crc, version, store, magic, cluster, era, sequence, first_needed, durable, mac,
        bytes, pieces);
    compare("Journal entry header", size_of::<EntryHeader>(), offsets);
    let offsets = offsets!(PieceHeader: incarnation, at, slab, position, bytes, crc);
    compare("Journal piece", size_of::<PieceHeader>(), offsets);
}

#[test]
fn the_table_of_the_extent_header_matches_the_bytes_that_are_written() {
    let extent = ExtentId {
        cluster: ClusterId([0xC1; 16]),
        store: StoreId(0x0203),
        place: Place { slab: SlabId(0x0405_0607), at: 0x0800_0000 },
        version: EXTENT_VERSION,
        log2_bytes: 18,
        sequence: ExtentSequence(0x1a2b_3c4d_5e6f_7081),
        generation: 0x0203_0405,
        incarnation: Incarnation(0x1112_1314_1516_1718),
        tp: TopicPartition { topic: TopicId([0x70; 16]), partition: PartitionIndex(0x2122_2324) },
        base_index: LogIndex(0x3132_3334_3536_3738),
        base_offset: Offset(0x4142_4344_4546_4748),
        leader_epoch: LeaderEpoch(0x5152_5354),
        has_gaps: true,
        abandoned: true,
        configured: true,
        end: Some(ExtentEnd {
            position: 0x0001_2340,
            index: LogIndex(0x3132_3334_3536_3740),
            offset: Offset(0x4142_4344_4546_4750),
        }),
        macs: Some(StoreMacs { key: MacKey([0x60; 16]), since: Incarnation(0x0112_1314_1516_1718) }),
    };
    let block = extent.to_block();
    let mut wanted: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    wanted.insert("crc", crc32c::crc32c(&block[4..]).to_le_bytes().to_vec());
    wanted.insert("version", 3u16.to_le_bytes().to_vec());
    wanted.insert("store", extent.store.0.to_le_bytes().to_vec());
    wanted.insert("magic", b"HWEXTENT".to_vec());
    wanted.insert("cluster", extent.cluster.0.to_vec());
    wanted.insert("topic", extent.tp.topic.0.to_vec());
    wanted.insert("partition", extent.tp.partition.0.to_le_bytes().to_vec());
    wanted.insert("slab", extent.place.slab.0.to_le_bytes().to_vec());
    wanted.insert("at", extent.place.at.to_le_bytes().to_vec());
    wanted.insert("incarnation", extent.incarnation.0.to_le_bytes().to_vec());
    wanted.insert("base_index", extent.base_index.0.to_le_bytes().to_vec());
    wanted.insert("base_offset", extent.base_offset.0.to_le_bytes().to_vec());
    wanted.insert("leader_epoch", extent.leader_epoch.0.to_le_bytes().to_vec());
    wanted.insert("log2_bytes", vec![18]);
    wanted.insert("reserved", vec![0; 3]);
    wanted.insert("mac_key", vec![0x60; 16]);
    wanted.insert("macs_since", 0x0112_1314_1516_1718u64.to_le_bytes().to_vec());
    wanted.insert("sequence", extent.sequence.0.to_le_bytes().to_vec());
    wanted.insert("generation", extent.generation.to_le_bytes().to_vec());
    wanted.insert("flags", 7u32.to_le_bytes().to_vec());
    wanted.insert("end_index", 0x3132_3334_3536_3740u64.to_le_bytes().to_vec());
    wanted.insert("end_offset", 0x4142_4344_4546_4750i64.to_le_bytes().to_vec());
    wanted.insert("end_position", 0x0001_2340u32.to_le_bytes().to_vec());
    wanted.insert("reserved_end", vec![0; 4]);
    let rows = table("Extent header");
    assert_eq!(rows.len(), wanted.len());
    let mut end = 0;
    for (name, offset, bytes) in rows {
        assert_eq!(offset, end, "{name}");
        end += bytes;
        assert_eq!(block[offset..end], wanted[name.as_str()], "{name}");
    }
    assert!(block[end..].iter().all(|b| *b == 0));
}

#[test]
fn the_numbers_in_the_document_match_the_code() {
    let limits = highwater_storage::StoreLimits::default();
    assert_eq!((limits.slab_bytes_first, limits.slab_bytes_max), (64 << 20, 1 << 30));
    assert_eq!((limits.extent_bytes_min, limits.extent_bytes_max), (16 << 10, 64 << 20));
    assert_eq!(limits.extent_bytes_doubling, 256 << 10);
    for words in [
        "64 MiB; each next one has twice the size, up to 1 GiB",
        "16 KiB to 64 MiB",
        "has 16 KiB; each next one has four times the size, from 256 KiB on twice",
        "every multiple of 16 KiB",
    ] {
        assert!(DOCUMENT.contains(words), "{words}");
    }
}

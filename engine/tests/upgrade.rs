//! Data directories of earlier builds are served with everything in them, and upgraded once.

mod common;

use std::fs;
use std::io::{Read as _, Seek, SeekFrom, Write as _};
use std::path::Path;

use common::{Client, partition, start, stop};
use flate2::read::GzDecoder;
use highwater_engine::HostKind;
use highwater_runtime::OsFs;
use highwater_storage::inspect;

const PAGE: u64 = 4096;
const CORES: u16 = 2;

/// The directory of a stopped broker of two cores, whose metadata is in format 1.
///
/// Topic `orders` was created with three partitions; its `retention.ms` was changed until a snapshot replaced the changes; then it got a fourth
/// partition with three records, `segment.bytes` was set and `retention.ms` reset. Topic `gone` was deleted and created again, with one partition.
const META_1: &[u8] = include_bytes!("data/meta-1.gz");

/// Writes the files of a packed directory: for each the length of its path, the path, its size, and the number of its pages that are not empty; for
/// each of these its number and its bytes.
fn unpack(packed: &[u8], dir: &Path) {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).expect("it was packed like this");
    let mut rest = &bytes[..];
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count);
        rest = after;
        (taken, after.is_empty())
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    loop {
        let length = number(take(4).0) as usize;
        let path = dir.join(std::str::from_utf8(take(length).0).expect("a path"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let mut file = fs::File::create(path).expect("made");
        file.set_len(number(take(8).0)).expect("sized");
        let (count, mut is_last) = take(4);
        for _ in 0..number(count) {
            file.seek(SeekFrom::Start(number(take(4).0) * PAGE)).expect("in the file");
            let (page, is_end) = take(PAGE as usize);
            file.write_all(page).expect("written");
            is_last = is_end;
        }
        if is_last {
            return;
        }
    }
}

/// Returns the first byte of each payload of the metadata's log: its format.
fn formats(dir: &Path) -> Vec<u8> {
    let content = inspect::state_log_content(&mut OsFs::new(), &dir.join("meta")).expect("it can be read");
    let mut formats: Vec<u8> = content.snapshot.iter().map(|payload| payload[0]).collect();
    formats.extend(content.records.iter().map(|payload| payload[0]));
    formats.dedup();
    formats
}

#[test]
fn metadata_of_an_earlier_format_is_upgraded_once_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    unpack(META_1, dir.path());
    assert_eq!(formats(dir.path()), [1]);
    for round in 0..3 {
        let broker = start(dir.path(), CORES, HostKind::Thread);
        assert_eq!(broker.ready().warnings, Vec::<String>::new());
        let address = broker.native_addr();
        let metadata = Client::connect(address).metadata();
        let has = |name: &str| metadata.topics.iter().find(|topic| topic.name == name).expect("it exists");
        assert_eq!((has("orders").partitions.len(), has("gone").partitions.len()), (4, 1));
        assert_eq!(metadata.topics.len(), 2 + round);
        assert!(
            has("orders").partitions.iter().all(|partition| partition.leader == Some(metadata.nodes[0].node))
        );
        let last = &has("orders").partitions[3];
        let mut client = Client::connect_to(address, Some(last.shard.0));
        let records = client.read_all(partition(has("orders").id, 3), 0);
        let values: Vec<&str> = records.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["a", "b", "c"]);
        let configs = client.describe("orders").configs.into_iter();
        let set: Vec<_> = configs.filter(|(_, _, is_set)| *is_set).collect();
        assert_eq!(set, [("segment.bytes".to_owned(), "1048576".to_owned(), true)]);
        // The change is written to the new files, or to the old ones that these replace.
        client.created(&format!("new-{round}"), 3, &[]);
        stop(broker);
        assert_eq!(formats(dir.path()), [2], "round {round}");
    }
}

//! Every file of a data directory missing, empty, truncated, with a damaged block, extended, or replaced: the broker reports what is lost and how
//! to continue, and serves the rest.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use common::{Client, partition, start, stop, try_start};
use highwater_engine::HostKind;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::{DataPrefix, Start};

const PAGE: usize = 4096;
const RECORDS: usize = 40;
const CORES: u16 = 2;

/// The files of a directory: for each, its size and its non-zero pages.
#[derive(Clone, Default, PartialEq)]
struct Image(BTreeMap<PathBuf, (u64, BTreeMap<usize, Vec<u8>>)>);

impl Image {
    fn of(dir: &Path) -> Self {
        let mut image = Self::default();
        let mut dirs = vec![PathBuf::new()];
        while let Some(at) = dirs.pop() {
            for entry in fs::read_dir(dir.join(&at)).expect("a folder") {
                let entry = entry.expect("an entry");
                let path = at.join(entry.file_name());
                if entry.file_type().expect("a type").is_dir() {
                    dirs.push(path);
                    continue;
                }
                let bytes = fs::read(entry.path()).expect("a file");
                let pages = bytes.chunks(PAGE).enumerate().filter(|(_, page)| page.iter().any(|b| *b != 0));
                let pages = pages.map(|(n, page)| (n, page.to_vec())).collect();
                image.0.insert(path, (bytes.len() as u64, pages));
            }
        }
        image
    }

    fn put(&self, dir: &Path) {
        for (path, (bytes, pages)) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            let mut file = fs::File::create(path).expect("made");
            file.set_len(*bytes).expect("sized");
            for (n, page) in pages {
                file.seek(SeekFrom::Start((n * PAGE) as u64)).expect("in the file");
                file.write_all(page).expect("written");
            }
        }
    }
}

/// Creates the directory of a stopped broker: topic `t` with a partition in each store, and a group's offset.
fn sample(rounds: usize) -> (Vec<Image>, Vec<TopicPartition>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut images = Vec::new();
    let mut partitions = Vec::new();
    for round in 0..rounds {
        let broker = start(dir.path(), CORES, HostKind::Thread);
        if round == 0 {
            let topic = Client::connect(broker.native_addr()).created("t", u32::from(CORES), &[]);
            partitions = (0..u32::from(CORES)).map(|n| partition(topic, n)).collect();
        }
        for to in &partitions {
            let mut client = connect_to_owner(broker.native_addr(), *to);
            for n in 0..RECORDS {
                let record = value(*to, round * RECORDS + n);
                assert_eq!(client.produced(*to, &[&record]), (round * RECORDS + n) as i64);
            }
        }
        stop(broker);
        images.push(Image::of(dir.path()));
    }
    (images, partitions)
}

fn value(of: TopicPartition, n: usize) -> String {
    format!("{}-{n}-{}", of.partition, "x".repeat(500))
}

/// Connects to the shard that owns a partition.
fn connect_to_owner(address: std::net::SocketAddr, of: TopicPartition) -> Client {
    let metadata = Client::connect(address).metadata();
    let topic = metadata.topics.iter().find(|topic| topic.id == of.topic).expect("the topic is there");
    Client::connect_to(address, Some(topic.partitions[of.partition.0 as usize].shard.0))
}

#[derive(Clone, Copy, Debug)]
enum Case {
    Missing,
    Empty,
    Half,
    ShortByOne,
    ZeroBlock(usize),
    Grown,
    Older,
    OtherClusters,
    OtherStores,
}

const CASES: [Case; 10] = [
    Case::Missing,
    Case::Empty,
    Case::Half,
    Case::ShortByOne,
    Case::ZeroBlock(0),
    Case::ZeroBlock(1),
    Case::Grown,
    Case::Older,
    Case::OtherClusters,
    Case::OtherStores,
];

struct Proof {
    now: Image,
    older: Image,
    other: Image,
    partitions: Vec<TopicPartition>,
}

impl Proof {
    /// Returns the changed file; `None` if nothing would change.
    fn apply(&self, paths: &[PathBuf], case: Case) -> Option<Image> {
        let mut image = self.now.clone();
        for path in paths {
            let (bytes, pages) = self.now.0[path].clone();
            let cut = |to: u64| {
                let pages = pages.iter().filter(|(n, _)| ((*n + 1) * PAGE) as u64 <= to);
                Some((to, pages.map(|(n, page)| (*n, page.clone())).collect()))
            };
            let after = match case {
                Case::Missing => None,
                Case::Empty => cut(0),
                Case::Half => cut(bytes / 2),
                Case::ShortByOne => cut(bytes.saturating_sub(1)),
                Case::ZeroBlock(n) => {
                    let mut pages = pages.clone();
                    pages.remove(&n);
                    Some((bytes, pages))
                }
                Case::Grown => Some((bytes + PAGE as u64, pages.clone())),
                Case::Older => Some(self.older.0.get(path)?.clone()),
                Case::OtherClusters => Some(self.other.0.get(path)?.clone()),
                Case::OtherStores => {
                    let name = path.to_str().expect("a name");
                    let other = name.replace("store-000", "store-00x").replace("store-001", "store-000");
                    let other = PathBuf::from(other.replace("store-00x", "store-001"));
                    (other != *path).then_some(())?;
                    Some(self.now.0.get(&other)?.clone())
                }
            };
            match after {
                None => image.0.remove(path),
                Some(after) => image.0.insert(path.clone(), after),
            };
        }
        (image != self.now).then_some(image)
    }

    fn check(&self, paths: &[PathBuf], case: Case) {
        let Some(image) = self.apply(paths, case) else { return };
        let at = format!("{case:?} {paths:?}");
        let dir = tempfile::tempdir().expect("a directory");
        image.put(dir.path());
        match try_start(dir.path(), CORES, HostKind::Thread) {
            Ok(broker) => self.check_open(&at, dir.path(), broker),
            Err(error) => {
                let said = error.to_string();
                assert_eq!(error.exit_code(), 75, "{at}: {said}");
                let ways =
                    ["restore", "put the file", "put each store", "belongs to cluster", "holds another kind"];
                assert!(ways.iter().any(|way| said.contains(way)), "{at}: {said}");
                // After the file was restored, everything is readable again.
                self.now.put(dir.path());
                stop(start(dir.path(), CORES, HostKind::Thread));
            }
        }
    }

    fn check_open(&self, at: &str, dir: &Path, broker: highwater_engine::Broker) {
        let warnings = broker.ready().warnings.clone();
        assert!(warnings.len() <= 25, "{at}: {} warnings", warnings.len());
        for tp in &self.partitions {
            let mut client = connect_to_owner(broker.native_addr(), *tp);
            let (read, damaged) = read(&mut client, *tp);
            for (offset, record) in &read {
                assert_eq!(*record, value(*tp, *offset as usize), "{at}");
            }
            let answer = client.produce(*tp, &["new"]);
            let is_faulty = answer.error == Some(ErrorCode::PartitionFaulty);
            assert!(is_faulty || answer.error.is_none(), "{at}: {:?}", answer.err());
            let lost = 2 * RECORDS - read.len();
            assert!(lost == 0 || damaged || is_faulty, "{at}: {tp} lost {lost} records without a word");
            assert!(!is_faulty || !warnings.is_empty(), "{at}: {tp} is out of service without a word");
        }
        // The topic can be deleted and created again.
        let mut client = Client::connect(broker.native_addr());
        client.delete_topic("t").ok();
        let topic = client.created("t", u32::from(CORES), &[]);
        for n in 0..u32::from(CORES) {
            let to = partition(topic, n);
            assert_eq!(connect_to_owner(broker.native_addr(), to).produced(to, &["anew"]), 0, "{at}");
        }
        stop(broker);
        let broker = start(dir, CORES, HostKind::Thread);
        for n in 0..u32::from(CORES) {
            let to = partition(topic, n);
            assert_eq!(
                connect_to_owner(broker.native_addr(), to).read_all(to, 0),
                [(0, "anew".to_owned())],
                "{at}"
            );
        }
        stop(broker);
    }
}

/// Returns the readable records, and whether an error reported lost ones.
fn read(client: &mut Client, from: TopicPartition) -> (Vec<(i64, String)>, bool) {
    let (mut at, mut records, mut damaged) = (0, Vec::new(), false);
    loop {
        let answer = client.fetch(from, Start::Offset(Offset(at)), 0);
        if answer.error.is_some() {
            damaged = true;
            at += 1;
            if at >= (2 * RECORDS) as i64 {
                return (records, damaged);
            }
            continue;
        }
        let body = answer.ok();
        let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
        records.extend(common::records_of(frames).into_iter().filter(|(offset, _)| *offset >= at));
        at = prefix.next_offset.get();
        if at >= prefix.high_watermark.get() {
            return (records, damaged);
        }
    }
}

#[test]
fn a_broker_with_damaged_files_reports_what_is_lost_and_serves_the_rest() {
    let (mut images, partitions) = sample(2);
    let now = images.pop().expect("two rounds");
    let older = images.pop().expect("two rounds");
    let other = sample(2).0.pop().expect("two rounds");
    let proof = Proof { now, older, other, partitions };
    let files: Vec<PathBuf> = proof.now.0.keys().cloned().collect();
    for path in &files {
        for case in CASES {
            proof.check(std::slice::from_ref(path), case);
        }
    }
    let both = |stem: &str| vec![PathBuf::from(format!("{stem}.a")), PathBuf::from(format!("{stem}.b"))];
    let with_mark = |stem: &str| [both(stem), vec![PathBuf::from(format!("{stem}.mark"))]].concat();
    let folder = |name: &str| files.iter().filter(|path| path.starts_with(name)).cloned().collect::<Vec<_>>();
    for paths in [both("meta"), both("store-000/state"), both("store-001/state")] {
        for case in
            [Case::Missing, Case::Empty, Case::Half, Case::ZeroBlock(0), Case::Older, Case::OtherClusters]
        {
            proof.check(&paths, case);
        }
    }
    for paths in [with_mark("meta"), folder("store-000"), folder("store-001")] {
        proof.check(&paths, Case::Missing);
    }
}

#[test]
fn a_start_continues_without_files_that_the_operator_declared_lost() {
    let (images, partitions) = sample(1);
    for (lost, left) in [("meta", 0), ("store-001", 1)] {
        let dir = tempfile::tempdir().expect("a directory");
        images[0].put(dir.path());
        for suffix in [".a", ".b", ".mark"] {
            let _ = fs::remove_file(dir.path().join(format!("{lost}{suffix}")));
        }
        let _ = fs::remove_dir_all(dir.path().join(lost));
        let refused = try_start(dir.path(), CORES, HostKind::Thread).expect_err("it is missing").to_string();
        let marker = format!("{lost}.forget");
        assert!(refused.contains(&marker) && refused.contains("restore"), "{refused}");
        fs::write(dir.path().join(&marker), "").expect("made");
        let broker = start(dir.path(), CORES, HostKind::Thread);
        assert!(broker.ready().warnings.iter().any(|w| w.contains(&marker)), "{:?}", broker.ready().warnings);
        let served = partitions.iter().filter(|tp| {
            let known =
                Client::connect(broker.native_addr()).metadata().topics.iter().any(|t| t.id == tp.topic);
            known && !read(&mut connect_to_owner(broker.native_addr(), **tp), **tp).0.is_empty()
        });
        assert_eq!(served.count(), left, "{lost}");
        stop(broker);
        stop(start(dir.path(), CORES, HostKind::Thread));
    }
}

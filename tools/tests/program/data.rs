//! Data directories: inspected, damaged, of another cluster, of a newer version, and on a full disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Broker, Place, fails_with, output, produce_until_rejected, program, start_command, start_fails_with,
};

pub(crate) fn log(place: &Place, arguments: &[&str]) -> Command {
    let mut command = program(&[&["log"], arguments].concat());
    command.arg("--data-dir").arg(place.data());
    command
}

fn printed(command: Command) -> String {
    let done = output(command, b"");
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// Creates the data of a stopped broker: topic `t` with two partitions of 1,000 records each; `p-n` is the value of record n of partition p.
pub(crate) fn stopped() -> Place {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--partitions", "2"], b"");
    for partition in ["0", "1"] {
        let lines: Vec<String> = (0..1000).map(|n| format!("{partition}-{n}\n")).collect();
        for part in lines.chunks(250) {
            broker.run(&["produce", "t", "--partition", partition], part.concat().as_bytes());
        }
    }
    broker.stop();
    place
}

#[test]
fn a_stopped_brokers_logs_can_be_listed_dumped_and_verified() {
    let place = stopped();
    let listed = json_lines(&printed(log(&place, &["ls", "--json"])));
    let partitions: Vec<_> =
        listed.iter().map(|line| (line["partition"].as_u64(), line["end"].as_i64())).collect();
    assert_eq!(partitions, [(Some(0), Some(1000)), (Some(1), Some(1000))]);
    assert!(listed.iter().all(|line| line["topic"] == "t"));
    assert!(printed(log(&place, &["ls"])).contains("t      0"));
    assert!(printed(log(&place, &["ls", "--extents"])).contains("0..1000"));

    let dumped = json_lines(&printed(log(&place, &["dump", "t", "--partition", "1", "--json"])));
    let batches: Vec<_> = dumped.iter().filter(|line| line["kind"] == "batch").collect();
    let records: u64 = batches.iter().filter_map(|line| line["batch"]["records"].as_u64()).sum();
    assert_eq!(records, 1000);
    let first = printed(log(&place, &["dump", "t", "--partition", "1", "--from", "600", "--limit", "1"]));
    assert_eq!(first.lines().count(), 1);
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(json_lines(&printed(log(&place, &["dump", &id, "--partition", "1", "--json"]))), dumped);
    let said = fails_with(1, log(&place, &["dump", "nothing"]));
    assert!(said.contains("no topic with the name or id nothing; `highwater log ls`"), "{said}");
    let said = fails_with(1, log(&place, &["dump", &id, "--partition", "9"]));
    assert!(
        said.contains("t/9 has no records; `highwater log ls`"),
        "a topic is named, not numbered: {said}"
    );

    assert!(printed(log(&place, &["verify"])).contains("no damage"));
    assert_eq!(printed(log(&place, &["verify", "--json"])), "");
}

#[test]
fn the_logs_of_a_running_broker_cannot_be_inspected() {
    let place = Place::new();
    let broker = place.start();
    let said = fails_with(73, log(&place, &["verify"]));
    assert!(said.contains("runs on"), "{said}");
    broker.stop();
}

#[test]
fn inspecting_a_directory_that_is_not_a_data_directory_fails() {
    let place = Place::new();
    fails_with(1, log(&place, &["ls"]));
    fs::create_dir(place.data()).expect("a writable temporary directory");
    let said = fails_with(1, log(&place, &["ls"]));
    assert!(said.contains("data directory"), "{said}");
    fs::write(place.path("data/notes.txt"), "not a broker's file").expect("a writable temporary directory");
    for command in [&["ls"][..], &["verify"], &["dump", "t"]] {
        let said = fails_with(1, log(&place, command));
        assert!(said.contains("data directory"), "{said}");
    }
}

/// Flips a bit of the first occurrence of `needle` in the slabs. Returns the slab.
pub(crate) fn flip(place: &Place, needle: &str) -> PathBuf {
    for path in slabs(&place.data()) {
        let mut bytes = fs::read(&path).expect("a slab");
        let found = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("a slab");
            return path;
        }
    }
    panic!("{needle} is not in any slab");
}

pub(crate) fn slabs(data: &Path) -> Vec<PathBuf> {
    let list =
        |dir: &Path| fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let stores: Vec<PathBuf> = list(data).filter(|path| path.is_dir()).collect();
    let files = stores.iter().flat_map(|store| list(store));
    files
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slab-")))
        .collect()
}

#[test]
fn a_flipped_bit_is_reported_and_loses_only_the_records_of_its_batch() {
    let place = stopped();
    let slab = flip(&place, "0-300");
    let verified = output(log(&place, &["verify"]), b"");
    assert_eq!(verified.status.code(), Some(1));
    let said = text(&verified.stdout);
    assert!(
        said.contains("t/0") && said.contains(&*slab.file_name().unwrap_or_default().to_string_lossy()),
        "{said}"
    );
    let findings = json_lines(&text(&output(log(&place, &["verify", "--json"]), b"").stdout));
    assert_eq!(findings.len(), 1);

    let broker = place.start();
    let consumed = output(broker.command(&["consume", "t"]), b"");
    assert_eq!(consumed.status.code(), Some(1), "the exit code reports missing records");
    let (read, said) = (text(&consumed.stdout), text(&consumed.stderr));
    let other: Vec<&str> = read.lines().filter(|line| line.starts_with("1-")).collect();
    assert_eq!(other.len(), 1000, "the other partition is complete");
    assert_eq!(
        read.lines().filter(|line| line.starts_with("0-")).count(),
        750,
        "records before and after the damage are read"
    );
    assert!(
        !read.contains("0-300\n") && said.contains("t/0: the records at offsets 250 to 499 are"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    // A named consumer or group gets the error once; its position is then after the damage.
    let named = || output(broker.command(&["consume", "t", "--consumer", "reader"]), b"");
    let group = || output(broker.command(&["consume", "t", "--group", "billing"]), b"");
    for (consume, kind) in [(&named as &dyn Fn() -> std::process::Output, "consumer"), (&group, "group")] {
        let first = consume();
        let (read, said) = (text(&first.stdout), text(&first.stderr));
        assert_eq!((first.status.code(), read.lines().count()), (Some(1), 1750), "{kind}: {said}");
        assert!(said.contains("offsets 250 to 499 are"), "{kind}: {said}");
        let second = consume();
        let printed = (text(&second.stdout), text(&second.stderr));
        assert_eq!((second.status.code(), printed), (Some(0), (String::new(), String::new())), "{kind}");
    }
    let after = broker.run(&["consume", "t", "--partition", "0", "--from", "500"], b"");
    assert_eq!(text(&after).lines().count(), 500, "records after the damage are read");
    broker.stop();
}

#[test]
fn data_of_another_cluster_is_rejected_and_not_changed() {
    let (place, other) = (stopped(), stopped());
    fs::copy(other.path("data/identity"), place.path("data/identity")).expect("a file of the data directory");
    let said = start_fails_with(75, start_command(&place.data(), &[]));
    assert!(said.contains("cluster"), "{said}");
    assert!(
        printed(log(&place, &["verify"])).contains("2,000")
            || printed(log(&place, &["verify"])).contains("no damage")
    );
}

#[test]
fn data_of_a_newer_version_is_rejected_and_not_changed() {
    let place = stopped();
    let path = place.path("data/identity");
    let before = fs::read(&path).expect("the identity");
    let mut newer = before.clone();
    // The format version, which precedes all fields that a newer version may change.
    newer[12] = 99;
    fs::write(&path, newer).expect("the identity");
    let said = start_fails_with(75, start_command(&place.data(), &[]));
    assert!(said.contains("99") && said.contains("newer"), "{said}");
    fs::write(&path, before).expect("the identity");
    let broker = place.start();
    assert_eq!(text(&broker.run(&["consume", "t"], b"")).lines().count(), 2000);
    broker.stop();
}

#[test]
fn a_directory_with_unrelated_files_is_rejected_as_a_data_directory() {
    let place = Place::new();
    fs::create_dir(place.data()).expect("a writable temporary directory");
    fs::write(place.path("data/thesis.tex"), "chapter one").expect("a writable temporary directory");
    let said = start_fails_with(75, start_command(&place.data(), &[]));
    assert!(said.contains("thesis.tex"), "{said}");
}

/// A small file system on a loop device. Unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns `None` if this process may not mount.
    fn mount(place: &Place, mebibytes: u32) -> Option<Self> {
        let (image, dir) = (place.path("image"), place.path("disk"));
        fs::create_dir(&dir).ok()?;
        let file = fs::File::create(&image).ok()?;
        file.set_len(u64::from(mebibytes) << 20).ok()?;
        let runs = |program: &str, arguments: &[&str], paths: &[&Path]| {
            Command::new(program).args(arguments).args(paths).output().is_ok_and(|done| done.status.success())
        };
        let made = runs("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])
            || runs("/usr/sbin/mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image]);
        (made && runs("mount", &["-o", "loop"], &[&image, &dir])).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_rejects_records_loses_none_and_accepts_more_after_space_is_freed() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, 160) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let data = disk.0.join("data");
    let broker = Broker::start(start_command(&data, &["--cores", "1"]))
        .unwrap_or_else(|ended| panic!("{}", text(&ended.stderr)));
    broker.run(&["topic", "create", "keep"], b"");
    broker.run(&["topic", "create", "fill"], b"");
    broker.run(&["produce", "keep"], b"kept\n");
    let line = vec![b'x'; 1000];
    let lines: Vec<u8> = (0..300_000).flat_map(|_| line.iter().copied().chain([b'\n'])).collect();
    let said = produce_until_rejected(&broker, "fill", &lines);
    assert!(said.contains("the broker rejects records") && said.contains("disk is full"), "{said}");

    assert_eq!(broker.run(&["consume", "keep"], b""), b"kept\n", "reads still work");
    let acknowledged = broker.run(&["consume", "fill"], b"").len();
    assert!(acknowledged > 20_000_000, "{acknowledged} bytes were accepted before the disk was full");
    broker.run(&["topic", "delete", "fill"], b"");
    broker.run(&["produce", "keep", "--timeout", "1m"], b"and more\n");
    assert_eq!(broker.run(&["consume", "keep"], b""), b"kept\nand more\n");
    broker.stop();
}

#[test]
fn a_broker_on_a_full_disk_restarts_serves_reads_and_deletes_topics() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, 60) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let data = disk.0.join("data");
    let start = || {
        Broker::start(start_command(&data, &["--cores", "1"]))
            .unwrap_or_else(|ended| panic!("{}", text(&ended.stderr)))
    };
    let broker = start();
    broker.run(&["topic", "create", "fill"], b"");
    broker.run(&["produce", "fill"], b"kept\n");
    let lines: Vec<u8> = (0..80_000).flat_map(|_| [b'x'; 1000].into_iter().chain([b'\n'])).collect();
    produce_until_rejected(&broker, "fill", &lines);
    // Another file takes the remaining space.
    let mut rest = fs::File::create(disk.0.join("rest")).expect("a new file");
    while std::io::Write::write_all(&mut rest, &[1; 4096]).is_ok() {}
    broker.stop();

    let broker = start();
    assert!(broker.run(&["consume", "fill"], b"").starts_with(b"kept\n"));
    broker.run(&["topic", "delete", "fill"], b"");
    broker.run(&["topic", "create", "new"], b"");
    broker.run(&["produce", "new", "--timeout", "1m"], b"and more\n");
    assert_eq!(broker.run(&["consume", "new"], b""), b"and more\n");
    broker.stop();
}

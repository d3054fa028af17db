//! Free space that goes back to the file system.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Broker, Place, output, program};

const MIB: u64 = 1 << 20;
/// Long enough for the slowest machine.
const PATIENCE: Duration = Duration::from_mins(2);

fn shown(broker: &Broker) -> serde_json::Value {
    serde_json::from_slice(&broker.run(&["space", "show", "--json"], b"")).expect("a JSON object")
}

/// Bytes that the slabs take on the disk.
fn on_disk(place: &Place) -> u64 {
    let store = fs::read_dir(place.path("data/store-000")).expect("a folder");
    let files = store.map(|entry| entry.expect("an entry"));
    let slabs = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("slab-"));
    slabs.map(|entry| entry.metadata().expect("a slab").blocks() * 512).sum()
}

#[test]
fn the_space_of_deleted_records_goes_back_to_the_file_system_when_it_is_asked_for() {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    for topic in ["kept", "deleted"] {
        broker.run(&["topic", "create", topic], b"");
    }
    broker.run(&["produce", "kept"], b"stays\n");
    let line = [&[b'x'; 999][..], b"\n"].concat();
    broker.run(&["produce", "deleted"], &line.repeat(48 << 10));
    broker.run(&["topic", "delete", "deleted"], b"");
    let begun = Instant::now();
    let field = |shown: &serde_json::Value, name: &str| shown[name].as_u64().expect("a number");
    let mut now = shown(&broker);
    while field(&now, "used") > MIB {
        assert!(begun.elapsed() < PATIENCE, "{now}");
        sleep(Duration::from_millis(100));
        now = shown(&broker);
    }
    assert_eq!(field(&now, "returned"), 0, "less than a gigabyte is kept: {now}");
    let before = on_disk(&place);
    let said = String::from_utf8(broker.run(&["space", "release"], b"")).expect("text");
    assert!(said.contains("are free"), "{said}");
    // At most half of the largest slab stays.
    while field(&now, "returned") < field(&now, "size") / 2 - MIB {
        assert!(begun.elapsed() < PATIENCE, "{now}");
        sleep(Duration::from_millis(100));
        now = shown(&broker);
    }
    assert_eq!(field(&now, "on_disk"), field(&now, "size") - field(&now, "returned"));
    let after = on_disk(&place);
    assert!(after + field(&now, "returned") <= before + MIB, "{after} of {before} bytes: {now}");
    // What was returned is used again.
    broker.run(&["topic", "create", "next"], b"");
    broker.run(&["produce", "next"], &line.repeat(48 << 10));
    assert_eq!(broker.run(&["consume", "kept"], b""), b"stays\n");
    broker.stop();
    let mut verify = program(&["log", "verify"]);
    verify.arg("--data-dir").arg(place.data());
    let done = output(verify, b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let broker = place.start_with(&["--cores", "1"]);
    assert_eq!(broker.run(&["consume", "next"], b"").len(), 1000 * (48 << 10));
    assert_eq!(broker.run(&["consume", "kept"], b""), b"stays\n");
    broker.stop();
}

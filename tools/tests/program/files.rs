//! Text sent with `produce` is read with `consume` byte for byte, and in order for each key.
//!
//! `HIGHWATER_LINES=3000000` sets the number of lines (100,000 by default). `HIGHWATER_FILE=path` takes the text from a file instead of this
//! project's sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use highwater_client::{Client, Record, Start};

use crate::support::{Broker, Place, from_environment, output};

/// Returns lines of the form `key|line`. The key names the text that the line is from; lines contain arbitrary bytes.
fn corpus(lines: usize) -> Vec<u8> {
    let texts: Vec<(String, Vec<u8>)> = match std::env::var_os("HIGHWATER_FILE") {
        Some(path) => vec![("file".into(), fs::read(path).expect("HIGHWATER_FILE is a file"))],
        None => sources().into_iter().map(|(name, path)| (name, fs::read(path).expect("a source"))).collect(),
    };
    let mut out = Vec::new();
    let mut made = 0;
    for round in 0.. {
        for (name, text) in &texts {
            for (i, line) in text.split(|b| *b == b'\n').enumerate() {
                if made == lines {
                    return out;
                }
                // A single text gets many keys, so that records go to all partitions.
                let key = if texts.len() == 1 {
                    format!("{name}-{}-{round}", i % 1009)
                } else {
                    format!("{name}-{round}")
                };
                out.extend_from_slice(key.as_bytes());
                out.push(b'|');
                out.extend_from_slice(line);
                out.push(b'\n');
                made += 1;
            }
        }
    }
    out
}

fn sources() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ is in the workspace");
    let mut found = Vec::new();
    for dir in ["protocol/src", "storage/src", "engine/src", "client/src", "tools/src", "docs"] {
        for entry in fs::read_dir(root.join(dir)).expect("a folder of the workspace") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_file() {
                found.push((
                    format!("{dir}/{}", path.file_name().unwrap_or_default().to_string_lossy()),
                    path,
                ));
            }
        }
    }
    found.sort();
    found
}

/// Returns the lines of each key, in order.
fn by_key(text: &[u8]) -> BTreeMap<&[u8], Vec<&[u8]>> {
    let mut keys: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let (key, rest) = split(line);
        keys.entry(key).or_default().push(rest);
    }
    keys
}

/// Splits a line into its key and the rest.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let separator = line.iter().position(|b| *b == b'|').expect("every line has a key");
    (&line[..separator], &line[separator + 1..])
}

fn assert_same(name: &str, sent: &[u8], received: &[u8]) {
    let (sent, received) = (by_key(sent), by_key(received));
    assert_eq!(sent.len(), received.len(), "{name}: number of keys");
    for (key, lines) in &sent {
        assert!(received.get(key) == Some(lines), "{name}: key {} differs", String::from_utf8_lossy(key));
    }
}

fn send(broker: &Broker, topic: &str, text: &[u8], flags: &[&str]) {
    let mut arguments = vec!["produce", topic, "--key-separator", "|"];
    arguments.extend(flags);
    broker.run(&arguments, text);
}

#[test]
fn a_file_of_many_lines_is_read_back_unchanged_and_in_order_per_key() {
    let lines = from_environment("HIGHWATER_LINES", 100_000);
    let text = corpus(lines);
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "text", "--partitions", "8"], b"");
    send(&broker, "text", &text, &[]);
    let received = broker.run(&["consume", "text", "--format", r"%k|%v\n"], b"");
    assert_same("before a restart", &text, &received);
    let counts = broker.run(&["consume", "text", "--format", r"%p\n"], b"");
    let mut partitions: Vec<&[u8]> = counts.split_inclusive(|b| *b == b'\n').collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert_eq!(partitions.len(), 8, "the keys spread over all partitions");

    broker.stop();
    let broker = place.start();
    let received = broker.run(&["consume", "text", "--format", r"%k|%v\n"], b"");
    assert_same("after a restart", &text, &received);
    let limit = (lines / 3).to_string();
    let some = broker.run(&["consume", "text", "--limit", &limit], b"");
    assert_eq!(some.split_inclusive(|b| *b == b'\n').count(), lines / 3);
    broker.stop();
}

#[test]
fn every_compression_codec_preserves_the_bytes() {
    let text = corpus(20_000);
    let place = Place::new();
    let broker = place.start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        broker.run(&["topic", "create", codec, "--partitions", "3"], b"");
        send(&broker, codec, &text, &["--compression", codec]);
        let received = broker.run(&["consume", codec, "--format", r"%k|%v\n"], b"");
        assert_same(codec, &text, &received);
    }
    broker.stop();
}

#[test]
fn lines_of_any_size_and_any_bytes_are_records() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "sizes", "--config", "max.message.bytes=16MiB"], b"");
    let mut text = Vec::new();
    for (i, bytes) in
        [0, 1, 2, 100, 4_000, 4_096, 65_000, 70_000, 1 << 20, 5 << 20, 3].into_iter().enumerate()
    {
        text.extend((0..bytes).map(|j| match (i * 31 + j * 7) % 256 {
            10 => 11,
            byte => byte as u8,
        }));
        text.push(b'\n');
    }
    // The last line has no newline.
    text.extend(b"the end\0\xff\r");
    broker.run(&["produce", "sizes"], &text);
    let mut received = broker.run(&["consume", "sizes"], b"");
    assert_eq!(received.pop(), Some(b'\n'));
    assert!(received == text, "bytes changed on the way");
    broker.stop();
}

#[test]
fn a_record_of_ninety_mebibytes_survives_a_kill_and_a_lowered_limit() {
    let place = Place::new();
    let large = ["--cores", "1", "--memory", "432MiB", "--batch-bytes-max", "100MiB"];
    let broker = place.start_with(&large);
    broker.run(&["topic", "create", "sizes", "--config", "max.message.bytes=104857600"], b"");
    let mut text = vec![b'x'; 90 << 20];
    text.extend(b"\nsmall\n");
    broker.run(&["produce", "sizes"], &text);
    broker.kill();
    let broker = place.start_with(&["--cores", "1", "--memory", "128MiB"]);
    let received = broker.run(&["consume", "sizes"], b"");
    assert!(received == text, "{} bytes came back of {}", received.len(), text.len());
    let rejected = output(broker.command(&["produce", "sizes"]), &text);
    let said = String::from_utf8_lossy(&rejected.stderr);
    assert_eq!(rejected.status.code(), Some(1), "{said}");
    assert!(said.contains("limit of 16777216 bytes") && said.contains("--batch-bytes-max"), "{said}");
    broker.stop();
}

/// Sends all lines with one Rust client, awaits every delivery, and reads with another client.
#[test]
fn a_file_of_many_lines_is_read_back_unchanged_through_the_rust_client() {
    let lines = from_environment("HIGHWATER_LINES", 100_000);
    let text = corpus(lines);
    let place = Place::new();
    let broker = place.start();
    let address = broker.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let received = runtime.block_on(async {
        let client = Client::connect(&address).await.expect("the broker is ready");
        client.create_topic("text").partitions(8).await.expect("a new topic");
        let producer = client.producer("text").await.expect("a producer");
        let mut deliveries = Vec::with_capacity(lines);
        for line in text.split_inclusive(|b| *b == b'\n') {
            let (key, value) = split(line);
            let record = Record::new(value.to_vec()).key(key.to_vec());
            deliveries.push(producer.send(record).await.expect("a record that is allowed"));
        }
        for delivery in deliveries {
            delivery.await.expect("an acknowledgement");
        }
        let reader = Client::connect(&address).await.expect("the broker is there");
        let mut consumer =
            reader.consumer("text").start(Start::Earliest).until_end().await.expect("a consumer");
        let mut received = Vec::with_capacity(text.len());
        while let Some(batch) = consumer.next_batch().await.expect("all can be read") {
            for record in &batch {
                received.extend_from_slice(record.key().expect("every record has a key"));
                received.push(b'|');
                received.extend_from_slice(record.value());
            }
        }
        received
    });
    assert_same("through the client", &text, &received);
    broker.stop();
}

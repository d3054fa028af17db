//! Partitioning of records without a key.

use crate::support::Place;

#[test]
fn records_without_a_key_spread_over_all_partitions() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--partitions", "8"], b"");
    let lines: Vec<String> = (1..=1_000_000).map(|n| n.to_string()).collect();
    broker.run(&["produce", "t"], lines.join("\n").as_bytes());
    let described = broker.run(&["topic", "describe", "t", "--json"], b"");
    let described: serde_json::Value = serde_json::from_slice(&described).expect("JSON");
    let partitions = described["partitions"].as_array().expect("a list");
    let records: Vec<i64> =
        partitions.iter().map(|p| p["high_watermark"].as_i64().expect("a number")).collect();
    assert_eq!(records.iter().sum::<i64>(), 1_000_000);
    // About fifty batches: five to seven for each partition.
    assert!(records.iter().all(|count| (60_000..250_000).contains(count)), "{records:?}");
}

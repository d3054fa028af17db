//! Validates, decompresses and iterates over a record batch, and checks that rebuilding it from its records yields the same
//! records.
#![no_main]

use highwater_protocol::batch::*;
use highwater_protocol::ids::{Offset, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = validate(input);
    // The checksum would reject nearly every mutation, so set a valid checksum and length.
    let mut bytes = input.to_vec();
    if bytes.len() < BATCH_HEADER_BYTES {
        return;
    }
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = BATCH_MAGIC as u8;
    seal(&mut bytes);

    let Ok(batch) = BatchView::parse(&bytes) else { return };
    let valid = validate(&bytes).is_ok();
    let verified = batch.verify_records(&mut Vec::new()).is_ok();
    let checked = check(&bytes, RecordRules::FORMAT);
    check_in_steps(&bytes, checked.as_ref().ok());
    if let Ok(checked) = &checked {
        // Every reader can read a batch that the broker accepts, and its header can be corrected.
        assert!(valid);
        let mut fixed = bytes.clone();
        stamp_create_time(&mut fixed, checked.max_timestamp);
        BatchView::parse(&fixed).unwrap().verify_records(&mut Vec::new()).expect("a valid batch");
    }
    let mut scratch = Vec::new();
    let Ok(records) = batch.records(&mut scratch) else { return };
    let mut builder = BatchBuilder::new(Compression::None, 3);
    let (mut last, mut seen) = (i64::MIN, Vec::new());
    for record in records {
        let Ok(record) = record else {
            assert!(!verified, "verification reads every record");
            break;
        };
        assert!(record.offset.0 >= last);
        last = record.offset.0;
        let headers: Vec<_> = record.headers.clone().collect();
        assert_eq!(headers.len(), record.headers.len());
        let new = NewRecord {
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        if builder.append(&new).is_err() {
            break;
        }
        seen.push((record.timestamp, record.key, record.value, headers));
    }
    if let Some(built) = builder.finish(BatchProducer::NONE) {
        let again = validate(&built[3..]).expect("the builder makes valid batches");
        let mut scratch = Vec::new();
        let mut count = 0;
        for (record, expected) in again.records(&mut scratch).unwrap().zip(&seen) {
            let record = record.unwrap();
            assert_eq!(record.offset, Offset(count));
            assert_eq!((record.timestamp, record.key, record.value), (expected.0, expected.1, expected.2));
            assert!(record.headers.eq(expected.3.iter().copied()));
            count += 1;
        }
        assert_eq!(count as usize, seen.len());
    }
    if valid {
        stamp_log_append_time(&mut bytes, Timestamp(1));
        BatchView::parse(&bytes).unwrap().check_checksum().unwrap();
    }
});

/// Checks that splitting a check into steps does not change its result.
fn check_in_steps(bytes: &[u8], whole: Option<&CheckedBatch>) {
    let Ok(batch) = BatchView::parse(bytes) else { return assert_eq!(whole, None) };
    let mut check = BatchCheck::new(RecordRules::FORMAT, Unpacker::default());
    loop {
        let mut work = 100;
        match check.step(&batch, &mut work) {
            Ok(None) => {}
            Ok(Some(checked)) => return assert_eq!(Some(&checked), whole),
            Err(_) => return assert_eq!(whole, None),
        }
    }
}

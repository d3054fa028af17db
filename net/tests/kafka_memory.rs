//! No Kafka request, however made, takes more memory to read than a small multiple of its own size.
//!
//! One test, so that nothing else allocates beside it.

use std::hint::black_box;

use highwater_net::kafka::api::{APIS, Api};
use highwater_net::kafka::wire::Reader;
use highwater_net::kafka::{Gate, KafkaDecoder, KafkaStep, Request};
use highwater_net::limits::{
    KAFKA_DECODED_BYTES_FREE, KAFKA_DECODED_BYTES_PER_BYTE, KAFKA_PRODUCE_BYTES_MAX,
};
use peak_alloc::PeakAlloc;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn peak_of(run: impl FnOnce()) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    run();
    MEMORY.peak_usage() - before
}

/// How much reading took.
fn check(api: &Api, version: i16, bytes: &[u8]) -> usize {
    let peak = peak_of(|| drop(black_box(Request::decode(api.key, version, &mut Reader::new(bytes)))));
    let bound = KAFKA_DECODED_BYTES_PER_BYTE * bytes.len() + KAFKA_DECODED_BYTES_FREE;
    assert!(
        peak <= bound,
        "{} {version}: {peak} bytes for {} of input, {:?}",
        api.name,
        bytes.len(),
        &bytes[..bytes.len().min(64)]
    );
    peak
}

/// A count in front of very many of the smallest entries, behind some plausible fields.
fn dense(rng: &mut SmallRng, flexible: bool) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..48)];
    // Empty strings and lists in the one form, nothing in the other.
    let filler = u8::from(flexible && rng.random_bool(0.8));
    if rng.random_bool(0.5) {
        bytes.fill(filler);
    }
    let entries: u32 = 1 << rng.random_range(4..18);
    if flexible {
        let mut left = entries;
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
    } else {
        bytes.extend(entries.to_be_bytes());
    }
    let len = bytes.len() + rng.random_range(0..300_000);
    bytes.resize(len, filler);
    bytes
}

#[test]
fn reading_takes_a_small_multiple_of_what_is_read() {
    let mut rng = SmallRng::seed_from_u64(23);
    let mut largest = 0;
    for api in APIS {
        for version in api.accepted_min..=api.max {
            for _ in 0..150 {
                let bytes = dense(&mut rng, api.request_header_is_flexible(version));
                largest = largest.max(check(api, version, &bytes));
            }
            for _ in 0..100 {
                let mut bytes = vec![0; rng.random_range(0..600)];
                rng.fill_bytes(&mut bytes);
                bytes.iter_mut().take(rng.random_range(0..40)).for_each(|byte| *byte &= 3);
                check(api, version, &bytes);
            }
        }
    }
    assert!(largest > 1 << 20, "some lists are long: {largest} bytes");

    // What claims to be the largest request takes nothing before it is let in, and then what came of it.
    let mut front = (KAFKA_PRODUCE_BYTES_MAX as u32).to_be_bytes().to_vec();
    front.extend([0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 2]);
    let mut decoder = KafkaDecoder::new(Gate::Declared);
    let peak = peak_of(|| {
        let mut data = &front[..];
        assert!(matches!(decoder.next(&mut data), Ok(KafkaStep::WantsRoom(KAFKA_PRODUCE_BYTES_MAX))));
        decoder.admit();
        assert!(matches!(decoder.next(&mut data), Ok(KafkaStep::More)));
        assert!(data.is_empty());
    });
    assert!(peak <= 1024, "{peak} bytes");
}

//! A Kafka connection: whatever the pieces in which bytes arrive, the same requests or the same refusal.
#![no_main]

use highwater_net::Batch;
use highwater_net::kafka::api::APIS;
use highwater_net::kafka::produce::Records;
use highwater_net::kafka::{Gate, KafkaDecoder, KafkaStep, Request};
use libfuzzer_sys::fuzz_target;

fn shown(request: &Request<'_>) -> String {
    let Request::Produce(produce) = request else { return format!("{request:?}") };
    let records = produce.partitions.iter().map(|to| match &to.records {
        Records::Null => format!("{} {} nothing", to.topic, to.index),
        Records::Batch(Batch::TooLarge { bytes }) => {
            format!("{} {} too large: {bytes}", to.topic, to.index)
        }
        Records::Batch(Batch::Small(bytes)) => {
            let sum =
                bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("{} {} {} bytes {sum}", to.topic, to.index, bytes.len())
        }
        Records::Batch(Batch::Bulk { batch_bytes, .. }) => {
            format!("{} {} bulk {batch_bytes}", to.topic, to.index)
        }
    });
    records.collect::<Vec<_>>().join(", ")
}

/// What comes out of `bytes` in pieces of `piece`; if `lends`, large batches go straight into their pages.
fn decode(bytes: &[u8], piece: usize, lends: bool) -> Vec<String> {
    let mut decoder = KafkaDecoder::new(Gate::Declared);
    let mut told = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let lent = if lends { decoder.lend_bulk() } else { None };
        let mut given = if let Some(mut lent) = lent {
            let take = lent.end - lent.filled;
            let Some((now, left)) = rest.split_at_checked(take) else { return told };
            lent.pages[lent.filled..lent.end].copy_from_slice(now);
            rest = left;
            decoder.return_bulk(lent.pages);
            &[][..]
        } else {
            let (given, left) = rest.split_at(piece.min(rest.len()));
            rest = left;
            given
        };
        loop {
            match decoder.next(&mut given) {
                Ok(KafkaStep::More) => break,
                Ok(KafkaStep::WantsRoom(_)) => decoder.admit(),
                Ok(KafkaStep::WantsTurn) => decoder.grant_turn(),
                Ok(KafkaStep::Request(received)) => {
                    told.push(format!("{:?} {}", received.header, shown(&received.request)));
                }
                Err(refusal) => {
                    told.push(format!("{refusal:?}"));
                    return told;
                }
            }
        }
        assert!(given.is_empty());
    }
    told
}

/// Longer than a batch that is copied with its request.
const LARGE: usize = 66_000;

/// The input as requests: how long each is, which and of what version, and its bytes. Otherwise hardly any would have a length.
fn requests(mut input: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [flags, key, version, len, body @ ..] = input {
        let (body, rest) = body.split_at(usize::from(*len).min(body.len()));
        input = rest;
        // One may be long enough for a large batch; what it lacks is made up.
        let may_be_large = stream.len() < LARGE;
        let more = if may_be_large && flags & 31 == 31 { LARGE + usize::from(*flags) * 16 } else { 0 };
        let lie = u32::from(flags & 0x60 == 0x60);
        let api = APIS[usize::from(*key) % APIS.len()];
        stream.extend((8 + body.len() as u32 + more as u32 + lie).to_be_bytes());
        stream.extend((api.key as i16).to_be_bytes());
        stream.extend(i16::from(*version % 16).to_be_bytes());
        stream.extend(7_i32.to_be_bytes());
        stream.extend(body);
        stream.resize(stream.len() + more, *len);
    }
    stream
}

fuzz_target!(|input: &[u8]| {
    let [piece, input @ ..] = input else { return };
    let stream = requests(input);
    let whole = decode(&stream, usize::MAX, false);
    // Hundreds of pieces say as much as a hundred thousand.
    let piece = (usize::from(*piece) + 1) * (1 + stream.len() / 512);
    assert_eq!(decode(&stream, piece, false), whole);
    let lent = decode(&stream, piece * 64, true);
    // Pages that were lent and did not become full end it early.
    assert_eq!(lent, whole[..lent.len()]);
});

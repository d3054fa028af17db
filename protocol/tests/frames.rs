//! Frames round-trip through their bytes, and every flipped bit is detected.

use highwater_protocol::batch::{BatchBuilder, BatchHeader, BatchProducer, Compression, NewRecord, stamp};
use highwater_protocol::frame::*;
use highwater_protocol::ids::{Incarnation, LeaderEpoch, LogIndex, Offset, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::FromBytes;

fn place(index: u64) -> FramePlace {
    FramePlace {
        incarnation: Incarnation(0x0102_0304_0506),
        index: LogIndex(index),
        durable_index: LogIndex(index / 2),
        commit_index: LogIndex(index / 3),
        partition_tag: 0xfeed_f00d,
        mac: 0x0bad_cafe_0bad_cafe,
    }
}

fn batch_frame(index: u64, base_offset: i64, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, FRAME_HEADER_BYTES);
    for value in values {
        builder.append(&NewRecord::new(Timestamp(7), None, Some(value))).unwrap();
    }
    let mut frame = builder.finish(BatchProducer::NONE).unwrap();
    stamp(&mut frame[FRAME_HEADER_BYTES..], Offset(base_offset), LeaderEpoch(3));
    let bytes = frame_bytes(frame.len() - FRAME_HEADER_BYTES);
    frame.resize(bytes, 0xee);
    let header = *BatchHeader::parse(&frame[FRAME_HEADER_BYTES..]).unwrap();
    write_batch_frame(&mut frame, &header, place(index));
    frame.to_vec()
}

fn padding(index: u64, base_offset: i64, bytes: usize) -> Vec<u8> {
    let mut gap = vec![0xee; bytes];
    write_padding(&mut gap, place(index), Offset(base_offset), LeaderEpoch(3));
    gap
}

fn epoch_start(index: u64, base_offset: i64) -> Vec<u8> {
    let mut frame = [0xee; FRAME_HEADER_BYTES];
    write_epoch_start(&mut frame, place(index), Offset(base_offset), LeaderEpoch(3));
    frame.to_vec()
}

fn configuration(index: u64, base_offset: i64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; frame_bytes(payload.len())];
    frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    write_configuration(&mut frame, payload.len(), place(index), Offset(base_offset), LeaderEpoch(3));
    frame
}

#[derive(Clone, Debug)]
enum Piece {
    Batch(Vec<Vec<u8>>),
    Padding(usize),
    EpochStart,
    Configuration(Vec<u8>),
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        vec(vec(any::<u8>(), 0..40), 1..4).prop_map(Piece::Batch),
        (0..100_usize).prop_map(|n| Piece::Padding(FRAME_HEADER_BYTES + n * FRAME_ALIGN)),
        Just(Piece::EpochStart),
        vec(any::<u8>(), 0..40).prop_map(Piece::Configuration),
    ]
}

proptest! {
    #[test]
    fn a_log_of_frames_round_trips(pieces in vec(piece(), 0..10)) {
        let mut log = Vec::new();
        let (mut index, mut offset) = (5, 100);
        for piece in &pieces {
            match piece {
                Piece::Batch(values) => {
                    log.extend(batch_frame(index, offset, values));
                    (index, offset) = (index + 1, offset + values.len() as i64);
                }
                Piece::Padding(bytes) => log.extend(padding(index, offset, *bytes)),
                Piece::EpochStart => {
                    log.extend(epoch_start(index, offset));
                    index += 1;
                }
                Piece::Configuration(payload) => {
                    log.extend(configuration(index, offset, payload));
                    index += 1;
                }
            }
        }
        let (mut index, mut offset) = (5, 100);
        let mut frames = Frames::new(&log);
        for piece in &pieces {
            let frame = frames.next().unwrap().unwrap();
            frame.check().unwrap();
            prop_assert_eq!(frame.header().index.get(), index);
            prop_assert_eq!(frame.header().base_offset.get(), offset);
            prop_assert_eq!(frame.header().leader_epoch.get(), 3);
            match piece {
                Piece::Batch(values) => {
                    let mut scratch = Vec::new();
                    let batch = frame.batch().unwrap();
                    let read: Vec<_> =
                        batch.records(&mut scratch).unwrap().map(|r| r.unwrap().value.unwrap().to_vec()).collect();
                    prop_assert_eq!(&read, values);
                    (index, offset) = (index + 1, offset + values.len() as i64);
                }
                Piece::Padding(bytes) => {
                    prop_assert_eq!(frame.kind(), FrameKind::Padding);
                    prop_assert_eq!(frame.payload().len() + FRAME_HEADER_BYTES, *bytes);
                    prop_assert!(frame.batch().is_none());
                }
                Piece::EpochStart => {
                    prop_assert_eq!(frame.kind(), FrameKind::EpochStart);
                    index += 1;
                }
                Piece::Configuration(payload) => {
                    prop_assert_eq!(frame.kind(), FrameKind::Configuration);
                    prop_assert_eq!(frame.payload(), &payload[..]);
                    prop_assert!(frame.batch().is_none());
                    index += 1;
                }
            }
            prop_assert_eq!(frame.header().next_offset(), offset);
        }
        prop_assert!(frames.next().is_none());
        prop_assert_eq!(frames.position(), log.len());
    }

    #[test]
    fn random_bytes_are_walked_without_a_panic(mut bytes in vec(any::<u8>(), 0..300), payload_bytes: u32, kind in 0..6_u8) {
        for frame in Frames::new(&bytes) {
            let _ = frame.map(|frame| frame.check());
        }
        // The same bytes after a valid header.
        if let Ok((header, _)) = FrameHeader::mut_from_prefix(&mut bytes) {
            header.magic.set(FRAME_MAGIC);
            header.version = FRAME_VERSION;
            let most = u16::try_from(header.index.get()).unwrap_or(2047).min(2047);
            header.undurable.set(header.undurable.get().min(most));
            header.uncommitted.set(header.uncommitted.get().min(most));
            header.kind = kind;
            header.payload_bytes.set(if payload_bytes % 2 == 0 { payload_bytes } else { payload_bytes % 256 });
            *header = header.sealed();
            let _ = header.next_offset();
            let mut frames = Frames::new(&bytes);
            if let Some(Ok(frame)) = frames.next() {
                prop_assert!(frame.check().is_err() || frame.kind() != FrameKind::Batch);
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_every_kind_of_frame_is_detected() {
    let frames = [
        batch_frame(9, 40, &[b"a".to_vec(), b"bc".to_vec()]),
        batch_frame(9, 40, &[vec![0; 100]]),
        padding(9, 40, 136),
        epoch_start(9, 40),
        configuration(9, 40, b"members"),
    ];
    for frame in frames {
        Frame::checked(&frame).unwrap();
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::checked(&flipped).is_err(), "bit {bit} of {frame:?}");
        }
        for cut in 0..frame.len() {
            assert!(matches!(Frame::parse(&frame[..cut]), Err(FrameError::Truncated { .. })), "cut at {cut}");
        }
    }
}

/// Checks the frame after changing its header and updating the checksum.
fn resealed(frame: &[u8], change: impl FnOnce(&mut FrameHeader)) -> Result<(), FrameError> {
    let mut frame = frame.to_vec();
    let (header, _) = FrameHeader::mut_from_prefix(&mut frame).unwrap();
    change(header);
    *header = header.sealed();
    Frame::checked(&frame).map(drop)
}

#[test]
fn each_reason_to_reject_a_frame_has_its_own_error() {
    let good = batch_frame(9, 40, &[b"value".to_vec()]);
    assert_eq!(Frame::checked(&[0; 100]).unwrap_err(), FrameError::Zero);
    assert_eq!(Frame::checked(&[1; 100]).unwrap_err(), FrameError::Magic(0x0101));
    assert_eq!(resealed(&good, |_| ()), Ok(()));
    for unknown in [0, 4] {
        assert_eq!(resealed(&good, |h| h.version = unknown), Err(FrameError::Version(unknown)));
    }
    assert_eq!(resealed(&good, |h| h.kind = 9), Err(FrameError::Kind(9)));
    // `undurable` may be as large as the index, but not larger.
    assert_eq!(resealed(&good, |h| h.undurable.set(9)), Ok(()));
    assert_eq!(resealed(&good, |h| h.undurable.set(10)), Err(FrameError::Flags));
    assert_eq!(resealed(&good, |h| h.uncommitted.set(9)), Ok(()));
    assert_eq!(resealed(&good, |h| h.uncommitted.set(10)), Err(FrameError::Flags));
    assert_eq!(resealed(&good, |h| h.version = FRAME_VERSION_WITHOUT_COMMIT), Err(FrameError::Flags));
    assert_eq!(resealed(&good, |h| h.version = FRAME_VERSION_WITHOUT_MAC), Err(FrameError::Flags));
    assert!(matches!(
        resealed(&good, |h| h.payload_bytes.set(u32::MAX)),
        Err(FrameError::Truncated { need: 4_294_967_360, .. })
    ));
    assert_eq!(resealed(&good, |h| h.payload_crc.set(1)), Err(FrameError::PayloadChecksum));
    assert_eq!(resealed(&good, |h| h.base_offset.set(41)), Err(FrameError::Differs("base offset")));
    assert_eq!(resealed(&good, |h| h.leader_epoch.set(4)), Err(FrameError::Differs("leader epoch")));
    assert_eq!(
        resealed(&good, |h| h.last_offset_delta.set(1)),
        Err(FrameError::Differs("last offset delta"))
    );
    let shorter = |h: &mut FrameHeader| h.payload_bytes.set(h.payload_bytes.get() - 1);
    assert_eq!(resealed(&good, shorter), Err(FrameError::Differs("length or magic")));
    let mut bad_alignment = good.clone();
    *bad_alignment.last_mut().expect("this frame ends in alignment") = 1;
    assert_eq!(Frame::checked(&bad_alignment).unwrap_err(), FrameError::NotZero);

    let mut bad_padding = padding(9, 40, 80);
    bad_padding[70] = 1;
    assert_eq!(Frame::checked(&bad_padding).unwrap_err(), FrameError::NotZero);
    let padding = padding(9, 40, 80);
    assert_eq!(resealed(&padding, |h| h.payload_crc.set(1)), Err(FrameError::PayloadChecksum));
}

#[test]
fn a_frame_of_any_version_states_the_durable_and_the_commit_index() {
    let frame = batch_frame(9, 40, &[b"value".to_vec()]);
    let (header, _) = FrameHeader::parse(&frame).unwrap();
    assert_eq!((header.version, header.mac.get()), (3, 0x0bad_cafe_0bad_cafe));
    assert_eq!((header.durable_index(), header.commit_index()), (4, 3));
    let (low, high) = (0x5678.into(), 0x1234.into());
    let index = 0x1_0000_0000.into();
    let old = FrameHeader {
        version: FRAME_VERSION_WITHOUT_COMMIT,
        index,
        undurable: low,
        uncommitted: high,
        ..*header
    };
    assert_eq!((old.durable_index(), old.commit_index()), (0xedcb_a988, 0xedcb_a988));
    let (version, none) = (FRAME_VERSION_WITHOUT_MAC, 0.into());
    let old = FrameHeader { version, undurable: none, uncommitted: none, mac: 3.into(), ..*header };
    assert_eq!((old.durable_index(), old.commit_index()), (3, 3));
    // If the difference cannot be encoded exactly, the frame claims a lower index.
    let mut frame = [0; FRAME_HEADER_BYTES];
    let place = FramePlace { index: LogIndex(u64::MAX - 1), durable_index: LogIndex(1), ..place(1) };
    write_epoch_start(&mut frame, place, Offset(0), LeaderEpoch(0));
    let (header, _) = FrameHeader::parse(&frame).unwrap();
    assert_eq!(header.durable_index(), 0);
}

#[test]
fn a_walk_stops_at_the_first_bad_frame_and_reports_its_position() {
    let mut log = batch_frame(1, 0, &[b"x".to_vec()]);
    let first = log.len();
    log.extend(batch_frame(2, 1, &[b"y".to_vec()]));
    log[first + 20] ^= 1;
    let mut frames = Frames::new(&log);
    assert!(frames.next().unwrap().is_ok());
    assert_eq!(frames.next().unwrap().unwrap_err(), FrameError::HeaderChecksum);
    assert!(frames.next().is_none());
    assert_eq!(frames.position(), first);
}

#[test]
#[should_panic(expected = "the frame ends after its alignment")]
fn framing_a_batch_of_another_length_is_a_bug() {
    let mut frame = batch_frame(1, 5, &[b"value".to_vec()]);
    let header = *BatchHeader::parse(&frame[FRAME_HEADER_BYTES..]).unwrap();
    frame.extend_from_slice(&[0; 64]);
    write_batch_frame(&mut frame, &header, place(1));
}

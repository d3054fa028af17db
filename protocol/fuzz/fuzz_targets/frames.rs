//! Consecutive frames, with valid header checksums so that the fuzzer gets past the first check.
#![no_main]

use highwater_protocol::frame::*;
use libfuzzer_sys::fuzz_target;

fn walk(bytes: &[u8]) -> (usize, bool) {
    let mut frames = Frames::new(bytes);
    let mut position = 0;
    while let Some(frame) = frames.next() {
        let Ok(frame) = frame else {
            assert!(frames.next().is_none());
            return (frames.position(), true);
        };
        let _ = frame.header().next_offset();
        if frame.check().is_ok() && frame.kind() == FrameKind::Batch {
            let batch = frame.batch().expect("a checked frame of this kind has a batch");
            batch.check_checksum().expect("the frame's check covers the batch's checksum");
            if let Ok(records) = batch.records(&mut Vec::new()) {
                let _ = records.count();
            }
        }
        position += frame.header().frame_bytes();
        assert_eq!(position, frames.position());
        assert!(position <= bytes.len() && position.is_multiple_of(FRAME_ALIGN));
    }
    assert_eq!(position, bytes.len());
    (position, false)
}

fuzz_target!(|input: &[u8]| {
    walk(input);
    let mut bytes = input.to_vec();
    for _ in 0..8 {
        let (position, failed) = walk(&bytes);
        let Some(header) = bytes.get_mut(position..position + FRAME_HEADER_BYTES).filter(|_| failed) else {
            return;
        };
        header[4..6].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        header[6] = FRAME_VERSION;
        header[7] = header[7] % 3 + 1;
        header[10..12].fill(0);
        header[60..64].fill(0);
        // For a batch, copy its checksum into the header, so that some inputs are valid frames throughout.
        let payload = bytes.get(position + FRAME_HEADER_BYTES..).unwrap_or_default();
        let crc = crc_of(payload);
        let header = &mut bytes[position..position + FRAME_HEADER_BYTES];
        if let Some(crc) = crc {
            header[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        let parsed = <FrameHeader as zerocopy::FromBytes>::read_from_bytes(header).unwrap().sealed();
        header.copy_from_slice(zerocopy::IntoBytes::as_bytes(&parsed));
    }
});

fn crc_of(batch: &[u8]) -> Option<u32> {
    highwater_protocol::batch::BatchHeader::parse(batch).ok().map(|header| header.crc.get())
}

//! Helpers for tests of messages.

use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Checks that a message round-trips, and that it cannot be decoded if truncated or followed by other bytes.
pub(crate) fn check<B: Body + PartialEq + std::fmt::Debug>(body: &B) -> Result<(), TestCaseError> {
    let bytes = message(77, body);
    let header = WireHeader::parse(&bytes).unwrap();
    prop_assert_eq!(header.kind(), Some(B::KIND));
    prop_assert_eq!(header.error(), None);
    prop_assert_eq!(header.request_id.get(), 77);
    let encoded = &bytes[WIRE_HEADER_BYTES..];
    prop_assert_eq!(header.body_bytes.get() as usize, encoded.len());
    prop_assert_eq!(&B::decode(encoded).unwrap(), body);
    for cut in 0..encoded.len() {
        prop_assert!(B::decode(&encoded[..cut]).is_err(), "cut at {} of {}", cut, encoded.len());
    }
    let longer = [encoded, &[0]].concat();
    if std::any::type_name::<B>() == std::any::type_name::<Hello>() {
        prop_assert_eq!(&B::decode(&longer).unwrap(), body, "a newer client may send more");
    } else {
        prop_assert_eq!(B::decode(&longer), Err(DecodeError::Trailing { bytes: 1 }));
    }
    Ok(())
}

pub(crate) fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max / 4).prop_map(|chars| chars.into_iter().collect())
}

prop_compose! {
    pub(crate) fn position()(partition: u32, offset in 0..i64::MAX, leader_epoch: i32, metadata in text(64)) -> CommittedOffset {
        CommittedOffset { partition: PartitionIndex(partition), offset: Offset(offset), leader_epoch, metadata }
    }
}

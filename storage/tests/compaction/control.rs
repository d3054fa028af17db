//! Batches of transactions and their markers.

use highwater_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchView, seal};
use highwater_protocol::ids::Offset;
use highwater_storage::compaction::{Cleaner, Kept, KeyIndex};
use zerocopy::FromBytes;

use crate::{KEY, log_of, records};

#[test]
fn control_batches_are_kept_and_open_transactions_keep_tombstones() {
    let mut log =
        log_of(&[records(&[("a", Some("1"))]), records(&[("a", Some("2"))]), records(&[("a", None)])]);
    let set = |batch: &mut Vec<u8>, bits| {
        let head = BatchHeader::mut_from_prefix(&mut batch[..BATCH_HEADER_BYTES]).unwrap().0;
        head.attributes.set(bits);
        seal(batch);
    };
    set(&mut log.batches[0], 0b11_0000);
    set(&mut log.batches[1], 0b01_0000);
    let expired = 0b100_0000;
    set(&mut log.batches[2], expired);
    log.now = i64::MAX;
    let mut cleaner = Cleaner::new(log.rules());
    let mut index = KeyIndex::new(KEY, Offset(0), 10, 1 << 20);
    for batch in &log.batches {
        cleaner.note(BatchView::parse(batch).unwrap(), &mut index).unwrap();
    }
    assert_eq!(index.keys(), 1);
    for batch in &log.batches {
        let kept = cleaner.retain(BatchView::parse(batch).unwrap(), &index, false, &mut Vec::new());
        assert_eq!(kept, Kept::Unchanged);
    }
}

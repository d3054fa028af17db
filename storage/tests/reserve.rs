//! The reserve of a partition: it can append on a full disk when others cannot.

mod support;

use highwater_protocol::ids::Offset;
use highwater_storage::{AppendError, PartitionSlot, StoreLimits};
use support::{Bed, filled};

/// Appends batches of this size until there is no space. Returns how many were appended.
fn fill_up(bed: &mut Bed, slot: PartitionSlot, bytes: usize) -> usize {
    for taken in 0..10_000 {
        let mut appended = bed.try_append(slot, &filled(taken as u8, bytes));
        for _ in 0..100 {
            if appended != Err(AppendError::Busy) {
                break;
            }
            bed.settle();
            appended = bed.try_append(slot, &filled(taken as u8, bytes));
        }
        match appended {
            Ok(_) => bed.settle(),
            Err(AppendError::StorageFull) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk is never full");
}

/// Limits the disk to what is used now and this many bytes.
fn leave_free(bed: &mut Bed, bytes: u64) {
    let used: u64 = bed.disk.disk().image().files().map(|(_, bytes)| bytes).sum();
    bed.disk.disk().set_capacity(Some(used + bytes));
}

#[test]
fn a_partition_with_a_reserve_appends_on_a_full_disk_and_space_that_is_freed_makes_up_for_it_first() {
    let mut bed = Bed::new(1);
    leave_free(&mut bed, 2 << 20);
    let (reserved, other) = (bed.slot(0), bed.slot(1));
    bed.store.keep_reserve_for(reserved);
    let taken = fill_up(&mut bed, other, 10_000);
    let first = fill_up(&mut bed, reserved, 1000);
    let extent_bytes = StoreLimits::tiny().extent_bytes_min as usize;
    assert!(first * 1000 > extent_bytes, "{first} batches fitted into the reserve");
    assert_eq!(bed.values(reserved).len(), first);

    // All that is freed goes to the reserve, as long as it is not whole.
    bed.store.set_log_start(&mut bed.disk, other, Offset(2)).expect("it is in the log");
    bed.settle();
    assert_eq!(bed.try_append(other, &filled(0, 10_000)), Err(AppendError::StorageFull));
    let second = fill_up(&mut bed, reserved, 1000);
    assert!(second * 1000 > extent_bytes / 2, "{second} batches fitted into the space that was freed");

    let half = Offset(taken as i64 / 2);
    bed.store.set_log_start(&mut bed.disk, other, half).expect("it is in the log");
    bed.settle();
    assert!(fill_up(&mut bed, other, 10_000) > 0, "the rest is for everybody");
    assert_eq!(bed.values(reserved).len(), first + second);
}

#[test]
fn the_space_of_a_reserve_is_free_again_after_a_start() {
    let mut bed = Bed::new(2);
    let slot = bed.slot(0);
    bed.store.keep_reserve_for(slot);
    bed.append_durably(slot, &filled(1, 1000));
    let before = bed.store.stats();
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    assert!(bed.store.stats().free_bytes > before.free_bytes);
    bed.store.keep_reserve_for(slot);
    bed.append_durably(slot, &filled(2, 1000));
    assert_eq!(bed.values(slot).len(), 2);
}

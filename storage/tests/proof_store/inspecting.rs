//! The output of `inspect` for stores with a known state.

use std::path::Path;

use highwater_protocol::ids::Offset;
use highwater_runtime::fs::{Fs as _, OpenMode};
use highwater_runtime::sim::{Damage, DiskHarness, SimDisk};
use highwater_storage::inspect::{self, ExtentState, FindingKind, Holds, MapSource};
use highwater_storage::{DurableForm, PartitionConfig};

use crate::node::{DATA, DIR, Node, tp};
use crate::workload::Workload;

/// Two partitions; the first one has filled some extents.
fn work() -> Workload {
    let mut disk = DiskHarness::new(1);
    disk.create_dir_all(DATA.as_ref()).expect("an empty disk");
    let (node, _) = Node::open(disk, DurableForm::Dsync).expect("an empty store opens");
    let mut work = Workload::new(node, 3);
    for n in 0..2 {
        work.add_partition(tp(n, 4), PartitionConfig::default());
    }
    let partitions = work.partitions();
    for n in 0..60 {
        let (tp, slot) = partitions[usize::from(n % 6 == 0)];
        work.append_to(tp, slot, 2000, false, -1);
        if n % 10 == 0 {
            work.settle();
        }
    }
    work.settle();
    work
}

#[test]
fn a_listing_accounts_for_every_byte_of_every_slab_and_agrees_with_the_store() {
    let mut work = work();
    let mut disk = SimDisk::from_image(&work.node.disk.disk().image(), 1);
    let listing = inspect::list(&mut disk, DATA.as_ref()).expect("readable");
    let [store] = &listing.stores[..] else { panic!("one store") };
    assert_eq!((&store.map, store.strangers.len(), listing.strangers.len()), (&MapSource::StateLog, 0, 0));
    for slab in &store.slabs {
        let mut at = 0;
        for extent in &slab.extents {
            assert_eq!(extent.place.at, at);
            at += extent.bytes;
        }
        assert_eq!(at, slab.bytes);
    }
    let states: Vec<ExtentState> = store.slabs.iter().flat_map(|s| &s.extents).map(|e| e.state).collect();
    assert_eq!(states.iter().filter(|s| **s == ExtentState::Active).count(), 2);
    assert!(states.contains(&ExtentState::Sealed) && !states.contains(&ExtentState::Unknown));
    assert_eq!(store.partitions.len(), 2);
    for (listed, (tp, slot)) in store.partitions.iter().zip(work.partitions()) {
        let bounds = work.node.store.bounds(slot);
        assert_eq!((listed.tp, listed.log_start, listed.end), (tp, bounds.log_start, bounds.durable_end));
    }
    let verification = inspect::verify(&mut disk, DATA.as_ref(), &mut |_| {}).expect("readable");
    assert!(verification.findings.is_empty() && verification.notes.is_empty(), "{verification:?}");
    assert_eq!((verification.partitions, verification.frames >= 60), (2, true));
    work.settle();
}

#[test]
fn recovery_from_extent_headers_equals_recovery_from_the_map() {
    let work = work();
    let mut disk = SimDisk::from_image(&work.node.disk.disk().image(), 1);
    let before = inspect::list(&mut disk, DATA.as_ref()).expect("readable");
    for copy in ["state.a", "state.b"] {
        disk.damage(&Path::new(DIR).join(copy), 0, &Damage::FlipBit(900));
    }
    let after = inspect::list(&mut disk, DATA.as_ref()).expect("readable");
    assert!(matches!(after.stores[0].map, MapSource::Headers(_)));
    assert_eq!(before.stores[0].partitions, after.stores[0].partitions);
    assert_eq!(before.stores[0].cluster, after.stores[0].cluster);
    let verification = inspect::verify(&mut disk, DATA.as_ref(), &mut |_| {}).expect("readable");
    let kinds = verification.findings.iter().map(|finding| &finding.kind);
    assert!(kinds.clone().any(|kind| matches!(kind, FindingKind::Map(_))), "{verification:?}");
    assert!(kinds.clone().all(|kind| matches!(kind, FindingKind::Map(_) | FindingKind::StateLog(_))));
}

#[test]
fn a_damaged_block_is_reported_with_its_contents() {
    let work = work();
    let image = work.node.disk.disk().image();
    let slab = Path::new(DIR).join("slab-000000");
    let whole = image.read(&slab).expect("the first slab");
    // The first block after the first extent's header holds its first frames.
    let cases = [
        (Damage::Zero, Holds::Zero),
        (Damage::Unreadable, Holds::Unreadable),
        (Damage::ContentOf(slab.clone(), whole.len() as u64 / 4096 - 1), Holds::Zero),
    ];
    for (damage, holds) in cases {
        let mut disk = SimDisk::from_image(&image, 1);
        disk.damage(&slab, 1, &damage);
        let verification = inspect::verify(&mut disk, DATA.as_ref(), &mut |_| {}).expect("readable");
        let [finding] = &verification.findings[..] else { panic!("one finding: {verification:?}") };
        assert_eq!((finding.path.as_path(), finding.at), (slab.as_path(), 4096));
        assert_eq!((finding.pages[0].at, &finding.pages[0].holds), (4096, &holds));
        let FindingKind::Frames { from_offset, .. } = finding.kind else { panic!("{finding:?}") };
        assert_eq!(from_offset, Offset(0));
    }
}

#[test]
fn inspecting_a_store_writes_nothing() {
    let work = work();
    let image = work.node.disk.disk().image();
    let mut disk = SimDisk::from_image(&image, 1);
    let stranger = Path::new(DIR).join("notes.txt");
    let file = disk.create_file(&stranger, 4096).expect("room");
    disk.close_file(file);
    let before = disk.image();
    let listing = inspect::list(&mut disk, DATA.as_ref()).expect("readable");
    assert_eq!(listing.stores[0].strangers, std::slice::from_ref(&stranger));
    inspect::verify(&mut disk, DATA.as_ref(), &mut |_| {}).expect("readable");
    let after = disk.image();
    for (path, _) in before.files() {
        assert_eq!(before.read(path), after.read(path));
    }
    assert!(disk.open(&stranger, OpenMode::Read).is_ok());
}

use bytes::Bytes;
use highwater_protocol::ids::{ClusterId, Incarnation, StoreId};

use super::entry::{Entry, EntryBuilder, EntryFault, EntryNumbers, EntryOwner, PieceTarget};
use super::format::{ENTRY_HEADER_BYTES, PIECE_HEADER_BYTES};
use super::replay::scan;
use super::ring::Ring;
use crate::layout::{PAGE_BYTES, Place, SlabId};
use crate::mac::MacKey;

const RING_BYTES: u64 = 16 * PAGE_BYTES as u64;

fn owner() -> EntryOwner {
    EntryOwner { cluster: ClusterId([1; 16]), store: StoreId(2), key: MacKey([3; 16]) }
}

fn target(position: u32) -> PieceTarget {
    PieceTarget { incarnation: Incarnation(9), place: Place { slab: SlabId(0), at: 1 << 20 }, position }
}

fn builder(bytes: &[usize]) -> EntryBuilder {
    let mut builder = EntryBuilder::default();
    for (n, bytes) in bytes.iter().enumerate() {
        builder.push(target(4096 * (n as u32 + 1)), Bytes::from(vec![n as u8 + 1; *bytes]));
    }
    builder
}

/// A ring and the file that it describes.
struct Journal {
    ring: Ring,
    file: Vec<u8>,
}

impl Journal {
    fn new(era: u64) -> Self {
        Self { ring: Ring::new(RING_BYTES, Incarnation(era)), file: vec![0; RING_BYTES as usize] }
    }

    /// Reserves an entry and needs it. Returns its number, and its place and bytes.
    fn entry(&mut self, bytes: &[usize]) -> Option<(u64, usize, Bytes)> {
        let builder = builder(bytes);
        let reserved = self.ring.reserve(builder.bytes_with(0, 0) as u64 as usize, !bytes.is_empty())?;
        if !bytes.is_empty() {
            self.ring.need(reserved.numbers.sequence);
        }
        let data = builder.build(&owner(), reserved.numbers, reserved.at);
        Some((reserved.numbers.sequence, reserved.at as usize, data))
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.file[at..at + data.len()].copy_from_slice(data);
    }

    /// Appends an entry that is durable at once.
    fn append(&mut self, bytes: &[usize]) -> Option<u64> {
        let (sequence, at, data) = self.entry(bytes)?;
        self.write(at, &data);
        self.ring.on_written(sequence);
        Some(sequence)
    }

    fn replayed(&self) -> Vec<u64> {
        let scanned = scan(&self.file, &owner()).expect("they are ours");
        assert!(scanned.lost.is_empty(), "nothing is lost: {:?}", scanned.lost);
        scanned.entries.iter().map(|entry| entry.numbers.sequence).collect()
    }
}

#[test]
fn an_entry_reads_back_as_what_was_put_together() {
    let numbers = EntryNumbers { era: Incarnation(4), sequence: 5, first_needed: 3, durable: 4 };
    let data = builder(&[100, 5000]).build(&owner(), numbers, 8192);
    assert!(data.len().is_multiple_of(PAGE_BYTES));
    let entry = Entry::parse(&data, 8192, &owner()).expect("it is valid");
    assert_eq!(entry.numbers, numbers);
    let pieces: Vec<_> = entry.pieces().collect();
    assert_eq!(pieces, [(target(4096), Some(&[1; 100][..])), (target(8192), Some(&[2; 5000][..]))]);
    assert!(entry.is_whole());
}

#[test]
fn a_flipped_bit_in_an_entry_is_found_wherever_it_is() {
    let numbers = EntryNumbers { era: Incarnation(4), sequence: 5, first_needed: 3, durable: 4 };
    let good = builder(&[100, 50]).build(&owner(), numbers, 0);
    let used = ENTRY_HEADER_BYTES + 2 * PIECE_HEADER_BYTES + 150;
    for bit in 0..used * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let is_found = Entry::parse(&bad, 0, &owner()).map_or(true, |entry| !entry.is_whole());
        assert!(is_found, "bit {bit} flipped and not noticed");
    }
}

#[test]
fn an_entry_counts_only_where_and_by_whom_it_was_written() {
    let numbers = EntryNumbers { era: Incarnation(4), sequence: 5, first_needed: 3, durable: 4 };
    let data = builder(&[100]).build(&owner(), numbers, 4096);
    let fault = |at, owner| Entry::parse(&data, at, &owner).err();
    assert_eq!(fault(4096, owner()), None);
    assert_eq!(fault(8192, owner()), Some(EntryFault::None));
    assert_eq!(fault(4096, EntryOwner { key: MacKey([4; 16]), ..owner() }), Some(EntryFault::None));
    assert_eq!(
        fault(4096, EntryOwner { store: StoreId(3), ..owner() }),
        Some(EntryFault::Foreign(owner().cluster, StoreId(2)))
    );
}

#[test]
fn a_journal_gives_back_the_entries_that_are_needed() {
    let mut journal = Journal::new(1);
    for _ in 0..3 {
        journal.append(&[100]).expect("there is room");
    }
    assert_eq!(journal.replayed(), [1, 2, 3]);
    journal.ring.release(1);
    journal.append(&[100]).expect("there is room");
    assert_eq!(journal.replayed(), [2, 3, 4]);
}

#[test]
fn a_full_ring_takes_no_more_until_a_durable_entry_says_that_space_is_free() {
    let mut journal = Journal::new(1);
    let mut last = 0;
    while let Some(sequence) = journal.append(&[100]) {
        last = sequence;
    }
    assert_eq!(last, 14, "two pages are left for entries without pieces");
    for sequence in 1..=10 {
        journal.ring.release(sequence);
    }
    assert!(journal.append(&[100]).is_none(), "no entry on the disk says that the first ones are not needed");
    assert!(journal.ring.wants_trim());
    assert_eq!(journal.append(&[]), Some(15));
    assert_eq!(journal.append(&[100, 7000]), Some(16));
    assert_eq!(journal.replayed(), [11, 12, 13, 14, 15, 16]);
}

#[test]
fn entries_pass_the_end_of_the_file_whole() {
    let mut journal = Journal::new(1);
    for round in 1..100_u64 {
        let sequence = journal.append(&[9000]).expect("there is room");
        assert_eq!(sequence, round);
        if sequence > 1 {
            journal.ring.release(sequence - 1);
        }
        let replayed = journal.replayed();
        assert_eq!(replayed.last(), Some(&sequence));
        assert!(replayed.len() <= 2);
    }
}

#[test]
fn an_entry_that_was_written_before_the_one_in_front_of_it_counts_for_nothing() {
    let mut journal = Journal::new(1);
    journal.append(&[100]).expect("there is room");
    let (second, second_at, second_data) = journal.entry(&[100]).expect("there is room");
    let (third, third_at, third_data) = journal.entry(&[200]).expect("there is room");
    journal.write(third_at, &third_data);
    journal.ring.on_written(third);
    assert_eq!(journal.ring.durable(), second);
    assert_eq!(journal.replayed(), [1]);
    journal.write(second_at, &second_data);
    journal.ring.on_written(second);
    assert_eq!(journal.ring.durable(), third + 1);
    assert_eq!(journal.replayed(), [1, 2, 3]);
}

#[test]
fn a_torn_last_entry_is_the_end_and_a_damaged_one_that_had_been_durable_is_a_loss() {
    let mut journal = Journal::new(1);
    let mut at_of = Vec::new();
    for _ in 0..4 {
        let (sequence, at, data) = journal.entry(&[100]).expect("there is room");
        at_of.push(at);
        journal.write(at, &data);
        journal.ring.on_written(sequence);
    }
    let scanned = |file: &[u8]| {
        let scanned = scan(file, &owner()).expect("they are ours");
        (scanned.entries.iter().map(|e| (e.numbers.sequence, e.is_whole())).collect::<Vec<_>>(), scanned.lost)
    };
    // The last one, of which no other says that it was durable: in its header, and in its piece.
    for byte in [8, ENTRY_HEADER_BYTES + PIECE_HEADER_BYTES] {
        let mut file = journal.file.clone();
        file[at_of[3] + byte] ^= 1;
        assert_eq!(scanned(&file), (vec![(1, true), (2, true), (3, true)], vec![]));
    }
    let mut file = journal.file.clone();
    file[at_of[1] + 8] ^= 1;
    assert_eq!(scanned(&file), (vec![(1, true), (3, true), (4, true)], std::iter::once(2..3).collect()));
    let mut file = journal.file.clone();
    file[at_of[1] + ENTRY_HEADER_BYTES + PIECE_HEADER_BYTES] ^= 1;
    assert_eq!(scanned(&file), (vec![(1, true), (2, false), (3, true), (4, true)], vec![]));
}

#[test]
fn entries_of_an_earlier_era_count_for_nothing_once_a_later_one_has_begun() {
    let mut journal = Journal::new(1);
    for _ in 0..5 {
        journal.append(&[100]).expect("there is room");
    }
    journal.ring = Ring::new(RING_BYTES, Incarnation(2));
    assert_eq!(journal.append(&[]), Some(1));
    assert_eq!(journal.replayed(), [1]);
    journal.append(&[300]).expect("there is room");
    assert_eq!(journal.replayed(), [2], "an entry without pieces is not needed");
}

#[test]
fn an_entry_inside_a_client_s_record_is_not_believed() {
    let forged = EntryNumbers { era: Incarnation(99), sequence: 1, first_needed: 1, durable: 1 };
    let key = EntryOwner { key: MacKey([0; 16]), ..owner() };
    let mut journal = Journal::new(1);
    // The record begins so that the forged entry lies on a page.
    let skip = PAGE_BYTES - ENTRY_HEADER_BYTES - PIECE_HEADER_BYTES;
    let mut record = vec![0; skip];
    record.extend_from_slice(&builder(&[100]).build(&key, forged, PAGE_BYTES as u64));
    let mut entry = EntryBuilder::default();
    entry.push(target(4096), Bytes::from(record));
    let reserved = journal.ring.reserve(entry.bytes_with(0, 0), true).expect("there is room");
    let data = entry.build(&owner(), reserved.numbers, reserved.at);
    journal.write(reserved.at as usize, &data);
    assert!(
        Entry::parse(&journal.file[PAGE_BYTES..], PAGE_BYTES as u64, &key).is_ok(),
        "the attack would be one"
    );
    assert_eq!(journal.replayed(), [1]);
}

//! Which space of the journal is in use, and what of it is needed. Without I/O.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::Incarnation;

use super::entry::EntryNumbers;
use crate::layout::PAGE_BYTES;

/// Space that entries with pieces leave: for entries without, which say that space is not needed any more.
const SPARE_BYTES: u64 = 2 * PAGE_BYTES as u64;

/// The ring.
///
/// Positions count up for ever; in the file they are taken modulo its size.
///
/// Invariant: the bytes from the start of the first entry kept to `head` are never more than the ring has.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: u64,
    era: Incarnation,
    /// Where the next entry goes, if it fits before the end of the file.
    head: u64,
    /// The number of the next entry.
    next: u64,
    /// Entries whose space must not be used, oldest first. Their numbers are consecutive.
    kept: VecDeque<Kept>,
    /// Every entry with a lower number is durable.
    durable: u64,
    /// How often each entry is the first one that some partition needs.
    needs: BTreeMap<u64, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    sequence: u64,
    start: u64,
    /// As the entry says.
    first_needed: u64,
    written: bool,
}

/// An entry that may be written now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reserved {
    pub(crate) numbers: EntryNumbers,
    /// Where in the file.
    pub(crate) at: u64,
}

impl Ring {
    /// The empty ring of a new era.
    pub(crate) fn new(bytes: u64, era: Incarnation) -> Self {
        assert!(bytes.is_multiple_of(PAGE_BYTES as u64) && bytes > SPARE_BYTES);
        Self { bytes, era, head: 0, next: 1, kept: VecDeque::new(), durable: 1, needs: BTreeMap::new() }
    }

    pub(crate) fn era(&self) -> Incarnation {
        self.era
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number that the next entry gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How often entries are needed.
    pub(crate) fn need_count(&self) -> usize {
        self.needs.values().map(|count| *count as usize).sum()
    }

    /// Every entry with a lower number is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.next - self.durable
    }

    /// The first entry that is needed. Entries in flight are.
    pub(crate) fn first_needed(&self) -> u64 {
        let needed = self.needs.keys().next().copied().unwrap_or(self.next);
        needed.min(self.durable)
    }

    /// Bytes between the first entry needed and the last one.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let first = self.first_needed();
        let Some(oldest) = self.kept.front() else { return 0 };
        let at = (first - oldest.sequence) as usize;
        self.kept.get(at).map_or(0, |kept| self.head - kept.start)
    }

    /// Whether space could be used again after one more entry.
    pub(crate) fn wants_trim(&self) -> bool {
        self.kept.front().is_some_and(|kept| kept.sequence < self.first_needed())
    }

    /// Where the space in use begins.
    fn tail(&self) -> u64 {
        self.kept.front().map_or(self.head, |kept| kept.start)
    }

    /// Bytes before the end of the file.
    fn left_in_file(&self) -> u64 {
        self.bytes - self.head % self.bytes
    }

    /// Bytes of the largest entry with pieces that may be written now.
    pub(crate) fn room(&self) -> usize {
        let free = (self.bytes - (self.head - self.tail())).saturating_sub(SPARE_BYTES);
        let left_in_file = self.left_in_file();
        free.min(left_in_file).max(free.saturating_sub(left_in_file)) as usize
    }

    /// Reserves space for an entry of this many bytes. `None`: there is none now. An entry without pieces may use the last of it.
    pub(crate) fn reserve(&mut self, bytes: usize, has_pieces: bool) -> Option<Reserved> {
        let bytes = bytes as u64;
        assert!(bytes > 0 && bytes.is_multiple_of(PAGE_BYTES as u64));
        let left_in_file = self.left_in_file();
        let start = if bytes <= left_in_file { self.head } else { self.head + left_in_file };
        let end = start + bytes;
        let spare = if has_pieces { SPARE_BYTES } else { 0 };
        if end - self.tail() + spare > self.bytes {
            return None;
        }
        let sequence = self.next;
        let numbers = EntryNumbers {
            era: self.era,
            sequence,
            first_needed: self.first_needed(),
            durable: self.durable,
        };
        self.kept.push_back(Kept { sequence, start, first_needed: numbers.first_needed, written: false });
        self.next += 1;
        self.head = end;
        Some(Reserved { numbers, at: start % self.bytes })
    }

    /// An entry has been written. Entries become durable in order.
    pub(crate) fn on_written(&mut self, sequence: u64) {
        let first = self.kept.front().expect("it is kept").sequence;
        let at = usize::try_from(sequence - first).expect("few are kept");
        assert!(!self.kept[at].written, "it is written once");
        self.kept[at].written = true;
        while let Some(Kept { written: true, first_needed: needed, .. }) =
            self.kept.get((self.durable - self.kept[0].sequence) as usize).copied()
        {
            self.durable += 1;
            while self.kept[0].sequence < needed {
                self.kept.pop_front();
            }
        }
    }

    /// A partition needs this entry and later ones.
    pub(crate) fn need(&mut self, sequence: u64) {
        *self.needs.entry(sequence).or_default() += 1;
    }

    /// It does not need it any more.
    pub(crate) fn release(&mut self, sequence: u64) {
        let count = self.needs.get_mut(&sequence).expect("what is released was needed");
        *count -= 1;
        if *count == 0 {
            self.needs.remove(&sequence);
        }
    }
}

//! Searches by timestamp, for ListOffsets queries and for readers that begin at a time: a few at once, the others wait in a queue.
//!
//! A search holds a buffer of the size of the largest disk read, or of a larger batch, and a decoder, whose window its producer has chosen; one query can need as many searches as there
//! are partitions. That memory is charged to the send budget ([`crate::read`]) before a search begins. All searches share one account. The first
//! in the queue waits for memory when no other search holds any; otherwise it is retried when one of these ends.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::batch::Work;
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Plane;
use highwater_storage::{FindOutcome, FindResult, ReadId, SearchMemory};

use super::Shard;
use super::query::WorkId;
use super::subscribe::StartingReader;
use crate::api::{ApiError, FoundOffset};
use crate::limits::{SEARCH_DECODER_READS, SEARCH_WORK_PER_TURN_MAX, SEARCHES_MAX, SEARCHES_PER_TURN_MAX};
use crate::message::Message;
use crate::partition::{Partition, PartitionId};
use crate::read::{Account, Charge, InLine, Wanted};

/// What is searched for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sought {
    /// The first record at or after a time.
    Since(Timestamp),
    /// The record with the largest timestamp.
    Last,
}

/// The origin of a search.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A part of a query.
    Query { work: WorkId, number: u32 },
    /// A reader that begins.
    Reader(StartingReader),
}

/// A search in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub(super) asker: Asker,
    pub(super) partition: PartitionId,
    pub(super) sought: Sought,
    /// What the next batch needs, if that is more than it was allowed.
    pub(super) needs: SearchNeeds,
}

/// Bytes of memory that a search is known to need.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct SearchNeeds {
    buffer: usize,
    decoder: usize,
}

/// A search that has begun.
#[derive(Debug)]
struct Searching {
    /// `None` once its partition is deleted. Its memory is in use until the store is done.
    search: Option<Search>,
    _charge: Charge,
}

/// The searches of a shard.
#[derive(Default, Debug)]
pub(super) struct Searches {
    waiting: VecDeque<Search>,
    /// Searches that have begun, by store and operation.
    reading: BTreeMap<(usize, ReadId), Searching>,
    /// The memory that they hold.
    account: Account,
}

impl Searches {
    pub(super) fn add(&mut self, search: Search) {
        self.waiting.push_back(search);
    }

    /// Takes the next search, if one may begin.
    fn next(&mut self) -> Option<Search> {
        if self.may_begin() { self.waiting.pop_front() } else { None }
    }

    /// Returns the bytes of memory that searches hold.
    pub(super) fn held(&self) -> usize {
        self.account.held()
    }

    fn may_begin(&self) -> bool {
        self.reading.len() < SEARCHES_MAX && !self.waiting.is_empty()
    }
}

impl Shard {
    /// Continues searches and begins waiting ones, up to the work of a turn. Returns whether more can be done in the next turn, without waiting
    /// for the disk.
    pub(super) fn run_searches(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let mut work = SEARCH_WORK_PER_TURN_MAX;
        let more = self.partitions.continue_searches(plane, &mut work);
        for _ in 0..SEARCHES_PER_TURN_MAX {
            if work == 0 {
                break;
            }
            let Some(search) = self.searches.next() else { return more };
            if self.begin_search(plane, search, &mut work).is_none() {
                return more;
            }
        }
        more || self.searches.may_begin()
    }

    /// Retries the first search that waits for memory.
    pub(super) fn try_search(&mut self, plane: &mut dyn Plane<Message>) {
        self.searches.account.is_tried();
        if let Some(search) = self.searches.next() {
            // It reserves memory only; its work is done by `run_searches`.
            self.begin_search(plane, search, &mut 0);
        }
    }

    /// Begins a search. Returns `None` if there is no memory for it; it stays the next one.
    fn begin_search(
        &mut self,
        plane: &mut dyn Plane<Message>,
        search: Search,
        work: &mut Work,
    ) -> Option<()> {
        let Some(partition) = self.partitions.get(search.partition) else {
            self.abandon_search(plane, search);
            return Some(());
        };
        if let Asker::Reader(start) = search.asker
            && !self.readers.contains_key(&start.reader)
        {
            return Some(());
        }
        let (index, slot) = (partition.store, partition.slot);
        let store = self.partitions.store_mut(index);
        let read_bytes_max = store.config().limits.read_bytes_max;
        let buffer = AlignedBuf::memory_bytes_for(read_bytes_max).max(search.needs.buffer);
        let decoder = (SEARCH_DECODER_READS * read_bytes_max).max(search.needs.decoder);
        let memory = SearchMemory { buffer_bytes_max: buffer, decoder_bytes_max: decoder };
        let bytes = buffer + decoder;
        let account = &mut self.searches.account;
        let Some(charge) = self.send_budget.reserve(account, 0, Wanted { most: bytes, least: bytes }) else {
            if account.held() == 0 {
                self.send_budget.wait(account, 0, InLine::Searches);
            }
            self.searches.waiting.push_front(search);
            return None;
        };
        let outcome = match search.sought {
            Sought::Since(at) => store.find_time(plane, slot, at, memory, work),
            Sought::Last => store.find_last(plane, slot, memory, work),
        };
        match outcome {
            FindOutcome::Ready(result) => {
                drop(charge);
                self.end_search(plane, search, result);
            }
            FindOutcome::Pending(read) => {
                let searching = Searching { search: Some(search), _charge: charge };
                self.searches.reading.insert((index, read), searching);
            }
        }
        Some(())
    }

    /// Handles the end of a search in a store.
    pub(super) fn on_search_done(
        &mut self,
        plane: &mut dyn Plane<Message>,
        read: (usize, ReadId),
        result: FindResult,
    ) {
        if let Some(Searching { search: Some(search), .. }) = self.searches.reading.remove(&read) {
            self.end_search(plane, search, result);
        }
    }

    fn end_search(&mut self, plane: &mut dyn Plane<Message>, search: Search, result: FindResult) {
        // It starts again with more memory. Rounding up limits how often, if batches become larger and larger.
        let mut needs = search.needs;
        let max = self.setup.limits.send_bytes_max;
        let known = match result {
            FindResult::NeedsMemory(bytes) => {
                needs.buffer = bytes.next_power_of_two();
                return self.searches.waiting.push_front(Search { needs, ..search });
            }
            FindResult::NeedsDecoder(bytes) if bytes < max => {
                // It is known only when all is decompressed. Twice as much each time is no more than twice the work.
                needs.decoder = (2 * bytes).min(max);
                return self.searches.waiting.push_front(Search { needs, ..search });
            }
            FindResult::NeedsDecoder(bytes) => Err(ApiError::SearchTooLarge { bytes, max }),
            FindResult::At(offset, at) => Ok(Found::At(offset, at)),
            FindResult::None => Ok(Found::Nothing),
            FindResult::Damaged { at, .. } => Ok(Found::Damaged { at }),
        };
        match search.asker {
            Asker::Query { work, number } => {
                let high_watermark = self.partitions.get(search.partition).map(Partition::high_watermark);
                let found = high_watermark.ok_or(ApiError::TopicDeleted).and_then(|hw| visible(known?, hw));
                self.offset_found(plane, work, number, found);
            }
            Asker::Reader(start) => match known {
                Ok(found) => self.on_start_found(start, found),
                Err(error) => self.on_start_refused(start, &error),
            },
        }
    }

    /// Ends a search in a deleted partition. Readers end with their partition.
    fn abandon_search(&mut self, plane: &mut dyn Plane<Message>, search: Search) {
        if let Asker::Query { work, number } = search.asker {
            self.offset_found(plane, work, number, Err(ApiError::TopicDeleted));
        }
    }

    /// A partition was deleted: ends the searches in it. Searches that have not begun find out when they begin.
    pub(super) fn abandon_searches(&mut self, plane: &mut dyn Plane<Message>, partition: PartitionId) {
        let begun = self.searches.reading.values_mut();
        let gone: Vec<_> = begun
            .filter_map(|searching| searching.search.take_if(|search| search.partition == partition))
            .collect();
        for search in gone {
            self.abandon_search(plane, search);
        }
    }
}

/// The result of a search that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    At(Offset, Timestamp),
    Nothing,
    /// The first offset that is lost, among records that would have to be searched.
    Damaged {
        at: Offset,
    },
}

/// Limits the result of a search to what readers may see.
fn visible(found: Found, high_watermark: Offset) -> FoundOffset {
    match found {
        Found::At(offset, at) if offset < high_watermark => Ok(Some((offset, Some(at)))),
        Found::At(..) | Found::Nothing => Ok(None),
        Found::Damaged { .. } => Err(ApiError::PartitionDamaged),
    }
}

#[cfg(test)]
mod tests {
    use highwater_runtime::slab::Key;

    use super::*;
    use crate::read::Gauge;

    #[test]
    fn few_searches_read_at_once_and_the_others_begin_in_their_order() {
        let mut searches = Searches::default();
        for number in 0..SEARCHES_MAX as u32 + 2 {
            let sought = Sought::Last;
            let asker = Asker::Query { work: WorkId(1), number };
            searches.add(Search {
                asker,
                partition: PartitionId(Key::default()),
                sought,
                needs: SearchNeeds::default(),
            });
        }
        let mut begun = Vec::new();
        while let Some(search) = searches.next() {
            let Asker::Query { number, .. } = search.asker else { panic!("{search:?}") };
            begun.push(number);
            let charge = Charge::new(1, &Gauge::default(), &Gauge::default());
            let searching = Searching { search: Some(search), _charge: charge };
            searches.reading.insert((0, ReadId(u64::from(number))), searching);
        }
        assert!(begun.iter().copied().eq(0..SEARCHES_MAX as u32));
        for expected in [Some(SEARCHES_MAX as u32), Some(SEARCHES_MAX as u32 + 1), None] {
            searches.reading.pop_first();
            let next = searches.next().map(|search| search.asker);
            let number = next.map(|asker| match asker {
                Asker::Query { number, .. } => number,
                Asker::Reader(start) => panic!("{start:?}"),
            });
            assert_eq!(number, expected);
        }
    }
}

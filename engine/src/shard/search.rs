//! Searches by timestamp, for ListOffsets queries and for readers that begin at a timestamp. A few run at once, the others wait in a queue.
//!
//! A search holds a buffer for the largest disk read or batch, and a decoder with the window that the batch's producer chose. One query can
//! need as many searches as there are partitions, so this memory is charged to the send budget ([`crate::read`]) before a search begins. All
//! searches share one account. The first in the queue waits for memory if no other search holds any; otherwise it is retried when one of them
//! ends.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::batch::Work;
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Plane;
use highwater_storage::{FindOutcome, FindResult, ReadId, SearchMemory};

use super::Shard;
use super::query::QueryId;
use super::subscribe::StartingReader;
use crate::api::{ApiError, FoundOffset, LocatedOffset};
use crate::limits::{SEARCH_DECODER_READS, SEARCH_WORK_PER_TURN_MAX, SEARCHES_MAX, SEARCHES_PER_TURN_MAX};
use crate::message::Message;
use crate::partition::{Partition, PartitionId};
use crate::read::{Account, Charge, InLine, MemoryRequest};

/// The record to search for.
#[derive(Clone, Copy, Debug)]
pub(super) enum SearchTarget {
    /// The first record at or after a timestamp.
    Since(Timestamp),
    /// The record with the largest timestamp.
    Last,
}

/// The origin of a search.
#[derive(Clone, Copy, Debug)]
pub(super) enum SearchOrigin {
    /// An item of a query.
    Query { query: QueryId, number: u32 },
    /// A reader that begins.
    Reader(StartingReader),
}

/// A search in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub(super) origin: SearchOrigin,
    pub(super) partition: PartitionId,
    pub(super) target: SearchTarget,
    /// The memory that the next batch needs, if that is more than it was allowed.
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
struct ActiveSearch {
    /// `None` after its partition was deleted. Its memory stays charged until the store is done with it.
    search: Option<Search>,
    _charge: Charge,
}

/// The searches of a shard.
#[derive(Default, Debug)]
pub(super) struct Searches {
    waiting: VecDeque<Search>,
    /// Searches that have begun, by store and operation.
    reading: BTreeMap<(usize, ReadId), ActiveSearch>,
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
    pub(super) fn retry_search(&mut self, plane: &mut dyn Plane<Message>) {
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
        if let SearchOrigin::Reader(start) = search.origin
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
        let Some(charge) = self.send_budget.reserve(account, 0, MemoryRequest { most: bytes, least: bytes })
        else {
            if account.held() == 0 {
                self.send_budget.wait(account, 0, InLine::Searches);
            }
            self.searches.waiting.push_front(search);
            return None;
        };
        let outcome = match search.target {
            SearchTarget::Since(at) => store.find_time(plane, slot, at, memory, work),
            SearchTarget::Last => store.find_last(plane, slot, memory, work),
        };
        match outcome {
            FindOutcome::Ready(result) => {
                drop(charge);
                self.end_search(plane, search, result);
            }
            FindOutcome::Pending(read) => {
                let searching = ActiveSearch { search: Some(search), _charge: charge };
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
        if let Some(ActiveSearch { search: Some(search), .. }) = self.searches.reading.remove(&read) {
            self.end_search(plane, search, result);
        }
    }

    fn end_search(&mut self, plane: &mut dyn Plane<Message>, search: Search, result: FindResult) {
        // It starts again with more memory. Rounding up limits the number of restarts if batches become larger and larger.
        let mut needs = search.needs;
        let max = self.setup.limits.send_bytes_max;
        let known = match result {
            FindResult::NeedsMemory(bytes) => {
                needs.buffer = bytes.next_power_of_two();
                return self.searches.waiting.push_front(Search { needs, ..search });
            }
            FindResult::NeedsDecoder(bytes) if bytes < max => {
                // The size is known only after decompression. Doubling it each time costs at most twice the work.
                needs.decoder = (2 * bytes).min(max);
                return self.searches.waiting.push_front(Search { needs, ..search });
            }
            FindResult::NeedsDecoder(bytes) => Err(ApiError::SearchTooLarge { bytes, max }),
            FindResult::At(offset, at) => Ok(SearchResult::At(offset, at)),
            FindResult::None => Ok(SearchResult::Nothing),
            FindResult::Damaged { at, .. } => Ok(SearchResult::Damaged { at }),
        };
        match search.origin {
            SearchOrigin::Query { query, number } => {
                let partition = self.partitions.get(search.partition).ok_or(ApiError::TopicDeleted);
                let found = partition.and_then(|partition| {
                    // The replica may have ceased to lead meanwhile.
                    partition.check_answers(None)?;
                    visible(known?, partition)
                });
                self.offset_found(plane, query, number, found);
            }
            SearchOrigin::Reader(start) => match known {
                Ok(found) => self.on_start_found(start, found),
                Err(error) => self.on_start_failed(start, &error),
            },
        }
    }

    /// Ends a search in a deleted partition. Readers end with their partition.
    fn abandon_search(&mut self, plane: &mut dyn Plane<Message>, search: Search) {
        if let SearchOrigin::Query { query, number } = search.origin {
            self.offset_found(plane, query, number, Err(ApiError::TopicDeleted));
        }
    }

    /// Ends the searches in a deleted partition. Searches that have not begun end when they begin.
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
pub(super) enum SearchResult {
    At(Offset, Timestamp),
    Nothing,
    /// The first offset that is lost, among records that would have to be searched.
    Damaged {
        at: Offset,
    },
}

/// Limits the result of a search to records below the high watermark.
fn visible(found: SearchResult, partition: &Partition) -> FoundOffset {
    match found {
        SearchResult::At(offset, at) if offset < partition.high_watermark() => {
            Ok(Some(LocatedOffset { offset, timestamp: Some(at), epoch: partition.epoch() }))
        }
        SearchResult::At(..) | SearchResult::Nothing => Ok(None),
        SearchResult::Damaged { .. } => Err(ApiError::PartitionDamaged),
    }
}

#[cfg(test)]
mod tests {
    use highwater_runtime::slab::Key;

    use super::*;
    use crate::read::Gauge;

    #[test]
    fn a_limited_number_of_searches_run_at_once_and_the_others_start_in_order() {
        let mut searches = Searches::default();
        for number in 0..SEARCHES_MAX as u32 + 2 {
            let target = SearchTarget::Last;
            let origin = SearchOrigin::Query { query: QueryId(1), number };
            searches.add(Search {
                origin,
                partition: PartitionId(Key::default()),
                target,
                needs: SearchNeeds::default(),
            });
        }
        let mut begun = Vec::new();
        while let Some(search) = searches.next() {
            let SearchOrigin::Query { number, .. } = search.origin else { panic!("{search:?}") };
            begun.push(number);
            let charge = Charge::new(1, &Gauge::default(), &Gauge::default());
            let searching = ActiveSearch { search: Some(search), _charge: charge };
            searches.reading.insert((0, ReadId(u64::from(number))), searching);
        }
        assert!(begun.iter().copied().eq(0..SEARCHES_MAX as u32));
        for expected in [Some(SEARCHES_MAX as u32), Some(SEARCHES_MAX as u32 + 1), None] {
            searches.reading.pop_first();
            let next = searches.next().map(|search| search.origin);
            let number = next.map(|origin| match origin {
                SearchOrigin::Query { number, .. } => number,
                SearchOrigin::Reader(start) => panic!("{start:?}"),
            });
            assert_eq!(number, expected);
        }
    }
}

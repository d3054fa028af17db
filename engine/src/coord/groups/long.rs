//! Long requests: those about very many groups or offsets. They are handled round-robin in slices of a few hundred items, a few thousand items per
//! turn. Changes between slices may or may not be visible: a list of groups is not a snapshot.
//!
//! A reply may have a memory limit. When it would exceed the limit, the results are dropped and the remaining bytes are only counted.

use std::collections::VecDeque;
use std::ops::Bound;
use std::vec::IntoIter;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::coordinator::GroupCoordinator;
use super::deleting::{DeletingGroups, DeletingOffsets};
use super::describe::Describing;
use super::limits::{LONG_ITEMS_PER_SLICE_MAX, LONG_ITEMS_PER_TURN_MAX};
use super::reply::{
    CommitOutcome, DescribedConsumerGroup, DescribedGroup, FetchReply, GroupReply, ListedGroup,
};
use super::request::{
    CommitRequest, CommittedPartition, FetchRequest, GroupRequest, ListRequest, Now, Token,
};

/// A request in progress, with its results so far.
#[derive(Debug)]
pub(super) enum Long {
    List(Listing),
    Fetch(Fetching),
    Commit(Committing),
    Describe(Describing<DescribedGroup>),
    ConsumerDescribe(Describing<DescribedConsumerGroup>),
    Delete(DeletingGroups),
    DeleteOffsets(DeletingOffsets),
    /// Expiration, in the groups after this one.
    CleanUp(Option<String>),
    /// Tombstones for offsets in deleted topics.
    WriteTombstones,
}

impl Long {
    /// Returns the request that it is, if it is one.
    pub(super) fn token(&self) -> Option<Token> {
        match self {
            Self::List(of) => Some(of.token),
            Self::Fetch(of) => Some(of.token),
            Self::Commit(of) => Some(of.token),
            Self::Describe(of) => Some(of.token),
            Self::ConsumerDescribe(of) => Some(of.token),
            Self::Delete(of) => Some(of.token),
            Self::DeleteOffsets(of) => Some(of.token),
            Self::CleanUp(_) | Self::WriteTombstones => None,
        }
    }
}

/// A list of groups.
#[derive(Debug)]
pub(super) struct Listing {
    token: Token,
    request: ListRequest,
    /// The last group that was visited.
    last: Option<String>,
    /// The groups so far; emptied when they would exceed `bytes_max`.
    listed: Vec<ListedGroup>,
    bytes: usize,
    bytes_max: usize,
}

/// A read of offsets of groups.
#[derive(Debug)]
pub(super) struct Fetching {
    token: Token,
    requests: Vec<FetchRequest>,
    /// The index of the current request.
    next: usize,
    /// Where the current request continues; `None` before it begins.
    at: Option<FetchAt>,
    /// The replies so far, up to that of the current request. When they would exceed `bytes_max`, all of them are dropped except an empty reply of
    /// the current request.
    found: Vec<FetchReply>,
    bytes: usize,
    bytes_max: usize,
    /// The sequence number of the last record that must be durable before the reply.
    last: u64,
}

/// Position in a group's offsets at which a request continues.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct FetchAt {
    /// For a request for all offsets: the last partition that was read.
    pub(super) after: Option<(TopicId, PartitionIndex)>,
    /// For a request that names partitions: the indexes of the topic and the partition in the request.
    pub(super) topic: usize,
    pub(super) partition: usize,
    /// The topic of the last offset that was found.
    last: Option<TopicId>,
}

/// A commit of offsets.
#[derive(Debug)]
pub(super) struct Committing {
    token: Token,
    /// The request without its offsets.
    request: CommitRequest,
    offsets: IntoIter<CommittedPartition>,
    outcomes: Vec<CommitOutcome>,
    /// Later commits to the same group. They run after this one, so an older offset never overwrites a newer one.
    next_commits: VecDeque<(Token, CommitRequest)>,
}

/// The rest of a request after a slice; `None` once its reply has been sent.
pub(super) type Slice = Option<Long>;

impl GroupCoordinator {
    pub(super) fn list(&mut self, now: Now, token: Token, request: ListRequest, bytes_max: usize) {
        let listing = Listing { token, request, last: None, listed: Vec::new(), bytes: 0, bytes_max };
        self.begin(now, Long::List(listing));
    }

    pub(super) fn fetch(&mut self, now: Now, token: Token, requests: Vec<FetchRequest>, bytes_max: usize) {
        let found = Vec::with_capacity(requests.len());
        let fetching = Fetching { token, requests, next: 0, at: None, found, bytes: 0, bytes_max, last: 0 };
        self.begin(now, Long::Fetch(fetching));
    }

    pub(super) fn commit(&mut self, now: Now, token: Token, request: CommitRequest) {
        let of_group = self.long.iter_mut().find_map(|long| match long {
            Long::Commit(commit) if commit.request.group == request.group => Some(commit),
            _ => None,
        });
        match of_group {
            Some(before) => before.next_commits.push_back((token, request)),
            None => self.begin(now, committing(token, request, VecDeque::new())),
        }
    }

    /// Handles the first slice of a new request, unless other requests are waiting.
    pub(super) fn begin(&mut self, now: Now, long: Long) {
        if !self.long.is_empty() || self.long_items == 0 {
            return self.long.push_back(long);
        }
        if let Some(long) = self.slice(now, long) {
            self.long.push_back(long);
        }
    }

    /// Continues long requests. Call it once a turn. Returns whether more is left.
    pub(super) fn run_long(&mut self, now: Now) -> bool {
        self.long_items = LONG_ITEMS_PER_TURN_MAX;
        while self.long_items > 0
            && let Some(long) = self.long.pop_front()
        {
            if let Some(long) = self.slice(now, long) {
                self.long.push_back(long);
            }
        }
        !self.long.is_empty()
    }

    fn slice(&mut self, now: Now, long: Long) -> Slice {
        let items = LONG_ITEMS_PER_SLICE_MAX.min(self.long_items);
        let (slice, spent) = match long {
            Long::List(listing) => self.list_some(listing, items),
            Long::Fetch(fetching) => self.fetch_some(fetching, items),
            Long::Commit(of) => self.commit_some(now, of, items),
            Long::Describe(of) => self.describe_some(of, items),
            Long::ConsumerDescribe(of) => self.describe_some(of, items),
            Long::Delete(of) => self.delete_groups_some(now, of, items),
            Long::DeleteOffsets(of) => self.delete_offsets_some(now, of, items),
            Long::CleanUp(after) => self.clean_up_some(now, after, items),
            Long::WriteTombstones => self.write_some_tombstones(items),
        };
        self.long_items = self.long_items.saturating_sub(spent.max(1));
        slice
    }

    fn list_some(&mut self, mut listing: Listing, items: usize) -> (Slice, usize) {
        let request = &listing.request;
        let takes = |filter: &[String], value: &str| {
            filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
        };
        let from = match listing.last.as_ref().unwrap_or(&request.after).as_str() {
            "" => Bound::Unbounded,
            after => Bound::Excluded(after),
        };
        let is_cut = |bytes: usize| request.cut_at_bytes.is_some_and(|max| bytes > max);
        let mut groups = self.groups.range::<str, _>((from, Bound::Unbounded)).peekable();
        let (mut spent, mut last) = (0, None);
        while spent < items
            && !is_cut(listing.bytes)
            && let Some((name, group)) = groups.next()
        {
            spent += 1;
            last = Some(name);
            let group = group.listed(name);
            if takes(&request.states, group.state) && takes(&request.types, group.group_type) {
                listing.bytes += group.memory_bytes();
                if listing.bytes <= listing.bytes_max {
                    listing.listed.push(group);
                } else {
                    listing.listed = Vec::new();
                }
            }
        }
        let is_over = groups.peek().is_none();
        if is_over || is_cut(listing.bytes) {
            let Listing { token, request, listed, bytes, bytes_max, .. } = listing;
            let reply = if bytes > bytes_max {
                GroupReply::NeedsMemory { bytes, request: Box::new(GroupRequest::List(request)) }
            } else {
                GroupReply::List { groups: listed, is_cut: !is_over }
            };
            self.reply_now(token, reply);
            return (None, spent);
        }
        listing.last = last.cloned().or(listing.last);
        (Some(Long::List(listing)), spent)
    }

    fn fetch_some(&mut self, mut of: Fetching, items: usize) -> (Slice, usize) {
        let mut spent = 0;
        while spent < items {
            let Some(request) = of.requests.get(of.next) else {
                let Fetching { token, requests, found, bytes, bytes_max, last, .. } = of;
                if bytes > bytes_max {
                    let request = Box::new(GroupRequest::Fetch(requests));
                    self.reply_now(token, GroupReply::NeedsMemory { bytes, request });
                } else {
                    self.reply(last, token, GroupReply::Fetch(found));
                }
                return (None, spent);
            };
            let mut at = of.at.take().unwrap_or_else(|| {
                spent += 1;
                of.found.push(FetchReply { error: None, offsets: Vec::new() });
                FetchAt::default()
            });
            let reply = of.found.last_mut().expect("the current request has one");
            let before = reply.offsets.len();
            let topic = at.last;
            let (seq, count, is_over) =
                self.find_offsets(request, &mut at, reply, items.saturating_sub(spent));
            of.last = of.last.max(seq);
            spent += count;
            of.bytes += reply.memory_bytes_from(before.min(reply.offsets.len()), topic);
            at.last = reply.offsets.last().map(|of| of.topic).or(topic);
            if of.bytes > of.bytes_max {
                reply.offsets = Vec::new();
                of.found.drain(..of.found.len() - 1);
            }
            if is_over {
                of.next += 1;
            } else {
                of.at = Some(at);
            }
        }
        (Some(Long::Fetch(of)), spent)
    }

    fn commit_some(&mut self, now: Now, mut of: Committing, items: usize) -> (Slice, usize) {
        let is_first = of.outcomes.is_empty();
        let some: Vec<_> = of.offsets.by_ref().take(items).collect();
        let spent = some.len();
        let (seq, outcomes) = self.commit_offsets(now, &of.request, some);
        of.outcomes.extend(outcomes);
        if of.offsets.len() > 0 {
            return (Some(Long::Commit(of)), spent);
        }
        let Committing { token, request, outcomes, mut next_commits, .. } = of;
        let reply = GroupReply::Commit(outcomes);
        if is_first {
            self.reply(seq, token, reply);
        } else {
            self.reply_after_all(token, reply);
        }
        match next_commits.pop_front() {
            Some((token, next)) => {
                debug_assert_eq!(next.group, request.group);
                (Some(committing(token, next, next_commits)), spent)
            }
            None => (None, spent),
        }
    }
}

fn committing(
    token: Token,
    mut request: CommitRequest,
    next_commits: VecDeque<(Token, CommitRequest)>,
) -> Long {
    let offsets = std::mem::take(&mut request.offsets).into_iter();
    Long::Commit(Committing { token, request, offsets, outcomes: Vec::new(), next_commits })
}

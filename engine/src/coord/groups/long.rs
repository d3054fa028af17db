//! Requests about very many groups or offsets, handled in slices of a few hundred items; all such requests together take turns for a few thousand
//! items per turn. Changes between slices may or may not be visible: a list of groups is not a snapshot.

use std::collections::VecDeque;
use std::ops::Bound;
use std::vec::IntoIter;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::coordinator::GroupCoordinator;
use super::limits::{LONG_ITEMS_PER_SLICE_MAX, LONG_ITEMS_PER_TURN_MAX};
use super::reply::{CommitOutcome, FetchReply, GroupReply, ListedGroup};
use super::request::{CommitRequest, CommittedPartition, FetchRequest, ListRequest, Now, Token};

/// A request in progress, with its results so far.
#[derive(Debug)]
pub(super) enum Long {
    List(Listing),
    Fetch(Fetching),
    Commit(Committing),
}

/// A list of groups.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) token: Token,
    pub(super) request: ListRequest,
    pub(super) listed: Vec<ListedGroup>,
    /// Bytes of the names listed so far.
    pub(super) bytes: usize,
}

/// A read of offsets of groups.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) token: Token,
    /// Whether the request was `FetchEach`, which determines the reply.
    pub(super) each: bool,
    pub(super) requests: IntoIter<FetchRequest>,
    pub(super) current: Option<FetchRequest>,
    pub(super) at: FetchAt,
    /// The replies so far; the last one is that of the current request.
    pub(super) found: Vec<FetchReply>,
    /// The last record that has to be durable before the reply.
    pub(super) last: u64,
}

/// Where in a group's offsets a request continues.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct FetchAt {
    /// After this partition, for a request that asks for all.
    pub(super) after: Option<(TopicId, PartitionIndex)>,
    /// Positions of the topic and the partition in the request, for one that names them.
    pub(super) topic: usize,
    pub(super) partition: usize,
}

/// A commit of offsets.
#[derive(Debug)]
pub(super) struct Committing {
    token: Token,
    /// Without its offsets.
    request: CommitRequest,
    offsets: IntoIter<CommittedPartition>,
    outcomes: Vec<CommitOutcome>,
    /// Later commits to the same group. They run after this one, so that no older offset overwrites a newer one.
    next_commits: VecDeque<(Token, CommitRequest)>,
}

/// The rest of a request after a slice; `None` once it was answered.
type Slice = Option<Long>;

impl GroupCoordinator {
    pub(super) fn list(&mut self, now: Now, token: Token, request: ListRequest) {
        self.begin(now, Long::List(Listing { token, request, listed: Vec::new(), bytes: 0 }));
    }

    pub(super) fn fetch(&mut self, now: Now, token: Token, each: bool, requests: Vec<FetchRequest>) {
        let found = Vec::with_capacity(requests.len());
        let requests = requests.into_iter();
        let at = FetchAt::default();
        self.begin(now, Long::Fetch(Fetching { token, each, requests, current: None, at, found, last: 0 }));
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

    /// Handles the first slice of a new request, unless others wait.
    fn begin(&mut self, now: Now, long: Long) {
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
        };
        self.long_items = self.long_items.saturating_sub(spent.max(1));
        slice
    }

    fn list_some(&mut self, mut listing: Listing, items: usize) -> (Slice, usize) {
        let request = &listing.request;
        let takes = |filter: &[String], value: &str| {
            filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
        };
        let from = match &request.after[..] {
            "" => Bound::Unbounded,
            after => Bound::Excluded(after),
        };
        let mut groups = self.groups.range::<str, _>((from, Bound::Unbounded)).peekable();
        let (mut spent, mut last) = (0, None);
        while spent < items
            && request.bytes_max.is_none_or(|max| listing.bytes <= max)
            && let Some((name, group)) = groups.next()
        {
            spent += 1;
            last = Some(name);
            let group = group.listed(name);
            if takes(&request.states, group.state) && takes(&request.types, group.group_type) {
                listing.bytes += name.len();
                listing.listed.push(group);
            }
        }
        let is_over = groups.peek().is_none() || request.bytes_max.is_some_and(|max| listing.bytes > max);
        if is_over {
            self.reply_now(listing.token, GroupReply::List(listing.listed));
            return (None, spent);
        }
        if let Some(last) = last {
            listing.request.after.clone_from(last);
        }
        (Some(Long::List(listing)), spent)
    }

    fn fetch_some(&mut self, mut fetching: Fetching, items: usize) -> (Slice, usize) {
        let mut spent = 0;
        while spent < items {
            let request = if let Some(request) = fetching.current.take() {
                request
            } else {
                let Some(request) = fetching.requests.next() else {
                    let Fetching { token, each, mut found, last, .. } = fetching;
                    let reply = if each {
                        GroupReply::FetchEach(found)
                    } else {
                        GroupReply::Fetch(found.pop().expect("one was asked for"))
                    };
                    self.reply(last, token, reply);
                    return (None, spent);
                };
                spent += 1;
                fetching.at = FetchAt::default();
                fetching.found.push(FetchReply { error: None, offsets: Vec::new() });
                request
            };
            let reply = fetching.found.last_mut().expect("each request has one");
            let (seq, count, is_over) =
                self.find_offsets(&request, &mut fetching.at, reply, items.saturating_sub(spent));
            fetching.last = fetching.last.max(seq);
            spent += count;
            if !is_over {
                fetching.current = Some(request);
            }
        }
        (Some(Long::Fetch(fetching)), spent)
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

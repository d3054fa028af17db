//! Requests about groups, which the coordinators of the groups carry out, each on its shard.
//!
//! A request that names several groups is split into one for each coordinator concerned ([`GroupCall::split`]), and their replies are joined
//! ([`GroupCall::join`]).

use std::collections::BTreeMap;

use highwater_runtime::plane::ShardIndex;

use crate::api::ApiError;
use crate::coord::groups::{
    CommitOutcome, CommitRequest, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, DeleteOffsetsRequest,
    DescribedConsumerGroup, DescribedGroup, FetchReply, FetchRequest, GroupError, GroupReply, GroupRequest,
    HeartbeatRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, ListRequest, ListedGroup, SyncReply,
    SyncRequest,
};
use crate::coord::placement::GroupOwners;
use crate::limits::GROUPS_PER_CALL_MAX;

/// Reads the offsets of groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FetchOffsets(
    /// The request for each group.
    pub(crate) Vec<FetchRequest>,
);

/// Describes groups of the classic protocol, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribeGroups(
    /// Names.
    pub(crate) Vec<String>,
);

/// Describes groups of the consumer protocol, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribeConsumerGroups(
    /// Names.
    pub(crate) Vec<String>,
);

/// Describes a group, whichever protocol its members speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribeOneGroup(
    /// Name.
    pub(crate) String,
);

/// The reply to [`DescribeOneGroup`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DescribedOneGroup {
    /// Its members speak the classic protocol.
    Classic(DescribedGroup),
    /// Its members speak the consumer protocol.
    Consumer(DescribedConsumerGroup),
}

/// Deletes groups, by name. The reply has the outcome for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeleteGroups(
    /// Names.
    pub(crate) Vec<String>,
);

/// The reply to a [`ListRequest`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct GroupList {
    /// The groups, by name.
    pub(crate) groups: Vec<ListedGroup>,
    /// Whether more follow, because the list was cut.
    pub(crate) is_cut: bool,
}

/// The part of a call for one coordinator.
#[derive(Debug)]
pub(crate) struct Part<C> {
    /// Its shard.
    pub(crate) shard: ShardIndex,
    /// The request.
    pub(crate) call: C,
    /// The positions of its entries in the whole call, if it names several groups.
    pub(crate) places: Vec<u32>,
}

/// A reply to a part of a call, with the positions of its entries.
pub(crate) type PartReply<R> = (Vec<u32>, Result<R, ApiError>);

/// A request about groups with the type of its reply.
pub(crate) trait GroupCall: Sized + 'static {
    /// The type of the reply.
    type Reply: 'static;

    /// Returns the request to send.
    fn into_request(self) -> GroupRequest;

    /// Returns the reply, if it is of the right kind.
    fn reply_of(reply: GroupReply) -> Result<Self::Reply, ApiError>;

    /// Returns the reply while there are no groups, if it is known without the topic that keeps them. Such a call does not create the topic.
    fn without_groups() -> Option<Self::Reply> {
        None
    }

    /// Splits the call into a part for each coordinator, and at least one part.
    fn split(self, owners: &GroupOwners) -> Vec<Part<Self>>;

    /// Joins the replies to all parts.
    fn join(replies: Vec<PartReply<Self::Reply>>) -> Result<Self::Reply, ApiError>;
}

/// A request about groups whose reply may be much larger than itself, so that memory has to be reserved for it.
pub(crate) trait MeasuredCall: GroupCall + Clone {
    /// Returns the request that came back because its reply needs more memory.
    fn returned(request: GroupRequest) -> Result<Self, ApiError>;

    /// Returns the request to send, for a reply of at most `bytes_max` bytes in memory.
    fn within(self, bytes_max: usize) -> GroupRequest {
        GroupRequest::Within { request: Box::new(self.into_request()), bytes_max }
    }

    /// Returns the reply to such a request, if it is of the right kind.
    fn measured(reply: GroupReply) -> Result<Measured<Self>, ApiError> {
        match reply {
            GroupReply::NeedsMemory { bytes, request } => {
                Self::returned(*request).map(|call| Measured::NeedsMemory(bytes, call))
            }
            reply => Self::reply_of(reply).map(Measured::Fits),
        }
    }
}

/// The reply to a request with a limit for the memory of its reply.
#[derive(Debug)]
pub(crate) enum Measured<C: GroupCall> {
    /// The reply is within the limit.
    Fits(C::Reply),
    /// The reply needs this many bytes of memory, more than the limit. The request is returned.
    NeedsMemory(usize, C),
}

const NO_REPLY: ApiError = ApiError::Internal("a coordinator did not reply for every group");

/// Returns the only reply, to a call about one group.
fn only<R>(replies: Vec<PartReply<R>>) -> Result<R, ApiError> {
    replies.into_iter().next().map_or(Err(NO_REPLY), |(_, reply)| reply)
}

/// Splits a list by the coordinators of the groups that its entries name.
fn by_owner<T>(
    entries: Vec<T>,
    owners: &GroupOwners,
    group: fn(&T) -> &str,
) -> BTreeMap<ShardIndex, (Vec<T>, Vec<u32>)> {
    let mut parts: BTreeMap<ShardIndex, (Vec<T>, Vec<u32>)> = BTreeMap::new();
    for (place, entry) in (0..).zip(entries) {
        let (entries, places) = parts.entry(owners.of(group(&entry))).or_default();
        entries.push(entry);
        places.push(place);
    }
    if parts.is_empty() {
        parts.insert(owners.of(""), Default::default());
    }
    parts
}

fn to_parts<C, T>(parts: BTreeMap<ShardIndex, (Vec<T>, Vec<u32>)>, call: fn(Vec<T>) -> C) -> Vec<Part<C>> {
    let parts =
        parts.into_iter().map(|(shard, (entries, places))| Part { shard, call: call(entries), places });
    parts.collect()
}

/// Puts the entries of all replies in the order of the call.
fn in_order<T>(replies: Vec<PartReply<Vec<T>>>) -> Result<Vec<T>, ApiError> {
    let count = replies.iter().map(|(places, _)| places.len()).sum();
    let mut all: Vec<Option<T>> = Vec::new();
    all.resize_with(count, || None);
    for (places, entries) in replies {
        for (place, entry) in places.into_iter().zip(entries?) {
            if let Some(slot) = all.get_mut(place as usize) {
                *slot = Some(entry);
            }
        }
    }
    all.into_iter().collect::<Option<Vec<T>>>().ok_or(NO_REPLY)
}

macro_rules! calls_of_one_group {
    ($($call:ty => $reply:ty { $request:ident, $pattern:pat => $value:expr })+) => {$(
        impl GroupCall for $call {
            type Reply = $reply;

            fn into_request(self) -> GroupRequest {
                GroupRequest::$request(self)
            }

            fn reply_of(reply: GroupReply) -> Result<Self::Reply, ApiError> {
                match reply {
                    $pattern => Ok($value),
                    other => Err(ApiError::wrong_reply(&other)),
                }
            }

            fn split(self, owners: &GroupOwners) -> Vec<Part<Self>> {
                Vec::from([Part { shard: owners.of(&self.group), call: self, places: Vec::new() }])
            }

            fn join(replies: Vec<PartReply<Self::Reply>>) -> Result<Self::Reply, ApiError> {
                only(replies)
            }
        }
    )+};
}

calls_of_one_group! {
    JoinRequest => JoinReply { Join, GroupReply::Join(reply) => reply }
    SyncRequest => SyncReply { Sync, GroupReply::Sync(reply) => reply }
    HeartbeatRequest => Option<GroupError> { Heartbeat, GroupReply::Heartbeat(error) => error }
    LeaveRequest => LeaveReply { Leave, GroupReply::Leave(reply) => reply }
    CommitRequest => Vec<CommitOutcome> { Commit, GroupReply::Commit(outcomes) => outcomes }
    DeleteOffsetsRequest => Result<Vec<CommitOutcome>, GroupError> {
        DeleteOffsets, GroupReply::DeleteOffsets(outcomes) => outcomes
    }
    ConsumerHeartbeatRequest => ConsumerHeartbeatReply {
        ConsumerHeartbeat, GroupReply::ConsumerHeartbeat(reply) => reply
    }
}

macro_rules! calls_of_many_groups {
    ($($call:ident => $entry:ty { $request:ident, $reply:ident, $group:expr })+) => {$(
        impl GroupCall for $call {
            type Reply = Vec<$entry>;

            fn into_request(self) -> GroupRequest {
                GroupRequest::$request(self.0)
            }

            fn reply_of(reply: GroupReply) -> Result<Self::Reply, ApiError> {
                match reply {
                    GroupReply::$reply(entries) => Ok(entries),
                    other => Err(ApiError::wrong_reply(&other)),
                }
            }

            fn split(self, owners: &GroupOwners) -> Vec<Part<Self>> {
                to_parts(by_owner(self.0, owners, $group), Self)
            }

            fn join(replies: Vec<PartReply<Self::Reply>>) -> Result<Self::Reply, ApiError> {
                in_order(replies)
            }
        }

        impl MeasuredCall for $call {
            fn returned(request: GroupRequest) -> Result<Self, ApiError> {
                match request {
                    GroupRequest::$request(entries) => Ok(Self(entries)),
                    other => Err(ApiError::wrong_reply(&other)),
                }
            }
        }
    )+};
}

calls_of_many_groups! {
    FetchOffsets => FetchReply { Fetch, Fetch, |request| &request.group }
    DescribeGroups => (String, Result<DescribedGroup, GroupError>) { Describe, Describe, |name| name }
    DescribeConsumerGroups => (String, Result<DescribedConsumerGroup, GroupError>) {
        ConsumerDescribe, ConsumerDescribe, |name| name
    }
}

impl GroupCall for DeleteGroups {
    type Reply = Vec<Result<Option<GroupError>, ApiError>>;

    fn into_request(self) -> GroupRequest {
        GroupRequest::Delete(self.0)
    }

    fn reply_of(reply: GroupReply) -> Result<Self::Reply, ApiError> {
        match reply {
            GroupReply::Delete(outcomes) => Ok(outcomes.into_iter().map(|(_, error)| Ok(error)).collect()),
            other => Err(ApiError::wrong_reply(&other)),
        }
    }

    /// A part has at most [`GROUPS_PER_CALL_MAX`] groups.
    fn split(self, owners: &GroupOwners) -> Vec<Part<Self>> {
        let mut parts = Vec::new();
        for (shard, (mut names, mut places)) in by_owner(self.0, owners, |name| name) {
            while names.len() > GROUPS_PER_CALL_MAX {
                let at = names.len() - GROUPS_PER_CALL_MAX;
                let (names, places) = (names.split_off(at), places.split_off(at));
                parts.push(Part { shard, call: Self(names), places });
            }
            parts.push(Part { shard, call: Self(names), places });
        }
        parts
    }

    /// An error of one coordinator applies to its groups only: the others may have been deleted.
    fn join(replies: Vec<PartReply<Self::Reply>>) -> Result<Self::Reply, ApiError> {
        let each = replies.into_iter().map(|(places, reply)| {
            let outcomes = reply.unwrap_or_else(|error| places.iter().map(|_| Err(error.clone())).collect());
            (places, Ok(outcomes))
        });
        in_order(each.collect())
    }
}

impl GroupCall for ListRequest {
    type Reply = GroupList;

    fn without_groups() -> Option<GroupList> {
        Some(GroupList::default())
    }

    fn into_request(self) -> GroupRequest {
        GroupRequest::List(self)
    }

    fn reply_of(reply: GroupReply) -> Result<Self::Reply, ApiError> {
        match reply {
            GroupReply::List { groups, is_cut } => Ok(GroupList { groups, is_cut }),
            other => Err(ApiError::wrong_reply(&other)),
        }
    }

    /// Every coordinator lists its groups. If the size of the list is limited, each gets an equal share.
    fn split(mut self, owners: &GroupOwners) -> Vec<Part<Self>> {
        let shards = owners.shards();
        self.cut_at_bytes = self.cut_at_bytes.map(|bytes| bytes / shards.len());
        let part = |shard| Part { shard, call: self.clone(), places: Vec::new() };
        shards.into_iter().map(part).collect()
    }

    /// Merges the lists. Groups after the end of a cut list are left out, because that list may lack groups before them.
    fn join(replies: Vec<PartReply<Self::Reply>>) -> Result<Self::Reply, ApiError> {
        let mut all = GroupList::default();
        let mut end: Option<String> = None;
        for (_, reply) in replies {
            let GroupList { mut groups, is_cut } = reply?;
            let last = groups.last().filter(|_| is_cut).map(|last| last.group.clone());
            end = match (end, last) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            all.groups.append(&mut groups);
            all.is_cut |= is_cut;
        }
        // The sort merges sorted runs efficiently.
        all.groups.sort_by(|a, b| a.group.cmp(&b.group));
        if let Some(end) = end {
            let count = all.groups.partition_point(|group| group.group <= end);
            all.groups.truncate(count);
        }
        Ok(all)
    }
}

impl MeasuredCall for ListRequest {
    fn returned(request: GroupRequest) -> Result<Self, ApiError> {
        match request {
            GroupRequest::List(request) => Ok(request),
            other => Err(ApiError::wrong_reply(&other)),
        }
    }
}

impl GroupCall for DescribeOneGroup {
    type Reply = Result<DescribedOneGroup, GroupError>;

    fn into_request(self) -> GroupRequest {
        GroupRequest::DescribeOne(self.0)
    }

    fn reply_of(reply: GroupReply) -> Result<Self::Reply, ApiError> {
        let none = ApiError::Internal("no group was described");
        match reply {
            GroupReply::Describe(mut groups) => {
                groups.pop().map(|(_, found)| found.map(DescribedOneGroup::Classic)).ok_or(none)
            }
            GroupReply::ConsumerDescribe(mut groups) => {
                groups.pop().map(|(_, found)| found.map(DescribedOneGroup::Consumer)).ok_or(none)
            }
            other => Err(ApiError::wrong_reply(&other)),
        }
    }

    fn split(self, owners: &GroupOwners) -> Vec<Part<Self>> {
        Vec::from([Part { shard: owners.of(&self.0), call: self, places: Vec::new() }])
    }

    fn join(replies: Vec<PartReply<Self::Reply>>) -> Result<Self::Reply, ApiError> {
        only(replies)
    }
}

impl MeasuredCall for DescribeOneGroup {
    fn returned(request: GroupRequest) -> Result<Self, ApiError> {
        match request {
            GroupRequest::Describe(mut names) | GroupRequest::ConsumerDescribe(mut names) => {
                names.pop().map(Self).ok_or(ApiError::Internal("the returned request names no group"))
            }
            other => Err(ApiError::wrong_reply(&other)),
        }
    }
}

#[cfg(test)]
mod tests;

//! Descriptions of groups of either protocol, made in slices, because a group may have ten thousand members.
//!
//! A group may change between slices, so a description is not a snapshot. If a group is deleted or changes its protocol meanwhile, its
//! description ends there.

use std::ops::Bound;

use super::classic::ClassicGroup;
use super::consumer::ConsumerGroup;
use super::coordinator::{GroupCoordinator, Kind};
use super::error::GroupError;
use super::limits::DESCRIBED_PARTITIONS_PER_ITEM;
use super::long::{Long, Slice};
use super::reply::{
    DescribedConsumerGroup, DescribedConsumerMember, DescribedGroup, DescribedMember, GroupReply,
};
use super::request::{GroupRequest, Now, Token};

/// The protocol of the groups to describe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Classic,
    Consumer,
}

/// The description of a group of one protocol.
pub(super) trait Description: Sized {
    type Group;
    type Member;

    /// Returns the group if it uses this protocol.
    fn of(kind: &Kind) -> Option<&Self::Group>;

    /// Describes the group without its members.
    fn head(group: &Self::Group) -> Self;

    /// Describes members, from this bound on.
    fn members_from(group: &Self::Group, from: Bound<&str>) -> impl Iterator<Item = Self::Member>;

    fn members_mut(&mut self) -> &mut Vec<Self::Member>;

    fn id(member: &Self::Member) -> &str;

    /// Returns the bytes of a member's description in memory, and its cost in items.
    fn cost(member: &Self::Member) -> (usize, usize);

    fn reply(described: Vec<Described<Self>>) -> GroupReply;

    fn request(names: Vec<String>) -> GroupRequest;

    fn long(describing: Describing<Self>) -> Long;
}

/// A group's name, and its description.
type Described<D> = (String, Result<D, GroupError>);

/// A request in progress.
#[derive(Debug)]
pub(super) struct Describing<D> {
    pub(super) token: Token,
    names: Vec<String>,
    /// The index of the current group in `names`.
    next: usize,
    /// The member after which the description of the current group continues; `None` before the description begins.
    after: Option<String>,
    /// The descriptions so far; emptied when they would exceed `bytes_max`.
    described: Vec<Described<D>>,
    bytes: usize,
    bytes_max: usize,
}

/// Approximate bytes of a group's description in memory, apart from its name and members.
const GROUP_BYTES: usize = 256;

impl GroupCoordinator {
    pub(super) fn describe(
        &mut self,
        now: Now,
        token: Token,
        protocol: Protocol,
        names: Vec<String>,
        bytes_max: usize,
    ) {
        let long = match protocol {
            Protocol::Classic => DescribedGroup::long(Describing::new(token, names, bytes_max)),
            Protocol::Consumer => DescribedConsumerGroup::long(Describing::new(token, names, bytes_max)),
        };
        self.begin(now, long);
    }

    pub(super) fn describe_some<D: Description>(
        &mut self,
        mut of: Describing<D>,
        items: usize,
    ) -> (Slice, usize) {
        let mut spent = 0;
        while spent < items {
            let Some(name) = of.names.get(of.next) else {
                let Describing { token, names, described, bytes, bytes_max, .. } = of;
                let reply = if bytes > bytes_max {
                    GroupReply::NeedsMemory { bytes, request: Box::new(D::request(names)) }
                } else {
                    D::reply(described)
                };
                self.reply_now(token, reply);
                return (None, spent);
            };
            spent += 1;
            let group = self.groups.get(name).and_then(|group| D::of(&group.kind));
            if of.after.is_none() {
                let head = group.map(D::head).ok_or(GroupError::GroupIdNotFound);
                of.bytes += GROUP_BYTES + name.len();
                of.described.push((name.clone(), head));
            }
            let from = of.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut last = None;
            let mut is_complete = true;
            for member in group.into_iter().flat_map(|group| D::members_from(group, from)) {
                if spent >= items {
                    is_complete = false;
                    break;
                }
                let (bytes, count) = D::cost(&member);
                of.bytes += bytes;
                spent += count;
                last = Some(D::id(&member).to_owned());
                if of.bytes <= of.bytes_max
                    && let Some((_, Ok(described))) = of.described.last_mut()
                {
                    described.members_mut().push(member);
                }
            }
            if of.bytes > of.bytes_max {
                of.described = Vec::new();
            }
            if is_complete {
                (of.next, of.after) = (of.next + 1, None);
            } else {
                // No member has an empty id.
                of.after = Some(last.or(of.after).unwrap_or_default());
            }
        }
        (Some(D::long(of)), spent)
    }
}

impl<D> Describing<D> {
    fn new(token: Token, names: Vec<String>, bytes_max: usize) -> Self {
        let described = Vec::with_capacity(names.len());
        Self { token, names, next: 0, after: None, described, bytes: 0, bytes_max }
    }
}

impl Description for DescribedGroup {
    type Group = ClassicGroup;
    type Member = DescribedMember;

    fn of(kind: &Kind) -> Option<&ClassicGroup> {
        match kind {
            Kind::Classic(group) => Some(group),
            Kind::Consumer(_) => None,
        }
    }

    fn head(group: &ClassicGroup) -> Self {
        group.describe()
    }

    fn members_from(group: &ClassicGroup, from: Bound<&str>) -> impl Iterator<Item = DescribedMember> {
        group.describe_members(from)
    }

    fn members_mut(&mut self) -> &mut Vec<DescribedMember> {
        &mut self.members
    }

    fn id(member: &DescribedMember) -> &str {
        &member.member
    }

    fn cost(member: &DescribedMember) -> (usize, usize) {
        (member.memory_bytes(), 1)
    }

    fn reply(described: Vec<Described<Self>>) -> GroupReply {
        GroupReply::Describe(described)
    }

    fn request(names: Vec<String>) -> GroupRequest {
        GroupRequest::Describe(names)
    }

    fn long(describing: Describing<Self>) -> Long {
        Long::Describe(describing)
    }
}

impl Description for DescribedConsumerGroup {
    type Group = ConsumerGroup;
    type Member = DescribedConsumerMember;

    fn of(kind: &Kind) -> Option<&ConsumerGroup> {
        match kind {
            Kind::Consumer(group) => Some(group),
            Kind::Classic(_) => None,
        }
    }

    fn head(group: &ConsumerGroup) -> Self {
        group.describe()
    }

    fn members_from(
        group: &ConsumerGroup,
        from: Bound<&str>,
    ) -> impl Iterator<Item = DescribedConsumerMember> {
        group.describe_members(from)
    }

    fn members_mut(&mut self) -> &mut Vec<DescribedConsumerMember> {
        &mut self.members
    }

    fn id(member: &DescribedConsumerMember) -> &str {
        &member.member
    }

    fn cost(member: &DescribedConsumerMember) -> (usize, usize) {
        let partitions: usize =
            member.assignment.iter().chain(&member.target).map(|(_, partitions)| partitions.len()).sum();
        let names = member.topic_names.len();
        (member.memory_bytes(), 1 + names + partitions / DESCRIBED_PARTITIONS_PER_ITEM)
    }

    fn reply(described: Vec<Described<Self>>) -> GroupReply {
        GroupReply::ConsumerDescribe(described)
    }

    fn request(names: Vec<String>) -> GroupRequest {
        GroupRequest::ConsumerDescribe(names)
    }

    fn long(describing: Describing<Self>) -> Long {
        Long::ConsumerDescribe(describing)
    }
}

use std::sync::Arc;

use highwater_protocol::ids::{NodeId, StoreId, TopicId};
use highwater_protocol::topic::GROUPS_TOPIC;

use super::*;
use crate::meta::configs::TopicConfig;
use crate::meta::{Assignment, Topic};

/// Returns the owners with three shards, which own partitions in turn.
fn owners() -> GroupOwners {
    let topic = Topic {
        id: TopicId([1; 16]),
        name: GROUPS_TOPIC.into(),
        assignment: Assignment::local(NodeId(0), [0, 1, 2, 3, 4, 5, 6].map(StoreId)),
        configs: BTreeMap::new(),
        config: TopicConfig::resolve(&BTreeMap::new()).expect("defaults"),
    };
    GroupOwners::new(Arc::new(topic), 3)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("group-{n}")).collect()
}

fn listed(group: &str) -> ListedGroup {
    ListedGroup { group: group.into(), protocol_type: String::new(), state: "Empty", group_type: "classic" }
}

#[test]
fn a_call_for_many_groups_is_split_by_coordinator_and_its_replies_keep_the_order() {
    let parts = DescribeGroups(names(100)).split(&owners());
    assert_eq!(parts.iter().map(|part| part.shard).collect::<Vec<_>>(), [0, 1, 2]);
    let unknown = |name| (name, Err(GroupError::GroupIdNotFound));
    let replies = parts.into_iter().rev().map(|part| {
        assert!(part.call.0.iter().all(|name| owners().of(name) == part.shard));
        (part.places, Ok(part.call.0.into_iter().map(unknown).collect::<Vec<_>>()))
    });
    let joined = DescribeGroups::join(replies.collect()).expect("all have replied");
    assert!(joined.into_iter().map(|(name, _)| name).eq(names(100)));
}

#[test]
fn a_missing_entry_in_a_reply_fails_the_call() {
    let parts = DescribeGroups(names(3)).split(&owners());
    let replies = parts.into_iter().map(|part| (part.places, Ok(Vec::new())));
    assert_eq!(DescribeGroups::join(replies.collect()), Err(NO_REPLY));
    assert_eq!(FetchOffsets::join(Vec::new()), Ok(Vec::new()));
    assert_eq!(FetchOffsets(Vec::new()).split(&owners()).len(), 1, "an empty call still gets a reply");
}

#[test]
fn an_error_of_one_coordinator_fails_only_the_groups_it_was_to_delete() {
    let count = 7 * GROUPS_PER_CALL_MAX;
    let parts = DeleteGroups(names(count)).split(&owners());
    assert!(parts.iter().all(|part| part.call.0.len() <= GROUPS_PER_CALL_MAX));
    let error = ApiError::Internal("because");
    let replies = parts.into_iter().map(|part| {
        let deleted = part.places.iter().map(|_| Ok(None)).collect();
        (part.places, if part.shard == 1 { Err(error.clone()) } else { Ok(deleted) })
    });
    let outcomes = DeleteGroups::join(replies.collect()).expect("an outcome for each");
    for (name, outcome) in names(count).iter().zip(outcomes) {
        assert_eq!(outcome.is_err(), owners().of(name) == 1, "{name}");
    }
}

#[test]
fn lists_are_merged_up_to_the_earliest_cut() {
    let list = |names: &[&str], is_cut| {
        (Vec::new(), Ok(GroupList { groups: names.iter().copied().map(listed).collect(), is_cut }))
    };
    let names = |list: Result<GroupList, ApiError>| {
        let list = list.expect("a list");
        (list.groups.into_iter().map(|group| group.group).collect::<String>(), list.is_cut)
    };
    let all = vec![list(&["b", "d"], false), list(&["a", "c"], false), list(&[], false)];
    assert_eq!(names(ListRequest::join(all)), ("abcd".into(), false));
    let cut = vec![list(&["b", "f"], true), list(&["a", "c"], true), list(&["d"], false)];
    assert_eq!(names(ListRequest::join(cut)), ("abc".into(), true));
}

#[test]
fn a_reply_of_another_kind_fails_its_call() {
    let nothing = GroupReply::Describe(Vec::new());
    assert!(matches!(DescribeOneGroup::reply_of(nothing), Err(ApiError::Internal(_))));
    let other = GroupReply::Heartbeat(None);
    assert!(matches!(ListRequest::reply_of(other), Err(ApiError::Internal(_))));
}

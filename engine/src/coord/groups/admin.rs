//! Requests of administrators: list, describe and delete groups.

use super::coordinator::{Group, GroupCoordinator, Kind};
use super::error::GroupError;
use super::record::Record;
use super::reply::{GroupReply, ListedGroup};
use super::request::Token;

/// Protocol type of consumers.
const CONSUMER: &str = "consumer";

impl Group {
    pub(super) fn listed(&self, name: &str) -> ListedGroup {
        let (protocol_type, state, group_type) = match &self.kind {
            Kind::Classic(group) => (group.protocol_type(), group.state().name(), "classic"),
            Kind::Consumer(group) => (CONSUMER, group.state_name(), CONSUMER),
        };
        ListedGroup { group: name.to_owned(), protocol_type: protocol_type.to_owned(), state, group_type }
    }
}

impl GroupCoordinator {
    pub(super) fn delete(&mut self, token: Token, groups: Vec<String>) {
        let mut outcomes = Vec::with_capacity(groups.len());
        for name in groups {
            let error = match self.groups.get(&name) {
                None => Some(GroupError::GroupIdNotFound),
                Some(group) if !group.is_empty() => Some(GroupError::NonEmptyGroup),
                Some(_) if self.stalled => Some(GroupError::CoordinatorNotAvailable),
                Some(_) => None,
            };
            if error.is_none() {
                tracing::info!(group = name, "group deleted");
                self.remove(&name);
                self.append(&Record::GroupDeleted(name.clone()));
            }
            outcomes.push((name, error));
        }
        self.reply_after_all(token, GroupReply::Delete(outcomes));
    }
}

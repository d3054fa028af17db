//! Entries of group lists.

use super::coordinator::{Group, Kind};
use super::reply::ListedGroup;

/// Protocol type of consumer groups.
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

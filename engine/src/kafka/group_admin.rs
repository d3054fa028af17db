//! ListGroups and DeleteGroups. Descriptions are in `group_describe.rs`.

use std::borrow::Cow;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DeletedGroup, ListGroupsRequest, ListGroupsResponse,
    ListedGroup,
};
use highwater_net::kafka::schema::Message as _;
use highwater_net::kafka::wire::Wire as _;
use highwater_net::{Entries, Pieces};

use super::Call;
use super::error::code;
use super::names::distinct;
use crate::calls::DeleteGroups;
use crate::context::{AnswerTo, Context};
use crate::coord::groups;
use crate::limits::KAFKA_FILTERS_MAX;

/// Returns the names without duplicates: a group's description can be many times as long as its name.
pub(super) fn distinct_names(names: &[&str]) -> Vec<String> {
    distinct(names.iter().copied()).map(str::to_owned).collect()
}

/// The groups of a ListGroups response.
#[derive(Debug)]
struct ListedGroups {
    version: i16,
    groups: Vec<groups::ListedGroup>,
}

impl Entries for ListedGroups {
    fn count(&self) -> usize {
        self.groups.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let group = &self.groups[entry];
        let listed = ListedGroup {
            group_id: Cow::Borrowed(&group.group),
            protocol_type: Cow::Borrowed(&group.protocol_type),
            group_state: Cow::Borrowed(group.state),
            group_type: Cow::Borrowed(group.group_type),
        };
        listed.write(out, ListGroupsResponse::form(self.version));
        false
    }

    fn memory_bytes(&self) -> usize {
        // The `ReplyMemory` counts it.
        0
    }
}

pub(super) fn list_groups(context: &mut Context<'_>, call: Call, request: &ListGroupsRequest<'_>) {
    let ask = groups::ListRequest {
        states: distinct_names(&request.states_filter),
        types: distinct_names(&request.types_filter),
        ..Default::default()
    };
    if ask.states.len() + ask.types.len() > KAFKA_FILTERS_MAX {
        let error_code = KafkaError::INVALID_REQUEST;
        return context.answer(call, &ListGroupsResponse { error_code, ..Default::default() });
    }
    context.ask_measured(AnswerTo::Kafka(call), ask, move |context, reply, memory| {
        let (error_code, groups) = match reply {
            Ok(list) => (KafkaError::NONE, list.groups),
            Err(error) => (error.into(), Vec::new()),
        };
        let version = call.version();
        let response = ListGroupsResponse { error_code, ..Default::default() };
        let Frame { front, back } = response.frame(version, groups.len());
        let pieces = memory.hold(front, ListedGroups { version, groups }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

/// The groups of a DeleteGroups response.
#[derive(Debug)]
struct DeletedGroups {
    version: i16,
    groups: Vec<(String, KafkaError)>,
}

impl Entries for DeletedGroups {
    fn count(&self) -> usize {
        self.groups.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let (name, error_code) = &self.groups[entry];
        let deleted = DeletedGroup { group_id: Cow::Borrowed(name), error_code: *error_code };
        deleted.write(out, DeleteGroupsResponse::form(self.version));
        false
    }

    fn memory_bytes(&self) -> usize {
        let names: usize = self.groups.iter().map(|(name, _)| name.len()).sum();
        names + size_of_val(&self.groups[..])
    }
}

pub(super) fn delete_groups(context: &mut Context<'_>, call: Call, request: &DeleteGroupsRequest<'_>) {
    let names = distinct_names(&request.groups_names);
    context.ask_group(call.conn, DeleteGroups(names.clone()), move |context, outcomes| {
        let groups: Vec<_> = match outcomes {
            Ok(outcomes) => {
                let codes = outcomes.into_iter().map(|outcome| outcome.map_or_else(Into::into, code));
                names.into_iter().zip(codes).collect()
            }
            Err(error) => {
                let error = KafkaError::from(error);
                names.into_iter().map(|name| (name, error)).collect()
            }
        };
        let version = call.version();
        let Frame { front, back } = DeleteGroupsResponse::default().frame(version, groups.len());
        let pieces = Pieces::new(front, DeletedGroups { version, groups }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

//! The persisted form of a group of the classic protocol.

use std::sync::Arc;

use bytes::Bytes;

use super::{CONSUMER, ClassicGroup, Member, State};
use crate::coord::groups::effects::Context;
use crate::coord::groups::record::{ClassicMemberRecord, ClassicRecord, Record};
use crate::coord::groups::request::Client;

impl ClassicGroup {
    /// Persists the current state of the group.
    pub(super) fn persist(&mut self, cx: &mut Context<'_>) {
        let members = self.members.iter().map(|(id, m)| ClassicMemberRecord {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client.id.clone(),
            client_host: m.client.host.clone(),
            rebalance_timeout_ms: m.rebalance_timeout_ms,
            session_timeout_ms: m.session_timeout_ms,
            protocols: m.protocols.iter().map(|(name, metadata)| (name.clone(), metadata.to_vec())).collect(),
            assignment: m.assignment.to_vec(),
        });
        let record = ClassicRecord {
            group: self.name.clone(),
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: members.collect(),
        };
        self.persisted = Some(Arc::new(record.clone()));
        cx.persist(Record::Classic(record));
    }

    /// Creates the classic group that replaces an empty consumer group. It is persisted even if no member completes its join: after a restart
    /// it must not be a consumer group again.
    pub(in crate::coord::groups) fn replace_consumer_group(
        cx: &mut Context<'_>,
        name: &str,
        since_ms: i64,
    ) -> Self {
        let mut group = Self::new(name, since_ms);
        group.protocol_type = Some(CONSUMER.to_owned());
        group.persist(cx);
        group
    }

    /// Returns the last persisted record.
    pub(in crate::coord::groups) fn persisted(&self) -> Option<&ClassicRecord> {
        self.persisted.as_deref()
    }

    /// Restores a group from its record. Session timeouts start with [`Self::resume`].
    pub(in crate::coord::groups) fn restore(record: ClassicRecord) -> Self {
        let mut group = Self::new(&record.group, record.since_ms);
        group.state = if record.members.is_empty() { State::Empty } else { State::Stable };
        group.protocol_type.clone_from(&record.protocol_type);
        group.generation = record.generation;
        group.protocol.clone_from(&record.protocol);
        group.leader.clone_from(&record.leader);
        for m in &record.members {
            if let Some(instance) = &m.instance {
                group.instances.insert(instance.clone(), m.member.clone());
            }
            let protocols = m.protocols.iter().map(|(n, b)| (n.clone(), Bytes::copy_from_slice(b))).collect();
            let member = Member {
                instance: m.instance.clone(),
                client: Client { id: m.client_id.clone(), host: m.client_host.clone() },
                rebalance_timeout_ms: m.rebalance_timeout_ms,
                session_timeout_ms: m.session_timeout_ms,
                protocols,
                assignment: Bytes::copy_from_slice(&m.assignment),
                joining: None,
                syncing: None,
                is_new: false,
                deadline: None,
            };
            group.members.insert(m.member.clone(), member);
        }
        group.persisted = Some(Arc::new(record));
        group
    }

    /// Starts the session timeouts of all members.
    pub(in crate::coord::groups) fn resume(&mut self, cx: &Context<'_>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.renew_session(cx, &id);
        }
    }
}

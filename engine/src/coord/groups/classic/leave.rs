//! LeaveGroup: removes one or more members. Static members may be named by instance id only.

use super::{ClassicGroup, State};
use crate::coord::groups::effects::Context;
use crate::coord::groups::error::GroupError;
use crate::coord::groups::reply::LeaveReply;

impl ClassicGroup {
    /// Handles LeaveGroup. Members are named by member id (may be empty for a static one) and instance id.
    pub(in crate::coord::groups) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        members: Vec<(String, Option<String>)>,
    ) -> LeaveReply {
        let mut left = false;
        let mut outcomes = Vec::with_capacity(members.len());
        for (id, instance) in members {
            let error = self.leave_one(cx, &id, instance.as_deref()).err();
            left |= error.is_none();
            outcomes.push((id, instance, error));
        }
        if left {
            match self.state {
                State::Stable | State::Completing => self.prepare(cx),
                State::Preparing => self.maybe_complete(cx),
                State::Empty => {}
            }
        }
        LeaveReply { error: None, members: outcomes }
    }

    fn leave_one(
        &mut self,
        cx: &mut Context<'_>,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(), GroupError> {
        let id = if id.is_empty() {
            instance.and_then(|i| self.instances.get(i)).cloned().ok_or(GroupError::UnknownMemberId)?
        } else if self.pending.remove(id).is_some() {
            cx.resized = true;
            return Ok(());
        } else {
            self.check_member(id, instance)?;
            id.to_owned()
        };
        self.remove(cx, &id);
        Ok(())
    }
}

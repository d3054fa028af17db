//! Members of the classic protocol, and how their leaders assign.

use super::actor::{Manner, Phase};
use super::*;

/// The subscription to "one", and behind it what the member has.
fn metadata(owned: &[u32]) -> Bytes {
    let mut bytes = b"\x00\x01\x00\x00\x00\x01\x00\x03one".to_vec();
    bytes.extend(owned.iter().map(|p| *p as u8));
    Bytes::from(bytes)
}

impl Actor {
    pub(super) fn act_classic(&mut self, world: &mut World, n: usize) {
        // A leader sees to it that new partitions are assigned.
        if self.phase == Phase::In && !(self.leads && self.assigned != world.partitions) {
            let request = HeartbeatRequest {
                group: self.group().into(),
                member: self.member.clone(),
                instance: self.instance.clone(),
                generation: self.generation,
            };
            return self.request(world, n, GroupRequest::Heartbeat(request));
        }
        if self.manner == Manner::Eager {
            self.owned.clear();
        }
        self.phase = Phase::Joining;
        let kept: &[u32] = if self.manner == Manner::Cooperative { &self.owned } else { &[] };
        let request = JoinRequest {
            instance: self.instance.clone(),
            protocols: vec![("p".into(), metadata(kept))],
            requires_member_id: world.odds(2),
            can_skip_assignment: true,
            rebalance_timeout_ms: 20_000,
            ..join(self.group(), &self.member)
        };
        self.request(world, n, GroupRequest::Join(request));
    }

    pub(super) fn on_joined(&mut self, world: &mut World, n: usize, reply: JoinReply) {
        self.phase = Phase::Out;
        match reply.error {
            Some(GroupError::MemberIdRequired) => {
                self.member = reply.member;
                self.next_at = world.ms;
            }
            Some(GroupError::FencedInstanceId) => self.is_over = true,
            Some(GroupError::UnknownMemberId) => self.forget(),
            Some(_) => {}
            None => {
                self.member.clone_from(&reply.member);
                self.generation = reply.generation;
                self.leads = reply.leader == self.member;
                let assignments = if reply.leader == self.member && !reply.skip_assignment {
                    Self::assign(world, &reply)
                } else {
                    vec![]
                };
                if !assignments.is_empty() {
                    self.assigned = world.partitions;
                }
                self.phase = Phase::Syncing;
                let request = SyncRequest {
                    group: self.group().into(),
                    member: self.member.clone(),
                    instance: self.instance.clone(),
                    generation: self.generation,
                    protocol_type: Some("consumer".into()),
                    protocol: Some("p".into()),
                    assignments,
                };
                self.request(world, n, GroupRequest::Sync(request));
            }
        }
    }

    fn assign(world: &World, joined: &JoinReply) -> Vec<(String, Bytes)> {
        let quota = (world.partitions as usize).div_ceil(joined.members.len());
        let mut plan: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        let mut taken: BTreeSet<u8> = BTreeSet::new();
        let mut held: BTreeSet<u8> = BTreeSet::new();
        let prefix = metadata(&[]).len();
        for member in &joined.members {
            let keeps = plan.entry(&member.member).or_default();
            for partition in &member.metadata[prefix..] {
                held.insert(*partition);
                if keeps.len() < quota && taken.insert(*partition) {
                    keeps.push(*partition);
                }
            }
        }
        // What somebody has beyond its share is given up now and assigned in the next round.
        for partition in (0..world.partitions as u8).filter(|p| !held.contains(p)) {
            let least = plan.values_mut().min_by_key(|p| p.len()).expect("there are members");
            least.push(partition);
        }
        plan.into_iter().map(|(member, partitions)| (member.to_owned(), Bytes::from(partitions))).collect()
    }

    pub(super) fn on_synced(&mut self, world: &mut World, reply: &SyncReply) {
        self.phase = Phase::Out;
        match reply.error {
            Some(GroupError::FencedInstanceId) => self.is_over = true,
            Some(GroupError::UnknownMemberId) => self.forget(),
            Some(_) => self.next_at = world.ms,
            None => {
                let owned: Vec<u32> = reply.assignment.iter().map(|p| u32::from(*p)).collect();
                for partition in &owned {
                    world.check_owner(self.group(), self.generation, *partition, &self.name());
                }
                let gives_up = self.owned.iter().any(|p| !owned.contains(p));
                self.owned = owned;
                let joins_again = gives_up && self.manner == Manner::Cooperative;
                self.phase = if joins_again { Phase::Out } else { Phase::In };
            }
        }
    }

    pub(super) fn on_heartbeat(&mut self, error: Option<GroupError>) {
        match error {
            None | Some(GroupError::CoordinatorNotAvailable) => return,
            Some(GroupError::FencedInstanceId) => self.is_over = true,
            Some(GroupError::UnknownMemberId) => self.forget(),
            // It joins with the id it has.
            Some(_) => {}
        }
        self.phase = Phase::Out;
    }

    fn forget(&mut self) {
        self.member.clear();
        self.owned.clear();
    }
}

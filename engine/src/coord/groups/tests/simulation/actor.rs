//! A member: what it knows, and when it speaks.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// Classic: gives everything up before it joins.
    Eager,
    /// Classic: keeps what it has, and joins twice.
    Cooperative,
    /// Classic, static.
    Fixed,
    /// The consumer protocol.
    Modern,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Has to join.
    Out,
    Joining,
    Syncing,
    /// Reads its partitions.
    In,
}

pub(super) struct Actor {
    pub(super) manner: Manner,
    pub(super) phase: Phase,
    pub(super) member: String,
    pub(super) instance: Option<String>,
    /// Or epoch.
    pub(super) generation: i32,
    pub(super) owned: Vec<u32>,
    /// Modern: what it shall have.
    pub(super) told: Vec<u32>,
    pub(super) waits_for: Option<Token>,
    /// When the request was sent that it waits for, and the last one that was answered well.
    pub(super) sent_at: u64,
    pub(super) good_at: u64,
    pub(super) next_at: u64,
    pub(super) is_over: bool,
    /// Commits under way: partition and offset.
    pub(super) commits: BTreeMap<Token, (u32, i64)>,
    /// Whether it leads its group, and how many partitions it has assigned.
    pub(super) leads: bool,
    pub(super) assigned: u32,
}

impl Actor {
    pub(super) fn new(world: &mut World, n: usize, manner: Manner) -> Self {
        let is_static = manner == Manner::Fixed || (manner == Manner::Modern && n == 3);
        Self {
            manner,
            phase: Phase::Out,
            member: if manner == Manner::Modern { format!("m{n}-{}", world.births) } else { String::new() },
            instance: is_static.then(|| format!("i{n}")),
            generation: 0,
            owned: Vec::new(),
            told: Vec::new(),
            waits_for: None,
            sent_at: world.ms,
            good_at: world.ms,
            next_at: world.ms,
            is_over: false,
            commits: BTreeMap::new(),
            leads: false,
            assigned: 0,
        }
    }

    pub(super) fn group(&self) -> &'static str {
        match self.manner {
            Manner::Eager => "eager",
            Manner::Cooperative => "cooperative",
            Manner::Fixed => "fixed",
            Manner::Modern => "modern",
        }
    }

    /// As whom it has partitions.
    pub(super) fn name(&self) -> String {
        self.instance.clone().unwrap_or_else(|| self.member.clone())
    }

    pub(super) fn request(&mut self, world: &mut World, n: usize, request: GroupRequest) {
        self.sent_at = world.ms;
        self.waits_for = Some(world.ask(Who::Actor(n), request));
    }

    pub(super) fn on_disconnected(&mut self) {
        self.waits_for = None;
        self.commits.clear();
        if matches!(self.phase, Phase::Joining | Phase::Syncing) {
            self.phase = Phase::Out;
        }
    }

    pub(super) fn act(&mut self, world: &mut World, n: usize) {
        if self.waits_for.is_some() || world.ms < self.next_at {
            return;
        }
        let pause = if self.manner == Manner::Modern { 5_000 } else { 3_000 };
        self.next_at = world.ms + world.rng.random_range(pause / 2..pause);
        if self.phase == Phase::In && world.odds(3) {
            self.commit(world, n);
        }
        match self.manner {
            Manner::Modern => self.beat(world, n),
            _ => self.act_classic(world, n),
        }
    }

    pub(super) fn on_reply(&mut self, world: &mut World, n: usize, reply: GroupReply) {
        match reply {
            GroupReply::ConsumerHeartbeat(reply) => self.on_beat(world, reply),
            GroupReply::Join(reply) => self.on_joined(world, n, reply),
            GroupReply::Sync(reply) => self.on_synced(world, &reply),
            GroupReply::Heartbeat(error) => self.on_heartbeat(error),
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, world: &mut World, n: usize) {
        let Some(partition) = self.owned.first().copied() else { return };
        world.commits += 1;
        let offset = world.commits;
        world.offsets.entry((self.group().to_owned(), partition)).or_default().sent = offset;
        let mut request = commit(self.group(), &self.member, self.generation, offset);
        request.instance.clone_from(&self.instance);
        request.offsets[0].partition = partition;
        let token = world.ask(Who::Actor(n), GroupRequest::Commit(request));
        self.commits.insert(token, (partition, offset));
    }

    pub(super) fn on_committed(
        &mut self,
        world: &mut World,
        token: Token,
        outcomes: &[(TopicId, u32, Option<GroupError>)],
    ) {
        if let Some((partition, offset)) = self.commits.remove(&token)
            && outcomes[0].2.is_none()
        {
            let of = world.offsets.entry((self.group().to_owned(), partition)).or_default();
            of.known = of.known.max(offset);
        }
    }

    pub(super) fn say_goodbye(self, world: &mut World) {
        let group = self.group().to_owned();
        let request = if self.manner == Manner::Modern {
            let epoch = if self.instance.is_some() { -2 } else { -1 };
            let mut request = self.heartbeat();
            request.epoch = epoch;
            GroupRequest::ConsumerHeartbeat(request)
        } else {
            GroupRequest::Leave(LeaveRequest { group, members: vec![(self.member, self.instance)] })
        };
        world.ask(Who::Nobody, request);
    }
}

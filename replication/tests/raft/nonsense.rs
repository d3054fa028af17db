//! Peers that send anything. What a replica does then may be wrong, and it must go on: a peer can cost a partition, and not the process.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_replication::raft::{
    Action, Append, AppendOutcome, Config, ConfigEntry, Envelope, HardState, LogEnd, Message, Replica,
    Restored, RoleKind, Run, TERM_MAX,
};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

use crate::disk::replica;

const SEEDS: u64 = 20_000;
const STEPS: usize = 200;

fn index(rng: &mut SimRng) -> LogIndex {
    LogIndex(match rng.random_range(0..2000) {
        0 => u64::MAX,
        1 => 1 << 40,
        _ => rng.random_range(0..12),
    })
}

/// A term or an epoch near that of the replica, or an impossible one.
fn epoch(rng: &mut SimRng, term: LeaderEpoch) -> LeaderEpoch {
    match rng.random_range(0..10_000) {
        0 => LeaderEpoch(i32::MAX),
        1 => LeaderEpoch(i32::MIN),
        2 => TERM_MAX,
        3..9_000 => term,
        _ => LeaderEpoch((term.0 - 2).saturating_add(rng.random_range(0..5))),
    }
}

fn log_end(rng: &mut SimRng, term: LeaderEpoch) -> LogEnd {
    LogEnd { end: index(rng), epoch: epoch(rng, term) }
}

fn config(rng: &mut SimRng) -> Config {
    let voters = (0..rng.random_range(1..4)).map(|node| replica(node, 0));
    let learners = (4..rng.random_range(4..6)).map(|node| replica(node, 0));
    Config::new(voters, learners).expect("valid")
}

/// An append that may follow the replica's log, or anything.
fn append(rng: &mut SimRng, term: LeaderEpoch, last: LogEnd) -> Append {
    let follows = rng.random_bool(0.5);
    let from = if follows { last.end } else { index(rng) };
    let prev_epoch = rng.random_bool(0.8).then(|| if follows { last.epoch } else { epoch(rng, term) });
    let end = LogIndex(from.0.saturating_add(rng.random_range(0..5)));
    let mut runs: Vec<Run> = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let start = LogIndex(from.0.saturating_add(rng.random_range(0..4)));
        runs.push(Run { start, epoch: epoch(rng, term) });
    }
    if rng.random_bool(0.8) {
        runs.sort_by_key(|run| (run.start, run.epoch));
        runs.dedup_by_key(|run| run.epoch);
    }
    Append { term: epoch(rng, term), from, prev_epoch, end, runs, commit_end: index(rng) }
}

fn message(rng: &mut SimRng, subject: &Replica) -> Message {
    let (now, last) = (subject.term(), subject.log_end());
    let term = epoch(rng, now);
    match rng.random_range(0..18) {
        0 => Message::PreVote { term, last: log_end(rng, now) },
        1 | 2 => Message::PreVoted { term, asked: LeaderEpoch(term.0.saturating_add(1)), granted: true },
        3 => Message::Vote { term, last: log_end(rng, now), transfer: rng.random_bool(0.5) },
        4 | 5 => Message::Voted { term, granted: true },
        6 => Message::Appended { term, durable_end: index(rng) },
        7 => Message::Rejected { term, hint: log_end(rng, now) },
        8 => {
            let config = ConfigEntry { index: index(rng), config: config(rng) };
            Message::StartAt { term, start: log_end(rng, now), config }
        }
        9 => Message::TimeoutNow { term },
        10 => Message::SteppedDown { term },
        11 => Message::LostEnd { term },
        12 => Message::Fetch { term, from: index(rng), until: index(rng) },
        _ => Message::Append(append(rng, now, last)),
    }
}

/// Carries out what the replica asks for, as an owner does, at some time.
fn carry_out(rng: &mut SimRng, subject: &mut Replica) {
    while rng.random_bool(0.9) {
        match subject.poll_action() {
            Some(Action::Persist(hard)) if rng.random_bool(0.9) => subject.handle_persisted(hard),
            Some(Action::Truncate { .. }) => subject.handle_truncated(),
            Some(Action::StartAt { .. }) => subject.handle_started(),
            Some(_) => {}
            None => break,
        }
    }
    for _ in 0..4 {
        let Some((to, from)) = subject.poll_due() else { break };
        let end = subject.log_end().end.min(LogIndex(from.0.saturating_add(3)));
        subject.take_append(to, end);
    }
}

fn own_event(rng: &mut SimRng, subject: &mut Replica) {
    let end = subject.log_end().end;
    let below = |rng: &mut SimRng, end: LogIndex| LogIndex(rng.random_range(0..=end.0));
    match rng.random_range(0..10) {
        0 | 1 => subject.handle_durable(below(rng, end)),
        2 => subject.handle_election_timeout(),
        3 => subject.handle_peer_lost(replica(rng.random_range(0..4), 0)),
        4 => subject.handle_peer_alive(replica(rng.random_range(0..4), 0)),
        5 => subject.handle_hole(below(rng, end), below(rng, end)),
        6 => subject.handle_repaired(LogIndex(0), end),
        7 => {
            let start = below(rng, subject.commit_end());
            subject.handle_log_start(start);
        }
        8 => {
            let _ = subject.propose(rng.random_range(1..3));
        }
        _ => {
            let _ = subject.propose_config(&config(rng));
        }
    }
}

/// Returns how many appends were accepted, how many messages were found to be nonsense, and how often the replica led.
fn run(seed: u64) -> [usize; 3] {
    let mut rng = stream(seed, "nonsense", 0);
    let config = ConfigEntry { index: LogIndex(0), config: config(&mut rng) };
    let restored = Restored {
        hard: HardState { term: LeaderEpoch(3), ..HardState::NEW },
        start: LogEnd::EMPTY,
        runs: vec![
            Run { start: LogIndex(0), epoch: LeaderEpoch(1) },
            Run { start: LogIndex(3), epoch: LeaderEpoch(3) },
        ],
        end: LogIndex(6),
        durable_end: LogIndex(6),
        commit_end: LogIndex(rng.random_range(0..6)),
        configs: vec![config],
        end_lost: rng.random_bool(0.1),
    };
    let mut subject = Replica::new(replica(0, 0), restored, 1);
    let [mut accepted, mut violations, mut led] = [0; 3];
    for _ in 0..STEPS {
        let leads = subject.role() == RoleKind::Leader;
        if rng.random_bool(0.3) {
            own_event(&mut rng, &mut subject);
        } else {
            let message = message(&mut rng, &subject);
            let configs = match &message {
                Message::Append(append) if rng.random_bool(0.2) => {
                    vec![ConfigEntry { index: append.from, config: self::config(&mut rng) }]
                }
                _ => Vec::new(),
            };
            let from = replica(rng.random_range(1..7), 0);
            let envelope = Envelope { from, to: subject.id(), message };
            match subject.handle_message(&envelope, &configs) {
                AppendOutcome::Accepted { .. } => accepted += 1,
                AppendOutcome::Violation(_) => violations += 1,
                AppendOutcome::Dropped => {}
            }
        }

        carry_out(&mut rng, &mut subject);
        led += usize::from(!leads && subject.role() == RoleKind::Leader);
    }
    [accepted, violations, led]
}

#[test]
fn a_replica_survives_whatever_peers_send() {
    let mut totals = [0; 3];
    for seed in 0..SEEDS {
        // Printed by the test harness only when the run fails.
        println!("seed {seed}");
        for (total, one) in totals.iter_mut().zip(run(seed)) {
            *total += one;
        }
    }
    println!("appends accepted, violations, elections won: {totals:?}");
    assert!(totals.iter().all(|total| *total > 0), "{totals:?}");
}

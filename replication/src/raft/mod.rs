//! The consensus core: Raft for one partition, as a pure state machine.
//!
//! A [`Replica`] has no I/O, no clock, no randomness and no threads. It knows the outline of its log (where it begins and ends, and the epoch
//! of each entry), and never the entries, which are in the storage. Its owner, a shard, brings it events and carries out its actions. Sources:
//! Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (2014, extended version; "paper"), and Ongaro, *Consensus:
//! Bridging Theory and Practice* (2014; "thesis").
//!
//! # Terms
//!
//! | here | in the paper |
//! |---|---|
//! | term; epoch of an entry ([`LeaderEpoch`](highwater_protocol::ids::LeaderEpoch)) | term |
//! | entry: a frame of the partition's log | log entry |
//! | end: index after the last entry; all ends are exclusive | last index, plus one |
//! | commit end | `commitIndex`, plus one |
//! | `match_end`, `next` of a leader | `matchIndex`, plus one; `nextIndex` |
//! | epoch start: the first entry of a leader, without records | no-op entry |
//!
//! # Events, actions, order
//!
//! | in | out |
//! |---|---|
//! | [`handle_message`](Replica::handle_message) | [`Action::Send`]; frames to append ([`AppendOutcome`]) |
//! | [`handle_persisted`](Replica::handle_persisted) | [`Action::Persist`]: (term, vote) |
//! | [`handle_durable`](Replica::handle_durable): the own disk | [`Action::Committed`] |
//! | [`handle_truncated`](Replica::handle_truncated), [`handle_started`](Replica::handle_started) | [`Action::Truncate`], [`Action::StartAt`] |
//! | [`handle_election_timeout`](Replica::handle_election_timeout), [`handle_peer_alive`](Replica::handle_peer_alive), [`handle_peer_lost`](Replica::handle_peer_lost), [`handle_peer_moved`](Replica::handle_peer_moved) | [`Action::RoleChanged`], [`Action::AppendEpochStart`] |
//! | [`resume`](Replica::resume): after a start, a replica without others | |
//! | [`handle_hole`](Replica::handle_hole), [`handle_repaired`](Replica::handle_repaired) | [`Action::SendCommitted`] |
//! | commands: [`propose`](Replica::propose), [`propose_config`](Replica::propose_config), [`transfer_leadership`](Replica::transfer_leadership), [`resign`](Replica::resign) | [`poll_due`](Replica::poll_due), [`take_append`](Replica::take_append): entries for other replicas; [`Action::AppendConfig`] |
//!
//! The owner closes the channel by which a message came that breaks the protocol ([`AppendOutcome::Violation`]).
//!
//! The owner carries out actions in their order, and appends frames in the order in which they were accepted. Nothing but `Persist` leaves the core while (term, vote) is not
//! durable. A new leader takes all others for reachable; its owner reports those that are not by `handle_peer_lost`. The core sets no timers: leases and their ends belong to the channels between nodes, which serve all partitions at once.
//!
//! # Rules, and where they are from
//!
//! | rule | source | file |
//! |---|---|---|
//! | one vote a term, for a log that is up to date | paper, 5.2, 5.4.1 | `election.rs` |
//! | pre-vote; votes are withheld while a lease lasts | thesis, 9.6, 4.2.3 | `election.rs` |
//! | (term, vote) is durable before anything leaves | paper, figure 2 (persistent state) | `replica.rs` |
//! | a later term makes a follower; an earlier one is rejected | paper, 5.1 | `receive.rs` |
//! | log matching; only conflicting entries are cut off | paper, 5.3, figure 2 (AppendEntries) | `follow.rs`, `log.rs` |
//! | a follower commits what it has durably: what the storage refuses does not count | own | `follow.rs` |
//! | rejections name the last possible match | paper, 5.3, last part; thesis, 3.5 | `follow.rs` |
//! | commit by counting only with an entry of the own term | paper, 5.4.2, figure 8 | `lead.rs` |
//! | the leader's disk is one vote | thesis, 10.2.1 | `lead.rs` |
//! | an entry of the own term is committed before the leader serves | paper, 8; thesis, 6.4 | `replica.rs` |
//! | learners; joint configurations in effect when appended | paper, 6; thesis, 4.2.1, 4.3 | `membership.rs`, `config.rs` |
//! | leadership transfer | thesis, 3.10 | `lead.rs` |
//! | a leader without a majority in reach stops leading | thesis, 6.2 | `election.rs` |
//! | a leader that stops leading, for whatever reason, ends the leases of its followers | own: leases belong to channels | `replica.rs` |
//! | a follower too far behind restarts where the leader's log begins | paper, 7 (`InstallSnapshot`, without a snapshot: the log is the state) | `lead.rs`, `follow.rs` |
//! | peers that break the protocol lose their channels | own | `violation.rs`, `receive.rs` |
//! | damaged replicas stand aside | own; argument in the file | `damage.rs` |
//! | a sole voter leads again after a start without an election | own; argument in the file | `resume.rs` |
//!
//! # Invariants
//!
//! Held by the explorer and the simulation in `replication/tests/raft`: at most one leader a term; two logs with an entry of the same index
//! and epoch are the same up to it; a leader has everything that was committed in earlier terms; replicas commit the same entries; nothing
//! committed is cut off; commit ends never decrease; what a leader acknowledges is durable on a majority; a replica knows of every entry
//! that it cannot read.
//!
//! One exception: a replica that was away for more than [`RUNS_MAX`] terms cuts off what it does not know to be committed, because its leader
//! cannot compare it any more. A majority of the others has that.
//!
//! # Memory
//!
//! An idle replica in a configuration of three takes less than a kilobyte, with its heap. Held by
//! `an_idle_replica_takes_less_than_a_kilobyte`, which prints the numbers.

mod config;
mod damage;
mod election;
mod follow;
mod lead;
mod log;
mod membership;
mod progress;
mod receive;
mod replica;
mod resume;
mod stored_config;
mod types;
mod violation;

pub use config::{Config, Member, Part, REPLICAS_MAX};
pub use log::RUNS_MAX;
pub use replica::{Replica, Restored, RoleKind};
pub(crate) use stored_config::MEMBER_BYTES;
pub use stored_config::StoredConfigError;
pub use types::{
    Action, Append, AppendOutcome, ConfigEntry, Due, Envelope, HardState, LogEnd, Message, ProposeError,
    ReplicaId, Run,
};
pub use violation::{LOG_END_MAX, ProtocolViolation, TERM_MAX, TERM_STEP_MAX};

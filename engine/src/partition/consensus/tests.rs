//! The consensus of one partition without a store.

use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset, Timestamp};
use highwater_replication::raft::{Action, Append, Config, Envelope, LogEnd, Message, ReplicaId};
use highwater_storage::{Bounds, EpochStart, LogPoint};

use super::{Consensus, MissingReplicas, NotAppendable, Recovered};
use crate::api::RequiredAcks;
use crate::partition::acks::{Ack, PendingAcks};
use crate::reply_to::{ReplyTo, RequestBatch, RequestId};

fn id(node: u32) -> ReplicaId {
    ReplicaId { node: NodeId(node), incarnation: 0 }
}

/// A log of epoch 5 with one record in each frame.
fn recovered(durable: i64, epoch_is_new: bool) -> Recovered {
    let end = LogPoint { index: LogIndex(durable as u64), offset: Offset(durable) };
    let bounds = Bounds {
        log_start: Offset(0),
        durable_end: end.offset,
        append_end: end.offset,
        durable_index: end.index,
        append_index: end.index,
        commit: LogPoint { index: LogIndex(0), offset: Offset(0) },
        bytes: 0,
        faulty: false,
        last_epoch: Some(LeaderEpoch(5 + i32::from(epoch_is_new))),
        epoch_is_new,
    };
    let first = LogPoint { index: LogIndex(0), offset: Offset(0) };
    let epochs = vec![EpochStart { epoch: LeaderEpoch(5), index: LogIndex(0), offset: Offset(0) }];
    Recovered { bounds, first, epochs, state: None, configs: Ok(Vec::new()) }
}

fn alone(durable: i64, epoch_is_new: bool) -> Consensus {
    Consensus::new(id(0), &recovered(durable, epoch_is_new), &Config::new([id(0)], []).expect("valid"), 3)
}

fn ack(number: u32, end: i64) -> Ack {
    let to = RequestBatch { shard: 0, request: RequestId(0), number };
    Ack {
        reply_to: ReplyTo::Kafka(to),
        end: Offset(end),
        base_offset: Offset(end - 1),
        log_append_time: Timestamp(-1),
    }
}

/// Returns the numbers of the acknowledgements that can be sent.
fn acked(acks: &mut PendingAcks, consensus: &mut Consensus) -> Vec<u32> {
    consensus.take_changes();
    let popped = std::iter::from_fn(|| acks.pop(consensus));
    popped
        .filter_map(|ack| if let ReplyTo::Kafka(to) = ack.reply_to { Some(to.number) } else { None })
        .collect()
}

/// Makes replica 0 of three the leader of term 6, with its epoch start as entry 10, which is not on its disk.
fn leader_of_three(min_insync: usize) -> Consensus {
    let mut recovered = recovered(10, false);
    recovered.state =
        Some(highwater_storage::ReplicaState { term: LeaderEpoch(5), vote: None, lost_in: None });
    let all = Config::new([id(0), id(1), id(2)], []).expect("valid");
    let mut consensus = Consensus::new(id(0), &recovered, &all, min_insync);
    consensus.handle_election_timeout();
    let term = |message: fn(LeaderEpoch) -> Message, term| message(LeaderEpoch(term));
    receive(
        &mut consensus,
        1,
        term(|term| Message::PreVoted { term: LeaderEpoch(5), asked: term, granted: true }, 6),
    );
    let Some(Action::Persist(hard)) = consensus.replica.poll_action() else {
        panic!("the term is durable first")
    };
    consensus.handle_persisted(super::replica_state(hard));
    receive(&mut consensus, 1, term(|term| Message::Voted { term, granted: true }, 6));
    while consensus.replica.poll_action().is_some() {}
    consensus.mark(LogPoint { index: LogIndex(11), offset: Offset(10) });
    consensus.take_changes();
    assert!(consensus.is_leader() && !consensus.is_serving());
    consensus
}

fn receive(consensus: &mut Consensus, from: u32, message: Message) {
    consensus.handle_message(&Envelope { from: id(from), to: id(0), message }, &[]);
}

fn appended(consensus: &mut Consensus, from: u32, end: u64) {
    let message = Message::Appended { term: LeaderEpoch(6), durable_end: LogIndex(end) };
    receive(consensus, from, message);
}

#[test]
fn producers_are_acknowledged_in_order_once_their_batches_are_committed() {
    let mut consensus = alone(10, false);
    let mut acks = PendingAcks::default();
    assert_eq!((consensus.high_watermark(), consensus.term()), (Offset(10), LeaderEpoch(5)));
    for (number, index, end) in [(0, 10, 12), (1, 11, 15)] {
        assert_eq!(consensus.check_append(RequiredAcks::All), Ok(()));
        consensus.note_appended(LogIndex(index), Offset(end));
        assert!(!acks.wait(&consensus, RequiredAcks::All, ack(number, end)));
    }
    assert!(acks.wait(&consensus, RequiredAcks::All, ack(2, 9)), "sent again, and committed long ago");
    assert!(acked(&mut acks, &mut consensus).is_empty());
    consensus.handle_durable(LogIndex(11), Offset(12));
    assert_eq!(acked(&mut acks, &mut consensus), [0]);
    consensus.handle_durable(LogIndex(12), Offset(15));
    assert_eq!(acked(&mut acks, &mut consensus), [1]);
    assert_eq!(consensus.high_watermark(), Offset(15));
}

#[test]
fn after_lost_frames_a_new_epoch_begins_and_batches_wait_for_its_first_frame() {
    let mut consensus = alone(10, true);
    assert_eq!((consensus.term(), consensus.high_watermark()), (LeaderEpoch(6), Offset(10)));
    assert_eq!(consensus.check_append(RequiredAcks::All), Err(NotAppendable::NotYet));
    let Some(Action::Persist(hard)) = consensus.replica.poll_action() else {
        panic!("the term is durable first")
    };
    assert_eq!((hard.term, hard.vote), (LeaderEpoch(6), Some(id(0))));
    consensus.handle_persisted(super::replica_state(hard));
    let start = Action::AppendEpochStart { index: LogIndex(10), epoch: LeaderEpoch(6) };
    assert_eq!(consensus.replica.poll_action(), Some(start));
    consensus.mark(LogPoint { index: LogIndex(11), offset: Offset(10) });
    assert_eq!(consensus.check_append(RequiredAcks::All), Err(NotAppendable::NotYet));
    assert!(!consensus.take_changes().high_watermark_moved);
    consensus.handle_durable(LogIndex(11), Offset(10));
    assert!(consensus.take_changes().may_append);
    assert_eq!(consensus.check_append(RequiredAcks::All), Ok(()));
}

#[test]
fn min_insync_replicas_has_no_effect_on_a_partition_with_one_replica() {
    let mut consensus = alone(10, false);
    assert_eq!(consensus.check_append(RequiredAcks::All), Ok(()));
    consensus.set_min_insync(2);
    assert_eq!(consensus.check_append(RequiredAcks::All), Ok(()));
}

#[test]
fn a_leader_acknowledges_what_a_majority_has_and_shows_what_it_has_itself() {
    let mut consensus = leader_of_three(1);
    let mut acks = PendingAcks::default();
    appended(&mut consensus, 1, 11);
    assert!(!consensus.is_serving());
    appended(&mut consensus, 2, 11);
    assert!(consensus.take_changes().may_append && consensus.is_serving());
    assert_eq!(consensus.high_watermark(), Offset(10), "its disk had that at the start");
    consensus.note_appended(LogIndex(11), Offset(13));
    assert!(!acks.wait(&consensus, RequiredAcks::All, ack(0, 13)));
    assert!(!acks.wait(&consensus, RequiredAcks::Leader, ack(1, 13)));
    appended(&mut consensus, 2, 12);
    assert!(acked(&mut acks, &mut consensus).is_empty());
    appended(&mut consensus, 1, 12);
    assert_eq!(acked(&mut acks, &mut consensus), [0], "the leader's disk is one of three");
    assert_eq!(consensus.high_watermark(), Offset(10));
    consensus.handle_durable(LogIndex(12), Offset(13));
    assert_eq!(acked(&mut acks, &mut consensus), [1]);
    assert_eq!(consensus.high_watermark(), Offset(13));
}

#[test]
fn an_acknowledgement_waits_for_as_many_replicas_as_the_topic_asks_for() {
    let mut consensus = leader_of_three(3);
    let mut acks = PendingAcks::default();
    appended(&mut consensus, 1, 11);
    consensus.handle_durable(LogIndex(11), Offset(10));
    consensus.note_appended(LogIndex(11), Offset(13));
    assert!(!acks.wait(&consensus, RequiredAcks::All, ack(0, 13)));
    appended(&mut consensus, 1, 12);
    consensus.handle_durable(LogIndex(12), Offset(13));
    assert!(acked(&mut acks, &mut consensus).is_empty());
    assert_eq!(consensus.high_watermark(), Offset(13), "two of three have it: it is committed");
    appended(&mut consensus, 2, 12);
    assert_eq!(acked(&mut acks, &mut consensus), [0]);
    consensus.handle_peer_lost(id(2));
    let missing = NotAppendable::NotEnoughReplicas { live: 2, needed: 3 };
    assert_eq!(consensus.check_append(RequiredAcks::All), Err(missing));
    for acks in [RequiredAcks::Leader, RequiredAcks::None] {
        assert_eq!(consensus.check_append(acks), Ok(()), "{acks:?} needs no other replica");
    }
    consensus.note_appended(LogIndex(12), Offset(15));
    assert!(!acks.wait(&consensus, RequiredAcks::Leader, ack(1, 15)));
    consensus.handle_durable(LogIndex(13), Offset(15));
    assert_eq!(acked(&mut acks, &mut consensus), [1]);
}

#[test]
fn a_batch_that_is_committed_and_cannot_get_its_copies_is_known() {
    let mut consensus = leader_of_three(3);
    let mut acks = PendingAcks::default();
    appended(&mut consensus, 1, 11);
    consensus.handle_durable(LogIndex(11), Offset(10));
    for (number, index, end) in [(0, 11, 13), (1, 12, 15)] {
        consensus.note_appended(LogIndex(index), Offset(end));
        assert!(!acks.wait(&consensus, RequiredAcks::All, ack(number, end)));
    }
    appended(&mut consensus, 1, 12);
    consensus.handle_durable(LogIndex(13), Offset(15));
    assert!(acked(&mut acks, &mut consensus).is_empty());
    assert_eq!(consensus.missing_replicas(), None, "the third replica may have it soon");
    consensus.handle_peer_lost(id(2));
    assert_eq!(consensus.missing_replicas(), Some(MissingReplicas { live: 2, needed: 3 }));
    let committed = consensus.committed().offset;
    assert_eq!(acks.pop_committed(committed).map(|ack| ack.end), Some(Offset(13)));
    assert_eq!(acks.pop_committed(committed), None, "the other one may be cut off yet");
}

#[test]
fn a_deposed_leader_takes_no_batches_and_reports_that_it_is_deposed_once() {
    let mut consensus = leader_of_three(1);
    appended(&mut consensus, 1, 11);
    consensus.handle_durable(LogIndex(11), Offset(10));
    consensus.note_appended(LogIndex(11), Offset(13));
    consensus.take_changes();
    let message = Message::Append(Append {
        term: LeaderEpoch(7),
        from: LogIndex(11),
        prev_epoch: Some(LeaderEpoch(6)),
        end: LogIndex(11),
        runs: Vec::new(),
        commit_end: LogIndex(0),
    });
    receive(&mut consensus, 2, message);
    assert!(consensus.take_changes().is_deposed);
    assert!(!consensus.take_changes().is_deposed);
    assert_eq!(consensus.check_append(RequiredAcks::All), Err(NotAppendable::NotLeader));
    assert_eq!(consensus.replica().log_end(), LogEnd { end: LogIndex(12), epoch: LeaderEpoch(6) });
}

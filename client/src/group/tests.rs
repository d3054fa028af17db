//! Group members against a broker that misbehaves on purpose.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{JOIN_EPOCH, LEAVE_EPOCH, MessageKind, Start};

use super::GroupBuilder;
use crate::io::fake_broker::{FakeBroker, Fault};
use crate::{Batch, Client, CommitErrorKind, Event, GroupConsumer, WriteOutcome};

const COMMIT: MessageKind = MessageKind::CommitGroupOffsets;
const BEAT: MessageKind = MessageKind::GroupHeartbeat;
/// The broker does not know the member any more.
const FENCED: Fault = Fault::Refuse(ErrorCode::FencedMember);
/// A commit interval longer than any test.
const NEVER: Duration = Duration::from_hours(1);

/// A broker whose log has three batches of two records, and a client with the group's only member.
struct GroupHarness {
    broker: FakeBroker,
    client: Client,
}

impl GroupHarness {
    async fn new(target: &[u32]) -> Self {
        let broker = FakeBroker::start(2).await;
        broker.append(&[2, 2, 2]);
        broker.lock().group.target = target.to_vec();
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(20));
        let builder = Client::builder().bootstrap([broker.address()]).reconnect_backoff(short, long);
        let client = builder.connect().await.unwrap();
        Self { broker, client }
    }

    fn member(&self) -> GroupBuilder {
        self.client.consumer("orders").start(Start::Earliest).group("billing")
    }

    /// Returns a member that has received this many batches and commits only when it must.
    async fn reader(&self, batches: usize) -> GroupConsumer {
        let mut consumer = self.member().auto_commit_interval(NEVER).await.unwrap();
        for _ in 0..batches {
            next(&mut consumer).await;
        }
        consumer
    }

    /// Fences the member and waits until it has joined again.
    async fn fence(&self) {
        self.broker.script([(BEAT, FENCED)]);
        let is_back =
            |beats: &[(i32, _)]| beats.iter().filter(|(epoch, _)| *epoch == JOIN_EPOCH).count() == 2;
        self.broker.until(|inner| is_back(&inner.group.beats)).await;
    }
}

async fn next(consumer: &mut GroupConsumer) -> Batch {
    consumer.next_batch().await.unwrap().unwrap()
}

/// Polls once and checks that the future is pending.
async fn begin(future: Pin<&mut impl Future>) {
    let mut future = Some(future);
    let is_pending = poll_fn(|cx| Poll::Ready(future.take().unwrap().poll(cx).is_pending())).await;
    assert!(is_pending, "it was to wait");
}

#[tokio::test]
async fn an_assignment_whose_answer_was_lost_is_sent_again() {
    let harness = GroupHarness::new(&[]).await;
    let mut consumer = harness.member().await.unwrap();
    // Heartbeats after the first contain only changes.
    harness.broker.until(|inner| inner.group.beats.len() > 2).await;
    {
        let mut inner = harness.broker.lock();
        inner.group.target = vec![0];
        inner.script.push_back((BEAT, Fault::LoseReply));
    }
    assert_eq!(next(&mut consumer).await.next_offset(), Offset(2));
    assert_eq!(consumer.assignment(), [("orders".to_owned(), 0)]);
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn positions_that_can_never_be_committed_do_not_keep_their_partition() {
    for code in [ErrorCode::UnknownPartition, ErrorCode::UnknownTopic] {
        let harness = GroupHarness::new(&[0]).await;
        let mut consumer = harness.reader(1).await;
        {
            let mut inner = harness.broker.lock();
            inner.group.target = vec![1];
            inner.script.push_back((COMMIT, Fault::Refuse(code)));
        }
        while next(&mut consumer).await.partition() == 0 {}
        harness
            .broker
            .until(|inner| inner.group.beats.iter().any(|(_, owned)| *owned == Some(vec![1])))
            .await;
        assert_eq!(harness.broker.lock().group.offset(0), None, "it was not tried again");
    }
}

#[tokio::test]
async fn a_commit_queued_behind_another_fails_if_the_member_is_fenced_meanwhile() {
    let harness = GroupHarness::new(&[0]).await;
    harness.broker.script([(COMMIT, Fault::Ignore)]);
    let mut consumer = harness.member().auto_commit_interval(Duration::from_millis(1)).await.unwrap();
    let batch = next(&mut consumer).await;
    harness.broker.until(|inner| inner.seen.contains(&COMMIT)).await;
    let mut commit = pin!(batch.commit());
    begin(commit.as_mut()).await;
    harness.fence().await;
    harness.broker.hang_up();
    assert_eq!(commit.await.unwrap_err().kind(), CommitErrorKind::Fenced);
}

#[tokio::test]
async fn committing_everything_reports_once_that_the_member_lost_partitions() {
    let harness = GroupHarness::new(&[0]).await;
    let mut consumer = harness.reader(1).await;
    harness.fence().await;
    let error = consumer.commit().await.unwrap_err();
    assert_eq!(error.kind(), CommitErrorKind::Fenced, "{error}");
    assert_eq!(next(&mut consumer).await.next_offset(), Offset(2), "once more");
    consumer.commit().await.unwrap();
    assert_eq!(harness.broker.lock().group.offset(0), Some(Offset(2)));
}

#[tokio::test]
async fn closing_fails_if_the_last_commit_was_interrupted() {
    let harness = GroupHarness::new(&[0]).await;
    let consumer = harness.reader(2).await;
    harness.broker.script([(COMMIT, Fault::Ignore), (BEAT, FENCED)]);
    let error = consumer.close().await.unwrap_err();
    assert_eq!(error.kind(), CommitErrorKind::Fenced, "{error}");
}

#[tokio::test]
async fn closing_does_not_report_commit_failures_from_before_a_rejoin() {
    let harness = GroupHarness::new(&[0]).await;
    let mut consumer = harness.reader(3).await;
    {
        let mut inner = harness.broker.lock();
        inner.group.target = Vec::new();
        // The second one stays in flight for the rest of the test.
        inner.script.extend([(COMMIT, Fault::Refuse(ErrorCode::TooLarge)), (COMMIT, Fault::Ignore)]);
    }
    // Everything is processed; the partition is released once that is committed.
    let mut more = Box::pin(consumer.next_batch());
    begin(more.as_mut()).await;
    drop(more);
    harness.broker.until(|inner| inner.seen.iter().filter(|kind| **kind == COMMIT).count() == 2).await;
    harness.fence().await;
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn closing_returns_the_error_of_the_last_commit() {
    let harness = GroupHarness::new(&[0]).await;
    let consumer = harness.reader(2).await;
    harness.broker.script([(COMMIT, Fault::Refuse(ErrorCode::TooLarge))]);
    let error = consumer.close().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (CommitErrorKind::Rejected, Some(ErrorCode::TooLarge)));
    harness.broker.until(|inner| inner.group.beats.last().unwrap().0 == LEAVE_EPOCH).await;
}

#[tokio::test]
async fn committing_an_older_batch_after_a_newer_one_does_not_move_the_group_back() {
    let harness = GroupHarness::new(&[0]).await;
    let mut consumer = harness.member().auto_commit_interval(NEVER).await.unwrap();
    let older = next(&mut consumer).await;
    let newer = next(&mut consumer).await;
    newer.commit().await.unwrap();
    older.commit().await.unwrap();
    older.commit_until(Offset(1)).await.unwrap();
    assert_eq!(harness.broker.lock().group.offset(0), Some(Offset(4)));
    consumer.close().await.unwrap();
    assert_eq!(harness.broker.lock().group.offset(0), Some(Offset(4)));
}

#[tokio::test]
async fn closing_returns_the_error_of_a_commit_whose_future_was_dropped() {
    let harness = GroupHarness::new(&[0]).await;
    let mut consumer = harness.member().manual_commit().await.unwrap();
    let batch = next(&mut consumer).await;
    harness.broker.script([(COMMIT, Fault::Refuse(ErrorCode::TooLarge))]);
    begin(pin!(batch.commit())).await;
    let error = consumer.close().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (CommitErrorKind::Rejected, Some(ErrorCode::TooLarge)));
}

#[tokio::test]
async fn a_commit_continues_after_its_future_is_dropped_and_a_later_one_clears_its_failure() {
    let harness = GroupHarness::new(&[0]).await;
    let mut consumer = harness.member().manual_commit().await.unwrap();
    let batch = next(&mut consumer).await;
    begin(pin!(batch.commit())).await;
    harness.broker.until(|inner| inner.group.offset(0) == Some(Offset(2))).await;
    // It runs after the first commit was answered.
    batch.commit().await.unwrap();
    let batch = next(&mut consumer).await;
    harness.broker.script([(COMMIT, Fault::Refuse(ErrorCode::TooLarge))]);
    begin(pin!(consumer.commit())).await;
    batch.commit().await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(harness.broker.lock().group.offset(0), Some(Offset(4)));
}

#[tokio::test]
async fn a_failed_background_commit_is_an_event() {
    let harness = GroupHarness::new(&[0]).await;
    let mut events = harness.client.events();
    harness.broker.script([(COMMIT, Fault::Refuse(ErrorCode::TooLarge))]);
    let mut consumer = harness.member().auto_commit_interval(Duration::from_millis(1)).await.unwrap();
    for _ in 0..3 {
        next(&mut consumer).await;
    }
    loop {
        if let Event::CommitFailed { group, reason } = events.next().await.unwrap() {
            assert_eq!(group, "billing");
            assert!(reason.contains("billing"), "{reason}");
            break;
        }
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn closing_fails_if_the_broker_does_not_confirm_the_leave() {
    let harness = GroupHarness::new(&[0]).await;
    let (short, long) = (Duration::from_millis(1), Duration::from_millis(20));
    let builder = Client::builder().bootstrap([harness.broker.address()]).reconnect_backoff(short, long);
    let client = builder.request_timeout(Duration::from_millis(200)).connect().await.unwrap();
    let mut consumer = client.consumer("orders").group("billing").manual_commit().await.unwrap();
    next(&mut consumer).await;
    harness.broker.go_away();
    let error = consumer.close().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (CommitErrorKind::Unavailable, WriteOutcome::Written),
        "{error}"
    );
}

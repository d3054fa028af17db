//! Groups on a full disk, through both protocols.

use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{JoinGroupResponse, OffsetCommitTopic};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{CommitOffsetsRequest, CommittedOffset};
use highwater_runtime::sim::Fault;

use crate::client::Kafka;
use crate::common::simulated::SimBroker;
use crate::members::{Member, commit, committed, fetch_offsets, join, start, to_commit};

const NONE: KafkaError = KafkaError::NONE;
const REJECTED: KafkaError = KafkaError::COORDINATOR_NOT_AVAILABLE;

/// Virtual time within which a request is answered, whatever the disk does.
const ANSWER_MS_MAX: i64 = 2_000;

/// Makes all writes of the stores fail.
fn fill_disk(broker: &SimBroker) {
    let disk = broker.disk();
    disk.set_capacity(Some(0));
    for store in 0..2 {
        for file in ["slab-000000", "journal"] {
            disk.inject(Fault::write_no_space(format!("/data/store-{store:03}/{file}")));
        }
    }
}

/// Lets the coordinators of both shards find out that there is no space: a commit waits for its log when they do.
fn find_out(client: &mut Kafka) {
    for group in ["a", "b", "c", "d"] {
        let partitions = vec![to_commit(0, 7)];
        let request =
            commit(group, vec![OffsetCommitTopic { name: "orders", topic_id: [0; 16], partitions }]);
        assert_eq!(committed(client, 8, &request), [REJECTED], "{group}");
    }
}

#[test]
fn group_requests_fail_at_once_while_the_log_of_groups_has_no_space() {
    let broker = start();
    let topic = broker.native().created("orders", 3, &[]);
    let mut member = Member::new(&broker, "stable");
    member.join_alone();
    let mut waiting = Member::new(&broker, "waiting");
    let mut client = broker.kafka();
    let mut native = broker.native();
    fill_disk(&broker);

    let begun = broker.wall_clock_ms();
    let by_name = |partitions| OffsetCommitTopic { name: "orders", topic_id: [0; 16], partitions };
    let request = commit("readers", vec![by_name(vec![to_commit(0, 7)])]);
    let position = CommittedOffset {
        partition: PartitionIndex(1),
        offset: Offset(5),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let named = CommitOffsetsRequest { consumer: "named".into(), topic, positions: vec![position] };
    find_out(&mut client);
    for _ in 0..2 {
        assert_eq!(committed(&mut client, 8, &request), [REJECTED]);
        let answer = native.call(&named);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.error, Some(ErrorCode::StorageFull), "{text}");
        assert!(text.contains("the disk is full"), "{text}");
        let reply = client.call(ApiKey::JoinGroup, 5, &join("new", ""));
        assert_eq!(reply.body::<JoinGroupResponse<'_>>().error_code, REJECTED);
    }
    waiting.send_join();
    let reply = waiting.client.read(ApiKey::JoinGroup, 9).expect("the connection stays");
    assert_eq!(reply.body::<JoinGroupResponse<'_>>().error_code, REJECTED);
    assert_eq!(member.heartbeat(), NONE, "a member that changes nothing stays one");
    let waited = broker.wall_clock_ms() - begun;
    assert!(waited < ANSWER_MS_MAX, "somebody was kept waiting for {waited} ms");

    broker.disk().clear_faults();
    broker.disk().set_capacity(None);
    broker.run_for(Duration::from_secs(3));
    assert_eq!(committed(&mut client, 8, &request), [NONE]);
    assert_eq!(fetch_offsets(&mut client, "readers", "orders", &[0])[0].1, 7);
    native.call(&named).ok();
    waiting.join_alone();
    broker.stop();
}

#[test]
fn a_member_that_waits_for_others_is_rejected_when_the_log_finds_no_space() {
    let broker = start();
    broker.native().created("orders", 1, &[]);
    let mut first = Member::new(&broker, "readers");
    first.join_alone();
    let mut second = Member::new(&broker, "readers");
    second.send_join();
    // Until it has arrived: the members' connections may be on different shards.
    broker.run_for(Duration::from_millis(100));
    assert_eq!(first.heartbeat(), KafkaError::REBALANCE_IN_PROGRESS, "the second waits for the first");
    fill_disk(&broker);
    find_out(&mut first.client);
    let reply = second.client.read(ApiKey::JoinGroup, 9).expect("the connection stays");
    assert_eq!(reply.body::<JoinGroupResponse<'_>>().error_code, REJECTED);
    broker.stop();
}

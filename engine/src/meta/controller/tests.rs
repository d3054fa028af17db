use std::path::Path;

use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
use highwater_replication::join::DiskId;
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::DiskHarness;

use super::*;
use crate::api::{ConfigChanges, Replication, Ticket};
use crate::limits::ShardLimits;
use crate::meta::Topic;
use crate::meta::record::{ReplicasRecord, TopicRecord};

pub(super) fn node(id: u32, rack: &str) -> Node {
    let rack = Some(rack.to_owned());
    Node {
        id: NodeId(id),
        incarnation: 0,
        disk: DiskId::default(),
        rack,
        clients: vec![],
        peer: None,
        shards: 2,
    }
}

/// Who gets replies.
pub(super) const TO: Requester = Requester::Shard(0, Ticket { call: 0, number: 0 });

/// Returns the controller of a node whose shards have opened their stores.
fn new_controller(disk: &mut DiskHarness, node: Node, has_joined: bool) -> Controller {
    disk.create_dir_all(Path::new("/data")).expect("made");
    let stem = Path::new("/data/meta");
    let opened = StateLog::open(disk, stem, *b"META", ClusterId([1; 16]), 1);
    let (log, recovered) = opened.expect("it is new");
    let limits = ShardLimits::production(256 << 20, 2, 1, BATCH_BYTES_MAX_DEFAULT);
    let room = MetadataRoom::new(&limits);
    let mut controller = Controller::new(node, has_joined, log, &recovered, 2, room).expect("it is empty");
    for shard in 0..2 {
        let (epochs, topics, warnings) = (vec![], vec![], vec![]);
        controller.handle_opened(shard, Opened { epochs, topics, warnings });
    }
    controller
}

/// Returns the controller of node 1, in a cluster with nodes 2 and 3.
pub(super) fn controller() -> Controller {
    let mut controller = new_controller(&mut DiskHarness::new(1), node(1, "a"), false);
    let end = controller.metadata().next_offset();
    controller.handle_log(log_to(Some(1), end));
    for node in [node(2, "a"), node(3, "b")] {
        controller.register_node(TO, &node);
    }
    commit(&mut controller);
    controller
}

/// A log that this node leads in a term, if it does, and that ends here.
fn log_to(term: Option<i32>, end: Offset) -> LogView {
    LogView { led: term.map(LeaderEpoch), is_alone: false, end, waits_for_space: false }
}

/// Takes what was proposed as batches, and commits them.
pub(super) fn commit(controller: &mut Controller) {
    while let Some((number, batch)) = controller.poll_append(0) {
        let mut offset = controller.metadata().next_offset();
        controller.handle_appended(number, Ok(offset));
        let batch = BatchView::parse(&batch).expect("a batch");
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch).expect("it can be read") {
            let value = record.expect("it can be read").value.expect("it is there");
            controller.handle_committed(offset, value).expect("it was checked");
            offset = offset.plus(1);
        }
    }
    controller.advance();
}

fn new_topic(name: &str) -> CreateTopic {
    CreateTopic {
        name: name.into(),
        partitions: 2,
        replication: Replication::Factor(1),
        configs: vec![],
        validate_only: false,
    }
}

/// Returns the replies so far.
fn replies(controller: &mut Controller) -> Vec<Outcome> {
    let actions = std::iter::from_fn(|| controller.poll());
    let reply = |action| match action {
        Action::Reply(_, outcome) => Some(outcome),
        Action::Publish(_) | Action::Ready(_) => None,
    };
    actions.filter_map(reply).collect()
}

#[test]
fn a_leader_that_is_deposed_fails_what_waits_and_decides_nothing_until_it_leads_again() {
    let mut controller = controller();
    assert!(replies(&mut controller).is_empty(), "nothing is durable");
    let applied = controller.metadata().clone();
    controller.create_topic(TO, &new_topic("lost"), TopicId([1; 16]));
    controller.producer_ids(TO);
    let end = controller.metadata().next_offset();
    controller.handle_log(log_to(None, end));
    assert!(controller.poll_append(0).is_none(), "what was proposed is given up");
    let outcomes = replies(&mut controller);
    assert_eq!(outcomes.len(), 4, "two registrations, a topic, and producer ids");
    let is_refusal = |outcome: &Outcome| matches!(outcome, Err(ApiError::NotController));
    assert!(outcomes.iter().all(is_refusal), "{outcomes:?}");
    controller.create_topic(TO, &new_topic("t"), TopicId([2; 16]));
    controller.delete_topic(TO, "lost");
    controller.delete_topic_by_id(TO, TopicId([1; 16]));
    let changes = ConfigChanges { named: [].into(), resets_others: false };
    let request = ConfigureTopic { name: "lost".into(), changes, validate_only: false };
    controller.configure_topic(TO, &request);
    controller.producer_ids(TO);
    controller.register_node(TO, &node(4, "c"));
    controller.create_groups_topic(TO, 3, TopicId([3; 16]));
    let outcomes = replies(&mut controller);
    assert!(outcomes.len() == 7 && outcomes.iter().all(is_refusal), "{outcomes:?}");
    // The topic was never committed: what is decided next does not know it.
    controller.handle_log(log_to(Some(3), end));
    assert!(controller.decides() && controller.metadata().next_offset() == applied.next_offset());
    assert!(controller.proposer.create(&new_topic("lost"), TopicId([4; 16])).is_ok());
}

#[test]
fn a_leader_decides_when_it_has_applied_all_that_is_in_its_log() {
    let mut controller = controller();
    let end = controller.metadata().next_offset();
    // Elected again, with a record of the leader between in its log.
    controller.handle_log(log_to(Some(3), end.plus(1)));
    controller.producer_ids(TO);
    let last = replies(&mut controller).pop();
    assert!(!controller.decides() && matches!(last, Some(Err(ApiError::NotController))), "{last:?}");
    let record = Record::ProducerIdsReserved { end: 5000 }.encode();
    controller.handle_committed(end, &record).expect("the next one");
    controller.handle_log(log_to(Some(3), end.plus(1)));
    assert!(controller.decides());
    let tip = controller.proposer.tip().expect("it decides");
    assert_eq!(tip.producer_ids_end().0, 5000);
}

#[test]
fn a_record_is_applied_once_and_none_is_left_out() {
    let mut controller = controller();
    let next = controller.metadata().next_offset();
    let record = |end| Record::ProducerIdsReserved { end }.encode();
    controller.handle_committed(Offset(next.0 - 1), &record(7)).expect("it was applied");
    assert_eq!((controller.metadata().next_offset(), controller.metadata().producer_ids_end().0), (next, 0));
    controller.handle_committed(next.plus(1), &record(7)).expect_err("one is left out");
    controller.handle_committed(next, b"x").expect_err("no record");
    let contradiction = Record::TopicDeleted { id: [9; 16] }.encode();
    controller.handle_committed(next, &contradiction).expect_err("there is no such topic");
}

#[test]
fn requests_fail_while_the_log_has_no_space_and_take_effect_when_it_has() {
    let mut controller = controller();
    drop(replies(&mut controller));
    let end = controller.metadata().next_offset();
    controller.create_topic(TO, &new_topic("t"), TopicId([1; 16]));
    let (number, _) = controller.poll_append(0).expect("it is proposed");
    let partition = "__cluster_metadata/0".to_owned();
    controller.handle_appended(number, Err(ApiError::Append { partition, error: AppendError::StorageFull }));
    controller.delete_topic(TO, "t");
    let outcomes = replies(&mut controller);
    let is_full = |outcome: &Outcome| matches!(outcome, Err(ApiError::MetadataLogFull));
    assert!(outcomes.len() == 4 && outcomes.iter().all(is_full), "{outcomes:?}");
    assert!(controller.is_stalled() && controller.poll_append(0).is_none());
    let mut disk = DiskHarness::new(2);
    controller.retry_stalled(&mut disk);
    commit(&mut controller);
    assert!(!controller.is_stalled() && controller.metadata().topic("t").is_some());
    assert!(controller.metadata().next_offset() > end);
}

#[test]
fn a_node_that_has_joined_publishes_nothing_before_it_is_in_its_metadata() {
    let mut disk = DiskHarness::new(3);
    let mut joined = new_controller(&mut disk, node(2, "b"), true);
    let topic = TopicRecord {
        id: [1; 16],
        name: "t".into(),
        replicas: ReplicasRecord::new([vec![2, 1]]),
        configs: vec![],
    };
    let gone = TopicRecord { id: [2; 16], name: "gone".into(), ..topic.clone() };
    let before = [
        Record::NodeRegistered(node(1, "a").to_record()),
        Record::TopicCreated(gone),
        Record::TopicDeleted { id: [2; 16] },
        Record::TopicCreated(topic),
    ];
    let mut published = Vec::new();
    let mut run = |controller: &mut Controller| {
        controller.flush(&mut disk);
        for (token, completion) in disk.run_until_idle() {
            controller.on_disk(&mut disk, token, completion).expect("the disk works");
        }
        while let Some(action) = controller.poll() {
            if let Action::Publish(publish) = action {
                published.push(publish);
            }
        }
        published.len()
    };
    for (offset, record) in (0..).zip(&before) {
        joined.handle_committed(Offset(offset), &record.encode()).expect("the next one");
        assert_eq!(run(&mut joined), 0);
    }
    let own = Record::NodeRegistered(node(2, "b").to_record());
    joined.handle_committed(Offset(4), &own.encode()).expect("the next one");
    assert!(run(&mut joined) > 0);
    let first = published[0].first.clone().expect("all of it");
    assert_eq!((first.nodes().len(), first.topics().len()), (2, 1));
    assert_eq!(published[0].changes.len(), 1, "one topic to create partitions of");
}

#[test]
fn a_node_that_joins_begins_with_the_snapshot_in_the_log_even_after_one_that_is_not_complete() {
    let mut founder = new_controller(&mut DiskHarness::new(4), node(1, "a"), false);
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        founder.create_topic(TO, &new_topic(name), TopicId([number as u8; 16]));
    }
    founder.delete_topic(TO, "b");
    founder.producer_ids(TO);
    assert!(founder.decides() && !founder.is_starting(), "without a log");
    founder.register_node(TO, &node(2, "b"));
    assert!(!founder.decides() && founder.is_starting(), "requests wait for the log");
    let mut offset = founder.metadata().next_offset();
    let log = LogView { led: Some(LeaderEpoch(0)), is_alone: true, end: offset, waits_for_space: false };
    founder.handle_log(log);
    assert!(founder.decides() && founder.may_add_replicas());

    let mut joined = new_controller(&mut DiskHarness::new(5), node(2, "b"), true);
    let passed = Record::NodeRegistered(node(7, "z").to_record());
    joined.handle_committed(Offset(offset.0 - 1), &passed.encode()).expect("it is passed over");
    let topic = TopicRecord {
        id: [9; 16],
        name: "given up".into(),
        replicas: ReplicasRecord::new([vec![2]]),
        configs: vec![],
    };
    for record in [Record::SnapshotBegan { producer_ids_end: 0 }, Record::SnapshotTopic(topic)] {
        joined.handle_committed(offset, &record.encode()).expect("the next one");
        offset = offset.plus(1);
    }
    let mut at = founder.metadata().next_offset();
    while let Some((number, batch)) = founder.poll_append(0) {
        founder.handle_appended(number, Ok(at));
        let batch = BatchView::parse(&batch).expect("a batch");
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch).expect("it can be read") {
            let value = record.expect("it can be read").value.expect("it is there");
            founder.handle_committed(at, value).expect("nothing new");
            joined.handle_committed(offset, value).expect("the next one");
            (at, offset) = (at.plus(1), offset.plus(1));
        }
    }
    let shown = |controller: &Controller| {
        let metadata = controller.metadata();
        let topics: Vec<_> = metadata.topics().map(|topic| (topic.name.clone(), topic.id)).collect();
        (topics, metadata.producer_ids_end(), metadata.nodes().len())
    };
    assert_eq!(shown(&joined), shown(&founder));
    assert_eq!(shown(&joined).0.len(), 2);
}

#[test]
fn records_reach_the_log_in_the_order_in_which_they_were_proposed() {
    let mut controller = controller();
    let before = controller.metadata().next_offset();
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        controller.proposer.create(&new_topic(name), TopicId([number as u8; 16])).expect("it is new");
    }
    assert_eq!(controller.metadata().next_offset(), before, "nothing is committed");
    let proposed = controller.proposer.tip().expect("it leads").clone();
    controller.advance();
    commit(&mut controller);
    assert_eq!(controller.metadata().next_offset(), proposed.next_offset());
    let topics = |of: &Metadata| of.topics().map(|topic| Topic::clone(topic)).collect::<Vec<_>>();
    assert_eq!(topics(controller.metadata()), topics(&proposed), "applied as the leader expected");
}

#[test]
fn a_node_registers_itself_once_and_cannot_go_back_to_an_earlier_incarnation() {
    let mut controller = controller();
    let registered = controller.metadata().next_offset();
    assert_eq!(controller.metadata().nodes().len(), 3);
    controller.register_node(TO, &node(2, "a"));
    commit(&mut controller);
    assert_eq!(controller.metadata().next_offset(), registered, "nothing new");
    let replaced = Node { incarnation: 1, ..node(2, "z") };
    controller.register_node(TO, &replaced);
    commit(&mut controller);
    assert_eq!(controller.metadata().nodes()[&NodeId(2)].rack.as_deref(), Some("z"));
    controller.register_node(TO, &node(2, "a"));
    let outcomes = replies(&mut controller);
    assert!(matches!(&outcomes[..], [Err(ApiError::InvalidNode(why))] if why.contains("incarnation 1")));
    // New partitions are created with the incarnation of their time.
    let request = CreateTopic { replication: Replication::Factor(3), ..new_topic("t") };
    controller.create_topic(TO, &request, TopicId([1; 16]));
    commit(&mut controller);
    let topic = controller.metadata().topic("t").expect("it is created");
    for (tp, _) in topic.partitions_from(0) {
        let of_node = |id: u32| topic.created_with(tp.partition).find(|replica| replica.node == NodeId(id));
        assert_eq!([1, 2, 3].map(|id| of_node(id).map(|id| id.incarnation)), [Some(0), Some(1), Some(0)]);
    }
}

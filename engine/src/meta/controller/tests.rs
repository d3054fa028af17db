use std::path::Path;

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
use highwater_replication::join::DiskId;
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::DiskHarness;

use super::*;
use crate::api::{ConfigChanges, Replication};
use crate::limits::ShardLimits;
use crate::meta::Topic;

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
pub(super) const TO: (u16, Ticket) = (0, Ticket { call: 0, number: 0 });

/// Returns the controller of node 1, in a cluster with nodes 2 and 3.
pub(super) fn controller() -> Controller {
    let mut disk = DiskHarness::new(1);
    disk.create_dir_all(Path::new("/data")).expect("made");
    let stem = Path::new("/data/meta");
    let opened = StateLog::open(&mut disk, stem, *b"META", ClusterId([1; 16]), 1);
    let (log, recovered) = opened.expect("it is new");
    let limits = ShardLimits::production(256 << 20, 2, 1, BATCH_BYTES_MAX_DEFAULT);
    let room = MetadataRoom::new(&limits);
    let mut controller = Controller::new(node(1, "a"), log, &recovered, 2, room).expect("it is empty");
    for shard in 0..2 {
        let (epochs, topics, warnings) = (vec![], vec![], vec![]);
        controller.handle_opened(shard, Opened { epochs, topics, warnings });
    }
    for node in [node(2, "a"), node(3, "b")] {
        controller.register_node(TO, &node);
    }
    controller
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
        Action::Reply(_, _, outcome) => Some(outcome),
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
    controller.proposer.handle_deposed();
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
    // As if the topic had never been committed: what is decided next does not know it.
    controller.proposer.handle_elected(&applied);
    assert!(controller.proposer.create(&new_topic("lost"), TopicId([4; 16])).is_ok());
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
    assert_eq!(controller.metadata().next_offset(), registered, "nothing new");
    let replaced = Node { incarnation: 1, ..node(2, "z") };
    controller.register_node(TO, &replaced);
    assert_eq!(controller.metadata().nodes()[&NodeId(2)].rack.as_deref(), Some("z"));
    controller.register_node(TO, &node(2, "a"));
    let outcomes = replies(&mut controller);
    assert!(matches!(&outcomes[..], [Err(ApiError::InvalidNode(why))] if why.contains("incarnation 1")));
    // New partitions are created with the incarnation of their time.
    let request = CreateTopic { replication: Replication::Factor(3), ..new_topic("t") };
    controller.create_topic(TO, &request, TopicId([1; 16]));
    let topic = controller.metadata().topic("t").expect("it is created");
    for (tp, _) in topic.partitions_from(0) {
        let of_node = |id: u32| topic.created_with(tp.partition).find(|replica| replica.node == NodeId(id));
        assert_eq!([1, 2, 3].map(|id| of_node(id).map(|id| id.incarnation)), [Some(0), Some(1), Some(0)]);
    }
}

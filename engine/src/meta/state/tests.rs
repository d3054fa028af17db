use highwater_replication::join::DiskId;

use super::super::snapshot::SnapshotWriter;
use super::*;
use crate::api::ApiError;

const ME: NodeId = NodeId(0);

/// A change, and the stores of its new partitions: all of them are on this node only.
type Applied = (Record, Vec<u16>);

fn created(id: u8, name: &str, stores: &[u16]) -> Applied {
    let record = Record::TopicCreated(TopicRecord {
        id: [id; 16],
        name: name.into(),
        replicas: ReplicasRecord::alone(ME, stores.len()),
        configs: vec![("retention.ms".into(), "1000".into())],
    });
    (record, stores.to_vec())
}

fn extended(id: u8, stores: &[u16]) -> Applied {
    let replicas = ReplicasRecord::alone(ME, stores.len());
    (Record::PartitionsAdded { id: [id; 16], replicas }, stores.to_vec())
}

fn deleted(id: u8) -> Applied {
    (Record::TopicDeleted { id: [id; 16] }, vec![])
}

fn reserved(end: i64) -> Applied {
    (Record::ProducerIdsReserved { end }, vec![])
}

fn configured(id: u8, configs: &[(&str, Option<&str>)]) -> Applied {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
    (Record::TopicConfigured { id: [id; 16], configs: configs.collect() }, vec![])
}

/// Returns the entries of these changes, of which the first has this offset.
fn entries(first: i64, applied: &[Applied]) -> Vec<Entry> {
    let entry = |(offset, (record, stores)): (i64, &Applied)| Entry::Applied {
        offset,
        record: record.clone(),
        stores: stores.clone(),
    };
    (first..).zip(applied).map(entry).collect()
}

fn after(applied: &[Applied]) -> Metadata {
    let payloads: Vec<Vec<u8>> = entries(0, applied).iter().map(Entry::encode).collect();
    Metadata::recover(ME, [], payloads.iter().map(Vec::as_slice)).expect("these fit each other")
}

fn apply(metadata: &mut Metadata, applied: Applied) -> Result<Option<Change>, ApplyError> {
    let (record, stores) = applied;
    metadata.apply(&Entry::Applied { offset: metadata.next_offset().0, record, stores })
}

#[test]
fn a_snapshot_replaces_all_earlier_records() {
    let first = [created(1, "a", &[0, 1, 1]), created(2, "b", &[1]), deleted(2), reserved(3000)];
    let behind = [
        configured(1, &[("retention.ms", None), ("segment.bytes", Some("1048576"))]),
        extended(1, &[0]),
        created(3, "b", &[0]),
    ];
    let before = after(&first);
    let mut writer = SnapshotWriter::new(&before);
    let pieces: Vec<_> = std::iter::from_fn(|| writer.next_piece(&before, 1)).collect();
    assert_eq!(pieces.len(), 2, "one for each topic");
    let payloads: Vec<Vec<u8>> = entries(4, &behind).iter().map(Entry::encode).collect();
    let short = Metadata::recover(ME, pieces.iter().map(Vec::as_slice), payloads.iter().map(Vec::as_slice))
        .expect("fits");
    let long = after(&[&first[..], &behind[..]].concat());
    assert_eq!(short.by_name, long.by_name);
    assert_eq!(short.by_id, long.by_id);
    assert_eq!(short.deleting, long.deleting);
    assert_eq!(short.producer_ids_end(), ProducerId(3000));
    assert_eq!((short.bytes, short.next_offset()), (long.bytes, Offset(7)));
    assert_eq!((short.loads(2), short.partition_count()), (vec![3, 2], 5));
    let topic = short.topic("a").expect("it exists");
    assert_eq!(topic.config.retention_ms, Some(7 * 24 * 60 * 60 * 1000));
    assert_eq!(topic.config.segment_bytes, 1_048_576);
}

#[test]
fn topics_of_the_broker_itself_are_for_reading_only() {
    let metadata = after(&[created(1, "__consumer_offsets", &[0]), created(2, "__mine", &[0])]);
    let topic = |name| metadata.topic(name).expect("it exists");
    assert_eq!(topic("__consumer_offsets").check_writable(), Err(ApiError::InternalTopic));
    assert_eq!(topic("__mine").check_writable(), Ok(()));
}

#[test]
fn a_topic_that_is_created_again_under_the_same_name_is_another_topic() {
    let mut metadata = after(&[created(1, "a", &[0])]);
    assert!(matches!(
        apply(&mut metadata, deleted(1)),
        Ok(Some(Change::Deleted(TopicId(id)))) if id == [1; 16]
    ));
    apply(&mut metadata, created(2, "a", &[0])).expect("the name is free");
    assert_eq!(metadata.topic("a").map(|t| t.id), Some(TopicId([2; 16])));
    assert_eq!(metadata.deleting().keys().copied().collect::<Vec<_>>(), [TopicId([1; 16])]);
    metadata.apply(&Entry::TopicGone { id: [1; 16] }).expect("fits");
    assert!(metadata.deleting().is_empty());
}

#[test]
fn applying_the_changes_gives_the_same_metadata_as_replaying_the_records() {
    let records = [
        created(1, "a", &[0, 1, 1]),
        created(2, "b", &[1]),
        extended(1, &[2]),
        configured(1, &[("retention.ms", None)]),
        deleted(2),
        created(3, "b", &[0]),
    ];
    let (mut whole, mut copy) = (Metadata::new(ME), Metadata::new(ME));
    for entry in &entries(0, &records) {
        let change = whole.apply(entry).expect("fits").expect("shards have something to do");
        copy.absorb(&change);
        assert_eq!((&copy.by_name, &copy.by_id), (&whole.by_name, &whole.by_id));
        assert_eq!(
            (copy.bytes, copy.partitions, copy.loads(3)),
            (whole.bytes, whole.partitions, whole.loads(3))
        );
    }
    assert_eq!(whole.loads(3), [2, 2, 1]);
}

#[test]
fn a_topics_epochs_are_kept_when_it_is_changed_and_removed_when_it_is_deleted() {
    let mut metadata = after(&[created(1, "a", &[0]), created(2, "b", &[0])]);
    let of = |id| TopicPartition { topic: TopicId([id; 16]), partition: PartitionIndex(0) };
    metadata.learn_epoch(of(1), LeaderEpoch(4));
    metadata.learn_epoch(of(2), LeaderEpoch(5));
    apply(&mut metadata, extended(1, &[0])).expect("fits");
    assert_eq!(metadata.epoch(of(1)), LeaderEpoch(4));
    apply(&mut metadata, deleted(1)).expect("fits");
    assert_eq!((metadata.epoch(of(1)), metadata.epoch(of(2))), (LeaderEpoch(0), LeaderEpoch(5)));
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let mut metadata = after(&[created(1, "a", &[0]), reserved(10)]);
    let no_store = Record::PartitionsAdded { id: [1; 16], replicas: ReplicasRecord::alone(ME, 1) };
    let not_here = Record::PartitionsAdded { id: [1; 16], replicas: ReplicasRecord::alone(NodeId(7), 1) };
    for bad in [
        created(2, "a", &[0]),
        created(1, "b", &[0]),
        deleted(7),
        extended(7, &[0]),
        reserved(5),
        (no_store, vec![]),
        (not_here, vec![0]),
    ] {
        assert!(apply(&mut metadata, bad.clone()).is_err(), "{bad:?}");
    }
    assert_eq!(metadata.next_offset(), Offset(2));
}

#[test]
fn a_record_that_is_applied_twice_or_left_out_is_an_error() {
    let mut metadata = after(&[created(1, "a", &[0]), reserved(10)]);
    for offset in [0, 1, 3] {
        let entry = Entry::Applied { offset, record: reserved(20).0, stores: vec![] };
        let error = metadata.apply(&entry).expect_err("it is not the next one");
        assert!(error.0.contains(&format!("record {offset}")), "{error}");
    }
    apply(&mut metadata, reserved(20)).expect("it is the next one");
}

#[test]
fn a_topic_on_other_nodes_only_has_no_store_and_leaves_nothing_to_free() {
    let mut metadata = Metadata::new(ME);
    let replicas = ReplicasRecord::new([vec![1, 2], vec![2, 0], vec![0, 1], vec![2, 1]]);
    let topic = |id: u8, name: &str, replicas: &ReplicasRecord| {
        Record::TopicCreated(TopicRecord {
            id: [id; 16],
            name: name.into(),
            replicas: replicas.clone(),
            configs: vec![],
        })
    };
    let entry = metadata.place(topic(1, "mixed", &replicas), 2);
    metadata.apply(&entry).expect("fits");
    let mixed = Arc::clone(metadata.topic("mixed").expect("it exists"));
    let stores: Vec<_> = mixed.partitions_from(0).map(|(_, store)| store).collect();
    assert_eq!(stores, [None, Some(StoreId(0)), Some(StoreId(1)), None]);
    assert_eq!(mixed.replicas(PartitionIndex(1)), [NodeId(2), ME]);
    let load = |replicas, leaders| NodeLoad { replicas, leaders };
    let loads = [0, 1, 2].map(|node| metadata.node_load(NodeId(node)));
    assert_eq!(loads, [load(2, 1), load(3, 1), load(3, 2)]);
    let elsewhere = ReplicasRecord::new([vec![1], vec![2]]);
    let entry = metadata.place(topic(2, "elsewhere", &elsewhere), 2);
    metadata.apply(&entry).expect("fits");
    assert_eq!((metadata.loads(2), metadata.partition_count()), (vec![1, 1], 6));
    for id in [1, 2] {
        apply(&mut metadata, deleted(id)).expect("fits");
    }
    assert_eq!(metadata.deleting().keys().copied().collect::<Vec<_>>(), [TopicId([1; 16])]);
    assert_eq!((metadata.node_load(NodeId(2)), metadata.bytes), (load(0, 0), 0));
}

#[test]
fn a_node_that_registers_again_replaces_what_was_known_of_it() {
    let mut metadata = Metadata::new(ME);
    let node = |id, rack: Option<&str>, shards| Node {
        id: NodeId(id),
        incarnation: 0,
        disk: DiskId([id as u8; 16]),
        rack: rack.map(str::to_owned),
        clients: vec![],
        peer: None,
        shards,
    };
    for node in [node(2, None, 4), node(1, Some("a"), 2), node(2, Some("b"), 8)] {
        let change = apply(&mut metadata, (Record::NodeRegistered(node.to_record()), vec![]));
        assert!(matches!(change, Ok(Some(Change::Node(of))) if *of == node));
    }
    let piece = SnapshotWriter::new(&metadata).next_piece(&metadata, 1).expect("the first piece");
    let again = Metadata::recover(ME, [&piece[..]], []).expect("fits");
    for metadata in [&metadata, &again] {
        let nodes: Vec<Node> = metadata.nodes().values().map(|node| Node::clone(node)).collect();
        assert_eq!(nodes, [node(1, Some("a"), 2), node(2, Some("b"), 8)]);
    }
    assert_eq!((again.bytes, again.next_offset()), (metadata.bytes, Offset(3)));
}

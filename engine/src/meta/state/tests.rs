use super::super::snapshot::SnapshotWriter;
use super::*;
use crate::api::ApiError;

fn created(id: u8, name: &str, stores: &[u16]) -> Record {
    Record::TopicCreated(TopicRecord {
        id: [id; 16],
        name: name.into(),
        stores: stores.to_vec(),
        configs: vec![("retention.ms".into(), "1000".into())],
    })
}

fn after(records: &[Record]) -> Metadata {
    let payloads: Vec<Vec<u8>> = records.iter().map(Record::encode).collect();
    Metadata::recover([], payloads.iter().map(Vec::as_slice)).expect("these fit each other")
}

#[test]
fn a_snapshot_replaces_all_earlier_records() {
    let first = [
        created(1, "a", &[0, 1, 1]),
        created(2, "b", &[1]),
        Record::TopicDeleted { id: [2; 16] },
        Record::ProducerIdsReserved { end: 3000 },
    ];
    let behind = [
        Record::TopicConfigured {
            id: [1; 16],
            configs: vec![("retention.ms".into(), None), ("segment.bytes".into(), Some("1048576".into()))],
        },
        Record::PartitionsAdded { id: [1; 16], stores: vec![0] },
        created(3, "b", &[0]),
    ];
    let before = after(&first);
    let mut writer = SnapshotWriter::new(&before);
    let pieces: Vec<_> = std::iter::from_fn(|| writer.next_piece(&before, 1)).collect();
    assert_eq!(pieces.len(), 2, "one for each topic");
    let payloads: Vec<Vec<u8>> = behind.iter().map(Record::encode).collect();
    let short = Metadata::recover(pieces.iter().map(Vec::as_slice), payloads.iter().map(Vec::as_slice))
        .expect("fits");
    let long = after(&[&first[..], &behind[..]].concat());
    assert_eq!(short.by_name, long.by_name);
    assert_eq!(short.by_id, long.by_id);
    assert_eq!(short.deleting, long.deleting);
    assert_eq!(short.producer_ids_end(), ProducerId(3000));
    assert_eq!(short.bytes, long.bytes);
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
        metadata.apply(&Record::TopicDeleted { id: [1; 16] }),
        Ok(Some(Change::Deleted(TopicId(id)))) if id == [1; 16]
    ));
    metadata.apply(&created(2, "a", &[0])).expect("the name is free");
    assert_eq!(metadata.topic("a").map(|t| t.id), Some(TopicId([2; 16])));
    assert_eq!(metadata.deleting().keys().copied().collect::<Vec<_>>(), [TopicId([1; 16])]);
    metadata.apply(&Record::TopicGone { id: [1; 16] }).expect("fits");
    assert!(metadata.deleting().is_empty());
}

#[test]
fn applying_the_changes_gives_the_same_metadata_as_replaying_the_records() {
    let records = [
        created(1, "a", &[0, 1, 1]),
        created(2, "b", &[1]),
        Record::PartitionsAdded { id: [1; 16], stores: vec![2] },
        Record::TopicConfigured { id: [1; 16], configs: vec![("retention.ms".into(), None)] },
        Record::TopicDeleted { id: [2; 16] },
        created(3, "b", &[0]),
    ];
    let (mut whole, mut copy) = (Metadata::default(), Metadata::default());
    for record in &records {
        let change = whole.apply(record).expect("fits").expect("shards have something to do");
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
    metadata.apply(&Record::PartitionsAdded { id: [1; 16], stores: vec![0] }).expect("fits");
    assert_eq!(metadata.epoch(of(1)), LeaderEpoch(4));
    metadata.apply(&Record::TopicDeleted { id: [1; 16] }).expect("fits");
    assert_eq!((metadata.epoch(of(1)), metadata.epoch(of(2))), (LeaderEpoch(0), LeaderEpoch(5)));
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let mut metadata = after(&[created(1, "a", &[0]), Record::ProducerIdsReserved { end: 10 }]);
    for bad in [
        created(2, "a", &[0]),
        created(1, "b", &[0]),
        Record::TopicDeleted { id: [7; 16] },
        Record::PartitionsAdded { id: [7; 16], stores: vec![0] },
        Record::ProducerIdsReserved { end: 5 },
    ] {
        assert!(metadata.apply(&bad).is_err(), "{bad:?}");
    }
}

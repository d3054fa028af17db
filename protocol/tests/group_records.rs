//! The records of `__consumer_offsets`: bytes that Kafka 4.3.1 writes, round trips, and bytes that nobody should write.

use highwater_protocol::group_records::*;
use highwater_protocol::limits::GROUP_RECORD_BYTES_MAX;
use proptest::collection::vec;
use proptest::option::of as option_of;
use proptest::prelude::*;

const MS: i64 = 1_700_000_000_000;
const TOPIC_ID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const TOPIC_ID_2: [u8; 16] = [17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32];

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Checks that Kafka's bytes are decoded as the record, and encoded from it if `written`.
fn check(key_hex: &str, value_hex: &str, key: &Key, value: &Value, written: bool) {
    let (key_bytes, value_bytes) = (bytes(key_hex), bytes(value_hex));
    let record = (key.clone(), Some(value.clone()));
    assert_eq!(decode(&key_bytes, Some(&value_bytes)), Ok(Some(record)), "{value_hex}");
    assert_eq!(decode(&key_bytes, None), Ok(Some((key.clone(), None))));
    if written {
        assert_eq!(encode_key(key), key_bytes);
        assert_eq!(encode_value(value), value_bytes, "{value:?}");
    }
    for cut in 0..value_bytes.len() {
        assert!(decode(&key_bytes, Some(&value_bytes[..cut])).is_err(), "cut at {cut}: {value_hex}");
    }
    for cut in 0..key_bytes.len() {
        assert!(decode(&key_bytes[..cut], None).is_err(), "cut at {cut}: {key_hex}");
    }
    let longer = [&value_bytes[..], &[0]].concat();
    assert_eq!(decode(&key_bytes, Some(&longer)), Err(RecordError::Trailing { bytes: 1 }));
}

fn group() -> String {
    "g".into()
}

fn member() -> String {
    "m".into()
}

#[test]
fn offsets_are_read_in_all_versions_and_written_as_kafka_writes_them() {
    let key = Key::OffsetCommit { group: group(), topic: "topic".into(), partition: 7 };
    let plain = OffsetCommit {
        offset: 4096,
        leader_epoch: -1,
        metadata: "meta".into(),
        commit_timestamp: MS,
        expire_timestamp: -1,
        topic_id: [0; 16],
    };
    let expires = OffsetCommit { expire_timestamp: MS + 600_000, ..plain.clone() };
    let with_epoch = OffsetCommit { leader_epoch: 5, ..plain.clone() };
    let with_topic = OffsetCommit { topic_id: TOPIC_ID, ..with_epoch.clone() };
    let legacy_key = "00000001670005746f70696300000007";
    let key_hex = "00010001670005746f70696300000007";
    for (key_hex, value_hex, value, written) in [
        (legacy_key, "0000000000000000100000046d6574610000018bcfe56800", &plain, false),
        (key_hex, "0000000000000000100000046d6574610000018bcfe56800", &plain, false),
        (key_hex, "0001000000000000100000046d6574610000018bcfe568000000018bcfee8fc0", &expires, true),
        (key_hex, "0002000000000000100000046d6574610000018bcfe56800", &plain, false),
        (key_hex, "000300000000000010000000000500046d6574610000018bcfe56800", &with_epoch, false),
        (key_hex, "0004000000000000100000000005056d6574610000018bcfe5680000", &with_epoch, true),
        (
            key_hex,
            "0004000000000000100000000005056d6574610000018bcfe568000100100102030405060708090a0b0c0d0e0f10",
            &with_topic,
            true,
        ),
    ] {
        check(key_hex, value_hex, &key, &Value::OffsetCommit(value.clone()), written);
    }
}

#[test]
fn classic_groups_are_read_in_all_versions_and_written_as_kafka_writes_them() {
    let key = Key::GroupMetadata { group: group() };
    let v3 = GroupMetadata {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some(member()),
        state_timestamp: MS,
        members: vec![ClassicMember {
            member: member(),
            instance: Some("i".into()),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: vec![1, 2, 3],
            assignment: vec![4, 5],
            protocols: vec![],
        }],
    };
    let without = |version: i16| {
        let mut group = v3.clone();
        let member = &mut group.members[0];
        member.instance = None;
        member.rebalance_timeout_ms = if version >= 1 { 300_000 } else { -1 };
        group.state_timestamp = if version >= 2 { MS } else { -1 };
        group
    };
    let empty = GroupMetadata {
        protocol_type: String::new(),
        generation: 0,
        protocol: None,
        leader: None,
        state_timestamp: MS,
        members: vec![],
    };
    for (value_hex, value, written) in [
        (
            "00000008636f6e73756d657200000003000572616e676500016d0000000100016d0006636c69656e74000a2f3132372e302e302e31\
             0000afc800000003010203000000020405",
            without(0),
            false,
        ),
        (
            "00010008636f6e73756d657200000003000572616e676500016d0000000100016d0006636c69656e74000a2f3132372e302e302e31\
             000493e00000afc800000003010203000000020405",
            without(1),
            false,
        ),
        (
            "00020008636f6e73756d657200000003000572616e676500016d0000018bcfe568000000000100016d0006636c69656e74000a2f31\
             32372e302e302e31000493e00000afc800000003010203000000020405",
            without(2),
            false,
        ),
        (
            "00030008636f6e73756d657200000003000572616e676500016d0000018bcfe568000000000100016d0001690006636c69656e7400\
             0a2f3132372e302e302e31000493e00000afc800000003010203000000020405",
            v3.clone(),
            true,
        ),
        (
            "000409636f6e73756d6572000000030672616e6765026d0000018bcfe5680002026d026907636c69656e740b2f3132372e302e302e\
             31000493e00000afc8040102030304050000",
            v3.clone(),
            false,
        ),
        ("0003000000000000ffffffff0000018bcfe5680000000000", empty, true),
    ] {
        check("0002000167", value_hex, &key, &Value::GroupMetadata(value), written);
    }
}

#[test]
fn consumer_groups_are_read_and_written_as_kafka_does() {
    let key = Key::ConsumerGroupMetadata { group: group() };
    for (value_hex, metadata_hash) in [("00000000000900", 0), ("000000000009010008ffffffffffffffb3", -77)] {
        let value = ConsumerGroupMetadata { epoch: 9, metadata_hash, empty_since_ms: None };
        check("0003000167", value_hex, &key, &Value::ConsumerGroupMetadata(value), true);
    }
    let key = Key::ConsumerGroupPartitionMetadata { group: group() };
    let racks = vec![PartitionRacks { partition: 1, racks: vec!["r1".into(), "r2".into()] }];
    let topic = TopicMetadata { topic_id: TOPIC_ID, topic_name: "topic".into(), partitions: 2, racks };
    let value = Value::ConsumerGroupPartitionMetadata(ConsumerGroupPartitionMetadata { topics: vec![topic] });
    let hex = "0000020102030405060708090a0b0c0d0e0f1006746f70696300000002020000000103037231037232000000";
    check("0004000167", hex, &key, &value, true);
    let key = Key::TargetAssignmentMetadata { group: group() };
    for (value_hex, timestamp) in [("00000000000800", 0), ("0000000000080100080000018bcfe56800", MS)] {
        let value = Value::TargetAssignmentMetadata(TargetAssignmentMetadata { epoch: 8, timestamp });
        check("0006000167", value_hex, &key, &value, true);
    }
    let key = Key::RegularExpression { group: group(), expression: "a.*".into() };
    let topics = vec!["a".into(), "ab".into()];
    let value = Value::RegularExpression(RegularExpression { topics, version: 12, timestamp: MS });
    let hex = "0000030261036162000000000000000c0000018bcfe5680000";
    check("00100001670003612e2a", hex, &key, &value, true);
}

#[test]
fn members_of_consumer_groups_are_read_and_written_as_kafka_does() {
    let key = Key::ConsumerGroupMemberMetadata { group: group(), member: member() };
    let plain = ConsumerGroupMemberMetadata {
        instance: None,
        rack: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        topic_names: vec!["a".into(), "b".into()],
        topic_regex: None,
        rebalance_timeout_ms: 60_000,
        assignor: None,
        classic: None,
    };
    let protocols = vec![("range".into(), vec![1, 2])];
    let full = ConsumerGroupMemberMetadata {
        instance: Some("i".into()),
        rack: Some("r".into()),
        topic_names: vec![],
        topic_regex: Some("a.*".into()),
        rebalance_timeout_ms: -1,
        assignor: Some("uniform".into()),
        classic: Some(ClassicMemberMetadata { session_timeout_ms: 45_000, protocols }),
        ..plain.clone()
    };
    for (value_hex, value) in [
        ("0000000007636c69656e740b2f3132372e302e302e310302610262000000ea600000", plain),
        (
            "00000269027207636c69656e740b2f3132372e302e302e310104612e2affffffff08756e69666f726d010011010000afc8020672616e\
             67650301020000",
            full,
        ),
    ] {
        check("000500016700016d", value_hex, &key, &Value::ConsumerGroupMemberMetadata(value), true);
    }
    let key = Key::TargetAssignmentMember { group: group(), member: member() };
    let target = |topic_id, partitions| TargetPartitions { topic_id, partitions };
    let partitions = vec![target(TOPIC_ID, vec![0, 1]), target(TOPIC_ID_2, vec![300])];
    let value = Value::TargetAssignmentMember(TargetAssignmentMember { partitions });
    let hex = "0000030102030405060708090a0b0c0d0e0f10030000000000000001001112131415161718191a1b1c1d1e1f20020000012c0000";
    check("000700016700016d", hex, &key, &value, true);
    let key = Key::CurrentMemberAssignment { group: group(), member: member() };
    let value = Value::CurrentMemberAssignment(CurrentMemberAssignment {
        epoch: 8,
        previous_epoch: 7,
        state: 1,
        assigned: vec![CurrentPartitions {
            topic_id: TOPIC_ID,
            partitions: vec![0, 1],
            epochs: Some(vec![8, 7]),
        }],
        revoking: vec![CurrentPartitions { topic_id: TOPIC_ID_2, partitions: vec![300], epochs: None }],
    });
    let hex = "0000000000080000000701020102030405060708090a0b0c0d0e0f1003000000000000000101000903000000080000000702111213\
               1415161718191a1b1c1d1e1f20020000012c0000";
    check("000800016700016d", hex, &key, &value, true);
}

#[test]
fn records_of_types_that_are_not_known_are_skipped_whatever_they_contain() {
    for record_type in [9_i16, 11, 15, 17, 18, 100, i16::MAX, -1, i16::MIN] {
        let key = record_type.to_be_bytes();
        assert_eq!(decode(&key, Some(&[0xff])), Ok(None), "{record_type}");
        assert_eq!(decode(&[&key[..], &[0xff; 9]].concat(), None), Ok(None), "{record_type}");
    }
    assert!(decode(&[], None).is_err());
    assert!(decode(&[0], None).is_err());
}

#[test]
fn values_of_later_versions_are_an_error_and_tagged_fields_that_are_not_known_are_skipped() {
    for (key, version, name) in [
        ("00010001670005746f70696300000007", 5_u8, "OffsetCommit"),
        ("0002000167", 5, "GroupMetadata"),
        ("0003000167", 1, "ConsumerGroupMetadata"),
        ("0006000167", 1, "TargetAssignmentMetadata"),
        ("000500016700016d", 1, "ConsumerGroupMemberMetadata"),
    ] {
        let error = RecordError::Version { value: name, version: i16::from(version) };
        assert_eq!(decode(&bytes(key), Some(&[0, version, 0, 0, 0, 1])), Err(error));
    }
    // Tag 5 with one byte, then our own tag.
    let value = bytes("00000000000902050199d7900108000000000000004d");
    let (_, value) = decode(&bytes("0003000167"), Some(&value)).expect("readable").expect("known");
    let group = ConsumerGroupMetadata { epoch: 9, metadata_hash: 0, empty_since_ms: Some(77) };
    assert_eq!(value, Some(Value::ConsumerGroupMetadata(group)));
}

#[test]
fn lengths_that_the_bytes_cannot_hold_are_errors() {
    let key = bytes("000500016700016d");
    for value in [
        "0000000007636c69656e740b2f3132372e302e302e31ffffffff0f0261",
        "0000000007636c69656e740b2f3132372e302e302e31ffffffff1f0261",
        "0000000007636c69656e740b2f3132372e302e302e31808080808000",
        "0000ffffffff0f",
        "000000",
        "0000000000",
        "0000000002ff",
    ] {
        assert!(decode(&key, Some(&bytes(value))).is_err(), "{value}");
    }
    for key in ["0002ffff", "0002fffe", "00027fff67", "00020001ff"] {
        assert!(decode(&bytes(key), None).is_err(), "{key}");
    }
    let epochs =
        "00000000000800000007000201020304050607080900000000000f1003000000000000000101000502000000080001";
    assert!(
        decode(&bytes("000800016700016d"), Some(&bytes(epochs))).is_err(),
        "one epoch for two partitions"
    );
    let long = vec![0; GROUP_RECORD_BYTES_MAX + 1];
    let error = RecordError::TooLarge { bytes: GROUP_RECORD_BYTES_MAX + 1 };
    assert_eq!(decode(&bytes("0002000167"), Some(&long)), Err(error.clone()));
    assert_eq!(decode(&long, None), Err(error));
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé.]{0,12}"
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

fn offset() -> impl Strategy<Value = Value> {
    let with_epoch = (any::<i64>(), any::<i32>(), text(), any::<i64>(), any::<[u8; 16]>()).prop_map(
        |(offset, leader_epoch, metadata, commit_timestamp, topic_id)| OffsetCommit {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp: -1,
            topic_id,
        },
    );
    let expiring = (any::<i64>(), text(), any::<i64>(), any::<i64>()).prop_map(
        |(offset, metadata, commit_timestamp, expire_timestamp)| OffsetCommit {
            offset,
            leader_epoch: -1,
            metadata,
            commit_timestamp,
            expire_timestamp,
            topic_id: [0; 16],
        },
    );
    prop_oneof![with_epoch, expiring].prop_map(Value::OffsetCommit)
}

fn classic() -> impl Strategy<Value = Value> {
    let protocol = (text(), option_of(blob())).prop_map(|(name, metadata)| OtherProtocol { name, metadata });
    let member = (
        (text(), option_of(text()), text(), text(), any::<i32>(), any::<i32>()),
        (blob(), blob(), vec(protocol, 0..3)),
    )
        .prop_map(
            |((member, instance, client_id, client_host, rebalance_timeout_ms, session_timeout_ms), of)| {
                let (subscription, assignment, protocols) = of;
                ClassicMember {
                    member,
                    instance,
                    client_id,
                    client_host,
                    rebalance_timeout_ms,
                    session_timeout_ms,
                    subscription,
                    assignment,
                    protocols,
                }
            },
        );
    let group = (text(), any::<i32>(), option_of(text()), option_of(text()), any::<i64>(), vec(member, 0..4));
    group.prop_map(|(protocol_type, generation, protocol, leader, state_timestamp, members)| {
        Value::GroupMetadata(GroupMetadata {
            protocol_type,
            generation,
            protocol,
            leader,
            state_timestamp,
            members,
        })
    })
}

fn consumer_group() -> impl Strategy<Value = Value> {
    let group = (any::<i32>(), any::<i64>(), option_of(any::<i64>())).prop_map(
        |(epoch, metadata_hash, empty_since_ms)| {
            Value::ConsumerGroupMetadata(ConsumerGroupMetadata { epoch, metadata_hash, empty_since_ms })
        },
    );
    let target = (any::<i32>(), any::<i64>()).prop_map(|(epoch, timestamp)| {
        Value::TargetAssignmentMetadata(TargetAssignmentMetadata { epoch, timestamp })
    });
    let expression =
        (vec(text(), 0..4), any::<i64>(), any::<i64>()).prop_map(|(topics, version, timestamp)| {
            Value::RegularExpression(RegularExpression { topics, version, timestamp })
        });
    let racks =
        (any::<i32>(), vec(text(), 0..3)).prop_map(|(partition, racks)| PartitionRacks { partition, racks });
    let topic = (any::<[u8; 16]>(), text(), any::<i32>(), vec(racks, 0..3)).prop_map(
        |(topic_id, topic_name, partitions, racks)| TopicMetadata { topic_id, topic_name, partitions, racks },
    );
    let topics = vec(topic, 0..3)
        .prop_map(|topics| Value::ConsumerGroupPartitionMetadata(ConsumerGroupPartitionMetadata { topics }));
    prop_oneof![group, target, expression, topics]
}

fn consumer_member() -> impl Strategy<Value = Value> {
    let classic = (any::<i32>(), vec((text(), blob()), 0..3))
        .prop_map(|(session_timeout_ms, protocols)| ClassicMemberMetadata { session_timeout_ms, protocols });
    let member = (
        (option_of(text()), option_of(text()), text(), text()),
        (vec(text(), 0..4), option_of(text()), any::<i32>(), option_of(text()), option_of(classic)),
    )
        .prop_map(|((instance, rack, client_id, client_host), of)| {
            let (topic_names, topic_regex, rebalance_timeout_ms, assignor, classic) = of;
            Value::ConsumerGroupMemberMetadata(ConsumerGroupMemberMetadata {
                instance,
                rack,
                client_id,
                client_host,
                topic_names,
                topic_regex,
                rebalance_timeout_ms,
                assignor,
                classic,
            })
        });
    let target = (any::<[u8; 16]>(), vec(any::<i32>(), 0..5))
        .prop_map(|(topic_id, partitions)| TargetPartitions { topic_id, partitions });
    let target = vec(target, 0..4)
        .prop_map(|partitions| Value::TargetAssignmentMember(TargetAssignmentMember { partitions }));
    let current = || {
        let of_topic = (any::<[u8; 16]>(), vec(any::<(i32, i32)>(), 0..5), any::<bool>());
        of_topic.prop_map(|(topic_id, partitions, has_epochs)| CurrentPartitions {
            topic_id,
            partitions: partitions.iter().map(|(partition, _)| *partition).collect(),
            epochs: has_epochs.then(|| partitions.iter().map(|(_, epoch)| *epoch).collect()),
        })
    };
    let current = (any::<i32>(), any::<i32>(), any::<i8>(), vec(current(), 0..3), vec(current(), 0..3))
        .prop_map(|(epoch, previous_epoch, state, assigned, revoking)| {
            Value::CurrentMemberAssignment(CurrentMemberAssignment {
                epoch,
                previous_epoch,
                state,
                assigned,
                revoking,
            })
        });
    prop_oneof![member, target, current]
}

/// The key of a value's type.
fn key_of(value: &Value, group: String, other: String, partition: i32) -> Key {
    match value {
        Value::OffsetCommit(_) => Key::OffsetCommit { group, topic: other, partition },
        Value::GroupMetadata(_) => Key::GroupMetadata { group },
        Value::ConsumerGroupMetadata(_) => Key::ConsumerGroupMetadata { group },
        Value::ConsumerGroupPartitionMetadata(_) => Key::ConsumerGroupPartitionMetadata { group },
        Value::ConsumerGroupMemberMetadata(_) => Key::ConsumerGroupMemberMetadata { group, member: other },
        Value::TargetAssignmentMetadata(_) => Key::TargetAssignmentMetadata { group },
        Value::TargetAssignmentMember(_) => Key::TargetAssignmentMember { group, member: other },
        Value::CurrentMemberAssignment(_) => Key::CurrentMemberAssignment { group, member: other },
        Value::RegularExpression(_) => Key::RegularExpression { group, expression: other },
    }
}

proptest! {
    #[test]
    fn records_round_trip_and_are_errors_when_cut_or_followed_by_bytes(
        value in prop_oneof![offset(), classic(), consumer_group(), consumer_member()],
        group in text(),
        other in text(),
        partition: i32,
        cut: prop::sample::Index,
    ) {
        let key = key_of(&value, group, other, partition);
        let (key_bytes, value_bytes) = (encode_key(&key), encode_value(&value));
        prop_assert_eq!(decode(&key_bytes, Some(&value_bytes)), Ok(Some((key.clone(), Some(value)))));
        prop_assert_eq!(decode(&key_bytes, None), Ok(Some((key, None))));
        let cut = cut.index(value_bytes.len());
        prop_assert!(decode(&key_bytes, Some(&value_bytes[..cut])).is_err());
        prop_assert!(decode(&key_bytes, Some(&[&value_bytes[..], &[0]].concat())).is_err());
    }

    #[test]
    fn bytes_at_random_are_an_error_or_a_record_that_round_trips(
        record_type in 0_u8..18,
        key in vec(any::<u8>(), 0..20),
        version in 0_u8..6,
        value in vec(any::<u8>(), 0..60),
    ) {
        let key = [&[0, record_type, 0, 1, b'g'][..], &key].concat();
        for key in [&key[..], &key[..5]] {
            if let Ok(Some((key, Some(value)))) = decode(key, Some(&[&[0, version][..], &value].concat())) {
                let again = decode(&encode_key(&key), Some(&encode_value(&value)));
                prop_assert_eq!(again, Ok(Some((key, Some(value)))));
            }
        }
    }
}

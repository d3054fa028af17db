//! Producers: records sent, acknowledgements and errors.

use highwater_engine::TestBroker;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;

use crate::support::{Row, Sender, client, metadata, read_all, wait_for};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

const PARTITIONS: u32 = 4;

fn broker() -> TestBroker {
    TestBroker::start_with(|config| config.default_partitions = PARTITIONS)
}

#[test]
fn keyed_records_with_headers_are_read_back_equal_and_in_order_with_every_codec() {
    let broker = broker();
    for codec in CODECS {
        let mut sender = Sender::new(
            &broker,
            &[("enable.idempotence", "true"), ("compression.codec", codec), ("batch.num.messages", "50")],
        );
        let rows: Vec<Row> = (0..1000)
            .map(|number| Row {
                headers: vec![
                    ("trace".into(), Some(number.to_string().into())),
                    ("trace".into(), Some("again".into())),
                    ("empty".into(), Some(Vec::new())),
                    ("null".into(), None),
                ],
                ..Row::keyed(&format!("k{}", number % 17), number)
            })
            .collect();
        let mut sent = sender.deliver(codec, &rows);
        sent.sort();
        let read = read_all(&broker, codec, PARTITIONS as i32);
        assert_eq!(read, sent, "{codec}");
        // By partition and offset, a key's records are in the order in which they were sent.
        for key in rows[..17].iter().map(|row| &row.key) {
            let times: Vec<_> = read.iter().filter(|r| r.row.key == *key).map(|r| r.row.timestamp).collect();
            assert!(times.len() > 50 && times.is_sorted(), "{codec}");
        }
    }
}

#[test]
fn records_without_key_or_value_and_large_ones_are_read_back_equal() {
    let broker = broker();
    let mut sender = Sender::new(&broker, &[("enable.idempotence", "true")]);
    let row = Row { timestamp: 1_700_000_000_000, ..Row::default() };
    let rows = [
        row.clone(),
        Row { key: Some("gone".into()), ..row.clone() },
        Row { value: Some(Vec::new()), ..row.clone() },
        Row { value: Some(vec![7; 900_000]), ..row },
    ];
    let mut sent = sender.deliver("t", &rows);
    sent.sort();
    assert_eq!(read_all(&broker, "t", PARTITIONS as i32), sent);
}

#[test]
fn acks_1_and_all_return_offsets_and_acks_0_does_not() {
    let broker = broker();
    for acks in ["0", "1", "all"] {
        let mut sender = Sender::new(&broker, &[("acks", acks)]);
        let row = Row::keyed("k", 0);
        let mut offsets: Vec<i64> = Vec::new();
        for _ in 0..5 {
            sender.send(acks, Some(1), &row);
            offsets.extend(sender.finish().into_iter().map(|result| result.expect("no error").1));
        }
        if acks == "0" {
            assert!(offsets.iter().all(|offset| *offset < 0), "{offsets:?}");
        } else {
            assert_eq!(offsets, [0, 1, 2, 3, 4], "acks={acks}");
        }
        wait_for("all of them are written", || {
            (read_all(&broker, acks, PARTITIONS as i32).len() == 5).then_some(())
        });
    }
}

#[test]
fn a_record_above_the_topics_size_limit_is_rejected_and_others_are_accepted() {
    let broker = broker();
    let admin = client(&broker, &[]);
    crate::admin::create(&admin, "small", 1, &[("max.message.bytes", "10000")]);
    let mut sender = Sender::new(&broker, &[("linger.ms", "0")]);
    for bytes in [9_000, 50_000, 9_000] {
        sender.send("small", Some(0), &Row { value: Some(vec![1; bytes]), ..Row::keyed("k", 0) });
        let result = sender.finish().remove(0);
        let fits = bytes < 10_000;
        assert_eq!(result.err(), (!fits).then_some(RDKafkaErrorCode::MessageSizeTooLarge), "{bytes} bytes");
    }
    assert_eq!(read_all(&broker, "small", 1).len(), 2);
}

#[test]
fn an_unknown_topic_is_an_error_without_auto_creation() {
    let broker = TestBroker::start_with(|config| config.auto_create_topics = false);
    let mut sender = Sender::new(&broker, &[("topic.metadata.propagation.max.ms", "0")]);
    sender.send("nowhere", None, &Row::keyed("k", 0));
    let error = sender.finish().remove(0).expect_err("the topic does not exist");
    assert!(
        matches!(error, RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition),
        "{error:?}"
    );
    let error = metadata(&broker, Some("nowhere")).topics()[0].error().map(RDKafkaErrorCode::from);
    assert_eq!(error, Some(RDKafkaErrorCode::UnknownTopicOrPartition));
}

#[test]
fn auto_creation_uses_the_brokers_default_number_of_partitions() {
    let broker = broker();
    let mut sender = Sender::new(&broker, &[]);
    sender.deliver("new", &[Row::keyed("k", 0)]);
    assert_eq!(metadata(&broker, Some("new")).topics()[0].partitions().len(), PARTITIONS as usize);
}

#[test]
fn a_transactional_producer_fails_at_once_with_the_reason() {
    let broker = broker();
    let producer: rdkafka::producer::BaseProducer = client(&broker, &[("transactional.id", "pays")]);
    let error =
        producer.init_transactions(crate::support::TIMEOUT).expect_err("transactions are not supported");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed));
    let text = error.to_string();
    assert!(text.contains("transactions are not available in this version of Highwater"), "{text}");
}

//! Records written with one protocol and read with the other.

use std::collections::BTreeSet;

use highwater_client::{Client, Compression, Record, RecordRef, Start, Timestamp};
use highwater_engine::TestBroker;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::support::{
    Placed, Row, Sender, TIMEOUT, block_on, client as kafka_client, partition_list, read_all,
};

const PARTITIONS: u32 = 5;

/// The partitioner of Kafka's Java clients and the native client. It is not librdkafka's default.
const PARTITIONER: (&str, &str) = ("partitioner", "murmur2_random");

/// Size of compressible filler in a value, in bytes.
const FILLER_BYTES: usize = 2000;

fn rows() -> Vec<Row> {
    let rows = (0..500).map(|number| Row {
        value: Some(format!("{number} {}", "x".repeat(FILLER_BYTES)).into()),
        headers: vec![
            ("trace".into(), Some(number.to_string().into())),
            ("null".into(), None),
            ("trace".into(), Some(Vec::new())),
        ],
        ..Row::keyed(&format!("k{}", number % 23), number)
    });
    rows.collect()
}

fn record(row: &Row) -> Record {
    let value = row.value.clone().unwrap_or_default();
    let record =
        Record::new(value).key(row.key.clone().unwrap_or_default()).timestamp(Timestamp(row.timestamp));
    row.headers.iter().fold(record, |record, (key, value)| match value {
        Some(value) => record.header(key.clone(), value.clone()),
        None => record.null_header(key.clone()),
    })
}

fn placed(record: &RecordRef<'_>) -> Placed {
    let headers = record.headers().map(|h| (h.key_text().into_owned(), h.value.map(<[u8]>::to_vec)));
    let row = Row {
        key: record.key().map(<[u8]>::to_vec),
        value: (!record.is_tombstone()).then(|| record.value().to_vec()),
        headers: headers.collect(),
        timestamp: record.timestamp().0,
    };
    Placed { partition: record.partition() as i32, offset: record.offset().0, row }
}

async fn read_natively(client: &Client, topic: &str) -> Vec<Placed> {
    let mut consumer = client.consumer(topic).start(Start::Earliest).until_end().await.expect("a topic");
    let mut read = Vec::new();
    while let Some(batch) = consumer.next_batch().await.expect("all records are readable") {
        read.extend(batch.iter().map(|record| placed(&record)));
    }
    read.sort();
    read
}

async fn write_natively(client: &Client, topic: &str, compression: Compression) -> Vec<Placed> {
    let producer = client.producer(topic).compression(compression).await.expect("a producer");
    let mut deliveries = Vec::new();
    let rows = rows();
    for row in &rows {
        deliveries.push(producer.send(record(row)).await.expect("buffer space"));
    }
    let mut sent = Vec::new();
    for (delivery, row) in deliveries.into_iter().zip(rows) {
        let receipt = delivery.await.expect("acknowledged");
        let offset = receipt.offset().expect("acknowledgements are enabled").0;
        sent.push(Placed { partition: receipt.partition() as i32, offset, row });
    }
    sent.sort();
    sent
}

/// Returns the number of bytes that the broker has written to logs.
async fn bytes_written(client: &Client) -> u64 {
    client.stats().await.expect("statistics").total("frames.bytes").expect("a counter")
}

#[test]
fn each_client_reads_what_the_other_writes_and_both_partition_keys_alike() {
    let broker = TestBroker::start_with(|config| config.default_partitions = PARTITIONS);
    block_on(async {
        let client = Client::connect(broker.address()).await.expect("the broker is ready");
        for compression in Compression::ALL.iter().copied() {
            let name = &compression.to_string();
            let (here, there) = (format!("native-{name}"), format!("librdkafka-{name}"));
            client.create_topic(&here).partitions(PARTITIONS).await.expect("a new topic");
            let before = bytes_written(&client).await;
            let native = write_natively(&client, &here, compression).await;
            let between = bytes_written(&client).await;
            let mut sender =
                Sender::new(&broker, &[PARTITIONER, ("compression.codec", name), ("linger.ms", "50")]);
            let mut foreign = sender.deliver(&there, &rows());
            let after = bytes_written(&client).await;
            foreign.sort();

            assert_eq!(read_all(&broker, &here, PARTITIONS as i32), native, "{name}");
            assert_eq!(read_natively(&client, &here).await, native, "{name}");
            assert_eq!(read_natively(&client, &there).await, foreign, "{name}");
            let by_key = |placed: &[Placed]| -> BTreeSet<(i32, Option<Vec<u8>>)> {
                placed.iter().map(|p| (p.partition, p.row.key.clone())).collect()
            };
            assert_eq!(
                by_key(&native),
                by_key(&foreign),
                "{name}: both clients choose the same partition for a key"
            );
            assert_eq!(by_key(&native).len(), 23, "{name}");
            // Batches are stored as received, so compressed ones are small.
            let bytes = 500 * FILLER_BYTES as u64;
            for written in [between - before, after - between] {
                assert_eq!(
                    written < bytes / 2,
                    compression != Compression::None,
                    "{name}: {written} bytes of {bytes}"
                );
            }
        }
    });
}

#[test]
fn both_clients_can_write_to_one_partition_and_share_the_namespace_of_groups() {
    let broker = TestBroker::start();
    block_on(async {
        let client = Client::connect(broker.address()).await.expect("the broker is ready");
        client.create_topic("t").await.expect("a new topic");
        let producer = client.producer("t").await.expect("a producer");
        let mut sender = Sender::new(&broker, &[("linger.ms", "0")]);
        let mut sent = Vec::new();
        for number in 0..20 {
            let row = Row::keyed("k", number);
            if number % 2 == 0 {
                let delivery = producer.send(record(&row)).await.expect("buffer space");
                let offset = delivery.await.expect("acknowledged").offset().expect("an offset").0;
                sent.push(Placed { partition: 0, offset, row });
            } else {
                sent.extend(sender.deliver("t", &[row]));
            }
        }
        assert!(sent.iter().map(|placed| placed.offset).eq(0..20));
        assert_eq!(read_all(&broker, "t", 1), sent);
        assert_eq!(read_natively(&client, "t").await, sent);

        // A named consumer of the native client is a group for Kafka clients.
        let mut consumer =
            client.consumer("t").name("team").start(Start::Earliest).until_end().await.expect("t");
        let batch = consumer.next_batch().await.expect("readable").expect("records");
        batch.commit().await.expect("committed");
        let next = batch.next_offset().0;
        let group: BaseConsumer = kafka_client(&broker, &[("group.id", "team")]);
        let asked = partition_list("t", &[(0, Offset::Invalid)]);
        let committed = group.committed_offsets(asked, TIMEOUT).expect("a response");
        assert_eq!(committed.elements()[0].offset(), Offset::Offset(next));
    });
}

//! A small blocking Kafka client.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use highwater_engine::{Broker, HostKind};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, InitProducerIdRequest, InitProducerIdResponse,
    ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic,
};
use highwater_net::kafka::schema::Message;
use highwater_protocol::batch::{BatchHeader, BatchView};

use crate::common::simulated::SimBroker;
use crate::common::{Stream, raw};
pub(crate) use crate::wire::{Answer, request};

impl SimBroker {
    pub(crate) fn kafka(&self) -> Kafka {
        Kafka { stream: self.connect(1), next: 0 }
    }
}

/// A broker with real sockets and files, and its directory.
pub(crate) struct RealBroker {
    /// Declared before the directory, so that it stops before the files are removed.
    pub(crate) broker: Option<Broker>,
    pub(crate) dir: tempfile::TempDir,
}

impl RealBroker {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = Some(crate::common::start(dir.path(), 2, HostKind::Thread));
        Self { broker, dir }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.as_ref().and_then(Broker::kafka_addr).expect("it runs and has a Kafka listener")
    }

    pub(crate) fn kafka(&self) -> Kafka {
        Kafka::connect(self.address())
    }

    pub(crate) fn native(&self) -> crate::common::Client {
        crate::common::Client::connect(self.broker.as_ref().expect("it runs").native_addr())
    }
}

pub(crate) struct Kafka {
    pub(crate) stream: Stream,
    next: i32,
}

impl Kafka {
    /// Connects over a real socket.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self { stream: raw(address), next: 0 }
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    pub(crate) fn send<'a>(&mut self, api: ApiKey, version: i16, body: &impl Message<'a>) -> i32 {
        self.next += 1;
        let bytes = request(api, version, self.next, body);
        self.send_raw(&bytes);
        self.next
    }

    /// Returns the next response, to a request of this kind; `None` if the connection was closed.
    pub(crate) fn read(&mut self, api: ApiKey, version: i16) -> Option<Answer> {
        let mut length = [0; 4];
        let first = loop {
            match self.stream.read(&mut length) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                first => break first.expect("readable"),
            }
        };
        if first == 0 {
            return None;
        }
        self.stream.read_exact(&mut length[first..]).expect("a whole length");
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut bytes).expect("a whole answer");
        Some(Answer::new(api, version, bytes))
    }

    pub(crate) fn call<'a>(&mut self, api: ApiKey, version: i16, body: &impl Message<'a>) -> Answer {
        let id = self.send(api, version, body);
        let answer = self.read(api, version).expect("the connection stays");
        assert_eq!(answer.correlation_id, id, "answers come in order");
        answer
    }

    /// Sends a batch to each of these partitions.
    pub(crate) fn send_batches(
        &mut self,
        version: i16,
        acks: i16,
        topic: &str,
        batches: &[(i32, &[u8])],
    ) -> i32 {
        let partition_data = batches
            .iter()
            .map(|(index, records)| ProducePartition { index: *index, records: Some(*records) });
        let topic = ProduceTopic { name: topic, topic_id: [0; 16], partition_data: partition_data.collect() };
        let body = ProduceRequest { transactional_id: None, acks, timeout_ms: 1000, topic_data: vec![topic] };
        self.send(ApiKey::Produce, version, &body)
    }

    /// Returns the outcome of the batch for each partition: error and offset.
    pub(crate) fn produce(&mut self, topic: &str, batches: &[(i32, &[u8])]) -> Vec<(KafkaError, i64)> {
        self.send_batches(11, -1, topic, batches);
        self.produced(11)
    }

    pub(crate) fn produced(&mut self, version: i16) -> Vec<(KafkaError, i64)> {
        let answer = self.read(ApiKey::Produce, version).expect("the connection stays");
        let response: ProduceResponse<'_> = answer.body();
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        partitions.map(|partition| (partition.error_code, partition.base_offset)).collect()
    }

    pub(crate) fn fetch(&mut self, version: i16, fetch: &Fetch<'_>) -> Vec<Fetched> {
        self.call(ApiKey::Fetch, version, &fetch.request()).fetched()
    }

    pub(crate) fn producer_id(&mut self) -> i64 {
        let body = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
        let answer = self.call(ApiKey::InitProducerId, 4, &body);
        let response: InitProducerIdResponse = answer.body();
        assert_eq!((response.error_code, response.producer_epoch), (KafkaError::NONE, 0));
        response.producer_id
    }
}

/// A fetch from one topic.
#[derive(Clone)]
pub(crate) struct Fetch<'a> {
    pub(crate) topic: &'a str,
    pub(crate) topic_id: [u8; 16],
    /// Partitions and offsets.
    pub(crate) from: &'a [(i32, i64)],
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) partition_max_bytes: i32,
    pub(crate) epoch: i32,
}

impl<'a> Fetch<'a> {
    pub(crate) fn of(topic: &'a str, from: &'a [(i32, i64)]) -> Self {
        Self {
            topic,
            topic_id: [0; 16],
            from,
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            epoch: -1,
        }
    }

    pub(crate) fn request(&self) -> FetchRequest<'a> {
        let partitions = self.from.iter().map(|(partition, fetch_offset)| FetchPartition {
            partition: *partition,
            current_leader_epoch: self.epoch,
            fetch_offset: *fetch_offset,
            partition_max_bytes: self.partition_max_bytes,
            ..Default::default()
        });
        let topic =
            FetchTopic { topic: self.topic, topic_id: self.topic_id, partitions: partitions.collect() };
        FetchRequest {
            max_wait_ms: self.max_wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            topics: vec![topic],
            ..Default::default()
        }
    }
}

/// The result of a fetch for a partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) partition: i32,
    pub(crate) error: KafkaError,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    pub(crate) records: Vec<(i64, String)>,
    pub(crate) bytes: usize,
}

impl Answer {
    pub(crate) fn fetched(&self) -> Vec<Fetched> {
        let response: FetchResponse<'_> = self.body();
        assert_eq!((response.error_code, response.session_id), (KafkaError::NONE, 0));
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let got = partitions.map(|partition| {
            let bytes = partition.records.unwrap_or_default();
            Fetched {
                partition: partition.partition_index,
                error: partition.error_code,
                high_watermark: partition.high_watermark,
                log_start: partition.log_start_offset,
                records: records_of(bytes),
                bytes: bytes.len(),
            }
        });
        got.collect()
    }
}

/// Returns the offsets and values of whole batches.
pub(crate) fn records_of(mut bytes: &[u8]) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let len = BatchHeader::parse(bytes).expect("a batch").batch_bytes();
        let view = BatchView::parse(&bytes[..len]).expect("a whole batch");
        view.check_checksum().expect("as it was sent");
        let mut scratch = Vec::new();
        for record in view.records(&mut scratch).expect("records") {
            let record = record.expect("a record");
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            records.push((record.offset.0, value));
        }
        bytes = &bytes[len..];
    }
    records
}

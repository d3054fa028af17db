//! Backend for Redis Streams: the partitions of a topic are streams, each with its own key.
//!
//! Redis has no batches. Records that wait while the maximum number of requests is in flight are sent together, as one pipeline of XADDs.
//! The offset is derived from the id of an entry (milliseconds and a number within them). The server keeps everything in memory.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, RedisResult, Value};

use super::calls::Calls;
use super::{Ack, Backend, BackendError, Consumer, From, Incoming, Outgoing, Pending, Producer};
use crate::scenario::Scenario;

/// Timeout of requests. A server that syncs everything replies late under load.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of pipelines of a producer in flight, and of records in one.
const PIPELINES_MAX: usize = 16;
const PIPELINE_RECORDS_MAX: usize = 256;

/// Maximum number of records of a read, and how long the server waits for records, in milliseconds.
const READ_RECORDS: usize = 1000;
const READ_WAIT_MS: usize = 100;

/// Default meaning of an acknowledgement.
const ACKNOWLEDGEMENT: &str = "the server's memory unless it is configured with appendfsync always";

/// A Redis server.
#[derive(Clone, Debug)]
pub struct Redis {
    server: String,
    acknowledgement: String,
}

impl Redis {
    /// Creates a backend for the server at `server` (`host:port`). The meaning of an acknowledgement depends on the server's configuration,
    /// which a client cannot see, so the caller states it.
    pub fn new(server: &str, acknowledgement: Option<&str>) -> Self {
        Self {
            server: server.to_owned(),
            acknowledgement: acknowledgement.unwrap_or(ACKNOWLEDGEMENT).to_owned(),
        }
    }

    fn failed(&self, what: &str, topic: &str, why: impl std::fmt::Display) -> BackendError {
        BackendError(format!(
            "cannot {what} {topic} on Redis at {}: {why}. Is a server listening there?",
            self.server
        ))
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_pipeline_buffer_size(2 * PIPELINES);
        Client::open(format!("redis://{}", self.server))?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn delete(&self, topic: &str) -> RedisResult<()> {
        let mut connection = self.connect().await?;
        let mut cursor = 0u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{topic}:*"))
                .arg("COUNT")
                .arg(1000)
                .query_async(&mut connection)
                .await?;
            if !keys.is_empty() {
                redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn key(topic: &str, partition: u32) -> String {
    format!("{topic}:{partition}")
}

impl Backend for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn acknowledgement(&self) -> String {
        self.acknowledgement.clone()
    }

    fn create_topic<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, ()> {
        Box::pin(async move {
            let removes = |name: &&String| {
                name.starts_with("retention.") || (*name == "cleanup.policy" && scenario.is_compacted())
            };
            if let Some(name) = scenario.topic.config.keys().find(removes) {
                let why = format!("streams have no equivalent of the setting {name}");
                return Err(self.failed("make", topic, why));
            }
            // A stream is created by its first entry.
            self.delete(topic).await.map_err(|e| self.failed("make", topic, e))
        })
    }

    fn create_idle_topic<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, ()> {
        Box::pin(async move {
            let failed = |e: RedisError| self.failed("make", topic, e);
            let mut connection = self.connect().await.map_err(failed)?;
            let mut pipeline = Pipeline::new();
            for partition in 0..partitions {
                // Creating a group is the only way to create an empty stream.
                let group = ["CREATE", &key(topic, partition), "idle", "$", "MKSTREAM"];
                pipeline.cmd("XGROUP").arg(&group).ignore();
            }
            pipeline.exec_async(&mut connection).await.map_err(failed)
        })
    }

    fn delete_topic<'a>(&'a self, topic: &'a str) -> Pending<'a, ()> {
        Box::pin(async move { self.delete(topic).await.map_err(|e| self.failed("delete", topic, e)) })
    }

    fn producer<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, Box<dyn Producer>> {
        Box::pin(async move {
            let connection =
                self.connect().await.map_err(|e| self.failed("create a producer for", topic, e))?;
            let producer = RedisProducer {
                connection,
                keys: (0..scenario.topic.partitions).map(|p| key(topic, p)).collect(),
                calls: Calls::default(),
                queued: Vec::new(),
            };
            Ok(Box::new(producer) as Box<dyn Producer>)
        })
    }

    fn consumer<'a>(
        &'a self,
        topic: &'a str,
        from: From,
        scenario: &'a Scenario,
    ) -> Pending<'a, Box<dyn Consumer>> {
        Box::pin(async move {
            let failed = |e: RedisError| self.failed("read", topic, e);
            let mut connection = self.connect().await.map_err(failed)?;
            let keys: Vec<String> = (0..scenario.topic.partitions).map(|p| key(topic, p)).collect();
            let mut last = vec![b"0-0".to_vec(); keys.len()];
            if from == From::Latest {
                let mut pipeline = Pipeline::new();
                for key in &keys {
                    pipeline.cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(1);
                }
                let newest: Vec<Value> = pipeline.query_async(&mut connection).await.map_err(failed)?;
                for (last, newest) in last.iter_mut().zip(&newest) {
                    if let Some((id, _)) = array(newest).and_then(<[Value]>::first).and_then(entry) {
                        *last = id.to_vec();
                    }
                }
            }
            let consumer = RedisConsumer { connection, keys, last, read: None };
            Ok(Box::new(consumer) as Box<dyn Consumer>)
        })
    }
}

struct RedisProducer {
    connection: MultiplexedConnection,
    /// Keys of the streams, by partition.
    keys: Vec<String>,
    calls: Calls,
    /// Records for the next pipeline.
    queued: Vec<Outgoing>,
}

impl RedisProducer {
    fn begin(&mut self) {
        if self.queued.is_empty() || self.calls.len() >= PIPELINES {
            return;
        }
        let mut pipeline = Pipeline::with_capacity(self.queued.len());
        let mut tags = Vec::with_capacity(self.queued.len());
        for record in self.queued.drain(..) {
            let mut add = Cmd::with_capacity(5, record.value.len() + 64);
            add.arg("XADD")
                .arg(&self.keys[record.partition as usize])
                .arg("*")
                .arg("v")
                .arg(&record.value[..]);
            pipeline.add_command(add);
            tags.push(record.tag);
        }
        let mut connection = self.connection.clone();
        self.calls.begin(async move {
            match connection.send_packed_commands(&pipeline, 0, tags.len()).await {
                Ok(replies) => tags
                    .into_iter()
                    .zip(replies)
                    .map(|(tag, reply)| Ack { tag, result: added(&reply) })
                    .collect(),
                Err(error) => {
                    let kind = format!("{:?}", error.kind());
                    tags.into_iter().map(|tag| Ack { tag, result: Err(kind.clone()) }).collect()
                }
            }
        });
    }
}

impl Producer for RedisProducer {
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing> {
        if self.queued.len() >= PIPELINE_RECORDS {
            self.begin();
            if !self.queued.is_empty() {
                return Err(record);
            }
        }
        self.queued.push(record);
        Ok(())
    }

    fn flush(&mut self) {
        self.begin();
    }

    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        self.begin();
        let answered = self.calls.poll_acks(cx, out);
        if answered.is_ready() {
            // Send the records that waited for a pipeline to complete.
            self.begin();
        }
        answered
    }
}

/// Parses the offset from the reply to XADD.
fn added(reply: &Value) -> Result<i64, String> {
    match reply {
        Value::BulkString(id) => offset(id).ok_or_else(|| "an invalid id".to_owned()),
        Value::ServerError(error) => Err(error.code().to_owned()),
        other => Err(format!("{other:?}")),
    }
}

/// Combines the milliseconds and the number of an id. A server accepts fewer than 2^20 entries per millisecond.
fn offset(id: &[u8]) -> Option<i64> {
    let (moment, number) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let (moment, number): (i64, i64) = (moment.parse().ok()?, number.parse().ok()?);
    (number < 1 << 20).then_some(moment << 20 | number)
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// Returns the id and value of an entry.
fn entry(value: &Value) -> Option<(&[u8], &[u8])> {
    let [Value::BulkString(id), Value::Array(fields)] = array(value)? else { return None };
    let [_, Value::BulkString(value)] = fields.as_slice() else { return None };
    Some((id, value))
}

type Read = Pin<Box<dyn Future<Output = RedisResult<Value>> + Send>>;

struct RedisConsumer {
    connection: MultiplexedConnection,
    /// The stream of each partition, and the id read last.
    keys: Vec<String>,
    last: Vec<Vec<u8>>,
    /// The request in flight.
    read: Option<Read>,
}

impl RedisConsumer {
    fn begin(&self) -> Read {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(READ_RECORDS).arg("BLOCK").arg(READ_WAIT_MS).arg("STREAMS");
        read.arg(&self.keys).arg(&self.last);
        let mut connection = self.connection.clone();
        Box::pin(async move { connection.send_packed_command(&read).await })
    }

    /// Passes the entries of a reply to `take`. A reply is null, or streams by name with their entries. Returns the number of entries, or
    /// `None` for an invalid reply.
    fn take(&mut self, reply: &Value, take: &mut dyn FnMut(Incoming<'_>)) -> Option<usize> {
        if *reply == Value::Nil {
            return Some(0);
        }
        let mut count = 0;
        for stream in array(reply)? {
            let [Value::BulkString(name), entries] = array(stream)? else { return None };
            let (_, partition) = std::str::from_utf8(name).ok()?.rsplit_once(':')?;
            let partition: u32 = partition.parse().ok()?;
            for one in array(entries)? {
                let (id, value) = entry(one)?;
                take(Incoming { partition, offset: offset(id)?, value });
                count += 1;
                let last = self.last.get_mut(partition as usize)?;
                last.clear();
                last.extend_from_slice(id);
            }
        }
        Some(count)
    }
}

impl Consumer for RedisConsumer {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>> {
        loop {
            let mut read = self.read.take().unwrap_or_else(|| self.begin());
            let reply = match read.as_mut().poll(cx) {
                Poll::Ready(Ok(reply)) => reply,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(BackendError(format!("cannot read from Redis: {error}"))));
                }
                Poll::Pending => {
                    self.read = Some(read);
                    return Poll::Pending;
                }
            };
            match self.take(&reply, take) {
                Some(0) => {}
                Some(_) => return Poll::Ready(Ok(())),
                None => {
                    let why = "cannot read from Redis: invalid reply to XREAD";
                    return Poll::Ready(Err(BackendError(why.to_owned())));
                }
            }
        }
    }
}

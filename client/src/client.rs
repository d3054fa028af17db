//! The client handle, which creates producers and consumers.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::address::{NATIVE_PORT_DEFAULT, with_default_port};
use highwater_protocol::ids::ClusterId;

use crate::config::Config;
use crate::consumer::ConsumerBuilder;
use crate::error::ConnectError;
use crate::events::Events;
use crate::io::cluster::Cluster;
use crate::metrics::MetricsSnapshot;
use crate::producer::ProducerBuilder;

/// A client of one cluster. Clones share its connections, one to each shard in use.
///
/// Lost connections are re-established with growing pauses, for as long as the client exists. They end when the last
/// clone, producer and consumer is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

impl Client {
    /// Connects to a broker at `host:port`, with the defaults of [`Client::builder`]. The default port is 9191.
    pub async fn connect(address: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder().bootstrap([address]).connect().await
    }

    /// Returns a builder for a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { config: Config::default() }
    }

    /// Returns a builder for a producer to a topic; await it to create the producer.
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.cluster.clone(), Some(topic.into()))
    }

    /// Returns a builder for a producer without a topic of its own: each record names its topic with
    /// [`Record::topic`](crate::Record::topic).
    pub fn multi_topic_producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.cluster.clone(), None)
    }

    /// Returns a builder for a consumer of a topic; await it to create the consumer.
    pub fn consumer(&self, topic: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.cluster.clone(), topic.into())
    }

    /// Returns a stream of the client's events from now on.
    pub fn events(&self) -> Events {
        self.cluster.events.listen()
    }

    /// Returns the client's counters and latencies.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.cluster.metrics.snapshot()
    }

    /// Returns the id of the cluster that the client is connected to.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.id()
    }

    /// Closes all connections. Unacknowledged records fail, consumers end, and calls fail. Close producers first.
    pub fn close(&self) {
        self.cluster.close();
    }
}

/// Configures a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` is awaited"]
pub struct ClientBuilder {
    config: Config,
}

impl ClientBuilder {
    /// Sets the addresses to connect to first, each `host:port` of any broker of the cluster. The client discovers the
    /// other brokers itself. The default port is 9191; an IPv6 address with a port is written in brackets,
    /// `[::1]:9191`.
    pub fn bootstrap(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.bootstrap = addresses
            .into_iter()
            .map(|address| Arc::from(with_default_port(&address.into(), NATIVE_PORT_DEFAULT)))
            .collect();
        self
    }

    /// Sets the client's name in the broker's logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Sets how long one attempt to connect may take. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Sets how long a call may take, including retries, and how long a connection with an open request may be silent.
    /// Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Sets the silence after which the client sends a keep-alive request. Default: 10 s.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.config.keep_alive_interval = interval;
        self
    }

    /// Sets the shortest and the longest pause between attempts to connect. Default: 20 ms and 1 s.
    pub fn reconnect_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.config.backoff_min = min;
        self.config.backoff_max = max;
        self
    }

    /// Sets how often the client checks topics in use for new partitions. Default: 1 minute.
    pub fn metadata_refresh_interval(mut self, interval: Duration) -> Self {
        self.config.metadata_refresh_interval = interval;
        self
    }

    /// Connects to one of the addresses. Fails if none answers. Once connected, the client reconnects by itself.
    ///
    /// Must be called within a tokio runtime with time and I/O enabled; the client's tasks run there.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let interval = self.config.metadata_refresh_interval.max(Duration::from_millis(10));
        let cluster = Arc::new(Cluster::new(self.config));
        cluster.bootstrap().await?;
        let watched = Arc::downgrade(&cluster);
        cluster.runtime.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(cluster) = watched.upgrade().filter(|cluster| !cluster.is_closed()) else { return };
                cluster.refresh().await;
            }
        });
        Ok(Client { cluster })
    }
}

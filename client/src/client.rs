//! The client: what everything else is made from.

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

/// A client of one cluster. Clones share its connections, one to each shard that something is wanted of.
///
/// Connections that are lost are made again for as long as the client is there, with growing pauses. When the last clone, producer and consumer
/// is gone, they end.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

impl Client {
    /// Connects to a broker at `host:port`, with the defaults of [`Client::builder`]. Without a port it is 9191.
    pub async fn connect(address: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder().bootstrap([address]).connect().await
    }

    /// Configures a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { config: Config::default() }
    }

    /// A producer to a topic, to be configured and awaited.
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.cluster.clone(), Some(topic.into()))
    }

    /// A producer without a topic of its own, to be configured and awaited: each record says where it goes, by [`Record::topic`](crate::Record::topic).
    pub fn multi_topic_producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.cluster.clone(), None)
    }

    /// A consumer of a topic, to be configured and awaited.
    pub fn consumer(&self, topic: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.cluster.clone(), topic.into())
    }

    /// What happens to the connections from now on.
    pub fn events(&self) -> Events {
        self.cluster.events.listen()
    }

    /// What the client has done so far.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.cluster.metrics.snapshot()
    }

    /// The cluster it is connected to.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.id()
    }

    /// Ends all connections. Producers give up what is not acknowledged, consumers end, calls fail. Close producers first.
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
    /// Addresses to begin at, `host:port` each: any brokers of the cluster. The others are found by asking. Without a port it is 9191; an IPv6
    /// address with a port stands in brackets, `[::1]:9191`.
    pub fn bootstrap(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.bootstrap = addresses
            .into_iter()
            .map(|address| Arc::from(with_default_port(&address.into(), NATIVE_PORT_DEFAULT)))
            .collect();
        self
    }

    /// A name for the broker's logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// How long one attempt to connect may take. Default: 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long a call may take, retries included, and how long a connection may leave a request without a sign of life.
    /// Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Silence after which the broker is asked whether it is still there. Default: 10 s.
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.config.keep_alive = interval;
        self
    }

    /// The shortest and the longest pause between attempts to connect. Default: 20 ms and 1 s.
    pub fn reconnect_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.config.backoff_min = min;
        self.config.backoff_max = max;
        self
    }

    /// How often topics in use are looked at for new partitions. Default: 1 minute.
    pub fn metadata_refresh(mut self, interval: Duration) -> Self {
        self.config.metadata_refresh = interval;
        self
    }

    /// Connects to one of the addresses. Fails if none answers; once connected, the client reconnects by itself for ever.
    ///
    /// Must be called within a tokio runtime with time and I/O enabled; the client's tasks run there.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let interval = self.config.metadata_refresh.max(Duration::from_millis(10));
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

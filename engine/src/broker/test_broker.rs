//! A broker for tests and examples.

use std::net::SocketAddr;
use std::time::Duration;

use crate::broker::config::{BrokerConfig, HostKind};
use crate::broker::start::Broker;
use crate::start_error::StartError;

/// A broker with a temporary directory, free local ports and one core. When dropped, it stops and removes its directory.
#[derive(Debug)]
pub struct TestBroker {
    /// Declared before the directory, so that it stops before its files are removed. `None` while it is stopped.
    broker: Option<Broker>,
    config: BrokerConfig,
    _data: tempfile::TempDir,
}

impl TestBroker {
    /// Starts a broker. Returns when clients can connect.
    ///
    /// ```
    /// let broker = highwater_engine::TestBroker::start();
    /// let address = broker.address(); // what a client connects to
    /// ```
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts a broker with a configuration changed by `change`.
    pub fn start_with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        Self::try_start(change).unwrap_or_else(|e| panic!("the test broker did not start: {e}"))
    }

    fn try_start(change: impl FnOnce(&mut BrokerConfig)) -> Result<Self, StartError> {
        let data = tempfile::Builder::new()
            .prefix("highwater-test-")
            .tempdir()
            .map_err(|e| StartError::Disk(format!("no temporary directory: {e}")))?;
        let mut config = BrokerConfig {
            data_dir: data.path().join("data"),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
            kafka_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
            group_initial_rebalance_delay: Duration::ZERO,
            cores: Some(1),
            host: HostKind::Thread,
            stop_on_signals: false,
            ..BrokerConfig::default()
        };
        change(&mut config);
        let broker = Broker::start(config.clone())?;
        // A restart has to use the same ports.
        config.listen = vec![broker.native_addr().into()];
        config.kafka_listen = broker.kafka_addr().into_iter().map(Into::into).collect();
        Ok(Self { broker: Some(broker), config, _data: data })
    }

    /// Stops it gracefully and starts it again with the same data and ports.
    pub fn restart(&mut self) {
        self.stop();
        let broker = Broker::start(self.config.clone());
        self.broker = Some(broker.unwrap_or_else(|e| panic!("the test broker did not start again: {e}")));
    }

    /// Stops it gracefully. [`restart`](Self::restart) starts it again.
    pub fn stop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.shutdown();
            assert_eq!(broker.wait(), 0, "the test broker stops gracefully");
        }
    }

    /// Returns the address for clients, `host:port`.
    pub fn address(&self) -> String {
        self.config.listen[0].address.to_string()
    }

    /// Returns the address for Kafka clients, `host:port`.
    pub fn kafka_address(&self) -> String {
        self.config.kafka_listen.first().expect("a test broker has a Kafka listener").address.to_string()
    }

    /// Returns the broker.
    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("it was not stopped")
    }
}

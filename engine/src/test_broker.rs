//! A broker for tests and examples.

use std::net::SocketAddr;

use crate::broker::{Broker, StartError};
use crate::config::{BrokerConfig, HostKind};

/// A broker on a temporary directory and a free port of this machine, with one core. Stops, and takes its directory with it, when dropped.
#[derive(Debug)]
pub struct TestBroker {
    /// Declared before the directory: it has to end before its files go.
    broker: Broker,
    _data: tempfile::TempDir,
}

impl TestBroker {
    /// Starts one; returns when clients can connect.
    ///
    /// ```
    /// let broker = highwater_engine::TestBroker::start();
    /// let address = broker.address(); // what a client connects to
    /// ```
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|e| panic!("the test broker did not start: {e}"))
    }

    /// Starts one, or says why not.
    pub fn try_start() -> Result<Self, StartError> {
        let data = tempfile::Builder::new()
            .prefix("highwater-test-")
            .tempdir()
            .map_err(|e| StartError::Disk(format!("no temporary directory: {e}")))?;
        let config = BrokerConfig {
            data_dir: data.path().join("data"),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            kafka_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            cores: Some(1),
            host: HostKind::Thread,
            stop_on_signals: false,
            ..BrokerConfig::default()
        };
        Ok(Self { broker: Broker::start(config)?, _data: data })
    }

    /// What a client connects to, `host:port`.
    pub fn address(&self) -> String {
        self.broker.native_addr().to_string()
    }

    /// What a Kafka client connects to, `host:port`.
    pub fn kafka_address(&self) -> String {
        self.broker.kafka_addr().expect("a test broker has a Kafka listener").to_string()
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }
}

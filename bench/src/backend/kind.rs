//! The clients selectable on the command line.

use super::{Backend, Native, Null};
use crate::BenchError;
use crate::server::Protocol;

/// A client.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendKind {
    /// Highwater's native client
    #[default]
    Native,
    /// No client: acknowledges every record at once, which measures the generator itself
    Null,
    /// librdkafka, for any broker with Kafka's protocol, including Highwater
    Kafka,
    /// NATS JetStream
    Nats,
    /// Redis Streams
    Redis,
}

/// Information about a broker that clients cannot see.
#[derive(Clone, Copy, Default, Debug)]
pub struct BrokerInfo<'a> {
    /// Meaning of its acknowledgements.
    pub acknowledgement: Option<&'a str>,
    /// Settings for the client.
    pub settings: &'a [(String, String)],
}

impl BackendKind {
    /// Returns the protocol for a broker started for the run. `None` if the client cannot connect to one.
    pub fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Native => Some(Protocol::Native),
            Self::Kafka => Some(Protocol::Kafka),
            Self::Null | Self::Nats | Self::Redis => None,
        }
    }

    /// Returns whether the client needs a broker.
    pub fn needs_broker(self) -> bool {
        self != Self::Null
    }

    /// Creates the client for a broker at these addresses.
    pub fn make(self, server: &[String], info: BrokerInfo<'_>) -> Result<Box<dyn Backend>, BenchError> {
        if !info.settings.is_empty() && self != Self::Kafka {
            return Err(BenchError::failed("--client-setting requires --backend kafka"));
        }
        Ok(match self {
            Self::Native => Box::new(Native::new(server.to_vec(), info.acknowledgement)),
            Self::Null => Box::new(Null),
            #[cfg(feature = "kafka")]
            Self::Kafka => {
                Box::new(super::kafka::Kafka::new(&server.join(","), info.acknowledgement, info.settings))
            }
            #[cfg(feature = "nats")]
            Self::Nats => Box::new(super::nats::Nats::new(&server.join(","), info.acknowledgement)),
            #[cfg(feature = "redis")]
            Self::Redis => Box::new(super::redis::Redis::new(&server.join(","), info.acknowledgement)),
            #[cfg(not(all(feature = "kafka", feature = "nats", feature = "redis")))]
            missing => return Err(missing.not_built()),
        })
    }

    #[cfg(not(all(feature = "kafka", feature = "nats", feature = "redis")))]
    fn not_built(self) -> BenchError {
        let value = clap::ValueEnum::to_possible_value(&self).expect("every backend has a name");
        let name = value.get_name();
        BenchError::failed(format_args!(
            "this program was built without the client for {name}; \
             `cargo build --release -p highwater --features {name}` builds one with it"
        ))
    }
}

//! The clients to choose from on the command line.

use super::{Backend, Native, Null};
use crate::BenchError;
use crate::server::Protocol;

/// A client, by its name.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendKind {
    /// This project's own
    #[default]
    Native,
    /// None at all: everything is acknowledged at once, which shows the generator's own floor
    Null,
    /// Any broker that speaks Kafka's protocol, this one too, through librdkafka
    Kafka,
    /// NATS JetStream
    Nats,
    /// Redis Streams
    Redis,
}

/// What is known of a broker that no client can see.
#[derive(Clone, Copy, Default, Debug)]
pub struct Told<'a> {
    /// What its acknowledgements mean.
    pub acknowledgement: Option<&'a str>,
    /// Settings of its client.
    pub settings: &'a [(String, String)],
}

impl BackendKind {
    /// With what it speaks to a broker of the run's own; none: it cannot.
    pub fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Native => Some(Protocol::Native),
            Self::Kafka => Some(Protocol::Kafka),
            Self::Null | Self::Nats | Self::Redis => None,
        }
    }

    /// Whether it needs a broker at all.
    pub fn needs_broker(self) -> bool {
        self != Self::Null
    }

    /// Makes it, for a broker at these addresses.
    pub fn make(self, server: &[String], told: Told<'_>) -> Result<Box<dyn Backend>, BenchError> {
        if !told.settings.is_empty() && self != Self::Kafka {
            return Err(BenchError::failed("--client-setting is for --backend kafka"));
        }
        Ok(match self {
            Self::Native => Box::new(Native::new(server.to_vec(), told.acknowledgement)),
            Self::Null => Box::new(Null),
            #[cfg(feature = "kafka")]
            Self::Kafka => {
                Box::new(super::kafka::Kafka::new(&server.join(","), told.acknowledgement, told.settings))
            }
            #[cfg(feature = "nats")]
            Self::Nats => Box::new(super::nats::Nats::new(&server.join(","), told.acknowledgement)),
            #[cfg(feature = "redis")]
            Self::Redis => Box::new(super::redis::Redis::new(&server.join(","), told.acknowledgement)),
            #[cfg(not(all(feature = "kafka", feature = "nats", feature = "redis")))]
            missing => return Err(missing.not_built()),
        })
    }

    #[cfg(not(all(feature = "kafka", feature = "nats", feature = "redis")))]
    fn not_built(self) -> BenchError {
        let value = clap::ValueEnum::to_possible_value(&self).expect("all have a name");
        let name = value.get_name();
        BenchError::failed(format_args!(
            "this program was built without its client for {name}; \
             `cargo build --release -p highwater --features {name}` builds one with it"
        ))
    }
}

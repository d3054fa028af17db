//! The clients to choose from on the command line.

use super::{Backend, Native, Null};
use crate::BenchError;

/// A client, by its name.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendKind {
    /// This project's own
    #[default]
    Native,
    /// None at all: everything is acknowledged at once, which shows the generator's own floor
    Null,
}

impl BackendKind {
    /// Whether a broker of the run's own can be started for it.
    pub fn has_own_broker(self) -> bool {
        self == Self::Native
    }

    /// Whether it needs a broker at all.
    pub fn needs_broker(self) -> bool {
        self != Self::Null
    }

    /// Makes it, for a broker at these addresses. `durability` is what the broker said of its disk, if it is known.
    pub fn make(self, server: &[String], durability: Option<&str>) -> Result<Box<dyn Backend>, BenchError> {
        Ok(match self {
            Self::Native => Box::new(Native::new(server.to_vec(), durability)),
            Self::Null => Box::new(Null),
        })
    }
}

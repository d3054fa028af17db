//! The state of cutting a log off. The store takes the steps: see [`Store::truncate_suffix`](crate::Store::truncate_suffix).

use highwater_protocol::ids::LogIndex;

use crate::api::ReadId;
use crate::configurations::Configuration;
use crate::epochs::Epochs;
use crate::position::{LogPoint, Mark};

/// A cut in progress.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) goal: CutGoal,
    pub(crate) step: CutStep,
}

/// Where the log will be cut off.
#[derive(Debug)]
pub(crate) enum CutGoal {
    /// The log will end before this index.
    Truncate(LogIndex),
    /// The log will begin here, without frames.
    StartAt(LogPoint, Epochs, Option<Configuration>),
}

/// How far a cut has got.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CutStep {
    /// Waits until everything that was appended is durable.
    Settling,
    /// Waits for the frame at which the log will end.
    Locating(ReadId),
    /// The log will end here, in the extent that the mark names. Waits until the headers of the extents after it are marked as abandoned.
    GivingUp(Mark, i64),
}

impl Cut {
    /// Returns the index before which the log will end.
    pub(crate) fn truncates_at(&self) -> Option<LogIndex> {
        match self.goal {
            CutGoal::Truncate(index) => Some(index),
            CutGoal::StartAt(..) => None,
        }
    }
}

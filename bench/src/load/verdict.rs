//! Whether the generator or the broker was the limit of a run.

use super::recorder::Measured;
use super::sender::LATE;

/// The share of records that may be sent late before a run means nothing.
const SHARE: f64 = 0.01;

/// Who could not keep the schedule.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Why the generator was the limit.
    pub(crate) saturated: Option<String>,
    /// Why the broker was the limit.
    pub(crate) overloaded: Option<String>,
}

/// A record is late for one of two reasons that can be told apart. If the number outstanding or the client's buffer was full after its
/// moment, acknowledgements did not come: that is the broker's. If there was room all the time, the generator came late.
pub(crate) fn judge(parts: &[&Measured]) -> Limits {
    let sum = |of: fn(&Measured) -> u64| parts.iter().map(|part| of(part)).sum::<u64>();
    let (late, held_back, unsent) = (sum(|m| m.late), sum(|m| m.held_back), sum(|m| m.unsent));
    let due = sum(|m| m.sent) + unsent;
    let percent = |count: u64| 100.0 * count as f64 / due.max(1) as f64;
    let ms = LATE / 1_000_000;
    let mut limits = Limits::default();
    if percent(late) > 100.0 * SHARE {
        limits.saturated = Some(format!(
            "{:.1} % of the records were sent more than {ms} ms late although there was room for them",
            percent(late)
        ));
    }
    if percent(held_back + unsent) > 100.0 * SHARE {
        // What was never sent waited for room if most of what was late did.
        let why = format!(
            "{:.1} % of the records were due and could not be sent within {ms} ms",
            percent(held_back + unsent)
        );
        if held_back > late {
            limits.overloaded = Some(format!("{why}: too many waited for their acknowledgement"));
        } else {
            limits.saturated.get_or_insert(why);
        }
    }
    limits
}

//! Determines whether the generator or the broker limited a run.

use super::recorder::Measured;
use super::sender::LATE_NS;

/// Share of late records above which a run is not valid.
const LATE_SHARE_MAX: f64 = 0.01;

/// Why the schedule was not kept, if so.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Bottleneck {
    /// Why the generator was the bottleneck.
    pub(crate) saturated: Option<String>,
    /// Why the broker was the bottleneck.
    pub(crate) overloaded: Option<String>,
}

/// Finds the bottleneck of a run. A record is late for one of two reasons. If too many records were outstanding or the client's buffer was
/// full after its scheduled time, acknowledgements were slow: the broker is the bottleneck. Otherwise the generator was late.
pub(crate) fn bottleneck(parts: &[&Measured]) -> Bottleneck {
    let sum = |count: fn(&Measured) -> u64| parts.iter().map(|part| count(part)).sum::<u64>();
    let (late, held_back, unsent) = (sum(|m| m.late), sum(|m| m.held_back), sum(|m| m.unsent));
    let due = sum(|m| m.sent) + unsent;
    let percent = |count: u64| 100.0 * count as f64 / due.max(1) as f64;
    let ms = LATE_NS / 1_000_000;
    let mut bottleneck = Bottleneck::default();
    if percent(late) > 100.0 * LATE_SHARE_MAX {
        bottleneck.saturated = Some(format!(
            "{:.1} % of the records were sent more than {ms} ms late although the client accepted records",
            percent(late)
        ));
    }
    if percent(held_back + unsent) > 100.0 * LATE_SHARE_MAX {
        // Attribute records that were never sent to the reason of most late records.
        let why = format!(
            "{:.1} % of the records were due and could not be sent within {ms} ms",
            percent(held_back + unsent)
        );
        if held_back > late {
            bottleneck.overloaded = Some(format!("{why}: too many records were unacknowledged"));
        } else {
            bottleneck.saturated.get_or_insert(why);
        }
    }
    bottleneck
}

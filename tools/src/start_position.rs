//! Positions in a topic, as given to `consume --from`, `group seek --to` and other flags.

use std::str::FromStr;

use highwater_client::{Offset, Start, Timestamp};

use crate::units::timestamp_ms;

/// A position in each partition of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StartPosition {
    /// The first record.
    Earliest,
    /// After the last record.
    Latest,
    /// This offset.
    Offset(i64),
    /// This many records before the end.
    BeforeEnd(i64),
    /// The first record with a timestamp (milliseconds since the Unix epoch) at or after this.
    Time(i64),
}

impl StartPosition {
    /// Converts to the client's type. `BeforeEnd` becomes the end, from which the caller has to seek back.
    pub(crate) fn or_latest(self) -> Start {
        match self {
            Self::Earliest => Start::Earliest,
            Self::Latest | Self::BeforeEnd(_) => Start::Latest,
            Self::Offset(offset) => Start::Offset(Offset(offset)),
            Self::Time(millis) => Start::Timestamp(Timestamp(millis)),
        }
    }
}

impl FromStr for StartPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" | "beginning" | "start" => return Ok(Self::Earliest),
            "latest" | "end" => return Ok(Self::Latest),
            _ => {}
        }
        match text.parse::<i64>() {
            Ok(n) if n < 0 => return Ok(Self::BeforeEnd(n.saturating_neg())),
            Ok(n) => return Ok(Self::Offset(n)),
            Err(_) => {}
        }
        timestamp_ms(text, jiff::Timestamp::now()).map(Self::Time).map_err(|e| {
            if text.starts_with('@') {
                e
            } else {
                format!("`{text}` is not a position; use earliest, latest, an offset, -N, or a time such as 2025-01-31T08:00:00Z or @-90m")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_keyword_a_number_or_a_time() {
        for (text, start) in [
            ("earliest", StartPosition::Earliest),
            ("latest", StartPosition::Latest),
            ("0", StartPosition::Offset(0)),
            ("123", StartPosition::Offset(123)),
            ("-10", StartPosition::BeforeEnd(10)),
            ("@1735689600000", StartPosition::Time(1_735_689_600_000)),
            ("2025-01-01T00:00:00Z", StartPosition::Time(1_735_689_600_000)),
        ] {
            assert_eq!(text.parse(), Ok(start), "{text}");
        }
        assert!(matches!("@-1h".parse(), Ok(StartPosition::Time(_))));
        for text in ["", "first", "1.5", "99999999999999999999", "@"] {
            assert!(text.parse::<StartPosition>().is_err(), "{text}");
        }
    }
}

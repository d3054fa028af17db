//! One connection of Kafka's protocol, without its socket.

use highwater_runtime::plane::Instant;

use super::decoder::KafkaDecoder;
use super::replies::KafkaReplies;
use crate::conn::Progress;

/// One connection: what it has sent, what it waits for, and since when.
#[derive(Debug, Default)]
pub struct KafkaConn {
    /// Bytes in, requests out. Taken out while its requests are handled, because they borrow from it.
    pub input: KafkaDecoder,
    /// What has not been answered.
    pub replies: KafkaReplies,
    progress: Progress,
}

impl KafkaConn {
    /// To be called after the input was used: notes what the clock is compared with. `reading` is false while this side does not
    /// read, which the peer cannot be blamed for.
    pub fn note_progress(&mut self, now: Instant, reading: bool) {
        let is_inside = reading && self.input.is_inside_request();
        self.progress.note(now, self.input.requests(), is_inside, self.input.held_bytes());
    }

    /// Whether a request was begun and not ended in its time. A connection that is silent between requests never is.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.progress.is_overdue(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kafka::decoder::{Gate, KafkaStep};
    use crate::limits::MESSAGE_TIME;

    #[test]
    fn a_request_that_was_begun_has_to_end_and_silence_is_allowed() {
        let mut conn = KafkaConn { input: KafkaDecoder::new(Gate::Declared), ..Default::default() };
        let at = |seconds| Instant(0).after(Duration::from_secs(seconds));
        conn.note_progress(at(1), true);
        assert!(!conn.is_overdue(at(100_000)));
        // Heartbeat 0, as far as its correlation id.
        let request = [0, 0, 0, 30, 0, 12, 0, 0, 0, 0, 0, 1];
        assert!(matches!(conn.input.next(&mut &request[..]), Ok(KafkaStep::More)));
        conn.note_progress(at(100), true);
        conn.note_progress(at(110), true);
        assert!(!conn.is_overdue(at(99 + MESSAGE_TIME.as_secs())));
        assert!(conn.is_overdue(at(100 + MESSAGE_TIME.as_secs())));
        conn.note_progress(at(120), false);
        assert!(!conn.is_overdue(at(500)), "what is not read does not count");
    }
}

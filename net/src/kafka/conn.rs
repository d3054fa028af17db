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
        self.progress.note(now, self.input.requests(), is_inside, self.input.arrived_bytes());
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

    #[test]
    fn a_large_request_has_time_for_what_has_come_of_it_and_none_for_what_was_announced() {
        let mut conn = KafkaConn { input: KafkaDecoder::new(Gate::Declared), ..Default::default() };
        let at = |seconds| Instant(0).after(Duration::from_secs(seconds));
        // Produce 9 of 64 MiB, as far as its correlation id; then a client id of 32 KiB.
        let request = [4, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        assert!(matches!(conn.input.next(&mut &request[..]), Ok(KafkaStep::WantsRoom(_))));
        conn.input.admit();
        conn.note_progress(at(100), true);
        assert!(conn.is_overdue(at(100 + MESSAGE_TIME.as_secs())), "it was announced, and that is all");
        let client_id = [vec![0x7f, 0xff], vec![b'a'; 0x7fff]].concat();
        assert!(matches!(conn.input.next(&mut &client_id[..]), Ok(KafkaStep::More)));
        // No tags, no transactional id, acks, timeout; one topic with one batch of 1 MiB, half of which comes.
        let head = [0, 0, 0, 1, 0, 0, 0, 0, 2, 2, b't', 2, 0, 0, 0, 0, 0x81, 0x80, 0x40];
        assert!(matches!(conn.input.next(&mut &head[..]), Ok(KafkaStep::More)));
        assert!(matches!(conn.input.next(&mut &vec![0; 512 << 10][..]), Ok(KafkaStep::More)));
        conn.note_progress(at(101), true);
        assert!(!conn.is_overdue(at(100 + MESSAGE_TIME.as_secs() + 7)));
        assert!(conn.is_overdue(at(100 + MESSAGE_TIME.as_secs() + 8)));
    }
}

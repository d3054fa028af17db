//! A connection of Kafka's protocol, without its socket.

use std::fmt;

use highwater_runtime::plane::Instant;

use super::decoder::KafkaDecoder;
use super::replies::KafkaReplies;
use crate::conn::Progress;
use crate::limits::{KAFKA_IDLE_MAX, KAFKA_SILENCE_MAX};

/// Why a connection timed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KafkaOverdue {
    /// It sent nothing after it connected.
    Silent,
    /// It sent part of a request, and not the rest.
    Request,
    /// It was idle for too long.
    Idle,
}

impl fmt::Display for KafkaOverdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "no request was received within {} s", KAFKA_SILENCE_MAX.as_secs()),
            Self::Request => f.write_str("a request was not completed in time"),
            Self::Idle => write!(f, "idle for {} s", KAFKA_IDLE_MAX.as_secs()),
        }
    }
}

/// A connection: its decoder, its unanswered requests, and its deadlines.
#[derive(Debug)]
pub struct KafkaConn {
    /// Decodes received bytes into requests. Moved out while requests are handled, because they borrow from it.
    pub input: KafkaDecoder,
    /// Requests without a response.
    pub replies: KafkaReplies,
    progress: Progress,
    has_sent: bool,
    /// This side does not read it for now.
    is_paused: bool,
    /// Since when it has sent no request and waited for no response.
    idle_since: Instant,
}

impl KafkaConn {
    /// Creates a new connection to a broker that accepts batches of up to `batch_bytes_max` bytes.
    pub fn new(now: Instant, batch_bytes_max: usize) -> Self {
        Self {
            input: KafkaDecoder::default().with_batch_bytes_max(batch_bytes_max),
            replies: KafkaReplies::default(),
            progress: Progress::default(),
            has_sent: false,
            is_paused: false,
            idle_since: now,
        }
    }

    /// Updates the deadlines. Call it after `input` was used. While this side does not read (`reading` is false), no deadline runs.
    pub fn note_progress(&mut self, now: Instant, reading: bool) {
        let is_inside = self.input.is_inside_request();
        self.has_sent |= !reading || is_inside || self.input.requests() > 0;
        self.is_paused = !reading;
        self.idle_since = now;
        self.progress.record(now, self.input.requests(), reading && is_inside, self.input.received_bytes());
    }

    /// Returns the deadline that was missed, if any. Call it every few seconds: a client that waits for a response or is not read is not idle.
    pub fn overdue(&mut self, now: Instant) -> Option<KafkaOverdue> {
        if self.is_paused || !self.replies.is_empty() {
            self.idle_since = now;
        }
        let idle = now.since(self.idle_since);
        if self.progress.is_overdue(now) {
            Some(KafkaOverdue::Request)
        } else if !self.has_sent && idle >= KAFKA_SILENCE_MAX {
            Some(KafkaOverdue::Silent)
        } else {
            (idle >= KAFKA_IDLE_MAX).then_some(KafkaOverdue::Idle)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;

    use super::*;
    use crate::kafka::decoder::{Gate, KafkaStep};
    use crate::limits::MESSAGE_TIME;

    #[test]
    fn a_client_that_connects_and_says_nothing_ends_soon_and_one_that_was_answered_after_a_while() {
        let mut conn = KafkaConn {
            input: KafkaDecoder::new(Gate::Declared),
            ..KafkaConn::new(Instant(0), BATCH_BYTES_MAX_DEFAULT)
        };
        let at = |time: Duration| Instant(0).after(time);
        let just_before = |time: Duration| Instant(at(time).0 - 1);
        assert_eq!(conn.overdue(just_before(KAFKA_SILENCE_MAX)), None);
        assert_eq!(conn.overdue(at(KAFKA_SILENCE_MAX)), Some(KafkaOverdue::Silent));
        // Heartbeat 0 of a group without a name.
        let request = [0, 0, 0, 18, 0, 12, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0, 0];
        assert!(matches!(conn.input.next(&mut &request[..]), Ok(KafkaStep::Request(_))));
        let slot = conn.replies.open(request.len(), 0);
        let asked = Duration::from_secs(1);
        conn.note_progress(at(asked), true);
        assert_eq!(conn.overdue(at(asked + 2 * KAFKA_IDLE_MAX)), None, "it waits for its answer");
        conn.replies.fill(slot, crate::kafka::KafkaReply::nothing());
        assert!(conn.replies.pop(&mut bytes::BytesMut::new()).is_some());
        let answered = asked + 2 * KAFKA_IDLE_MAX;
        assert_eq!(conn.overdue(just_before(answered + KAFKA_IDLE_MAX)), None);
        assert_eq!(conn.overdue(at(answered + KAFKA_IDLE_MAX)), Some(KafkaOverdue::Idle));
    }

    #[test]
    fn a_client_whose_first_request_is_not_looked_at_is_neither_silent_nor_idle() {
        let mut conn = KafkaConn {
            input: KafkaDecoder::new(Gate::Declared),
            ..KafkaConn::new(Instant(0), BATCH_BYTES_MAX_DEFAULT)
        };
        let at = |time: Duration| Instant(0).after(time);
        conn.note_progress(at(Duration::from_secs(1)), false);
        for minutes in 1..100 {
            assert_eq!(conn.overdue(at(Duration::from_mins(minutes))), None);
        }
    }

    #[test]
    fn a_request_that_was_begun_has_to_end_and_time_between_requests_is_not_counted() {
        let mut conn = KafkaConn {
            input: KafkaDecoder::new(Gate::Declared),
            ..KafkaConn::new(Instant(0), BATCH_BYTES_MAX_DEFAULT)
        };
        let at = |seconds| Instant(0).after(Duration::from_secs(seconds));
        let is_overdue = |conn: &mut KafkaConn, at| conn.overdue(at) == Some(KafkaOverdue::Request);
        // Heartbeat 0, as far as its correlation id.
        let request = [0, 0, 0, 30, 0, 12, 0, 0, 0, 0, 0, 1];
        assert!(matches!(conn.input.next(&mut &request[..]), Ok(KafkaStep::More)));
        conn.note_progress(at(100), true);
        conn.note_progress(at(110), true);
        assert!(!is_overdue(&mut conn, at(99 + MESSAGE_TIME.as_secs())));
        assert!(is_overdue(&mut conn, at(100 + MESSAGE_TIME.as_secs())));
        conn.note_progress(at(120), false);
        assert!(!is_overdue(&mut conn, at(500)), "what is not read does not count");
    }

    #[test]
    fn a_large_request_has_time_for_what_has_come_of_it_and_none_for_what_was_announced() {
        let mut conn = KafkaConn {
            input: KafkaDecoder::new(Gate::Declared),
            ..KafkaConn::new(Instant(0), BATCH_BYTES_MAX_DEFAULT)
        };
        let at = |seconds| Instant(0).after(Duration::from_secs(seconds));
        let is_overdue = |conn: &mut KafkaConn, at| conn.overdue(at) == Some(KafkaOverdue::Request);
        // Produce 9 of 64 MiB, as far as its correlation id; then a client id of 32 KiB.
        let request = [4, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        assert!(matches!(conn.input.next(&mut &request[..]), Ok(KafkaStep::WantsRoom(_))));
        conn.input.admit();
        conn.note_progress(at(100), true);
        assert!(is_overdue(&mut conn, at(100 + MESSAGE_TIME.as_secs())), "it was announced, and that is all");
        let client_id = [vec![0x7f, 0xff], vec![b'a'; 0x7fff]].concat();
        assert!(matches!(conn.input.next(&mut &client_id[..]), Ok(KafkaStep::More)));
        // No tags, no transactional id, acks, timeout; one topic with one batch of 1 MiB, half of which comes.
        let head = [0, 0, 0, 1, 0, 0, 0, 0, 2, 2, b't', 2, 0, 0, 0, 0, 0x81, 0x80, 0x40];
        assert!(matches!(conn.input.next(&mut &head[..]), Ok(KafkaStep::More)));
        assert!(matches!(conn.input.next(&mut &vec![0; 512 << 10][..]), Ok(KafkaStep::More)));
        conn.note_progress(at(101), true);
        assert!(!is_overdue(&mut conn, at(100 + MESSAGE_TIME.as_secs() + 7)));
        assert!(is_overdue(&mut conn, at(100 + MESSAGE_TIME.as_secs() + 8)));
    }
}

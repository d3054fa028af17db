//! A connection of the native protocol, without its socket.

use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::MessageKind;
use highwater_runtime::plane::Instant;

use crate::decoder::{Decoder, ProtocolViolation};
use crate::limits::{BYTES_PER_SECOND_MIN, HELLO_TIME, MESSAGE_TIME};
use crate::replies::ReplyQueue;

/// Why a connection timed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// It sent no complete hello.
    Hello,
    /// It sent part of a message, and not the rest.
    Message,
}

impl Overdue {
    /// Returns the error that the peer gets before the connection is closed.
    pub fn violation(self) -> ProtocolViolation {
        let (kind, time) = match self {
            Self::Hello => (MessageKind::Hello as u16, HELLO_TIME),
            Self::Message => (0, MESSAGE_TIME),
        };
        let what = match self {
            Self::Hello => "no hello was received",
            Self::Message => "a message was not completed",
        };
        let text = format!("{what} within {} seconds", time.as_secs());
        ProtocolViolation { kind, id: 0, code: ErrorCode::Malformed, text }
    }
}

/// Progress of the message that is being received, for its deadline.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Progress {
    current: Option<Current>,
}

/// A message of which a part was received.
#[derive(Clone, Copy, Debug)]
struct Current {
    /// Number of messages before it.
    number: u64,
    since: Instant,
    received_bytes: usize,
}

impl Progress {
    /// Records that `number` messages were received, and `received_bytes` of the next one if it `has_begun`. Only received bytes extend the
    /// deadline, not an announced length: memory is reserved for a message that has begun, and others wait for memory.
    pub(crate) fn record(&mut self, now: Instant, number: u64, has_begun: bool, received_bytes: usize) {
        let since = match self.current {
            Some(current) if current.number == number => current.since,
            _ => now,
        };
        self.current = has_begun.then_some(Current { number, since, received_bytes });
    }

    /// Returns whether the current message has missed its deadline.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.current.is_some_and(|current| {
            let extra = Duration::from_secs(current.received_bytes as u64 / BYTES_PER_SECOND_MIN);
            now.since(current.since) >= MESSAGE_TIME + extra
        })
    }
}

/// A connection: its decoder, its unanswered requests, and its deadlines.
#[derive(Debug)]
pub struct NativeConn {
    /// Decodes received bytes into requests. Moved out while requests are handled, because they borrow from it.
    pub input: Decoder,
    /// Requests without a reply.
    pub replies: ReplyQueue,
    hello_until: Option<Instant>,
    progress: Progress,
}

impl NativeConn {
    /// Creates a new connection to a broker that accepts batches of up to `batch_bytes_max` bytes.
    pub fn new(now: Instant, batch_bytes_max: usize) -> Self {
        let input = Decoder::default().with_batch_bytes_max(batch_bytes_max);
        Self { input, hello_until: Some(now.after(HELLO_TIME)), ..Self::greeted(batch_bytes_max) }
    }

    /// Creates a connection that moved to this shard after its hello.
    pub fn greeted(batch_bytes_max: usize) -> Self {
        Self {
            input: Decoder::greeted().with_batch_bytes_max(batch_bytes_max),
            replies: ReplyQueue::default(),
            hello_until: None,
            progress: Progress::default(),
        }
    }

    /// Updates the deadlines. Call it after `input` was used. While this side does not read (`reading` is false), no deadline runs.
    pub fn note_progress(&mut self, now: Instant, reading: bool) {
        let messages = self.input.messages();
        if messages > 0 {
            self.hello_until = None;
        }
        let has_begun = reading && self.input.is_inside_message();
        self.progress.record(now, messages, has_begun, self.input.received_bytes());
    }

    /// Returns the deadline that was missed, if any.
    pub fn overdue(&self, now: Instant) -> Option<Overdue> {
        if self.hello_until.is_some_and(|until| now >= until) {
            return Some(Overdue::Hello);
        }
        self.progress.is_overdue(now).then_some(Overdue::Message)
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
    use highwater_protocol::native::{DeleteTopicRequest, Hello, PROTOCOL_VERSION, message};

    use super::*;
    use crate::decoder::Step;

    fn hello() -> bytes::Bytes {
        let hello = Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: 0,
            shard: None,
            cluster: None,
            client_name: "test".into(),
        };
        message(1, &hello)
    }

    fn feed(conn: &mut NativeConn, mut data: &[u8], now: Instant) -> usize {
        let mut requests = 0;
        while let Step::Request(_) = conn.input.next(&mut data).expect("good bytes") {
            requests += 1;
        }
        conn.note_progress(now, true);
        requests
    }

    fn at(seconds: u64) -> Instant {
        Instant(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_hello_has_to_come_within_its_time() {
        let mut conn = NativeConn::new(at(5), BATCH_BYTES_MAX_DEFAULT);
        let hello = hello();
        assert_eq!(feed(&mut conn, &hello[..10], at(6)), 0);
        assert_eq!(conn.overdue(at(14)), None);
        assert_eq!(conn.overdue(at(15)), Some(Overdue::Hello));
        assert_eq!(feed(&mut conn, &hello[10..], at(14)), 1);
        assert_eq!(conn.overdue(at(1000)), None);
    }

    #[test]
    fn a_message_that_was_begun_has_to_end() {
        let mut conn = NativeConn::greeted(BATCH_BYTES_MAX_DEFAULT);
        let delete = message(2, &DeleteTopicRequest { name: "t".into() });
        assert_eq!(feed(&mut conn, &delete[..5], at(10)), 0);
        assert_eq!(feed(&mut conn, &delete[5..9], at(30)), 0);
        assert_eq!(conn.overdue(at(39)), None);
        assert_eq!(conn.overdue(at(40)), Some(Overdue::Message), "bytes in between do not help");
        // The rest of it and the beginning of another, again and again: each has its own time.
        for second in 40..200 {
            let rest = [&delete[9..], &delete[..9]].concat();
            assert_eq!(feed(&mut conn, &rest, at(second)), 1);
            assert_eq!(conn.overdue(at(second)), None);
        }
    }

    #[test]
    fn time_in_which_this_side_does_not_read_does_not_count() {
        let mut conn = NativeConn::greeted(BATCH_BYTES_MAX_DEFAULT);
        let delete = message(2, &DeleteTopicRequest { name: "t".into() });
        feed(&mut conn, &delete[..5], at(10));
        conn.note_progress(at(10), false);
        assert_eq!(conn.overdue(at(500)), None);
        conn.note_progress(at(500), true);
        assert_eq!(conn.overdue(at(529)), None);
        assert_eq!(conn.overdue(at(530)), Some(Overdue::Message));
    }
}

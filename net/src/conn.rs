//! One connection of the native protocol, without its socket.

use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::MessageKind;
use highwater_runtime::plane::Instant;

use crate::decoder::{Decoder, Refusal};
use crate::limits::{BYTES_PER_SECOND_MIN, HELLO_TIME, MESSAGE_TIME};
use crate::replies::ReplyQueue;

/// A connection took too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// It never said hello.
    Hello,
    /// It began a message and did not end it.
    Message,
}

impl Overdue {
    /// What the peer is told before the connection ends.
    pub fn refusal(self) -> Refusal {
        let (kind, time) = match self {
            Self::Hello => (MessageKind::Hello as u16, HELLO_TIME),
            Self::Message => (0, MESSAGE_TIME),
        };
        let what = match self {
            Self::Hello => "no hello came",
            Self::Message => "a message was begun and not ended",
        };
        let text = format!("{what} within {} seconds", time.as_secs());
        Refusal { kind, id: 0, code: ErrorCode::Malformed, text }
    }
}

/// A message that has begun, and since when it has been coming.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Progress {
    inside: Option<Inside>,
}

/// A message that has begun.
#[derive(Clone, Copy, Debug)]
struct Inside {
    /// How many came before it.
    number: u64,
    since: Instant,
    arrived: usize,
}

impl Progress {
    /// Notes that `number` messages came and whether the next, of which so many bytes have arrived, has begun. What was only announced
    /// gives no time: room is kept for it that others wait for.
    pub(crate) fn note(&mut self, now: Instant, number: u64, is_inside: bool, arrived: usize) {
        let since = match self.inside {
            Some(inside) if inside.number == number => inside.since,
            _ => now,
        };
        self.inside = is_inside.then_some(Inside { number, since, arrived });
    }

    /// Whether a message was begun and not ended in its time.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.inside.is_some_and(|inside| {
            let allowed = MESSAGE_TIME + Duration::from_secs(inside.arrived as u64 / BYTES_PER_SECOND_MIN);
            now.since(inside.since) >= allowed
        })
    }
}

/// One connection: what it has sent, what it waits for, and since when.
#[derive(Debug)]
pub struct NativeConn {
    /// Bytes in, requests out. Taken out while its requests are handled, because they borrow from it.
    pub input: Decoder,
    /// What has not been answered.
    pub replies: ReplyQueue,
    hello_until: Option<Instant>,
    progress: Progress,
}

impl NativeConn {
    /// A connection that has just come in, to a broker that takes batches of up to so many bytes.
    pub fn new(now: Instant, batch_bytes_max: usize) -> Self {
        let input = Decoder::default().with_batch_bytes_max(batch_bytes_max);
        Self { input, hello_until: Some(now.after(HELLO_TIME)), ..Self::greeted(batch_bytes_max) }
    }

    /// A connection that has moved here after its hello.
    pub fn greeted(batch_bytes_max: usize) -> Self {
        Self {
            input: Decoder::greeted().with_batch_bytes_max(batch_bytes_max),
            replies: ReplyQueue::default(),
            hello_until: None,
            progress: Progress::default(),
        }
    }

    /// To be called after the input was used: notes what the clock is compared with. `reading` is false while this side does not
    /// read, which the peer cannot be blamed for.
    pub fn note_progress(&mut self, now: Instant, reading: bool) {
        let messages = self.input.messages();
        if messages > 0 {
            self.hello_until = None;
        }
        let is_inside = reading && self.input.is_inside_message();
        self.progress.note(now, messages, is_inside, self.input.arrived_bytes());
    }

    /// Whether it took too long.
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

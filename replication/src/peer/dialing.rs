//! When to open the connection to another shard.

use std::time::Duration;

use highwater_runtime::plane::Instant;

use super::limits::{RECONNECT_MAX, RECONNECT_MIN};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// An attempt is due then.
    Waiting(Instant),
    Connecting,
    Established(Instant),
}

/// The attempts of a shard to keep a channel open to another one, to which it [opens](super::PeerShard::opens_to) the connection.
///
/// The first attempt is immediate. The time between attempts doubles from [`RECONNECT_MIN`] to [`RECONNECT_MAX`], less a random part of up to half
/// of it, so that the shards of a cluster do not connect to a restarted node at the same moment. A session that lasted for [`RECONNECT_MAX`] was a success:
/// after it, the first attempt is soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialer {
    state: State,
    attempts: u32,
    failures: u32,
}

impl Dialer {
    /// Creates a dialer whose first attempt is due.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Waiting(now), attempts: 0, failures: 0 }
    }

    /// Returns when the next attempt is due, unless there is a connection.
    pub fn next_deadline(&self) -> Option<Instant> {
        let State::Waiting(at) = self.state else { return None };
        Some(at)
    }

    /// Takes the attempt that is due. The owner opens a connection and creates its [channel](super::Channel::open) with this number.
    pub fn poll_attempt(&mut self, now: Instant) -> Option<u32> {
        self.next_deadline().filter(|at| *at <= now)?;
        self.state = State::Connecting;
        self.attempts += 1;
        Some(self.attempts)
    }

    /// Handles that the channel is established.
    pub fn handle_established(&mut self, now: Instant) {
        self.state = State::Established(now);
    }

    /// Handles that the connection could not be opened, or that its channel was closed. `random`: a new random number.
    pub fn handle_closed(&mut self, now: Instant, random: u64) {
        let lasted = match self.state {
            State::Waiting(_) => return,
            State::Connecting => Duration::ZERO,
            State::Established(since) => now.since(since),
        };
        if lasted >= RECONNECT_MAX {
            self.failures = 0;
        }
        let longest = RECONNECT_MIN.saturating_mul(1 << self.failures.min(16)).min(RECONNECT_MAX);
        let half = longest / 2;
        let jitter = Duration::from_nanos(random % (half.as_nanos() as u64 + 1));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(now.after(half + jitter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000);

    #[test]
    fn the_time_between_attempts_doubles_up_to_the_limit_less_a_random_half() {
        for random in [0, u64::MAX, 12_345_678_901] {
            let mut dialer = Dialer::new(START);
            let mut now = START;
            let mut longest = RECONNECT_MIN;
            for attempt in 1..20 {
                assert_eq!(dialer.poll_attempt(now), Some(attempt));
                assert_eq!(dialer.poll_attempt(now), None, "one attempt at a time");
                dialer.handle_closed(now, random);
                let due = dialer.next_deadline().expect("no connection");
                assert!((longest / 2..=longest).contains(&due.since(now)), "{:?}", due.since(now));
                longest = (longest * 2).min(RECONNECT_MAX);
                now = due;
            }
        }
    }

    #[test]
    fn a_session_that_lasted_makes_the_next_attempt_soon_and_a_short_one_does_not() {
        let mut dialer = Dialer::new(START);
        let mut now = START;
        for _ in 0..10 {
            assert!(dialer.poll_attempt(now).is_some());
            dialer.handle_established(now);
            dialer.handle_closed(now, 0);
            now = dialer.next_deadline().expect("no connection");
        }
        assert!(dialer.poll_attempt(now).is_some());
        dialer.handle_established(now);
        let end = now.after(RECONNECT_MAX);
        dialer.handle_closed(end, u64::MAX);
        assert!(dialer.next_deadline().expect("no connection").since(end) <= RECONNECT_MIN);
    }
}

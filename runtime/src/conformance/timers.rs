//! Timers: each fires once, none early, in the order of their times.

use std::time::Duration;

use super::app::{Behaviour, Ctx};
use crate::plane::Instant;

pub(super) const IN_TIME: &[u8] = b"in time";

const TIMERS: u32 = 300;

#[derive(Default)]
pub(super) struct TimerCheck {
    at: Vec<Instant>,
    fired: Vec<bool>,
    left: u32,
    last: Option<Instant>,
}

impl TimerCheck {
    /// Set by the last timer, after all others: any timer that fires twice has done so by then.
    const FINAL: u32 = TIMERS;
}

impl Behaviour for TimerCheck {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, _: &[u8]) {
        if !self.at.is_empty() {
            return;
        }
        let now = ctx.plane.now();
        for n in 0..TIMERS {
            // Some in the past, many at the same time, in no particular order.
            let at = match n % 10 {
                0 => Instant(now.0 / 2),
                _ => now.after(Duration::from_micros(u64::from(n * 7919 % 97) * 150)),
            };
            self.at.push(at);
            ctx.plane.set_timer(at, ctx.token(n));
        }
        self.fired = vec![false; TIMERS as usize];
        self.left = TIMERS;
    }

    fn timer(&mut self, ctx: &mut Ctx<'_, '_>, token: u32) {
        let now = ctx.plane.now();
        if token == Self::FINAL {
            assert_eq!(self.left, 0);
            ctx.reply(IN_TIME);
            return;
        }
        let n = token as usize;
        assert!(!std::mem::replace(&mut self.fired[n], true), "a timer fired twice");
        assert!(now >= self.at[n], "a timer was {:?} early", self.at[n].since(now));
        assert!(self.last.is_none_or(|last| last <= self.at[n]), "timers fired out of order");
        self.last = Some(self.at[n]);
        self.left -= 1;
        if self.left == 0 {
            ctx.plane.set_timer(now.after(Duration::from_millis(2)), ctx.token(Self::FINAL));
        }
    }
}

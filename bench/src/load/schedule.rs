//! The schedule of an open loop: the send time of each record, independent of the progress of earlier records.

use crate::scenario::{Arrival, Load};

/// Infinite schedule of one producer, in nanoseconds since the start of the warm-up.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrival: Arrival,
    /// Time between records of this producer at the configured rate.
    period: f64,
    warmup: f64,
    duration: f64,
    /// Number of records scheduled on the ramp.
    count: f64,
    next: f64,
    noise: u64,
}

impl Schedule {
    /// Creates the schedule of producer `which` of `producers`, which share the rate evenly in round-robin order. Returns `None` for a closed
    /// loop.
    pub fn new(load: &Load, which: u32, producers: u32) -> Option<Self> {
        if load.rate == 0 {
            return None;
        }
        let period = 1e9 * f64::from(producers) / load.rate as f64;
        let phase = f64::from(which) / f64::from(producers);
        let mut schedule = Self {
            arrival: load.arrival,
            period,
            warmup: load.warmup_s * 1e9,
            duration: load.duration_s * 1e9,
            count: phase,
            next: phase * period,
            noise: u64::from(which) + 1,
        };
        match load.arrival {
            Arrival::Poisson => schedule.advance(),
            Arrival::Ramp => schedule.next = schedule.on_ramp(),
            Arrival::Constant | Arrival::Step { .. } => {}
        }
        Some(schedule)
    }

    /// Returns the next send time.
    pub fn next(&self) -> u64 {
        self.next as u64
    }

    /// Returns the next send time and advances the schedule.
    pub fn take(&mut self) -> u64 {
        let at = self.next();
        self.advance();
        at
    }

    fn advance(&mut self) {
        match self.arrival {
            Arrival::Constant => self.next += self.period,
            Arrival::Poisson => {
                let uniform = (splitmix(&mut self.noise) >> 11) as f64 / (1_u64 << 53) as f64;
                self.next -= self.period * (1.0 - uniform).ln();
            }
            Arrival::Ramp => {
                self.count += 1.0;
                self.next = self.on_ramp();
            }
            Arrival::Step { factor, seconds } => {
                let middle = self.warmup + self.duration / 2.0;
                let raised = (self.next - middle).abs() <= seconds * 1e9 / 2.0;
                self.next += if raised { self.period / factor } else { self.period };
            }
        }
    }

    /// Returns the time of record `count` on a ramp. The rate grows linearly from zero at the end of the warm-up, so the count grows with the
    /// square of time. After the measured time the rate is constant.
    fn on_ramp(&self) -> f64 {
        let sent_on_ramp = self.duration / self.period / 2.0;
        let since = if self.count <= sent_on_ramp {
            (2.0 * self.count * self.duration * self.period).sqrt()
        } else {
            self.duration + (self.count - sent_on_ramp) * self.period
        };
        self.warmup + since
    }
}

/// Returns the next value of the SplitMix64 generator.
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn load(rate: u64, arrival: Arrival) -> Load {
        Load { outstanding: 1, rate, arrival, warmup_s: 1.0, duration_s: 10.0, runs: 1 }
    }

    fn times(schedule: &mut Schedule, until: u64) -> Vec<u64> {
        let mut times = Vec::new();
        while schedule.next() < until {
            times.push(schedule.take());
        }
        times
    }

    fn within(times: &[u64], from: u64, to: u64) -> usize {
        times.iter().filter(|at| (from..to).contains(at)).count()
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        assert!(Schedule::new(&load(0, Arrival::Constant), 0, 1).is_none());
    }

    #[test]
    fn constant_schedules_of_several_producers_interleave_evenly() {
        let load = load(1000, Arrival::Constant);
        let mut all: Vec<u64> = (0..4)
            .flat_map(|which| times(&mut Schedule::new(&load, which, 4).expect("open"), SECOND))
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).map(|n| n * 1_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_poisson_schedule_has_the_rate_and_exponential_gaps() {
        let mut schedule = Schedule::new(&load(10_000, Arrival::Poisson), 0, 1).expect("open");
        let all = times(&mut schedule, 10 * SECOND);
        assert!((98_000..102_000).contains(&all.len()), "{}", all.len());
        // The share of gaps longer than the mean is 1/e.
        let long = all.windows(2).filter(|pair| pair[1] - pair[0] > 100_000).count();
        let share = long as f64 / all.len() as f64;
        assert!((0.36..0.38).contains(&share), "{share}");
    }

    #[test]
    fn a_ramp_starts_after_the_warm_up_and_grows_linearly_to_the_rate() {
        let mut schedule = Schedule::new(&load(1000, Arrival::Ramp), 0, 1).expect("open");
        let all = times(&mut schedule, 12 * SECOND);
        assert_eq!(within(&all, 0, SECOND), 0);
        for second in 1..=10 {
            let expected = 100 * second - 50;
            let count = within(&all, second * SECOND, (second + 1) * SECOND) as u64;
            assert!(count.abs_diff(expected) <= 1, "second {second}: {count}");
        }
        assert!(within(&all, 11 * SECOND, 12 * SECOND).abs_diff(1000) <= 1);
    }

    #[test]
    fn a_step_multiplies_the_rate_in_the_middle() {
        let step = Arrival::Step { factor: 3.0, seconds: 2.0 };
        let mut schedule = Schedule::new(&load(1000, step), 0, 1).expect("open");
        let all = times(&mut schedule, 11 * SECOND);
        assert_eq!(within(&all, SECOND, 2 * SECOND), 1000);
        assert!(within(&all, 5 * SECOND, 7 * SECOND).abs_diff(6000) <= 3);
        assert!(within(&all, 8 * SECOND, 9 * SECOND).abs_diff(1000) <= 1);
    }
}

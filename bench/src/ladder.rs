//! Search for the highest sustainable rate: up in geometric steps, then by bisection between the last sustained and the first failed rate.

use std::time::Duration;

use crate::outcome::Outcome;

/// Factor between steps on the way up.
const FACTOR: f64 = 1.5;
/// Number of bisection steps, which find the rate to within 3 %.
const HALVINGS: u32 = 4;
/// Maximum number of steps down if the first rate is not sustained.
const DOWN_MAX: u32 = 8;
/// Number of attempts at a rate, as other load on the machine may cause a failure.
const TRIES: u32 = 2;
/// Minimum share of the rate that must be acknowledged in the measured time.
const ACHIEVED: f64 = 0.98;

/// Returns why a rate is not sustained, or `None` if it is.
pub fn fails(outcome: &Outcome, p99_max: Duration) -> Option<String> {
    if outcome.saturated.is_some() {
        return Some("generator saturated".into());
    }
    if outcome.overloaded.is_some() {
        return Some("acknowledgements too slow".into());
    }
    if outcome.lost + outcome.duplicated + outcome.reordered > 0 || !outcome.errors.is_empty() {
        return Some("records failed".into());
    }
    let achieved = outcome.records as f64 / outcome.measured.as_secs_f64();
    let asked = outcome.scenario.load.rate as f64;
    if achieved < ACHIEVED * asked {
        return Some(format!("{:.1} % achieved", 100.0 * achieved / asked));
    }
    let p99 = Duration::from_nanos(outcome.produce.value_at_quantile(0.99));
    (p99 > p99_max).then(|| format!("p99 above {p99_max:?}"))
}

/// State of the search.
#[derive(Clone, Debug)]
pub struct Ladder {
    holds: Option<u64>,
    fails: Option<u64>,
    halvings: u32,
    downs: u32,
    tries: u32,
    next: Option<u64>,
}

impl Ladder {
    /// Starts a search at this rate.
    pub fn new(first: u64) -> Self {
        Self { holds: None, fails: None, halvings: 0, downs: 0, tries: 0, next: Some(first.max(1)) }
    }

    /// Returns the next rate to try, or `None` at the end of the search.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Returns the highest sustained rate.
    pub fn best(&self) -> Option<u64> {
        self.holds
    }

    /// Reports whether the last rate was sustained.
    pub fn tried(&mut self, held: bool) {
        let Some(rate) = self.next else { return };
        self.tries += 1;
        if !held && self.tries < TRIES {
            return;
        }
        self.tries = 0;
        *if held { &mut self.holds } else { &mut self.fails } = Some(rate);
        self.next = match (self.holds, self.fails) {
            (Some(holds), None) => Some((holds as f64 * FACTOR) as u64 + 1),
            (None, Some(fails)) if self.downs < DOWN_MAX && fails > 1 => {
                self.downs += 1;
                Some(fails / 2)
            }
            (Some(holds), Some(fails)) if self.halvings < HALVINGS && fails > holds + 1 => {
                self.halvings += 1;
                Some(u64::midpoint(holds, fails))
            }
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches with a broker that sustains rates up to `limit`. Returns the best rate and all rates tried.
    fn search(first: u64, limit: u64) -> (Option<u64>, Vec<u64>) {
        let mut ladder = Ladder::new(first);
        let mut tried = Vec::new();
        while let Some(rate) = ladder.next() {
            tried.push(rate);
            ladder.tried(rate <= limit);
        }
        (ladder.best(), tried)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for first in [1_000, 20_000, 500_000] {
            let (best, tried) = search(first, 36_000);
            let best = best.expect("a sustained rate");
            assert!((34_000..=36_000).contains(&best), "from {first}: {best} after {tried:?}");
            assert!(tried.len() < 24, "{tried:?}");
        }
    }

    #[test]
    fn a_rate_that_fails_once_is_retried() {
        let mut ladder = Ladder::new(1000);
        ladder.tried(false);
        assert_eq!(ladder.next(), Some(1000));
        ladder.tried(true);
        assert_eq!(ladder.best(), Some(1000));
    }

    #[test]
    fn the_search_ends_if_no_rate_is_sustained() {
        let (best, tried) = search(1000, 0);
        assert_eq!(best, None);
        assert!(tried.len() <= 2 * (DOWN_MAX as usize + 1));
    }
}

//! Fills a response in with the results of a query, as many as a turn allows.

use std::vec::IntoIter;

use highwater_runtime::plane::ConnId;

use super::{ClientJob, Context};
use crate::counters::Work;
use crate::limits::FOUND_PER_UNIT;

/// A response that is being filled in.
struct FillJob<A, P, F> {
    conn: ConnId,
    answer: A,
    /// The position of each result in the response.
    places: IntoIter<P>,
    found: IntoIter<F>,
    fill: fn(&mut A, P, F),
    finish: fn(&mut Context<'_>, A),
}

impl<A: 'static, P: 'static, F: 'static> ClientJob for FillJob<A, P, F> {
    fn conn(&self) -> ConnId {
        self.conn
    }

    fn run_slice(&mut self, _: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over() {
            work.spend(1);
            for _ in 0..FOUND_PER_UNIT {
                let (Some(place), Some(found)) = (self.places.next(), self.found.next()) else { return true };
                (self.fill)(&mut self.answer, place, found);
            }
        }
        self.places.len() == 0
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        (self.finish)(context, self.answer);
    }
}

impl Context<'_> {
    /// Fills a response in: calls `fill` for each result in `found` with its position in `places`, then `finish`.
    pub(crate) fn fill<A: 'static, P: 'static, F: 'static>(
        &mut self,
        conn: ConnId,
        answer: A,
        (places, found): (Vec<P>, Vec<F>),
        fill: fn(&mut A, P, F),
        finish: fn(&mut Context<'_>, A),
    ) {
        let (places, found) = (places.into_iter(), found.into_iter());
        self.begin_job(FillJob { conn, answer, places, found, fill, finish });
    }
}

//! Fills an answer in with what the owners of partitions have found, as much as a turn allows.

use std::vec::IntoIter;

use highwater_runtime::plane::ConnId;

use crate::limits::FOUND_PER_UNIT;
use crate::shard::{ClientJob, Context, Work};

/// An answer that is being filled in.
struct Filling<A, P, F> {
    conn: ConnId,
    answer: A,
    /// Where in the answer what is found belongs, and what that is.
    places: IntoIter<P>,
    found: IntoIter<F>,
    fill: fn(&mut A, P, F),
    finish: fn(&mut Context<'_>, A),
}

impl<A: 'static, P: 'static, F: 'static> ClientJob for Filling<A, P, F> {
    fn conn(&self) -> ConnId {
        self.conn
    }

    fn go_on(&mut self, _: &Context<'_>, work: &mut Work) -> bool {
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
    /// Fills an answer in with what was found, which belongs to these places in this order, and then finishes it.
    pub(crate) fn fill<A: 'static, P: 'static, F: 'static>(
        &mut self,
        conn: ConnId,
        answer: A,
        (places, found): (Vec<P>, Vec<F>),
        fill: fn(&mut A, P, F),
        finish: fn(&mut Context<'_>, A),
    ) {
        let (places, found) = (places.into_iter(), found.into_iter());
        self.begin_job(Filling { conn, answer, places, found, fill, finish });
    }
}

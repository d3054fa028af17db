//! Virtual time.

use std::cell::Cell;
use std::rc::Rc;

use crate::plane::Instant;

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone, Debug)]
pub struct SimClock(Rc<Cell<Instant>>);

impl Default for SimClock {
    fn default() -> Self {
        Self(Rc::new(Cell::new(Instant(0))))
    }
}

impl SimClock {
    /// The time.
    pub fn now(&self) -> Instant {
        self.0.get()
    }

    /// Moves on to a later time; an earlier one changes nothing.
    pub fn advance_to(&self, to: Instant) {
        self.0.set(self.0.get().max(to));
    }
}

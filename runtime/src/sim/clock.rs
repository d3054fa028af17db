//! Virtual time.

use std::cell::Cell;
use std::rc::Rc;

use crate::plane::Instant;

/// A clock that stands still until it is advanced. Clones share the time.
#[derive(Clone, Debug)]
pub struct SimClock(Rc<Cell<Instant>>);

impl Default for SimClock {
    fn default() -> Self {
        Self(Rc::new(Cell::new(Instant(0))))
    }
}

impl SimClock {
    /// Returns the time.
    pub fn now(&self) -> Instant {
        self.0.get()
    }

    /// Advances to a later time; an earlier one has no effect.
    pub fn advance_to(&self, to: Instant) {
        self.0.set(self.0.get().max(to));
    }
}

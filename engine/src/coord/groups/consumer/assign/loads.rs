//! The *load* of each member, which is its number of partitions, and the members with the smallest load.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

#[derive(Debug)]
pub(super) struct Loads {
    of: Vec<usize>,
    classes_of: Vec<(usize, Option<usize>)>,
    all: BTreeSet<(usize, usize)>,
    by_class: Vec<BTreeSet<(usize, usize)>>,
}

impl Loads {
    pub(super) fn new(classes: usize) -> Self {
        Self {
            of: Vec::new(),
            classes_of: Vec::new(),
            all: BTreeSet::new(),
            by_class: vec![BTreeSet::new(); classes],
        }
    }

    /// Adds the next member, in these classes, with no partitions.
    pub(super) fn push(&mut self, classes: (usize, Option<usize>)) {
        let n = self.of.len();
        self.of.push(0);
        self.classes_of.push(classes);
        self.all.insert((0, n));
        for class in [Some(classes.0), classes.1].into_iter().flatten() {
            self.by_class[class].insert((0, n));
        }
    }

    /// Returns the load of a member.
    pub(super) fn of(&self, n: usize) -> usize {
        self.of[n]
    }

    pub(super) fn add(&mut self, n: usize, more: usize) {
        self.set(n, self.of[n] + more);
    }

    pub(super) fn take(&mut self, n: usize) {
        self.set(n, self.of[n] - 1);
    }

    fn set(&mut self, n: usize, load: usize) {
        let before = std::mem::replace(&mut self.of[n], load);
        self.all.remove(&(before, n));
        self.all.insert((load, n));
        let (named, matched) = self.classes_of[n];
        for class in [Some(named), matched].into_iter().flatten() {
            self.by_class[class].remove(&(before, n));
            self.by_class[class].insert((load, n));
        }
    }

    pub(super) fn are_balanced(&self) -> bool {
        let (least, most) = (self.all.first(), self.all.last());
        least.zip(most).is_none_or(|(least, most)| most.0 <= least.0 + 1)
    }
}

/// Returns the member with the smallest load in some classes, repeatedly. Loads may increase between the calls. A load that decreases may
/// be noticed late; another pass then finds it.
#[derive(Debug)]
pub(super) struct LeastLoaded(BinaryHeap<Reverse<(usize, usize, usize)>>);

impl LeastLoaded {
    pub(super) fn new(loads: &Loads, classes: &[usize]) -> Self {
        Self(classes.iter().filter_map(|class| Self::head(loads, *class)).collect())
    }

    fn head(loads: &Loads, class: usize) -> Option<Reverse<(usize, usize, usize)>> {
        loads.by_class[class].first().map(|(load, n)| Reverse((*load, *n, class)))
    }

    /// Returns the current member with the smallest load.
    pub(super) fn find(&mut self, loads: &Loads) -> Option<usize> {
        loop {
            let Reverse((load, n, class)) = *self.0.peek()?;
            if loads.by_class[class].first() == Some(&(load, n)) {
                return Some(n);
            }
            self.0.pop();
            self.0.extend(Self::head(loads, class));
        }
    }
}

//! The range assignor: each topic is cut into runs of partitions, one for each member that wants it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Candidate, Target};
use crate::coord::groups::consumer::subscription::Subscriptions;

pub(super) fn assign(candidates: &[Candidate<'_>], wanted: &Subscriptions<'_>) -> Vec<Target> {
    let mut targets = vec![Target::new(); candidates.len()];
    let order = Order::new(candidates);
    let classes: Vec<Vec<usize>> = wanted.classes.iter().map(|members| order.places(members)).collect();
    for (topic, (partitions, wanting)) in &wanted.topics {
        // Who comes after as many members as there are partitions gets none, so one more stands for all of them.
        let subscribers = first(*partitions as usize + 1, &classes, wanting);
        let Some(each) = partitions.checked_div(subscribers.len() as u32) else { continue };
        let more = partitions % subscribers.len() as u32;
        let mut next = 0;
        for (n, place) in (0..).zip(subscribers) {
            let count = each + u32::from(n < more);
            if count > 0 {
                targets[order.members[place]].insert(*topic, (next..next + count).collect());
            }
            next += count;
        }
    }
    targets
}

/// The order in which members get their runs.
struct Order {
    members: Vec<usize>,
    place_of: Vec<usize>,
}

impl Order {
    fn new(candidates: &[Candidate<'_>]) -> Self {
        let mut members: Vec<usize> = (0..candidates.len()).collect();
        // A static member keeps its place when its id changes.
        members.sort_by_key(|n| {
            (candidates[*n].instance.unwrap_or(candidates[*n].member), candidates[*n].member)
        });
        let mut place_of = vec![0; members.len()];
        for (place, member) in members.iter().enumerate() {
            place_of[*member] = place;
        }
        Self { members, place_of }
    }

    /// The places of these members, in order.
    fn places(&self, members: &[usize]) -> Vec<usize> {
        let mut places: Vec<usize> = members.iter().map(|n| self.place_of[*n]).collect();
        places.sort_unstable();
        places
    }
}

/// The first places among those of some classes, each once.
fn first(count: usize, classes: &[Vec<usize>], of: &[usize]) -> Vec<usize> {
    let mut heads: BinaryHeap<Reverse<(usize, usize, usize)>> =
        of.iter().filter_map(|class| Some(Reverse((*classes[*class].first()?, *class, 0)))).collect();
    let mut found: Vec<usize> = Vec::new();
    while found.len() < count
        && let Some(Reverse((place, class, at))) = heads.pop()
    {
        if found.last() != Some(&place) {
            found.push(place);
        }
        if let Some(next) = classes[class].get(at + 1) {
            heads.push(Reverse((*next, class, at + 1)));
        }
    }
    found
}

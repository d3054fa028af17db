//! Placement of partitions on stores.

use highwater_protocol::ids::StoreId;

/// Returns the stores for `new` more partitions of a topic.
///
/// `loads` is the number of partitions of each store, `own` the number of partitions of this topic. A topic is spread over all stores
/// before any gets a second partition of it, so that its load reaches every core; among those, the emptiest store comes first.
pub fn place(loads: &[usize], own: &[usize], new: usize) -> Vec<StoreId> {
    assert!(!loads.is_empty() && loads.len() == own.len(), "a broker has at least one store");
    let mut loads = loads.to_vec();
    let mut own = own.to_vec();
    (0..new)
        .map(|_| {
            let store =
                (0..loads.len()).min_by_key(|s| (own[*s], loads[*s], *s)).expect("there is at least one");
            own[store] += 1;
            loads[store] += 1;
            StoreId(store as u16)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(loads: &[usize], own: &[usize], new: usize, want: &[u16]) {
        let placed: Vec<u16> = place(loads, own, new).iter().map(|s| s.0).collect();
        assert_eq!(placed, want);
    }

    #[test]
    fn new_partitions_are_placed_on_the_emptiest_store() {
        check(&[3, 1, 2], &[0, 0, 0], 1, &[1]);
        check(&[0, 0], &[0, 0], 4, &[0, 1, 0, 1]);
    }

    #[test]
    fn a_topics_partitions_are_spread_over_all_stores_before_one_gets_a_second() {
        check(&[100, 0], &[0, 0], 4, &[1, 0, 1, 0]);
    }

    #[test]
    fn added_partitions_even_out_the_topics_placement() {
        check(&[2, 1, 1], &[2, 1, 0], 3, &[2, 1, 2]);
    }
}

//! Round-robin assignment of connections to shards.

use highwater_runtime::plane::ShardIndex;

/// Rounds in which every shard gets one connection, each in a random order.
///
/// A client opens one connection to find the broker and others to work with, always in the same order: if all rounds had the same order, all
/// busy connections could end up on the same shard.
#[derive(Default, Debug)]
pub(super) struct ShardRotation {
    /// The shards that have not had a turn in this round.
    left: Vec<ShardIndex>,
}

impl ShardRotation {
    /// Returns the next shard. `random` selects one of those that are left in this round.
    pub(super) fn next(&mut self, shards: u16, random: u64) -> ShardIndex {
        if self.left.is_empty() {
            self.left.extend(0..shards);
        }
        let at = random % self.left.len() as u64;
        self.left.swap_remove(at as usize)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn every_shard_gets_one_connection_per_round_and_its_share_of_every_second_third_and_fourth() {
        let mut rng = SmallRng::seed_from_u64(7);
        for shards in [1, 2, 3, 4, 8] {
            let mut turns = ShardRotation::default();
            let all: Vec<_> = (0..4800).map(|_| turns.next(shards, rng.random())).collect();
            for round in all.chunks(usize::from(shards)) {
                let mut round = round.to_vec();
                round.sort_unstable();
                assert!(round.iter().copied().eq(0..shards), "{round:?}");
            }
            for step in 1..=4 {
                let share = 4800 / step / usize::from(shards);
                for shard in 0..shards {
                    let got = all.iter().step_by(step).filter(|got| **got == shard).count();
                    assert!(got.abs_diff(share) * 3 < share, "{shards} {step} {shard}: {got} of {share}");
                }
            }
        }
    }
}

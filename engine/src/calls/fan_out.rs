//! Items of a request, sorted by the shard that owns each.

use std::collections::BTreeMap;

use highwater_runtime::plane::ShardIndex;

/// Items by the shard that is asked about them. Items are numbered from 0 in the order in which they were added.
pub(crate) struct FanOut<I> {
    by_owner: BTreeMap<ShardIndex, Vec<(u32, I)>>,
    count: u32,
}

impl<I> FanOut<I> {
    pub(crate) fn new() -> Self {
        Self { by_owner: BTreeMap::new(), count: 0 }
    }

    /// Adds an item. Its answer is found under this number.
    pub(crate) fn push(&mut self, owner: ShardIndex, item: I) {
        self.by_owner.entry(owner).or_default().push((self.count, item));
        self.count += 1;
    }

    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(super) fn into_parts(self) -> BTreeMap<ShardIndex, Vec<(u32, I)>> {
        self.by_owner
    }
}

//! The items of a query, by owner.

use std::collections::BTreeMap;

use highwater_runtime::plane::ShardIndex;

/// Items by the shard that owns them, numbered from 0 in the order in which they were added.
pub(crate) struct FanOut<I> {
    by_owner: BTreeMap<ShardIndex, Vec<(u32, I)>>,
    count: u32,
}

impl<I> FanOut<I> {
    pub(crate) fn new() -> Self {
        Self { by_owner: BTreeMap::new(), count: 0 }
    }

    /// Adds an item.
    pub(crate) fn push(&mut self, owner: ShardIndex, item: I) {
        self.by_owner.entry(owner).or_default().push((self.count, item));
        self.count += 1;
    }

    /// Returns the number of items.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn into_parts(self) -> BTreeMap<ShardIndex, Vec<(u32, I)>> {
        self.by_owner
    }
}

//! All topics by name, as a list that is cheap to copy and to change. Replies that list all topics share it.

use std::sync::Arc;

use super::topic::Topic;

/// Maximum number of topics in a chunk. A change copies one chunk, if it is shared.
const CHUNK_TOPICS_MAX: usize = 256;

/// Topics in the order of their names. A copy shares everything with the original until one of them changes.
#[derive(Clone, Default, Debug)]
pub struct Listed(Arc<List>);

/// Invariant: no chunk is empty, and `starts` has the index of each chunk's first topic in the whole list.
#[derive(Clone, Default, Debug)]
struct List {
    chunks: Vec<Arc<Vec<Arc<Topic>>>>,
    starts: Vec<usize>,
    len: usize,
}

impl Listed {
    /// Returns the number of topics.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Returns the topic at this index.
    pub fn get(&self, place: usize) -> Option<&Arc<Topic>> {
        let chunk = self.0.starts.partition_point(|start| *start <= place).checked_sub(1)?;
        self.0.chunks[chunk].get(place - self.0.starts[chunk])
    }

    /// Adds a topic whose name is not in the list.
    pub(super) fn insert(&mut self, topic: &Arc<Topic>) {
        let all = Arc::make_mut(&mut self.0);
        let at = all.chunk_of(&topic.name);
        let Some(chunk) = all.chunks.get_mut(at) else {
            all.chunks.push(Arc::new(vec![Arc::clone(topic)]));
            return all.count_from(0);
        };
        let chunk = Arc::make_mut(chunk);
        let place = chunk.partition_point(|other| other.name < topic.name);
        chunk.insert(place, Arc::clone(topic));
        if chunk.len() > CHUNK_TOPICS_MAX {
            let rest = chunk.split_off(CHUNK_TOPICS_MAX / 2);
            all.chunks.insert(at + 1, Arc::new(rest));
        }
        all.count_from(at);
    }

    /// Removes the topic with this name.
    pub(super) fn remove(&mut self, name: &str) {
        let all = Arc::make_mut(&mut self.0);
        let at = all.chunk_of(name);
        let Some(chunk) = all.chunks.get_mut(at) else { return };
        let Ok(place) = chunk.binary_search_by(|topic| topic.name.as_str().cmp(name)) else { return };
        let chunk = Arc::make_mut(chunk);
        chunk.remove(place);
        if chunk.is_empty() {
            all.chunks.remove(at);
        }
        all.count_from(at);
    }
}

impl List {
    /// Returns the chunk for this name.
    fn chunk_of(&self, name: &str) -> usize {
        let later =
            self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| *first.name <= *name));
        later.saturating_sub(1)
    }

    /// Recomputes `starts` from this chunk on.
    fn count_from(&mut self, chunk: usize) {
        let mut next =
            chunk.checked_sub(1).map_or(0, |before| self.starts[before] + self.chunks[before].len());
        self.starts.truncate(chunk);
        for chunk in &self.chunks[chunk.min(self.chunks.len())..] {
            self.starts.push(next);
            next += chunk.len();
        }
        self.len = next;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use highwater_protocol::ids::TopicId;

    use super::*;
    use crate::meta::Assignment;
    use crate::meta::configs::TopicConfig;

    fn topic(n: usize) -> Arc<Topic> {
        let configs = BTreeMap::new();
        let config = TopicConfig::resolve(&configs).expect("the defaults");
        Arc::new(Topic {
            id: TopicId([0; 16]),
            name: format!("t{n:05}"),
            assignment: Assignment::default(),
            configs,
            config,
        })
    }

    fn names(listed: &Listed) -> Vec<&str> {
        (0..listed.len()).map(|n| listed.get(n).expect("it is in the list").name.as_str()).collect()
    }

    #[test]
    fn topics_created_and_deleted_in_any_order_are_listed_by_name() {
        let mut listed = Listed::default();
        let mut expected = BTreeSet::new();
        for step in 0..6000_usize {
            let n = step * 7919 % 2003;
            if step % 5 < 3 {
                if expected.insert(format!("t{n:05}")) {
                    listed.insert(&topic(n));
                }
            } else {
                expected.remove(&format!("t{n:05}"));
                listed.remove(&format!("t{n:05}"));
            }
            if step % 500 == 0 {
                assert!(names(&listed).into_iter().eq(&expected), "step {step}");
            }
        }
        assert!(listed.get(listed.len()).is_none());
        let all: Vec<String> = names(&listed).into_iter().map(str::to_owned).collect();
        for name in &all {
            listed.remove(name);
        }
        assert!(listed.is_empty() && listed.get(0).is_none());
    }

    #[test]
    fn a_change_copies_one_chunk_and_is_not_visible_in_earlier_copies() {
        let mut listed = Listed::default();
        for n in 0..20_000 {
            listed.insert(&topic(n));
        }
        let before = listed.clone();
        listed.remove("t00300");
        listed.insert(&topic(20_000));
        assert_eq!((before.len(), listed.len()), (20_000, 20_000));
        assert_eq!(before.get(300).map(|topic| topic.name.as_str()), Some("t00300"));
        let shared =
            before.0.chunks.iter().filter(|chunk| listed.0.chunks.iter().any(|c| Arc::ptr_eq(c, chunk)));
        assert_eq!(shared.count(), before.0.chunks.len() - 2);
        assert!(listed.0.chunks.iter().all(|chunk| chunk.len() <= CHUNK_TOPICS_MAX));
    }
}

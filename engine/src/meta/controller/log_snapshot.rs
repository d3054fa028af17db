//! The snapshot with which the log of the metadata begins. A node that joins begins with it; on all others, which know what it says, it changes nothing.
//!
//! ```text
//!   SnapshotBegan   everything before is forgotten, and the producer ids below an end may be in use
//!   SnapshotTopic   for each topic
//!   NodeRegistered  for each node
//! ```
//!
//! It is written by a leader that has no other replica yet, while requests wait. If that ends before it is complete, the next one begins anew, and so does who
//! has read the first part.

use std::ops::Bound;

use highwater_protocol::ids::{NodeId, TopicId};

use crate::meta::{Metadata, Record};

/// A snapshot that is being written, or was. See the [module](self).
#[derive(Default, Debug)]
pub(super) struct LogSnapshot {
    step: Step,
}

/// What was written last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Step {
    #[default]
    Nothing,
    Began,
    Topic(TopicId),
    Node(NodeId),
    Complete,
}

impl LogSnapshot {
    pub(super) fn is_complete(&self) -> bool {
        self.step == Step::Complete
    }

    /// Returns the next record; `None` if it is complete. The metadata does not change in between.
    pub(super) fn next_record(&mut self, metadata: &Metadata) -> Option<Record> {
        let (step, record) = self.after(metadata);
        self.step = step;
        record
    }

    fn after(&self, metadata: &Metadata) -> (Step, Option<Record>) {
        let after_topic = match self.step {
            Step::Nothing => {
                let producer_ids_end = metadata.producer_ids_end().0;
                return (Step::Began, Some(Record::SnapshotBegan { producer_ids_end }));
            }
            Step::Began => Some(Bound::Unbounded),
            Step::Topic(id) => Some(Bound::Excluded(id)),
            Step::Node(_) | Step::Complete => None,
        };
        if let Some(topic) = after_topic.and_then(|from| metadata.next_topic(from)) {
            return (Step::Topic(topic.id), Some(Record::SnapshotTopic(topic.to_record().0)));
        }
        let nodes = match self.step {
            Step::Complete => return (Step::Complete, None),
            Step::Node(id) => (Bound::Excluded(id), Bound::Unbounded),
            _ => (Bound::Unbounded, Bound::Unbounded),
        };
        match metadata.nodes().range(nodes).next() {
            Some((id, node)) => (Step::Node(*id), Some(Record::NodeRegistered(node.to_record()))),
            None => (Step::Complete, None),
        }
    }
}

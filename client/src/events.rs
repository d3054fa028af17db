//! Events of a client's connections, producers and consumers, for logs and tests. None of them requires an action.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use highwater_protocol::ids::{NodeId, Offset, ProducerId, ShardId};

use crate::lock::lock;

/// Maximum number of events kept for a listener that does not take them. The oldest are dropped first.
const EVENTS_MAX: usize = 256;

/// An event of a client. See [`Client::events`](crate::Client::events).
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection was established.
    #[non_exhaustive]
    Connected {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// The address connected to.
        address: String,
    },
    /// A connection was lost. The client reconnects when it has something to send.
    #[non_exhaustive]
    Disconnected {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// The address connected to.
        address: String,
        /// The reason.
        reason: String,
    },
    /// An attempt to connect failed. The client tries again.
    #[non_exhaustive]
    ConnectFailed {
        /// The reason.
        reason: String,
        /// Number of failures since the last success.
        failures: u32,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// The broker cannot accept records of a topic at the moment, for example because its disk is full. The producer
    /// sends them again until they are accepted or their delivery timeout expires.
    #[non_exhaustive]
    ProduceRejected {
        /// The topic.
        topic: String,
        /// The broker's reason.
        reason: String,
    },
    /// A producer continues with a new producer id: after a record failed, or because the broker lost the state of the
    /// old id. No record is lost or duplicated by this.
    #[non_exhaustive]
    ProducerIdChanged {
        /// The topic.
        topic: String,
        /// The new id.
        producer: ProducerId,
    },
    /// A consumer's position no longer existed, and the consumer continued at the configured position.
    #[non_exhaustive]
    PositionReset {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The position that no longer existed, if it was known.
        from: Option<Offset>,
    },
    /// A member of a group starts to read a partition.
    #[non_exhaustive]
    PartitionAssigned {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The group's committed position; none if nothing was committed yet.
        from: Option<Offset>,
    },
    /// A member of a group no longer reads a partition. It may be assigned to another member.
    #[non_exhaustive]
    PartitionReleased {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A commit failed that no caller waits for: a commit in the background, which is tried again, or one whose future
    /// was dropped. If no later commit succeeds, the records are delivered again to the next consumer of that name, or
    /// to the next member that is assigned the partitions.
    #[non_exhaustive]
    CommitFailed {
        /// The group, or the consumer's name.
        group: String,
        /// The reason.
        reason: String,
    },
    /// A producer was dropped with unreported failures: no delivery returned the error, and no flush or close followed.
    #[non_exhaustive]
    DeliveriesFailed {
        /// The topic.
        topic: String,
        /// Number of failed records.
        count: u64,
        /// Why the first one failed.
        reason: String,
    },
    /// Events were dropped because the listener did not take them in time.
    #[non_exhaustive]
    Missed {
        /// Number of dropped events.
        count: u64,
    },
}

/// A stream of a client's events, from the call to [`Client::events`](crate::Client::events) to the end of the client.
///
/// Cancel-safe: [`Events::next`] takes an event only when it returns it.
#[derive(Debug)]
pub struct Events(Arc<Mutex<Queue>>);

impl Events {
    /// Returns the next event; none once the client is gone.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = lock(&self.0);
        if queue.missed > 0 {
            return Poll::Ready(Some(Event::Missed { count: std::mem::take(&mut queue.missed) }));
        }
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.over => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    missed: u64,
    over: bool,
    waker: Option<Waker>,
}

/// Sends every event to every listener.
#[derive(Debug, Default)]
pub(crate) struct EventHub(Mutex<Vec<Weak<Mutex<Queue>>>>);

impl EventHub {
    pub(crate) fn listen(&self) -> Events {
        let queue = Arc::default();
        let mut listeners = lock(&self.0);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&queue));
        Events(queue)
    }

    pub(crate) fn emit(&self, event: &Event) {
        tracing::debug!(?event, "highwater client");
        self.each(|queue| {
            if queue.events.len() == EVENTS_MAX {
                queue.events.pop_front();
                queue.missed += 1;
            }
            queue.events.push_back(event.clone());
        });
    }

    fn each(&self, mut change: impl FnMut(&mut Queue)) {
        let listeners = lock(&self.0);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            let mut queue = lock(&listener);
            change(&mut queue);
            let waker = queue.waker.take();
            drop(queue);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for EventHub {
    fn drop(&mut self) {
        self.each(|queue| queue.over = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        Event::Missed { count: n }
    }

    #[tokio::test]
    async fn listeners_get_all_events_from_their_creation_to_the_end() {
        let hub = EventHub::default();
        hub.emit(&event(1));
        let (mut a, mut b) = (hub.listen(), hub.listen());
        hub.emit(&event(2));
        drop(hub);
        for events in [&mut a, &mut b] {
            assert_eq!(events.next().await, Some(event(2)));
            assert_eq!(events.next().await, None);
        }
    }

    #[tokio::test]
    async fn a_slow_listener_gets_the_number_of_events_it_missed() {
        let hub = EventHub::default();
        let mut events = hub.listen();
        for n in 0..EVENTS_MAX as u64 + 3 {
            hub.emit(&event(n + 100));
        }
        assert_eq!(events.next().await, Some(event(3)));
        assert_eq!(events.next().await, Some(event(103)));
    }
}

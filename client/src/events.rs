//! What happens to a client's connections, for logs and tests. Nothing has to be done about any of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use highwater_protocol::ids::{NodeId, Offset, ProducerId, ShardId};

use crate::lock::lock;

/// Events kept for a listener that does not listen; the oldest go first.
const EVENTS_MAX: usize = 256;

/// Something happened. See [`Client::events`](crate::Client::events).
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection stands.
    #[non_exhaustive]
    Connected {
        /// The node.
        node: NodeId,
        /// Its shard.
        shard: ShardId,
        /// The address it was reached at.
        address: String,
    },
    /// A connection was lost. It is made again when something is to be sent on it.
    #[non_exhaustive]
    Disconnected {
        /// The node.
        node: NodeId,
        /// Its shard.
        shard: ShardId,
        /// The address it was reached at.
        address: String,
        /// Why.
        reason: String,
    },
    /// An attempt to connect failed; the next one follows.
    #[non_exhaustive]
    ConnectFailed {
        /// Why.
        reason: String,
        /// Failures since the last success.
        failures: u32,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// The broker cannot take records of a topic just now, because its disk is full for example. They are sent again until they are
    /// taken or their delivery timeout is over.
    #[non_exhaustive]
    ProduceRefused {
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
    /// A producer goes on under a new id: after a record that was given up, or because the broker lost track of the old id.
    /// Nothing is lost or duplicated by it.
    #[non_exhaustive]
    ProducerIdChanged {
        /// The topic.
        topic: String,
        /// The new id.
        producer: ProducerId,
    },
    /// A consumer's position no longer existed; it went on where it was told to go in this case.
    #[non_exhaustive]
    PositionReset {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The position that no longer existed, where it was known.
        from: Option<Offset>,
    },
    /// A consumer in a group reads a partition from now on.
    #[non_exhaustive]
    PartitionAssigned {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Where the group has got to in it; none if nothing was committed yet.
        from: Option<Offset>,
    },
    /// A consumer in a group does not read a partition any more; another member may have it from now on.
    #[non_exhaustive]
    PartitionReleased {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A commit failed that nobody waits for: one in the background, which is tried again, or one whose future was dropped. If no later one
    /// succeeds, the next consumer of that name, or the next member to have the partitions, gets the records again.
    #[non_exhaustive]
    CommitFailed {
        /// The group, or the name of the consumer.
        group: String,
        /// Why.
        reason: String,
    },
    /// A producer was dropped, and records of it failed that nobody had asked about: no delivery returned the error, and no flush or close came
    /// after it.
    #[non_exhaustive]
    DeliveriesFailed {
        /// The topic.
        topic: String,
        /// How many records.
        count: u64,
        /// Why the first of them failed.
        reason: String,
    },
    /// Events were dropped because nobody took them.
    #[non_exhaustive]
    Missed {
        /// How many.
        count: u64,
    },
}

/// The stream of a client's events, from the moment it was asked for. Ends with the client.
///
/// Cancel-safe: [`Events::next`] takes an event only when it returns it.
#[derive(Debug)]
pub struct Events(Arc<Mutex<Queue>>);

impl Events {
    /// The next event; none once the client is gone.
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

/// Gives every event to every listener.
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
    async fn listeners_get_what_happens_from_their_start_to_the_end() {
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
    async fn a_listener_that_sleeps_is_told_how_much_it_missed() {
        let hub = EventHub::default();
        let mut events = hub.listen();
        for n in 0..EVENTS_MAX as u64 + 3 {
            hub.emit(&event(n + 100));
        }
        assert_eq!(events.next().await, Some(event(3)));
        assert_eq!(events.next().await, Some(event(103)));
    }
}

//! Recipients of what a connection receives. The connection knows these traits, not producers and consumers.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use highwater_protocol::error::ErrorCode;

use crate::core::conn::Answer;
use crate::core::subscription::SubscriptionKey;

/// Receives the outcomes of batches. A batch is identified by its lane and its number there.
pub(crate) trait ProduceSink: Debug + Send + Sync {
    /// The broker answered.
    fn handle_answer(&self, lane: u32, batch: u64, answer: Answer);

    /// A batch without acknowledgement was written to the socket completely. Until then its bytes occupy memory.
    fn handle_sent(&self, lane: u32, batch: u64);

    /// The connection ended before an answer came. `sent`: the broker may have received the batch.
    fn handle_lost(&self, lane: u32, batch: u64, sent: bool);

    /// The broker rejected a batch of `records` records without acknowledgement after it was written.
    fn handle_late_rejection(&self, lane: u32, records: u32, error: (ErrorCode, String));
}

/// Receives the messages of subscriptions.
pub(crate) trait SubscriptionSink: Debug + Send + Sync {
    /// The broker answered the request to subscribe.
    fn handle_subscribed(&self, key: SubscriptionKey, answer: Answer);

    /// Frames, or the error that ended the subscription.
    fn handle_pushed(&self, key: SubscriptionKey, answer: Answer);

    /// The connection ended.
    fn handle_lost(&self, key: SubscriptionKey);
}

/// A sent batch and the recipient of its outcome.
#[derive(Debug)]
pub(crate) struct SentBatch {
    pub(crate) sink: Arc<dyn ProduceSink>,
    pub(crate) lane: u32,
    pub(crate) batch: u64,
    pub(crate) records: u32,
    pub(crate) sent_at: Instant,
}

/// The recipient of a subscription's messages.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) sink: Arc<dyn SubscriptionSink>,
    pub(crate) key: SubscriptionKey,
}

//! A connection of a shard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use highwater_net::kafka::KafkaConn;
use highwater_net::{Lent, LongAnswer, NativeConn, ReplySlot};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{Instant, ListenerId};

use super::kafka::NextFetch;
use crate::api::ApiError;
use crate::context::LargeReply;
use crate::limits::{SLOW_READER_BYTES_MIN, SLOW_READER_TIME_MAX};
use crate::partition::ReaderId;
use crate::read::{Account, Charge};
use crate::session::{Charged, ClientProtocol, RequestBytes, SendQueue};

/// The stage of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Its hello has not arrived.
    Hello,
    /// It may send requests.
    Open,
    /// A request that has no reply failed: the connection is closed once the others have been answered.
    Ending,
    /// The error was sent or queued; the connection is closed once everything queued is sent.
    Closing,
}

/// The protocol of a connection, with its state.
pub(super) enum Net {
    Native(NativeConn),
    Kafka(KafkaConn),
}

/// How a client is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Via {
    /// The listening socket that accepted it.
    pub(super) listener: ListenerId,
    /// The address that it connected to.
    pub(super) local: SocketAddr,
    /// Its own address.
    pub(super) peer: SocketAddr,
}

pub(super) struct Connection {
    pub(super) net: Net,
    pub(super) via: Via,
    pub(super) stage: Stage,
    /// The name in its hello, if there was one.
    pub(super) client_name: String,
    /// The features that both the client and this broker support.
    pub(super) features: u64,
    /// Its number among the silent connections, until it sends something.
    pub(super) silent: Option<u64>,
    /// When it began to close.
    pub(super) closing_since: Option<Instant>,
    /// Whether receiving is paused.
    pub(super) paused: bool,
    /// Received bytes that may not be decoded yet.
    pub(super) held: Vec<u8>,
    /// Its part of the shard's memory for requests.
    pub(super) charged: RequestBytes,
    /// The part of `charged` that belongs to a Kafka client's Produce requests with pending batches. It stays in use after the connection is
    /// closed.
    pub(super) producing: usize,
    /// Bytes of a native client's batch with acks 0, until it is appended. No other request is handled meanwhile.
    pub(super) silent_batch: usize,
    /// Bytes queued for it.
    pub(super) queue: SendQueue,
    pub(super) send_progress: SendProgress,
    /// Memory that reads hold for it, if it is a native connection.
    pub(super) account: Account,
    /// Subscriptions, by the client's number.
    pub(super) subscriptions: BTreeMap<u64, ReaderId>,
    /// Subscriptions that have ended before their first reply was sent, and why. At most one for each reply that is queued.
    pub(super) ended_subscriptions: BTreeMap<u64, ApiError>,
    /// Fetches that have not been answered.
    pub(super) fetches: BTreeSet<ReaderId>,
    pub(super) runnable: Runnable,
    /// A fetch of a Kafka client that is not the next to be answered, or waits for memory. No further request is handled until it begins.
    pub(super) next_fetch: Option<Box<NextFetch>>,
    /// A fetch whose partitions are being looked up; it becomes `next_fetch`. No further request is handled meanwhile either.
    pub(super) resolving_fetch: Option<ReplySlot>,
    /// Replies that wait for memory.
    pub(super) large_replies: BTreeMap<ReplySlot, LargeReply>,
    /// Long answers that are being measured, wait for their turn or are being sent. No further request is handled meanwhile.
    pub(super) long_answers: usize,
    /// The long answer that is being sent.
    pub(super) sending: Option<Sending>,
    /// Whether it is in the list of connections with replies to send.
    pub(super) dirty: bool,
    /// Whether it is in the list of connections that wait for memory.
    pub(super) wants_memory: bool,
}

/// The readers of a connection that can run.
#[derive(Default, Debug)]
pub(super) struct Runnable {
    /// The readers, by turn.
    pub(super) readers: BTreeMap<u64, ReaderId>,
    /// Whether the connection is in the list of connections with such readers.
    pub(super) is_listed: bool,
}

/// A long answer that is being sent.
pub(super) struct Sending {
    pub(super) answer: LongAnswer,
    /// The charge for the answer's memory.
    pub(super) _charge: Charge,
    /// Whether it waits for room in the send queue.
    pub(super) waits: bool,
    /// Bytes to send after it.
    pub(super) queued_after: Vec<(Bytes, Charged)>,
}

/// How fast a client receives what is queued for it.
#[derive(Debug)]
pub(super) struct SendProgress {
    since: Instant,
    /// Bytes sent since then.
    sent: usize,
}

impl SendProgress {
    /// Restarts the measurement: the queue was empty, or enough was sent.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { since: now, sent: 0 };
    }

    pub(super) fn note_sent(&mut self, now: Instant, bytes: usize) {
        self.sent += bytes;
        if self.sent >= SLOW_READER_BYTES_MIN {
            self.begin(now);
        }
    }

    /// Returns whether a client with queued data has received almost nothing for too long.
    pub(super) fn is_too_slow(&self, now: Instant) -> bool {
        now.since(self.since) >= SLOW_READER_TIME_MAX
    }
}

impl Net {
    pub(super) fn protocol(&self) -> ClientProtocol {
        match self {
            Self::Native(_) => ClientProtocol::Native,
            Self::Kafka(_) => ClientProtocol::Kafka,
        }
    }

    /// Returns whether a limit on requests in flight is reached.
    fn is_full(&self) -> bool {
        match self {
            Self::Native(native) => native.replies.is_full(),
            Self::Kafka(kafka) => kafka.replies.is_full(),
        }
    }

    /// Returns whether the reply of this slot is the next to send.
    pub(super) fn is_next(&self, slot: ReplySlot) -> bool {
        match self {
            Self::Native(native) => native.replies.is_next(slot),
            Self::Kafka(kafka) => kafka.replies.is_next(slot),
        }
    }

    /// Returns whether every request has been answered.
    fn is_answered(&self) -> bool {
        match self {
            Self::Native(native) => native.replies.is_empty(),
            Self::Kafka(kafka) => kafka.replies.is_empty(),
        }
    }

    /// Returns the memory of requests that have not been answered.
    pub(super) fn request_bytes(&self) -> RequestBytes {
        let (whole, large, begun) = match self {
            Self::Native(native) => {
                let replies = &native.replies;
                (replies.request_bytes(), replies.large_bytes(), native.input.held_bytes())
            }
            Self::Kafka(kafka) => {
                let replies = &kafka.replies;
                (replies.request_bytes(), replies.large_bytes(), kafka.input.held_bytes())
            }
        };
        RequestBytes { whole, large, begun }
    }

    /// See [`NativeConn::note_progress`].
    pub(super) fn note_progress(&mut self, now: Instant, reading: bool) {
        match self {
            Self::Native(native) => native.note_progress(now, reading),
            Self::Kafka(kafka) => kafka.note_progress(now, reading),
        }
    }

    pub(super) fn return_bulk(&mut self, pages: AlignedBuf) {
        match self {
            Self::Native(native) => native.input.return_bulk(pages),
            Self::Kafka(kafka) => kafka.input.return_bulk(pages),
        }
    }

    pub(super) fn lend_bulk(&mut self) -> Option<Lent> {
        match self {
            Self::Native(native) => native.input.lend_bulk(),
            Self::Kafka(kafka) => kafka.input.lend_bulk(),
        }
    }
}

impl Connection {
    pub(super) fn new(net: Net, via: Via, stage: Stage) -> Self {
        Self {
            net,
            via,
            stage,
            client_name: String::new(),
            features: 0,
            silent: None,
            closing_since: None,
            paused: false,
            held: Vec::new(),
            charged: RequestBytes::default(),
            silent_batch: 0,
            producing: 0,
            queue: SendQueue::default(),
            send_progress: SendProgress { since: Instant(0), sent: 0 },
            account: Account::default(),
            subscriptions: BTreeMap::new(),
            ended_subscriptions: BTreeMap::new(),
            fetches: BTreeSet::new(),
            runnable: Runnable::default(),
            next_fetch: None,
            resolving_fetch: None,
            large_replies: BTreeMap::new(),
            long_answers: 0,
            sending: None,
            dirty: false,
            wants_memory: false,
        }
    }

    /// Returns whether another request may be handled, as far as this connection's own limits go.
    pub(super) fn accepts_request(&self, send_queue_max: usize) -> bool {
        let queued = self.queue.bytes();
        self.stage == Stage::Open
            && self.long_answers == 0
            && !self.net.is_full()
            && self.next_fetch.is_none()
            && self.resolving_fetch.is_none()
            && (queued == 0 || queued < send_queue_max)
    }

    /// Returns the native side. Only called for native connections.
    pub(super) fn native(&mut self) -> &mut NativeConn {
        match &mut self.net {
            Net::Native(native) => native,
            Net::Kafka(_) => unreachable!("native requests arrive on native connections only"),
        }
    }

    /// Returns the Kafka side, if it is a Kafka connection.
    pub(super) fn kafka(&mut self) -> Option<&mut KafkaConn> {
        match &mut self.net {
            Net::Native(_) => None,
            Net::Kafka(kafka) => Some(kafka),
        }
    }

    /// Returns whether every request has been answered and every reply queued for sending.
    pub(super) fn is_answered(&self) -> bool {
        self.net.is_answered() && self.sending.is_none()
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = ReaderId> {
        self.subscriptions.values().chain(&self.fetches).copied()
    }
}

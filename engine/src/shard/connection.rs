//! A connection of a shard, and the memory that requests may take.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use highwater_net::kafka::KafkaConn;
use highwater_net::{Lent, LongAnswer, NativeConn, ReplySlot};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{Instant, ListenerId};

use super::kafka::NextFetch;
use crate::limits::{SLOW_READER_BYTES_MIN, SLOW_READER_TIME_MAX};
use crate::read::{Account, ReaderId};
use crate::session::{Charged, RequestBytes, SendQueue, Speaks};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Its hello has not come.
    Hello,
    /// It may ask.
    Open,
    /// A request that has no answer failed: it ends once the others have been answered.
    Ending,
    /// It was told why it ends, and ends once that is sent.
    Closing,
}

/// What it speaks.
pub(super) enum Net {
    Native(NativeConn),
    Kafka(KafkaConn),
}

/// How a client has come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Via {
    /// Which listening socket took it.
    pub(super) listener: ListenerId,
    /// The address that it has connected to.
    pub(super) local: SocketAddr,
    /// Its own address.
    pub(super) peer: SocketAddr,
}

pub(super) struct Connection {
    pub(super) net: Net,
    pub(super) via: Via,
    pub(super) stage: Stage,
    /// What it calls itself, if it has said so.
    pub(super) client_name: String,
    /// What its client and this broker both understand.
    pub(super) features: u64,
    /// While it has not spoken: its number among those.
    pub(super) silent: Option<u64>,
    /// When it was told why it ends.
    pub(super) closing_since: Option<Instant>,
    /// Whether the plane was told not to receive.
    pub(super) paused: bool,
    /// What was received and may not be looked at yet.
    pub(super) held: Vec<u8>,
    /// What of the shard's memory for requests it has.
    pub(super) charged: RequestBytes,
    /// What of that is for Produce requests of a Kafka client whose batches are not all where they belong. It stays in use when the
    /// connection goes.
    pub(super) producing: usize,
    /// Bytes of a native client's batch that has no reply, until it is appended. Nothing else is taken up meanwhile.
    pub(super) silent_batch: usize,
    /// What is on its way to it.
    pub(super) queue: SendQueue,
    pub(super) taking: Taking,
    /// What reads hold for it of this shard's memory, if it is a native one.
    pub(super) account: Account,
    /// Subscriptions, by the client's number.
    pub(super) subscriptions: BTreeMap<u64, ReaderId>,
    /// Fetches that have not been answered.
    pub(super) fetches: BTreeSet<ReaderId>,
    pub(super) runnable: Runnable,
    /// A fetch of a Kafka client that is not the next to be answered, or waits for memory. Meanwhile nothing else is taken up.
    pub(super) next_fetch: Option<Box<NextFetch>>,
    /// A fetch whose partitions are being looked up: it is the next one then. Nothing else is taken up meanwhile either.
    pub(super) resolving_fetch: Option<ReplySlot>,
    /// Long answers that are being counted, wait for their turn or are being sent. Meanwhile nothing else is taken up.
    pub(super) long_answers: usize,
    /// The one that is being sent.
    pub(super) sending: Option<Sending>,
    /// Listed as having replies to send.
    pub(super) dirty: bool,
    /// Listed as waiting for memory.
    pub(super) wants_memory: bool,
}

/// The readers of a connection that can go on.
#[derive(Default, Debug)]
pub(super) struct Runnable {
    /// By their turns.
    pub(super) readers: BTreeMap<u64, ReaderId>,
    /// The connection is listed as having some.
    pub(super) is_listed: bool,
}

/// A long answer that is being sent.
pub(super) struct Sending {
    pub(super) answer: LongAnswer,
    /// Whether it waits for room.
    pub(super) waits: bool,
    /// What has to be sent behind it.
    pub(super) behind: Vec<(Bytes, Charged)>,
}

/// How fast a client takes what is queued for it.
#[derive(Debug)]
pub(super) struct Taking {
    /// Since when it has taken so many bytes.
    since: Instant,
    taken: usize,
}

impl Taking {
    /// Something is queued again.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { since: now, taken: 0 };
    }

    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        self.taken += bytes;
        if self.taken >= SLOW_READER_BYTES_MIN {
            self.begin(now);
        }
    }

    /// Whether a client that has something to take has taken next to nothing for too long.
    pub(super) fn is_too_slow(&self, now: Instant) -> bool {
        now.since(self.since) >= SLOW_READER_TIME_MAX
    }
}

impl Net {
    pub(super) fn speaks(&self) -> Speaks {
        match self {
            Self::Native(_) => Speaks::Native,
            Self::Kafka(_) => Speaks::Kafka,
        }
    }

    /// Whether no further request may be taken up for now.
    fn is_full(&self) -> bool {
        match self {
            Self::Native(native) => native.replies.is_full(),
            Self::Kafka(kafka) => kafka.replies.is_full(),
        }
    }

    /// Whether nobody waits for an answer.
    fn is_answered(&self) -> bool {
        match self {
            Self::Native(native) => native.replies.is_empty(),
            Self::Kafka(kafka) => kafka.replies.is_empty(),
        }
    }

    /// Memory for requests that have not been answered.
    pub(super) fn request_bytes(&self) -> RequestBytes {
        let (whole, begun) = match self {
            Self::Native(native) => (native.replies.request_bytes(), native.input.held_bytes()),
            Self::Kafka(kafka) => (kafka.replies.request_bytes(), kafka.input.held_bytes()),
        };
        RequestBytes { whole, begun }
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
            taking: Taking { since: Instant(0), taken: 0 },
            account: Account::default(),
            subscriptions: BTreeMap::new(),
            fetches: BTreeSet::new(),
            runnable: Runnable::default(),
            next_fetch: None,
            resolving_fetch: None,
            long_answers: 0,
            sending: None,
            dirty: false,
            wants_memory: false,
        }
    }

    /// Whether another request may be taken up, as far as this connection alone is concerned.
    pub(super) fn may_ask(&self, send_queue_max: usize) -> bool {
        let queued = self.queue.bytes();
        self.stage == Stage::Open
            && self.long_answers == 0
            && !self.net.is_full()
            && self.next_fetch.is_none()
            && self.resolving_fetch.is_none()
            && (queued == 0 || queued < send_queue_max)
    }

    /// Its native side. What only native connections do asks for it.
    pub(super) fn native(&mut self) -> &mut NativeConn {
        match &mut self.net {
            Net::Native(native) => native,
            Net::Kafka(_) => unreachable!("requests of one protocol come by connections of that protocol"),
        }
    }

    /// Its Kafka side, if that is what it speaks.
    pub(super) fn kafka(&mut self) -> Option<&mut KafkaConn> {
        match &mut self.net {
            Net::Native(_) => None,
            Net::Kafka(kafka) => Some(kafka),
        }
    }

    /// Whether everything was answered and handed over to be sent.
    pub(super) fn is_answered(&self) -> bool {
        self.net.is_answered() && self.sending.is_none()
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = ReaderId> {
        self.subscriptions.values().chain(&self.fetches).copied()
    }
}

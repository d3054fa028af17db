//! Two channels with the bytes between them.

use std::ops::Range;

use bytes::Bytes;
use highwater_replication::peer::{
    Attempt, Channel, Event, Frames, Hello, Incoming, Lent, Refusal, Settings, judge,
};
use highwater_replication::raft::Envelope;
use highwater_runtime::plane::Instant;

use crate::samples::{local, shard};

pub(crate) const START: Instant = Instant(1_000_000_000);

/// One end of a connection, with the bytes that are on their way to it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) channel: Channel,
    pub(crate) inbox: Vec<u8>,
    lent: Option<Lent>,
}

impl End {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, inbox: Vec::new(), lent: None }
    }

    /// Receives up to `max` bytes. `lends`: large frames go into lent pages.
    pub(crate) fn receive(&mut self, now: Instant, max: usize, lends: bool) {
        if let Some(mut lent) = self.lent.take() {
            let bytes = lent.end - lent.filled;
            if self.inbox.len() < bytes {
                self.lent = Some(lent);
                return;
            }
            lent.pages[lent.filled..lent.end].copy_from_slice(&self.inbox[..bytes]);
            self.inbox.drain(..bytes);
            self.channel.return_pages(now, lent.pages);
        } else {
            let bytes: Vec<u8> = self.inbox.drain(..max.min(self.inbox.len())).collect();
            if !bytes.is_empty() {
                self.channel.handle_bytes(now, &bytes);
            }
        }
        if lends {
            self.lent = self.channel.lend_pages();
        }
    }

    /// Returns the events so far.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.channel.poll_event()).collect()
    }

    /// Returns the messages so far, with their frames, which are released.
    pub(crate) fn messages(&mut self) -> Vec<(Envelope, Vec<u8>)> {
        let messages = self.events().into_iter().filter_map(|event| match event {
            Event::Message(Incoming { envelope, frames, frames_bytes, .. }) => {
                self.channel.release(frames_bytes);
                Some((envelope, joined(&frames)))
            }
            _ => None,
        });
        messages.collect()
    }
}

pub(crate) fn joined(frames: &[Frames]) -> Vec<u8> {
    frames.iter().flat_map(|frames| frames.bytes().iter().copied()).collect()
}

/// A connection between shard 0 of node 1, which opens it, and shard 0 of node 2.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) ends: [End; 2],
    pub(crate) now: Instant,
}

/// Accepts the connection whose first bytes are these, as a node does. Returns what is left of the bytes.
pub(crate) fn accept(
    node: u32,
    bytes: &[u8],
    current: Option<Attempt>,
    settings: Settings,
    random: u64,
    now: Instant,
) -> Option<Result<(Channel, Attempt, usize), Refusal>> {
    let (hello, end) = Hello::take(bytes).expect("a hello")?;
    let local = local(node, u64::from(node));
    Some(
        judge(&local, &hello, true, current).map(|version| {
            (Channel::accept(local, settings, &hello, version, random, now), hello.attempt, end)
        }),
    )
}

impl Pipe {
    /// A connection whose handshake is complete.
    pub(crate) fn new(settings: Settings, attempt: u32, now: Instant) -> Self {
        let random = 1000 + u64::from(attempt);
        let mut opener = Channel::open(local(1, 1), settings, shard(2, 0), attempt, random, now);
        let hello = output(&mut opener, now);
        let accepted = accept(2, &hello, None, settings, 2 * random, now).expect("complete");
        let (acceptor, _, end) = accepted.expect("accepted");
        assert_eq!(end, hello.len());
        let mut pipe = Self { ends: [End::new(opener), End::new(acceptor)], now };
        pipe.settle();
        for end in &mut pipe.ends {
            assert!(matches!(end.events()[..], [Event::Established(_)]));
        }
        pipe
    }

    /// Sends what an end has to say.
    pub(crate) fn flush(&mut self, from: usize) {
        let bytes = output(&mut self.ends[from].channel, self.now);
        self.ends[1 - from].inbox.extend(bytes);
    }

    /// Sends and receives until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            self.flush(0);
            self.flush(1);
            if self.ends.iter().all(|end| end.inbox.is_empty()) {
                return;
            }
            for end in &mut self.ends {
                end.receive(self.now, usize::MAX, false);
            }
        }
    }
}

/// Takes all that a channel has to send.
pub(crate) fn output(channel: &mut Channel, now: Instant) -> Vec<u8> {
    let pieces: Vec<Bytes> = std::iter::from_fn(|| channel.poll_output(now)).collect();
    pieces.concat()
}

/// Returns the seeds to run.
pub(crate) fn seeds(count: u64) -> Range<u64> {
    highwater_runtime::sim::seeds("HIGHWATER_PEER_SEEDS", count)
}

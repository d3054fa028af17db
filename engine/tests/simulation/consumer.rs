//! A consumer with little credit that goes on where it was, and remembers every record it was given.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use highwater_protocol::batch::BatchView;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::{
    Credit, DataPrefix, FetchRequest, MessageKind, StartAt, SubscribeRequest, message,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use crate::node::World;
use crate::wire::{Answer, Wire};

pub(crate) struct Consumer {
    from: TopicPartition,
    shard: u16,
    /// By subscription, or by fetches that wait.
    subscribes: bool,
    rng: SimRng,
    wire: Option<Wire>,
    next: i64,
    /// Highest high watermark told: it never goes back.
    high_watermark: i64,
    pub(crate) seen: BTreeMap<i64, String>,
}

impl Consumer {
    pub(crate) fn new(from: TopicPartition, shard: u16, subscribes: bool, rng: SimRng) -> Self {
        Self { from, shard, subscribes, rng, wire: None, next: 0, high_watermark: 0, seen: BTreeMap::new() }
    }

    pub(crate) fn from(&self) -> TopicPartition {
        self.from
    }

    /// For people, when it waits for ever.
    pub(crate) fn describe(&self, ends: &BTreeMap<TopicPartition, i64>) -> String {
        format!(
            "{} of {}: at {} of {:?}",
            if self.subscribes { "subscription" } else { "fetches" },
            self.from.partition,
            self.next,
            ends.get(&self.from)
        )
    }

    /// The next offset that it wants.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr) {
        if self.wire.as_ref().is_some_and(Wire::is_over) {
            self.wire = None;
        }
        if self.wire.is_none() {
            let wire = Wire::connect(world, address, Some(self.shard));
            self.wire = Some(wire);
            self.ask();
        }
        // A slow reader, at times.
        if self.rng.random_bool(0.3) {
            return;
        }
        let Some(wire) = &mut self.wire else { return };
        wire.receive(self.rng.random_range(1..100_000));
        let mut answers = Vec::new();
        while let Some(answer) = wire.pop() {
            answers.push(answer);
        }
        for answer in answers {
            if !self.take(answer) {
                self.wire = None;
                return;
            }
        }
    }

    fn ask(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let (topic, partition) = (self.from.topic, self.from.partition);
        let start = StartAt::Offset(Offset(self.next));
        if self.subscribes {
            let credit_bytes = self.rng.random_range(100..60_000);
            wire.send(&SubscribeRequest { topic, partition, start, credit_bytes });
        } else {
            let max_bytes = self.rng.random_range(1..100_000);
            let min_bytes = self.rng.random_range(0..20_000);
            let wait_ms = self.rng.random_range(0..50);
            wire.send(&FetchRequest { topic, partition, start, max_bytes, min_bytes, wait_ms });
        }
    }

    /// False if the connection has to be made anew.
    fn take(&mut self, answer: Answer) -> bool {
        let body = match answer.body {
            Ok(body) => body,
            Err((code, text)) => {
                assert!(matches!(code, ErrorCode::Unavailable | ErrorCode::Overloaded), "{code}: {text}");
                return false;
            }
        };
        match answer.kind {
            MessageKind::Subscribe => {}
            MessageKind::Data | MessageKind::Fetch => {
                let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
                self.take_frames(prefix, frames);
                if answer.kind == MessageKind::Fetch {
                    self.ask();
                } else if let Some(wire) = &mut self.wire {
                    let credit = Credit { bytes: (frames.len() as u64).into() };
                    wire.send_raw(message(answer.id, &credit));
                }
            }
            kind => panic!("nobody asked for {kind:?}"),
        }
        true
    }

    fn take_frames(&mut self, prefix: &DataPrefix, mut frames: &[u8]) {
        let high_watermark = prefix.high_watermark.get();
        assert!(high_watermark >= self.high_watermark, "the high watermark went back");
        self.high_watermark = high_watermark;
        while !frames.is_empty() {
            let (header, kind) = FrameHeader::parse(frames).expect("a frame");
            let (frame, rest) = frames.split_at(header.frame_bytes());
            frames = rest;
            if kind != FrameKind::Batch {
                continue;
            }
            let end = FRAME_HEADER_BYTES + header.payload_bytes.get() as usize;
            let view = BatchView::parse(&frame[FRAME_HEADER_BYTES..end]).expect("a batch");
            view.check_checksum().expect("as it was sent");
            let mut scratch = Vec::new();
            for record in view.records(&mut scratch).expect("records") {
                let record = record.expect("a record");
                let (offset, value) = (record.offset.0, record.value.expect("a value"));
                assert!(offset < high_watermark, "only what is acknowledged is read");
                if offset < self.next {
                    continue;
                }
                assert_eq!(offset, self.next, "no record is left out");
                self.next += 1;
                self.seen.insert(offset, String::from_utf8_lossy(value).into_owned());
            }
        }
        assert_eq!(prefix.next_offset.get(), self.next);
    }
}

//! A consumer with little credit that resumes from its position and records everything that it has read.

use std::net::SocketAddr;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::{
    Credit, DataPrefix, FetchRequest, MessageKind, Start, SubscribeRequest, message,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use crate::node::World;
use crate::seen::Seen;
use crate::wire::{Answer, Wire};

pub(crate) struct Consumer {
    pub(crate) seen: Seen,
    shard: u16,
    /// Whether it subscribes, or fetches with a wait.
    subscribes: bool,
    rng: SimRng,
    wire: Option<Wire>,
}

impl Consumer {
    pub(crate) fn new(from: TopicPartition, shard: u16, subscribes: bool, rng: SimRng) -> Self {
        Self { seen: Seen::new(from), shard, subscribes, rng, wire: None }
    }

    /// Describes its state, for a run that does not finish.
    pub(crate) fn describe(&self) -> &'static str {
        if self.subscribes { "subscription" } else { "fetches" }
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
        // It is slow at times.
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
        let TopicPartition { topic, partition } = self.seen.from();
        let start = Start::Offset(Offset(self.seen.next()));
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

    /// Handles messages. Returns false if it has to reconnect.
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
            kind => panic!("unexpected {kind:?}"),
        }
        true
    }

    fn take_frames(&mut self, prefix: &DataPrefix, mut frames: &[u8]) {
        self.seen.note_high_watermark(prefix.high_watermark.get());
        while !frames.is_empty() {
            let (header, kind) = FrameHeader::parse(frames).expect("a frame");
            let (frame, rest) = frames.split_at(header.frame_bytes());
            frames = rest;
            if kind != FrameKind::Batch {
                continue;
            }
            let end = FRAME_HEADER_BYTES + header.payload_bytes.get() as usize;
            self.seen.take(&frame[FRAME_HEADER_BYTES..end]);
        }
        assert_eq!(prefix.next_offset.get(), self.seen.next());
    }
}

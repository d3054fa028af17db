//! Proof by replay: every image that a power cut could have left of a recorded run.

use std::path::Path;

use super::blocks::DiskImage;
use super::ledger::{CrashPolicy, Event, Inode, Ledger};
use super::rng::stream;

/// What a disk was asked and what it answered, in order. Made by [`SimDisk::record`](super::SimDisk::record).
#[derive(Clone)]
pub struct Recording {
    base: Ledger,
    events: Vec<Event>,
}

impl Recording {
    pub(super) fn new(base: Ledger) -> Self {
        Self { base, events: Vec::new() }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Everything that happened.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The file that had this name when the recording began.
    pub fn inode(&self, path: &Path) -> Option<Inode> {
        self.base.names().get(path).copied()
    }

    /// Images of a power cut after each event: one with all of what was not durable lost, one with all of it kept, one with all of it
    /// torn, and `random` seeded mixtures. Where everything was durable there is only one.
    pub fn crash_images(&self, seed: u64, random: u32) -> CrashImages<'_> {
        CrashImages {
            recording: self,
            seed,
            random,
            ledger: self.base.clone(),
            at: 0,
            variant: 0,
            marks: Vec::new(),
        }
    }
}

/// One possible outcome.
#[derive(Clone, Debug)]
pub struct CrashImage {
    /// Power was cut after so many events of the recording.
    pub events: usize,
    /// Which of the images at that point: with the seed, this names it.
    pub variant: u32,
    /// How many marks had been made.
    pub marks: usize,
    /// The last of them.
    pub last_mark: Option<u64>,
    /// What the disk holds.
    pub image: DiskImage,
}

/// Iterates over the images; see [`Recording::crash_images`].
pub struct CrashImages<'a> {
    recording: &'a Recording,
    seed: u64,
    random: u32,
    ledger: Ledger,
    at: usize,
    variant: u32,
    marks: Vec<u64>,
}

impl CrashImages<'_> {
    /// Goes on with the images after so many events, leaving out those before.
    #[must_use]
    pub fn from_event(mut self, events: usize) -> Self {
        while self.at < events && self.advance() {}
        self
    }

    fn advance(&mut self) -> bool {
        let Some(event) = self.recording.events.get(self.at) else { return false };
        self.ledger.apply(event);
        if let Event::Mark(mark) = event {
            self.marks.push(*mark);
        }
        self.at += 1;
        self.variant = 0;
        true
    }
}

impl Iterator for CrashImages<'_> {
    type Item = CrashImage;

    fn next(&mut self) -> Option<CrashImage> {
        let variants = if self.ledger.has_pending() { 3 + self.random } else { 1 };
        if self.variant == variants && !self.advance() {
            return None;
        }
        let policy = match self.variant {
            0 => CrashPolicy::LOSE_ALL,
            1 => CrashPolicy::KEEP_ALL,
            2 => CrashPolicy::TEAR_ALL,
            _ => CrashPolicy::MIXED,
        };
        let number = (self.at as u64) << 32 | u64::from(self.variant);
        let image = self.ledger.survivors(policy, &mut stream(self.seed, "crash image", number));
        let image = CrashImage {
            events: self.at,
            variant: self.variant,
            marks: self.marks.len(),
            last_mark: self.marks.last().copied(),
            image,
        };
        self.variant += 1;
        Some(image)
    }
}

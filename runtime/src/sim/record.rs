//! Crash testing by replay: generates the images that a power cut could have left at any point of a recorded run.

use std::path::Path;

use super::blocks::DiskImage;
use super::ledger::{CrashPolicy, Event, Inode, Ledger};
use super::rng::stream;

/// The operations and completions of a disk, in order. Created by [`SimDisk::record`](super::SimDisk::record).
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

    /// Returns all events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns the file that had this name when the recording started.
    pub fn inode(&self, path: &Path) -> Option<Inode> {
        self.base.names().get(path).copied()
    }

    /// Returns the images of a power cut after each event: one without everything that was not durable, one with all of it, one
    /// with all of it torn, and `random` seeded mixtures. If everything was durable there is only one.
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

/// A possible result of a power cut.
#[derive(Clone, Debug)]
pub struct CrashImage {
    /// Number of events before the power cut.
    pub events: usize,
    /// Number of the image at that point. Together with the seed, it identifies the image.
    pub variant: u32,
    /// Number of marks before the power cut.
    pub marks: usize,
    /// The last mark before the power cut.
    pub last_mark: Option<u64>,
    /// Content of the disk.
    pub image: DiskImage,
}

/// Iterates over the crash images; see [`Recording::crash_images`].
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
    /// Skips the images before the given number of events.
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

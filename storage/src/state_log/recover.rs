//! Reads two copies of a state log together. Pure: two images in, the log's content out.
//!
//! 1. The newest valid header decides the generation. Its base is put together chunk by chunk from whichever copy has it right.
//!    If neither has a chunk: the older generation is complete as long as nothing was recorded in the newer one (a record there
//!    proves that both copies had reached it); else the log is lost, which is an error and never an empty log.
//!    While the newer copy replaces the older, records go into both: each of them is complete by itself, so of two neighbouring
//!    generations the one whose records reach further is taken, whatever happened to the other.
//! 2. Records follow in order of their numbers, each from whichever copy has it right. The writer starts a record only when the one
//!    before is in both copies, so: a copy that lacks a record which is not the last is *damaged*; a copy that lacks
//!    the last one was perhaps cut off by the crash.
//! 3. Where neither copy has the next record, a later one of this generation proves that it had been there: an error. Otherwise the
//!    log ends, and what is there was never acknowledged. A copy that was cut short cannot say that it ends.

use bytes::Bytes;

use super::format::{self, BLOCK_BYTES, FileHeader, HeaderFault, Owner};

/// The bytes of one copy.
pub struct Image {
    /// All of it; unreadable blocks are zero.
    pub bytes: Vec<u8>,
    /// Positions of blocks that could not be read.
    pub unreadable: Vec<u64>,
}

/// The content of two copies together.
#[derive(Debug)]
pub struct Analysis {
    /// Of the content.
    pub generation: u64,
    /// The pieces of the last snapshot.
    pub snapshot: Vec<Bytes>,
    /// Every payload after it.
    pub payloads: Vec<Bytes>,
    /// Number of the last payload.
    pub last_seq: u64,
    /// Number of the first payload of the last record; one more than the last payload's if there is none.
    pub last_record_seq: u64,
    /// The content that both files should have from their start to the end of the log; zero bytes follow.
    pub expected: Vec<u8>,
    /// Where the last record begins in it; its end if there is none.
    pub last_record_at: u64,
    /// Size both files should have.
    pub file_bytes: u64,
    /// Damage found and healed, for people.
    pub damage: Vec<String>,
    /// Findings that a crash explains.
    pub notes: Vec<String>,
    /// Whether each copy can be made right block by block; if not, its file has to be replaced.
    pub mendable: [bool; 2],
}

/// Why two copies do not make a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Neither file exists.
    New,
    /// No copy has a valid header; the faults of both.
    Headers([HeaderFault; 2]),
    /// A part that had been acknowledged is right in neither copy.
    Content(String),
    /// A copy was made by a newer version.
    Newer(u32),
}

/// Reads both copies together. `names` are for the report.
pub fn analyse(owner: Owner, names: [&str; 2], images: [Option<&Image>; 2]) -> Result<Analysis, Lost> {
    let headers = images.map(|image| match image {
        None => Err(HeaderFault::Missing),
        Some(image) => format::parse_header(&image.bytes, owner),
    });
    for header in &headers {
        if let Err(HeaderFault::Version(v)) = header {
            return Err(Lost::Newer(*v));
        }
    }
    let mut damage = Vec::new();
    let mut standing = Standing::Apart;
    let candidates = match (headers[0], headers[1]) {
        (Err(HeaderFault::Missing), Err(HeaderFault::Missing)) => return Err(Lost::New),
        (Err(a), Err(b)) => return Err(Lost::Headers([a, b])),
        (Ok(a), Ok(b)) if a.generation.get() == b.generation.get() => vec![a],
        (Ok(a), Ok(b)) => {
            let mut both = vec![a, b];
            both.sort_by_key(|h| std::cmp::Reverse(h.generation.get()));
            standing = compare(owner, names, images, [both[0], both[1]], &mut damage);
            if standing == Standing::OlderReachesFurther {
                both.swap(0, 1);
            }
            both
        }
        (Ok(a), Err(_)) => vec![a],
        (Err(_), Ok(b)) => vec![b],
    };
    for (tried, header) in candidates.iter().enumerate() {
        let other = candidates.get(tried + 1);
        let walk = Walk { owner, names, images, header, standing };
        match walk.base(&mut damage) {
            Ok(base) => {
                let mut notes = Vec::new();
                walk.header_faults(&headers, &mut damage, &mut notes);
                return walk.finish(&base, damage, notes);
            }
            Err(why) if other.is_none() || walk.any_record() => return Err(Lost::Content(why)),
            Err(why) => damage.push(format!("{why}; the older copy is complete")),
        }
    }
    Err(Lost::Content("no generation is complete".into()))
}

/// How two copies of different generations stand to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// One of them is an old copy.
    Apart,
    /// They hold the same, but perhaps for the record that was on its way: the newer was about to replace the older.
    Equal,
    /// The newer copy lacks something.
    OlderReachesFurther,
}

/// Compares two copies of different generations, the newer one first. Each is read by itself.
fn compare(
    owner: Owner,
    names: [&str; 2],
    images: [Option<&Image>; 2],
    [newer, older]: [&FileHeader; 2],
    damage: &mut Vec<String>,
) -> Standing {
    if older.generation.get() + 1 != newer.generation.get() {
        return Standing::Apart;
    }
    let alone = |header: &FileHeader| {
        let is_it = |image: &Image| {
            format::parse_header(&image.bytes, owner)
                .is_ok_and(|here| here.generation.get() == header.generation.get())
        };
        let images = images.map(|image| image.filter(|image| is_it(image)));
        let walk = Walk { owner, names, images, header, standing: Standing::Apart };
        walk.base(&mut Vec::new()).and_then(|base| {
            walk.finish(&base, Vec::new(), Vec::new()).map_err(|lost| match lost {
                Lost::Content(why) => why,
                other => format!("{other:?}"),
            })
        })
    };
    match (alone(newer), alone(older)) {
        (Ok(newer), Ok(older)) if newer.last_seq < older.last_seq => {
            if newer.last_seq + 1 < older.last_record_seq {
                damage.push(format!(
                    "{}: ends at number {}, and {} at {}",
                    names[0], newer.last_seq, names[1], older.last_seq
                ));
            }
            Standing::OlderReachesFurther
        }
        (Ok(newer), Ok(older)) if older.last_seq + 1 >= newer.last_record_seq => Standing::Equal,
        (Err(why), Ok(_)) => {
            damage.push(format!("{why}; the older copy is complete"));
            Standing::OlderReachesFurther
        }
        _ => Standing::Apart,
    }
}

/// One generation read from both copies.
struct Walk<'a> {
    owner: Owner,
    names: [&'a str; 2],
    images: [Option<&'a Image>; 2],
    header: &'a FileHeader,
    standing: Standing,
}

impl Walk<'_> {
    fn generation(&self) -> u64 {
        self.header.generation.get()
    }

    /// The base, each chunk from a copy whose checksum is right.
    fn base(&self, damage: &mut Vec<String>) -> Result<Vec<u8>, String> {
        let bytes = self.header.base_bytes() as usize;
        let chunk_bytes = self.header.chunk_bytes.get() as usize;
        let mut base = Vec::new();
        while base.len() < bytes {
            let from = BLOCK_BYTES + base.len();
            let to = (from + chunk_bytes).min(BLOCK_BYTES + bytes);
            let crc = self.header.chunk_crcs[base.len() / chunk_bytes].get();
            let chunk_of = |image: Option<&Image>| {
                let chunk = image?.bytes.get(from..to)?;
                (crc32c::crc32c(chunk) == crc).then(|| chunk.to_vec())
            };
            let found = self.images.map(chunk_of);
            for (i, name) in self.names.iter().enumerate() {
                // A copy of another generation is not expected to hold this base.
                if found[i].is_none() && self.is_this_generation(i) {
                    damage.push(format!("{name}: bytes {from}..{to} (snapshot) do not match their checksum"));
                }
            }
            match found {
                [Some(chunk), _] | [None, Some(chunk)] => base.extend_from_slice(&chunk),
                [None, None] => {
                    return Err(format!(
                        "{} and {}: bytes {from}..{to} of the snapshot of generation {} are right in neither copy",
                        self.names[0],
                        self.names[1],
                        self.generation()
                    ));
                }
            }
        }
        Ok(base)
    }

    fn is_this_generation(&self, copy: usize) -> bool {
        self.images[copy].is_some_and(|image| {
            format::parse_header(&image.bytes, self.owner)
                .is_ok_and(|h| h.generation.get() == self.generation())
        })
    }

    /// Whether any record of this generation is anywhere.
    fn any_record(&self) -> bool {
        self.later_record(self.header.records_at(), 0).is_some()
    }

    /// A valid record of this generation at or after `from` with a number of at least `seq`.
    fn later_record(&self, from: u64, seq: u64) -> Option<u64> {
        let blocks = |image: &Image| {
            (from..image.bytes.len() as u64)
                .step_by(BLOCK_BYTES)
                .filter_map(|at| format::parse_record(&image.bytes, at, self.owner, self.generation()))
                .map(|record| record.header.first_seq.get())
                .find(|found| *found >= seq)
        };
        self.images.iter().flatten().find_map(|image| blocks(image))
    }

    fn header_faults(
        &self,
        headers: &[Result<&FileHeader, HeaderFault>; 2],
        damage: &mut Vec<String>,
        notes: &mut Vec<String>,
    ) {
        for (i, header) in headers.iter().enumerate() {
            match header {
                Err(fault) if *fault == HeaderFault::Missing && i == 1 && self.is_first_creation() => {}
                Err(fault) => damage.push(format!("{}: {fault}", self.names[i])),
                // One generation less is what a crash between the two replacements of a rotation leaves.
                Ok(h) if h.generation.get() == self.generation() => {}
                Ok(h)
                    if i == 1
                        && h.generation.get() + 1 == self.generation()
                        && (self.standing == Standing::Equal || !self.any_record()) =>
                {
                    notes.push(format!(
                        "{}: a rewrite of the log was cut off before this copy",
                        self.names[i]
                    ));
                }
                Ok(h) if h.generation.get() > self.generation() => {
                    // If it is damaged, that has been said.
                    notes
                        .push(format!("{}: a rewrite of the log was cut off after this copy", self.names[i]));
                }
                Ok(h) => damage.push(format!(
                    "{}: is of generation {}, the other copy of {}",
                    self.names[i],
                    h.generation.get(),
                    self.generation()
                )),
            }
        }
        for (image, name) in self.images.iter().zip(self.names) {
            for at in image.iter().flat_map(|image| &image.unreadable) {
                damage.push(format!("{name}: the block at {at} cannot be read"));
            }
        }
    }

    /// Whether this is the first of the two files of a new log, made just before a crash.
    fn is_first_creation(&self) -> bool {
        self.generation() == 1 && self.header.base_bytes() == 0 && !self.any_record()
    }

    fn finish(&self, base: &[u8], damage: Vec<String>, notes: Vec<String>) -> Result<Analysis, Lost> {
        let header = self.header;
        let (snapshot, carried) = header
            .split_base(base)
            .ok_or_else(|| Lost::Content("its header contradicts its content".into()))?;
        let mut expected = zerocopy::IntoBytes::as_bytes(header).to_vec();
        expected.extend_from_slice(base);
        let mut analysis = Analysis {
            generation: self.generation(),
            snapshot,
            payloads: carried,
            last_seq: header.first_seq.get().saturating_sub(1),
            last_record_seq: header.first_seq.get(),
            last_record_at: expected.len() as u64,
            expected,
            file_bytes: header.file_bytes.get(),
            damage,
            notes,
            mendable: [0, 1].map(|copy| {
                let whole = |image: &Image| {
                    image.bytes.len() as u64 == header.file_bytes.get() && image.unreadable.is_empty()
                };
                self.is_this_generation(copy) && self.images[copy].is_some_and(whole)
            }),
        };
        self.records(&mut analysis)?;
        Ok(analysis)
    }

    /// Whether a copy can say that no record begins here: it is whole, and the block can be read.
    fn vouches(&self, copy: usize, at: u64) -> bool {
        self.images[copy].filter(|_| self.is_this_generation(copy)).is_some_and(|image| {
            image.bytes.len() as u64 >= self.header.file_bytes.get() && !image.unreadable.contains(&at)
        })
    }

    fn records(&self, analysis: &mut Analysis) -> Result<(), Lost> {
        let mut faults: Vec<(usize, u64, u64)> = Vec::new();
        loop {
            let at = analysis.expected.len() as u64;
            let seq = analysis.last_seq + 1;
            let found = self.images.map(|image| {
                format::parse_record(&image?.bytes, at, self.owner, self.generation())
                    .filter(|record| record.header.first_seq.get() == seq)
            });
            let Some(record) = found.iter().flatten().next() else {
                if let Some(later) = self.later_record(at, seq) {
                    return Err(Lost::Content(format!(
                        "{} and {}: the record at {at} (number {seq}) is right in neither copy, and number {later} follows",
                        self.names[0], self.names[1]
                    )));
                }
                if ![0, 1].into_iter().any(|copy| self.vouches(copy, at)) {
                    return Err(Lost::Content(format!(
                        "{} and {}: neither copy has the bytes at {at}, where records may have been",
                        self.names[0], self.names[1]
                    )));
                }
                self.last_faults(&faults, analysis);
                self.tail(at, analysis);
                return Ok(());
            };
            // The ones before were followed by this one, so they had rested in both copies.
            analysis.damage.extend(faults.drain(..).filter_map(|(copy, at, seq)| self.fault(copy, at, seq)));
            for (copy, found) in found.iter().enumerate() {
                if found.is_none() {
                    faults.push((copy, at, seq));
                }
            }
            let count = record.header.count.get();
            let Some(payloads) = format::split_payloads(record.payloads, count).filter(|_| count > 0) else {
                return Err(Lost::Content(format!("the record at {at} contradicts its own header")));
            };
            analysis.last_record_seq = analysis.last_seq + 1;
            analysis.last_seq += u64::from(count);
            analysis.payloads.extend(payloads);
            analysis.last_record_at = at;
            analysis.expected.extend_from_slice(record.whole);
        }
    }

    /// Damage to a record that is not the last. A copy that is not of this generation has been reported as a whole.
    fn fault(&self, copy: usize, at: u64, seq: u64) -> Option<String> {
        self.is_this_generation(copy)
            .then(|| format!("{}: the record at {at} (number {seq}) is damaged", self.names[copy]))
    }

    /// The last record is right in one copy only. If the other holds nothing but sectors of it and sectors of zero bytes, the
    /// crash cut the write off; if it holds anything else, it is damaged.
    fn last_faults(&self, faults: &[(usize, u64, u64)], analysis: &mut Analysis) {
        for &(copy, at, seq) in faults {
            let Some(image) = self.images[copy].filter(|_| self.is_this_generation(copy)) else { continue };
            let name = self.names[copy];
            let right = &analysis.expected[at as usize..];
            let here = image.bytes.get(at as usize..at as usize + right.len()).unwrap_or_default();
            let torn = here.len() == right.len()
                && here.chunks(512).zip(right.chunks(512)).all(|(h, r)| h == r || h.iter().all(|b| *b == 0))
                && !image.unreadable.iter().any(|u| (at..at + right.len() as u64).contains(u));
            if torn {
                analysis.notes.push(format!(
                    "{name}: the last record (number {seq}) was cut off; taken from the other copy"
                ));
            } else {
                analysis.damage.push(format!("{name}: the last record at {at} (number {seq}) is damaged"));
            }
        }
    }

    fn tail(&self, at: u64, analysis: &mut Analysis) {
        for (copy, name) in self.names.iter().enumerate() {
            let image = self.images[copy].filter(|_| self.is_this_generation(copy));
            let rest = image.and_then(|image| image.bytes.get(at as usize..)).unwrap_or_default();
            if rest.iter().any(|b| *b != 0) {
                analysis.notes.push(format!(
                    "{name}: bytes after the end at {at} were never acknowledged and are dropped"
                ));
            }
        }
    }
}

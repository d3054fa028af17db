//! State logs: the content of both copies together.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_protocol::ids::ClusterId;

use super::files::Files;
use crate::state_log::format::peek_owner;
use crate::state_log::recover::{Image, Lost, analyse};
use crate::state_log::{copy_paths, read_image};

/// A state log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateLogListing {
    /// Path of its files, without `.a` and `.b`.
    pub stem: PathBuf,
    /// Whose state it is, as its files say; `None` if neither can be read.
    pub purpose: Option<[u8; 4]>,
    /// The cluster it belongs to.
    pub cluster: Option<ClusterId>,
    /// Which rewrite of the files counts.
    pub generation: u64,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
    /// Payloads after the snapshot.
    pub records: usize,
    /// Bytes in use at the start of each file.
    pub used_bytes: u64,
    /// Damage that the other copy makes up for.
    pub damage: Vec<String>,
    /// Findings that a crash explains.
    pub notes: Vec<String>,
    /// Why it cannot be read.
    pub lost: Option<String>,
}

/// The content of a state log.
#[derive(Clone, Default, Debug)]
pub struct Content {
    /// Pieces of the snapshot that the last rewrite of the log began with.
    pub snapshot: Vec<Bytes>,
    /// The payloads after it.
    pub records: Vec<Bytes>,
}

/// Reads the state log with files `<stem>.a` and `<stem>.b`.
pub fn state_log(fs: &mut dyn highwater_runtime::fs::Fs, stem: &Path) -> StateLogListing {
    read(&mut Files::new(fs), stem).0
}

/// The content of the state log with files `<stem>.a` and `<stem>.b`; or why it cannot be read.
pub fn state_log_content(fs: &mut dyn highwater_runtime::fs::Fs, stem: &Path) -> Result<Content, String> {
    let (listing, content) = read(&mut Files::new(fs), stem);
    content.ok_or_else(|| format!("{}: {}", stem.display(), listing.lost.unwrap_or_default()))
}

pub(super) fn read(files: &mut Files<'_>, stem: &Path) -> (StateLogListing, Option<Content>) {
    let mut listing = StateLogListing {
        stem: stem.to_path_buf(),
        purpose: None,
        cluster: None,
        generation: 0,
        snapshot_bytes: 0,
        records: 0,
        used_bytes: 0,
        damage: Vec::new(),
        notes: Vec::new(),
        lost: None,
    };
    let paths = copy_paths(stem);
    let images: [Option<Image>; 2] = [0, 1].map(|copy| {
        let file = files.open(&paths[copy]).ok()?;
        read_image(files.fs(), file).ok()
    });
    let owner = images.iter().flatten().find_map(|image| peek_owner(&image.bytes));
    let Some(owner) = owner else {
        listing.lost = Some("neither copy has a readable header".into());
        return (listing, None);
    };
    listing.purpose = Some(owner.purpose);
    listing.cluster = Some(owner.cluster);
    let names = paths.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    match analyse(owner, [&names[0], &names[1]], [images[0].as_ref(), images[1].as_ref()]) {
        Ok(analysis) => {
            listing.generation = analysis.generation;
            listing.snapshot_bytes = analysis.snapshot.iter().map(|piece| piece.len() as u64).sum();
            listing.records = analysis.payloads.len();
            listing.used_bytes = analysis.expected.len() as u64;
            listing.damage = analysis.damage;
            listing.notes = analysis.notes;
            (listing, Some(Content { snapshot: analysis.snapshot, records: analysis.payloads }))
        }
        Err(lost) => {
            listing.lost = Some(match lost {
                Lost::Newer(version) => {
                    format!("format version {version} is newer than this build understands")
                }
                Lost::Content(why) => why,
                Lost::New | Lost::Headers(_) => "neither copy has a readable header".into(),
            });
            (listing, None)
        }
    }
}

/// The state logs among these files, and the rest of them.
pub(super) fn find(files: &mut Files<'_>, paths: Vec<PathBuf>) -> (Vec<StateLogListing>, Vec<PathBuf>) {
    let mut logs: Vec<StateLogListing> = Vec::new();
    let mut strangers = Vec::new();
    for path in paths {
        if path.extension().is_some_and(|extension| extension == "mark") {
            continue;
        }
        if !path.extension().is_some_and(|extension| extension == "a" || extension == "b") {
            strangers.push(path);
            continue;
        }
        let stem = path.with_extension("");
        if !logs.iter().any(|log| log.stem == stem) {
            logs.push(read(files, &stem).0);
        }
    }
    (logs, strangers)
}

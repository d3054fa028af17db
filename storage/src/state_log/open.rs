//! Opening a state log: making a new one, or reading two copies together and making them equal.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_protocol::ids::ClusterId;
use highwater_runtime::fs::{FileId, OpenMode, is_out_of_space};
use highwater_runtime::plane::Disk;

use super::base::BaseBuilder;
use super::format::{self, BLOCK_BYTES, HeaderFault, Owner};
use super::recover::{self, Analysis, Image, Lost};
use super::{FILE_BYTES_DEFAULT, MarkWrites, StateLog, mark, mark_path};

/// Bytes of one read, while nothing is unreadable.
const READ_BYTES: usize = 1 << 20;

/// How much further than any generation seen a recreated log begins: copies that cannot be read now may be readable later.
const RECREATED_GENERATION_STEP: u64 = 1 << 32;

/// The content of an opened log.
#[derive(Default, Debug)]
pub struct Recovered {
    /// The pieces of the last snapshot, in order. Empty if there is none.
    pub snapshot: Vec<Bytes>,
    /// Every payload after it, in order.
    pub records: Vec<Bytes>,
    /// Damage found and healed: what, where.
    pub damage: Vec<String>,
    /// Findings that a crash explains: a last record that was cut off.
    pub notes: Vec<String>,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StateLogError {
    /// An operation failed.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Both copies are damaged where it counts. The files are untouched.
    #[error("the state in {a} and {b} is lost: {why}")]
    Damaged {
        /// First copy.
        a: PathBuf,
        /// Second copy.
        b: PathBuf,
        /// The fault.
        why: String,
    },
    /// Both copies are older than the log's mark says. The files are untouched.
    #[error(
        "{a} and {b} are old copies: they are of generation {found}, and this log had reached {expected}"
    )]
    Older {
        /// First copy.
        a: PathBuf,
        /// Second copy.
        b: PathBuf,
        /// Their generation.
        found: u64,
        /// The generation in the mark.
        expected: u64,
    },
    /// The log belongs to another cluster.
    #[error("{path} belongs to cluster {found}, this is cluster {expected}")]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Who asks.
        expected: ClusterId,
    },
    /// The log holds another kind of state.
    #[error("{path} holds another kind of state ({:?})", String::from_utf8_lossy(.found))]
    OtherPurpose {
        /// The file.
        path: PathBuf,
        /// Its content or purpose.
        found: [u8; 4],
    },
    /// The log is that of another store of this cluster.
    #[error(
        "{path} belongs to store {found}, this is store {expected}; put each store's files back where they came from"
    )]
    OtherStore {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: u32,
        /// Who asks.
        expected: u16,
    },
    /// A newer version made it.
    #[error("{path} has format version {version}, newer than this build understands: start a newer build")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl StateLog {
    /// Opens the log of files `<path_stem>.a` and `<path_stem>.b`, or makes it if neither exists, and returns its content.
    ///
    /// Blocking. When both copies are damaged where it counts this is an error, and the files are left as they are: a state that
    /// can be rebuilt from elsewhere may then be [`recreate`](Self::recreate)d.
    pub fn open(
        disk: &mut dyn Disk,
        path_stem: &Path,
        purpose: [u8; 4],
        cluster: ClusterId,
        token_space: u8,
    ) -> Result<(Self, Recovered), StateLogError> {
        let owner = Owner { purpose, cluster, number: 0 };
        Self::open_sized(disk, path_stem, owner, token_space, FILE_BYTES_DEFAULT)
    }

    /// The same with another size for files that hold little, for tests and simulation.
    pub fn open_sized(
        disk: &mut dyn Disk,
        path_stem: &Path,
        owner: Owner,
        token_space: u8,
        file_bytes_min: u64,
    ) -> Result<(Self, Recovered), StateLogError> {
        let paths = copy_paths(path_stem);
        let names = [display(&paths[0]), display(&paths[1])];
        let (files, images) = open_copies(disk, &paths)?;
        let marked = mark::read(disk, &mark_path(path_stem), owner);
        let analysis =
            recover::analyse(owner, [&names[0], &names[1]], [images[0].as_ref(), images[1].as_ref()]);
        let analysis = match analysis {
            Ok(analysis) => analysis,
            Err(Lost::New) if marked.is_some() => {
                let [a, b] = paths;
                let why = format!(
                    "both files are missing, and {} says that they existed",
                    display(&mark_path(path_stem))
                );
                return Err(StateLogError::Damaged { a, b, why });
            }
            Err(Lost::New) => {
                let log = Self::make(disk, path_stem, owner, token_space, 1, file_bytes_min)?;
                return Ok((log, Recovered::default()));
            }
            Err(lost) => {
                close_all(disk, files);
                return Err(lost_error(lost, paths, owner));
            }
        };
        if let Some(expected) = marked.filter(|marked| *marked > analysis.generation) {
            close_all(disk, files);
            let [a, b] = paths;
            return Err(StateLogError::Older { a, b, found: analysis.generation, expected });
        }
        let (files, are_equal) = make_equal(disk, &paths, files, &images, &analysis)?;
        let mark_path = mark_path(path_stem);
        let log = Self {
            mark: mark::open(disk, &mark_path, owner, analysis.generation).map_err(io_error(&mark_path))?,
            generation: analysis.generation,
            file_bytes: analysis.file_bytes,
            position: analysis.expected.len() as u64,
            last_seq: analysis.last_seq,
            durable: analysis.last_seq,
            // The last record may come from a write that failed. It is certain once a new generation has it.
            doubtful: if are_equal { None } else { Some(analysis.last_seq) },
            record_failed: !are_equal,
            ..Self::with(paths, files, owner, token_space, file_bytes_min)
        };
        for what in &analysis.damage {
            tracing::warn!("damaged state log, healed from its other copy: {what}");
        }
        let Analysis { snapshot, payloads, damage, notes, .. } = analysis;
        Ok((log, Recovered { snapshot, records: payloads, damage, notes }))
    }

    /// Begins an empty log in the place of one that is lost. The damaged files are kept beside it under the name `<name>.damaged`.
    pub fn recreate(
        disk: &mut dyn Disk,
        path_stem: &Path,
        owner: Owner,
        token_space: u8,
    ) -> Result<Self, StateLogError> {
        let paths = copy_paths(path_stem);
        let mut generation_max = mark::read(disk, &mark_path(path_stem), owner).unwrap_or(0);
        for path in &paths {
            let Ok(file) = disk.open(path, OpenMode::Read) else { continue };
            let mut block = vec![0; BLOCK_BYTES];
            if disk.read_at(file, 0, &mut block).is_ok()
                && let Ok(header) = format::parse_header(&block, owner)
            {
                generation_max = generation_max.max(header.generation.get());
            }
            disk.close_file(file);
        }
        for path in &paths {
            let mut kept = path.clone().into_os_string();
            kept.push(".damaged");
            match disk.rename(path, Path::new(&kept)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(path)(e)),
                _ => {}
            }
        }
        let generation = generation_max + RECREATED_GENERATION_STEP;
        Self::make(disk, path_stem, owner, token_space, generation, FILE_BYTES_DEFAULT)
    }

    /// Makes both files of an empty log.
    fn make(
        disk: &mut dyn Disk,
        path_stem: &Path,
        owner: Owner,
        token_space: u8,
        generation: u64,
        file_bytes_min: u64,
    ) -> Result<Self, StateLogError> {
        let (paths, mark_path) = (copy_paths(path_stem), mark_path(path_stem));
        let file = BaseBuilder::default().finish(owner, generation, 1, file_bytes_min);
        let (content, file_bytes) = (file.content.concat(), file.file_bytes);
        let a = disk.replace_file(&paths[0], &content, file_bytes).map_err(io_error(&paths[0]))?;
        let b = disk.replace_file(&paths[1], &content, file_bytes).map_err(io_error(&paths[1]))?;
        Ok(Self {
            mark: mark::open(disk, &mark_path, owner, generation).map_err(io_error(&mark_path))?,
            generation,
            file_bytes,
            position: file.records_at,
            ..Self::with(paths, [a, b], owner, token_space, file_bytes_min)
        })
    }

    fn with(
        paths: [PathBuf; 2],
        files: [FileId; 2],
        owner: Owner,
        token_space: u8,
        file_bytes_min: u64,
    ) -> Self {
        Self {
            owner,
            paths,
            files,
            mark: None,
            mark_writes: MarkWrites::Idle,
            token_space,
            generation: 0,
            file_bytes_min,
            file_bytes: 0,
            position: 0,
            last_seq: 0,
            durable: 0,
            pending: Vec::new(),
            pending_ends: Vec::new(),
            writing: None,
            record_failed: false,
            doubtful: None,
            snapshot: None,
            rotation: None,
            failed: None,
        }
    }
}

type Copies = ([Option<FileId>; 2], [Option<Image>; 2]);

/// Opens and reads both copies, as far as they exist.
fn open_copies(disk: &mut dyn Disk, paths: &[PathBuf; 2]) -> Result<Copies, StateLogError> {
    let (mut files, mut images) = ([None; 2], [None, None]);
    for (copy, path) in paths.iter().enumerate() {
        files[copy] = match disk.open(path, OpenMode::ReadWrite) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StateLogError::Io { path: path.clone(), error }),
        };
    }
    let (of, found): (Vec<usize>, Vec<FileId>) =
        files.iter().enumerate().filter_map(|(copy, file)| Some((copy, (*file)?))).unzip();
    // Bytes that a cache holds from before a crash of the process must not count as durable.
    disk.sync_many(&found).map_err(|(n, e)| io_error(&paths[of[n]])(e))?;
    for (copy, file) in of.into_iter().zip(found) {
        images[copy] = Some(read_image(disk, file).map_err(io_error(&paths[copy]))?);
    }
    Ok((files, images))
}

fn close_all(disk: &mut dyn Disk, files: [Option<FileId>; 2]) {
    for file in files.into_iter().flatten() {
        disk.close_file(file);
    }
}

/// Gives both copies the content that they hold together. At every moment one of them is whole. Returns false beside the files if a
/// full disk had no space for that.
fn make_equal(
    disk: &mut dyn Disk,
    paths: &[PathBuf; 2],
    files: [Option<FileId>; 2],
    images: &[Option<Image>; 2],
    analysis: &Analysis,
) -> Result<([FileId; 2], bool), StateLogError> {
    let mut are_equal = true;
    let mut equal = [FileId(0); 2];
    for (copy, path) in paths.iter().enumerate() {
        equal[copy] = match (files[copy], &images[copy]) {
            (Some(file), Some(image)) if analysis.mendable[copy] => {
                match mend(disk, file, image, analysis) {
                    // The copy stays as it is, which the next start would understand too, until there is space for a new
                    // generation. Nothing becomes durable before that.
                    Err(e) if is_out_of_space(&e) => are_equal = false,
                    other => other.map_err(io_error(path))?,
                }
                file
            }
            (file, _) => match (file, replace(disk, path, images[copy].as_ref(), analysis)) {
                // The same: the next start understands a copy of the generation before.
                (Some(file), Err(e)) if is_out_of_space(&e) => {
                    are_equal = false;
                    file
                }
                (file, replaced) => {
                    if let Some(file) = file {
                        disk.close_file(file);
                    }
                    replaced.map_err(io_error(path))?
                }
            },
        };
    }
    Ok((equal, are_equal))
}

/// The two files of a log.
pub(crate) fn copy_paths(stem: &Path) -> [PathBuf; 2] {
    ["a", "b"].map(|copy| {
        let mut path = stem.as_os_str().to_os_string();
        path.push(".");
        path.push(copy);
        path.into()
    })
}

/// All of a file, block by block where larger reads fail. Unreadable blocks are zero and listed.
pub fn read_image<F: highwater_runtime::fs::Fs + ?Sized>(disk: &mut F, file: FileId) -> io::Result<Image> {
    let len = disk.file_bytes(file)? as usize;
    // Direct I/O reads whole blocks, even at the end of a file whose size was changed by hand.
    let whole = len.next_multiple_of(BLOCK_BYTES);
    let mut bytes = vec![0; whole];
    let mut unreadable = Vec::new();
    for from in (0..whole).step_by(READ_BYTES) {
        let to = (from + READ_BYTES).min(whole);
        if disk.read_at(file, from as u64, &mut bytes[from..to]).is_ok() {
            continue;
        }
        for block in (from..to).step_by(BLOCK_BYTES) {
            let end = block + BLOCK_BYTES;
            if disk.read_at(file, block as u64, &mut bytes[block..end]).is_err() {
                bytes[block..end].fill(0);
                unreadable.push(block as u64);
            }
        }
    }
    bytes.truncate(len);
    Ok(Image { bytes, unreadable })
}

/// Overwrites the blocks that differ from the expected content, and those of the last record. A crash in between leaves the same blocks to
/// be mended: they are either right in the other copy, or belong to a record that is right in none.
///
/// The last record may come from a write that failed, or was in flight when the process ended. Being readable does not make it durable,
/// and a sync that succeeds need not cover what an earlier one reported as failed. So it is written again before another record follows.
fn mend(disk: &mut dyn Disk, file: FileId, image: &Image, analysis: &Analysis) -> io::Result<()> {
    let mut expected = analysis.expected.clone();
    let last_record = analysis.last_record_at as usize..expected.len();
    expected.resize(image.bytes.len(), 0);
    let mut mended = false;
    for (i, (here, right)) in image.bytes.chunks(BLOCK_BYTES).zip(expected.chunks(BLOCK_BYTES)).enumerate() {
        let at = i * BLOCK_BYTES;
        if here != right || last_record.contains(&at) {
            disk.write_at(file, at as u64, right)?;
            mended = true;
        }
    }
    if mended { disk.sync_file(file) } else { Ok(()) }
}

/// Makes a copy anew. On a full disk that has no space for another file, it is written where it is: the other copy is whole.
fn replace(
    disk: &mut dyn Disk,
    path: &Path,
    image: Option<&Image>,
    analysis: &Analysis,
) -> io::Result<FileId> {
    let full = match disk.replace_file(path, &analysis.expected, analysis.file_bytes) {
        Err(e) if is_out_of_space(&e) => e,
        other => return other,
    };
    let Some(image) = image.filter(|image| image.bytes.len() as u64 == analysis.file_bytes) else {
        return Err(full);
    };
    let file = disk.open(path, OpenMode::ReadWrite)?;
    mend(disk, file, image, analysis)?;
    Ok(file)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StateLogError + use<'_> {
    move |error| StateLogError::Io { path: path.to_path_buf(), error }
}

fn display(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn lost_error(lost: Lost, paths: [PathBuf; 2], owner: Owner) -> StateLogError {
    let [a, b] = paths;
    match lost {
        Lost::New => unreachable!("a new log is made, not refused"),
        Lost::Newer(version) => StateLogError::Newer { path: a, version },
        Lost::Content(why) => StateLogError::Damaged { a, b, why },
        Lost::Headers([fa, fb]) => match (fa, fb) {
            (HeaderFault::Cluster(found), _) => {
                StateLogError::OtherCluster { path: a, found, expected: owner.cluster }
            }
            (_, HeaderFault::Cluster(found)) => {
                StateLogError::OtherCluster { path: b, found, expected: owner.cluster }
            }
            (HeaderFault::Purpose(found), _) => StateLogError::OtherPurpose { path: a, found },
            (_, HeaderFault::Purpose(found)) => StateLogError::OtherPurpose { path: b, found },
            (HeaderFault::Number(found), _) => {
                StateLogError::OtherStore { path: a, found, expected: owner.number }
            }
            (_, HeaderFault::Number(found)) => {
                StateLogError::OtherStore { path: b, found, expected: owner.number }
            }
            (fa, fb) => {
                StateLogError::Damaged { why: format!("{}: {fa}; {}: {fb}", display(&a), display(&b)), a, b }
            }
        },
    }
}

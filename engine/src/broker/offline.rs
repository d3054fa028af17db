//! Access to the data of a stopped broker, for tools. Never writes; [`repair`](crate::repair) does.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;

use highwater_protocol::ids::TopicId;
use highwater_runtime::fs::Fs;
use highwater_storage::inspect;

use crate::broker::lock::lock_patiently;
use crate::data_dir::{self, LOCK, META, failed};
use crate::meta::Metadata;
use crate::start_error::StartError;

/// A lock that prevents brokers from using a data directory until it is dropped.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "locked until it is dropped")] Option<File>);

/// Locks a data directory against brokers. A directory without a lock file was never used by a broker.
pub fn lock(data_dir: &Path) -> Result<DirLock, StartError> {
    let path = data_dir.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(DirLock(None)),
        Err(e) => return Err(failed("cannot open", &path, &e)),
    };
    match lock_patiently(&file) {
        Ok(()) => Ok(DirLock(Some(file))),
        Err(TryLockError::WouldBlock) => Err(StartError::Locked(format!(
            "a broker runs on {}; stop it to inspect its logs",
            data_dir.display()
        ))),
        Err(TryLockError::Error(e)) => Err(StartError::Disk(format!("cannot lock {}: {e}", path.display()))),
    }
}

/// Returns the names of the topics, or why they cannot be read.
pub fn topic_names(fs: &mut dyn Fs, data_dir: &Path) -> Result<BTreeMap<TopicId, String>, String> {
    let content = inspect::state_log_content(fs, &data_dir.join(META))?;
    let records = content.records.iter().map(AsRef::as_ref);
    let snapshot = content.snapshot.iter().map(|piece| &piece[..]);
    let node = data_dir::node_of(fs, data_dir);
    let metadata = Metadata::recover(node, snapshot, records).map_err(|e| e.to_string())?;
    Ok(metadata.topics().map(|topic| (topic.id, topic.name.clone())).collect())
}

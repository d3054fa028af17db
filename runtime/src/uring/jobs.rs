//! File jobs: slow work on file names and on the space of files, done by one thread for all shards.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::mesh::Doorbells;
use crate::osfs::{
    OpenFile, allocate_range, create_file, prepare_file, publish_file, punch_heads, punch_range, remove_file,
    replace_file,
};
use crate::plane::{FileJob, ShardIndex, Token};

/// A job for the file thread.
pub(crate) enum Job {
    /// A job of a shard, which waits for its result.
    Work { shard: ShardIndex, token: Token, work: FileJob },
    /// Drops a file. Closing the last handle of a file without a name frees its space, which may wait for the file system's journal.
    Close(Arc<OpenFile>),
}

/// Result of a job.
pub(super) enum JobResult {
    Created(io::Result<OpenFile>),
    Replaced(io::Result<OpenFile>),
    Prepared(io::Result<OpenFile>),
    Published(io::Result<()>),
    Removed(io::Result<()>),
    Punched(io::Result<()>),
    Allocated(io::Result<()>),
}

/// A completed job.
pub(super) struct JobDone {
    pub(super) token: Token,
    pub(super) result: JobResult,
}

/// Starts the file thread, which ends when the last sender is dropped.
pub(crate) fn spawn(doorbells: Doorbells) -> io::Result<(Sender<Job>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("hw-files".into()).spawn(move || work(&receiver, &doorbells))?;
    Ok((sender, thread))
}

fn work(jobs: &Receiver<Job>, doorbells: &Doorbells) {
    for job in jobs {
        let (shard, token, work) = match job {
            Job::Work { shard, token, work } => (shard, token, work),
            Job::Close(file) => {
                drop(file);
                continue;
            }
        };
        let result = match &work {
            FileJob::Create { path, bytes } => JobResult::Created(create_file(path, *bytes)),
            FileJob::Replace { path, content, bytes } => {
                let content: Vec<&[u8]> = content.iter().map(|piece| &piece[..]).collect();
                JobResult::Replaced(replace_file(path, &content, *bytes))
            }
            FileJob::Prepare { path, content, bytes } => {
                let content: Vec<&[u8]> = content.iter().map(|piece| &piece[..]).collect();
                JobResult::Prepared(prepare_file(path, &content, *bytes))
            }
            FileJob::Publish { path } => JobResult::Published(publish_file(path)),
            FileJob::Remove { path } => JobResult::Removed(remove_file(path)),
            FileJob::Punch { path, at, bytes } => JobResult::Punched(punch_range(path, *at, *bytes)),
            FileJob::PunchHeads { path, at, bytes, every, head_bytes } => {
                JobResult::Punched(punch_heads(path, *at, *bytes, *every, *head_bytes))
            }
            FileJob::Allocate { path, at, bytes } => JobResult::Allocated(allocate_range(path, *at, *bytes)),
        };
        doorbells[usize::from(shard)].job_done(JobDone { token, result });
    }
}

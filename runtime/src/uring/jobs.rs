//! File jobs: slow work on file names, done by one thread for all shards.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::mesh::Doorbells;
use crate::osfs::{OpenFile, create_file, prepare_file, publish_file, remove_file, replace_file};
use crate::plane::{FileJob, ShardIndex, Token};

/// A job for the file thread.
pub(crate) struct Job {
    pub(super) shard: ShardIndex,
    pub(super) token: Token,
    pub(super) work: FileJob,
}

/// Result of a job.
pub(super) enum JobResult {
    Created(io::Result<OpenFile>),
    Replaced(io::Result<OpenFile>),
    Prepared(io::Result<OpenFile>),
    Published(io::Result<()>),
    Removed(io::Result<()>),
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
    for Job { shard, token, work } in jobs {
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
        };
        doorbells[usize::from(shard)].job_done(JobDone { token, result });
    }
}

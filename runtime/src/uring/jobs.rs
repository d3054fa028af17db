//! File jobs: slow work on names, done by one thread for all shards.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::mesh::Bells;
use crate::osfs::{OpenFile, create_file, remove_file, replace_file};
use crate::plane::{FileJob, ShardIndex, Token};

/// A job on its way to the thread.
pub(crate) struct Job {
    pub(super) shard: ShardIndex,
    pub(super) token: Token,
    pub(super) work: FileJob,
}

/// What came of a job.
pub(super) enum JobResult {
    Created(io::Result<OpenFile>),
    Replaced(io::Result<OpenFile>),
    Removed(io::Result<()>),
}

/// A job's result on its way back.
pub(super) struct JobDone {
    pub(super) token: Token,
    pub(super) result: JobResult,
}

/// Starts the thread. It ends when the last sender is gone.
pub(crate) fn spawn(bells: Bells) -> io::Result<(Sender<Job>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("hw-files".into()).spawn(move || work(&receiver, &bells))?;
    Ok((sender, thread))
}

fn work(jobs: &Receiver<Job>, bells: &Bells) {
    for Job { shard, token, work } in jobs {
        let result = match &work {
            FileJob::Create { path, bytes } => JobResult::Created(create_file(path, *bytes)),
            FileJob::Replace { path, content, bytes } => {
                JobResult::Replaced(replace_file(path, content, *bytes))
            }
            FileJob::Remove { path } => JobResult::Removed(remove_file(path)),
        };
        bells[usize::from(shard)].job_done(JobDone { token, result });
    }
}

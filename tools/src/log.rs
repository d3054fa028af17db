//! `log`: inspects the data directory of a stopped broker, and repairs it.

mod dump;
mod list;
mod repair;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;

use highwater_engine::offline::{self, DirLock};
use highwater_protocol::ids::{PartitionIndex, TopicId, TopicPartition};
use highwater_protocol::text::with_topic_names;
use highwater_runtime::OsFs;
use highwater_storage::inspect;

use crate::cli::{DataArgs, LogCommand};
use crate::failure::Failure;

/// Runs a subcommand of `log`.
pub(crate) fn run(command: LogCommand) -> Result<(), Failure> {
    match command {
        LogCommand::Ls { extents, json, data } => {
            let data = Data::open(&data)?;
            let listing = inspect::list(&mut OsFs::new(), data.dir).map_err(Failure::general)?;
            if extents {
                list::extents(&data, &listing, json)
            } else {
                list::partitions(&data, &listing, json)
            }
        }
        LogCommand::Dump { topic, partition, from, limit, json, data } => {
            let data = Data::open(&data)?;
            let tp = TopicPartition { topic: data.topic(&topic)?, partition: PartitionIndex(partition) };
            dump::run(&data, tp, from, limit.unwrap_or(u64::MAX), json)
        }
        LogCommand::Repair(args) => repair::run(&args),
        LogCommand::Verify { json, data } => verify::run(&Data::open(&data)?, json),
    }
}

/// A data directory, locked against brokers while this value exists.
struct Data<'a> {
    dir: &'a Path,
    names: BTreeMap<TopicId, String>,
    _lock: DirLock,
}

impl<'a> Data<'a> {
    fn open(args: &'a DataArgs) -> Result<Self, Failure> {
        let dir = args.data_dir.as_path();
        let lock = offline::lock(dir)
            .map_err(|e| Failure::Message { code: e.exit_code(), message: e.to_string() })?;
        let names = offline::topic_names(&mut OsFs::new(), dir).unwrap_or_else(|e| {
            // Topics are then shown by their ids.
            tracing::warn!("cannot read the names of topics: {e}");
            BTreeMap::new()
        });
        Ok(Self { dir, names, _lock: lock })
    }

    /// Returns a topic's name, or its id if it was deleted.
    fn name(&self, topic: TopicId) -> String {
        self.names.get(&topic).cloned().unwrap_or_else(|| topic.to_string())
    }

    /// Returns a text with the names of topics instead of their ids.
    fn with_names(&self, text: &str) -> String {
        with_topic_names(text, |id| self.names.get(&id).cloned())
    }

    /// Finds a topic by name or id.
    fn topic(&self, text: &str) -> Result<TopicId, Failure> {
        let named = self.names.iter().find(|(_, name)| *name == text).map(|(id, _)| *id);
        if let Some(id) = named.or_else(|| text.parse().ok()) {
            return Ok(id);
        }
        // If this is not a data directory, report that instead.
        inspect::list(&mut OsFs::new(), self.dir).map_err(Failure::general)?;
        Err(Failure::general(format_args!(
            "{}: there is no topic with the name or id {text}; `highwater log ls` lists the topics",
            self.dir.display()
        )))
    }

    /// Returns a path relative to the data directory.
    fn relative_path(&self, path: &Path) -> String {
        path.strip_prefix(self.dir).unwrap_or(path).display().to_string()
    }
}

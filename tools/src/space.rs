//! `space`: how much of the disk a broker's logs take, and the return of free space to the file system.

use highwater_client::Client;
use serde::Serialize;

use crate::cli::SpaceCommand;
use crate::failure::Failure;
use crate::output;
use crate::session::with_client;
use crate::units::readable_bytes;

/// The space of a broker's logs, in bytes.
#[derive(Serialize)]
struct Space {
    /// Size of the files.
    size: u64,
    /// What records take.
    used: u64,
    /// What is kept for new records.
    free: u64,
    /// What is free and takes no space on the disk.
    returned: u64,
    /// What the files take on the disk.
    on_disk: u64,
}

/// Runs a subcommand.
pub(crate) fn run(command: SpaceCommand) -> Result<(), Failure> {
    match command {
        SpaceCommand::Show { json, server } => with_client(&server, |client| async move {
            let space = fetch(&client).await?;
            if json { output::print_json(&space) } else { output::print(&space.to_text()) }
        }),
        SpaceCommand::Release { keep, server } => with_client(&server, |client| async move {
            client.release_space(keep.0).await.map_err(Failure::general)?;
            let free = readable_bytes(fetch(&client).await?.free);
            output::print(&format!(
                "{free} are free; the broker returns what it does not keep to the file system, in the background\n"
            ))
        }),
    }
}

async fn fetch(client: &Client) -> Result<Space, Failure> {
    let stats = client.stats().await.map_err(Failure::general)?;
    let total = |name: &str| stats.total(name).unwrap_or(0);
    let (size, unused, returned) =
        (total("disk.slabs.now"), total("disk.slabs.free.now"), total("disk.slabs.punched.now"));
    // The counters of the shards are not read at the same moment.
    Ok(Space {
        size,
        used: size.saturating_sub(unused),
        free: unused.saturating_sub(returned),
        returned,
        on_disk: size.saturating_sub(returned),
    })
}

impl Space {
    fn to_text(&self) -> String {
        let row = |what: &str, bytes: u64, which: &str| {
            vec![what.to_owned(), readable_bytes(bytes), which.to_owned()]
        };
        output::table(&[
            row("on disk", self.on_disk, "what the files for logs take"),
            row("used", self.used, "by records"),
            row("free", self.free, "kept for new records"),
            row("returned", self.returned, "free, and returned to the file system"),
        ])
    }
}

//! `group`: lists, describes and deletes groups.

mod describe;
mod seek;

use highwater_client::Client;
use serde::Serialize;

use crate::cli::GroupCommand;
use crate::failure::Failure;
use crate::names;
use crate::output::{self, Descriptions};
use crate::session::with_client;

use describe::describe;

/// Runs a subcommand of `group`.
pub(crate) fn run(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List { json, server } => {
            with_client(&server, |client| async move { list(&client, json).await })
        }
        GroupCommand::Describe { group, json, server } => with_client(&server, |client| async move {
            let mut descriptions = Descriptions::new(json);
            names::for_each(&group, async |group| {
                let described = describe(&client, group).await?;
                descriptions.print(&described, || described.to_text())
            })
            .await
        }),
        GroupCommand::Seek(args) => seek::run(&args),
        GroupCommand::Delete { group, server } => with_client(&server, |client| async move {
            names::for_each(&group, async |group| {
                client.delete_group(group).await.map_err(|e| Failure::group(group, &e))?;
                output::print(&format!("deleted {group}\n"))
            })
            .await
        }),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    group: &'a str,
    protocol: &'a str,
    state: &'a str,
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let groups = client.list_groups().await.map_err(Failure::general)?;
    if json {
        for group in &groups {
            output::print_json(&Listed {
                group: &group.name,
                protocol: &group.protocol,
                state: &group.state,
            })?;
        }
        return Ok(());
    }
    let mut rows = vec![["GROUP", "PROTOCOL", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(groups.into_iter().map(|group| vec![group.name, group.protocol, group.state]));
    output::print(&output::table(&rows))
}

//! A client for the time of one command.

use std::future::Future;

use highwater_client::Client;

use crate::cli::ServerArgs;
use crate::connection::{tell_of_events, tell_of_resets};
use crate::failure::Failure;

/// Connects and does something with the client, on this thread.
pub(crate) fn with_client<F>(server: &ServerArgs, job: impl FnOnce(Client) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    run(&mut tokio::runtime::Builder::new_current_thread(), server, job)
}

/// As [`with_client`], with a thread beside this one that keeps the client going while this one is held up by something else.
pub(crate) fn with_client_beside<F>(server: &ServerArgs, job: impl FnOnce(Client) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    run(tokio::runtime::Builder::new_multi_thread().worker_threads(1), server, job)
}

fn run<F>(
    runtime: &mut tokio::runtime::Builder,
    server: &ServerArgs,
    job: impl FnOnce(Client) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime =
        runtime.enable_all().build().map_err(|e| Failure::general(format_args!("cannot start: {e}")))?;
    runtime.block_on(async {
        let client = Client::builder().bootstrap(&server.server).name("highwater").connect();
        let client = client.await.map_err(Failure::general)?;
        let mut events = client.events();
        let outcome = tokio::select! {
            biased;
            outcome = job(client) => outcome,
            never = tell_of_events(&mut events) => match never {},
        };
        tell_of_resets(&mut events).await;
        outcome
    })
}

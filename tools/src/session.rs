//! Runs a command with a connected client.

use std::future::Future;

use highwater_client::Client;

use crate::cli::ServerArgs;
use crate::connection::{print_events, print_queued_resets};
use crate::failure::Failure;

/// Connects a client and runs `job` with it. The client runs on this thread.
pub(crate) fn with_client<F>(server: &ServerArgs, job: impl FnOnce(Client) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    run(&mut tokio::runtime::Builder::new_current_thread(), server, job)
}

/// Like [`with_client`], but the client runs on its own thread, so that it makes progress even while `job` blocks.
pub(crate) fn with_client_on_own_thread<F>(
    server: &ServerArgs,
    job: impl FnOnce(Client) -> F,
) -> Result<(), Failure>
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
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|e| Failure::general(format_args!("cannot start the async runtime: {e}")))?;
    runtime.block_on(async {
        let client = Client::builder().bootstrap(&server.server).name("highwater").connect();
        let client = client.await.map_err(Failure::general)?;
        let mut events = client.events();
        let outcome = tokio::select! {
            biased;
            outcome = job(client) => outcome,
            never = print_events(&mut events) => match never {},
        };
        print_queued_resets(&mut events).await;
        outcome
    })
}

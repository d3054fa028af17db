//! A client for the time of one command.

use std::future::Future;

use highwater_client::Client;

use crate::cli::ServerArgs;
use crate::failure::Failure;

/// Connects and does something with the client, on this thread.
pub(crate) fn with_client<F>(server: &ServerArgs, job: impl FnOnce(Client) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::general(format_args!("cannot start: {e}")))?;
    runtime.block_on(async {
        let client = Client::builder().bootstrap(&server.server).name("highwater").connect();
        job(client.await.map_err(Failure::general)?).await
    })
}

//! SIGINT and SIGTERM: the first asks, the second ends.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use crate::fault::Exit;

/// Cancels `shutdown` at the first signal, and ends the process at the second.
pub(super) fn watch(shutdown: CancellationToken) -> Result<(), Failure> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if shutdown.is_cancelled() {
                tracing::warn!(signal = name, "ending at once; nothing that is confirmed is lost");
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
            tracing::info!(signal = name, "stopping; a second signal ends at once");
            shutdown.cancel();
        }
    });
    Ok(())
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|source| Failure::Machine { action: "receive signals", source })
}

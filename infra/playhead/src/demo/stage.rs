//! The frame of every demo: starts a local cloud, runs the demo on it, shows the result, stays up
//! until Ctrl-C, and stops the cloud.

use super::Args;
use super::print::invite;
use anyhow::{Result, anyhow, bail};
use live::Page;
use local::{LocalOptions, LocalRegions, Progress};
use operate::Endpoints;
use serde::Serialize;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The result of a demo.
pub(super) trait Proof: Serialize {
    /// Prints it for people.
    fn print(&self, endpoints: &Endpoints);

    /// Whether everything that the demo promises holds.
    fn holds(&self) -> bool;

    /// A profile with a history, to try the API with.
    fn profile(&self) -> Option<&str> {
        None
    }
}

/// Runs `play` on a local cloud. It gets the endpoints, and how long the start took. The exit
/// status is 0 only if its proof holds.
///
/// # Errors
/// If the cloud does not start or stop, `play` fails, or a signal or a broken cloud ends it early.
pub(super) async fn run<P: Proof>(
    mut options: LocalOptions,
    args: &Args,
    progress: &Progress,
    play: impl AsyncFnOnce(&Endpoints, Duration) -> Result<P>,
) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let page = Page::bind().await?;
    options.live_page = Some(page.url());
    // Viewers and faults of others would spoil the proof.
    let lock = page.lock();
    lock.send_replace(Some("the demo counts what its own viewers send"));
    let began = Instant::now();
    let started = tokio::select! {
        started = LocalRegions::start(options, progress) => started,
        _ = interrupt.recv() => bail!("interrupted: the demo did not start"),
        _ = terminate.recv() => bail!("terminated: the demo did not start"),
    };
    let mut cloud = started?;
    let endpoints = cloud.endpoints().clone();
    progress.step(format!("Live page: {}", page.url()));
    let mut attending = Box::pin(page.attend(&mut cloud));
    let played = tokio::select! {
        played = play(&endpoints, began.elapsed()) => played,
        reason = &mut attending => Err(reason),
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    if let Ok(proof) = &played {
        match args.json {
            true => println!("{}", serde_json::to_string(proof)?),
            false => proof.print(&endpoints),
        }
        if !args.exit {
            lock.send_replace(None);
            invite(&endpoints, proof.profile())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                reason = &mut attending => eprintln!("{reason:#}"),
            }
        }
    }
    drop(attending);
    progress.step("Stopping");
    let stopped = cloud.stop().await;
    progress.finish();
    let proof = played?;
    stopped?;
    Ok(if proof.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! The live page of the local cloud: the pipeline as a picture with its figures, a player whose
//! events travel through it, and controls that make parts of it fail and work again.
//!
//! | module | what |
//! |---|---|
//! | `server` | HTTP on the loopback interface: the page, its events, its controls |
//! | `guard` | who may ask: only a browser that opened this page |
//! | `follow` | reads the books and the queues while somebody looks |
//! | `snapshot` | what a browser gets once a second, and its arithmetic. Pure |
//! | `traffic` | simulated viewers in the background |
//! | `control` | what the controls mean, and carrying them out |
//!
//! Every figure is one that the cloud counts itself: the metrics in the functions' logs, the
//! pollers' counters, the queues' depths, the simulator's attempts. Nothing here is part of the
//! pipeline, and nothing is read while no browser is connected.

mod control;
mod follow;
mod guard;
mod parts;
mod server;
mod shared;
mod snapshot;
mod traffic;

use self::control::Order;
use self::shared::Shared;
use anyhow::{Context as _, Result};
use local::command::asked_to_end;
use local::{LocalOptions, LocalRegions, Progress};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How often the parts of the cloud are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The page before its cloud runs. Its port is taken, so its URL can be published with the cloud.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    port: u16,
    locked: watch::Sender<Option<&'static str>>,
}

impl Page {
    /// Takes a port of the loopback interface.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn bind() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port for the live page")?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port, locked: watch::Sender::new(None) })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The lock of its controls, and of its viewers. The page shows the reason while they are
    /// locked.
    #[must_use]
    pub fn lock(&self) -> watch::Sender<Option<&'static str>> {
        self.locked.clone()
    }

    /// Serves the page until a part of the cloud fails for good. Returns why.
    pub async fn attend(self, cloud: &mut LocalRegions) -> anyhow::Error {
        match self.serve(cloud).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn serve(self, cloud: &mut LocalRegions) -> Result<std::convert::Infallible> {
        let (orders, mut received) = mpsc::channel::<Order>(16);
        let shared = Arc::new(Shared::new(cloud.endpoints().clone(), self.locked.subscribe(), orders));
        shared.see(parts::look(cloud)?);
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(self.listener, self.port, Arc::clone(&shared)));
        tasks.spawn(follow::follow(Arc::clone(&shared)));
        tasks.spawn(traffic::play(Arc::clone(&shared)));
        loop {
            tokio::select! {
                Some(order) = received.recv() => order.carry_out(cloud, &shared).await,
                Some(ended) = tasks.join_next() => ended.context("the live page panicked")?.context("the live page")?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            shared.see(parts::look(cloud)?);
        }
    }
}

/// Runs the local cloud with its page in the foreground, until Ctrl-C or SIGTERM.
///
/// # Errors
/// If the cloud does not start or stop, or the emulator ends by itself.
pub async fn serve(mut options: LocalOptions) -> Result<ExitCode> {
    // Ignore SIGHUP: closing the terminal must not stop the cloud.
    let _hangup = signal(SignalKind::hangup())?;
    let page = Page::bind().await?;
    options.live_page = Some(page.url());
    let progress = Progress::new();
    let mut cloud = tokio::select! {
        cloud = LocalRegions::start(options, &progress) => cloud?,
        signal = asked_to_end() => {
            signal?;
            eprintln!("Stopped before it was up.");
            return Ok(ExitCode::SUCCESS);
        }
    };
    eprintln!("The local cloud is up: {}", page.url());
    let failed = tokio::select! {
        error = page.attend(&mut cloud) => Some(error),
        signal = asked_to_end() => {
            signal?;
            None
        }
    };
    progress.step("Stopping the local cloud");
    let stopped = cloud.stop().await;
    progress.finish();
    match failed {
        Some(error) => Err(error.context("a part of the local cloud failed")),
        None => stopped.map(|()| ExitCode::SUCCESS),
    }
}

//! Ctrl-C and SIGTERM as a flag that is checked between two steps. So no step is cut off.

use anyhow::Result;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The exit status of an interrupted program, by the shells' convention.
pub(super) const INTERRUPTED: u8 = 130;

/// Tells whether the user asked to stop.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Starts to listen. The second signal ends the process at once.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub(super) fn listen() -> Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (asked, ask) = watch::channel(false);
        tokio::spawn(async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if asked.send_replace(true) {
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        });
        Ok(Self(ask))
    }

    pub(super) fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for this time, or until asked to stop.
    pub(super) async fn sleep(&mut self, time: Duration) {
        let asked = async {
            if self.0.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await; // the sender is gone: nobody can ask any more
            }
        };
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = asked => {}
        }
    }
}

#[cfg(test)]
impl Interrupt {
    /// An interrupt that the sender triggers.
    pub(super) fn by_hand() -> (watch::Sender<bool>, Self) {
        let (asked, ask) = watch::channel(false);
        (asked, Self(ask))
    }
}

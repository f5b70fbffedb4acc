//! Ctrl-C and SIGTERM as something that is looked at between two steps, so that no step is cut off.

use anyhow::Result;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What a shell calls the exit status of a program that was interrupted.
pub(super) const INTERRUPTED: u8 = 130;

/// Whether we were asked to stop.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on. Asked a second time, the process ends at once.
    ///
    /// # Errors
    /// If signals cannot be listened to.
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

    /// Waits so long, or until asked to stop.
    pub(super) async fn sleep(&mut self, time: Duration) {
        let asked = async {
            if self.0.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await; // nobody is left to ask
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
    /// One that is asked by the sender.
    pub(super) fn by_hand() -> (watch::Sender<bool>, Self) {
        let (asked, ask) = watch::channel(false);
        (asked, Self(ask))
    }
}

//! End to end, golden, template and fault tests on the local cloud; here is what several of them need.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod functions;
pub mod measure;
pub mod proxy;

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks until there is something.
///
/// # Errors
/// If looking fails, or there is nothing within `patience`.
pub async fn within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "waited {} s in vain for {what}", patience.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

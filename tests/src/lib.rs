//! What several of the end-to-end, golden, template and fault tests share.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod measure;
pub mod queues;
pub mod sample;
pub mod suite;

use std::env::{self, VarError};
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Calls `look` until it finds something.
///
/// # Errors
/// If `look` fails, or finds nothing within `patience`.
pub async fn within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "gave up after {} s of waiting for {what}", patience.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether to run tests of `product` that are only run on request: the variable `switch` is `1`.
///
/// # Panics
/// If the variable has another value. A misspelled switch must not look like a test that passed.
#[must_use]
#[allow(clippy::panic, reason = "a test fails by panicking")]
pub fn opted_in(switch: &str, product: &str) -> bool {
    match env::var(switch) {
        Ok(value) if value == "1" => true,
        Err(VarError::NotPresent) => {
            // Written directly, because the test harness captures what passing tests print.
            let hint = format!("to run it on {product}, set {switch}=1");
            let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {hint}. ***\n");
            false
        }
        other => panic!("{switch} is {other:?}: set it to 1, or leave it unset to skip {product}"),
    }
}

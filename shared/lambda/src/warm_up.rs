//! Warm-up: what would make the first invocation slow, done during init, where nobody waits for it.
//!
//! A warm-up is a favour, not a condition: one that fails or takes too long is logged and the function serves anyway,
//! since whatever it wanted to reach is reached for again when it is needed.

use std::fmt::Display;
use std::time::Duration;

/// How long init should wait for a warm-up. Lambda gives init ten seconds.
pub const BOUND: Duration = Duration::from_secs(3);

/// Runs `warming` for at most `bound` (usually [`BOUND`]). Run several at once with `tokio::join!`.
pub async fn warm_up<T, E: Display>(what: &'static str, bound: Duration, warming: impl Future<Output = Result<T, E>>) {
    match tokio::time::timeout(bound, warming).await {
        Ok(Ok(_)) => tracing::debug!(what, "warm"),
        Ok(Err(error)) => tracing::warn!(what, %error, "could not be warmed up; going on"),
        Err(_) => tracing::warn!(what, bound_s = bound.as_secs_f64(), "took too long to warm up; going on"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_warm_up_that_fails_or_hangs_does_not_stop_the_function() {
        let mut warmed = false;
        let warming = async {
            warmed = true;
            Ok::<_, Infallible>(())
        };
        warm_up("a table", BOUND, warming).await;
        assert!(warmed);
        warm_up("a table", BOUND, async { Err::<(), _>("away") }).await;
        warm_up("a table", Duration::ZERO, std::future::pending::<Result<(), Infallible>>()).await;
    }
}

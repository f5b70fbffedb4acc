//! Warm-up: work that would slow the first invocation, done during init, when nobody waits for it.
//!
//! A warm-up is optional. If it fails or takes too long, that is logged and the function serves
//! anyway: the first invocation does the work when it needs it.

use std::fmt::Display;
use std::time::Duration;

/// How long init should wait for a warm-up. Lambda gives init ten seconds.
pub const BOUND: Duration = Duration::from_secs(3);

/// Runs `warming` for at most `bound` (usually [`BOUND`]). Run several at once with `tokio::join!`.
pub async fn warm_up<T, E: Display>(what: &'static str, bound: Duration, warming: impl Future<Output = Result<T, E>>) {
    match tokio::time::timeout(bound, warming).await {
        Ok(Ok(_)) => tracing::debug!(what, "warm"),
        Ok(Err(error)) => tracing::warn!(what, %error, "the warm-up failed; starting anyway"),
        Err(_) => tracing::warn!(what, bound_s = bound.as_secs_f64(), "the warm-up took too long; starting anyway"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn failed_or_hanging_warm_up_does_not_stop_the_function() {
        let mut warmed = false;
        let warming = async {
            warmed = true;
            Ok::<_, Infallible>(())
        };
        warm_up("a table", BOUND, warming).await;
        assert!(warmed);
        warm_up("a table", BOUND, async { Err::<(), _>("unreachable") }).await;
        warm_up("a table", Duration::ZERO, std::future::pending::<Result<(), Infallible>>()).await;
    }
}

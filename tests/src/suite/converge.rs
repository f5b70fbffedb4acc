//! Waiting until nothing is in flight any more.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// Something that converges, and what it is when it has.
pub trait Converging {
    /// What there is at the end.
    type End;
    /// What is still in flight after that long is lost.
    const PATIENCE: Duration;
    /// Between two looks.
    const LOOK_EVERY: Duration;

    /// Counts what is in flight, which is cheap. Names it in words.
    fn count(&mut self, in_flight: &mut Vec<String>) -> impl Future<Output = Result<()>>;

    /// Reads everything, which is not. Names what differs from what it must be.
    fn look(&mut self, in_flight: &mut Vec<String>) -> impl Future<Output = Result<Self::End>>;
}

/// What there is when nothing is in flight any more, or when patience has ended.
#[derive(Debug)]
pub struct Converged<T> {
    /// How long it took.
    pub took: Duration,
    /// What was still in flight when patience ended; empty if all has converged.
    pub in_flight: Vec<String>,
    /// What there is.
    pub end: T,
}

/// Waits until nothing is in flight, or patience ends.
///
/// # Errors
/// If something cannot be read.
pub async fn converge<C: Converging>(mut converging: C) -> Result<Converged<C::End>> {
    let began = Instant::now();
    loop {
        let mut in_flight = Vec::new();
        converging.count(&mut in_flight).await?;
        let patient = began.elapsed() < C::PATIENCE;
        if in_flight.is_empty() || !patient {
            let end = converging.look(&mut in_flight).await?;
            if in_flight.is_empty() || !patient {
                return Ok(Converged { took: began.elapsed(), in_flight, end });
            }
        }
        tokio::time::sleep(C::LOOK_EVERY).await;
    }
}

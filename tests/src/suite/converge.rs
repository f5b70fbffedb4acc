//! Waits until nothing is in flight any more.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

/// Something that converges to a final state.
pub trait Converging {
    /// The final state.
    type End;
    /// The pause between two looks.
    const LOOK_EVERY: Duration;

    /// What is still in flight after this time is lost.
    fn patience(&self) -> Duration;

    /// Counts what is in flight, which is cheap, and describes it in words.
    fn count(&mut self, in_flight: &mut Vec<String>) -> impl Future<Output = Result<()>>;

    /// Reads everything, which is expensive, and describes what is not yet as it must be.
    fn look(&mut self, in_flight: &mut Vec<String>) -> impl Future<Output = Result<Self::End>>;
}

/// The state when nothing is in flight any more, or when patience has run out.
#[derive(Debug)]
pub struct Converged<T> {
    /// How long it took.
    pub took: Duration,
    /// What was still in flight when patience ran out; empty if everything converged.
    pub in_flight: Vec<String>,
    /// The final state.
    pub end: T,
}

/// Waits until nothing is in flight, or patience runs out.
///
/// # Errors
/// If something cannot be read.
pub async fn converge<C: Converging>(mut converging: C) -> Result<Converged<C::End>> {
    let began = Instant::now();
    loop {
        let mut in_flight = Vec::new();
        converging.count(&mut in_flight).await?;
        let patient = began.elapsed() < converging.patience();
        if in_flight.is_empty() || !patient {
            let end = converging.look(&mut in_flight).await?;
            if in_flight.is_empty() || !patient {
                return Ok(Converged { took: began.elapsed(), in_flight, end });
            }
        }
        tokio::time::sleep(C::LOOK_EVERY).await;
    }
}

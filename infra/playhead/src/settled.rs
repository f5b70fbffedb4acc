//! Waits until nothing is in flight, by the books of all regions.

use anyhow::Result;
use local::Progress;
use operate::Endpoints;
use operate::books::{Books, Reader};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The final books of all regions.
pub(crate) struct Accounts {
    /// One per region.
    pub(crate) books: Vec<Books>,
    /// When they last changed.
    pub(crate) at: Instant,
}

/// Waits until the books have all events that devices know as accepted, and nothing is in flight in
/// or between regions. Gives up when the books have not changed for `standstill`. "Nothing in flight" alone is not
/// enough: the counts of `process` may arrive before those of `ingest`.
///
/// # Errors
/// If the books cannot be read.
pub(crate) async fn settled(
    endpoints: &Endpoints,
    accepted: u64,
    standstill: Duration,
    progress: &Progress,
) -> Result<Accounts> {
    let mut readers: Vec<Reader> = endpoints.regions().map(Reader::new).collect();
    let mut last = Vec::new();
    let mut at = Instant::now();
    loop {
        let mut books = Vec::with_capacity(readers.len());
        for reader in &mut readers {
            books.push(reader.catch_up().await?.clone());
        }
        let all = sum(&books);
        let in_flight = all.in_flight() + all.between_regions().cast_signed();
        progress.detail(format!("{} of {} events done", all.accepted.cast_signed() - in_flight, all.accepted));
        let still = books == last;
        if !still {
            (last, at) = (books, Instant::now());
        }
        if still && ((all.accepted >= accepted && in_flight <= 0) || at.elapsed() > standstill) {
            return Ok(Accounts { books: last, at });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The books of all regions together.
pub(crate) fn sum(books: &[Books]) -> Books {
    let mut all = Books::default();
    books.iter().for_each(|books| all += books);
    all
}

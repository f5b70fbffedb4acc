//! The table `views` in DynamoDB. Items are keyed by profile (`pk`) and sort key.
//!
//! | `sk` | item |
//! |---|---|
//! | `<ULID>#<home>#~<title>` | the view of a title in a session: `version`, `title_id` (for the index), `view` (packed) |
//! | `<ULID>#<home>#<writer>#~<title>` | a part of it that another region folded: the same attributes |
//! | `<ULID>#<home>`, `<ULID>#<home>#<writer>` | as the first release wrote them; only read |
//! | `<ULID>#~hidden` | the member hid this session: `hidden`, `changed_at` |
//! | `<ULID>#~forgotten`, `<ULID>#~forgotten#<title>` | the member forgot this session, or a title of it: `forgotten_at` |
//! | `~erased` | the member erased everything up to `erased_at` |
//! | `~forgotten#<title>` | the member forgot the title up to `forgotten_at` |
//! | `~watched#<title>` | the member marked the title: `watched`, `changed_at` |
//!
//! A view has one writing region. All others are registers, for which the later time wins.

mod browse;
mod change;
mod erase;
mod error;
mod item;
mod member;
mod page;
mod registers;
mod views;
mod write;

pub use browse::{Place, PlacedView, ViewsPage};
pub use change::{Change, Changed, UnreadableChange};
pub use member::MAX_TITLES;
pub use page::{HistoryPage, MAX_PAGE, PageToken, Request};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use playback::session::Home;
use std::time::Duration;
use write::Statements;

/// The views table.
#[derive(Debug, Clone)]
pub struct Views {
    client: Client,
    table: String,
    statements: Statements,
    /// The region that writes here.
    writer: Home,
    /// The clock, Unix milliseconds, for a table whose items say when they were written.
    clock: Option<fn() -> u64>,
}

/// How long after its last write an item expires that has a time of its own.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);

impl Views {
    /// The table `table`, written to by the region `writer`. Each region writes its own items and
    /// reads all. Attempts are few and short, because the caller's batch is redelivered anyway.
    /// Even if every call for a batch of 500 sessions hangs, the answer comes within 45 s, before
    /// `process` times out at 60 s.
    pub fn new(sdk: &aws_config::SdkConfig, table: impl Into<String>, writer: Home) -> Self {
        let config = aws_sdk_dynamodb::config::Builder::from(sdk)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(3)
                    .with_initial_backoff(Duration::from_millis(50))
                    .with_max_backoff(Duration::from_secs(1)),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(1))
                    .operation_attempt_timeout(Duration::from_secs(2))
                    .operation_timeout(Duration::from_secs(5))
                    .build(),
            )
            .build();
        let table = table.into();
        let statements = Statements::of(&table, false);
        Self { client: Client::from_conf(config), table, statements, writer, clock: None }
    }

    /// The same table, whose items say when they were written, by the clock `now` (Unix
    /// milliseconds), and expire [`KEPT_FOR`] after that. For views that are compared and then
    /// needed no more.
    #[must_use]
    pub fn with_write_times(self, now: fn() -> u64) -> Self {
        Self { clock: Some(now), statements: Statements::of(&self.table, true), ..self }
    }

    /// Opens the connection by reading a key that never exists. TLS and credentials are most of a
    /// cold function's first call.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn warm_up(&self) -> Result<(), crate::StoreError> {
        self.erased_at("~warm-up").await.map(|_| ())
    }
}

/// The pause before a round of tries: none before the first, at most `longest` before the second, and
/// up to twice as long each time. It is random, so that callers do not come back together.
async fn pause_before(round: u32, longest: Duration) {
    if let Some(doublings) = round.checked_sub(1) {
        tokio::time::sleep((longest * 2u32.pow(doublings)).mul_f64(rand::random())).await;
    }
}

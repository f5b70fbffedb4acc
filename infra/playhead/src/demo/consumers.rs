//! The consumers of `examples/`, run on the demo's change feed.

use anyhow::Result;
use aws_config::SdkConfig;
use examples::because_you_watched::BecauseYouWatched;
use examples::minutes_watched::MinutesWatched;
use examples::{Feed, Report as _};
use serde::Serialize;
use simulate::expect::Expected;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the feed may take after the books have settled.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many lines of a report are shown.
const LINES: usize = 5;

/// What the consumers made of the feed.
#[derive(Debug, Serialize)]
pub(crate) struct Consumed {
    /// Changes, each counted once.
    pub(crate) changes: usize,
    /// Views that they know.
    pub(crate) views: usize,
    /// Whether each view played as long as expected.
    pub(crate) complete: bool,
    #[serde(skip)]
    pub(crate) minutes_watched: String,
    #[serde(skip)]
    pub(crate) because_you_watched: String,
}

/// Reads the feed until it has told of all expected views, or for [`PATIENCE`].
///
/// # Errors
/// If the feed cannot be read.
pub(crate) async fn consume(sdk: &SdkConfig, stream: &str, expected: &Expected) -> Result<Consumed> {
    let until = Instant::now() + PATIENCE;
    let mut feed = Feed::open(sdk, stream).await?;
    let (mut minutes, mut because) = (MinutesWatched::default(), BecauseYouWatched::default());
    let (mut changes, mut views) = (0, BTreeMap::new());
    let mut complete = false;
    while !complete && Instant::now() < until {
        for change in feed.next().await? {
            changes += 1;
            minutes.take(&change);
            because.take(&change);
            let (of, new) = (change.data, change.kind == "playhead.view.changed");
            if let (Some(session_id), Some(title_id), true) = (of.session_id, of.title_id, new) {
                views.insert((session_id, title_id), of.new.map(|view| view.played_ms));
            }
        }
        complete = expected.views.iter().all(|((_, session_id), view)| {
            let key = (session_id.clone(), view.title_id.clone());
            views.get(&key).copied().flatten().is_some_and(|played| i64::try_from(played) == Ok(view.played_ms))
        });
    }
    let (minutes_watched, because_you_watched) = (minutes.text(LINES), because.text(LINES));
    Ok(Consumed { changes, views: views.len(), complete, minutes_watched, because_you_watched })
}

//! Consumers of the change feed, each on one page: [`minutes_watched`] and [`because_you_watched`].
//! They share how to read the feed, [`Feed`], which is all that a consumer needs to know of it.
//!
//! They depend on nothing of Playhead's, as yours would not.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod because_you_watched;
mod feed;
pub mod minutes_watched;
mod report;

pub use feed::{Change, Data, Feed, Repeats, View};
pub use report::{Report, run};

/// A view: its profile, session and title.
pub type Key = (String, String, String);

/// What both need to know of a change: the view as it is now, or that there is none any more.
fn view_of(change: &Change) -> Option<(Key, Option<&View>)> {
    let Data { profile_id, session_id, title_id, new, .. } = &change.data;
    let key = (profile_id.clone(), session_id.clone()?, title_id.clone()?);
    match change.kind.as_str() {
        "playhead.view.changed" => Some((key, new.as_ref())),
        // What members erase or forget comes as one change for each view.
        "playhead.view.erased" => Some((key, None)),
        _ => None,
    }
}

//! Other regions' parts of a view: a session that was folded in several regions is joined, as
//! readers join it.

use crate::failed;
use futures::stream::{self, StreamExt};
use playback::session::SessionId;
use playback::view::UnreadableView;
use std::collections::BTreeMap;
use store::dynamodb::{Change, Changed, PlacedView, Views};
use store::{Fault, StoreError};
use tokio::time::{Instant, timeout_at};

/// Concurrent reads.
const CONCURRENT_READS: usize = 8;

/// Reads the parts of views.
pub trait Parts: Send + Sync {
    /// All parts of the views of a session, as last written.
    fn of_session(
        &self,
        profile_id: &str,
        session_id: &SessionId,
    ) -> impl Future<Output = Result<Vec<PlacedView>, StoreError>> + Send;
}

impl Parts for Views {
    async fn of_session(&self, profile_id: &str, session_id: &SessionId) -> Result<Vec<PlacedView>, StoreError> {
        self.parts(profile_id, session_id).await
    }
}

/// Joins into each changed view what the table has of it. Returns the places of the changes whose
/// session was not read by then, and why.
///
/// The table is read after the change, so it may be ahead of the stream. What a consumer was told
/// earlier is in it too: views only grow, so a later change never tells less. (`old` of a view with
/// several parts may be ahead for the same reason.)
pub(crate) async fn join(
    parts: &impl Parts,
    changes: &mut [(usize, Change)],
    until: Instant,
) -> Vec<(usize, &'static str)> {
    let mut sessions: BTreeMap<(String, SessionId), Vec<usize>> = BTreeMap::new();
    for (index, (_, change)) in changes.iter().enumerate() {
        if let Changed::View { session_id, new: Some(_), .. } = &change.what {
            sessions.entry((change.profile_id.clone(), session_id.clone())).or_default().push(index);
        }
    }
    // In the batch's order: if time runs out, the batch is shorter when it comes again.
    let mut sessions: Vec<_> = sessions.into_iter().collect();
    sessions.sort_unstable_by_key(|(_, of)| of[0]);
    let read = stream::iter(sessions).map(|((profile_id, session_id), of)| async move {
        (of, timeout_at(until, parts.of_session(&profile_id, &session_id)).await)
    });
    let read: Vec<_> = read.buffer_unordered(CONCURRENT_READS).collect().await;
    let mut failed = Vec::new();
    for (of, result) in read {
        let cause = match result {
            Ok(Ok(stored)) => {
                of.into_iter().for_each(|index| join_one(&mut changes[index].1.what, &stored));
                continue;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the parts of a view could not be read");
                match error.fault {
                    Fault::Unreadable(UnreadableView::Newer(_)) => failed::NEWER_VIEW,
                    _ => failed::STORE_UNAVAILABLE,
                }
            }
            Err(_) => {
                tracing::warn!("the parts of a view were not read in time");
                failed::STORE_UNAVAILABLE
            }
        };
        failed.extend(of.into_iter().map(|index| (changes[index].0, cause)));
    }
    failed
}

fn join_one(what: &mut Changed, stored: &[PlacedView]) {
    let Changed::View { sk, old, new: Some(new), .. } = what else { return };
    let title_id = new.title_id.clone();
    for part in stored.iter().filter(|part| part.view.title_id == title_id) {
        new.merge(&part.view);
        if part.place.sk != *sk {
            match old {
                Some(old) => old.merge(&part.view),
                None => *old = Some(Box::new(part.view.clone())),
            }
        }
    }
}

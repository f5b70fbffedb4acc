//! Other regions' parts of a view: a session that was folded in several regions is joined, as
//! readers join it.

use futures::stream::{self, StreamExt};
use playback::session::SessionId;
use std::collections::BTreeMap;
use store::StoreError;
use store::dynamodb::{Change, Changed, PlacedView, Views};

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
/// session could not be read.
///
/// The table is read after the change, so it may be ahead of the stream. What a consumer was told
/// earlier is in it too: views only grow, so a later change never tells less. (`old` of a view with
/// several parts may be ahead for the same reason.)
pub(crate) async fn join(parts: &impl Parts, changes: &mut [(usize, Change)]) -> Vec<usize> {
    let mut sessions: BTreeMap<(String, SessionId), Vec<usize>> = BTreeMap::new();
    for (index, (_, change)) in changes.iter().enumerate() {
        if let Changed::View { session_id, new: Some(_), .. } = &change.what {
            sessions.entry((change.profile_id.clone(), session_id.clone())).or_default().push(index);
        }
    }
    let read = stream::iter(sessions)
        .map(|((profile_id, session_id), of)| async move { (of, parts.of_session(&profile_id, &session_id).await) });
    let read: Vec<_> = read.buffer_unordered(CONCURRENT_READS).collect().await;
    let mut failed = Vec::new();
    for (of, result) in read {
        match result {
            Ok(stored) => of.into_iter().for_each(|index| join_one(&mut changes[index].1.what, &stored)),
            Err(error) => {
                tracing::warn!(%error, "the parts of a view could not be read");
                failed.extend(of.into_iter().map(|index| changes[index].0));
            }
        }
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

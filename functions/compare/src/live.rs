//! The live side: what shadow views are compared with.

use crate::judge::{Answer, Ask};
use crate::legacy::{Legacy, LegacyError};
use crate::report::Cause;
use crate::session::Session;
use store::StoreError;
use store::dynamodb::Views;

/// What shadow views are compared with.
#[derive(Debug, Clone)]
pub enum Live {
    /// The live views; a candidate for `process` folded the shadow views.
    Views(Views),
    /// The legacy system that a team is moving away from.
    Legacy(Legacy),
}

/// Why the live side could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The live views could not be read.
    #[error(transparent)]
    Views(#[from] StoreError),
    /// The legacy system failed.
    #[error("the legacy system failed: {0}")]
    Legacy(#[from] LegacyError),
}

impl LiveError {
    /// Why the sessions that were asked for could not be compared.
    pub fn cause(&self) -> Cause {
        match self {
            LiveError::Views(_) => Cause::Unavailable,
            LiveError::Legacy(error) => error.cause(),
        }
    }
}

impl Live {
    /// Its sessions of a profile.
    ///
    /// # Errors
    /// When it does not answer, or its answer is unreadable.
    pub async fn answer(&self, ask: &Ask) -> Result<Answer, LiveError> {
        match self {
            Live::Views(views) => Ok(answer_of_views(views, ask).await?),
            Live::Legacy(legacy) => Ok(legacy.answer(ask).await?),
        }
    }
}

async fn answer_of_views(views: &Views, ask: &Ask) -> Result<Answer, StoreError> {
    let (Some(first), Some(last)) = (ask.rows.first(), ask.rows.last()) else { return Ok(Answer::default()) };
    let first = ask.after.as_deref().unwrap_or(&first.sk);
    let found = views.between(&ask.profile_id, first, &last.sk).await?;
    // Parts, which other regions folded, are not compared.
    let whole = found.views.into_iter().filter(|one| !one.place.is_part());
    let sessions = whole.map(|one| (one.place.sk, (one.session_id, Session::of(&one.view)))).collect();
    let mut answer = Answer { sessions, erased_at: None };
    if ask.due().any(|row| !answer.sessions.contains_key(&row.sk)) {
        answer.erased_at = views.erased_at(&ask.profile_id).await?;
    }
    Ok(answer)
}

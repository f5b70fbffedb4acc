//! The live side: what the shadow is compared with.

use crate::judge::{Answer, Ask};
use crate::legacy::{Legacy, LegacyError};
use crate::report::Cause;
use crate::session::Session;
use store::StoreError;
use store::dynamodb::Views;

/// What the shadow is compared with.
#[derive(Debug, Clone)]
pub enum Live {
    /// The live views: the shadow was folded by code that is a candidate to take the place of the live one.
    Views(Views),
    /// What a legacy system says, which a team is moving from.
    Legacy(Legacy),
}

/// Why the live side's account could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The table of the live views.
    #[error(transparent)]
    Views(#[from] StoreError),
    /// The legacy system.
    #[error("the legacy system: {0}")]
    Legacy(#[from] LegacyError),
}

impl LiveError {
    /// What it means for the sessions that were asked for.
    pub fn cause(&self) -> Cause {
        match self {
            LiveError::Views(_) => Cause::Unavailable,
            LiveError::Legacy(error) => error.cause(),
        }
    }
}

impl Live {
    /// What it has of a profile.
    ///
    /// # Errors
    /// When it does not answer, or not so that it can be read.
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
    // A part of a session, which another region folded, is not compared.
    let whole = found.views.into_iter().filter(|one| !one.place.is_part());
    let sessions = whole.map(|one| (one.place.sk, (one.session_id, Session::of(&one.view)))).collect();
    let mut answer = Answer { sessions, erased_at: None };
    if ask.due().any(|row| !answer.sessions.contains_key(&row.sk)) {
        answer.erased_at = views.erased_at(&ask.profile_id).await?;
    }
    Ok(answer)
}

//! How the service behaves: the bugs and failures that a demo or a test switches on.

use axum::http::StatusCode;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bugs that synchronous systems of this kind are known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A repeated event is deleted together with its first copy.
    DroppedDuplicates,
    /// Position and device come from the event that arrived last, even if another happened later.
    LastArrivalWins,
    /// The position is the sum of what was played, so `seeked` events do not move it.
    LostSeek,
}

/// The active bugs.
pub type Bugs = BTreeSet<Bug>;

impl Bug {
    /// All bugs.
    pub const ALL: [Bug; 3] = [Bug::DroppedDuplicates, Bug::LastArrivalWins, Bug::LostSeek];

    /// The name that a demo uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Bug::DroppedDuplicates => "dropped_duplicates",
            Bug::LastArrivalWins => "last_arrival_wins",
            Bug::LostSeek => "lost_seek",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|bug| bug.as_str() == text);
        found.ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// How the service behaves. By default it is healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// The active bugs. Only dropped duplicates change what is stored.
    pub bugs: Bugs,
    /// How long it waits before it handles a request. The caller gets no byte meanwhile.
    pub delay: Duration,
    /// If set, it answers every request with this status and does nothing else.
    pub failure: Option<StatusCode>,
}

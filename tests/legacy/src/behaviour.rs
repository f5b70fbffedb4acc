//! How the service behaves: the bugs and failures that a demo or a test asks for.

use axum::http::StatusCode;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Mistakes that synchronous systems of this kind make in practice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A repeated event is removed together with its first copy.
    DroppedDuplicates,
    /// Position and device come from the event that arrived last, even if another one happened
    /// later.
    LastArrivalWins,
    /// The position is the sum of what was played, so no `seeked` event moves it.
    LostSeek,
}

/// The active bugs.
pub type Bugs = BTreeSet<Bug>;

impl Bug {
    /// All bugs.
    pub const ALL: [Bug; 3] = [Bug::DroppedDuplicates, Bug::LastArrivalWins, Bug::LostSeek];

    /// Its name on the command line of a demo.
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

/// How the service behaves from now on. The default is healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Which mistakes it makes. Only dropped duplicates affect what is stored.
    pub bugs: Bugs,
    /// How long it waits before it does anything. The caller sees no byte meanwhile.
    pub delay: Duration,
    /// If set, it answers every request with this status and does nothing.
    pub failure: Option<StatusCode>,
}

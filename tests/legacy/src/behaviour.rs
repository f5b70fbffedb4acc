//! How the service behaves: the bugs and bad days that a demo or a test asks for.

use axum::http::StatusCode;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Mistakes that synchronous systems of this kind have been seen to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// An event that is sent again is cleaned away together with its first copy.
    DroppedDuplicates,
    /// Position and device are those of the event that arrived last, though another one happened later.
    LastArrivalWins,
    /// The position is added up from what was played, so that no `seeked` event moves it.
    LostSeek,
}

/// Bugs that are in force.
pub type Bugs = BTreeSet<Bug>;

impl Bug {
    /// All bugs.
    pub const ALL: [Bug; 3] = [Bug::DroppedDuplicates, Bug::LastArrivalWins, Bug::LostSeek];

    /// The name by which a demo asks for it.
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

/// How the service behaves from now on. The default is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Which mistakes it makes. Only dropped duplicates leave a trace in what is stored.
    pub bugs: Bugs,
    /// How long it waits before it does anything; the caller sees no byte meanwhile.
    pub delay: Duration,
    /// With what it answers every request, and does nothing.
    pub failure: Option<StatusCode>,
}

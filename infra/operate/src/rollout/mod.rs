//! `playhead rollout`: which live path each profile is on while a team moves from its own system to this one, shown and changed.
//!
//! A change is the routing document's, read and written as `routing` does it. Before it is written it is said who moves, and shares are raised
//! to `async` only on evidence: what `compare` found in the last hour, in all regions ([`Rule`]). An operator may override that, and is told what.
//!
//! It decides about nobody's path itself: buckets and lists are those of `playback::rollout`, which `ingest` follows.

mod change;
mod command;
mod preview;
mod profiles;
mod rule;
mod set;
mod show;

pub use change::{Change, Word};
pub use command::{Args, run, run_on};
pub use preview::{Preview, Step};
pub use profiles::Profiles;
pub use rule::Rule;
pub use set::{Done, set};

//! `playhead rollout`: shows and changes which live path each profile is on while a team migrates
//! from its legacy system.
//!
//! The rollout is a part of the routing document, which is read and written as in `routing`. A
//! change first shows who moves. The share of `async` is raised only on evidence: what `compare`
//! found in the last hour, in all regions ([`Rule`]). An operator may override the rule, and sees
//! what that overrides.
//!
//! This module chooses no paths itself. Buckets and lists are those of `playback::rollout`, which
//! `ingest` follows.

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

//! The command line of Playhead: declares the commands and runs the demo, the bench, the soak and
//! single invocations.
//!
//! The rest is in the crates beside it: `operate` (books, dead letters, routing, rollout,
//! comparison), `local` (the local cloud) and `simulate` (viewers and traces).

pub mod bench;
pub mod cli;
pub mod demo;
pub mod invoke;
mod percentile;
mod settled;
pub mod soak;
mod usage;

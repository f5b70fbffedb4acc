//! The domain of Playhead, pure: no I/O, no clock, no async, no AWS types. It takes values and
//! returns decisions, so a test of what must be right is a function call.
//!
//! The life of an event, module by module. [`edge`] parses and validates what a player sent.
//! [`envelope`] groups it by session and packs it for the log. [`fold`] turns a batch of envelopes
//! into one delta per session. [`view`] joins a delta with what is stored. [`history`] turns stored
//! views into what a member sees. [`routing`] decides which region folds a session's events,
//! [`rollout`] which path a profile is on, and [`outcome`] names how each record ends.

pub mod contract;
pub mod edge;
pub mod envelope;
pub mod fold;
pub mod history;
pub mod outcome;
pub mod ranges;
pub mod rollout;
pub mod routing;
pub mod session;
mod unknown;
pub mod view;

#[cfg(test)]
mod testing;

/// The generated protobuf messages of `proto/playback.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/playhead.v1.rs"));
}

//! The domain of Playhead, pure: no I/O, no clock, no async, no AWS type. It takes values and
//! returns decisions, so that everything that must be right can be tested by calling it.
//!
//! The life of an event, module by module: [`edge`] parses and validates what a player sent,
//! [`envelope`] groups it by session and packs it for the log, [`fold`] turns a batch of envelopes
//! into one delta a session, [`view`] joins a delta with what is stored, [`history`] turns stored
//! views into what a member sees. [`routing`] says in which region a session's events are folded, [`rollout`] which path a profile is
//! on, [`outcome`] how each record ends.

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
pub mod view;

#[cfg(test)]
mod testing;

/// The generated protobuf messages of `proto/playback.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/playhead.v1.rs"));
}

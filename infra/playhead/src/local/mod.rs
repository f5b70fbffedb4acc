//! The local cloud.

pub mod poller;

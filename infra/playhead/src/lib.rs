//! The command line of Playhead: local cloud, simulator, operations.

pub mod cli;
pub mod encode;
pub mod invoke;
pub mod local;
pub mod simulate;
pub mod token;

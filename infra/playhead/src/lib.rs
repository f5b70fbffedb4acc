//! The command line of Playhead: local cloud, simulator, operations.

pub mod bench;
pub mod books;
pub mod cli;
pub mod demo;
pub mod dlq;
pub mod encode;
pub mod invoke;
pub mod local;
pub mod reports;
pub mod rollout;
pub mod routing;
pub mod simulate;
pub mod stack;
pub mod text;
pub mod token;

//! What an operator runs against a stack on AWS or the local cloud: books, dead letters, routing,
//! rollout, comparison, topics.
//!
//! It finds a running local cloud by the file that describes it ([`run`]). It must not start one,
//! and it knows no emulator, no broker and no Kafka client.

pub mod books;
pub mod comparison;
pub mod dlq;
pub mod endpoints;
pub mod rollout;
pub mod routing;
pub mod run;
pub mod stack;
pub mod testing;
pub mod text;
pub mod token;
pub mod topics;
mod workspace;

pub use endpoints::{Endpoints, sdk_config};
pub use workspace::workspace_root;

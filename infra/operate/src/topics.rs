//! Whether the topics of a stack keep what "accepted" promises: copies, in-sync replicas, retention.
//!
//! The stack sets this only on topics that it creates. Anybody may have made the others, and
//! nothing fails while their settings are wrong: until a broker is lost, or the store is down for
//! days.
//!
//! On AWS the settings come from MSK's API, which needs no way to the brokers. rdkafka's
//! administrative client could not ask them either: it signs no IAM tokens (rust-rdkafka, issue
//! 757). It reads those of the local cloud, see `local`.

mod command;
mod judge;
mod msk;

pub use command::{Args, run};
pub use judge::{Promise, TopicSettings, Wrong, judge, right};

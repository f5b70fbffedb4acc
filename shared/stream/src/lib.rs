//! The durable log that `ingest` appends to, and the stream of `publish`.
//!
//! [`DurableLog`] is the port: one call takes many records and returns one result per record.
//! [`KafkaLog`] is the adapter for Kafka and Amazon MSK, [`KinesisLog`] the one for Kinesis, and
//! [`Log`] is either one, by configuration. [`Failover`] appends to a primary and a standby.
//! [`bootstrap`] finds the brokers.
//!
//! This crate moves bytes and reports the result. It must not decide which topic or stream a record
//! goes to, look inside a value, or read the environment. It must not call a record durable before
//! a log has acknowledged it. Policy (which logs, which region, what to tell the device) belongs to
//! the callers.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "kafka")]
pub mod bootstrap;
#[cfg(feature = "kafka")]
pub mod choice;
pub mod failover;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kinesis;
pub mod log;
pub mod testing;

/// Whether this build speaks TLS to Kafka, which MSK's IAM needs: the feature `tls`.
pub const TLS: bool = cfg!(feature = "tls");

#[cfg(feature = "kafka")]
pub use choice::{Log, LogConfig, LogWarmUpError};
pub use failover::{Appended, Failover, Fate, Policy, Role};
#[cfg(feature = "kafka")]
pub use kafka::{ConnectError, KafkaConfig, KafkaLog, KafkaSecurity, WarmUpError};
pub use kinesis::{KinesisConfig, KinesisLog};
pub use log::{Ack, AppendError, Attempt, DurableLog, Lane, LogRecord, RecordResult};

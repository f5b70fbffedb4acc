//! The durable log that `ingest` appends to, and the queue that dead letters go to.
//!
//! [`DurableLog`] is the port: one call takes many records and answers one result per record. [`KafkaLog`]
//! is its adapter for Kafka and Amazon MSK, [`bootstrap`] finds the brokers, [`Queue`] sends to SQS.
//!
//! This crate moves bytes and says what became of them. It must not decide where a record goes, look
//! inside a value, read the environment, or call a record durable before the log has acknowledged it.
//! Policy (which log, which region, what to tell the device) belongs to its callers.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bootstrap;
pub mod kafka;
pub mod log;
pub mod queue;
pub mod testing;

pub use kafka::{ConnectError, KafkaConfig, KafkaLog, KafkaSecurity, WarmUpError};
pub use log::{Ack, AppendError, Attempt, DurableLog, LogRecord, Settled};
pub use queue::{Queue, SendError};

//! Applies records to views, and parks those that cannot be applied: what `process` and `retry` share.
//!
//! **Invariant:** a record is called done only when its events are in their views, or its bytes are on a queue.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod letter;

pub use letter::{DeadLetter, Failure, Letter, Redrive};

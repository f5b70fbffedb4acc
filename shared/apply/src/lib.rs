//! Applies records to views, and parks those that cannot be applied: what `process` and `retry` share.
//!
//! A batch goes through five steps: unpack (records → units, each an envelope or poison), apply (fold to one delta a session, and
//! settle it), decide (what to do about what could not be applied), carry out (to the queues), count. Every unit ends in exactly
//! one outcome. Whether a batch is done, and how it comes again if not, is the caller's to say.
//!
//! **Invariant:** a record is called done only when its events are in their views, or its bytes are on a queue.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod apply;
mod count;
mod divert;
mod letter;
mod queue;
pub mod testing;
mod unit;

pub use apply::{Applied, Unbalanced, apply};
pub use count::count;
pub use divert::{Decision, carry_out, decide, is_flood};
pub use letter::{DeadLetter, Failure, Letter, Redrive};
pub use queue::LetterQueue;
pub use unit::{Decoded, History, Unapplied, Unit, unpack, unpack_message};

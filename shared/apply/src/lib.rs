//! Applies records to views, and diverts those that cannot be applied: what `process`, `retry` and
//! `forward` share.
//!
//! A batch goes through six steps: unpack (records → units, each an envelope or poison), fork
//! (separate live units from shadows), apply (fold to one delta per session, and settle it), decide
//! (what to do with each unit), carry out (send to the queues), count. Every unit ends in exactly
//! one outcome ([`Slots`] sees to it). The caller says whether a batch is done, and how it is
//! redelivered if not.
//!
//! **Invariant:** a record is called done only when its events are in their views, or its bytes are
//! on a queue.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod apply;
mod count;
mod divert;
mod letter;
mod letter_queue;
mod slots;
pub mod testing;
mod unit;

pub use apply::{Applied, apply};
pub use count::{Books, count, count_usage};
pub use divert::{
    Chances, Decision, Diverted, Flood, Recent, carry_out, decide, divert, is_flood, log_waiting, redelivered_together,
};
pub use letter::{DeadLetter, Failure, Letter, Redrive};
pub use letter_queue::{LetterQueue, NotPut};
pub use slots::{Slots, Unbalanced};
pub use unit::{Decoded, Fork, History, Unapplied, Unit, unpack, unpack_message};

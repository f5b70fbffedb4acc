//! `playhead dlq`: the dead-letter queue. Lists, shows, redrives and discards its letters.
//!
//! SQS has no random access and no cursor. So every command receives all letters, hides them from
//! other readers (by their visibility time-out, `queue::HOLD`), decides, and at the end releases
//! what it did not delete. It also releases them when it is interrupted or fails. If it is killed,
//! letters stay hidden until the time-out, and none is lost.
//!
//! AWS's own message redrive does not help. It moves only messages that SQS itself dead-lettered,
//! and it cannot turn a dead letter into a message that `retry` reads.
//!
//! **Invariant:** a letter is deleted only after its next place is durable: the queue `retry`, or
//! the file of `--save` (test `unsent_letter_is_not_deleted`).

mod command;
mod discard;
mod interrupt;
mod letter;
mod list;
mod queue;
mod redrive;
mod select;
mod show;
#[cfg(test)]
mod testing;

pub use command::{Args, run, run_on};

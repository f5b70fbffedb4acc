//! `playhead dlq`: the dead-letter queue. What is in it, and sending it through `retry` once more, or throwing it away.
//!
//! SQS has no random access and no cursor. So every command receives all there is, keeps from everyone else what it has seen
//! (a time-out of visibility, [`queue::HOLD`]), decides, and at its end lets go of what it did not delete: also when it is
//! interrupted, and when it fails. Killed, it leaves letters hidden until the time-out, and none is lost.
//!
//! AWS's own redrive of messages is no help: it moves only what SQS itself dead-lettered, and nothing in between would turn a
//! dead letter into what `retry` reads.
//!
//! **Invariant:** a letter is deleted only after what becomes of it is durable: on the queue `retry`, or in the file of `--save`
//! (test `a_letter_that_was_not_sent_is_not_deleted`).

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

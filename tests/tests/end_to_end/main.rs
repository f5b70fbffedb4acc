//! The whole system end to end: events go in over HTTP (or on the topic, or on the queue), and the member's API says what
//! came of them. The real template, the real functions and a real broker run on a local cloud of the tests' own.
//!
//! It starts once for all tests, on first use, and ends with their process (so do a second one, whose only log is a Kinesis
//! stream, and a third one, which takes over from another system, for the tests of just that). Each test has profiles and sessions of its
//! own, so that they run side by side; those that break something on purpose run alone. Nothing waits for a fixed
//! time: whatever takes time is looked at until it is there or a deadline has passed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cloud;
mod crash;
mod dead_letters;
mod history;
mod intake;
mod member;
mod moving;
mod poison;
mod refusals;
mod retry;
mod routing;
mod simulated;
mod stream;
mod without_msk;

//! The whole system end to end: events go in over HTTP (or on the topic, or on the queue), and the
//! member's API shows the result. The real template, the real functions and a real broker run on a
//! local cloud.
//!
//! It starts once for all tests, on first use, and ends with their process. So do two others: one
//! whose only log is a Kinesis stream, and one that takes over from another system. Each test has
//! its own profiles and sessions, so tests run side by side; those that break something on purpose
//! run alone. Nothing waits for a fixed time: a test looks until the result is there or a deadline
//! has passed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod browsers;
mod cases;
mod cloud;
mod crash;
mod dead_letters;
mod feed;
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
mod users_emulator;
mod without_msk;

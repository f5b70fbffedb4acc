//! The targets that are whole functions, or need the libraries around them.

mod batch;
mod change;
mod legacy_answer;
mod page_token;
mod request;
mod retry_message;
mod token;

use crate::{NOW, Target};
use lambda::metrics::Emitter;
use lambda::runtime::Invocation;
use std::time::Duration;

pub(crate) const TARGETS: [(&str, Target); 7] = [
    ("batch", batch::run),
    ("change", change::run),
    ("legacy_answer", legacy_answer::run),
    ("page_token", page_token::run),
    ("request", request::run),
    ("retry_message", retry_message::run),
    ("token", token::run),
];

/// What signs the tokens of the golden events.
const SECRET: &str = "golden-events-secret-that-protects-nothing";

/// An invocation with time for everything.
fn invocation() -> Invocation {
    Invocation::new(NOW, Duration::from_secs(60))
}

/// Counts into nothing.
fn emitter() -> Emitter {
    Emitter::to("fuzz", "fuzz", |_| {})
}

/// Runs what a function does until it ends.
fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

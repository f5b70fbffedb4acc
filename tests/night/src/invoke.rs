//! Invocations: an environment serves one event after another, may crash at any effect, and is cut
//! off when its time is up.

use crate::next::readable;
use crate::weather::{Faults, What};
use lambda::batch::Batch;
use lambda::metrics::Emitter;
use lambda::runtime::{Invocation, ServeBatch};
use operate::books::Books;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// The template's `Timeout` of `process`, `retry` and `forward`.
const TIME_OUT: Duration = Duration::from_secs(60);

/// What became of the invocations of a region.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) books: Books,
    pub(crate) invocations: u64,
    pub(crate) crashes: u64,
    /// Invocations that ended in the function's own error, which is a bug.
    pub(crate) errors: u64,
    /// Invocations that Lambda ended.
    pub(crate) time_outs: u64,
}

/// An environment of a function.
pub(crate) struct Environment<F> {
    name: &'static str,
    start: Box<dyn Fn() -> F + Send>,
    function: F,
    faults: Faults,
    ledger: Arc<Mutex<Ledger>>,
    /// The deployment of its next version, if there is one.
    next: Option<What>,
}

impl<F: ServeBatch> Environment<F> {
    pub(crate) fn new(
        name: &'static str,
        faults: &Faults,
        ledger: &Arc<Mutex<Ledger>>,
        start: impl Fn() -> F + Send + 'static,
    ) -> Self {
        let function = start();
        Self { name, start: Box::new(start), function, faults: faults.clone(), ledger: Arc::clone(ledger), next: None }
    }

    /// The same, with a next version.
    pub(crate) fn with_next(self, next: What) -> Self {
        Self { next: Some(next), ..self }
    }

    /// Invokes the function. Returns its answer, or nothing if it failed. A process that ends takes
    /// its metrics along.
    pub(crate) async fn invoke(&mut self, event: &str) -> Option<Vec<u8>> {
        let lines = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&lines);
        let emitter = Emitter::to("simulated", self.name, move |text| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        });
        let now = self.faults.local_now();
        let event = if self.next.is_some_and(|next| self.faults.runs_next(next)) {
            Cow::Owned(readable(event))
        } else {
            Cow::Borrowed(event)
        };
        let batch = Batch::parse(event.as_bytes()).expect("a trigger's event");
        let ended = {
            let metrics = emitter.start(now);
            let invocation = Invocation::new(now, TIME_OUT);
            let served = self.function.serve(&metrics, batch, invocation);
            timeout(TIME_OUT, self.faults.until_crash(served)).await
        };
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.invocations += 1;
        match ended {
            Ok(Some(answer)) => {
                ledger.books.add_lines(&lines.lock().unwrap_or_else(PoisonError::into_inner));
                match answer {
                    Ok(answer) => return Some(serde_json::to_vec(&answer).expect("an answer is JSON")),
                    Err(_) => ledger.errors += 1,
                }
            }
            Ok(None) => ledger.crashes += 1,
            Err(_) => ledger.time_outs += 1,
        }
        drop(ledger);
        self.function = (self.start)();
        None
    }
}

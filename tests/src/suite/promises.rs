//! Promises that were not kept, in words.

use std::time::Duration;

use simulate::send::Attempt;

/// The timeout of `ingest` in the template.
const INGEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Checks promises, and collects those that were not kept.
#[derive(Debug, Default)]
pub struct Promises {
    /// Those, in words.
    pub broken: Vec<String>,
}

impl Promises {
    /// Promises that one number is at most another.
    pub fn at_most(&mut self, what: &str, less: u64, more: u64) {
        if less > more {
            self.broken.push(format!("{what}: {less} > {more}"));
        }
    }

    /// Promises that something was seen; otherwise the scenario proved nothing.
    pub fn seen(&mut self, seen: bool, otherwise: &str) {
        if !seen {
            self.broken.push(otherwise.to_owned());
        }
    }

    /// Promises that the devices and `ingest` agree on how many events were accepted.
    pub fn accepted<'a>(&mut self, devices: u64, ingest: u64, attempts: impl IntoIterator<Item = &'a Attempt>) {
        self.at_most("accepted: devices ≤ ingest", devices, ingest);
        // A device that got no answer, or the gateway's after ingest's timeout, sends again what
        // ingest may have counted.
        let is_unanswered =
            |attempt: &Attempt| attempt.status.is_none() || (!attempt.succeeded() && attempt.took > INGEST_TIMEOUT);
        if !attempts.into_iter().any(is_unanswered) {
            self.at_most("accepted: ingest ≤ devices", ingest, devices);
        }
    }
}

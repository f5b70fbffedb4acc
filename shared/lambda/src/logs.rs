//! Logs: one JSON object per line on stdout, with the invocation's request id in `span`.
//!
//! WARN means recovered, ERROR means that an operator is needed. The request id and the trace id
//! come from the span that `lambda_runtime` opens around each invocation, so its spans are on at
//! every level.
//!
//! **Invariant:** no request is logged. Other crates log only at INFO and above, since the runtime
//! and the HTTP clients print bodies and headers, and so tokens, at TRACE and DEBUG.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The crates that log at the configured level; all others are capped.
const OURS: [&str; 13] = [
    "lambda", "playback", "stream", "queue", "store", "apply", "ingest", "process", "retry", "forward", "query",
    "compare", "publish",
];

/// Starts logging, and logs panics as JSON too. A second call changes nothing.
pub fn init(level: LevelFilter) {
    if subscriber(level, std::io::stdout).try_init().is_err() {
        return; // Already started.
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(panic = panic.payload_as_str().unwrap_or("a panic without a message"), place, "panicked");
    }));
}

pub(crate) fn subscriber(
    level: LevelFilter,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> impl tracing::Subscriber + Send + Sync {
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target("lambda_http", level.min(LevelFilter::INFO))
        .with_target("lambda_runtime", LevelFilter::INFO)
        .with_targets(OURS.map(|target| (target, level)));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LevelFilter, log: impl FnOnce()) -> Vec<Value> {
        let captured = Captured::default();
        let writer = captured.clone();
        tracing::subscriber::with_default(subscriber(level, move || writer.clone()), log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn log_line_is_flat_json_with_the_request_id() {
        let lines = logged(LevelFilter::WARN, || {
            let span = tracing::info_span!(target: "lambda_runtime::layers::trace", "invoke", requestId = "r-1");
            let _entered = span.enter();
            tracing::warn!(records = 3, "some records failed");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "some records failed");
        assert_eq!(lines[0]["records"], 3);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["target"], "lambda::logs::tests");
        assert_eq!(lines[0]["span"]["requestId"], "r-1");
        assert!(lines[0]["timestamp"].is_string());
    }

    #[test]
    fn other_crates_never_log_requests_at_any_level() {
        let lines = logged(LevelFilter::TRACE, || {
            tracing::trace!(target: "lambda_runtime::runtime", "response body - authorization: Bearer x");
            tracing::debug!(target: "lambda_http::request", "a header");
            tracing::debug!(target: "hyper::proto", "a header");
            tracing::trace!("ours");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "ours");
    }

    #[test]
    fn starting_twice_does_not_panic() {
        init(LevelFilter::INFO);
        init(LevelFilter::INFO);
    }
}

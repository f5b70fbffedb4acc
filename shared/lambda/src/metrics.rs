//! Metrics in CloudWatch's Embedded Metric Format (EMF): JSON lines on stdout, from which
//! CloudWatch Logs extracts them.
//!
//! One [`Metrics`] recorder lives for one invocation and writes its counts when it is dropped, so
//! exactly once: on success, on an error and on a panic. Nothing here is global, since one
//! environment may serve several invocations at once. That rules out the crate
//! `metrics_cloudwatch_embedded`: it has one collector per process (the `metrics` facade), and its
//! flush would mix the counts of concurrent invocations.
//!
//! **Invariant:** an id is never a dimension. A dimension's value is a `&'static str` or an HTTP
//! status, so the source code bounds the number of series.
//!
//! Format: "Specification: Embedded metric format" in the CloudWatch user guide.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;

/// The CloudWatch namespace of every metric.
pub const NAMESPACE: &str = "Playhead";

/// Everything that the functions count, and the one thing that they measure
/// ([`Metric::is_maximum`]). Each metric has the dimensions `Stage` and `Function`. A variant with a value is also published with that as a third dimension
/// ([`Metric::dimension`]), and a metric that the books use also with `Stage` alone
/// ([`Metric::is_of_stage`]): an alarm may name at most 10 metrics and may not search, so it needs
/// the sum.
///
/// [`strum::IntoEnumIterator`] lists them, with empty values: what must cover every metric takes its
/// list from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter, strum::IntoStaticStr)]
pub enum Metric {
    /// Events that a durable log acknowledged and a `202` called accepted.
    EventsAccepted,
    /// Events that validation rejected, by `Code`.
    EventsRejected(&'static str),
    /// Accepted events of which an odd value was adjusted.
    EventsAdjusted,
    /// Events folded into a view for the first time.
    EventsApplied,
    /// Events that changed nothing: their view had seen them, or the member has erased it.
    EventsDuplicate,
    /// Events of records that went to the dead-letter queue, by `Reason`.
    EventsDead(&'static str),
    /// Events of redriven records that have had an outcome again: their earlier dead letter no
    /// longer counts.
    EventsRedriven,
    /// Events on the queue `inbound` of the region that folds their session.
    EventsForwarded,
    /// Events that came through the queue `inbound` and had an outcome here, a retry included:
    /// should equal the other regions' EventsForwarded.
    EventsArrived,
    /// Records received in batches.
    RecordsReceived,
    /// Records whose outcome is final and good: applied, or nothing new in them.
    RecordsSettled,
    /// Records that went to the dead-letter queue, by `Reason`.
    RecordsDead(&'static str),
    /// Events of records that were sent to the queue `retry`, counted each time.
    EventsRetried,
    /// Records that were sent to the queue `retry`, by `Reason` (the cause).
    RecordsRetried(&'static str),
    /// How long ago the oldest message that a queue delivered was sent to it, in seconds.
    OldestMessageAge,
    /// Records on the queue `inbound` of the region that folds their session.
    RecordsForwarded,
    /// Calls of `SendMessageBatch` to those queues, failed ones included.
    ForwardRequests,
    /// Bytes of the messages in those calls.
    ForwardBytes,
    /// Reads of the routing document that failed or gave an invalid one, so an earlier one stays in
    /// force, by `Reason`.
    RoutingErrors(&'static str),
    /// Shadows that could not be folded and were dropped.
    RecordsDropped,
    /// Events of shadows that were appended beside the legacy system's live answer.
    ShadowAppended,
    /// Events of shadows that were not: they broke the contract, no append began before the live
    /// answer, or none worked.
    ShadowMissed,
    /// Events folded into a shadow view for the first time.
    ShadowApplied,
    /// Events that their shadow view had already seen.
    ShadowDuplicate,
    /// Events of shadows that could not be folded.
    ShadowDropped,
    /// Requests passed on to the legacy system, by `Code`: the status of its answer.
    LegacyRequests(StatusCode),
    /// Records reported as failed, so that they are redelivered, by `Reason` (the cause).
    RecordsFailed(&'static str),
    /// Sequence numbers missing in sessions that have ended: events lost before they reached us,
    /// unless they come later.
    HolesOpened,
    /// Of these, the ones that came later.
    HolesClosed,
    /// Conditional writes of a view, won or lost.
    ViewWrites,
    /// Items read from the views table.
    ViewReads,
    /// Conditional writes that found a newer view.
    LostRaces,
    /// Calls that the store throttled.
    Throttles,
    /// Records that a durable log acknowledged.
    RecordsAppended,
    /// Of these, the ones that the standby acknowledged.
    RecordsOnStandby,
    /// Copies of events that may be on a log without being accepted: an attempt to append them
    /// failed, was overtaken by another one, or was a probe. Each may show up as a duplicate.
    EventsUnclaimed,
    /// Records that no durable log acknowledged.
    AppendErrors,
    /// How often the circuit to the primary log opened.
    CircuitOpened,
    /// How often it closed again.
    CircuitClosed,
    /// Shadow sessions compared with the live side: matching, different, and missing on either
    /// side.
    ComparedSessions,
    /// Of these, the ones that match.
    MatchedSessions,
    /// Sessions that differ in a field, by `Field`.
    FieldDifferences(&'static str),
    /// Sessions that only the shadow has.
    MissingLive,
    /// Sessions that only the live side has.
    MissingShadow,
    /// Sessions that were not compared, since the shadow has only a part of them.
    PartialSessions,
    /// Sessions that could not be compared, by `Reason`.
    UnansweredSessions(&'static str),
    /// Records of the table's stream that brought `publish` a change.
    ChangesReceived,
    /// Of these, the ones on the change feed.
    ChangesPublished,
    /// Of these, the ones reported as failed, so that they are redelivered, by `Reason` (the cause).
    ChangesFailed(&'static str),
    /// Of these, the ones sent to the queue of changes that cannot be published, by `Reason`.
    ChangesDead(&'static str),
    /// HTTP requests answered, by `Code` (the status).
    Requests(StatusCode),
}

impl Metric {
    /// The metric's name in CloudWatch.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The metric's unit in CloudWatch.
    pub fn unit(self) -> &'static str {
        if self.is_maximum() { "Seconds" } else { "Count" }
    }

    /// Whether it is measured, not counted: the greatest value counts ([`Metrics::observe`]), so
    /// its statistic is `Maximum`. That of a count is `Sum`.
    pub fn is_maximum(self) -> bool {
        matches!(self, Self::OldestMessageAge)
    }

    /// Whether it is also summed over all functions of the stage: the metrics of the books, and
    /// those that several functions share.
    pub fn is_of_stage(self) -> bool {
        matches!(
            self,
            Self::EventsAccepted
                | Self::EventsArrived
                | Self::EventsApplied
                | Self::EventsDuplicate
                | Self::EventsDead(_)
                | Self::EventsRedriven
                | Self::EventsForwarded
                | Self::EventsUnclaimed
                | Self::RoutingErrors(_)
        )
    }

    /// The name and value of the third dimension, if the metric has one.
    pub fn dimension(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::EventsRejected(code) => Some(("Code", code)),
            Self::Requests(status) | Self::LegacyRequests(status) => Some(("Code", status.as_str())),
            Self::EventsDead(reason)
            | Self::RecordsDead(reason)
            | Self::RecordsFailed(reason)
            | Self::RecordsRetried(reason)
            | Self::RoutingErrors(reason)
            | Self::ChangesFailed(reason)
            | Self::ChangesDead(reason)
            | Self::UnansweredSessions(reason) => Some(("Reason", reason)),
            Self::FieldDifferences(field) => Some(("Field", field)),
            _ => None,
        }
    }
}

/// Writes one function's metrics. One per process; [`Emitter::start`] makes each invocation's
/// recorder.
#[derive(Clone)]
pub struct Emitter {
    /// As JSON strings.
    stage: Arc<str>,
    function: Arc<str>,
    write: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Emitter {
    /// Metrics as lines on stdout, which Lambda carries to CloudWatch Logs.
    pub fn stdout(stage: &str, function: &str) -> Self {
        Self::to(stage, function, |lines| {
            // One write of whole lines under stdout's lock, so that no log line ends up inside one
            // of them.
            if let Err(error) = std::io::stdout().lock().write_all(lines.as_bytes()) {
                tracing::error!(%error, "metrics could not be written");
            }
        })
    }

    /// Metrics as lines, each ending in a newline, passed to `write` once per invocation.
    pub fn to(stage: &str, function: &str, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let json = |text: &str| serde_json::Value::from(text).to_string().into();
        Self { stage: json(stage), function: json(function), write: Arc::new(write) }
    }

    /// A recorder for one invocation that began at `now_ms` (Unix milliseconds).
    pub fn start(&self, now_ms: u64) -> Metrics {
        Metrics { emitter: self.clone(), timestamp_ms: now_ms, counts: Mutex::default() }
    }
}

/// The oldest and the newest timestamp that a metric may have, as distances from now. CloudWatch
/// accepts up to two weeks ago and up to two hours ahead (API reference of `PutMetricData`); one
/// hour of each is left as a margin.
const OLDEST_MS: u64 = (14 * 24 - 1) * 3_600_000;
const NEWEST_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// The counts and measurements of one invocation. Its concurrent parts share it by reference; it is
/// written when dropped.
#[must_use = "metrics are written when the recorder is dropped, which should be at the end of the invocation"]
pub struct Metrics {
    emitter: Emitter,
    timestamp_ms: u64,
    /// By the timestamp under which they are written.
    counts: Mutex<BTreeMap<(u64, Metric), u64>>,
}

impl Metrics {
    /// Adds `n` to `metric` now. A metric that stays at zero is not written.
    pub fn add(&self, metric: Metric, n: u64) {
        self.add_stamped(self.timestamp_ms, metric, n);
    }

    /// Adds `n` to `metric` in the minute of `at_ms` (Unix milliseconds), for counts that belong to
    /// another time than now. A time that CloudWatch would refuse is moved to the nearest one that
    /// it accepts: a count in the wrong minute is better than a document that is silently dropped.
    pub fn add_at(&self, at_ms: u64, metric: Metric, n: u64) {
        let (oldest, newest) =
            (self.timestamp_ms.saturating_sub(OLDEST_MS), self.timestamp_ms.saturating_add(NEWEST_MS));
        let at_ms = at_ms.clamp(oldest, newest);
        self.add_stamped(at_ms - at_ms % MINUTE_MS, metric, n);
    }

    /// Notes a measured value of `metric` now. Of several values in an invocation the greatest is
    /// written, and zero is not.
    pub fn observe(&self, metric: Metric, value: u64) {
        debug_assert!(metric.is_maximum(), "{} is counted, not measured", metric.name());
        if value > 0 {
            let mut counts = self.counts();
            let greatest = counts.entry((self.timestamp_ms, metric)).or_default();
            *greatest = value.max(*greatest);
        }
    }

    fn add_stamped(&self, timestamp_ms: u64, metric: Metric, n: u64) {
        debug_assert!(!metric.is_maximum(), "{} is measured, not counted", metric.name());
        if n > 0 {
            *self.counts().entry((timestamp_ms, metric)).or_default() += n;
        }
    }

    /// The count of `metric` so far, over all times.
    pub fn count(&self, metric: Metric) -> u64 {
        self.count_where(|counted| *counted == metric)
    }

    /// The count of all metrics of which this holds.
    pub fn count_where(&self, holds: impl Fn(&Metric) -> bool) -> u64 {
        self.counts().iter().filter(|((_, counted), _)| holds(counted)).map(|(_, n)| n).sum()
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u64, Metric), u64>> {
        // A panic elsewhere leaves valid counts behind, which must still be reported.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The EMF documents: for each timestamp, one for the plain metrics and one for each value of a
    /// third dimension. They are written for every request, and nothing in them needs escaping but
    /// the names that [`Emitter`] has escaped: so they are text, without a serializer.
    fn lines(&self) -> String {
        let counts = self.counts();
        let mut counted: Vec<_> =
            counts.iter().map(|((at, metric), n)| ((*at, metric.dimension()), *metric, *n)).collect();
        // Stable: a document's metrics stay in the order of the enum.
        counted.sort_by_key(|(document, ..)| *document);
        let mut lines = String::with_capacity(512 * counted.len());
        for document in counted.chunk_by(|(one, ..), (next, ..)| one == next) {
            let Some(((timestamp_ms, extra), ..)) = document.first().copied() else { continue };
            let metrics: Vec<_> = document.iter().map(|(_, metric, n)| (*metric, *n)).collect();
            let document = Document { timestamp_ms, emitter: &self.emitter, extra, metrics: &metrics };
            // Writing to a string never fails.
            let _ = writeln!(lines, "{document}");
        }
        lines
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        let lines = self.lines();
        if !lines.is_empty() {
            (self.emitter.write)(&lines);
        }
    }
}

/// One EMF document. It has at most one entry per [`Metric`] variant, well under the format's limit
/// of 100.
struct Document<'a> {
    timestamp_ms: u64,
    emitter: &'a Emitter,
    extra: Option<(&'a str, &'a str)>,
    metrics: &'a [(Metric, u64)],
}

impl fmt::Display for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"_aws":{{"Timestamp":{},"CloudWatchMetrics":["#, self.timestamp_ms)?;
        match self.extra {
            None => self.directive(f, r#"["Stage","Function"]"#, |_| true)?,
            Some((name, _)) => {
                self.directive(f, format_args!(r#"["Stage","Function"],["Stage","Function","{name}"]"#), |_| true)?;
            }
        }
        if self.metrics.iter().any(|(metric, _)| metric.is_of_stage()) {
            f.write_str(",")?;
            self.directive(f, r#"["Stage"]"#, Metric::is_of_stage)?;
        }
        write!(f, r#"]}},"Stage":{},"Function":{}"#, self.emitter.stage, self.emitter.function)?;
        if let Some((name, value)) = self.extra {
            write!(f, r#","{name}":"{value}""#)?;
        }
        self.metrics.iter().try_for_each(|(metric, n)| write!(f, r#","{}":{n}"#, metric.name()))?;
        f.write_str("}")
    }
}

impl Document<'_> {
    /// Says which of the metrics are published, and by which dimensions.
    fn directive(
        &self,
        f: &mut fmt::Formatter<'_>,
        dimensions: impl fmt::Display,
        of: fn(Metric) -> bool,
    ) -> fmt::Result {
        write!(f, r#"{{"Namespace":"{NAMESPACE}","Dimensions":[{dimensions}],"Metrics":["#)?;
        for (at, (metric, _)) in self.metrics.iter().filter(|(metric, _)| of(*metric)).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, r#"{comma}{{"Name":"{}","Unit":"{}"}}"#, metric.name(), metric.unit())?;
        }
        f.write_str("]}")
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    type Lines = Arc<Mutex<Vec<String>>>;

    fn recording() -> (Emitter, Lines) {
        let lines = Lines::default();
        let sink = Arc::clone(&lines);
        let emitter = Emitter::to("dev", "playhead-process", move |text| {
            assert!(text.ends_with('\n'), "every line is whole");
            sink.lock().unwrap().extend(text.lines().map(str::to_owned));
        });
        (emitter, lines)
    }

    #[test]
    fn one_document_per_value_of_the_third_dimension() {
        let (emitter, lines) = recording();
        let metrics = emitter.start(1_790_000_010_122);
        metrics.add(Metric::RecordsReceived, 5);
        metrics.add(Metric::RecordsDead("unknown_schema"), 1);
        metrics.add(Metric::RecordsReceived, 2);
        metrics.add(Metric::EventsDead("unknown_schema"), 3);
        metrics.add(Metric::RecordsDead("undecodable"), 4);
        metrics.add(Metric::Requests(StatusCode::ACCEPTED), 1);
        metrics.add(Metric::LostRaces, 0);
        assert_eq!(metrics.count(Metric::RecordsReceived), 7);
        assert!(lines.lock().unwrap().is_empty(), "nothing is written before the end of the invocation");
        drop(metrics);
        let golden = [
            r#"{"_aws":{"Timestamp":1790000010122,"CloudWatchMetrics":[{"Namespace":"Playhead","Dimensions":[["Stage","Function"]],"Metrics":[{"Name":"RecordsReceived","Unit":"Count"}]}]},"Stage":"dev","Function":"playhead-process","RecordsReceived":7}"#,
            r#"{"_aws":{"Timestamp":1790000010122,"CloudWatchMetrics":[{"Namespace":"Playhead","Dimensions":[["Stage","Function"],["Stage","Function","Code"]],"Metrics":[{"Name":"Requests","Unit":"Count"}]}]},"Stage":"dev","Function":"playhead-process","Code":"202","Requests":1}"#,
            r#"{"_aws":{"Timestamp":1790000010122,"CloudWatchMetrics":[{"Namespace":"Playhead","Dimensions":[["Stage","Function"],["Stage","Function","Reason"]],"Metrics":[{"Name":"RecordsDead","Unit":"Count"}]}]},"Stage":"dev","Function":"playhead-process","Reason":"undecodable","RecordsDead":4}"#,
            r#"{"_aws":{"Timestamp":1790000010122,"CloudWatchMetrics":[{"Namespace":"Playhead","Dimensions":[["Stage","Function"],["Stage","Function","Reason"]],"Metrics":[{"Name":"EventsDead","Unit":"Count"},{"Name":"RecordsDead","Unit":"Count"}]},{"Namespace":"Playhead","Dimensions":[["Stage"]],"Metrics":[{"Name":"EventsDead","Unit":"Count"}]}]},"Stage":"dev","Function":"playhead-process","Reason":"unknown_schema","EventsDead":3,"RecordsDead":1}"#,
        ];
        assert_eq!(*lines.lock().unwrap(), golden);
    }

    #[test]
    fn counts_of_other_minutes_are_stamped_within_limits() {
        let (emitter, lines) = recording();
        let now = 1_790_000_010_122;
        let metrics = emitter.start(now);
        metrics.add(Metric::RecordsReceived, 1);
        metrics.add_at(now - 70_000, Metric::EventsApplied, 2);
        metrics.add_at(now - 75_000, Metric::EventsApplied, 3);
        metrics.add_at(now - 75_000, Metric::EventsDead("undecodable"), 5);
        metrics.add_at(0, Metric::EventsApplied, 7);
        metrics.add_at(u64::MAX, Metric::EventsApplied, 11);
        metrics.add_at(now, Metric::EventsDuplicate, 0);
        assert_eq!(metrics.count(Metric::EventsApplied), 23);
        drop(metrics);
        let documents: Vec<(u64, serde_json::Value)> = lines
            .lock()
            .unwrap()
            .iter()
            .map(|line| {
                let document: serde_json::Value = serde_json::from_str(line).unwrap();
                (document["_aws"]["Timestamp"].as_u64().unwrap(), document)
            })
            .collect();
        let counted = |name: &str| -> Vec<(u64, u64)> {
            documents.iter().filter_map(|(at, document)| Some((*at, document[name].as_u64()?))).collect()
        };
        let day = 24 * 3_600_000;
        let applied = counted("EventsApplied");
        assert_eq!(applied[1], (1_789_999_920_000, 5));
        assert!(applied[0].1 == 7 && applied[0].0 > now - 14 * day && applied[0].0 < now - 13 * day, "{applied:?}");
        assert!(applied[2].1 == 11 && applied[2].0 > now && applied[2].0 < now + 2 * 3_600_000, "{applied:?}");
        assert!(documents.iter().filter(|(at, _)| *at != now).all(|(at, _)| at.is_multiple_of(60_000)));
        assert_eq!(counted("EventsDead"), [(1_789_999_920_000, 5)]);
        assert_eq!(counted("RecordsReceived"), [(now, 1)]);
        assert_eq!(documents.len(), 5, "one per minute and set of dimensions");
    }

    #[test]
    fn greatest_measured_value_is_written_with_its_unit() {
        let (emitter, lines) = recording();
        let metrics = emitter.start(1_790_000_010_122);
        for age in [0, 7, 1_861, 12] {
            metrics.observe(Metric::OldestMessageAge, age);
        }
        drop(metrics);
        let golden = r#"{"_aws":{"Timestamp":1790000010122,"CloudWatchMetrics":[{"Namespace":"Playhead","Dimensions":[["Stage","Function"]],"Metrics":[{"Name":"OldestMessageAge","Unit":"Seconds"}]}]},"Stage":"dev","Function":"playhead-process","OldestMessageAge":1861}"#;
        assert_eq!(*lines.lock().unwrap(), [golden]);
    }

    /// Name, unit and dimensions of every metric, as CloudWatch reads them. `PLAYHEAD_BLESS=1`
    /// writes the file again: read the diff, since dashboards of others may name what changed.
    #[test]
    fn every_metric_is_written_as_the_golden_file_says() {
        let (emitter, lines) = recording();
        for metric in Metric::iter() {
            let metrics = emitter.start(1_790_000_010_122);
            if metric.is_maximum() { metrics.observe(metric, 1) } else { metrics.add(metric, 1) }
        }
        let written: String = lines.lock().unwrap().iter().map(|line| format!("{line}\n")).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics.golden.jsonl");
        if std::env::var_os("PLAYHEAD_BLESS").is_some() {
            std::fs::write(path, &written).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), written);
        assert_eq!(written.lines().count(), Metric::iter().count());
    }

    #[test]
    fn an_invocation_that_counted_nothing_writes_nothing() {
        let (emitter, lines) = recording();
        let metrics = emitter.start(0);
        metrics.observe(Metric::OldestMessageAge, 0);
        drop(metrics);
        assert!(lines.lock().unwrap().is_empty());
    }

    #[test]
    fn counts_are_written_on_errors_and_panics() {
        let (emitter, lines) = recording();
        let failing = || -> Result<(), &str> {
            let metrics = emitter.start(0);
            metrics.add(Metric::ViewReads, 1);
            Err("the store is down")
        };
        failing().unwrap_err();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let metrics = emitter.start(0);
            metrics.add(Metric::ViewReads, 2);
            panic!("a bug");
        }))
        .unwrap_err();
        assert_eq!(lines.lock().unwrap().len(), 2);
    }

    #[test]
    fn concurrent_invocations_keep_their_own_counts() {
        let (emitter, lines) = recording();
        std::thread::scope(|scope| {
            for n in 1..=4 {
                let metrics = emitter.start(n);
                scope.spawn(move || (0..1000).for_each(|_| metrics.add(Metric::ViewWrites, n)));
            }
        });
        let lines = lines.lock().unwrap();
        let mut sums: Vec<u64> = lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["ViewWrites"].as_u64().unwrap())
            .collect();
        sums.sort_unstable();
        assert_eq!(sums, [1000, 2000, 3000, 4000]);
    }
}

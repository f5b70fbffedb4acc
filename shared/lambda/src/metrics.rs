//! Metrics in CloudWatch's Embedded Metric Format (EMF): JSON lines on stdout, from which CloudWatch Logs extracts them.
//!
//! One [`Metrics`] recorder lives for one invocation and writes what it counted when it is dropped: so it writes
//! exactly once, on success, on an error and on a panic. Nothing here is global, since one environment may serve
//! several invocations at once. That is why this is not the crate `metrics_cloudwatch_embedded`: its collector is one
//! per process (the `metrics` facade) and its flush would mix the counts of concurrent invocations.
//!
//! **Invariant:** an id is never a dimension. A dimension's value is a `&'static str` or an HTTP status, so the source
//! code bounds how many series there are.
//!
//! Format: "Specification: Embedded metric format" in the CloudWatch user guide.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The CloudWatch namespace of every metric.
pub const NAMESPACE: &str = "Playhead";

/// Everything that the functions count. The unit is `Count` throughout. Each metric has the dimensions `Stage` and
/// `Function`; a variant with a value is there once more with that as a third one, named by [`Metric::dimension`], and what
/// the books are made of once more with `Stage` alone ([`Metric::is_of_stage`]). (Sums are for alarms: one may name 10 metrics at
/// most, and may not search.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Events that a durable log acknowledged and a `202` called accepted.
    EventsAccepted,
    /// Events that validation turned away, by `Code`.
    EventsRejected(&'static str),
    /// Events folded into a view for the first time.
    EventsApplied,
    /// Events that their view had already seen.
    EventsDuplicate,
    /// Events of records that went to the dead-letter queue, by `Reason`.
    EventsDead(&'static str),
    /// Events of records that were redriven and have ended again, one way or the other: their earlier death does not count any more.
    EventsRedriven,
    /// Events that are on the queue `inbound` of the region that folds their session.
    EventsForwarded,
    /// Events that came by the queue `inbound` and have ended here, or wait here: what other regions' EventsForwarded should come to.
    EventsArrived,
    /// Records that a batch brought.
    RecordsReceived,
    /// Records whose outcome is final and good: applied, or nothing new in them.
    RecordsSettled,
    /// Records that went to the dead-letter queue, by `Reason`.
    RecordsDead(&'static str),
    /// Events of records that were sent to the queue `retry`, each time that they were.
    EventsRetried,
    /// Records that were sent to the queue `retry`, by `Reason` (the cause).
    RecordsRetried(&'static str),
    /// Records that are on the queue `inbound` of the region that folds their session.
    RecordsForwarded,
    /// Calls of `SendMessageBatch` to those queues, failed ones too.
    ForwardRequests,
    /// Bytes of the messages in them.
    ForwardBytes,
    /// Times that the routing document could not be had or followed, so that an earlier one holds, by `Reason`.
    RoutingErrors(&'static str),
    /// Shadows that could not be folded and are forgotten.
    RecordsDropped,
    /// Events of shadows that were appended beside the live answer of another system.
    ShadowAppended,
    /// Events of shadows that were not: no log took them before the live answer was there, or they are not of the contract.
    ShadowMissed,
    /// Events folded into a shadow view for the first time.
    ShadowApplied,
    /// Events that their shadow view had already seen.
    ShadowDuplicate,
    /// Events of shadows that could not be folded.
    ShadowDropped,
    /// Requests that were sent on to the system that we take over from, by `Code`: the status that it answered.
    LegacyRequests(StatusCode),
    /// Records reported as failed, to be delivered again, by `Reason` (the cause).
    RecordsFailed(&'static str),
    /// Sequence numbers found missing in sessions that have ended: what was lost before it reached us, unless it comes later.
    HolesOpened,
    /// Of these, the ones that came later.
    HolesClosed,
    /// Conditional writes of a view, whether they won or not.
    ViewWrites,
    /// Items read from the views table.
    ViewReads,
    /// Conditional writes that found a newer view.
    LostRaces,
    /// Calls that the store throttled.
    Throttles,
    /// Records that the durable log acknowledged.
    RecordsAppended,
    /// Of these, the ones that the standby acknowledged.
    RecordsOnStandby,
    /// Events that may be on a log once more than they were accepted: an attempt to append them failed, was overtaken by another one,
    /// or was a probe. Each may show up as a duplicate.
    EventsUnclaimed,
    /// Records that no durable log acknowledged.
    AppendErrors,
    /// Times that the circuit to the primary log opened.
    CircuitOpened,
    /// Times that it closed again.
    CircuitClosed,
    /// Shadow sessions held against the live side: matching, differing, and missing on either side.
    ComparedSessions,
    /// Of these, the ones on which both sides agree.
    MatchedSessions,
    /// Sessions that differ in a field, by `Field`.
    FieldDifferences(&'static str),
    /// Sessions that only the shadow has.
    MissingLive,
    /// Sessions that only the live side has.
    MissingShadow,
    /// Sessions that are not compared, since the shadow has only a part of them.
    PartialSessions,
    /// Sessions that could not be compared, by `Reason`.
    UnansweredSessions(&'static str),
    /// HTTP requests answered, by `Code` (the status).
    Requests(StatusCode),
}

impl Metric {
    /// The metric's name in CloudWatch.
    pub fn name(self) -> &'static str {
        match self {
            Self::EventsAccepted => "EventsAccepted",
            Self::EventsRejected(_) => "EventsRejected",
            Self::EventsApplied => "EventsApplied",
            Self::EventsDuplicate => "EventsDuplicate",
            Self::EventsDead(_) => "EventsDead",
            Self::EventsRedriven => "EventsRedriven",
            Self::EventsForwarded => "EventsForwarded",
            Self::EventsArrived => "EventsArrived",
            Self::RecordsReceived => "RecordsReceived",
            Self::RecordsSettled => "RecordsSettled",
            Self::RecordsDead(_) => "RecordsDead",
            Self::EventsRetried => "EventsRetried",
            Self::RecordsRetried(_) => "RecordsRetried",
            Self::RecordsForwarded => "RecordsForwarded",
            Self::ForwardRequests => "ForwardRequests",
            Self::ForwardBytes => "ForwardBytes",
            Self::RoutingErrors(_) => "RoutingErrors",
            Self::RecordsDropped => "RecordsDropped",
            Self::ShadowAppended => "ShadowAppended",
            Self::ShadowMissed => "ShadowMissed",
            Self::ShadowApplied => "ShadowApplied",
            Self::ShadowDuplicate => "ShadowDuplicate",
            Self::ShadowDropped => "ShadowDropped",
            Self::LegacyRequests(_) => "LegacyRequests",
            Self::RecordsFailed(_) => "RecordsFailed",
            Self::HolesOpened => "HolesOpened",
            Self::HolesClosed => "HolesClosed",
            Self::ViewWrites => "ViewWrites",
            Self::ViewReads => "ViewReads",
            Self::LostRaces => "LostRaces",
            Self::Throttles => "Throttles",
            Self::RecordsAppended => "RecordsAppended",
            Self::RecordsOnStandby => "RecordsOnStandby",
            Self::EventsUnclaimed => "EventsUnclaimed",
            Self::AppendErrors => "AppendErrors",
            Self::CircuitOpened => "CircuitOpened",
            Self::CircuitClosed => "CircuitClosed",
            Self::ComparedSessions => "ComparedSessions",
            Self::MatchedSessions => "MatchedSessions",
            Self::FieldDifferences(_) => "FieldDifferences",
            Self::MissingLive => "MissingLive",
            Self::MissingShadow => "MissingShadow",
            Self::PartialSessions => "PartialSessions",
            Self::UnansweredSessions(_) => "UnansweredSessions",
            Self::Requests(_) => "Requests",
        }
    }

    /// The metric's unit in CloudWatch.
    pub fn unit(self) -> &'static str {
        "Count"
    }

    /// Whether it is also summed over all functions of the stage: what the books are made of, and what no function has to itself.
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
            | Self::UnansweredSessions(reason) => Some(("Reason", reason)),
            Self::FieldDifferences(field) => Some(("Field", field)),
            _ => None,
        }
    }
}

/// Where the metrics of one function go. Made once; [`Emitter::start`] makes each invocation's recorder.
#[derive(Clone)]
pub struct Emitter {
    stage: Arc<str>,
    function: Arc<str>,
    write: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Emitter {
    /// Metrics as lines on stdout, which Lambda carries to CloudWatch Logs.
    pub fn stdout(stage: &str, function: &str) -> Self {
        Self::to(stage, function, |lines| {
            // One write of whole lines under stdout's lock, so that no log line lands inside of one.
            if let Err(error) = std::io::stdout().lock().write_all(lines.as_bytes()) {
                tracing::error!(%error, "metrics could not be written");
            }
        })
    }

    /// Metrics as lines, each ended by a newline, handed to `write` once an invocation.
    pub fn to(stage: &str, function: &str, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { stage: stage.into(), function: function.into(), write: Arc::new(write) }
    }

    /// A recorder for one invocation that began at `now_ms` (Unix milliseconds).
    pub fn start(&self, now_ms: u64) -> Metrics {
        Metrics { emitter: self.clone(), timestamp_ms: now_ms, counts: Mutex::default() }
    }
}

/// The oldest and the newest timestamp that a metric may have, as distances from now. CloudWatch takes up to two weeks and up to two
/// hours (API reference of `PutMetricData`, which EMF's documents end in); an hour is kept back for the way there.
const OLDEST_MS: u64 = (14 * 24 - 1) * 3_600_000;
const NEWEST_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// The counts of one invocation. Shared by reference among its concurrent parts; written when dropped.
#[must_use = "metrics are written when the recorder is dropped, which should be at the end of the invocation"]
pub struct Metrics {
    emitter: Emitter,
    timestamp_ms: u64,
    /// By the timestamp that they are written with.
    counts: Mutex<BTreeMap<(u64, Metric), u64>>,
}

impl Metrics {
    /// Counts `n` more of `metric` now. Nothing is written for what was never counted above zero.
    pub fn add(&self, metric: Metric, n: u64) {
        self.add_stamped(self.timestamp_ms, metric, n);
    }

    /// Counts `n` more of `metric` in the minute of `at_ms` (Unix milliseconds): for what belongs to a time other than now.
    /// A time that CloudWatch would refuse counts at the nearest that it takes, since a count at the wrong minute is
    /// better than a document that is dropped without a word.
    pub fn add_at(&self, at_ms: u64, metric: Metric, n: u64) {
        let (oldest, newest) =
            (self.timestamp_ms.saturating_sub(OLDEST_MS), self.timestamp_ms.saturating_add(NEWEST_MS));
        let at_ms = at_ms.clamp(oldest, newest);
        self.add_stamped(at_ms - at_ms % MINUTE_MS, metric, n);
    }

    fn add_stamped(&self, timestamp_ms: u64, metric: Metric, n: u64) {
        if n > 0 {
            *self.counts().entry((timestamp_ms, metric)).or_default() += n;
        }
    }

    /// What was counted of `metric` so far, at whatever time.
    pub fn count(&self, metric: Metric) -> u64 {
        self.counts().iter().filter(|((_, counted), _)| *counted == metric).map(|(_, n)| n).sum()
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u64, Metric), u64>> {
        // A panic elsewhere leaves whole numbers behind: they are still to be reported.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The EMF documents: for each timestamp one for the plain metrics, and one for each distinct value of a third dimension.
    fn lines(&self) -> serde_json::Result<String> {
        let counts = self.counts();
        let mut documents = BTreeMap::<_, Vec<_>>::new();
        for ((timestamp_ms, metric), n) in counts.iter() {
            documents.entry((*timestamp_ms, metric.dimension())).or_default().push((*metric, *n));
        }
        let mut lines = String::new();
        for ((timestamp_ms, extra), metrics) in documents {
            let document =
                Document { timestamp_ms, stage: &self.emitter.stage, function: &self.emitter.function, extra, metrics };
            lines.push_str(&serde_json::to_string(&document)?);
            lines.push('\n');
        }
        Ok(lines)
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        match self.lines() {
            Ok(lines) if lines.is_empty() => {}
            Ok(lines) => (self.emitter.write)(&lines),
            Err(error) => tracing::error!(%error, "metrics could not be serialised"),
        }
    }
}

/// One EMF document. It holds at most one entry a [`Metric`] variant, well under the format's limit of 100.
struct Document<'a> {
    timestamp_ms: u64,
    stage: &'a str,
    function: &'a str,
    extra: Option<(&'a str, &'a str)>,
    metrics: Vec<(Metric, u64)>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    timestamp: u64,
    cloud_watch_metrics: Vec<Directive<'a>>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'a str,
    dimensions: Vec<Vec<&'a str>>,
    metrics: Vec<Definition>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: &'static str,
    unit: &'static str,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extra = self.extra.map(|(name, _)| vec!["Stage", "Function", name]);
        let dimensions = [vec!["Stage", "Function"]].into_iter().chain(extra).collect();
        let directive = |dimensions, is_in: fn(Metric) -> bool| {
            let metrics = self.metrics.iter().filter(|(metric, _)| is_in(*metric));
            let metrics = metrics.map(|(metric, _)| Definition { name: metric.name(), unit: metric.unit() }).collect();
            Directive { namespace: NAMESPACE, dimensions, metrics }
        };
        let of_stage = directive(vec![vec!["Stage"]], Metric::is_of_stage);
        let mut directives = vec![directive(dimensions, |_| true)];
        directives.extend((!of_stage.metrics.is_empty()).then_some(of_stage));
        let metadata = Metadata { timestamp: self.timestamp_ms, cloud_watch_metrics: directives };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("_aws", &metadata)?;
        map.serialize_entry("Stage", self.stage)?;
        map.serialize_entry("Function", self.function)?;
        if let Some((name, value)) = self.extra {
            map.serialize_entry(name, value)?;
        }
        for (metric, n) in &self.metrics {
            map.serialize_entry(metric.name(), n)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
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
    fn one_document_for_plain_metrics_and_one_for_each_value_of_a_third_dimension() {
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
    fn what_belongs_to_another_minute_is_stamped_with_it_within_what_cloudwatch_takes() {
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
        assert_eq!(documents.len(), 5, "one for each minute and set of dimensions");
    }

    #[test]
    fn an_invocation_that_counted_nothing_writes_nothing() {
        let (emitter, lines) = recording();
        drop(emitter.start(0));
        assert!(lines.lock().unwrap().is_empty());
    }

    #[test]
    fn counts_are_written_when_the_handler_fails_and_when_it_panics() {
        let (emitter, lines) = recording();
        let failing = || -> Result<(), &str> {
            let metrics = emitter.start(0);
            metrics.add(Metric::ViewReads, 1);
            Err("the store is away")
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

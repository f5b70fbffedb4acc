//! The dashboard: four questions from top to bottom, then what only some stacks have. Each section
//! begins with its question and says where to look next.

use http::StatusCode;
use lambda::metrics::{Metric, NAMESPACE};
use serde_json::{Map, Value, json};

use crate::parameters::OPTIONAL;
use crate::series::{
    Series, VIEWS, api, bytes_in, lambda, lambda_lag, of, of_stage, sqs, throttled, units, units_of_index,
};

/// CloudWatch's grid has so many columns.
const COLUMNS: u32 = 24;
const HEIGHT: u32 = 6;
const TEXT_HEIGHT: u32 = 2;

/// A heading with what belongs under it.
#[derive(Debug)]
pub struct Section {
    /// A question, for the first four.
    pub title: &'static str,
    /// What a good answer looks like, and where to look next. Markdown.
    pub text: &'static str,
    /// Its widgets, in rows of `COLUMNS`.
    pub widgets: Vec<Widget>,
}

/// A graph, or the newest values as numbers.
#[derive(Debug)]
pub struct Widget {
    title: &'static str,
    width: u32,
    /// What the left axis counts.
    unit: &'static str,
    numbers: bool,
    lines: Vec<Line>,
}

/// A line of a graph.
#[derive(Debug)]
enum Line {
    Series {
        series: Series,
        label: String,
        right: bool,
        /// For expressions. Without a label it is not shown.
        id: Option<&'static str>,
    },
    Math {
        id: &'static str,
        label: &'static str,
        expression: String,
        is_alarming: bool,
    },
}

impl Widget {
    fn right(mut self, from: usize) -> Self {
        for line in self.lines.iter_mut().skip(from) {
            if let Line::Series { right, .. } = line {
                *right = true;
            }
        }
        self
    }

    /// Takes this statistic of every line so far.
    fn statistic(mut self, statistic: &'static str) -> Self {
        for line in &mut self.lines {
            if let Line::Series { series, .. } = line {
                series.statistic = statistic;
            }
        }
        self
    }

    fn with(mut self, lines: impl IntoIterator<Item = (String, Series)>) -> Self {
        let line = |(label, series)| Line::Series { series, label, right: false, id: None };
        self.lines.extend(lines.into_iter().map(line));
        self
    }

    fn and(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    fn json(&self, x: u32, y: u32) -> Value {
        let mut properties = json!({
            "title": self.title,
            "region": "${AWS::Region}",
            "view": if self.numbers { "singleValue" } else { "timeSeries" },
            "period": 60,
            "metrics": self.lines.iter().map(Line::json).collect::<Vec<_>>(),
        });
        if self.numbers {
            // Of all that is shown, not of the last minute.
            properties["setPeriodToTimeRange"] = json!(true);
        } else {
            let axis = |label: &str| json!({ "label": label, "showUnits": false, "min": 0 });
            properties["yAxis"] = json!({ "left": axis(self.unit) });
        }
        json!({ "type": "metric", "x": x, "y": y, "width": self.width, "height": HEIGHT, "properties": properties })
    }
}

impl Line {
    fn json(&self) -> Value {
        match self {
            Self::Series { series, label, right, id } => {
                let mut parts = vec![json!(series.namespace), json!(series.name)];
                parts.extend(series.dimensions.iter().flat_map(|(name, value)| [json!(name), json!(value.in_text())]));
                let mut options = Map::new();
                options.insert("stat".to_owned(), json!(series.statistic));
                match label.as_str() {
                    "" => options.insert("visible".to_owned(), json!(false)),
                    label => options.insert("label".to_owned(), json!(label)),
                };
                options.extend(id.map(|id| ("id".to_owned(), json!(id))));
                options.extend(right.then(|| ("yAxis".to_owned(), json!("right"))));
                parts.push(Value::Object(options));
                Value::Array(parts)
            }
            Self::Math { id, label, expression, is_alarming } => {
                let mut math = json!({ "id": id, "label": label, "expression": expression });
                if *is_alarming {
                    math["color"] = json!("#d62728");
                }
                json!([math])
            }
        }
    }
}

fn widget<'a>(
    title: &'static str,
    width: u32,
    unit: &'static str,
    lines: impl IntoIterator<Item = (&'a str, Series)>,
) -> Widget {
    let lines = lines.into_iter().map(|(label, series)| (label.to_owned(), series));
    Widget { title, width, unit, numbers: false, lines: Vec::new() }.with(lines)
}

/// The sums of the shown time as numbers.
fn numbers<'a>(title: &'static str, width: u32, lines: impl IntoIterator<Item = (&'a str, Series)>) -> Widget {
    Widget { numbers: true, ..widget(title, width, "", lines) }
}

/// A series that expressions use. It is shown if it has a label.
fn named(id: &'static str, label: &str, series: Series) -> Line {
    Line::Series { series, label: label.to_owned(), right: false, id: Some(id) }
}

fn math(id: &'static str, label: &'static str, expression: impl Into<String>) -> Line {
    Line::Math { id, label, expression: expression.into(), is_alarming: false }
}

/// The values of a metric's third dimension, each as a line.
fn by(metric: Metric, id: &'static str, label: &'static str, function: Option<&str>) -> Line {
    let dimension = metric.dimension().map_or("", |(name, _)| name);
    let function = function.map(|name| format!(" Function=\"${{{name}}}\"")).unwrap_or_default();
    let name = metric.name();
    math(
        id,
        label,
        format!(
            "SEARCH('{{{NAMESPACE},Stage,Function,{dimension}}} MetricName=\"{name}\" Stage=\"${{Stage}}\"{function}', \
             'Sum', 60)"
        ),
    )
}

/// What Lambda's mappings count, over all of them.
fn mapped(name: &str, id: &'static str, label: &'static str) -> Line {
    math(
        id,
        label,
        format!(
            "SUM(SEARCH('{{AWS/Lambda,EventSourceMappingUUID}} MetricName=\"{name}\" \
             EventSourceMappingUUID=(\"${{Mappings}}\")', 'Sum', 60))"
        ),
    )
}

/// What the brokers of a cluster take in each second, all topics together. MSK measures it by
/// broker.
fn broker_bytes(cluster: &str, id: &'static str, label: &'static str) -> Line {
    math(
        id,
        label,
        format!(
            "SUM(SEARCH('{{AWS/Kafka,\"Broker ID\",\"Cluster Name\"}} MetricName=\"BytesInPerSec\" \
             \"Cluster Name\"=\"${{{cluster}}}\"', 'Average', 60))"
        ),
    )
}

const INGEST: &str = "IngestFunction";
const PROCESS: &str = "ProcessFunction";
const RETRY: &str = "RetryFunction";
const QUERY: &str = "QueryFunction";
const FORWARD: &str = "ForwardFunction";
const PUBLISH: &str = "PublishFunction";
const CANDIDATE: &str = "ProcessCandidateFunction";
const COMPARE: &str = "CompareFunction";

/// What the dashboard calls the clusters: their names, which are a part of their ARNs.
const CLUSTER: &str = "Cluster";
const STANDBY_CLUSTER: &str = "StandbyCluster";

/// The functions of every stack, and the two that some have.
const FUNCTIONS: [(&str, &str); 6] = [
    ("ingest", INGEST),
    ("process", PROCESS),
    ("retry", RETRY),
    ("query", QUERY),
    ("forward", FORWARD),
    ("publish", PUBLISH),
];

fn of_functions(name: &'static str) -> impl Iterator<Item = (&'static str, Series)> {
    FUNCTIONS.into_iter().map(move |(label, function)| (label, lambda(name, function)))
}

/// Every section, from top to bottom.
pub fn sections() -> Vec<Section> {
    vec![served(), lost(), behind(), cost(), regions(), migration(), feed()]
}

fn served() -> Section {
    let latency = |percentile| (percentile, Series { statistic: percentile, ..api("Latency") });
    let answers = Metric::Requests(StatusCode::OK);
    let status = "${!PROP('Dim.Code')}";
    Section {
        title: "Are members served?",
        text: "Good: no 5xx, p99 in its usual range. A 503 of ingest means that no log takes events: look at *Standby and \
               circuit*. A 503 of query means the store: look at *Throttles*. Runbook: ApiErrorsAlarm, \
               IngestUnavailableAlarm.",
        widgets: vec![
            numbers(
                "In the time shown",
                6,
                [
                    ("requests", api("Count")),
                    ("answered 5xx", api("5xx")),
                    ("events accepted", of_stage(Metric::EventsAccepted)),
                    ("of these, adjusted", of(Metric::EventsAdjusted, INGEST)),
                ],
            ),
            widget("API latency", 9, "ms", ["p50", "p99", "p99.9"].map(latency)),
            widget("Function duration, p99", 9, "ms", of_functions("Duration")).statistic("p99"),
            widget("Ingest answers by status", 8, "requests", []).and(by(answers, "answers", status, Some(INGEST))),
            widget("Query answers by status", 8, "requests", []).and(by(answers, "read", status, Some(QUERY))),
            widget("Rejected events by code", 8, "events", []).and(by(
                Metric::EventsRejected(""),
                "rejected",
                status,
                None,
            )),
            widget("Function errors and timeouts", 12, "invocations", of_functions("Errors")),
            widget(
                "Standby and circuit",
                12,
                "records",
                [
                    ("records appended", of(Metric::RecordsAppended, INGEST)),
                    ("of these, on the standby", of(Metric::RecordsOnStandby, INGEST)),
                    ("accepted by no log", of(Metric::AppendErrors, INGEST)),
                    ("circuits opened", of(Metric::CircuitOpened, INGEST)),
                    ("circuits closed", of(Metric::CircuitClosed, INGEST)),
                ],
            )
            .right(3),
        ],
    }
}

fn lost() -> Section {
    let books = widget("The books, by minute of acceptance", 16, "events", [])
        .and(named("accepted", "accepted", of_stage(Metric::EventsAccepted)))
        .and(named("arrived", "arrived from other regions", of_stage(Metric::EventsArrived)))
        .and(named("applied", "applied", of_stage(Metric::EventsApplied)))
        .and(named("duplicate", "duplicates", of_stage(Metric::EventsDuplicate)))
        .and(named("forwarded", "forwarded to other regions", of_stage(Metric::EventsForwarded)))
        .and(named("deaths", "", of_stage(Metric::EventsDead(""))))
        .and(named("redriven", "", of_stage(Metric::EventsRedriven)))
        .and(math("dead", "dead", "FILL(deaths, 0) - FILL(redriven, 0)"))
        .and(Line::Math {
            id: "loss",
            label: "in flight or lost",
            expression: "FILL(accepted, 0) + FILL(arrived, 0) - FILL(applied, 0) - FILL(duplicate, 0) - \
                         FILL(forwarded, 0) - dead"
                .to_owned(),
            is_alarming: true,
        });
    let reason = "${!PROP('MetricName')} ${!PROP('Dim.Reason')}";
    Section {
        title: "Is anything lost?",
        text: "Good: the red line falls to zero within minutes, no dead letters, nothing given up. If it stays, look at \
               *How far behind?* first: what waits is not lost. Then `cargo playhead books`. Holes are events that were \
               lost before they reached us. Runbook: LossAlarm, DeadLettersAlarm, FailureDestinationAlarm.",
        widgets: vec![
            books,
            widget(
                "Holes in ended sessions and unclaimed events",
                8,
                "events",
                [
                    ("holes opened", of(Metric::HolesOpened, PROCESS)),
                    ("holes closed", of(Metric::HolesClosed, PROCESS)),
                    ("holes closed by retry", of(Metric::HolesClosed, RETRY)),
                    ("unclaimed", of(Metric::EventsUnclaimed, INGEST)),
                ],
            ),
            widget("Dead records by reason", 8, "records", []).and(by(Metric::RecordsDead(""), "dead", reason, None)),
            widget(
                "Dead letters",
                8,
                "messages",
                [("messages", sqs("ApproximateNumberOfMessagesVisible", "DeadLetterQueue"))],
            ),
            widget("Records and messages in the mappings", 8, "records, messages", [])
                .and(mapped("PolledEventCount", "polled", "read"))
                .and(mapped("FailedInvokeEventCount", "failed", "failed, to be redelivered"))
                .and(mapped("OnFailureDestinationDeliveredEventCount", "bucket", "given up into the failure bucket"))
                .and(mapped("DroppedEventCount", "dropped", "dropped")),
        ],
    }
}

fn behind() -> Section {
    let reason = "${!PROP('Dim.Function')} ${!PROP('Dim.Reason')}";
    let through = |label, metric, function| (label, of(metric, function));
    Section {
        title: "How far behind?",
        text: "Good: lag of seconds, queues near empty. A growing lag with *failed* records means the store or our code; \
               without them, too few pollers or executions. Runbook: LogLagAlarm, RetryAgeAlarm, StoreThrottledAlarm.",
        widgets: vec![
            widget(
                "Lag of the log",
                8,
                "records",
                [
                    ("Kafka, records", lambda_lag("OffsetLag", PROCESS)),
                    ("Kinesis, ms", lambda_lag("IteratorAge", PROCESS)),
                ],
            )
            .right(1),
            widget(
                "Age of the oldest message",
                8,
                "seconds",
                [
                    ("received by retry", of(Metric::OldestMessageAge, RETRY)),
                    ("received by process", of(Metric::OldestMessageAge, PROCESS)),
                    ("unread on retry", sqs("ApproximateAgeOfOldestMessage", "RetryQueue")),
                    ("unread on inbound", sqs("ApproximateAgeOfOldestMessage", "InboundQueue")),
                    ("dead-letter", sqs("ApproximateAgeOfOldestMessage", "DeadLetterQueue")),
                ],
            ),
            widget(
                "Messages",
                8,
                "messages",
                [
                    ("retry", sqs("ApproximateNumberOfMessagesVisible", "RetryQueue")),
                    ("inbound", sqs("ApproximateNumberOfMessagesVisible", "InboundQueue")),
                ],
            ),
            widget(
                "Records through process and retry",
                8,
                "records",
                [
                    through("process: received", Metric::RecordsReceived, PROCESS),
                    through("process: settled", Metric::RecordsSettled, PROCESS),
                    through("retry: received", Metric::RecordsReceived, RETRY),
                    through("retry: settled", Metric::RecordsSettled, RETRY),
                    through("process: events sent to retry", Metric::EventsRetried, PROCESS),
                ],
            ),
            widget("Retried records by cause", 8, "records", []).and(by(
                Metric::RecordsRetried(""),
                "retried",
                reason,
                None,
            )),
            widget("Failed records by cause", 8, "records", []).and(by(
                Metric::RecordsFailed(""),
                "failures",
                reason,
                None,
            )),
            widget(
                "Throttles",
                12,
                "calls",
                [
                    ("DynamoDB, process", of(Metric::Throttles, PROCESS)),
                    ("DynamoDB, retry", of(Metric::Throttles, RETRY)),
                ],
            )
            .with(FUNCTIONS.map(|(name, function)| (format!("Lambda, {name}"), lambda("Throttles", function))))
            .with([
                ("Kinesis, primary".to_owned(), throttled("EventsStream")),
                ("Kinesis, standby".to_owned(), throttled("StandbyStream")),
                ("Kinesis, primary for other regions".to_owned(), throttled("RemoteStream")),
                ("Kinesis, standby for other regions".to_owned(), throttled("RemoteStandbyStream")),
            ]),
            widget("Concurrent executions", 12, "executions", of_functions("ConcurrentExecutions"))
                .statistic("Maximum"),
        ],
    }
}

fn cost() -> Section {
    Section {
        title: "What does it cost?",
        text: "What AWS bills follows from these: units of the table, invocations and their duration, bytes on the logs, \
               requests to the API. Good: writes per event stay well below one. If they rise, batches got smaller, or many \
               functions write one session (lost races). See docs/cost.md.",
        widgets: vec![
            widget("Store writes per event", 8, "writes", [])
                .and(named("writes", "", of(Metric::ViewWrites, PROCESS)))
                .and(named("events", "", of_stage(Metric::EventsApplied)))
                .and(math("ratio", "writes per applied event", "writes / events")),
            widget(
                "Store calls",
                8,
                "calls",
                [
                    ("conditional writes", of(Metric::ViewWrites, PROCESS)),
                    ("reads", of(Metric::ViewReads, PROCESS)),
                    ("lost races", of(Metric::LostRaces, PROCESS)),
                    ("conditional writes of retry", of(Metric::ViewWrites, RETRY)),
                ],
            ),
            widget(
                "Units of the table",
                8,
                "units",
                [
                    ("write units", units("ConsumedWriteCapacityUnits")),
                    ("write units of the index", units_of_index("ConsumedWriteCapacityUnits")),
                    ("read units", units("ConsumedReadCapacityUnits")),
                    ("read units of the index", units_of_index("ConsumedReadCapacityUnits")),
                ],
            ),
            widget("Invocations", 8, "invocations", of_functions("Invocations")),
            widget("Time of all executions", 8, "ms", of_functions("Duration")).statistic("Sum"),
            widget(
                "Bytes on the logs and the feed",
                8,
                "bytes per minute",
                [
                    ("Kinesis, primary", bytes_in("EventsStream")),
                    ("Kinesis, standby", bytes_in("StandbyStream")),
                    ("Kinesis, primary for other regions", bytes_in("RemoteStream")),
                    ("Kinesis, standby for other regions", bytes_in("RemoteStandbyStream")),
                    ("change feed", bytes_in("ViewChangesStream")),
                ],
            )
            .and(broker_bytes(CLUSTER, "primary", "brokers, primary, bytes per second"))
            .and(broker_bytes(STANDBY_CLUSTER, "standby", "brokers, standby, bytes per second")),
        ],
    }
}

fn regions() -> Section {
    Section {
        title: "Regions",
        text: "Only with several regions. Good: as much is forwarded here as arrives elsewhere, and the lag is seconds. \
               Runbook: ForwardLagAlarm, ForwardAgeAlarm, InboundAgeAlarm, RoutingAlarm.",
        widgets: vec![
            widget(
                "Between regions",
                6,
                "events",
                [("forwarded", of_stage(Metric::EventsForwarded)), ("arrived", of_stage(Metric::EventsArrived))],
            ),
            widget(
                "Messages to other regions",
                6,
                "requests, records",
                [
                    ("SQS requests", of(Metric::ForwardRequests, FORWARD)),
                    ("records in these", of(Metric::RecordsForwarded, FORWARD)),
                    ("bytes", of(Metric::ForwardBytes, FORWARD)),
                ],
            )
            .right(2),
            widget(
                "Lag of the logs for other regions",
                6,
                "records",
                [
                    ("Kafka, records", lambda_lag("OffsetLag", FORWARD)),
                    ("Kinesis, ms", lambda_lag("IteratorAge", FORWARD)),
                ],
            )
            .right(1),
            widget("Routing document errors by reason", 6, "errors", []).and(by(
                Metric::RoutingErrors(""),
                "routing",
                "${!PROP('Dim.Function')} ${!PROP('Dim.Reason')}",
                None,
            )),
        ],
    }
}

fn migration() -> Section {
    let answers = Metric::LegacyRequests(StatusCode::OK);
    Section {
        title: "Migration",
        text: "Only while a legacy system is replaced or a candidate is tried. Good: sessions match, hardly an event of \
               a shadow is missed or dropped. Runbook: LegacyAlarm, MatchRateAlarm, ShadowMissedAlarm.",
        widgets: vec![
            widget("Legacy system answers by status", 6, "requests", []).and(by(
                answers,
                "legacy",
                "${!PROP('Dim.Code')}",
                None,
            )),
            widget(
                "Shadows",
                6,
                "events",
                [
                    ("appended", of(Metric::ShadowAppended, INGEST)),
                    ("missed", of(Metric::ShadowMissed, INGEST)),
                    ("applied", of(Metric::ShadowApplied, PROCESS)),
                    ("duplicates", of(Metric::ShadowDuplicate, PROCESS)),
                    ("dropped", of(Metric::ShadowDropped, PROCESS)),
                    ("records dropped", of(Metric::RecordsDropped, PROCESS)),
                    ("applied by the candidate", of(Metric::ShadowApplied, CANDIDATE)),
                    ("dropped by the candidate", of(Metric::ShadowDropped, CANDIDATE)),
                ],
            ),
            widget(
                "Compared sessions",
                6,
                "sessions",
                [
                    ("compared", of(Metric::ComparedSessions, COMPARE)),
                    ("matching", of(Metric::MatchedSessions, COMPARE)),
                    ("only in the shadow", of(Metric::MissingLive, COMPARE)),
                    ("not in the shadow", of(Metric::MissingShadow, COMPARE)),
                    ("parts, not compared", of(Metric::PartialSessions, COMPARE)),
                ],
            ),
            widget("Differences by field, unanswered sessions by reason", 6, "sessions", [])
                .and(by(Metric::FieldDifferences(""), "fields", "${!PROP('Dim.Field')}", None))
                .and(by(Metric::UnansweredSessions(""), "unanswered", "unanswered: ${!PROP('Dim.Reason')}", None)),
        ],
    }
}

fn feed() -> Section {
    let reason = "${!PROP('MetricName')} ${!PROP('Dim.Reason')}";
    Section {
        title: "Change feed",
        text: "Good: as many changes published as received, seconds behind. Histories do not depend on it. Runbook: \
               FeedBehindAlarm, PublishFailedAlarm, PublishErrorsAlarm, FeedThrottledAlarm.",
        widgets: vec![
            widget(
                "Changes",
                8,
                "changes",
                [
                    ("received", of(Metric::ChangesReceived, PUBLISH)),
                    ("published", of(Metric::ChangesPublished, PUBLISH)),
                    ("refused by the stream", throttled("ViewChangesStream")),
                ],
            ),
            widget("Behind the table", 8, "ms", [("age of the oldest change", lambda_lag("IteratorAge", PUBLISH))]),
            widget("Failed and dead changes by reason", 8, "changes", [])
                .and(by(Metric::ChangesFailed(""), "failed", reason, None))
                .and(by(Metric::ChangesDead(""), "dead", reason, None)),
        ],
    }
}

/// The dashboard's JSON, with the names of the template's parameters in it.
fn body() -> String {
    let (mut y, mut widgets) = (0, Vec::new());
    for Section { title, text, widgets: inner } in sections() {
        let markdown = format!("## {title}\n{text}");
        widgets.push(json!({
            "type": "text", "x": 0, "y": y, "width": COLUMNS, "height": TEXT_HEIGHT,
            "properties": { "markdown": markdown },
        }));
        y += TEXT_HEIGHT;
        let mut x = 0;
        for widget in &inner {
            if x + widget.width > COLUMNS {
                (x, y) = (0, y + HEIGHT);
            }
            widgets.push(widget.json(x, y));
            x += widget.width;
        }
        y += HEIGHT;
    }
    let lines: Vec<String> = widgets.iter().map(Value::to_string).collect();
    format!("{{\"start\": \"-PT3H\", \"widgets\": [\n{}\n]}}", lines.join(",\n"))
}

pub(crate) fn resource() -> Value {
    // Things that do not exist have no metrics: their lines stay empty.
    let optional =
        OPTIONAL.map(|(name, condition)| (name.to_owned(), json!({ "Fn::If": [condition, { "Ref": name }, "none"] })));
    let name = |arn: &str| json!({ "Fn::Select": [1, { "Fn::Split": ["/", { "Ref": arn }] }] });
    let cluster = |condition: &str, arn: &str| json!({ "Fn::If": [condition, name(arn), "none"] });
    let views = json!({ "Fn::If": ["OwnsViewsTable", { "Ref": "ViewsTable" }, { "Ref": "ViewsTableName" }] });
    let named = [
        (VIEWS, views),
        (CLUSTER, cluster("HasCluster", "KafkaClusterArn")),
        (STANDBY_CLUSTER, cluster("HasStandbyCluster", "StandbyKafkaClusterArn")),
    ];
    let named = named.map(|(name, value)| (name.to_owned(), value));
    let optional: Map<String, Value> = optional.into_iter().chain(named).collect();
    json!({
        "Type": "AWS::CloudWatch::Dashboard",
        "Properties": {
            "DashboardName": { "Ref": "DashboardName" },
            "DashboardBody": { "Fn::Sub": [body(), optional] },
        },
    })
}

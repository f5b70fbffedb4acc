//! Alarms and the dashboard: that they watch what is really written, and tell their reader what to do.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use lambda::metrics::{Metric, NAMESPACE};
use playback::outcome::{Cause, Reason};
use serde_json::{Value, json};

use super::choice::Choice;
use super::{of_type, properties, strings, template};

/// The metrics of ours that an alarm or the dashboard may name, by the functions that write them.
fn ours() -> BTreeMap<&'static str, (Metric, &'static [&'static str])> {
    const APPLIES: &[&str] = &["ProcessFunction", "RetryFunction"];
    const TAKES_IN: &[&str] = &["IngestFunction"];
    let dead = Reason::ALL[0].as_str();
    let cause = Cause::ALL[0].as_str();
    [
        (Metric::EventsAccepted, TAKES_IN),
        (Metric::EventsRejected("json_malformed"), TAKES_IN),
        (Metric::EventsUnclaimed, TAKES_IN),
        (Metric::RecordsAppended, TAKES_IN),
        (Metric::RecordsOnStandby, TAKES_IN),
        (Metric::AppendErrors, TAKES_IN),
        (Metric::CircuitOpened, TAKES_IN),
        (Metric::CircuitClosed, TAKES_IN),
        (Metric::Requests(StatusCode::SERVICE_UNAVAILABLE), &["IngestFunction", "QueryFunction"]),
        (Metric::EventsApplied, APPLIES),
        (Metric::EventsDuplicate, APPLIES),
        (Metric::EventsDead(dead), APPLIES),
        (Metric::EventsRetried, APPLIES),
        (Metric::EventsRedriven, &["RetryFunction"]),
        (Metric::RecordsDead(dead), APPLIES),
        (Metric::RecordsRetried(cause), APPLIES),
        (Metric::RecordsFailed(cause), APPLIES),
        (Metric::HolesOpened, APPLIES),
        (Metric::HolesClosed, APPLIES),
        (Metric::ViewWrites, APPLIES),
        (Metric::ViewReads, APPLIES),
        (Metric::LostRaces, APPLIES),
        (Metric::Throttles, APPLIES),
    ]
    .into_iter()
    .map(|(metric, functions)| (metric.name(), (metric, functions)))
    .collect()
}

/// The metrics of AWS that are watched: namespace, dimensions, names. From the developer guides of Lambda ("Types of metrics"),
/// SQS, Kinesis, S3 and API Gateway ("metrics for HTTP APIs").
const OF_AWS: [(&str, &[&str], &[&str]); 5] = [
    (
        "AWS/Lambda",
        &["FunctionName"],
        &["Errors", "Throttles", "Duration", "OffsetLag", "IteratorAge", "DestinationDeliveryFailures"],
    ),
    ("AWS/SQS", &["QueueName"], &["ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"]),
    ("AWS/Kinesis", &["StreamName"], &["WriteProvisionedThroughputExceeded"]),
    ("AWS/S3", &["BucketName", "StorageType"], &["NumberOfObjects"]),
    ("AWS/ApiGateway", &["ApiId", "Stage"], &["5xx", "Count", "Latency"]),
];

/// That a metric exists, with these dimensions. `who` names the function of one of ours.
#[track_caller]
fn exists(namespace: &str, name: &str, dimensions: &[String], who: Option<&str>, place: &str) {
    if namespace != NAMESPACE {
        let known =
            OF_AWS.iter().any(|(of, with, names)| *of == namespace && *with == dimensions && names.contains(&name));
        assert!(known, "{place}: {namespace} has no {name} with {dimensions:?}");
        return;
    }
    let ours = ours();
    let (metric, functions) = ours.get(name).unwrap_or_else(|| panic!("{place}: there is no metric {name}"));
    // With its third dimension, or as the sum over that.
    let plain = vec!["Stage".to_owned(), "Function".to_owned()];
    let third = metric.dimension().map(|(name, _)| [plain.clone(), vec![name.to_owned()]].concat());
    assert!(*dimensions == plain || Some(dimensions) == third.as_deref(), "{place}: {name} has not {dimensions:?}");
    if let Some(who) = who {
        assert!(functions.contains(&who), "{place}: {who} does not write {name}");
    }
}

/// Each metric that an alarm takes: its namespace, its name, its dimensions.
fn metrics_of(alarm: &Value) -> Vec<&Value> {
    match alarm["Metrics"].as_array() {
        Some(queries) => queries.iter().filter_map(|query| query["MetricStat"].get("Metric")).collect(),
        None => vec![alarm],
    }
}

#[test]
fn every_alarm_says_what_it_means_and_what_to_do_and_tells_the_topic() {
    let template = template();
    let to_topic = json!({ "Fn::If": ["HasAlarmTopic", [{ "Ref": "AlarmTopicArn" }], { "Ref": "AWS::NoValue" }] });
    for (id, alarm) in of_type(&template, "AWS::CloudWatch::Alarm") {
        assert!(id.ends_with("Alarm"), "{id}");
        let description = alarm["AlarmDescription"].as_str().unwrap_or_else(|| panic!("{id} has no description"));
        let (meaning, advice) =
            description.split_once(" Do: ").unwrap_or_else(|| panic!("{id} does not say what to do"));
        assert!(meaning.len() > 40 && advice.len() > 40, "{id}: {description}");
        assert!(description.len() <= 1_024, "{id}: CloudWatch takes 1,024 characters, not {}", description.len());
        for actions in ["AlarmActions", "OKActions"] {
            assert_eq!(alarm[actions], to_topic, "{id}");
        }
        let treated = alarm["TreatMissingData"].as_str();
        assert!(
            treated.is_some_and(|how| ["notBreaching", "ignore"].contains(&how)),
            "{id}: no data is not decided on"
        );
    }
}

#[test]
fn every_alarm_watches_metrics_that_are_written() {
    let template = template();
    for (id, alarm) in of_type(&template, "AWS::CloudWatch::Alarm") {
        let metrics = metrics_of(&alarm);
        assert!((1..=10).contains(&metrics.len()), "{id}: an alarm takes 10 metrics at most");
        for metric in metrics {
            let dimensions = metric["Dimensions"].as_array().unwrap();
            let names: Vec<String> = dimensions.iter().flat_map(|dimension| strings(&dimension["Name"])).collect();
            let who = dimensions.iter().find(|dimension| dimension["Name"] == "Function");
            let who = who.map(|dimension| dimension["Value"]["Ref"].as_str().unwrap());
            let (namespace, name) = (metric["Namespace"].as_str().unwrap(), metric["MetricName"].as_str().unwrap());
            exists(namespace, name, &names, who, &id);
            let stage = dimensions.iter().find(|dimension| dimension["Name"] == "Stage").map(|one| &one["Value"]);
            let expected = if namespace == NAMESPACE { json!({"Ref": "Stage"}) } else { json!("$default") };
            assert!(stage.is_none_or(|stage| *stage == expected), "{id}: {stage:?}");
        }
        let queries = alarm["Metrics"].as_array().into_iter().flatten();
        let answers = queries.filter(|query| query["ReturnData"] == true).count();
        assert_eq!(answers, usize::from(alarm.get("Metrics").is_some()), "{id}: one expression is watched");
        let expressions =
            alarm["Metrics"].as_array().into_iter().flatten().filter_map(|query| query["Expression"].as_str());
        assert!(!expressions.into_iter().any(|text| text.contains("SEARCH")), "{id}: an alarm cannot search");
        // What is watched at all is within a day.
        let period = alarm["Period"].as_u64().or_else(|| alarm["Metrics"][0]["MetricStat"]["Period"].as_u64()).unwrap();
        assert!(period * alarm["EvaluationPeriods"].as_u64().unwrap() <= 86_400, "{id}");
    }
}

#[test]
fn the_loss_alarm_takes_every_way_in_which_an_accepted_event_ends() {
    let alarm = properties(&template(), "LossAlarm");
    let taken: BTreeSet<(&str, &str)> = metrics_of(&alarm)
        .into_iter()
        .map(|metric| {
            (metric["MetricName"].as_str().unwrap(), metric["Dimensions"][1]["Value"]["Ref"].as_str().unwrap())
        })
        .collect();
    let ended = ["EventsApplied", "EventsDuplicate", "EventsDead"];
    let ended = ended.iter().flat_map(|name| [(*name, "ProcessFunction"), (*name, "RetryFunction")]);
    let others = [("EventsAccepted", "IngestFunction"), ("EventsRedriven", "RetryFunction")];
    assert_eq!(taken, ended.chain(others).collect());
    // Each but what was accepted is taken away, and counts as zero where there is none; what was redriven has died in vain.
    let queries = alarm["Metrics"].as_array().unwrap();
    let expression = |id: &str| queries.iter().find(|query| query["Id"] == id).unwrap()["Expression"].as_str().unwrap();
    let (ended, redriven) = expression("difference").split_once(" + ").unwrap();
    assert_eq!(redriven, "FILL(redriven, 0)");
    let mut terms = ended.split(" - ");
    assert_eq!(terms.next(), Some("FILL(accepted, 0)"));
    let taken_away: BTreeSet<String> = terms.map(str::to_owned).collect();
    let ids =
        queries.iter().filter(|query| query.get("MetricStat").is_some()).map(|query| query["Id"].as_str().unwrap());
    let others = ids.filter(|id| !["accepted", "redriven"].contains(id)).map(|id| format!("FILL({id}, 0)"));
    assert_eq!(taken_away, others.collect());
    assert_eq!(expression("missing"), "IF(difference > 0, difference, 0)");
    assert_eq!(expression("loss"), "RUNNING_SUM(missing)");
}

#[test]
fn the_alarms_of_a_log_are_made_with_it() {
    let template = template();
    let check = |parameters: &[(&str, &str)], expected: &[&str]| {
        let all = Choice::of(&template, parameters.iter().copied()).resources();
        let of_logs = [
            "LogLagAlarm",
            "StreamAgeAlarm",
            "EventsStreamThrottledAlarm",
            "StandbyStreamThrottledAlarm",
            "StandbyInUseAlarm",
        ];
        let made: BTreeSet<&str> = of_logs.into_iter().filter(|id| all.contains_key(*id)).collect();
        assert_eq!(made, expected.iter().copied().collect(), "{parameters:?}");
    };
    let cluster = "arn:aws:kafka:us-east-1:111122223333:cluster/a/b";
    check(&[("KafkaClusterArn", cluster)], &["LogLagAlarm"]);
    check(&[("PrimaryLog", "kinesis")], &["StreamAgeAlarm", "EventsStreamThrottledAlarm"]);
    check(
        &[("KafkaClusterArn", cluster), ("StandbyLog", "kinesis")],
        &["LogLagAlarm", "StreamAgeAlarm", "StandbyStreamThrottledAlarm", "StandbyInUseAlarm"],
    );
}

#[test]
fn the_dashboard_is_json_and_shows_metrics_that_are_written() {
    let body = properties(&template(), "Dashboard")["DashboardBody"]["Fn::Sub"].clone();
    let dashboard: Value = serde_json::from_str(&substituted(body[0].as_str().unwrap())).unwrap();
    let widgets = dashboard["widgets"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for widget in widgets {
        let properties = &widget["properties"];
        let title = properties["title"].as_str().unwrap();
        assert!(widget["x"].as_u64().unwrap() + widget["width"].as_u64().unwrap() <= 24, "{title}");
        for metric in properties["metrics"].as_array().unwrap() {
            let parts: Vec<&str> = metric.as_array().unwrap().iter().filter_map(Value::as_str).collect();
            if let [namespace, name, dimensions @ ..] = parts.as_slice() {
                let names: Vec<String> = dimensions.iter().step_by(2).map(ToString::to_string).collect();
                let who = dimensions.chunks(2).find(|pair| pair[0] == "Function").map(|pair| pair[1]);
                exists(namespace, name, &names, who, title);
                shown.insert((*name).to_owned());
                continue;
            }
            // An expression: each name that a search is for must be one of ours, with the dimensions that it has.
            let expression = metric[0]["expression"].as_str().unwrap_or_else(|| panic!("{title}: {metric}"));
            let Some((schema, search)) = expression.split_once("{Playhead,").and_then(|(_, rest)| rest.split_once('}'))
            else {
                continue;
            };
            let dimensions: Vec<String> = schema.split(',').map(str::to_owned).collect();
            let wanted = search.split_once("MetricName=").unwrap().1.split(" Stage=").next().unwrap();
            for name in wanted.split('"').filter(|part| part.chars().all(char::is_alphanumeric) && !part.is_empty()) {
                exists(NAMESPACE, name, &dimensions, None, title);
                shown.insert(name.to_owned());
            }
        }
    }
    let expected = [
        "EventsAccepted",
        "EventsApplied",
        "EventsDead",
        "HolesOpened",
        "Latency",
        "OffsetLag",
        "IteratorAge",
        "Errors",
    ];
    for name in expected {
        assert!(shown.contains(name), "{name} is not on the dashboard");
    }
}

/// `${Name}` as `Name`, `${!Text}` as `${Text}`: what `Fn::Sub` makes of it, when each thing is called as in the template.
fn substituted(text: &str) -> String {
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        match name.strip_prefix('!') {
            Some(literal) => whole.push_str(&format!("${{{literal}}}")),
            None => whole.push_str(name),
        }
        whole.push_str(rest);
    }
    whole
}

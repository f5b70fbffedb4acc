//! Alarms and the dashboard watch metrics that are really written, and alarms tell their reader
//! what to do.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use lambda::metrics::{Metric, NAMESPACE};
use playback::outcome::{Cause, Reason};
use serde_json::{Value, json};

use super::choice::Choice;
use super::logs::{accepted_stacks, made_of};
use super::regions::{ALONE, ONE_OF_TWO};
use super::shadow::{TAKEN_OVER_FROM, TRIED};
use super::{OBSERVABILITY, object, observability, of_type, properties, strings, template};

const CLUSTER: &str = "arn:aws:kafka:us-east-1:111122223333:cluster/a/b";
/// Two choices of logs. Each alarm exists with at least one of them.
const KAFKA_FIRST: [(&str, &str); 2] = [("KafkaClusterArn", CLUSTER), ("StandbyLog", "kinesis")];
const KINESIS_FIRST: [(&str, &str); 2] = [("PrimaryLog", "kinesis"), ("StandbyLog", "none")];

/// Our metrics that an alarm or the dashboard may name, with the functions that write them.
fn ours() -> BTreeMap<&'static str, (Metric, &'static [&'static str])> {
    const APPLIES: &[&str] = &["ProcessFunction", "RetryFunction"];
    const TAKES_IN: &[&str] = &["IngestFunction"];
    const FORWARDS: &[&str] = &["ForwardFunction"];
    const FOLDS_SHADOWS: &[&str] = &["ProcessFunction", "ProcessCandidateFunction"];
    const COMPARES: &[&str] = &["CompareFunction"];
    const PUBLISHES: &[&str] = &["PublishFunction"];
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
        (Metric::EventsArrived, APPLIES),
        (Metric::EventsForwarded, FORWARDS),
        (Metric::RecordsForwarded, FORWARDS),
        (Metric::ForwardRequests, FORWARDS),
        (Metric::ForwardBytes, FORWARDS),
        (Metric::RoutingErrors("invalid"), &["ForwardFunction", "IngestFunction"]),
        (Metric::EventsAdjusted, TAKES_IN),
        (Metric::RecordsReceived, &["ProcessFunction", "RetryFunction", "ForwardFunction"]),
        (Metric::RecordsSettled, APPLIES),
        (Metric::RecordsDropped, FOLDS_SHADOWS),
        (Metric::ChangesReceived, PUBLISHES),
        (Metric::ChangesPublished, PUBLISHES),
        (Metric::ChangesFailed("held_back"), PUBLISHES),
        (Metric::ChangesDead("corrupt_view"), PUBLISHES),
        (Metric::RecordsDead(dead), APPLIES),
        (Metric::RecordsRetried(cause), APPLIES),
        (Metric::OldestMessageAge, APPLIES),
        (Metric::RecordsFailed(cause), APPLIES),
        (Metric::HolesOpened, APPLIES),
        (Metric::HolesClosed, APPLIES),
        (Metric::ViewWrites, APPLIES),
        (Metric::ViewReads, APPLIES),
        (Metric::LostRaces, APPLIES),
        (Metric::Throttles, APPLIES),
        (Metric::LegacyRequests(StatusCode::OK), TAKES_IN),
        (Metric::ShadowAppended, TAKES_IN),
        (Metric::ShadowMissed, TAKES_IN),
        (Metric::ShadowApplied, FOLDS_SHADOWS),
        (Metric::ShadowDuplicate, FOLDS_SHADOWS),
        (Metric::ShadowDropped, FOLDS_SHADOWS),
        (Metric::ComparedSessions, COMPARES),
        (Metric::MatchedSessions, COMPARES),
        (Metric::MissingLive, COMPARES),
        (Metric::MissingShadow, COMPARES),
        (Metric::PartialSessions, COMPARES),
        (Metric::FieldDifferences("position_ms"), COMPARES),
        (Metric::UnansweredSessions("unavailable"), COMPARES),
    ]
    .into_iter()
    .map(|(metric, functions)| (metric.name(), (metric, functions)))
    .collect()
}

/// The AWS metrics that are watched: namespace, dimensions, names. From the developer guides of
/// Lambda ("Types of metrics"), SQS, Kinesis, DynamoDB, Firehose, MSK, S3 and API Gateway ("metrics for HTTP
/// APIs").
const OF_AWS: [(&str, &[&str], &[&str]); 10] = [
    (
        "AWS/Lambda",
        &["FunctionName"],
        &[
            "Errors",
            "Invocations",
            "Throttles",
            "Duration",
            "ConcurrentExecutions",
            "OffsetLag",
            "IteratorAge",
            "DestinationDeliveryFailures",
        ],
    ),
    // Of the group EventCount.
    (
        "AWS/Lambda",
        &["EventSourceMappingUUID"],
        &["PolledEventCount", "FailedInvokeEventCount", "OnFailureDestinationDeliveredEventCount", "DroppedEventCount"],
    ),
    ("AWS/SQS", &["QueueName"], &["ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"]),
    ("AWS/Kinesis", &["StreamName"], &["IncomingBytes", "WriteProvisionedThroughputExceeded"]),
    ("AWS/DynamoDB", &["TableName"], &["ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"]),
    (
        "AWS/DynamoDB",
        &["TableName", "GlobalSecondaryIndexName"],
        &["ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"],
    ),
    ("AWS/Firehose", &["DeliveryStreamName"], &["DeliveryToS3.DataFreshness"]),
    ("AWS/Kafka", &["Broker ID", "Cluster Name"], &["BytesInPerSec"]),
    ("AWS/S3", &["BucketName", "StorageType"], &["NumberOfObjects"]),
    ("AWS/ApiGateway", &["ApiId", "Stage"], &["5xx", "Count", "Latency"]),
];

/// Asserts that a metric exists with these dimensions. `who` is the function that writes one of
/// ours.
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
    // With its third dimension, or as the sum over it. Some also as the sum over all functions of
    // the stage.
    let plain = vec!["Stage".to_owned(), "Function".to_owned()];
    let third = metric.dimension().map(|(name, _)| [plain.clone(), vec![name.to_owned()]].concat());
    let of_stage = metric.is_of_stage() && *dimensions == ["Stage"];
    let there = of_stage || *dimensions == plain || Some(dimensions) == third.as_deref();
    assert!(there, "{place}: {name} does not have {dimensions:?}");
    if let Some(who) = who {
        assert!(functions.contains(&who), "{place}: {who} does not write {name}");
    }
}

/// The alarms of various stacks, by a name that says which.
fn made() -> BTreeMap<String, Value> {
    let (template, observability) = (template(), observability());
    let trials = [&[][..], &TAKEN_OVER_FROM, &TRIED, &[("ChangeArchive", "on")]];
    let ways = [KAFKA_FIRST, KINESIS_FIRST].into_iter().flat_map(|logs| [(logs, ALONE), (logs, ONE_OF_TWO)]);
    let ways = ways.flat_map(|(logs, regions)| trials.map(|trial| (logs, regions, trial)));
    let made: BTreeMap<String, Value> = ways
        .flat_map(|(logs, regions, trial)| {
            let parameters = logs.into_iter().chain([regions]).chain(trial.iter().copied());
            let nested = Choice::of(&template, parameters).nested(OBSERVABILITY, &observability);
            let alarms =
                nested.resources().into_iter().filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
            alarms.map(move |(id, alarm)| {
                (format!("{id} of {logs:?}, {regions:?}, {trial:?}"), alarm["Properties"].clone())
            })
        })
        .collect();
    for id in of_type(&observability, "AWS::CloudWatch::Alarm").keys() {
        assert!(made.keys().any(|name| name.starts_with(&format!("{id} "))), "{id} is in none of these stacks");
    }
    made
}

/// Each metric that an alarm uses: its namespace, name and dimensions.
fn metrics_of(alarm: &Value) -> Vec<&Value> {
    match alarm["Metrics"].as_array() {
        Some(queries) => queries.iter().filter_map(|query| query["MetricStat"].get("Metric")).collect(),
        None => vec![alarm],
    }
}

#[test]
fn every_alarm_explains_itself_and_notifies_the_topic() {
    let observability = observability();
    let to_topic = json!({ "Fn::If": ["HasAlarmTopic", [{ "Ref": "AlarmTopicArn" }], { "Ref": "AWS::NoValue" }] });
    let to_page = json!({ "Fn::If": ["HasPageTopic", [{ "Ref": "PageTopicArn" }], to_topic] });
    for (id, alarm) in of_type(&observability, "AWS::CloudWatch::Alarm") {
        assert!(id.ends_with("Alarm"), "{id}");
        let description = alarm["AlarmDescription"]["Fn::Sub"].as_str();
        let description = description.unwrap_or_else(|| panic!("{id} has no description"));
        let (meaning, advice) =
            description.split_once(" Do: ").unwrap_or_else(|| panic!("{id} does not say what to do"));
        assert!(meaning.len() > 40 && advice.len() > 40, "{id}: {description}");
        let longest = description.len() - "${RunbookUrl}".len() + 200;
        assert!(longest <= 1_024, "{id}: CloudWatch takes 1,024 characters, not {longest}");
        let topic = if description.starts_with("[page] ") { &to_page } else { &to_topic };
        for actions in ["AlarmActions", "OKActions"] {
            assert_eq!(alarm[actions], *topic, "{id}");
        }
        let treated = alarm["TreatMissingData"].as_str();
        assert!(
            treated.is_some_and(|how| ["notBreaching", "ignore"].contains(&how)),
            "{id} does not say how to treat missing data"
        );
    }
}

#[test]
fn every_alarm_watches_metrics_that_are_written() {
    for (id, alarm) in made() {
        let metrics = metrics_of(&alarm);
        assert!((1..=10).contains(&metrics.len()), "{id}: an alarm may name 10 metrics");
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
        // CloudWatch evaluates at most a day.
        let period = alarm["Period"].as_u64().or_else(|| alarm["Metrics"][0]["MetricStat"]["Period"].as_u64()).unwrap();
        assert!(period * alarm["EvaluationPeriods"].as_u64().unwrap() <= 86_400, "{id}");
    }
}

#[test]
fn alarms_take_maxima_of_ages_and_sums_of_counts() {
    let ours = ours();
    let mut ages = BTreeSet::new();
    for (id, alarm) in made() {
        let stats = match alarm["Metrics"].as_array() {
            Some(queries) => queries.iter().filter_map(|query| query.get("MetricStat")).collect(),
            None => vec![&alarm],
        };
        for stat in stats {
            let metric = stat.get("Metric").unwrap_or(stat);
            let Some((metric, _)) = ours.get(metric["MetricName"].as_str().unwrap()) else { continue };
            let expected = if metric.is_maximum() { "Maximum" } else { "Sum" };
            assert_eq!(*stat.get("Stat").unwrap_or(&stat["Statistic"]), expected, "{id}: {}", metric.name());
            if metric.is_maximum() {
                ages.insert(id.split(' ').next().unwrap().to_owned());
            }
        }
    }
    assert_eq!(ages, ["InboundAgeAlarm", "RetryAgeAlarm"].map(str::to_owned).into());
}

/// A message that retry pauses, or that stays hidden after it failed, is received again only then.
/// The alarm on its age must not end in between.
#[test]
fn alarms_on_ages_outlast_the_time_between_two_receives() {
    let observability = observability();
    let longest_pause = 15 * 60;
    let hidden = properties(&template(), "InboundQueue")["VisibilityTimeout"].as_u64().unwrap();
    for (id, between) in [("RetryAgeAlarm", longest_pause), ("InboundAgeAlarm", hidden)] {
        let alarm = properties(&observability, id);
        assert!(alarm["Period"].as_u64().unwrap() >= between, "{id}");
        assert_eq!((&alarm["DatapointsToAlarm"], &alarm["EvaluationPeriods"]), (&json!(1), &json!(2)), "{id}");
    }
}

/// CloudWatch's user guide: FILL also fills the newest minute while its data is still on the way,
/// and metrics from log lines always come late. If every point had to be above the threshold, such
/// an alarm might never fire.
#[test]
fn filled_and_late_points_do_not_keep_an_alarm_silent() {
    for (id, alarm) in made() {
        let filled = alarm["Metrics"].to_string().contains("FILL(");
        let late = metrics_of(&alarm).into_iter().any(|metric| metric["Namespace"] == NAMESPACE);
        let number = |name: &str| alarm[name].as_u64().unwrap();
        let some_of_them = number("DatapointsToAlarm") < number("EvaluationPeriods");
        assert!(some_of_them || !(filled || late), "{id}");
    }
}

/// CloudWatch's user guide advises against these in alarms. They compute with all points of a
/// series, and an alarm reads more of them than it evaluates.
#[test]
fn no_alarm_uses_a_function_that_reads_the_whole_series() {
    let advised_against =
        ["AVG", "DATAPOINT_COUNT", "MAX", "MIN", "REMOVE_EMPTY", "RUNNING_SUM", "SEARCH", "STDDEV", "SUM"];
    for (id, alarm) in made() {
        let queries = alarm["Metrics"].as_array().into_iter().flatten();
        for expression in queries.filter_map(|query| query["Expression"].as_str()) {
            let mut words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            assert!(!words.any(|word| advised_against.contains(&word)), "{id}: {expression}");
        }
    }
}

#[test]
fn every_expression_uses_all_metrics_of_its_alarm() {
    for (id, alarm) in made() {
        let Some(queries) = alarm["Metrics"].as_array() else { continue };
        let answers = queries.iter().filter(|query| query["ReturnData"] == true).count();
        assert_eq!(answers, 1, "{id}: an alarm watches one expression");
        let expressions: String =
            queries.iter().filter_map(|query| query["Expression"].as_str()).collect::<Vec<_>>().join(" ");
        // Functions are upper case, ids are not.
        let words = expressions.split(|letter: char| !letter.is_ascii_alphabetic() && letter != '_');
        let taken: BTreeSet<&str> =
            words.filter(|word| word.starts_with(|letter: char| letter.is_ascii_lowercase())).collect();
        let to_take = queries.iter().filter(|query| query["ReturnData"] == false);
        assert_eq!(taken, to_take.map(|query| query["Id"].as_str().unwrap()).collect(), "{id}: {expressions}");
    }
}

#[test]
fn loss_alarm_counts_every_way_in_and_every_outcome() {
    let alarm = properties(&observability(), "LossAlarm");
    // Each is the sum over all functions of the stage, under an id that says what it is.
    let taken: BTreeMap<&str, &str> = alarm["Metrics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|query| query.get("MetricStat").is_some())
        .map(|query| {
            let metric = &query["MetricStat"]["Metric"];
            assert_eq!(metric["Dimensions"], json!([{ "Name": "Stage", "Value": { "Ref": "Stage" } }]));
            (query["Id"].as_str().unwrap(), metric["MetricName"].as_str().unwrap())
        })
        .collect();
    // Together they are the metrics of the books, except the one that only bounds how much may end
    // twice.
    let ours = ours();
    let books = ours.values().map(|(metric, _)| *metric).filter(|metric| metric.is_of_stage());
    let bound_or_none = [Metric::EventsUnclaimed.name(), Metric::RoutingErrors("invalid").name()];
    let books: BTreeSet<&str> = books.map(Metric::name).filter(|name| !bound_or_none.contains(name)).collect();
    assert_eq!(taken.values().copied().collect::<BTreeSet<_>>(), books);
    for (id, name) in &taken {
        assert_eq!(name.strip_prefix("Events").unwrap().to_lowercase(), *id);
    }
    // Events that come in are added, each way to end is subtracted. Redriven events come in again.
    let queries = alarm["Metrics"].as_array().unwrap();
    let expression = |id: &str| queries.iter().find(|query| query["Id"] == id).unwrap()["Expression"].as_str().unwrap();
    let comes_in = ["accepted", "arrived", "redriven"];
    let (mut added, mut taken_away) = (BTreeSet::new(), BTreeSet::new());
    for term in format!("+ {}", expression("difference")).split(", 0)").filter(|term| !term.is_empty()) {
        let (sign, id) = term.trim_start().split_once(" FILL(").unwrap();
        assert!(if sign == "+" { added.insert(id.to_owned()) } else { taken_away.insert(id.to_owned()) }, "{id} twice");
    }
    assert_eq!(added, comes_in.map(str::to_owned).into());
    let ends = taken.keys().filter(|id| !comes_in.contains(id));
    assert_eq!(taken_away, ends.map(ToString::to_string).collect());
    // From the newest loss on, every point is above zero.
    assert_eq!(expression("missing"), "IF(difference > 0, difference)");
    assert_eq!(expression("loss"), "FILL(missing, REPEAT)");
}

#[test]
fn alarms_of_a_log_exist_with_that_log() {
    let (template, observability) = (template(), observability());
    let check = |parameters: &[(&str, &str)], expected: &[&str]| {
        let choice = Choice::of(&template, parameters.iter().copied());
        let all = choice.nested(OBSERVABILITY, &observability).resources();
        let of_logs = [
            "LogLagAlarm",
            "StreamAgeAlarm",
            "EventsStreamThrottledAlarm",
            "StandbyStreamThrottledAlarm",
            "StandbyInUseAlarm",
            "ForwardErrorsAlarm",
            "ForwardLagAlarm",
            "ForwardAgeAlarm",
        ];
        let made: BTreeSet<&str> = of_logs.into_iter().filter(|id| all.contains_key(*id)).collect();
        assert_eq!(made, expected.iter().copied().collect(), "{parameters:?}");
    };
    let kafka = ("KafkaClusterArn", CLUSTER);
    check(&[kafka], &["LogLagAlarm"]);
    check(&[kafka, ONE_OF_TWO], &["LogLagAlarm", "ForwardErrorsAlarm", "ForwardLagAlarm"]);
    check(&KINESIS_FIRST, &["StreamAgeAlarm", "EventsStreamThrottledAlarm"]);
    check(&KAFKA_FIRST, &["LogLagAlarm", "StreamAgeAlarm", "StandbyStreamThrottledAlarm", "StandbyInUseAlarm"]);
    let [primary, standby] = KAFKA_FIRST;
    check(
        &[primary, standby, ONE_OF_TWO],
        &[
            "LogLagAlarm",
            "StreamAgeAlarm",
            "StandbyStreamThrottledAlarm",
            "StandbyInUseAlarm",
            "ForwardErrorsAlarm",
            "ForwardLagAlarm",
            "ForwardAgeAlarm",
        ],
    );
}

#[test]
fn alarms_of_the_change_feed_exist_with_it() {
    let (template, observability) = (template(), observability());
    let of_the_feed = ["FeedBehindAlarm", "PublishFailedAlarm", "PublishErrorsAlarm", "FeedThrottledAlarm"];
    for (feed, expected) in [("on", true), ("off", false)] {
        let choice = Choice::of(&template, KINESIS_FIRST.into_iter().chain([("ChangeFeed", feed)]));
        let all = choice.nested(OBSERVABILITY, &observability).resources();
        for id in of_the_feed {
            assert_eq!(all.contains_key(id), expected, "{id} with ChangeFeed={feed}");
        }
    }
}

#[test]
fn nested_parameters_are_those_of_the_stack_or_its_resources() {
    let template = template();
    for choice in accepted_stacks(&template) {
        let made = choice.resources();
        for (name, value) in object(&made[OBSERVABILITY]["Properties"]["Parameters"]) {
            let reference = json!({ "Ref": name });
            if template["Resources"].get(name).is_some() {
                let expected = match made.get(name).map(|resource| resource["Type"].as_str().unwrap()) {
                    None => json!(""),
                    Some("AWS::SQS::Queue") => json!({ "Fn::GetAtt": [name, "QueueName"] }),
                    Some(_) => reference,
                };
                assert_eq!(*value, expected, "{name}");
            } else if name == "Mappings" {
                let mut mappings = made_of(&made, "AWS::Lambda::EventSourceMapping");
                mappings.retain(|id| !id.starts_with("Candidate"));
                let [between, listed] = value["Fn::Join"].as_array().unwrap().as_slice() else { panic!("{value}") };
                assert_eq!(between, r#"\" OR \""#, "quotes inside a JSON string");
                let listed: Vec<&Value> = listed.as_array().unwrap().iter().map(|id| &id["Ref"]).collect();
                assert_eq!(listed.len(), mappings.len());
                assert_eq!(listed.iter().map(|id| id.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), mappings);
                for id in mappings {
                    assert_eq!(made[&id]["Properties"]["MetricsConfig"], json!({ "Metrics": ["EventCount"] }), "{id}");
                }
            } else if let Some(log) = ["KafkaClusterArn", "StandbyKafkaClusterArn"].iter().position(|arn| name == arn) {
                let (nested, condition) = [("Kafka", "PrimaryIsKafka"), ("StandbyKafka", "StandbyIsKafka")][log];
                let arn = json!({ "Fn::GetAtt": [nested, "Outputs", "ClusterArn"] });
                assert_eq!(*value, if choice.is(&json!(condition)) { arn } else { json!("") });
            } else if name == "ArchiveDelivery" {
                let delivery = json!({ "Fn::GetAtt": ["ChangeArchiveStack", "Outputs", "DeliveryStreamName"] });
                let there = made.contains_key("ChangeArchiveStack");
                assert_eq!(*value, if there { delivery } else { json!("") });
            } else if name == "DashboardName" {
                // All regions of an account share one set of dashboards.
                assert_eq!(*value, json!({ "Fn::Sub": "${AWS::StackName}-overview-${AWS::Region}" }));
            } else {
                assert!(template["Parameters"].get(name).is_some(), "{name} is not in template.yaml");
                assert_eq!(*value, reference);
            }
        }
    }
}

#[test]
fn nested_conditions_agree_with_those_of_the_stack() {
    let (template, observability) = (template(), observability());
    let names = object(&observability["Conditions"]).keys();
    let shared: Vec<Value> =
        names.filter(|name| template["Conditions"].get(name).is_some()).map(|name| json!(name)).collect();
    assert!(shared.len() > 10, "{shared:?}");
    for choice in accepted_stacks(&template) {
        let nested = choice.nested(OBSERVABILITY, &observability);
        for name in &shared {
            assert_eq!(nested.is(name), choice.is(name), "{name}");
        }
    }
}

#[test]
fn the_stack_passes_on_the_name_of_its_dashboard() {
    let name = template()["Outputs"]["DashboardName"]["Value"].clone();
    assert_eq!(name, json!({ "Fn::GetAtt": [OBSERVABILITY, "Outputs", "DashboardName"] }));
    assert_eq!(observability()["Outputs"]["DashboardName"]["Value"], json!({ "Ref": "Dashboard" }));
    let dashboard = properties(&observability(), "Dashboard");
    assert_eq!(dashboard["DashboardName"], json!({ "Ref": "DashboardName" }));
}

#[test]
fn dashboard_is_json_and_shows_metrics_that_are_written() {
    let body = properties(&observability(), "Dashboard")["DashboardBody"]["Fn::Sub"].clone();
    let dashboard: Value = serde_json::from_str(&substituted(body[0].as_str().unwrap(), &body[1])).unwrap();
    let widgets = dashboard["widgets"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for widget in widgets.iter().filter(|widget| widget["type"] == "metric") {
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
            // An expression: each name in a search must be one of ours, with its dimensions.
            let expression = metric[0]["expression"].as_str().unwrap_or_else(|| panic!("{title}: {metric}"));
            let Some((schema, search)) = expression.split_once('{').and_then(|(_, rest)| rest.split_once('}')) else {
                continue;
            };
            let (namespace, dimensions) = schema.split_once(',').unwrap();
            // A name with a space is in quotes.
            let dimensions: Vec<String> = dimensions.split(',').map(|name| name.trim_matches('"').to_owned()).collect();
            let wanted = search.split_once("MetricName=").unwrap().1;
            let next = [" Stage=", " EventSourceMappingUUID=", " \"Cluster Name\"="];
            let wanted = next.iter().fold(wanted, |wanted, next| wanted.split(next).next().unwrap());
            for name in wanted.split('"').filter(|part| part.chars().all(char::is_alphanumeric) && !part.is_empty()) {
                exists(namespace, name, &dimensions, None, title);
                shown.insert(name.to_owned());
            }
        }
    }
    let expected = [
        "EventsAccepted",
        "EventsApplied",
        "EventsDead",
        "EventsForwarded",
        "EventsArrived",
        "ForwardRequests",
        "ForwardBytes",
        "RoutingErrors",
        "LegacyRequests",
        "ShadowAppended",
        "MatchedSessions",
        "FieldDifferences",
        "HolesOpened",
        "Latency",
        "OffsetLag",
        "IteratorAge",
        "Errors",
        "OldestMessageAge",
        "ConcurrentExecutions",
        "FailedInvokeEventCount",
        "OnFailureDestinationDeliveredEventCount",
        "ConsumedWriteCapacityUnits",
        "ConsumedReadCapacityUnits",
        "IncomingBytes",
        "BytesInPerSec",
    ];
    for name in expected {
        assert!(shown.contains(name), "{name} is not on the dashboard");
    }
}

/// The result of `Fn::Sub` if everything is called as in the template: `${Name}` as `Name`,
/// `${!Text}` as `${Text}`. A name defined in `own` is replaced by what it means where that exists.
fn substituted(text: &str, own: &Value) -> String {
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        match name.strip_prefix('!') {
            Some(literal) => whole.push_str(&format!("${{{literal}}}")),
            None => whole.push_str(own[name]["Fn::If"][1]["Ref"].as_str().unwrap_or(name)),
        }
        whole.push_str(rest);
    }
    whole
}

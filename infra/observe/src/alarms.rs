//! The alarms. Counters are written only when there is something to count, so missing data mostly
//! means zero ([`Silence::IsGood`]). Where silence may hide a problem, the alarm keeps its state.
//!
//! CloudWatch advises against functions that read a whole series in alarms (`SUM`, `MAX`,
//! `RUNNING_SUM`): an alarm reads more points than it evaluates. An alarm may name 10 metrics and
//! cannot search.

use std::fmt;

use http::StatusCode;
use lambda::metrics::Metric;
use serde_json::{Map, Value, json};

use crate::series::{Series, api, freshness, lambda, lambda_lag, objects, of, of_stage, sqs, throttled, with_code};

/// What an alarm asks of people. Its name stands in brackets at the beginning of the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Members or their data are at risk now: wake someone.
    Page,
    /// To be dealt with in working hours.
    Ticket,
    /// Worth knowing, above all beside another alarm.
    Info,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 3] = [Self::Page, Self::Ticket, Self::Info];

    /// Who is notified. Pages have a topic of their own where there is one.
    fn topic(self) -> Value {
        let or_none = json!({ "Fn::If": ["HasAlarmTopic", [{ "Ref": "AlarmTopicArn" }], { "Ref": "AWS::NoValue" }] });
        match self {
            Self::Page => json!({ "Fn::If": ["HasPageTopic", [{ "Ref": "PageTopicArn" }], or_none] }),
            Self::Ticket | Self::Info => or_none,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
            Self::Info => "info",
        })
    }
}

/// An alarm.
#[derive(Debug)]
pub struct Alarm {
    /// Its logical id, which is also the heading of its section in the runbook.
    pub id: &'static str,
    /// The condition of the template under which it exists.
    pub condition: Option<&'static str>,
    /// What it asks of people.
    pub severity: Severity,
    /// What has happened, and what that means for members.
    pub means: &'static str,
    /// What to do first.
    pub to_do: &'static str,
    /// What it watches.
    pub watched: Watched,
    /// Seconds of one point.
    pub period: u32,
    /// How many points must be over the threshold, of how many.
    pub points: (u32, u32),
    /// The threshold.
    pub rings: Rings,
    /// What missing data means.
    pub silence: Silence,
}

/// What an alarm watches.
#[derive(Debug)]
pub enum Watched {
    /// One series.
    One(Series),
    /// Several, of which expressions make one.
    Several {
        /// Each with the id that expressions use.
        series: Vec<(&'static str, Series)>,
        /// More of them under a condition.
        more: Option<(&'static str, Vec<(&'static str, Series)>)>,
        /// Id, label and expression. The alarm watches the last one.
        steps: Vec<(&'static str, &'static str, Expression)>,
    },
}
use Watched::{One, Several};

/// A metric math expression.
#[derive(Debug, Clone, Copy)]
pub enum Expression {
    /// This one.
    Always(&'static str),
    /// The first one if the condition holds, else the second.
    Either(&'static str, &'static str, &'static str),
}
use Expression::{Always, Either};

/// When an alarm rings.
#[derive(Debug, Clone, Copy)]
pub enum Rings {
    /// Above this.
    Above(u32),
    /// Below this.
    Below(u32),
}
use Rings::{Above, Below};

/// What missing data means.
#[derive(Debug, Clone, Copy)]
pub enum Silence {
    /// There was nothing to count.
    IsGood,
    /// Nobody knows: the alarm keeps its state.
    KeepsState,
}
use Severity::{Info, Page, Ticket};
use Silence::{IsGood, KeepsState};

impl Watched {
    /// Every series.
    pub fn series(&self) -> Vec<&Series> {
        match self {
            One(series) => vec![series],
            Several { series, more, .. } => {
                series.iter().chain(more.iter().flat_map(|(_, more)| more)).map(|(_, series)| series).collect()
            }
        }
    }
}

impl Alarm {
    /// The anchor of its section in the runbook.
    pub fn anchor(&self) -> String {
        self.id.to_ascii_lowercase()
    }

    fn description(&self) -> String {
        let Self { severity, means, to_do, .. } = self;
        format!("[{severity}] {means} Do: {to_do} Runbook: ${{RunbookUrl}}#{}", self.anchor())
    }

    pub(crate) fn resource(&self) -> Value {
        let to_topic = self.severity.topic();
        let (threshold, comparison) = match self.rings {
            Above(threshold) => (threshold, "GreaterThanThreshold"),
            Below(threshold) => (threshold, "LessThanThreshold"),
        };
        let missing = match self.silence {
            IsGood => "notBreaching",
            KeepsState => "ignore",
        };
        let own = json!({
            "AlarmDescription": { "Fn::Sub": self.description() },
            "EvaluationPeriods": self.points.1,
            "DatapointsToAlarm": self.points.0,
            "Threshold": threshold,
            "ComparisonOperator": comparison,
            "TreatMissingData": missing,
            "AlarmActions": to_topic,
            "OKActions": to_topic,
        });
        let fields = [own, self.metrics()].into_iter().filter_map(|part| match part {
            Value::Object(fields) => Some(fields),
            _ => None,
        });
        let properties: Map<String, Value> = fields.flatten().collect();
        let mut resource = json!({ "Type": "AWS::CloudWatch::Alarm", "Properties": properties });
        if let Some(condition) = self.condition {
            resource["Condition"] = json!(condition);
        }
        resource
    }

    fn metrics(&self) -> Value {
        match &self.watched {
            One(series) => {
                let mut metric = metric(series);
                metric["Statistic"] = json!(series.statistic);
                metric["Period"] = json!(self.period);
                metric
            }
            Several { series, more, steps } => {
                let plain = series.iter().map(|(id, series)| self.stat(id, series));
                let more = more.iter().flat_map(|(condition, more)| more.iter().map(move |one| (condition, one)));
                let more = more.map(|(condition, (id, series))| {
                    json!({ "Fn::If": [condition, self.stat(id, series), { "Ref": "AWS::NoValue" }] })
                });
                let steps = steps.iter().enumerate().map(|(at, (id, label, expression))| {
                    let expression = match expression {
                        Always(text) => json!(text),
                        Either(condition, with, without) => json!({ "Fn::If": [condition, with, without] }),
                    };
                    let is_last = at + 1 == steps.len();
                    json!({ "Id": id, "Label": label, "Expression": expression, "ReturnData": is_last })
                });
                json!({ "Metrics": plain.chain(more).chain(steps).collect::<Vec<_>>() })
            }
        }
    }

    fn stat(&self, id: &str, series: &Series) -> Value {
        json!({
            "Id": id,
            "ReturnData": false,
            "MetricStat": { "Metric": metric(series), "Period": self.period, "Stat": series.statistic },
        })
    }
}

fn metric(series: &Series) -> Value {
    let dimensions: Vec<Value> =
        series.dimensions.iter().map(|(name, value)| json!({ "Name": name, "Value": value.value() })).collect();
    json!({ "Namespace": series.namespace, "MetricName": series.name, "Dimensions": dimensions })
}

/// Invocations of a function crash or time out. What that means is for the caller to say.
fn function_fails(id: &'static str, severity: Severity, function: &'static str) -> Alarm {
    Alarm {
        id,
        condition: None,
        severity,
        means: "",
        to_do: "",
        watched: One(lambda("Errors", function)),
        period: 60,
        points: (3, 10),
        rings: Above(0),
        silence: IsGood,
    }
}

macro_rules! refused_by {
    ($log:literal) => {
        concat!(
            "Kinesis refused records of the ",
            $log,
            " log's streams in 3 of 5 minutes: more arrives than their shards take. (With several regions, one of \
             them is for the others, and takes everything while this region is drained.) ingest sends the records \
             again, and answers 503 if they do not get through.",
        )
    };
}

/// The streams of a log refuse records: that of this region, and that for others if `forwards`
/// holds. Which log it is is for the caller to say.
fn streams_refuse(home: &'static str, forwards: &'static str, remote: &'static str) -> Alarm {
    Alarm {
        id: "",
        condition: None,
        severity: Page,
        means: "",
        to_do: "an on-demand stream doubles its capacity within 15 minutes. If that is not enough, check \
                    the account's quota of shards. A single hot key (a session) can fill a shard.",
        watched: Several {
            series: vec![("home", throttled(home))],
            more: Some((forwards, vec![("remote", throttled(remote))])),
            steps: vec![(
                "throttled",
                "refused records",
                Either(forwards, "FILL(home, 0) + FILL(remote, 0)", "FILL(home, 0)"),
            )],
        },
        period: 60,
        points: (3, 5),
        rings: Above(0),
        silence: IsGood,
    }
}

/// A function answers requests with 503. What that means is for the caller to say.
fn answers_503(id: &'static str, function: &'static str) -> Alarm {
    Alarm {
        id,
        condition: None,
        severity: Page,
        means: "",
        to_do: "",
        watched: Several {
            series: vec![
                ("unavailable", with_code(Metric::Requests(StatusCode::OK), function, "503")),
                ("requests", of(Metric::Requests(StatusCode::OK), function)),
            ],
            more: None,
            steps: vec![("share", "503 answers, % of the requests", Always("100 * FILL(unavailable, 0) / requests"))],
        },
        period: 60,
        points: (3, 5),
        rings: Above(1),
        silence: IsGood,
    }
}

/// Every alarm.
pub fn all() -> Vec<Alarm> {
    [served(), books(), behind(), left_over(), logs_and_limits(), migration(), feed()].into_iter().flatten().collect()
}

/// Whether members and devices are answered.
fn served() -> Vec<Alarm> {
    vec![
        Alarm {
            id: "ApiErrorsAlarm",
            condition: None,
            severity: Page,
            means: "More than 1% of all requests to the API ended with a 5xx, in 3 of 5 minutes. Devices keep \
                    their events and try again, members see errors.",
            to_do: "see from IngestUnavailableAlarm and the error alarms which function it is, then read its \
                    log group. If none of them fires, API Gateway itself timed out or could not call the \
                    function: see integrationError in the access log.",
            watched: Several {
                series: vec![("errors", api("5xx")), ("requests", api("Count"))],
                more: None,
                steps: vec![("share", "5xx answers, % of the requests", Always("100 * FILL(errors, 0) / requests"))],
            },
            period: 60,
            points: (3, 5),
            rings: Above(1),
            silence: IsGood,
        },
        Alarm {
            means: "More than 1% of the requests to ingest were answered 503, in 3 of 5 minutes: no durable log \
                    took their events. Devices keep them and try again, so nothing is lost yet.",
            to_do: "check whether the primary log is down (broker health, CircuitOpenedAlarm) and whether there \
                    is a standby (parameter StandbyLog). If the primary is up but instances do not return to \
                    it, `cargo playhead routing set --log primary`; if it is half dead, `--log standby`.",
            ..answers_503("IngestUnavailableAlarm", "IngestFunction")
        },
        Alarm {
            means: "Invocations of ingest crashed or timed out in 3 of 10 minutes. Devices got a 500 and try \
                    again.",
            to_do: "look for \"error\" and \"panicked\" in its log group. A timeout means that a log neither took \
                    nor refused records in time.",
            ..function_fails("IngestErrorsAlarm", Page, "IngestFunction")
        },
        Alarm {
            means: "Invocations of query crashed or timed out in 3 of 10 minutes. Members saw an error.",
            to_do: "look for the cause in its log group. Nothing is lost.",
            ..function_fails("QueryErrorsAlarm", Page, "QueryFunction")
        },
        Alarm {
            means: "More than 1% of the requests to query were answered 503, in 3 of 5 minutes: it could not read \
                    the table, or check the token. Members see an error instead of their history. Nothing is lost.",
            to_do: "see the warnings in its log group. If the table throttles or does not answer, do as for \
                    StoreThrottledAlarm. If the keys of the issuer cannot be fetched, bring its JWKS back.",
            ..answers_503("QueryUnavailableAlarm", "QueryFunction")
        },
        Alarm {
            means: "Invocations of process crashed or timed out in 3 of 10 minutes. Lambda delivers the batch \
                    again, in halves, and gives it up into the failure bucket after 10 retries.",
            to_do: "look in its log group for what makes it crash (a single record can; bisecting narrows it \
                    down), or for a timeout of the store. Batches that are given up go through retry, so fix \
                    the cause within the 5 days for which records are tried.",
            ..function_fails("ProcessErrorsAlarm", Ticket, "ProcessFunction")
        },
        Alarm {
            condition: Some("HasOtherRegions"),
            means: "Invocations of forward crashed or timed out in 3 of 10 minutes. Lambda delivers the batch \
                    again, in halves. Records for other regions wait on the log, for 5 days at most.",
            to_do: "look in its log group for what makes it crash. A region that does not answer does not count \
                    as an error here; ForwardLagAlarm and ForwardAgeAlarm cover that.",
            ..function_fails("ForwardErrorsAlarm", Ticket, "ForwardFunction")
        },
        Alarm {
            means: "Invocations of retry crashed or timed out in 3 of 10 minutes. The queue delivers the letter \
                    again every 6 minutes, and after 1,000 times it is a dead letter.",
            to_do: "look in its log group for what makes it crash. Letters wait meanwhile; see RetryAgeAlarm.",
            ..function_fails("RetryErrorsAlarm", Ticket, "RetryFunction")
        },
    ]
}

/// The books. All of these are counted at the minute in which the events were accepted, so their
/// difference reaches zero minute by minute, however late events end. Events that may end twice
/// (EventsUnclaimed) make it negative, which must not hide a loss in another minute: hence the IF.
///
/// Under load the newest minutes always have events in flight. So the last point above zero is
/// repeated up to now: a loss fills every later point, events in flight only the newest ones. 6
/// points of 5 minutes above zero mean that something accepted 30 minutes ago is missing. The alarm
/// lasts until the loss is 6 hours old, or a little longer. Events sent to another region have ended
/// here and arrived there.
fn books() -> Vec<Alarm> {
    vec![Alarm {
        id: "LossAlarm",
        condition: None,
        severity: Page,
        means: "Events that were accepted here, or arrived from another region, at least 30 minutes ago are \
                    neither in a view nor dead nor sent on: in flight for too long, or lost.",
        to_do: "run `cargo playhead books --since 7h --stack <stack>` to see the minutes. Lag (LogLagAlarm, \
                    StreamAgeAlarm, ForwardLagAlarm, ForwardAgeAlarm), letters on the retry queue \
                    (RetryAgeAlarm) and objects in the failure bucket are events in flight: deal with those \
                    first. If there are none and the difference stays, it is a loss: keep the topics' records \
                    (raise their retention), and read them again through a mapping with a new consumer group, \
                    which is harmless.",
        watched: Several {
            series: vec![
                ("accepted", of_stage(Metric::EventsAccepted)),
                ("arrived", of_stage(Metric::EventsArrived)),
                ("applied", of_stage(Metric::EventsApplied)),
                ("duplicate", of_stage(Metric::EventsDuplicate)),
                ("dead", of_stage(Metric::EventsDead(""))),
                ("forwarded", of_stage(Metric::EventsForwarded)),
                ("redriven", of_stage(Metric::EventsRedriven)),
            ],
            more: None,
            steps: vec![
                (
                    "difference",
                    "accepted or arrived but not ended, by time of acceptance",
                    Always(
                        "FILL(accepted, 0) + FILL(arrived, 0) - FILL(applied, 0) - FILL(duplicate, 0) - FILL(dead, 0) - FILL(forwarded, 0) + FILL(redriven, 0)",
                    ),
                ),
                ("missing", "the same, where above zero", Always("IF(difference > 0, difference)")),
                ("loss", "events in flight or lost", Always("FILL(missing, REPEAT)")),
            ],
        },
        period: 300,
        points: (6, 72),
        rings: Above(0),
        silence: IsGood,
    }]
}

/// A number of records means little by itself, so it is compared with the intake (plus a record per
/// second, so that an idle topic does not divide by zero). No data means that the poller stopped
/// reporting, which does not make things better.
fn behind() -> Vec<Alarm> {
    vec![
        Alarm {
            id: "LogLagAlarm",
            condition: Some("UsesKafka"),
            severity: Ticket,
            means: "More than a minute of intake waits on the Kafka topic, in 5 of 6 minutes: views are late. \
                    Nothing is lost as long as the lag shrinks before records expire.",
            to_do: "check whether process fails (ProcessErrorsAlarm), is throttled (FunctionsThrottledAlarm, \
                    StoreThrottledAlarm) or is just too slow. In that case raise MaximumPollers of the mapping, \
                    up to the topic's partitions. Retention must outlast the lag.",
            watched: Several {
                series: vec![
                    ("lag", lambda_lag("OffsetLag", "ProcessFunction")),
                    ("appended", of(Metric::RecordsAppended, "IngestFunction")),
                ],
                more: None,
                steps: vec![("behind", "seconds of intake waiting", Always("lag / (FILL(appended, 0) / 60 + 1)"))],
            },
            period: 60,
            points: (5, 6),
            rings: Above(60),
            silence: KeepsState,
        },
        Alarm {
            id: "StreamAgeAlarm",
            condition: Some("UsesKinesis"),
            severity: Ticket,
            means: "The oldest record that process read from a Kinesis stream was older than a minute, for 5 \
                    minutes: views are late. Nothing is lost as long as it is read within the 7 days for which \
                    it is kept.",
            to_do: "the same as for lag on a topic. Check errors, then throttles, then raise \
                    ParallelizationFactor of the mapping.",
            watched: One(lambda_lag("IteratorAge", "ProcessFunction")),
            period: 60,
            points: (5, 5),
            rings: Above(60000),
            silence: KeepsState,
        },
        Alarm {
            id: "ForwardLagAlarm",
            condition: Some("ForwardsFromKafka"),
            severity: Ticket,
            means: "More than a minute of forwarding waits on the topic for other regions, in 5 of 6 minutes: \
                    histories of members who travel, and of drained regions, are late. Nothing is lost: records \
                    wait for 5 days, and after that they are given up and applied here.",
            to_do: "see RecordsFailed by Reason. region_unavailable means that SQS in a region does not answer. \
                    If it stays like that, `cargo playhead routing drain <region> --to <another>` sends its \
                    sessions elsewhere, including those that wait. If forward is just too slow, raise \
                    MaximumPollers of its mapping, up to the topic's partitions.",
            watched: Several {
                series: vec![
                    ("lag", lambda_lag("OffsetLag", "ForwardFunction")),
                    ("forwarded", of(Metric::RecordsForwarded, "ForwardFunction")),
                ],
                more: None,
                steps: vec![("behind", "seconds of forwarding waiting", Always("lag / (FILL(forwarded, 0) / 60 + 1)"))],
            },
            period: 60,
            points: (5, 6),
            rings: Above(60),
            silence: KeepsState,
        },
        Alarm {
            id: "ForwardAgeAlarm",
            condition: Some("ForwardsFromKinesis"),
            severity: Ticket,
            means: "The oldest record that forward read from a Kinesis stream was older than a minute, for 5 \
                    minutes: histories of members who travel, and of drained regions, are late. Nothing is \
                    lost: records wait for 5 days, and after that they are given up and applied here.",
            to_do: "the same as for lag on the topic. Check whether a region does not answer (RecordsFailed by \
                    Reason), and drain it if it stays like that. Then check errors and throttles, or raise \
                    ParallelizationFactor of the mapping.",
            watched: One(lambda_lag("IteratorAge", "ForwardFunction")),
            period: 60,
            points: (5, 5),
            rings: Above(60000),
            silence: KeepsState,
        },
        Alarm {
            id: "RoutingAlarm",
            condition: None,
            severity: Ticket,
            means: "Functions could not read or accept the routing document in 3 of 5 minutes. They continue \
                    with the last good one.",
            to_do: "see RoutingErrors by Reason. invalid: someone wrote it by hand. `cargo playhead routing \
                    show` says what is wrong with it, and `routing set` writes a good one. unavailable: SSM \
                    does not answer, or throttles (above 400 environments its higher throughput must be on). If \
                    ingest is in a VPC, check its access to SSM (NAT or an endpoint).",
            watched: One(of_stage(Metric::RoutingErrors(""))),
            period: 60,
            points: (3, 5),
            rings: Above(0),
            silence: IsGood,
        },
    ]
}

/// What waits on queues, is dead, or was given up. Ages are those of messages as they are received,
/// or of messages that nobody receives.
fn left_over() -> Vec<Alarm> {
    vec![
        Alarm {
            id: "RetryAgeAlarm",
            condition: None,
            severity: Ticket,
            means: "retry received a letter that was sent more than 30 minutes ago: a problem that should pass \
                    does not.",
            to_do: "find the cause in the log of retry (RecordsRetried by Reason on the dashboard): a throttled \
                    or missing store, or newer views during a deployment. Letters wait for the store up to 5 \
                    days. Others run out of attempts and become dead letters: when the cause is gone, `cargo \
                    playhead dlq redrive` retries them.",
            watched: One(of(Metric::OldestMessageAge, "RetryFunction")),
            period: 900,
            points: (1, 2),
            rings: Above(1800),
            silence: IsGood,
        },
        Alarm {
            id: "InboundAgeAlarm",
            condition: None,
            severity: Ticket,
            means: "process received a message from another region that was sent more than 10 minutes ago.",
            to_do: "check whether process fails or is throttled. Its mapping of this queue may run 20 \
                    invocations at once. Messages are received every 6 minutes, up to 1,000 times, before they \
                    are dead letters.",
            watched: One(of(Metric::OldestMessageAge, "ProcessFunction")),
            period: 600,
            points: (1, 2),
            rings: Above(600),
            silence: IsGood,
        },
        Alarm {
            id: "RetryUnreadAlarm",
            condition: None,
            severity: Ticket,
            means: "A letter has been on the retry queue for more than 30 minutes, and retry has hardly \
                    received it: retry does not run, or too little.",
            to_do: "check that the mapping of the queue is enabled, and whether Lambda throttles retry \
                    (FunctionsThrottledAlarm) or it crashes (RetryErrorsAlarm).",
            watched: One(sqs("ApproximateAgeOfOldestMessage", "RetryQueue")),
            period: 60,
            points: (5, 5),
            rings: Above(1800),
            silence: IsGood,
        },
        Alarm {
            id: "InboundUnreadAlarm",
            condition: None,
            severity: Ticket,
            means: "A message from another region has been on the inbound queue for more than 10 minutes, and \
                    process has hardly received it.",
            to_do: "check that the mapping of the queue is enabled, and whether Lambda throttles process \
                    (FunctionsThrottledAlarm) or it crashes (ProcessErrorsAlarm).",
            watched: One(sqs("ApproximateAgeOfOldestMessage", "InboundQueue")),
            period: 60,
            points: (5, 5),
            rings: Above(600),
            silence: IsGood,
        },
        Alarm {
            id: "DeadLettersAlarm",
            condition: None,
            severity: Ticket,
            means: "There are dead letters: records that cannot be applied, with their bytes and the reason. \
                    They are kept for 14 days.",
            to_do: "run `cargo playhead dlq list --stack <stack>` and `dlq show`. When the cause is fixed (in \
                    our code, or by deploying a version that knows the newer schema), run `dlq redrive`. Get \
                    rid of worthless ones with `dlq discard --save`.",
            watched: One(sqs("ApproximateNumberOfMessagesVisible", "DeadLetterQueue")),
            period: 60,
            points: (1, 1),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "FailureDestinationAlarm",
            condition: None,
            severity: Page,
            means: "Lambda gave up a batch of process or forward and could not write it to the failure bucket: \
                    those records are only on the log, until they expire.",
            to_do: "check that the bucket and the role's s3:PutObject are as in the template. Then read the \
                    records again through a mapping with a new consumer group that starts before the failure, \
                    which is harmless.",
            watched: Several {
                series: vec![("process", lambda("DestinationDeliveryFailures", "ProcessFunction"))],
                more: Some((
                    "HasOtherRegions",
                    vec![("forward", lambda("DestinationDeliveryFailures", "ForwardFunction"))],
                )),
                steps: vec![(
                    "failures",
                    "batches not written",
                    Either("HasOtherRegions", "FILL(process, 0) + FILL(forward, 0)", "FILL(process, 0)"),
                )],
            },
            period: 300,
            points: (1, 3),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "FailureBucketAlarm",
            condition: None,
            severity: Ticket,
            means: "Batches that Lambda gave up are still in the failure bucket: retry has not brought them in. \
                    S3 counts its objects once a day.",
            to_do: "check the errors in the log of retry, and the dead letters. The notice of such an object \
                    may be among them (`dlq show`), and `dlq redrive` sends it again. Objects expire after 90 \
                    days.",
            watched: One(objects("FailureBucket")),
            period: 86400,
            points: (1, 1),
            rings: Above(0),
            silence: KeepsState,
        },
    ]
}

/// The logs, and the limits of AWS.
fn logs_and_limits() -> Vec<Alarm> {
    vec![
        Alarm {
            id: "StandbyInUseAlarm",
            condition: Some("HasStandby"),
            severity: Ticket,
            means: "The standby log took records in 2 of 3 minutes: the primary is down for at least some \
                    instances of ingest. Events are accepted and applied as usual.",
            to_do: "bring the primary log back. Instances return to it by themselves. To keep them on one log \
                    meanwhile, `cargo playhead routing set --log standby`, and `--log auto` afterwards. Watch \
                    the standby's health: there is no third log.",
            watched: One(of(Metric::RecordsOnStandby, "IngestFunction")),
            period: 60,
            points: (2, 3),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "CircuitOpenedAlarm",
            condition: None,
            severity: Info,
            means: "Circuits to the primary log opened in 2 of 5 minutes: it failed too often, or was too slow.",
            to_do: "check the health of its brokers (under-replicated partitions, offline partitions, CPU, \
                    disk) or the stream's throttles, and the warnings in the log of ingest. If this keeps \
                    happening without an outage, the log is near a limit.",
            watched: One(of(Metric::CircuitOpened, "IngestFunction")),
            period: 60,
            points: (2, 5),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "StoreThrottledAlarm",
            condition: None,
            severity: Ticket,
            means: "DynamoDB throttled calls of process or retry in 5 of 7 minutes. Records wait and are \
                    retried: lag grows, nothing is lost.",
            to_do: "see ThrottledRequests of the table and its index by operation. An on-demand table doubles \
                    its peak within 30 minutes. A profile that takes over 1,000 writes per second is a hot \
                    partition. Warm up the table (WarmThroughput) before a launch, and check the account's \
                    quota for the table.",
            watched: Several {
                series: vec![
                    ("process", of(Metric::Throttles, "ProcessFunction")),
                    ("retry", of(Metric::Throttles, "RetryFunction")),
                ],
                more: None,
                steps: vec![("throttles", "throttled calls", Always("FILL(process, 0) + FILL(retry, 0)"))],
            },
            period: 60,
            points: (5, 7),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "FunctionsThrottledAlarm",
            condition: None,
            severity: Page,
            means: "Lambda refused to run a function for lack of concurrency in 3 of 5 minutes. Devices get 503 \
                    or 429 and try again, batches wait.",
            to_do: "see on the dashboard which function it is, and how many executions each one runs. If it has \
                    reached what is reserved for it, find out why it takes so long (for process and retry, \
                    mostly the store), and raise the parameter only if it is healthy. Otherwise raise the \
                    account's quota, or reserve some of it.",
            watched: Several {
                series: vec![
                    ("ingest", lambda("Throttles", "IngestFunction")),
                    ("process", lambda("Throttles", "ProcessFunction")),
                    ("retry", lambda("Throttles", "RetryFunction")),
                    ("query", lambda("Throttles", "QueryFunction")),
                ],
                more: Some(("HasOtherRegions", vec![("forward", lambda("Throttles", "ForwardFunction"))])),
                steps: vec![(
                    "throttles",
                    "refused invocations",
                    Either(
                        "HasOtherRegions",
                        "FILL(ingest, 0) + FILL(process, 0) + FILL(retry, 0) + FILL(query, 0) + FILL(forward, 0)",
                        "FILL(ingest, 0) + FILL(process, 0) + FILL(retry, 0) + FILL(query, 0)",
                    ),
                )],
            },
            period: 60,
            points: (3, 5),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "EventsStreamThrottledAlarm",
            condition: Some("PrimaryIsKinesis"),
            means: refused_by!("primary"),
            ..streams_refuse("EventsStream", "ForwardsFromPrimaryKinesis", "RemoteStream")
        },
        Alarm {
            id: "StandbyStreamThrottledAlarm",
            condition: Some("StandbyIsKinesis"),
            means: refused_by!("standby"),
            ..streams_refuse("StandbyStream", "ForwardsFromStandbyKinesis", "RemoteStandbyStream")
        },
    ]
}

/// The legacy system, the shadow and the comparison.
fn migration() -> Vec<Alarm> {
    vec![
        Alarm {
            id: "LegacyAlarm",
            condition: Some("HasLegacy"),
            severity: Page,
            means: "More than 1% of the requests passed on to the legacy system ended with a 5xx, in 3 of 5 \
                    minutes. Devices of profiles that have not moved see its errors, as they would without us.",
            to_do: "see LegacyRequests by Code. 503 mostly means that it did not answer in time, or was left \
                    alone after that (see the log of ingest). 502 means that its answer was too long or broke \
                    off, 500 that it failed internally. Check that system, and the access to it from the \
                    subnets of ingest.",
            watched: Several {
                series: vec![
                    ("failed", with_code(Metric::LegacyRequests(StatusCode::OK), "IngestFunction", "500")),
                    ("broken", with_code(Metric::LegacyRequests(StatusCode::OK), "IngestFunction", "502")),
                    ("unavailable", with_code(Metric::LegacyRequests(StatusCode::OK), "IngestFunction", "503")),
                    ("late", with_code(Metric::LegacyRequests(StatusCode::OK), "IngestFunction", "504")),
                    ("requests", of(Metric::LegacyRequests(StatusCode::OK), "IngestFunction")),
                ],
                more: None,
                steps: vec![(
                    "share",
                    "5xx answers, % of the requests",
                    Always(
                        "100 * (FILL(failed, 0) + FILL(broken, 0) + FILL(unavailable, 0) + FILL(late, 0)) / requests",
                    ),
                )],
            },
            period: 60,
            points: (3, 5),
            rings: Above(1),
            silence: IsGood,
        },
        Alarm {
            id: "ShadowMissedAlarm",
            condition: Some("HasLegacy"),
            severity: Info,
            means: "More than 5% of the events of shadow profiles did not reach the log beside the live answer, \
                    in 15 of 20 minutes. No device noticed, but sessions without these events will differ.",
            to_do: "check whether the log takes events at all (CircuitOpenedAlarm, AppendErrors), whether we \
                    accept the devices' tokens too, and whether they send what our contract says. Events that \
                    our rules refuse count as missed as well.",
            watched: Several {
                series: vec![
                    ("missed", of(Metric::ShadowMissed, "IngestFunction")),
                    ("appended", of(Metric::ShadowAppended, "IngestFunction")),
                ],
                more: None,
                steps: vec![(
                    "share",
                    "missed, % of the events of shadow profiles",
                    Always("100 * FILL(missed, 0) / (FILL(missed, 0) + FILL(appended, 0))"),
                )],
            },
            period: 300,
            points: (3, 4),
            rings: Above(5),
            silence: IsGood,
        },
        Alarm {
            id: "ShadowDroppedAlarm",
            condition: Some("UsesShadow"),
            severity: Info,
            means: "More than 1% of the shadows' events could not be folded and were dropped, in 15 of 20 \
                    minutes. Nothing live is affected, but sessions without these events will differ.",
            to_do: "see the warnings in the log of process, or of the candidate. The shadow table was \
                    throttled, too slow (2 s per batch) or is missing. After a failure it is left alone for 30 \
                    s.",
            watched: Several {
                series: vec![
                    ("dropped", of(Metric::ShadowDropped, "ProcessFunction")),
                    ("applied", of(Metric::ShadowApplied, "ProcessFunction")),
                    ("duplicate", of(Metric::ShadowDuplicate, "ProcessFunction")),
                ],
                more: Some((
                    "HasCandidate",
                    vec![
                        ("refused", of(Metric::ShadowDropped, "ProcessCandidateFunction")),
                        ("tried", of(Metric::ShadowApplied, "ProcessCandidateFunction")),
                        ("again", of(Metric::ShadowDuplicate, "ProcessCandidateFunction")),
                    ],
                )),
                steps: vec![(
                    "share",
                    "dropped, % of the events of shadows",
                    Either(
                        "HasCandidate",
                        "100 * (FILL(dropped, 0) + FILL(refused, 0)) / (FILL(dropped, 0) + FILL(applied, 0) + FILL(duplicate, 0) + FILL(refused, 0) + FILL(tried, 0) + FILL(again, 0))",
                        "100 * FILL(dropped, 0) / (FILL(dropped, 0) + FILL(applied, 0) + FILL(duplicate, 0))",
                    ),
                )],
            },
            period: 300,
            points: (3, 4),
            rings: Above(1),
            silence: IsGood,
        },
        Alarm {
            id: "MatchRateAlarm",
            condition: Some("Compares"),
            severity: Ticket,
            means: "Less than 99% of the sessions compared within an hour matched (of 100 at least).",
            to_do: "`cargo playhead compare report` shows which fields differ, with examples. ShadowMissed and \
                    ShadowDropped say how much of it is due to events that the shadow lacks. Do not raise the \
                    share of moved profiles meanwhile: `cargo playhead rollout set` refuses to.",
            watched: Several {
                series: vec![
                    ("compared", of(Metric::ComparedSessions, "CompareFunction")),
                    ("matched", of(Metric::MatchedSessions, "CompareFunction")),
                ],
                more: None,
                steps: vec![(
                    "rate",
                    "matching, % of the compared sessions",
                    Always("IF(compared >= 100, 100 * FILL(matched, 0) / compared, 100)"),
                )],
            },
            period: 3600,
            points: (1, 2),
            rings: Below(99),
            silence: IsGood,
        },
        Alarm {
            id: "CompareErrorsAlarm",
            condition: Some("Compares"),
            severity: Info,
            means: "3 runs of compare within an hour failed or timed out. Nothing live is affected. The next \
                    run continues where the last good one stopped, and sessions that cannot be compared wait.",
            to_do: "look for the error in its log group. The legacy system does not answer it, answers in a \
                    form other than LegacyMapping says, or no longer accepts its authorization.",
            watched: One(lambda("Errors", "CompareFunction")),
            period: 3600,
            points: (1, 1),
            rings: Above(2),
            silence: IsGood,
        },
    ]
}

/// The change feed.
fn feed() -> Vec<Alarm> {
    const WITH_FEED: Option<&str> = Some("HasChangeFeed");
    vec![
        Alarm {
            id: "FeedBehindAlarm",
            condition: WITH_FEED,
            severity: Ticket,
            means: "The oldest change that publish read was older than a minute, for 5 minutes: recommendations and \
                    analytics are late. Histories are not affected. Changes wait for 22 hours, then they are given up.",
            to_do: "see ChangesFailed by Reason. feed_unavailable: the stream refuses records (FeedThrottledAlarm). \
                    newer_view: newer code wrote the views, so deploy publish, too, or again. store_unavailable: the table does not answer. Without failures, publish \
                    is too slow: check its errors and throttles.",
            watched: One(lambda_lag("IteratorAge", "PublishFunction")),
            period: 60,
            points: (5, 5),
            rings: Above(60_000),
            silence: KeepsState,
        },
        // An age is written with each batch that is delivered, so none says nothing.
        Alarm {
            id: "FeedStoppedAlarm",
            condition: WITH_FEED,
            severity: Ticket,
            means: "Records were applied in 15 of 20 minutes, but publish received no change. DynamoDB keeps changes for 24 \
                    hours; what is older then never gets to the consumers.",
            to_do: "check that PublishMapping is enabled and its last result is OK, that the stream of the table is on, \
                    and whether Lambda throttles publish.",
            watched: Several {
                series: vec![
                    ("process", of(Metric::RecordsSettled, "ProcessFunction")),
                    ("retry", of(Metric::RecordsSettled, "RetryFunction")),
                    ("received", of(Metric::ChangesReceived, "PublishFunction")),
                ],
                more: None,
                steps: vec![(
                    "unseen",
                    "records applied while no change was received",
                    Always("IF(FILL(received, 0) > 0, 0, FILL(process, 0) + FILL(retry, 0))"),
                )],
            },
            period: 300,
            points: (3, 4),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "PublishFailedAlarm",
            condition: WITH_FEED,
            severity: Ticket,
            means: "Changes that cannot be published are on their queue, or the place of a batch that was given up, or \
                    Lambda could not even put that there. Consumers miss them. The table has them.",
            to_do: "read the messages (they are kept for 14 days) and the errors in the log of publish. Fix the cause. \
                    The next change of a view brings all of it again, but an erasure, a hiding or a mark does not come \
                    again: have consumers compare those profiles with the API.",
            watched: Several {
                series: vec![
                    ("waiting", sqs("ApproximateNumberOfMessagesVisible", "PublishFailedQueue")),
                    ("unwritten", lambda("DestinationDeliveryFailures", "PublishFunction")),
                ],
                more: None,
                steps: vec![(
                    "missed",
                    "messages, and batches that could not be put there",
                    Always("FILL(waiting, 0) + FILL(unwritten, 0)"),
                )],
            },
            period: 60,
            points: (1, 2),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            condition: WITH_FEED,
            means: "Invocations of publish crashed or timed out in 3 of 10 minutes. Lambda delivers the batch again, in \
                    halves, for 22 hours. Histories are not affected.",
            to_do: "look in its log group for what makes it crash, and whether the stream or the table answers too \
                    slowly.",
            ..function_fails("PublishErrorsAlarm", Ticket, "PublishFunction")
        },
        Alarm {
            id: "FeedThrottledAlarm",
            condition: WITH_FEED,
            severity: Ticket,
            means: "Kinesis refused changes in 3 of 5 minutes: more comes than the shards of the feed take. publish \
                    sends them again, in order, so the feed falls behind. Nothing is lost for 22 hours.",
            to_do: "raise StreamShards if it is set. An on-demand stream doubles its capacity within 15 minutes. A \
                    profile is one partition key: a single one with very many changes can fill a shard.",
            watched: One(throttled("ViewChangesStream")),
            period: 60,
            points: (3, 5),
            rings: Above(0),
            silence: IsGood,
        },
        Alarm {
            id: "ArchiveLateAlarm",
            condition: Some("HasChangeArchive"),
            severity: Ticket,
            means: "The oldest change that Firehose has not written to S3 is over two hours old: Athena lacks what came \
                    since. The feed has it for the retention of its stream.",
            to_do: "read in the log group of the nested stack ChangeArchiveStack why Firehose failed, and give the role \
                    back what it lost, or correct the Glue table. Firehose tries again by itself.",
            watched: One(freshness("ArchiveDelivery")),
            period: 300,
            points: (3, 3),
            rings: Above(7_200),
            silence: IsGood,
        },
    ]
}

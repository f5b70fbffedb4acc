//! What the stack hands over: a parameter named like a resource of `template.yaml` is that
//! resource's name. It is empty if that resource does not exist.

use serde_json::{Map, Value, json};

struct Group {
    label: &'static str,
    parameters: &'static [(&'static str, Allowed, &'static str)],
}

/// The values that a parameter takes.
enum Allowed {
    Pattern(&'static str),
    OneOf(&'static [&'static str]),
}
use Allowed::{OneOf, Pattern};

const FUNCTION: Allowed = Pattern("[A-Za-z0-9_-]{1,64}");
const FUNCTION_OR_NONE: Allowed = Pattern("(|[A-Za-z0-9_-]{1,64})");
const QUEUE: Allowed = Pattern("[A-Za-z0-9_-]{1,80}");
const TOPIC_OR_NONE: Allowed = Pattern("(|arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256})");
const CLUSTER_OR_NONE: Allowed =
    Pattern("(|arn:aws[a-z-]*:kafka:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9-]+/[A-Za-z0-9-]+)");
const STREAM_OR_NONE: Allowed = Pattern("(|[A-Za-z0-9_.-]{1,128})");

const GROUPS: [Group; 3] = [
    Group {
        label: "Stage",
        parameters: &[
            ("Stage", Pattern("[a-z][a-z0-9-]{0,15}"), "Name of the stage, a dimension of every metric."),
            (
                "AlarmTopicArn",
                TOPIC_OR_NONE,
                "SNS topic that is notified when an alarm starts and ends. If empty, alarms only show in CloudWatch.",
            ),
            (
                "PageTopicArn",
                TOPIC_OR_NONE,
                "SNS topic for the alarms that someone must be woken for. If empty, AlarmTopicArn gets them.",
            ),
            (
                "RunbookUrl",
                Pattern(r"[^\s#]{1,200}"),
                "Where the runbook is, docs/operate.md or a page with the same headings. Alarms link to its sections.",
            ),
            (
                "DashboardName",
                Pattern("[A-Za-z0-9_-]{1,255}"),
                "Name of the dashboard. Dashboards are shared by all regions of an account.",
            ),
            ("SavedQueries", OneOf(&["on", "off"]), "Whether queries are saved in Logs Insights."),
        ],
    },
    Group {
        label: "What the stack has",
        parameters: &[
            ("PrimaryLog", OneOf(&["kafka", "kinesis"]), "Service of the primary log."),
            ("StandbyLog", OneOf(&["none", "kafka", "kinesis"]), "Service of the standby log."),
            ("KafkaClusterArn", CLUSTER_OR_NONE, "Cluster of the primary log. Empty if that log is on Kinesis."),
            (
                "StandbyKafkaClusterArn",
                CLUSTER_OR_NONE,
                "Cluster of the standby log. Empty if that log is on Kinesis, or there is no standby.",
            ),
            (
                "ViewsTableName",
                Pattern("(|[A-Za-z0-9_.-]{3,255})"),
                "Name of the table of the views, if the stack does not own it.",
            ),
            (
                "LegacyEndpoint",
                Pattern(r"(|https?://\S+)"),
                "Where the legacy system takes requests. Empty if there is none.",
            ),
        ],
    },
    Group {
        label: "Watched resources",
        parameters: &[
            ("Api", Pattern("[A-Za-z0-9]+"), "Id of the HTTP API."),
            ("ApiLogs", Pattern("[A-Za-z0-9._/#-]{1,512}"), "Log group of the API's access log."),
            ("IngestFunction", FUNCTION, "Name of ingest."),
            ("ProcessFunction", FUNCTION, "Name of process."),
            ("RetryFunction", FUNCTION, "Name of retry."),
            ("QueryFunction", FUNCTION, "Name of query."),
            ("ForwardFunction", FUNCTION_OR_NONE, "Name of forward. Empty with a single region."),
            ("PublishFunction", FUNCTION_OR_NONE, "Name of publish. Empty if there is no change feed."),
            (
                "ProcessCandidateFunction",
                FUNCTION_OR_NONE,
                "Name of the candidate for process. Empty if there is none.",
            ),
            ("CompareFunction", FUNCTION_OR_NONE, "Name of compare. Empty if nothing is compared."),
            ("RetryQueue", QUEUE, "Name of the retry queue."),
            ("InboundQueue", QUEUE, "Name of the queue into which other regions send."),
            ("DeadLetterQueue", QUEUE, "Name of the dead-letter queue."),
            (
                "PublishFailedQueue",
                Pattern("(|[A-Za-z0-9_-]{1,80})"),
                "Name of the queue of the changes that cannot be published. Empty if there is no change feed.",
            ),
            (
                "ViewsTable",
                Pattern("(|[A-Za-z0-9_.-]{3,255})"),
                "Name of the stack's own table of the views. Empty if it has none.",
            ),
            ("FailureBucket", Pattern("[a-z0-9.-]{3,63}"), "Name of the bucket of the batches that Lambda gave up."),
            ("EventsStream", STREAM_OR_NONE, "Stream of the primary log. Empty if that log is on Kafka."),
            (
                "StandbyStream",
                STREAM_OR_NONE,
                "Stream of the standby log. Empty if that log is on Kafka, or there is no standby.",
            ),
            ("RemoteStream", STREAM_OR_NONE, "Stream of the primary log for other regions. Empty if there is none."),
            (
                "RemoteStandbyStream",
                STREAM_OR_NONE,
                "Stream of the standby log for other regions. Empty if there is none.",
            ),
            ("ViewChangesStream", STREAM_OR_NONE, "Stream of the change feed. Empty if there is none."),
            ("ArchiveDelivery", STREAM_OR_NONE, "Firehose stream of the feed's archive. Empty if there is none."),
            (
                "Mappings",
                Pattern(r#"[0-9a-zA-Z-]+(\\" OR \\"[0-9a-zA-Z-]+)*"#),
                "Ids of the event source mappings, in the form that a search in the dashboard takes: the quotes and \
                 the OR between them included.",
            ),
        ],
    },
];

pub(crate) fn metadata() -> Value {
    let groups: Vec<Value> = GROUPS
        .iter()
        .map(|group| {
            let names: Vec<&str> = group.parameters.iter().map(|(name, ..)| *name).collect();
            json!({ "Label": { "default": group.label }, "Parameters": names })
        })
        .collect();
    json!({ "AWS::CloudFormation::Interface": { "ParameterGroups": groups } })
}

pub(crate) fn parameters() -> Value {
    let all = GROUPS.iter().flat_map(|group| group.parameters);
    let one = |(name, allowed, description): &(&str, Allowed, &str)| {
        let (constraint, values) = match allowed {
            Pattern(pattern) => ("AllowedPattern", json!(pattern)),
            OneOf(values) => ("AllowedValues", json!(values)),
        };
        ((*name).to_owned(), json!({ "Type": "String", "Description": description, constraint: values }))
    };
    Value::Object(all.map(one).collect::<Map<_, _>>())
}

/// The resources that may not exist, with the condition that says whether they do.
pub(crate) const OPTIONAL: [(&str, &str); 10] = [
    ("EventsStream", "PrimaryIsKinesis"),
    ("StandbyStream", "StandbyIsKinesis"),
    ("RemoteStream", "ForwardsFromPrimaryKinesis"),
    ("RemoteStandbyStream", "ForwardsFromStandbyKinesis"),
    ("ForwardFunction", "HasOtherRegions"),
    ("ProcessCandidateFunction", "HasCandidate"),
    ("CompareFunction", "Compares"),
    ("PublishFunction", "HasChangeFeed"),
    ("ViewChangesStream", "HasChangeFeed"),
    ("ArchiveDelivery", "HasChangeArchive"),
];

/// A condition that `template.yaml` has too holds exactly when it holds there.
pub(crate) fn conditions() -> Value {
    let is = |parameter: &str, value: &str| json!({ "Fn::Equals": [{ "Ref": parameter }, value] });
    let given = |parameter: &str| json!({ "Fn::Not": [is(parameter, "")] });
    let holds = |name: &str| json!({ "Condition": name });
    let all = [
        ("HasAlarmTopic", given("AlarmTopicArn")),
        ("HasPageTopic", given("PageTopicArn")),
        ("HasCluster", given("KafkaClusterArn")),
        ("HasStandbyCluster", given("StandbyKafkaClusterArn")),
        ("OwnsViewsTable", given("ViewsTable")),
        ("SavesQueries", is("SavedQueries", "on")),
        ("UsesKafka", json!({ "Fn::Or": [is("PrimaryLog", "kafka"), is("StandbyLog", "kafka")] })),
        ("UsesKinesis", json!({ "Fn::Or": [holds("PrimaryIsKinesis"), holds("StandbyIsKinesis")] })),
        ("HasStandby", json!({ "Fn::Not": [is("StandbyLog", "none")] })),
        ("ForwardsFromKafka", json!({ "Fn::And": [holds("HasOtherRegions"), holds("UsesKafka")] })),
        (
            "ForwardsFromKinesis",
            json!({ "Fn::Or": [holds("ForwardsFromPrimaryKinesis"), holds("ForwardsFromStandbyKinesis")] }),
        ),
        ("HasLegacy", given("LegacyEndpoint")),
        ("UsesShadow", json!({ "Fn::Or": [holds("HasLegacy"), holds("HasCandidate")] })),
    ];
    let of_resources = OPTIONAL.iter().map(|(parameter, condition)| (*condition, given(parameter)));
    let all = all.into_iter().chain(of_resources.filter(|(name, _)| *name != "HasChangeFeed"));
    let all = all.chain([("HasChangeFeed", given("PublishFunction"))]);
    Value::Object(all.map(|(name, condition)| (name.to_owned(), condition)).collect())
}

//! The durable log: each choice of primary and standby, in one region or several, creates what it
//! needs and nothing else, and every mapping retries, gives up and saves in the same way.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::choice::{Choice, referred};
use super::regions::{ALONE, ONE_OF_TWO};
use super::shadow::{TAKEN_OVER_FROM, TRIED};
use super::{
    OBSERVABILITY, arn_of, behind, number, object, observability, of_type, part_of_cluster, properties, statements,
    strings, template,
};

pub(crate) const PRIMARY_CLUSTER: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/primary/0-1";
pub(crate) const STANDBY_CLUSTER: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/standby/0-2";
const JWKS: (&str, &str) = ("JwtJwksUrl", "https://issuer.example/jwks.json");

/// What a choice of logs must create.
struct Expected {
    primary: &'static str,
    standby: &'static str,
    mappings: &'static [&'static str],
    /// Streams that `ingest` writes to and `process` reads. (With other regions each has a second
    /// one, for `forward`.)
    streams: &'static [&'static str],
    /// The nested stacks of the clusters that are used in the same way.
    clusters: &'static [&'static str],
}

static EVERY_WAY: [Expected; 6] = [
    Expected {
        primary: "kafka",
        standby: "none",
        mappings: &["ProcessLogMapping"],
        streams: &[],
        clusters: &["Kafka"],
    },
    Expected {
        primary: "kafka",
        standby: "kafka",
        mappings: &["ProcessLogMapping", "ProcessStandbyLogMapping"],
        streams: &[],
        clusters: &["Kafka", "StandbyKafka"],
    },
    Expected {
        primary: "kafka",
        standby: "kinesis",
        mappings: &["ProcessLogMapping", "ProcessStandbyStreamMapping"],
        streams: &["StandbyStream"],
        clusters: &["Kafka"],
    },
    Expected {
        primary: "kinesis",
        standby: "none",
        mappings: &["ProcessStreamMapping"],
        streams: &["EventsStream"],
        clusters: &[],
    },
    Expected {
        primary: "kinesis",
        standby: "kafka",
        mappings: &["ProcessStandbyLogMapping", "ProcessStreamMapping"],
        streams: &["EventsStream"],
        clusters: &["StandbyKafka"],
    },
    Expected {
        primary: "kinesis",
        standby: "kinesis",
        mappings: &["ProcessStandbyStreamMapping", "ProcessStreamMapping"],
        streams: &["EventsStream", "StandbyStream"],
        clusters: &[],
    },
];

/// The only stream that is no log.
const FEED: &str = "ViewChangesStream";

/// Every choice of logs, in a deployment of one region and of several.
fn every_way_alone_and_not() -> impl Iterator<Item = (&'static Expected, (&'static str, &'static str))> {
    EVERY_WAY.iter().flat_map(|way| [(way, ALONE), (way, ONE_OF_TWO)])
}

/// Every choice of logs, in one region and in several, with a VPC, a shared table, a legacy system
/// or a candidate.
pub(crate) fn accepted_stacks(template: &Value) -> impl Iterator<Item = Choice<'_>> {
    const VPC: [(&str, &str); 2] = [("SubnetIds", "subnet-0123abcd"), ("SecurityGroupIds", "sg-0123abcd")];
    const TABLE: [(&str, &str); 1] = [("ViewsTableName", "playhead-views")];
    let more = [&[][..], &VPC, &TABLE, &TAKEN_OVER_FROM[..1], &TAKEN_OVER_FROM, &TRIED];
    every_way_alone_and_not().flat_map(move |(expected, regions)| {
        more.map(|more| {
            let parameters = expected.parameters().into_iter().chain([regions]).chain(more.iter().copied());
            let choice = Choice::of(template, parameters);
            assert!(choice.accepted(), "{choice:?}");
            choice
        })
    })
}

impl Expected {
    /// A deployment of these logs that the rules accept.
    fn parameters(&self) -> Vec<(&'static str, &'static str)> {
        let mut parameters = vec![("PrimaryLog", self.primary), ("StandbyLog", self.standby), JWKS];
        parameters.extend((self.primary == "kafka").then_some(("KafkaClusterArn", PRIMARY_CLUSTER)));
        parameters.extend((self.standby == "kafka").then_some(("StandbyKafkaClusterArn", STANDBY_CLUSTER)));
        parameters
    }
}

pub(crate) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Mappings or streams of `forward` that go with those of `process`, if there are other regions.
fn beside(of_process: &[&str], regions: (&str, &str)) -> BTreeSet<String> {
    let there = of_process.iter().filter(|_| regions == ONE_OF_TWO);
    there
        .map(|id| match *id {
            "EventsStream" => "RemoteStream".to_owned(),
            "StandbyStream" => "RemoteStandbyStream".to_owned(),
            mapping => mapping.replace("Process", "Forward"),
        })
        .collect()
}

fn both(one: &BTreeSet<String>, other: &BTreeSet<String>) -> BTreeSet<String> {
    one.union(other).cloned().collect()
}

pub(crate) fn made_of(resources: &Map<String, Value>, kind: &str) -> BTreeSet<String> {
    resources.iter().filter(|(_, resource)| resource["Type"] == kind).map(|(id, _)| id.clone()).collect()
}

/// What a role may do an action on: the names behind the ARNs, topics separately. A role that does
/// not exist may do nothing.
fn may_on(resources: &Map<String, Value>, role: &str, action: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let policies = resources.get(role).map(|role| &role["Properties"]["Policies"]);
    let found = policies.into_iter().flat_map(statements);
    let of_it = found.filter(|statement| strings(&statement["Action"]).contains(&action.to_owned()));
    of_it.flat_map(|statement| referred(&statement["Resource"])).partition(|name| name.ends_with("Topic"))
}

fn topics(resources: &Map<String, Value>, role: &str, action: &str) -> BTreeSet<String> {
    may_on(resources, role, action).0
}

fn may(resources: &Map<String, Value>, role: &str, action: &str) -> BTreeSet<String> {
    may_on(resources, role, action).1
}

#[test]
fn every_choice_of_logs_creates_only_what_it_needs() {
    let template = template();
    for (expected, regions, security) in
        every_way_alone_and_not().flat_map(|(way, regions)| [(way, regions, "iam"), (way, regions, "plaintext")])
    {
        let way = format!("{} with standby {}, {regions:?}, {security}", expected.primary, expected.standby);
        let parameters = expected.parameters().into_iter().chain([("KafkaSecurity", security), regions]);
        let choice = Choice::of(&template, parameters);
        assert!(choice.accepted(), "{way}");
        let made = choice.resources();

        let mut mappings = made_of(&made, "AWS::Lambda::EventSourceMapping");
        let of_no_log = ["ProcessInboundMapping", "PublishMapping", "RetryMapping"];
        mappings.retain(|mapping| !of_no_log.contains(&mapping.as_str()));
        assert_eq!(mappings, both(&names(expected.mappings), &beside(expected.mappings, regions)), "{way}");
        let (streams, remote, clusters) =
            (names(expected.streams), beside(expected.streams, regions), names(expected.clusters));
        let all_streams = both(&streams, &remote);
        let mut of_logs = made_of(&made, "AWS::Kinesis::Stream");
        of_logs.remove(FEED);
        assert_eq!(of_logs, all_streams, "{way}");
        let outputs = choice.outputs().into_iter().map(|(name, _)| name);
        let mut named: BTreeSet<String> = outputs.filter(|name| name.ends_with("StreamName")).collect();
        named.remove(&format!("{FEED}Name"));
        assert_eq!(named, all_streams.iter().map(|stream| format!("{stream}Name")).collect(), "{way}");

        let mut nested = made_of(&made, "AWS::CloudFormation::Stack");
        assert!(nested.remove(OBSERVABILITY));
        assert_eq!(nested, clusters, "{way}");

        assert_eq!(may(&made, "IngestRole", "kinesis:PutRecords"), all_streams, "{way}");
        assert_eq!(may(&made, "ProcessRole", "kinesis:GetRecords"), streams, "{way}");
        assert_eq!(may(&made, "ForwardRole", "kinesis:GetRecords"), remote, "{way}");
        let through_iam = if security == "iam" { clusters.clone() } else { BTreeSet::new() };
        let here = |names: &BTreeSet<String>| if regions == ONE_OF_TWO { names.clone() } else { BTreeSet::new() };
        assert_eq!(may(&made, "IngestRole", "kafka-cluster:WriteData"), through_iam, "{way}");
        assert_eq!(may(&made, "ProcessRole", "kafka-cluster:ReadData"), through_iam, "{way}");
        assert_eq!(may(&made, "ForwardRole", "kafka-cluster:ReadData"), here(&through_iam), "{way}");
        assert_eq!(may(&made, "ProcessRole", "kafka:DescribeClusterV2"), clusters, "{way}");
        assert_eq!(may(&made, "ForwardRole", "kafka:DescribeClusterV2"), here(&clusters), "{way}");
        // Each reads its own topic, and `ingest` writes to all there are.
        let topic = |name: &str| if through_iam.is_empty() { BTreeSet::new() } else { names(&[name]) };
        let (own, remote) = (topic("KafkaTopic"), here(&topic("KafkaRemoteTopic")));
        assert_eq!(topics(&made, "IngestRole", "kafka-cluster:WriteData"), both(&own, &remote), "{way}");
        assert_eq!(topics(&made, "ProcessRole", "kafka-cluster:ReadData"), own, "{way}");
        assert_eq!(topics(&made, "ForwardRole", "kafka-cluster:ReadData"), remote, "{way}");

        let variables = &made["IngestFunction"]["Properties"]["Environment"]["Variables"];
        let stream = |id: &str| if all_streams.contains(id) { json!({ "Ref": id }) } else { json!("") };
        assert_eq!(variables["KINESIS_STREAM"], stream("EventsStream"), "{way}");
        assert_eq!(variables["STANDBY_KINESIS_STREAM"], stream("StandbyStream"), "{way}");
        assert_eq!(variables["KINESIS_REMOTE_STREAM"], stream("RemoteStream"), "{way}");
        assert_eq!(variables["STANDBY_KINESIS_REMOTE_STREAM"], stream("RemoteStandbyStream"), "{way}");
    }
}

#[test]
fn without_kafka_no_role_mentions_msk() {
    let template = template();
    for (expected, regions) in every_way_alone_and_not().filter(|(way, _)| way.clusters.is_empty()) {
        let made = Choice::of(&template, expected.parameters().into_iter().chain([regions])).resources();
        for role in made_of(&made, "AWS::IAM::Role") {
            for statement in statements(&made[&role]["Properties"]["Policies"]) {
                for action in strings(&statement["Action"]) {
                    assert!(!action.starts_with("kafka") && !action.starts_with("ec2"), "{role} may {action}");
                }
            }
        }
    }
}

#[test]
fn nothing_refers_to_what_does_not_exist() {
    let (template, observability) = (template(), observability());
    let known = object(&template["Parameters"]);
    let handed_over = object(&observability["Parameters"]);
    for choice in accepted_stacks(&template) {
        let (made, outputs) = (choice.resources(), choice.outputs());
        for (id, part) in made.iter().chain(&outputs) {
            for to in referred(part) {
                let there = made.contains_key(&to) || known.contains_key(&to) || to.starts_with("AWS::");
                assert!(there, "{choice:?}: {id} refers to {to}");
            }
        }
        // Nested, a parameter named like a resource of the stack is that resource's name.
        let nested = choice.nested(OBSERVABILITY, &observability);
        let (nested, outputs) = (nested.resources(), nested.outputs());
        for (id, part) in nested.iter().chain(&outputs) {
            for to in referred(part) {
                let there = match template["Resources"].get(&to) {
                    Some(_) => handed_over.contains_key(&to) && made.contains_key(&to),
                    None => nested.contains_key(&to) || handed_over.contains_key(&to) || to.starts_with("AWS::"),
                };
                assert!(there, "{choice:?}: {id} refers to {to}");
            }
        }
    }
}

#[test]
fn a_log_and_its_cluster_must_be_given_together() {
    let template = template();
    let check = |parameters: &[(&str, &str)], accepted: bool| {
        let parameters = parameters.iter().copied().chain([JWKS]);
        let choice = Choice::of(&template, parameters.clone());
        assert_eq!(choice.accepted(), accepted, "{:?}", parameters.collect::<Vec<_>>());
    };
    let (kinesis, primary) = (("PrimaryLog", "kinesis"), ("KafkaClusterArn", PRIMARY_CLUSTER));
    let (to_kafka, standby) = (("StandbyLog", "kafka"), ("StandbyKafkaClusterArn", STANDBY_CLUSTER));
    check(&[primary], true);
    check(&[], false);
    check(&[kinesis], true);
    check(&[kinesis, primary], false);
    check(&[primary, to_kafka, standby], true);
    check(&[kinesis, to_kafka, standby], true);
    check(&[primary, to_kafka], false);
    check(&[primary, standby], false);
    check(&[primary, ("StandbyLog", "kinesis"), standby], false);
    check(&[primary, to_kafka, ("StandbyKafkaClusterArn", PRIMARY_CLUSTER)], false);
    // Each function would also read the other's records.
    check(&[primary, ("KafkaRemoteTopic", "playback-events")], false);
    check(&[primary, ("KafkaRemoteTopic", "abroad")], true);
}

#[test]
fn log_mappings_answer_in_part_bisect_and_give_up_to_the_bucket() {
    let template = template();
    let check = |value: &Value, allowed: std::ops::RangeInclusive<u64>| {
        assert!(allowed.contains(&number(value)), "{value} is not in {allowed:?}");
    };
    let shared = |mapping: &Value| {
        let names =
            ["BatchSize", "MaximumBatchingWindowInSeconds", "MaximumRetryAttempts", "MaximumRecordAgeInSeconds"];
        names.map(|name| mapping[name].clone())
    };
    let ids = ["LogMapping", "StandbyLogMapping", "StreamMapping", "StandbyStreamMapping"];
    for (function, id) in
        ["Process", "Forward"].iter().flat_map(|function| ids.map(|id| (function, format!("{function}{id}"))))
    {
        let mapping = properties(&template, &id);
        assert_eq!(behind(&mapping["FunctionName"]), format!("{function}Function"), "{id}");
        // Events accepted before the mapping existed count as well.
        assert_eq!(mapping["StartingPosition"], "TRIM_HORIZON", "{id}");
        assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]), "{id}");
        assert_eq!(mapping["BisectBatchOnFunctionError"], true, "{id}");
        assert_eq!(mapping["DestinationConfig"]["OnFailure"]["Destination"], arn_of("FailureBucket"), "{id}");
        // Finite limits, within those of the service.
        check(&mapping["MaximumRetryAttempts"], 1..=10_000);
        check(&mapping["MaximumRecordAgeInSeconds"], 60..=604_800);
        check(&mapping["BatchSize"], 1..=10_000);
        check(&mapping["MaximumBatchingWindowInSeconds"], 0..=5);
        let first = properties(&template, &format!("{function}{}", ids[0]));
        assert_eq!(shared(&mapping), shared(&first), "{id}: a standby is treated like the primary");
    }
    // A region may be down for long, and its records wait on the log: only their age gives them up.
    let [crash, down] = ["ProcessLogMapping", "ForwardLogMapping"].map(|id| properties(&template, id));
    assert_eq!(number(&down["MaximumRetryAttempts"]), 10_000);
    assert_eq!(down["MaximumRecordAgeInSeconds"], crash["MaximumRecordAgeInSeconds"]);
}

#[test]
fn topic_mappings_are_provisioned_with_their_own_groups() {
    let template = template();
    let mappings = [
        ("ProcessLogMapping", "ProcessRole", "KafkaTopic", "Kafka", "${AWS::StackName}-process"),
        ("ProcessStandbyLogMapping", "ProcessRole", "KafkaTopic", "StandbyKafka", "${AWS::StackName}-process-standby"),
        ("ForwardLogMapping", "ForwardRole", "KafkaRemoteTopic", "Kafka", "${AWS::StackName}-forward"),
        (
            "ForwardStandbyLogMapping",
            "ForwardRole",
            "KafkaRemoteTopic",
            "StandbyKafka",
            "${AWS::StackName}-forward-standby",
        ),
    ];
    for (id, role, topic, cluster, group) in mappings {
        let mapping = properties(&template, id);
        assert_eq!(mapping["EventSourceArn"], json!({ "Fn::GetAtt": [cluster, "Outputs", "ClusterArn"] }), "{id}");
        assert_eq!(mapping["Topics"], json!([{ "Ref": topic }]), "{id}");
        let config = &mapping["AmazonManagedKafkaEventSourceConfig"];
        assert_eq!(config["ConsumerGroupId"], json!({ "Fn::Sub": group }), "{id}");
        let pollers = &mapping["ProvisionedPollerConfig"];
        for parameter in ["MinimumPollers", "MaximumPollers"] {
            assert_eq!(pollers[parameter], json!({ "Ref": parameter }), "{id}");
        }
        // The role may join that group, on that cluster.
        let may_join = |statement: &&Value| {
            let (resource, of) = (&statement["Resource"], referred(&statement["Resource"]));
            strings(&statement["Action"]).contains(&"kafka-cluster:AlterGroup".to_owned())
                && *resource == part_of_cluster("group", cluster, group)
                && of == names(&["AWS::StackName", cluster])
        };
        let role = properties(&template, role);
        assert_eq!(statements(&role["Policies"]).into_iter().filter(may_join).count(), 1, "{id}");
    }
}

#[test]
fn streams_have_the_given_shards_and_outlive_mapping_and_stack() {
    let template = template();
    let mappings = [
        ("EventsStream", "ProcessStreamMapping"),
        ("RemoteStandbyStream", "ForwardStandbyStreamMapping"),
        ("RemoteStream", "ForwardStreamMapping"),
        ("StandbyStream", "ProcessStandbyStreamMapping"),
    ];
    let mut streams: Vec<String> = of_type(&template, "AWS::Kinesis::Stream").into_keys().collect();
    streams.retain(|id| id != FEED);
    assert_eq!(streams, mappings.map(|(id, _)| id));
    for (id, mapping) in mappings {
        let (stream, mapping) = (properties(&template, id), properties(&template, mapping));
        assert_eq!(mapping["EventSourceArn"], arn_of(id));
        for (shards, mode) in
            [("0", json!({ "StreamMode": "ON_DEMAND" })), ("70", json!({ "StreamMode": "PROVISIONED" }))]
        {
            let logs = [("PrimaryLog", "kinesis"), ("StandbyLog", "kinesis"), ("StreamShards", shards), ONE_OF_TWO];
            let made = Choice::of(&template, logs).resources()[id]["Properties"].clone();
            assert_eq!(made["StreamModeDetails"], mode, "{id}");
            // Kinesis refuses a number of shards for a stream that scales by itself.
            assert_eq!(made.get("ShardCount").is_some(), shards != "0", "{id}");
        }
        // Given-up records are copied to the bucket, so they must still be on the stream.
        let kept_for = number(&stream["RetentionPeriodHours"]) * 60 * 60;
        assert!(kept_for > number(&mapping["MaximumRecordAgeInSeconds"]), "{id}");
        assert!((1..=10).contains(&number(&mapping["ParallelizationFactor"])), "{id}");
        // It may hold events that were accepted but not yet applied.
        assert_eq!(template["Resources"][id]["DeletionPolicy"], "RetainExceptOnCreate", "{id}");
    }
}

//! The durable log: each choice of primary and standby, in one region or several, makes what it needs and nothing else, and
//! every mapping tries, gives up and saves in the same way.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::choice::{Choice, referred};
use super::regions::{ALONE, ONE_OF_TWO};
use super::shadow::{TAKEN_OVER_FROM, TRIED};
use super::{arn_of, number, object, of_type, properties, statements, strings, template};

pub(crate) const PRIMARY_CLUSTER: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/primary/0-1";
pub(crate) const STANDBY_CLUSTER: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/standby/0-2";
const JWKS: (&str, &str) = ("JwtJwksUrl", "https://issuer.example/jwks.json");

/// What one way to choose the logs must make.
struct Expected {
    primary: &'static str,
    standby: &'static str,
    mappings: &'static [&'static str],
    /// Streams that `ingest` writes to and `process` is woken by. (With other regions each has another beside it, for `forward`.)
    streams: &'static [&'static str],
    /// Parameters with the clusters that are used in the same way.
    clusters: &'static [&'static str],
}

static EVERY_WAY: [Expected; 6] = [
    Expected {
        primary: "kafka",
        standby: "none",
        mappings: &["ProcessLogMapping"],
        streams: &[],
        clusters: &["KafkaClusterArn"],
    },
    Expected {
        primary: "kafka",
        standby: "kafka",
        mappings: &["ProcessLogMapping", "ProcessStandbyLogMapping"],
        streams: &[],
        clusters: &["KafkaClusterArn", "StandbyKafkaClusterArn"],
    },
    Expected {
        primary: "kafka",
        standby: "kinesis",
        mappings: &["ProcessLogMapping", "ProcessStandbyStreamMapping"],
        streams: &["StandbyStream"],
        clusters: &["KafkaClusterArn"],
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
        clusters: &["StandbyKafkaClusterArn"],
    },
    Expected {
        primary: "kinesis",
        standby: "kinesis",
        mappings: &["ProcessStandbyStreamMapping", "ProcessStreamMapping"],
        streams: &["EventsStream", "StandbyStream"],
        clusters: &[],
    },
];

/// Every way to choose the logs, in a deployment of one region and in one of several.
fn every_way_alone_and_not() -> impl Iterator<Item = (&'static Expected, (&'static str, &'static str))> {
    EVERY_WAY.iter().flat_map(|way| [(way, ALONE), (way, ONE_OF_TWO)])
}

impl Expected {
    /// A deployment of these logs that the rules let pass.
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

/// Mappings or streams of `forward` beside those of `process`, if there are other regions.
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

/// What a role may do an action on: the template's names behind the ARNs, topics apart from the others. A role that is not made
/// may do nothing.
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
fn every_choice_of_logs_makes_what_it_needs_and_nothing_else() {
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
        mappings.retain(|mapping| !["ProcessInboundMapping", "RetryMapping"].contains(&mapping.as_str()));
        assert_eq!(mappings, both(&names(expected.mappings), &beside(expected.mappings, regions)), "{way}");
        let (streams, remote, clusters) =
            (names(expected.streams), beside(expected.streams, regions), names(expected.clusters));
        let all_streams = both(&streams, &remote);
        assert_eq!(made_of(&made, "AWS::Kinesis::Stream"), all_streams, "{way}");
        let outputs = choice.outputs().into_iter().map(|(name, _)| name);
        let named: BTreeSet<String> = outputs.filter(|name| name.ends_with("StreamName")).collect();
        assert_eq!(named, all_streams.iter().map(|stream| format!("{stream}Name")).collect(), "{way}");

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
        // Each reads its own topic, and `ingest` writes to what there is.
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
fn without_a_log_on_kafka_nothing_of_msk_is_left() {
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
fn nothing_that_is_made_refers_to_what_is_not() {
    let template = template();
    let known: BTreeSet<String> = object(&template["Parameters"]).keys().cloned().collect();
    let vpc = [("SubnetIds", "subnet-0123abcd"), ("SecurityGroupIds", "sg-0123abcd")];
    let table = [("ViewsTableName", "playhead-views")];
    for (expected, regions) in every_way_alone_and_not() {
        for more in [&[][..], &vpc, &table, &TAKEN_OVER_FROM[..1], &TAKEN_OVER_FROM, &TRIED] {
            let parameters = expected.parameters().into_iter().chain([regions]).chain(more.iter().copied());
            let choice = Choice::of(&template, parameters);
            assert!(choice.accepted(), "{more:?}");
            let (made, outputs) = (choice.resources(), choice.outputs());
            for (id, part) in made.iter().chain(&outputs) {
                for to in referred(part) {
                    let there = made.contains_key(&to) || known.contains(&to) || to.starts_with("AWS::");
                    let way = format!("{} with standby {}, {regions:?}", expected.primary, expected.standby);
                    assert!(there, "{way}, {more:?}: {id} refers to {to}");
                }
            }
        }
    }
}

#[test]
fn a_log_without_its_cluster_and_a_cluster_without_its_log_are_refused() {
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
    // What is for other regions would be applied here, and what is for this one forwarded.
    check(&[primary, ("KafkaRemoteTopic", "playback-events")], false);
    check(&[primary, ("KafkaRemoteTopic", "abroad")], true);
}

#[test]
fn every_mapping_of_a_log_answers_in_part_bisects_and_gives_up_into_the_bucket() {
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
        assert_eq!(mapping["FunctionName"], json!({ "Ref": format!("{function}Function") }), "{id}");
        // What was accepted before the mapping existed counts as well.
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
        assert_eq!(shared(&mapping), shared(&first), "{id}: a standby is no second class");
    }
    // A region may be away for long, and what is for it waits on the log: only its age gives it up.
    let [crash, away] = ["ProcessLogMapping", "ForwardLogMapping"].map(|id| properties(&template, id));
    assert_eq!(number(&away["MaximumRetryAttempts"]), 10_000);
    assert_eq!(away["MaximumRecordAgeInSeconds"], crash["MaximumRecordAgeInSeconds"]);
}

#[test]
fn the_mappings_of_topics_are_provisioned_and_have_consumer_groups_of_their_own() {
    let template = template();
    let mappings = [
        ("ProcessLogMapping", "ProcessRole", "KafkaTopic", "KafkaClusterArn", "${AWS::StackName}-process"),
        (
            "ProcessStandbyLogMapping",
            "ProcessRole",
            "KafkaTopic",
            "StandbyKafkaClusterArn",
            "${AWS::StackName}-process-standby",
        ),
        ("ForwardLogMapping", "ForwardRole", "KafkaRemoteTopic", "KafkaClusterArn", "${AWS::StackName}-forward"),
        (
            "ForwardStandbyLogMapping",
            "ForwardRole",
            "KafkaRemoteTopic",
            "StandbyKafkaClusterArn",
            "${AWS::StackName}-forward-standby",
        ),
    ];
    for (id, role, topic, cluster, group) in mappings {
        let mapping = properties(&template, id);
        assert_eq!(mapping["EventSourceArn"], json!({ "Ref": cluster }), "{id}");
        assert_eq!(mapping["Topics"], json!([{ "Ref": topic }]), "{id}");
        let config = &mapping["AmazonManagedKafkaEventSourceConfig"];
        assert_eq!(config["ConsumerGroupId"], json!({ "Fn::Sub": group }), "{id}");
        let pollers = &mapping["ProvisionedPollerConfig"];
        assert!((1..=200).contains(&number(&pollers["MinimumPollers"])), "{id}");
        assert!((number(&pollers["MinimumPollers"])..=2_000).contains(&number(&pollers["MaximumPollers"])), "{id}");
        // The role may join that group, on that cluster.
        let may_join = |statement: &&Value| {
            let (resource, of) = (&statement["Resource"], referred(&statement["Resource"]));
            strings(&statement["Action"]).contains(&"kafka-cluster:AlterGroup".to_owned())
                && resource["Fn::Sub"][0] == format!("${{Prefix}}:group/${{Cluster}}/{group}")
                && of == names(&["AWS::StackName", cluster])
        };
        let role = properties(&template, role);
        assert_eq!(statements(&role["Policies"]).into_iter().filter(may_join).count(), 1, "{id}");
    }
}

#[test]
fn a_stream_has_the_shards_that_were_asked_for_and_outlives_its_mapping_and_its_stack() {
    let template = template();
    let mappings = [
        ("EventsStream", "ProcessStreamMapping"),
        ("RemoteStandbyStream", "ForwardStandbyStreamMapping"),
        ("RemoteStream", "ForwardStreamMapping"),
        ("StandbyStream", "ProcessStandbyStreamMapping"),
    ];
    assert_eq!(of_type(&template, "AWS::Kinesis::Stream").into_keys().collect::<Vec<_>>(), mappings.map(|(id, _)| id));
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
        // What is given up is saved in the bucket, which takes the record: it must still be there.
        let kept_for = number(&stream["RetentionPeriodHours"]) * 60 * 60;
        assert!(kept_for > number(&mapping["MaximumRecordAgeInSeconds"]), "{id}");
        assert!((1..=10).contains(&number(&mapping["ParallelizationFactor"])), "{id}");
        // It may hold what was accepted and not yet applied.
        assert_eq!(template["Resources"][id]["DeletionPolicy"], "RetainExceptOnCreate", "{id}");
    }
}

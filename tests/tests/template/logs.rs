//! The durable log: each choice of primary and standby makes what it needs and nothing else, and every mapping tries,
//! gives up and saves in the same way.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::choice::{Choice, referred};
use super::{arn_of, number, object, of_type, properties, statements, strings, template};

const PRIMARY_CLUSTER: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/primary/0-1";
const STANDBY_CLUSTER: &str = "arn:aws:kafka:us-east-1:000000000000:cluster/standby/0-2";
const JWKS: (&str, &str) = ("JwtJwksUrl", "https://issuer.example/jwks.json");

/// What one way to choose the logs must make.
struct Expected {
    primary: &'static str,
    standby: &'static str,
    mappings: &'static [&'static str],
    /// Streams that `ingest` writes to and `process` is woken by.
    streams: &'static [&'static str],
    /// Parameters with the clusters that are used in the same way.
    clusters: &'static [&'static str],
}

const EVERY_WAY: [Expected; 6] = [
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

impl Expected {
    /// A deployment of these logs that the rules let pass.
    fn parameters(&self) -> Vec<(&'static str, &'static str)> {
        let mut parameters = vec![("PrimaryLog", self.primary), ("StandbyLog", self.standby), JWKS];
        parameters.extend((self.primary == "kafka").then_some(("KafkaClusterArn", PRIMARY_CLUSTER)));
        parameters.extend((self.standby == "kafka").then_some(("StandbyKafkaClusterArn", STANDBY_CLUSTER)));
        parameters
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn made_of(resources: &Map<String, Value>, kind: &str) -> BTreeSet<String> {
    resources.iter().filter(|(_, resource)| resource["Type"] == kind).map(|(id, _)| id.clone()).collect()
}

/// What a role may do an action on: the template's names behind the ARNs.
fn may(resources: &Map<String, Value>, role: &str, action: &str) -> BTreeSet<String> {
    let policies = &resources[role]["Properties"]["Policies"];
    let of_it =
        statements(policies).into_iter().filter(|statement| strings(&statement["Action"]).contains(&action.to_owned()));
    let mut found: BTreeSet<String> = of_it.flat_map(|statement| referred(&statement["Resource"])).collect();
    found.remove("KafkaTopic");
    found
}

#[test]
fn every_choice_of_logs_makes_what_it_needs_and_nothing_else() {
    let template = template();
    for expected in EVERY_WAY {
        let way = format!("{} with standby {}", expected.primary, expected.standby);
        for security in ["iam", "plaintext"] {
            let parameters = expected.parameters().into_iter().chain([("KafkaSecurity", security)]);
            let choice = Choice::of(&template, parameters);
            assert!(choice.accepted(), "{way}");
            let made = choice.resources();

            let mut mappings = made_of(&made, "AWS::Lambda::EventSourceMapping");
            mappings.retain(|mapping| !["ProcessInboundMapping", "RetryMapping"].contains(&mapping.as_str()));
            assert_eq!(mappings, names(expected.mappings), "{way}");
            let (streams, clusters) = (names(expected.streams), names(expected.clusters));
            assert_eq!(made_of(&made, "AWS::Kinesis::Stream"), streams, "{way}");
            let named: BTreeSet<String> = choice
                .outputs()
                .into_iter()
                .filter(|(name, _)| name.ends_with("StreamName"))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(named, streams.iter().map(|stream| format!("{stream}Name")).collect(), "{way}");

            assert_eq!(may(&made, "IngestRole", "kinesis:PutRecords"), streams, "{way}");
            assert_eq!(may(&made, "ProcessRole", "kinesis:GetRecords"), streams, "{way}");
            let through_iam = if security == "iam" { clusters.clone() } else { BTreeSet::new() };
            assert_eq!(may(&made, "IngestRole", "kafka-cluster:WriteData"), through_iam, "{way}");
            assert_eq!(may(&made, "ProcessRole", "kafka-cluster:ReadData"), through_iam, "{way}");
            assert_eq!(may(&made, "ProcessRole", "kafka:DescribeClusterV2"), clusters, "{way}");

            let variables = &made["IngestFunction"]["Properties"]["Environment"]["Variables"];
            let stream = |id: &str| if streams.contains(id) { json!({ "Ref": id }) } else { json!("") };
            assert_eq!(variables["KINESIS_STREAM"], stream("EventsStream"), "{way}");
            assert_eq!(variables["STANDBY_KINESIS_STREAM"], stream("StandbyStream"), "{way}");
        }
    }
}

#[test]
fn without_a_log_on_kafka_nothing_of_msk_is_left() {
    let template = template();
    for expected in EVERY_WAY.into_iter().filter(|way| way.clusters.is_empty()) {
        let made = Choice::of(&template, expected.parameters()).resources();
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
    let (subnets, groups) = (("SubnetIds", "subnet-0123abcd"), ("SecurityGroupIds", "sg-0123abcd"));
    for expected in EVERY_WAY {
        for vpc in [&[][..], &[subnets, groups]] {
            let choice = Choice::of(&template, expected.parameters().into_iter().chain(vpc.iter().copied()));
            let (made, outputs) = (choice.resources(), choice.outputs());
            for (id, part) in made.iter().chain(&outputs) {
                for to in referred(part) {
                    let there = made.contains_key(&to) || known.contains(&to) || to.starts_with("AWS::");
                    assert!(there, "{} with standby {}: {id} refers to {to}", expected.primary, expected.standby);
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
    let to_standby = ("LogOverride", "standby");
    check(&[primary, to_standby], false);
    check(&[primary, ("StandbyLog", "kinesis"), to_standby], true);
    check(&[primary, ("LogOverride", "primary")], true);
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
    let ids = ["ProcessLogMapping", "ProcessStandbyLogMapping", "ProcessStreamMapping", "ProcessStandbyStreamMapping"];
    for id in ids {
        let mapping = properties(&template, id);
        assert_eq!(mapping["FunctionName"], json!({ "Ref": "ProcessFunction" }), "{id}");
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
        assert_eq!(shared(&mapping), shared(&properties(&template, ids[0])), "{id}: a standby is no second class");
    }
}

#[test]
fn the_mappings_of_topics_are_provisioned_and_have_consumer_groups_of_their_own() {
    let template = template();
    let mappings = [
        ("ProcessLogMapping", "KafkaClusterArn", "${AWS::StackName}-process"),
        ("ProcessStandbyLogMapping", "StandbyKafkaClusterArn", "${AWS::StackName}-process-standby"),
    ];
    for (id, cluster, group) in mappings {
        let mapping = properties(&template, id);
        assert_eq!(mapping["EventSourceArn"], json!({ "Ref": cluster }), "{id}");
        assert_eq!(mapping["Topics"], json!([{ "Ref": "KafkaTopic" }]), "{id}");
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
        let role = properties(&template, "ProcessRole");
        assert_eq!(statements(&role["Policies"]).into_iter().filter(may_join).count(), 1, "{id}");
    }
}

#[test]
fn a_stream_has_the_shards_that_were_asked_for_and_outlives_its_mapping_and_its_stack() {
    let template = template();
    let mappings = [("EventsStream", "ProcessStreamMapping"), ("StandbyStream", "ProcessStandbyStreamMapping")];
    assert_eq!(of_type(&template, "AWS::Kinesis::Stream").into_keys().collect::<Vec<_>>(), mappings.map(|(id, _)| id));
    for (id, mapping) in mappings {
        let (stream, mapping) = (properties(&template, id), properties(&template, mapping));
        assert_eq!(mapping["EventSourceArn"], arn_of(id));
        for (shards, mode) in
            [("0", json!({ "StreamMode": "ON_DEMAND" })), ("70", json!({ "StreamMode": "PROVISIONED" }))]
        {
            let logs = [("PrimaryLog", "kinesis"), ("StandbyLog", "kinesis"), ("StreamShards", shards)];
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

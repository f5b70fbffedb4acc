//! The ground that the stack may make for itself: network, clusters, topics, a key; and the stages whose
//! parameters are in `infra/stages`. The emulator makes no clusters, so this and the linters are all that
//! checks them.

use std::collections::BTreeMap;

use operate::topics::{Promise, TopicSettings, judge, right};
use serde_json::{Value, json};

use super::choice::Choice;
use super::logs::PRIMARY_CLUSTER;
use super::{number, object, of_type, properties, read, root, statements, strings, template};

const KINDS: [&str; 3] = ["express", "standard", "serverless"];

/// The resources of a cluster of this kind, with topics for this and for other regions.
fn cluster(kind: &str, partitions: &str) -> serde_json::Map<String, Value> {
    let nested = read("infra/kafka.yaml");
    let given = [("Kind", kind), ("RemoteTopic", "playback-remote"), ("Partitions", partitions)];
    Choice::of(&nested, given).resources()
}

fn settings(text: &str) -> Vec<(&str, &str)> {
    text.lines().map(|line| line.split_once('=').unwrap()).collect()
}

#[test]
fn a_created_cluster_loses_no_acknowledged_record() {
    for kind in KINDS {
        let made = cluster(kind, "96");
        let id = if kind == "serverless" { "ServerlessCluster" } else { "Cluster" };
        let cluster = &made[id]["Properties"];
        assert_eq!(cluster["ClientAuthentication"]["Sasl"], json!({ "Iam": { "Enabled": true } }), "{kind}");
        assert_eq!(made.contains_key("Configuration"), kind == "standard");
        if kind != "serverless" {
            assert_eq!(cluster["ClientAuthentication"]["Unauthenticated"]["Enabled"], false, "{kind}");
            let in_transit = json!({ "ClientBroker": "TLS", "InCluster": true });
            assert_eq!(cluster["EncryptionInfo"]["EncryptionInTransit"], in_transit, "{kind}");
            assert_eq!(cluster["BrokerNodeGroupInfo"].get("StorageInfo").is_some(), kind == "standard");
        }
    }
    let made = cluster("standard", "96");
    let server = made["Configuration"]["Properties"]["ServerProperties"]["Fn::Sub"].as_str().unwrap();
    for setting in [
        ("default.replication.factor", "3"),
        ("min.insync.replicas", "${MinInsyncReplicas}"),
        ("unclean.leader.election.enable", "false"),
        ("auto.create.topics.enable", "false"),
    ] {
        assert!(settings(server).contains(&setting), "{setting:?}");
    }
    let brokers = template()["Parameters"]["Brokers"]["AllowedValues"].as_array().unwrap().clone();
    assert!(brokers.iter().all(|brokers| number(brokers).is_multiple_of(3)), "the same number in each zone");
}

/// `AWS::MSK::Topic` is for provisioned clusters.
#[test]
fn created_topics_keep_records_longer_than_mappings_try() {
    let gives_up = number(&properties(&template(), "ProcessLogMapping")["MaximumRecordAgeInSeconds"]);
    for (kind, partitions, topics) in [
        ("existing", "0", &[][..]),
        ("express", "0", &[]),
        ("serverless", "96", &[]),
        ("existing", "96", &["EventsTopic", "RemoteEventsTopic"]),
        ("express", "96", &["EventsTopic", "RemoteEventsTopic"]),
        ("standard", "96", &["EventsTopic", "RemoteEventsTopic"]),
    ] {
        let made = cluster(kind, partitions);
        let found: Vec<_> = made.iter().filter(|(_, resource)| resource["Type"] == "AWS::MSK::Topic").collect();
        assert_eq!(found.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), topics, "{kind}");
        for (id, topic) in found {
            assert_eq!(topic["DeletionPolicy"], "RetainExceptOnCreate", "{id}");
            assert_eq!(number(&topic["Properties"]["ReplicationFactor"]), 3, "{id}");
            let encoded = &topic["Properties"]["Configs"]["Fn::Base64"];
            let text = encoded.as_str().or_else(|| encoded["Fn::Sub"].as_str()).unwrap();
            let settings = settings(text);
            let of = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            assert!(of("retention.ms").unwrap().parse::<u64>().unwrap() > gives_up * 1_000, "{kind}: {id}");
            // Express brokers let nobody set these.
            let (replicas, unclean) = (of("min.insync.replicas"), of("unclean.leader.election.enable"));
            let expected = (kind != "express").then_some(("${MinInsyncReplicas}", "false"));
            assert_eq!(replicas.zip(unclean), expected, "{kind}: {id}");
        }
    }
}

/// With more, the brokers would acknowledge no record.
#[test]
fn no_more_replicas_must_be_in_sync_than_a_topic_has() {
    let (root, nested) = (template(), read("infra/kafka.yaml"));
    let most = [
        number(&root["Parameters"]["KafkaMinInsyncReplicas"]["MaxValue"]),
        number(&nested["Parameters"]["MinInsyncReplicas"]["MaxValue"]),
    ];
    for (id, topic) in of_type(&nested, "AWS::MSK::Topic") {
        assert_eq!(most, [number(&topic["ReplicationFactor"]); 2], "{id}");
    }
}

/// What the stack sets on its topics is what `cargo playhead topics` asks of those that others made.
#[test]
fn topics_of_the_stack_pass_the_check_of_topics() {
    let least = number(&template()["Parameters"]["KafkaMinInsyncReplicas"]["Default"]);
    for (kind, kept_by_brokers) in [("express", true), ("standard", false), ("existing", false)] {
        let promise = Promise { min_insync_replicas: u16::try_from(least).unwrap(), kept_by_brokers };
        for (id, topic) in cluster(kind, "96").iter().filter(|(_, resource)| resource["Type"] == "AWS::MSK::Topic") {
            let encoded = &topic["Properties"]["Configs"]["Fn::Base64"];
            let text = encoded.as_str().or_else(|| encoded["Fn::Sub"].as_str()).unwrap();
            let text = text.replace("${MinInsyncReplicas}", &least.to_string());
            let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            let settings = settings(&text).into_iter().map(own).collect::<BTreeMap<_, _>>();
            let right = right(promise).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(settings, right, "{kind}: {id}");
            let topic = TopicSettings { partitions: 96, replication_factor: 3, settings };
            assert_eq!(judge(&topic, promise), [], "{kind}: {id}");
        }
    }
    let retention = (
        "retention.ms".to_owned(),
        (number(&properties(&template(), "ProcessLogMapping")["MaximumRecordAgeInSeconds"]) * 1_000).to_string(),
    );
    let topic = TopicSettings { partitions: 1, replication_factor: 3, settings: [retention].into() };
    let promise = Promise { min_insync_replicas: 2, kept_by_brokers: true };
    assert!(
        judge(&topic, promise).iter().any(|wrong| wrong.setting == "retention.ms"),
        "records are gone when mappings give up"
    );
    let batch = ("max.message.bytes".to_owned(), (stream::kafka::MAX_RECORD_BYTES - 1).to_string());
    let topic = TopicSettings { settings: [batch].into(), ..topic };
    assert!(judge(&topic, promise).iter().any(|wrong| wrong.setting == "max.message.bytes"), "brokers refuse batches");
}

#[test]
fn a_kept_cluster_keeps_the_network_that_it_stands_on() {
    // MSK deletes no configuration that a cluster uses.
    for kind in ["AWS::MSK::Cluster", "AWS::MSK::ServerlessCluster", "AWS::MSK::Topic", "AWS::MSK::Configuration"] {
        let nested = read("infra/kafka.yaml");
        for id in of_type(&nested, kind).keys() {
            assert_eq!(nested["Resources"][id]["DeletionPolicy"], "RetainExceptOnCreate", "{id}");
            assert_eq!(nested["Resources"][id]["UpdateReplacePolicy"], "Retain", "{id}");
        }
    }
    let network = read("infra/network.yaml");
    for id in ["Vpc", "FirstSubnet", "SecondSubnet", "ThirdSubnet", "Group"] {
        assert_eq!(network["Resources"][id]["DeletionPolicy"], "RetainExceptOnCreate", "{id}");
    }
}

#[test]
fn a_network_has_three_zones_and_as_many_ways_out_as_asked_for() {
    let network = read("infra/network.yaml");
    for (gateways, out) in [("0", 0), ("1", 3), ("3", 3)] {
        let made = Choice::of(&network, [("NatGateways", gateways)]).resources();
        let count = |kind: &str| made.values().filter(|resource| resource["Type"] == kind).count();
        assert_eq!(count("AWS::EC2::NatGateway").to_string(), gateways);
        let ways = made.iter().filter(|(id, _)| id.ends_with("RouteOut")).count();
        assert_eq!(ways, out, "{gateways}: each private subnet has a way out, or none has");
        let private = ["First", "Second", "Third"].map(|zone| made[&format!("{zone}Subnet")]["Properties"].clone());
        for (number, subnet) in private.iter().enumerate() {
            assert_eq!(subnet["AvailabilityZone"]["Fn::Select"][0], number);
            assert!(subnet.get("MapPublicIpOnLaunch").is_none());
        }
    }
    // Nothing from outside the VPC may call in.
    for rule in properties(&network, "Group")["SecurityGroupIngress"].as_array().unwrap() {
        assert_eq!(rule["CidrIp"], json!({ "Ref": "Cidr" }));
    }
}

#[test]
fn a_cluster_is_given_or_made_and_made_only_in_a_network() {
    let template = template();
    let check = |parameters: &[(&str, &str)], accepted: bool| {
        let key = ("JwtJwksUrl", "https://issuer.example/jwks.json");
        let parameters = parameters.iter().copied().chain([key]);
        assert_eq!(
            Choice::of(&template, parameters.clone()).accepted(),
            accepted,
            "{:?}",
            parameters.collect::<Vec<_>>()
        );
    };
    let (network, subnets, groups) =
        (("CreateNetwork", "on"), ("SubnetIds", "subnet-0123abcd"), ("SecurityGroupIds", "sg-0123abcd"));
    for kind in KINDS {
        let (made, topics) = (("KafkaCluster", kind), ("TopicPartitions", "12"));
        check(&[made, topics, network], true);
        check(&[made, topics, subnets, groups], true);
        check(&[made, topics], false);
        check(&[made, topics, network, ("KafkaClusterArn", PRIMARY_CLUSTER)], false);
        check(&[made, topics, network, ("KafkaSecurity", "plaintext")], false);
        let standby = [("PrimaryLog", "kinesis"), ("StandbyLog", "kafka"), ("StandbyKafkaCluster", kind), topics];
        check(&[&standby[..], &[network]].concat(), true);
        check(&standby, false);
        // The stack's mappings want topics that only the stack can have made by then.
        let is_serverless = kind == "serverless";
        check(&[made, network], is_serverless);
        check(&[&standby[..3], &[network]].concat(), is_serverless);
    }
    check(&[("PrimaryLog", "kinesis"), network, subnets, groups], false);
    check(&[("PrimaryLog", "kinesis"), ("AlarmEmail", "a@b.example")], true);
    let topic = "arn:aws:sns:us-east-1:000000000000:alarms";
    check(&[("PrimaryLog", "kinesis"), ("AlarmEmail", "a@b.example"), ("AlarmTopicArn", topic)], false);
    check(&[("PrimaryLog", "kinesis"), ("PageUrl", "https://p.example"), ("PageTopicArn", topic)], false);
}

#[test]
fn the_key_of_ones_own_is_used_only_through_services_of_the_account() {
    let policy = properties(&read("infra/data-key.yaml"), "Key")["KeyPolicy"].clone();
    for statement in statements(&policy) {
        assert_eq!(statement["Effect"], "Allow");
        let condition = &statement["Condition"];
        match statement["Sid"].as_str().unwrap() {
            "AdministeredByIam" => {
                assert!(statement["Principal"]["AWS"]["Fn::Sub"].as_str().unwrap().ends_with(":root"))
            }
            "UsedThroughServices" => {
                assert_eq!(condition["StringEquals"]["kms:CallerAccount"], json!({ "Ref": "AWS::AccountId" }));
                let through = strings(&condition["StringEquals"]["kms:ViaService"]);
                assert!(through.iter().all(|service| service.ends_with(".${AWS::Region}.amazonaws.com")));
            }
            "UsedByServicesThemselves" => {
                assert_eq!(condition["StringEquals"]["aws:SourceAccount"], json!({ "Ref": "AWS::AccountId" }));
            }
            "UsedForLogs" => assert!(condition["ArnLike"].is_object()),
            other => panic!("a statement {other}"),
        }
    }
}

#[test]
fn stages_name_only_parameters_of_the_template_and_are_accepted() {
    let template = template();
    let stage = |name: &str| -> Vec<(String, String)> {
        let text = std::fs::read_to_string(root().join("infra/stages").join(name)).unwrap();
        let values: Value = yaml_serde::from_str(&text).unwrap();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        object(&values).iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let secret = ("JwtSecret".to_owned(), "0123456789abcdef0123456789abcdef".to_owned());
    let cheap = [stage("cheap.yaml"), vec![secret]].concat();
    let full = stage("full.yaml");
    for parameters in [cheap, full.clone(), [full, stage("regions.yaml")].concat()] {
        let given = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert!(Choice::of(&template, given).accepted(), "{parameters:?}");
    }
    let config = std::fs::read_to_string(root().join("samconfig.toml")).unwrap();
    for environment in ["cheap", "full", "full-west"] {
        assert!(config.contains(&format!("[{environment}.deploy.parameters]")), "{environment}");
    }
}

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::core::Batching;
use super::super::failure::{Destination, Mapping};
use super::super::record::Stream;
use super::super::settle::Policy;
use super::{Deployed, Origin, Settings, StartingPosition};

/// A processed template, as SAM's transform leaves it.
fn template() -> Value {
    json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Parameters": {
            "Stage": {"Type": "String", "Default": "dev"},
            "KafkaTopic": {"Type": "String", "Default": "playback-events"},
        },
        "Resources": {
            "FailureBucket": {"Type": "AWS::S3::Bucket"},
            "ProcessLogMapping": {
                "Type": "AWS::Lambda::EventSourceMapping",
                "Properties": {
                    "EventSourceArn": {"Ref": "KafkaClusterArn"},
                    "FunctionName": {"Ref": "ProcessFunction"},
                    "Topics": [{"Ref": "KafkaTopic"}],
                    "StartingPosition": "TRIM_HORIZON",
                    "BatchSize": 500,
                    "MaximumBatchingWindowInSeconds": 1,
                    "AmazonManagedKafkaEventSourceConfig": {"ConsumerGroupId": {"Fn::Sub": "${AWS::StackName}-process-${Stage}"}},
                    "ProvisionedPollerConfig": {"MinimumPollers": 1, "MaximumPollers": 4},
                    "FunctionResponseTypes": ["ReportBatchItemFailures"],
                    "BisectBatchOnFunctionError": true,
                    "MaximumRetryAttempts": 5,
                    "MaximumRecordAgeInSeconds": 86400,
                    "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["FailureBucket", "Arn"]}}},
                },
            },
        },
    })
}

fn deployed() -> Deployed {
    let resource = |kind: &str, id: &str| (kind.to_owned(), id.to_owned());
    Deployed {
        stack: "playhead".into(),
        uuid: "0b3c".into(),
        function_arn: "arn:aws:lambda:us-east-1:000000000000:function:process".into(),
        role: "arn:aws:iam::000000000000:role/process".into(),
        event_source_arn: "arn:aws:kafka:us-east-1:000000000000:cluster/c/1".into(),
        parameters: HashMap::from([("Stage".into(), "test".into())]),
        resources: HashMap::from([
            ("FailureBucket".into(), resource("AWS::S3::Bucket", "failures-1")),
            ("DeadLetterQueue".into(), resource("AWS::SQS::Queue", "http://127.0.0.1:4566/000000000000/dead")),
        ]),
    }
}

fn parse(template: &Value) -> anyhow::Result<Settings> {
    Settings::parse(template, "ProcessLogMapping", &deployed())
}

fn with(property: &str, value: Value) -> Value {
    let mut template = template();
    template["Resources"]["ProcessLogMapping"]["Properties"][property] = value;
    template
}

#[test]
fn settings_come_from_the_processed_template_and_the_stack() {
    assert_eq!(
        parse(&template()).expect("settings"),
        Settings {
            mapping: Mapping {
                uuid: "0b3c".into(),
                function_arn: "arn:aws:lambda:us-east-1:000000000000:function:process".into(),
            },
            origin: Origin::Kafka {
                event_source_arn: "arn:aws:kafka:us-east-1:000000000000:cluster/c/1".into(),
                topic: "playback-events".into(),
                group_id: "playhead-process-test".into(),
            },
            starting_position: StartingPosition::TrimHorizon,
            batching: Batching { size: 500, window_ms: 1_000, payload_limit: 6_291_456, concurrency: 4 },
            policy: Policy { max_retries: Some(5), max_age_ms: Some(86_400_000), bisect: true, partial_answers: true },
            destination: Some(Destination::Bucket("failures-1".into())),
        }
    );
}

#[test]
fn unset_properties_have_the_documented_defaults() {
    let mut template = template();
    template["Resources"]["ProcessLogMapping"]["Properties"] = json!({"Topics": ["t"], "StartingPosition": "LATEST"});
    let settings = parse(&template).expect("settings");
    assert!(matches!(settings.origin, Origin::Kafka { group_id, .. } if group_id == "0b3c"));
    assert_eq!(settings.starting_position, StartingPosition::Latest);
    assert_eq!((settings.batching.size, settings.batching.window_ms), (100, 500));
    assert_eq!(settings.policy, Policy { max_retries: None, max_age_ms: None, bisect: false, partial_answers: false });
    assert_eq!(settings.destination, None);
}

#[test]
fn unlimited_retries_end_after_ten_if_there_is_a_destination() {
    let settings = parse(&with("MaximumRetryAttempts", json!(-1))).expect("settings");
    assert_eq!(settings.policy.max_retries, Some(10));
}

#[test]
fn stream_mapping_has_its_own_defaults() {
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s".to_owned();
    let deployed = Deployed { event_source_arn: arn.clone(), ..deployed() };
    let parse = |properties: Value| {
        let mut template = template();
        template["Resources"]["ProcessLogMapping"]["Properties"] = properties;
        Settings::parse(&template, "ProcessLogMapping", &deployed).expect("settings")
    };
    let destination = json!({"OnFailure": {"Destination": {"Fn::GetAtt": ["FailureBucket", "Arn"]}}});
    let settings = parse(json!({"StartingPosition": "TRIM_HORIZON", "DestinationConfig": destination}));
    assert_eq!(settings.origin, Origin::Kinesis(Stream { arn, role: "arn:aws:iam::000000000000:role/process".into() }));
    assert_eq!((settings.batching.size, settings.batching.window_ms), (100, 0));
    assert_eq!(settings.policy.max_retries, None, "unlimited means unlimited");
    assert_eq!(settings.destination, Some(Destination::Bucket("failures-1".into())));
    let settings = parse(json!({
        "StartingPosition": "LATEST", "BatchSize": 10, "MaximumBatchingWindowInSeconds": 2, "MaximumRetryAttempts": 3,
        "MaximumRecordAgeInSeconds": -1, "ParallelizationFactor": 4,
    }));
    assert_eq!((settings.batching.size, settings.batching.window_ms), (10, 2_000));
    assert_eq!((settings.policy.max_retries, settings.policy.max_age_ms), (Some(3), None));
}

#[test]
fn destination_may_use_get_att_or_sub() {
    let queue = json!({"OnFailure": {"Destination": {"Fn::GetAtt": "DeadLetterQueue.Arn"}}});
    let settings = parse(&with("DestinationConfig", queue)).expect("settings");
    assert_eq!(settings.destination, Some(Destination::Queue("dead".into())));
    let bucket = json!({"OnFailure": {"Destination": {"Fn::Sub": "arn:${AWS::Partition}:s3:::x-${AWS::AccountId}"}}});
    let settings = parse(&with("DestinationConfig", bucket)).expect("settings");
    assert_eq!(settings.destination, Some(Destination::Bucket("x-000000000000".into())));
}

#[test]
fn settings_that_are_not_emulated_are_refused_by_name() {
    for (property, value, said) in [
        ("StartingPosition", json!("AT_TIMESTAMP"), "AT_TIMESTAMP"),
        ("Topics", json!(["a", "b"]), "Topics"),
        ("BatchSize", json!(0), "BatchSize"),
        ("BatchSize", json!({"Fn::If": ["Big", 1, 2]}), "Fn::If"),
        ("BisectBatchOnFunctionError", json!("yes"), "/BisectBatchOnFunctionError"),
        ("Topics", json!([{"Ref": "Missing"}]), "Missing"),
        ("DestinationConfig", json!({"OnFailure": {"Destination": "kafka://x"}}), "kafka://x"),
    ] {
        let error = parse(&with(property, value)).expect_err(property);
        assert!(format!("{error:#}").contains(said), "{error:#}");
    }
}

#[test]
fn resource_of_another_type_is_refused() {
    let error = Settings::parse(&template(), "FailureBucket", &deployed()).expect_err("refused");
    assert!(error.to_string().contains("AWS::S3::Bucket"), "{error}");
}

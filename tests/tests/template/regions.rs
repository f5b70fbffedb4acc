//! Several regions: what a stack has only with other regions, what `forward` may do, and what all
//! regions agree on.

use std::collections::BTreeSet;

use playback::routing::Document;
use serde_json::{Value, json};

use super::choice::{Choice, referred};
use super::{OBSERVABILITY, arn_of, observability, properties, statements, strings, template};

/// A deployment of one region, and of two.
pub(crate) const ALONE: (&str, &str) = ("Regions", "");
pub(crate) const ONE_OF_TWO: (&str, &str) = ("Regions", "us-east-1,us-west-2");

const INBOUND: &str = "${AWS::StackName}-inbound";

#[test]
fn only_a_stack_with_other_regions_forwards() {
    let (template, observability) = (template(), observability());
    let logs = [("PrimaryLog", "kinesis"), ("StandbyLog", "kinesis")];
    let of = |regions| {
        let choice = Choice::of(&template, logs.into_iter().chain([regions]));
        let alarms = choice.nested(OBSERVABILITY, &observability).resources();
        let names = choice.resources().into_iter().chain(choice.outputs()).chain(alarms).map(|(name, _)| name);
        names.collect::<BTreeSet<String>>()
    };
    let (alone, of_two) = (of(ALONE), of(ONE_OF_TWO));
    assert!(alone.is_subset(&of_two));
    let more: Vec<&str> = of_two.difference(&alone).map(String::as_str).collect();
    let expected = [
        "ForwardAgeAlarm",
        "ForwardErrorsAlarm",
        "ForwardFunction",
        "ForwardFunctionName",
        "ForwardLogs",
        "ForwardRole",
        "ForwardStandbyStreamMapping",
        "ForwardStreamMapping",
        "RemoteStandbyStream",
        "RemoteStandbyStreamName",
        "RemoteStream",
        "RemoteStreamName",
    ];
    assert_eq!(more, expected);
}

#[test]
fn inbound_queues_have_one_name_in_every_region() {
    let template = template();
    assert_eq!(properties(&template, "InboundQueue")["QueueName"], json!({ "Fn::Sub": INBOUND }));
    // The name of the own queue is also the name of the others.
    let own = json!({ "Fn::GetAtt": ["InboundQueue", "QueueName"] });
    let variables = properties(&template, "ForwardFunction")["Environment"]["Variables"].clone();
    assert_eq!(variables["INBOUND_QUEUE_NAME"], own);
    assert_eq!(template["Outputs"]["InboundQueueName"]["Value"], own);
    for function in ["ForwardFunction", "IngestFunction"] {
        let variables = properties(&template, function)["Environment"]["Variables"].clone();
        assert_eq!(variables["REGIONS"], json!({ "Ref": "Regions" }), "{function}");
        assert_eq!(variables["ROUTING_PARAMETER"], json!({ "Ref": "RoutingParameter" }), "{function}");
    }
}

#[test]
fn forward_sends_only_to_inbound_queues_and_its_dead_letters() {
    let role = properties(&template(), "ForwardRole");
    let of_sqs = statements(&role["Policies"]).into_iter();
    let of_sqs: Vec<&Value> = of_sqs
        .filter(|statement| strings(&statement["Action"]).iter().any(|action| action.starts_with("sqs:")))
        .collect();
    let [inbound, dead] = of_sqs[..] else { panic!("two statements: {of_sqs:?}") };
    assert_eq!(inbound["Action"], json!(["sqs:GetQueueUrl", "sqs:SendMessage"]));
    let queues = format!("arn:${{AWS::Partition}}:sqs:*:${{AWS::AccountId}}:{INBOUND}");
    assert_eq!(inbound["Resource"], json!({ "Fn::Sub": queues }));
    let regions = json!({ "Fn::Split": [",", { "Ref": "Regions" }] });
    assert_eq!(inbound["Condition"], json!({ "StringEquals": { "aws:RequestedRegion": regions } }));
    assert_eq!(dead["Action"], "sqs:SendMessage");
    assert_eq!(dead["Resource"], arn_of("DeadLetterQueue"));
}

#[test]
fn forward_needs_no_vpc_and_no_table() {
    let template = template();
    assert!(properties(&template, "ForwardFunction").get("VpcConfig").is_none());
    let role = properties(&template, "ForwardRole");
    let actions = statements(&role["Policies"]).into_iter().flat_map(|statement| strings(&statement["Action"]));
    let services: BTreeSet<String> = actions.map(|action| action.split(':').next().unwrap().to_owned()).collect();
    let expected = ["ec2", "kafka", "kafka-cluster", "kinesis", "logs", "s3", "sqs", "ssm", "xray"];
    assert_eq!(services, expected.map(str::to_owned).into(), "ec2 is for Lambda's pollers");
}

#[test]
fn the_stack_creates_the_routing_document_and_never_rewrites_it() {
    let template = template();
    let parameter = properties(&template, "RoutingParameter");
    assert_eq!(parameter["Name"], json!({ "Fn::Sub": "/${AWS::StackName}/routing" }));
    // CloudFormation writes it again if anything in it changes, so no parameter may change it.
    assert_eq!(referred(&parameter), ["AWS::StackName".to_owned()].into());
    let document: Document = parameter["Value"].as_str().unwrap().parse().unwrap();
    assert_eq!(document, Document::default());
    let arn = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter${RoutingParameter}";
    for role in ["ForwardRole", "IngestRole"] {
        let role = properties(&template, role);
        let mut of_ssm = statements(&role["Policies"]).into_iter().filter(|one| one["Action"] == "ssm:GetParameter");
        assert_eq!(of_ssm.next().unwrap()["Resource"], json!({ "Fn::Sub": arn }));
    }
}

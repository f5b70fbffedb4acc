//! Replacing a legacy system, and trying a candidate: what a stack has for that and only then, and
//! that nothing live depends on it.

use std::collections::BTreeSet;

use lambda::config::Env;
use process::Mode;
use serde_json::{Value, json};

use super::choice::{Choice, referred};
use super::logs::{PRIMARY_CLUSTER, STANDBY_CLUSTER, made_of, names};
use super::{
    OBSERVABILITY, arn_of, logical_id, number, object, observability, part_of_cluster, properties, statements, strings,
    template,
};

/// The function that is built from the same crate as `process`.
pub(crate) const CANDIDATE: &str = "ProcessCandidateFunction";

/// A deployment that replaces a legacy system and compares. The first parameter alone does not
/// compare.
pub(crate) const TAKEN_OVER_FROM: [(&str, &str); 3] = [
    ("LegacyEndpoint", "https://legacy.example/v1/events"),
    ("LegacySessionsUrl", "https://legacy.example/v1/profiles/{profile_id}/sessions"),
    ("LegacyMapping", legacy::MAPPING),
];
/// A deployment that tries a candidate.
pub(crate) const TRIED: [(&str, &str); 1] = [("CandidateSample", "5%")];

const KINESIS: [(&str, &str); 3] =
    [("PrimaryLog", "kinesis"), ("StandbyLog", "kinesis"), ("JwtJwksUrl", "https://issuer.example/jwks.json")];
const KAFKA: [(&str, &str); 4] = [
    ("KafkaClusterArn", PRIMARY_CLUSTER),
    ("StandbyLog", "kafka"),
    ("StandbyKafkaClusterArn", STANDBY_CLUSTER),
    ("JwtJwksUrl", "https://issuer.example/jwks.json"),
];

#[test]
fn shadow_and_compare_exist_only_where_they_are_needed() {
    let (template, observability) = (template(), observability());
    let of = |more: &[(&str, &str)]| {
        let choice = Choice::of(&template, KINESIS.into_iter().chain(more.iter().copied()));
        assert!(choice.accepted(), "{more:?}");
        let alarms = choice.nested(OBSERVABILITY, &observability).resources();
        let made = choice.resources().into_iter().chain(choice.outputs()).chain(alarms);
        made.map(|(name, _)| name).collect::<BTreeSet<String>>()
    };
    let plain = of(&[]);
    let check = |more: &[(&str, &str)], expected: &[&[&str]]| {
        let made: BTreeSet<String> = of(more).difference(&plain).cloned().collect();
        assert_eq!(made, names(&expected.concat()), "{more:?}");
    };
    let shadow: &[&str] = &["ShadowTable", "ShadowTableName", "ShadowDroppedAlarm"];
    let legacy: &[&str] = &["LegacyAlarm", "ShadowMissedAlarm"];
    let compare: &[&str] = &[
        "CompareErrorsAlarm",
        "CompareFunction",
        "CompareFunctionName",
        "CompareLogs",
        "ComparePermission",
        "CompareRole",
        "CompareSchedule",
        "MatchRateAlarm",
        "ReportsBucket",
        "ReportsBucketName",
        "ReportsBucketOverTlsOnly",
    ];
    let candidate: &[&str] = &[
        "CandidateStandbyStreamMapping",
        "CandidateStreamMapping",
        "ProcessCandidateFunction",
        "ProcessCandidateFunctionName",
        "ProcessCandidateLogs",
        "ProcessCandidateRole",
    ];
    check(&TAKEN_OVER_FROM[..1], &[shadow, legacy]);
    check(&TAKEN_OVER_FROM, &[shadow, legacy, compare]);
    check(&TRIED, &[shadow, compare, candidate]);
}

#[test]
fn conflicting_parameters_are_refused() {
    let template = template();
    let check = |more: &[(&str, &str)], accepted: bool| {
        let parameters = KINESIS.into_iter().chain(more.iter().copied());
        assert_eq!(Choice::of(&template, parameters).accepted(), accepted, "{more:?}");
    };
    let [endpoint, url, mapping] = TAKEN_OVER_FROM;
    check(&[endpoint, url, mapping], true);
    check(&[endpoint, url], false);
    check(&[endpoint, mapping], false);
    check(&[url, mapping], false);
    // Two kinds of shadows in one table, one of them with nothing to compare it with.
    check(&[endpoint, TRIED[0]], false);
}

#[test]
fn process_folds_shadows_if_there_is_a_table() {
    let template = template();
    let check = |more: &[(&str, &str)], table: &Value| {
        let made = Choice::of(&template, KINESIS.into_iter().chain(more.iter().copied())).resources();
        let variables = &made["ProcessFunction"]["Properties"]["Environment"]["Variables"];
        assert_eq!((&variables["SHADOW_TABLE"], &variables["CANDIDATE_SAMPLE"]), (table, &json!("")), "{more:?}");
        let may_write = referred(&made["ProcessRole"]).contains("ShadowTable");
        assert_eq!(may_write, *table != "", "{more:?}");
    };
    check(&[], &json!(""));
    check(&TAKEN_OVER_FROM, &json!({ "Ref": "ShadowTable" }));
    check(&TRIED, &json!({ "Ref": "ShadowTable" }));
}

#[test]
fn a_candidate_gets_its_own_variables_and_touches_nothing_live() {
    let template = template();
    let [live, candidate] = [&logical_id("process"), CANDIDATE].map(|id| properties(&template, id));
    for same in ["CodeUri", "MemorySize", "Timeout"] {
        assert_eq!(candidate[same], live[same], "{same}");
    }
    assert_eq!(candidate["Role"], arn_of("ProcessCandidateRole"));
    assert_eq!(candidate["LoggingConfig"]["LogGroup"], json!({ "Ref": "ProcessCandidateLogs" }));
    let variables = &candidate["Environment"]["Variables"];
    assert_eq!(
        *variables,
        json!({ "SHADOW_TABLE": { "Ref": "ShadowTable" }, "CANDIDATE_SAMPLE": { "Ref": "CandidateSample" } })
    );
    let of_it = object(variables).keys().map(|name| (name.as_str(), TRIED[0].1));
    let of_lambda = [("STAGE", "x"), ("AWS_LAMBDA_FUNCTION_NAME", "x"), ("AWS_REGION", "us-east-1")];
    let config = lambda::config::read(Env::from_pairs(of_it.chain(of_lambda)), process::Config::read).unwrap();
    assert!(matches!(config.mode, Mode::Candidate(_)));

    let role = properties(&template, "ProcessCandidateRole");
    for statement in statements(&role["Policies"]) {
        for action in strings(&statement["Action"]) {
            let (service, _) = action.split_once(':').unwrap();
            let services = ["logs", "dynamodb", "kinesis", "kafka", "kafka-cluster", "ec2", "sqs", "xray"];
            assert!(services.contains(&service), "{action}");
            assert!(service != "sqs" || statement["Resource"] == arn_of("CandidateQueue"), "{statement}");
            assert!(service != "dynamodb" || statement["Resource"] == arn_of("ShadowTable"), "{statement}");
        }
    }
    assert!(!referred(&role).contains("ViewsTable"));
}

#[test]
fn a_candidate_reads_what_process_reads_in_its_own_groups() {
    let template = template();
    for (logs, kind) in [(&KINESIS[..], "StreamMapping"), (&KAFKA, "LogMapping")] {
        let made = Choice::of(&template, logs.iter().copied().chain(TRIED)).resources();
        let mappings = made_of(&made, "AWS::Lambda::EventSourceMapping").into_iter();
        let of_it: BTreeSet<String> = mappings.filter(|id| id.starts_with("Candidate")).collect();
        assert_eq!(of_it, names(&[&format!("Candidate{kind}"), &format!("CandidateStandby{kind}")]));
        for id in of_it {
            let [mapping, live] = [&id, &id.replace("Candidate", "Process")].map(|id| made[id]["Properties"].clone());
            assert_eq!(mapping["FunctionName"], json!({ "Ref": CANDIDATE }), "{id}");
            for same in ["EventSourceArn", "Topics", "BatchSize", "ParallelizationFactor", "ProvisionedPollerConfig"] {
                assert_eq!(mapping.get(same), live.get(same), "{id}: {same}");
            }
            assert_eq!((&mapping["StartingPosition"], number(&mapping["MaximumRetryAttempts"])), (&json!("LATEST"), 0));
            assert!(number(&mapping["MaximumRecordAgeInSeconds"]) <= 3_600, "{id}");
            assert!(mapping.get("DestinationConfig").is_none(), "{id}: nobody would apply what it gives up");
            let group = |mapping: &Value| mapping["AmazonManagedKafkaEventSourceConfig"]["ConsumerGroupId"].clone();
            assert!(group(&mapping).is_null() || group(&mapping) != group(&live), "{id}");
            // The role may join that group.
            if let Some(group) = group(&mapping)["Fn::Sub"].as_str() {
                let cluster = mapping["EventSourceArn"]["Fn::GetAtt"][0].as_str().unwrap();
                let resource = part_of_cluster("group", cluster, group);
                let role = &made["ProcessCandidateRole"]["Properties"]["Policies"];
                let joins = statements(role).into_iter().filter(|statement| statement["Resource"] == resource);
                assert_eq!(joins.count(), 1, "{id}");
            }
        }
    }
}

/// A queue has only one reader, so the live function copies what the candidate has to see.
#[test]
fn a_candidate_gets_copies_of_what_other_regions_send() {
    let template = template();
    let of = |more: &[(&str, &str)]| {
        let choice = Choice::of(&template, KINESIS.into_iter().chain(TRIED).chain(more.iter().copied()));
        choice.resources()
    };
    let alone = of(&[]);
    let url = |made: &serde_json::Map<String, Value>| {
        made["ProcessFunction"]["Properties"]["Environment"]["Variables"]["CANDIDATE_QUEUE_URL"].clone()
    };
    assert!(!alone.contains_key("CandidateQueue"));
    assert_eq!(url(&alone), json!(""));
    let made = of(&[("Regions", "us-east-1,us-west-2"), ("ViewsTableName", "views")]);
    assert_eq!(url(&made), json!({ "Fn::GetAtt": ["CandidateQueue", "QueueUrl"] }));
    assert_eq!(made["CandidateInboundMapping"]["Properties"]["FunctionName"], json!({ "Ref": CANDIDATE }));
    for role in ["ProcessRole", "ProcessCandidateRole"] {
        assert!(referred(&made[role]).contains("CandidateQueue"), "{role}");
    }
}

#[test]
fn compare_ends_before_its_next_run_and_writes_no_view() {
    let template = template();
    let schedule = properties(&template, "CompareSchedule");
    assert_eq!(schedule["ScheduleExpression"], json!({ "Fn::Sub": "rate(${CompareEveryMinutes} minutes)" }));
    assert_eq!(schedule["Targets"][0]["Arn"], arn_of("CompareFunction"));
    let permission = properties(&template, "ComparePermission");
    assert_eq!(
        (&permission["FunctionName"], &permission["SourceArn"]),
        (&json!({ "Ref": "CompareFunction" }), &arn_of("CompareSchedule"))
    );
    let least = &template["Parameters"]["CompareEveryMinutes"];
    assert!(number(&properties(&template, "CompareFunction")["Timeout"]) < 60 * number(&least["MinValue"]));
    assert!(number(&least["Default"]) >= number(&least["MinValue"]));

    let role = properties(&template, "CompareRole");
    let writes = statements(&role["Policies"])
        .into_iter()
        .filter(|one| strings(&one["Action"]).contains(&"dynamodb:PutItem".to_owned()));
    let [checkpoint] = writes.collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(checkpoint["Resource"], arn_of("ShadowTable"));
    // The only item that is not a view, by the name that the code has for it.
    assert_eq!(
        checkpoint["Condition"],
        json!({ "ForAllValues:StringEquals": { "dynamodb:LeadingKeys": ["~compare"] } })
    );
    let keeps = statements(&role["Policies"]).into_iter().find(|one| one["Action"] == "s3:PutObject").unwrap();
    assert_eq!(keeps["Resource"], json!({ "Fn::Sub": format!("${{ReportsBucket.Arn}}/{}*", compare::PREFIX) }));
}

#[test]
fn legacy_authorization_is_a_parameter_name_never_a_value() {
    let template = template();
    let with = [("LegacyAuthorizationParameter", "/playhead/legacy-authorization")];
    for (more, may) in [(&[][..], false), (&with, true)] {
        let parameters = KINESIS.into_iter().chain(TAKEN_OVER_FROM).chain(more.iter().copied());
        let role = Choice::of(&template, parameters).resources()["CompareRole"]["Properties"]["Policies"].clone();
        let read = statements(&role).into_iter().find(|one| one["Action"] == "ssm:GetParameter");
        assert_eq!(read.is_some(), may);
        let name =
            "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter${LegacyAuthorizationParameter}";
        assert!(read.is_none_or(|read| read["Resource"] == json!({ "Fn::Sub": name })));
    }
}

//! Checks `template.yaml`, its nested template, and the table that several regions share, against
//! the code, the design and the linters of AWS.
//!
//! The templates are read unchanged, with intrinsic functions in their long form (`!Ref X` is
//! `{"Ref": "X"}`). Nothing is deployed: the end-to-end tests check what a running stack does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alarms;
mod budgets;
mod choice;
mod concurrency;
mod deployment;
mod feed;
mod generated;
mod ground;
mod logs;
mod regions;
mod retry;
mod roles;
mod shadow;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use choice::Choice;
use lambda::config::Env;
use local::{Progress, Tools};
use serde_json::{Map, Value, json};
use stream::{KafkaConfig, KafkaSecurity};

const FUNCTIONS: [&str; 7] = ["compare", "forward", "ingest", "process", "publish", "query", "retry"];
/// Every template, from the root of the repository: the stack, its nested stack, and the table of
/// several regions.
const TEMPLATES: [&str; 9] = [
    "template.yaml",
    "infra/observability.yaml",
    "infra/views-global-table.yaml",
    "infra/change-archive.yaml",
    "infra/gradual-deployment.yaml",
    "infra/network.yaml",
    "infra/kafka.yaml",
    "infra/alarm-topics.yaml",
    "infra/data-key.yaml",
];
/// The nested stack.
const OBSERVABILITY: &str = "Observability";

// ---------------------------------------------------------------------------------------------- the template

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn template() -> Value {
    read(TEMPLATES[0])
}

/// The template of the nested stack, from where the stack says that it is.
fn observability() -> Value {
    let file = properties(&template(), OBSERVABILITY)["TemplateURL"].as_str().unwrap().to_owned();
    assert_eq!(file, TEMPLATES[1]);
    read(&file)
}

fn read(template: &str) -> Value {
    let text = std::fs::read_to_string(root().join(template)).unwrap();
    long_form(yaml_serde::from_str(&text).unwrap())
}

/// The template as JSON, with each CloudFormation tag in its long form.
fn long_form(yaml: yaml_serde::Value) -> Value {
    use yaml_serde::Value as Yaml;
    match yaml {
        Yaml::Tagged(tagged) => {
            let name = tagged.tag.to_string();
            let name = name.trim_start_matches('!');
            match (name, long_form(tagged.value)) {
                ("Ref" | "Condition", value) => json!({ name: value }),
                ("GetAtt", Value::String(path)) => json!({ "Fn::GetAtt": path.split('.').collect::<Vec<_>>() }),
                (_, value) => json!({ format!("Fn::{name}"): value }),
            }
        }
        Yaml::Sequence(items) => items.into_iter().map(long_form).collect(),
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (Yaml, Yaml)| (key.as_str().unwrap().to_owned(), long_form(value));
            Value::Object(entries.into_iter().map(entry).collect())
        }
        scalar => serde_json::to_value(scalar).unwrap(),
    }
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}

fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().unwrap()
}

/// Logical id → properties of every resource of a type.
fn of_type(template: &Value, kind: &str) -> BTreeMap<String, Value> {
    let resources = object(&template["Resources"]).iter().filter(|(_, resource)| resource["Type"] == kind);
    let found: BTreeMap<_, _> = resources.map(|(id, resource)| (id.clone(), resource["Properties"].clone())).collect();
    assert!(!found.is_empty(), "no {kind} in the template");
    found
}

fn properties(template: &Value, id: &str) -> Value {
    let properties = &template["Resources"][id]["Properties"];
    assert!(properties.is_object(), "no resource {id} in the template");
    properties.clone()
}

/// `ingest` → `IngestFunction`.
fn logical_id(function: &str) -> String {
    format!("{}{}Function", function[..1].to_uppercase(), &function[1..])
}

/// The function to whose alias a reference leads. Whatever serves goes through an alias, or an update
/// could not be gradual.
fn behind(reference: &Value) -> String {
    let to = reference["Ref"].as_str().unwrap_or_else(|| panic!("not an alias: {reference}"));
    to.strip_suffix(".Alias").unwrap_or_else(|| panic!("not an alias: {to}")).to_owned()
}

fn arn_of(id: &str) -> Value {
    json!({ "Fn::GetAtt": [id, "Arn"] })
}

/// The ARN of a `topic` or `group` of the cluster of a nested stack, which is the cluster's with another
/// kind and a name behind it.
fn part_of_cluster(kind: &str, cluster: &str, name: &str) -> Value {
    let path = json!({ "Fn::Sub": format!("${{{cluster}.Outputs.ClusterArn}}/{name}") });
    json!({ "Fn::Join": [format!(":{kind}/"), { "Fn::Split": [":cluster/", path] }] })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

// ---------------------------------------------------------------------------------------------- code and template

#[test]
fn exactly_the_variables_that_code_reads_are_set() {
    let template = template();
    let check = |function: &str, read: BTreeSet<&'static str>| {
        let of_all = object(&template["Globals"]["Function"]["Environment"]["Variables"]).clone();
        let own = properties(&template, &logical_id(function))["Environment"]["Variables"].clone();
        let set: BTreeSet<&str> = of_all.keys().chain(object(&own).keys()).map(String::as_str).collect();
        assert_eq!(set, read, "{function}: the template sets (left) other variables than the code reads (right)");
    };
    check("compare", compare::Config::variables());
    check("forward", forward::Config::variables());
    check("ingest", ingest::Config::variables());
    check("process", process::Config::variables());
    check("publish", publish::Config::variables());
    check("query", query::Config::variables());
    check("retry", ::retry::Config::variables());
}

#[test]
fn a_default_of_the_template_is_the_one_of_the_code() {
    let template = template();
    let default = |parameter: &str| number(&template["Parameters"][parameter]["Default"]);
    let needed = ["STAGE", "VIEWS_TABLE", "RETRY_QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "AWS_LAMBDA_FUNCTION_NAME"];
    let env = Env::from_pairs(needed.map(|name| (name, "x")).into_iter().chain([("AWS_REGION", "us-east-1")]));
    let retry = lambda::config::read(env, ::retry::Config::read).unwrap();
    assert_eq!(default("RetryMaxAttempts"), u64::from(retry.max_attempts));
    let kafka = KafkaConfig::new("playback-events", KafkaSecurity::Plaintext);
    assert_eq!(default("KafkaMinInsyncReplicas"), kafka.min_insync_replicas as u64);

    let needed = ["STAGE", "AWS_LAMBDA_FUNCTION_NAME", "ROUTING_PARAMETER", "KINESIS_STREAM", "JWT_SECRET"];
    let needed = needed.map(|name| (name, "0123456789abcdef0123456789abcdef")).into_iter();
    let env =
        Env::from_pairs(needed.chain([("STAGE", "dev"), ("AWS_REGION", "us-east-1"), ("PRIMARY_LOG", "kinesis")]));
    let ingest = lambda::config::read(env, ingest::Config::read).unwrap();
    assert_eq!(u128::from(default("LegacyTimeoutMs")), ingest.legacy_time_out.as_millis());
    assert_eq!(default("EventsPerProfilePerMinute"), u64::from(ingest.events_per_minute));
    // Not so for the service scope: without the variable, no token is a backend's.
    assert_eq!(ingest.auth.service_scope, None);
    assert_eq!(template["Parameters"]["ServiceScope"]["Default"], "service");

    let needed = ["STAGE", "VIEWS_TABLE", "SHADOW_TABLE", "REPORTS_BUCKET", "AWS_LAMBDA_FUNCTION_NAME"];
    let needed = needed.map(|name| (name, "x")).into_iter();
    let legacy = [("LEGACY_SESSIONS_URL", "https://x/{profile_id}/{session_id}"), ("LEGACY_MAPPING", legacy::MAPPING)];
    let env = Env::from_pairs(needed.chain(legacy).chain([("AWS_REGION", "us-east-1")]));
    let compare = lambda::config::read(env, compare::Config::read).unwrap();
    assert_eq!(default("CompareSettledAfterSeconds"), compare.settled_after.as_secs());
    assert_eq!(u128::from(default("LegacySessionsTimeoutMs")), compare.legacy.unwrap().time_out.as_millis());
}

#[test]
fn every_function_has_its_own_crate_role_and_log_group() {
    let template = template();
    let functions = of_type(&template, "AWS::Serverless::Function");
    let of_a_crate: BTreeSet<_> = functions.keys().filter(|id| *id != shadow::CANDIDATE).cloned().collect();
    assert_eq!(of_a_crate, FUNCTIONS.map(logical_id).into());
    for name in FUNCTIONS {
        let function = &functions[&logical_id(name)];
        let of_its_own = |suffix: &str| logical_id(name).replace("Function", suffix);
        assert_eq!(function["CodeUri"], format!("target/lambda/{name}/"), "{name}");
        assert!(root().join("functions").join(name).join("Cargo.toml").is_file(), "{name} has no crate");
        assert_eq!(function["Role"], arn_of(&of_its_own("Role")), "{name}");
        assert_eq!(function["LoggingConfig"]["LogGroup"], json!({ "Ref": of_its_own("Logs") }), "{name}");
        let log_group = properties(&template, &of_its_own("Logs"))["LogGroupName"].clone();
        assert_eq!(log_group, json!({ "Fn::Sub": format!("/aws/lambda/${{AWS::StackName}}-{name}") }), "{name}");
        assert_eq!(function["FunctionName"], json!({ "Fn::Sub": format!("${{AWS::StackName}}-{name}") }));
    }
    let globals = &template["Globals"]["Function"];
    assert_eq!(globals["Runtime"], "provided.al2023");
    assert_eq!(globals["Architectures"], json!([{ "Ref": "Architecture" }]));
}

#[test]
fn every_route_of_the_contract_leads_to_its_function() {
    let template = template();
    let routes: BTreeSet<_> = of_type(&template, "AWS::ApiGatewayV2::Route")
        .into_values()
        .map(|route| {
            let target = route["Target"]["Fn::Sub"].as_str().unwrap().to_owned();
            let integration = target.trim_start_matches("integrations/${").trim_end_matches('}');
            let integration = properties(&template, integration);
            assert_eq!(integration["PayloadFormatVersion"], "2.0");
            let function = behind(&integration["IntegrationUri"]);
            (route["RouteKey"].as_str().unwrap().to_owned(), function)
        })
        .collect();
    let expected = [
        ("POST /v1/events", "IngestFunction"),
        ("POST /v1/sessions", "IngestFunction"),
        ("GET /v1/profiles/{profile_id}/history", "QueryFunction"),
        ("GET /v1/profiles/{profile_id}/continue-watching", "QueryFunction"),
        ("GET /v1/profiles/{profile_id}/titles/{title_id}/bookmark", "QueryFunction"),
        ("PUT /v1/profiles/{profile_id}/history/{session_id}/hidden", "QueryFunction"),
        ("DELETE /v1/profiles/{profile_id}/history/{session_id}/hidden", "QueryFunction"),
        ("DELETE /v1/profiles/{profile_id}/history", "QueryFunction"),
        ("DELETE /v1/profiles/{profile_id}/history/{session_id}", "QueryFunction"),
        ("GET /v1/profiles/{profile_id}/titles", "QueryFunction"),
        ("GET /v1/profiles/{profile_id}/titles/{title_id}", "QueryFunction"),
        ("DELETE /v1/profiles/{profile_id}/titles/{title_id}", "QueryFunction"),
        ("PUT /v1/profiles/{profile_id}/titles/{title_id}/watched", "QueryFunction"),
        ("DELETE /v1/profiles/{profile_id}/titles/{title_id}/watched", "QueryFunction"),
        ("GET /activity", "QueryFunction"),
        ("GET /activity/{file}", "QueryFunction"),
    ];
    assert_eq!(routes, expected.map(|(key, function)| (key.to_owned(), function.to_owned())).into());
    let of = |function: &'static str| move |key: &'static str| (key.to_owned(), function.to_owned());
    let served = ingest::route_keys().map(of("IngestFunction")).chain(query::route_keys().map(of("QueryFunction")));
    assert_eq!(routes, served.collect(), "the template's routes (left), and what the functions serve (right)");
    let permitted: BTreeSet<_> = of_type(&template, "AWS::Lambda::Permission")
        .into_values()
        .filter(|permission| permission["Principal"] == "apigateway.amazonaws.com")
        .map(|permission| behind(&permission["FunctionName"]))
        .collect();
    assert_eq!(permitted, routes.into_iter().map(|(_, function)| function).collect());
}

#[test]
fn gateway_outwaits_functions_and_queues_their_readers() {
    let template = template();
    let timeout = |function: &str| number(&properties(&template, &logical_id(function))["Timeout"]);
    for integration in of_type(&template, "AWS::ApiGatewayV2::Integration").into_values() {
        let function = behind(&integration["IntegrationUri"]);
        let waits = number(&integration["TimeoutInMillis"]);
        assert!(waits > 1_000 * number(&properties(&template, &function)["Timeout"]), "{function}");
        assert!(waits <= 30_000, "{function}: an HTTP API allows 30 s");
    }
    let inbound = properties(&template, "InboundQueue");
    assert!(number(&inbound["VisibilityTimeout"]) >= 6 * timeout("process"));
    assert!(timeout("process") <= 14 * 60, "the mapping of a topic allows 14 minutes");
}

#[test]
fn the_stage_limits_requests_and_logs_routes_not_paths() {
    let stage = properties(&template(), "ApiStage");
    assert_eq!(stage["DefaultRouteSettings"]["ThrottlingRateLimit"], json!({ "Ref": "ThrottleRate" }));
    assert_eq!(stage["DefaultRouteSettings"]["ThrottlingBurstLimit"], json!({ "Ref": "ThrottleBurst" }));
    assert_eq!(stage["AccessLogSettings"]["DestinationArn"], arn_of("ApiLogs"));
    let format = stage["AccessLogSettings"]["Format"].as_str().unwrap();
    let line: Value = serde_json::from_str(format).expect("a line of the access log is JSON");
    let logged: BTreeSet<_> = object(&line).values().map(|value| value.as_str().unwrap()).collect();
    assert!(logged.contains("$context.routeKey"));
    for member in ["$context.path", "$context.identity.sourceIp", "$context.authorizer"] {
        assert!(!logged.iter().any(|value| value.starts_with(member)), "{member} says who watches");
    }
}

// ---------------------------------------------------------------------------------------------- queues

#[test]
fn inbound_queue_invokes_process_and_redrives_to_dead_letters() {
    let template = template();
    let mapping = properties(&template, "ProcessInboundMapping");
    assert_eq!(behind(&mapping["FunctionName"]), "ProcessFunction");
    assert_eq!(mapping["EventSourceArn"], arn_of("InboundQueue"));
    assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
    let redrive = &properties(&template, "InboundQueue")["RedrivePolicy"];
    assert_eq!(redrive["deadLetterTargetArn"], arn_of("DeadLetterQueue"));
}

/// A message that waits for the store is received once per visibility time-out. If the queue moved
/// it after too few receives, an outage would end accepted events as dead letters.
#[test]
fn queues_outlast_two_days_without_the_store() {
    const DAY: u64 = 24 * 60 * 60;
    let template = template();
    let mut with_redrive = Vec::new();
    for (id, queue) in of_type(&template, "AWS::SQS::Queue").into_iter().filter(|(id, _)| id != ONLY_COPIES) {
        assert_eq!(number(&queue["MessageRetentionPeriod"]), 14 * DAY, "{id}: the maximum of SQS");
        let Some(redrive) = queue.get("RedrivePolicy") else { continue };
        let receives = number(&redrive["maxReceiveCount"]);
        assert!(receives <= 1_000, "{id}: the maximum of SQS");
        assert!(receives * number(&queue["VisibilityTimeout"]) >= 2 * DAY, "{id}");
        with_redrive.push(id);
    }
    assert_eq!(with_redrive, ["InboundQueue", "RetryQueue"]);
}

// ---------------------------------------------------------------------------------------------- stored data

#[test]
fn stores_of_records_are_encrypted_and_survive_replacement() {
    let template = template();
    // With AWS's keys, or with one of the user's.
    let own = |given: Value, otherwise: Value| json!({ "Fn::If": ["HasDataKey", given, otherwise] });
    let (key, no_value) = (json!({ "Ref": "DataKeyArn" }), json!({ "Ref": "AWS::NoValue" }));
    for (id, queue) in of_type(&template, "AWS::SQS::Queue") {
        assert_eq!(queue["SqsManagedSseEnabled"], own(no_value.clone(), json!(true)), "{id}");
        assert_eq!(queue["KmsMasterKeyId"], own(key.clone(), no_value.clone()), "{id}");
    }
    for (id, bucket) in of_type(&template, "AWS::S3::Bucket") {
        let rule = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0];
        let rule = &rule["ServerSideEncryptionByDefault"];
        assert_eq!(rule["SSEAlgorithm"], own(json!("aws:kms"), json!("AES256")), "{id}");
        assert_eq!(rule["KMSMasterKeyID"], own(key.clone(), no_value.clone()), "{id}");
        let blocked = object(&bucket["PublicAccessBlockConfiguration"]);
        assert!(blocked.len() == 4 && blocked.values().all(|on| on == true), "{id}: {blocked:?}");
        assert!(number(&bucket["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"]) > 0, "{id}");
    }
    for (id, stream) in of_type(&template, "AWS::Kinesis::Stream") {
        assert_eq!(stream["StreamEncryption"]["EncryptionType"], "KMS", "{id}");
        assert_eq!(stream["StreamEncryption"]["KeyId"], own(key.clone(), json!("alias/aws/kinesis")), "{id}");
    }
    for (id, table) in of_type(&template, "AWS::DynamoDB::Table") {
        assert_eq!(table["SSESpecification"]["KMSMasterKeyId"], own(key.clone(), no_value.clone()), "{id}");
    }
    for kind in ["AWS::SQS::Queue", "AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::Kinesis::Stream"] {
        for id in of_type(&template, kind).keys() {
            assert_eq!(template["Resources"][id]["UpdateReplacePolicy"], "Retain", "{id}");
        }
    }
    for (id, log_group) in of_type(&template, "AWS::Logs::LogGroup") {
        assert_eq!(log_group["RetentionInDays"], json!({ "Ref": "LogRetentionDays" }), "{id}");
        assert_eq!(log_group["KmsKeyId"], own(key.clone(), no_value.clone()), "{id}");
    }
}

/// The queue that holds no event that is not also elsewhere.
const ONLY_COPIES: &str = "CandidateQueue";

/// Events that were accepted and not yet applied wait on streams, on queues and in the failure
/// bucket. A stack that could not even be created leaves none of them behind.
#[test]
fn accepted_events_outlive_the_stack() {
    let template = template();
    for kind in ["AWS::SQS::Queue", "AWS::S3::Bucket", "AWS::Kinesis::Stream"] {
        for id in of_type(&template, kind).keys().filter(|id| *id != ONLY_COPIES) {
            let resource = &template["Resources"][id];
            assert_eq!(resource["DeletionPolicy"], "RetainExceptOnCreate", "{id}");
            assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{id}");
        }
    }
}

#[test]
fn every_queue_and_bucket_refuses_plain_http() {
    let template = template();
    let check = |kind: &str, policies: &str, protected: &dyn Fn(&Value) -> Value, whole: &dyn Fn(&str) -> Value| {
        for id in of_type(&template, kind).keys() {
            let own = json!({ "Ref": id });
            let of_its_own = of_type(&template, policies).into_values().filter(|policy| protected(policy) == own);
            let [policy] = of_its_own.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{id}: one policy"));
            let statement = &policy["PolicyDocument"]["Statement"][0];
            assert_eq!(statement["Effect"], "Deny", "{id}");
            assert_eq!(statement["Principal"], "*", "{id}");
            assert_eq!(statement["Condition"], json!({ "Bool": { "aws:SecureTransport": "false" } }), "{id}");
            assert_eq!(statement["Resource"], whole(id), "{id}");
        }
    };
    check("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", &|policy| policy["Queues"][0].clone(), &arn_of);
    let with_objects = |id: &str| json!([arn_of(id), { "Fn::Sub": format!("${{{id}.Arn}}/*") }]);
    check("AWS::S3::Bucket", "AWS::S3::BucketPolicy", &|policy| policy["Bucket"].clone(), &with_objects);
}

/// Every statement inside a value, under any conditions.
fn statements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) if fields.contains_key("Effect") => vec![value],
        Value::Object(fields) => fields.values().flat_map(statements).collect(),
        Value::Array(items) => items.iter().flat_map(statements).collect(),
        _ => Vec::new(),
    }
}

/// A string, or the items of a list of strings. An intrinsic function becomes its JSON.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(fields) => {
            vec![fields.get("Fn::Sub").and_then(Value::as_str).map_or(value.to_string(), Into::into)]
        }
        other => panic!("neither string nor list: {other}"),
    }
}

// ---------------------------------------------------------------------------------------------- parameters

#[test]
fn rules_require_one_key_source_and_limit_the_secret_to_dev() {
    let template = template();
    let check = |parameters: &[(&str, &str)], accepted: bool| {
        let without_msk = [("PrimaryLog", "kinesis")].into_iter().chain(parameters.iter().copied());
        assert_eq!(Choice::of(&template, without_msk).accepted(), accepted, "{parameters:?}");
    };
    let url = ("JwtJwksUrl", "https://issuer.example/jwks.json");
    let secret = ("JwtSecret", "0123456789abcdef0123456789abcdef");
    let (dev, prod) = (("Stage", "dev"), ("Stage", "prod"));
    check(&[dev, secret], true);
    check(&[dev, url], true);
    check(&[dev], false);
    check(&[dev, url, secret], false);
    check(&[prod, secret], false);
    let (subnets, groups) = (("SubnetIds", "subnet-0123abcd"), ("SecurityGroupIds", "sg-0123abcd"));
    check(&[dev, url, subnets, groups], true);
    check(&[dev, url, subnets], false);
    check(&[dev, url, groups], false);
    let (issuer, audience) = (("JwtIssuer", "https://issuer.example/"), ("JwtAudience", "playhead"));
    check(&[prod, url, issuer, audience], true);
    check(&[prod, url], false);
    check(&[prod, url, issuer], false);
    check(&[prod, url, audience], false);
}

/// The code refuses to start where a rule refuses the stack: rules are not evaluated everywhere.
#[test]
fn functions_need_issuer_and_audience_outside_dev_too() {
    let read = |stage: &str| {
        let pairs = [("STAGE", stage), ("JWT_JWKS_URL", "https://issuer.example/jwks.json")];
        lambda::config::read(Env::from_pairs(pairs), lambda::auth::AuthConfig::read)
    };
    let refused = read("prod").unwrap_err();
    assert_eq!(refused.0.iter().map(|one| one.variable).collect::<Vec<_>>(), ["JWT_ISSUER", "JWT_AUDIENCE"]);
    assert!(read("dev").is_ok());
}

#[test]
fn browsers_of_the_allowed_origins_and_no_others_may_call() {
    let template = template();
    let cors = |origins: &str| {
        let parameters = [("PrimaryLog", "kinesis"), ("AllowedOrigins", origins)];
        Choice::of(&template, parameters).resources()["Api"]["Properties"].get("CorsConfiguration").cloned()
    };
    assert_eq!(cors(""), None);
    let cors = cors("https://play.example,https://tv.example").unwrap();
    assert_eq!(cors["AllowOrigins"], json!({ "Fn::Split": [",", { "Ref": "AllowedOrigins" }] }));
    // What the routes, the tests of a token, and a player's back-off need.
    let methods: BTreeSet<String> = strings(&cors["AllowMethods"]).into_iter().collect();
    let served = ingest::route_keys().chain(query::route_keys());
    assert_eq!(methods, served.map(|key| key.split_once(' ').unwrap().0.to_owned()).collect());
    assert_eq!(
        strings(&cors["AllowHeaders"]),
        ["authorization", "content-type", "content-encoding", "traceparent"].map(str::to_owned)
    );
    assert_eq!(strings(&cors["ExposeHeaders"]), ["retry-after".to_owned()]);
    assert!(cors.get("AllowCredentials").is_none(), "a token is sent by the page, never by a cookie");
}

#[test]
fn origins_are_https_or_of_this_machine() {
    let pattern = template()["Parameters"]["AllowedOrigins"]["AllowedPattern"].as_str().unwrap().to_owned();
    let pattern = regex_lite::Regex::new(&format!("^(?:{pattern})$")).unwrap();
    for good in ["", "*", "https://a.example", "https://a.example:8443,https://b.example", "http://localhost:3000"] {
        assert!(pattern.is_match(good), "{good}");
    }
    for bad in [
        "a.example",
        "http://a.example",
        "https://a.example/",
        "https://*.example",
        "https://a.example, https://b.example",
        "*,https://a.example",
        "http://localhost.example",
        "null",
    ] {
        assert!(!pattern.is_match(bad), "{bad}");
    }
}

#[test]
fn every_parameter_is_described_constrained_and_grouped() {
    for template in TEMPLATES.map(read) {
        let groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"].as_array().unwrap();
        let shown: BTreeSet<_> = groups.iter().flat_map(|group| strings(&group["Parameters"])).collect();
        let parameters = object(&template["Parameters"]);
        assert_eq!(shown, parameters.keys().cloned().collect());
        for (name, parameter) in parameters {
            assert!(parameter["Description"].is_string(), "{name} has no description");
            let constraints = ["AllowedPattern", "AllowedValues", "MinValue"];
            assert!(constraints.iter().any(|constraint| parameter.get(constraint).is_some()), "{name} takes anything");
        }
    }
    assert_eq!(template()["Parameters"]["JwtSecret"]["NoEcho"], true);
}

#[test]
fn outputs_name_what_the_command_line_and_the_tests_look_for() {
    let template = template();
    let outputs: BTreeSet<_> = object(&template["Outputs"]).keys().map(String::as_str).collect();
    let expected = [
        "ApiUrl",
        "ApiId",
        "ViewsTableName",
        "InboundQueueUrl",
        "InboundQueueName",
        "RetryQueueUrl",
        "DeadLetterQueueUrl",
        "FailureBucketName",
        "EventsStreamName",
        "StandbyStreamName",
        "RemoteStreamName",
        "RemoteStandbyStreamName",
        "RoutingParameterName",
        "IngestFunctionName",
        "ProcessFunctionName",
        "ForwardFunctionName",
        "PublishFunctionName",
        "ViewChangesStreamName",
        "PublishFailedQueueUrl",
        "ChangeArchiveBucketName",
        "ShadowTableName",
        "ReportsBucketName",
        "CompareFunctionName",
        "ProcessCandidateFunctionName",
        "RetryFunctionName",
        "QueryFunctionName",
        "DashboardName",
    ];
    assert_eq!(outputs, expected.into());
}

// ---------------------------------------------------------------------------------------------- the linters

/// Runs one of the installed tools over the unchanged template, with no rule left out.
async fn lint(tool: &str, arguments: &[&str]) {
    let python = Tools::install(&root(), &Progress::silent()).await.unwrap().deploy_python();
    // Not the script itself: the path in its first line may be longer than the kernel reads.
    let said = tokio::process::Command::new(&python)
        .arg(python.with_file_name(tool))
        .args(arguments)
        .current_dir(root())
        .envs([("SAM_CLI_TELEMETRY", "0"), ("AWS_DEFAULT_REGION", "us-east-1")])
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(said.status.success(), "{tool} {arguments:?}:\n{}{}", text(&said.stdout), text(&said.stderr));
}

#[tokio::test]
async fn sam_validate_with_lint_is_clean() {
    lint("sam", &["validate", "--lint", "--template", TEMPLATES[0]]).await;
}

#[tokio::test]
async fn cfn_lint_is_clean() {
    lint("cfn-lint", &[&["--template"][..], &TEMPLATES].concat()).await;
}

#[test]
fn no_lint_rule_is_ignored() {
    for template in TEMPLATES {
        let text = std::fs::read_to_string(root().join(template)).unwrap();
        assert!(!text.contains("cfn-lint"), "{template} tells cfn-lint what to ignore");
    }
    for file in [".cfnlintrc", ".cfnlintrc.yaml", ".cfnlintrc.yml"] {
        assert!(!root().join(file).exists(), "{file} would hide what cfn-lint finds");
    }
}

//! Permissions: each function has its own role, which allows what it does and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::choice::Choice;
use super::logs::made_of;
use super::shadow::TRIED;
use super::views::LOG;
use super::{of_type, statements, strings, template};

#[test]
fn no_role_allows_more_than_its_function_needs() {
    const ENIS: &str = "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}:network-interface/*";
    // Lambda checks these for all resources; see IngestRole in the template.
    const ALL: &str = "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}:*/*";
    // Subnets and security groups that another account shares belong to that account.
    const SUBNETS: &str = "arn:${AWS::Partition}:ec2:${AWS::Region}:*:subnet/*";
    const GROUPS: &str = "arn:${AWS::Partition}:ec2:${AWS::Region}:*:security-group/*";
    const INBOUND: &str = "arn:${AWS::Partition}:sqs:*:${AWS::AccountId}:${AWS::StackName}-inbound";
    // AWS has no (narrower) resource-level permission for these, or they are objects in our own
    // bucket.
    let needed = [
        ("kafka:GetBootstrapBrokers", "*"),
        ("xray:PutTraceSegments", "*"),
        ("xray:PutTelemetryRecords", "*"),
        ("ec2:DescribeNetworkInterfaces", "*"),
        ("ec2:DescribeSecurityGroups", "*"),
        ("ec2:DescribeSubnets", "*"),
        ("ec2:DescribeVpcs", "*"),
        ("ec2:CreateNetworkInterface", ENIS),
        ("ec2:CreateNetworkInterface", SUBNETS),
        ("ec2:CreateNetworkInterface", GROUPS),
        ("ec2:DeleteNetworkInterface", ALL),
        ("ec2:AssignPrivateIpAddresses", ALL),
        ("ec2:UnassignPrivateIpAddresses", ALL),
        ("s3:PutObject", "${FailureBucket.Arn}/*"),
        ("s3:PutObject", "${ReportsBucket.Arn}/reports/*"),
        ("s3:GetObject", "${FailureBucket.Arn}/*"),
        ("s3:DeleteObject", "${FailureBucket.Arn}/*"),
        // Only in the deployment's regions: that condition has its own test.
        ("sqs:GetQueueUrl", INBOUND),
        ("sqs:SendMessage", INBOUND),
    ];
    let template = template();
    let mut wildcards = BTreeSet::new();
    for (id, role) in of_type(&template, "AWS::IAM::Role") {
        assert!(role.get("ManagedPolicyArns").is_none(), "{id}: managed policies allow more than is needed");
        let found = statements(&role["Policies"]);
        assert!(found.len() > 1, "{id} has no policies");
        let (denied, allowed): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one["Effect"] == "Deny");
        check_interfaces(&id, &denied, &allowed);
        for statement in allowed {
            assert_eq!(statement["Effect"], "Allow", "{id}: {statement}");
            let everything_but = ["NotAction", "NotResource"].iter().any(|field| statement.get(field).is_some());
            assert!(!everything_but, "{id}: {statement}");
            for action in strings(&statement["Action"]) {
                assert!(!action.contains('*'), "{id}: {action} is a wildcard");
                let wide = strings(&statement["Resource"]).into_iter().filter(|resource| resource.contains('*'));
                wildcards.extend(wide.map(|resource| (action.clone(), resource)));
            }
        }
    }
    let needed = needed.map(|(action, resource)| (action.to_owned(), resource.to_owned()));
    assert_eq!(wildcards, needed.into(), "wildcards in the template (left), wildcards that are needed (right)");
}

/// Lambda creates network interfaces with a function's role. The function's own code must not.
fn check_interfaces(id: &str, denied: &[&Value], allowed: &[&Value]) {
    let has = |statement: &&&Value| strings(&statement["Action"]).iter().any(|action| action.starts_with("ec2:"));
    if !allowed.iter().any(|statement| has(&statement)) {
        assert!(denied.is_empty(), "{id} denies what it does not allow");
        return;
    }
    let [denied] = denied else { panic!("{id}: one statement denies the function's code what is Lambda's") };
    let function = match id.strip_suffix("Role").unwrap() {
        "ProcessCandidate" => "candidate".to_owned(),
        name => name.to_lowercase(),
    };
    let function = format!(
        "arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:${{AWS::StackName}}-{function}*"
    );
    let code = json!({ "ArnLike": { "lambda:SourceFunctionArn": { "Fn::Sub": function } } });
    assert_eq!((&denied["Action"], &denied["Resource"], &denied["Condition"]), (&json!("ec2:*"), &json!("*"), &code));
}

#[test]
fn only_query_and_retry_delete_views_and_only_ingest_writes() {
    let template = template();
    let may = |action: &str| -> BTreeSet<String> {
        let mut roles = of_type(&template, "AWS::IAM::Role");
        roles.retain(|_, role| {
            let mut allowed =
                statements(&role["Policies"]).into_iter().flat_map(|statement| strings(&statement["Action"]));
            allowed.any(|allowed| allowed == action)
        });
        roles.into_keys().collect()
    };
    let check = |action: &str, roles: &[&str]| {
        assert_eq!(may(action), roles.iter().map(ToString::to_string).collect(), "who may {action}");
    };
    check("kafka-cluster:WriteData", &["IngestRole"]);
    check("kafka-cluster:ReadData", &["ForwardRole", "ProcessCandidateRole", "ProcessRole"]);
    check("kinesis:PutRecords", &["IngestRole", "PublishRole"]);
    check("kinesis:GetRecords", &["ForwardRole", "ProcessCandidateRole", "ProcessRole"]);
    check("sqs:SendMessage", &["ForwardRole", "ProcessRole", "PublishRole", "QueryRole", "RetryRole"]);
    check("sqs:GetQueueUrl", &["ForwardRole"]);
    check("sqs:ChangeMessageVisibility", &["RetryRole"]);
    check("s3:PutObject", &["CompareRole", "ForwardRole", "ProcessRole"]);
    check("s3:GetObject", &["RetryRole"]);
    check("s3:DeleteObject", &["RetryRole"]);
    check("dynamodb:UpdateItem", &["ProcessCandidateRole", "ProcessRole", "QueryRole", "RetryRole"]);
    check("dynamodb:PartiQLInsert", &["ProcessCandidateRole", "ProcessRole", "RetryRole"]);
    check("dynamodb:PartiQLUpdate", &["ProcessCandidateRole", "ProcessRole", "RetryRole"]);
    check("dynamodb:PartiQLSelect", &[]);
    check("dynamodb:PartiQLDelete", &[]);
    check(
        "dynamodb:Query",
        &["CompareRole", "ProcessCandidateRole", "ProcessRole", "PublishRole", "QueryRole", "RetryRole"],
    );
    check("dynamodb:GetRecords", &["PublishRole"]);
    check("dynamodb:Scan", &["CompareRole"]);
    check("dynamodb:BatchWriteItem", &["QueryRole", "RetryRole"]);
    check("dynamodb:GetItem", &["CompareRole"]);
    // Views are written conditionally, by statements. UpdateItem is for registers, and PutItem is for the checkpoint of compare.
    check("dynamodb:PutItem", &["CompareRole"]);
    check("dynamodb:DeleteItem", &["QueryRole", "RetryRole"]);
    // Only the operator writes the routing document.
    check("ssm:GetParameter", &["CompareRole", "ForwardRole", "IngestRole"]);
    check("ssm:PutParameter", &[]);
}

#[test]
fn x_ray_is_written_exactly_where_tracing_is_on() {
    let template = template();
    for (tracing, mode) in [("on", "Active"), ("off", "PassThrough")] {
        let choice = Choice::of(&template, [LOG, ("Tracing", tracing)].into_iter().chain(TRIED));
        let roles = made_of(&choice.resources(), "AWS::IAM::Role");
        assert!(roles.len() >= 7, "{roles:?}");
        for id in roles {
            let policies = choice.resources()[&id]["Properties"]["Policies"].clone();
            let actions: Vec<String> = statements(&policies).iter().flat_map(|of| strings(&of["Action"])).collect();
            let xray: Vec<&String> = actions.iter().filter(|action| action.starts_with("xray:")).collect();
            let expected: &[&str] =
                if tracing == "on" { &["xray:PutTraceSegments", "xray:PutTelemetryRecords"] } else { &[] };
            assert_eq!(xray, expected, "{id}");
        }
        let globals = &template["Globals"]["Function"]["Tracing"]["Fn::If"];
        assert_eq!(globals[if tracing == "on" { 1 } else { 2 }], mode);
        assert_eq!(globals[0], "TracesRequests");
    }
}

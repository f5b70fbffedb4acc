//! Updates: routes and mappings lead to aliases, which move to a new version at once or step by step,
//! also when only a parameter changes. And what AWS does not take at once or at all: many routes at a
//! time, long names.

use std::collections::BTreeSet;

use local::{Progress, Tools};
use serde_json::{Value, json};

use super::choice::referred;
use super::shadow::CANDIDATE;
use super::{object, object_mut, of_type, properties, read, root, statements, template};

/// The longest name of a stack, as `docs/deploy.md` says.
const LONGEST_STACK: usize = 40;

/// The functions that routes and mappings reach through an alias.
fn published(template: &Value) -> Vec<(String, Value)> {
    let functions = of_type(template, "AWS::Serverless::Function").into_iter();
    let published: Vec<_> = functions.filter(|(_, function)| function.get("AutoPublishAlias").is_some()).collect();
    // A candidate gets its code by hand, and `compare` has its schedule.
    assert!(published.iter().all(|(id, _)| id != CANDIDATE && id != "CompareFunction"));
    assert_eq!(published.len(), 6);
    published
}

/// SAM publishes a version when a function's text in the template changes, and not when only the
/// value of a parameter does: without the number of the configuration in its description, a function
/// would go on with old values, and nothing would say so.
#[test]
fn a_changed_parameter_publishes_every_function() {
    let template = template();
    let numbered =
        |text: &Value| text["Fn::Sub"].as_str().is_some_and(|text| text.contains("onfiguration ${Configuration}"));
    let mut used = BTreeSet::new();
    for (id, mut function) in published(&template) {
        assert_eq!(function["AutoPublishAlias"], "live", "{id}");
        assert_eq!(function["AutoPublishAliasAllProperties"], true, "{id}");
        assert!(numbered(&function["Description"]) && numbered(&function["VersionDescription"]), "{id}");
        // These belong to the function or its alias, not to a version.
        for property in ["ReservedConcurrentExecutions", "ProvisionedConcurrencyConfig", "DeploymentPreference"] {
            object_mut(&mut function).remove(property);
        }
        used.extend(parameters_of(&template, &function));
    }
    used.extend(parameters_of(&template, &template["Globals"]));
    assert!(used.remove("JwtSecret"), "a secret is not stored");
    let content = properties(&template, "Configuration")["Content"]["Fn::Sub"].as_str().unwrap().to_owned();
    let listed: BTreeSet<String> = content.lines().map(|line| line.split_once('=').unwrap().0.to_owned()).collect();
    assert!(content.lines().all(|line| line == format!("{0}=${{{0}}}", line.split_once('=').unwrap().0)));
    assert_eq!(used, listed, "what functions use (left), what a new configuration is made of (right)");
}

/// The parameters on which a value depends, by reference or by condition.
fn parameters_of(template: &Value, value: &Value) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = referred(value);
    for name in conditions(value) {
        found.extend(parameters_of(template, &template["Conditions"][name]));
    }
    // What a nested stack says depends on what it is given.
    for name in referred(value).iter().filter(|name| ["Kafka", "Network", "StandbyKafka"].contains(&name.as_str())) {
        found.extend(parameters_of(template, &template["Resources"][name]["Properties"]));
    }
    found.retain(|name| template["Parameters"].get(name).is_some());
    found
}

/// The names of the conditions in a value.
fn conditions(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(conditions).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let mut found = conditions(value);
                let named = if name == "Fn::If" { value.get(0) } else { Some(value).filter(|_| name == "Condition") };
                found.extend(named.and_then(Value::as_str).map(str::to_owned));
                found
            })
            .collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn a_gradual_deployment_goes_back_when_its_alarms_ring() {
    let template = template();
    let nested = read("infra/gradual-deployment.yaml");
    let kinds = strings_of(&template["Parameters"]["Deployment"]["AllowedValues"]);
    let gradual = object(&template["Mappings"]["Deployments"]);
    assert_eq!(gradual.keys().cloned().collect::<BTreeSet<_>>(), kinds);
    for (kind, how) in gradual {
        assert_eq!(how["Gradual"], if kind == "AllAtOnce" { "false" } else { "true" }, "{kind}");
    }
    // CodeDeploy may move aliases of this stack, and nothing else.
    let actions: BTreeSet<String> = statements(&properties(&nested, "Role")["Policies"])
        .into_iter()
        .flat_map(|statement| super::strings(&statement["Action"]))
        .collect();
    let expected = [
        "cloudwatch:DescribeAlarms",
        "lambda:GetAlias",
        "lambda:GetProvisionedConcurrencyConfig",
        "lambda:UpdateAlias",
    ];
    assert_eq!(actions, expected.map(str::to_owned).into());
    for (id, function) in published(&template) {
        let how = &function["DeploymentPreference"];
        assert_eq!(how["Type"], json!({ "Ref": "Deployment" }), "{id}");
        let alarms = &how["Alarms"]["Fn::If"];
        assert_eq!(alarms[0], "DeploysGradually", "{id}");
        let outputs: Vec<&str> =
            alarms[1].as_array().unwrap().iter().map(|to| to["Fn::GetAtt"][2].as_str().unwrap()).collect();
        assert_eq!(outputs[0], id.replace("Function", "Alarm"), "{id}: its own crashes");
        for output in outputs {
            let alarm = nested["Outputs"][output]["Value"]["Ref"].as_str().unwrap();
            assert_eq!(nested["Resources"][alarm]["Type"], "AWS::CloudWatch::Alarm", "{id}");
        }
    }
}

fn strings_of(value: &Value) -> BTreeSet<String> {
    super::strings(value).into_iter().collect()
}

/// Transforms the template as CloudFormation does, with parameters: the emulator passes none to SAM.
const TRANSFORM: &str = r#"
import json, os, sys
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform
class NoPolicies:
    def load(self):
        return {}
template = yaml_parse(open("template.yaml").read())
for resource in template["Resources"].values():
    if resource["Type"] == "AWS::Serverless::Function":
        resource["Properties"]["CodeUri"] = "s3://bucket/key"
made = transform(template, {"Deployment": sys.argv[1]}, NoPolicies())
json.dump(made["Resources"], sys.stdout)
"#;

async fn transformed(deployment: &str) -> Value {
    let python = Tools::install(&root(), &Progress::silent()).await.unwrap().deploy_python();
    let mut command = tokio::process::Command::new(python);
    let said = command.args(["-I", "-c", TRANSFORM, deployment]).current_dir(root()).output().await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

#[tokio::test]
async fn sam_moves_each_alias_by_its_deployment_group() {
    let (at_once, gradual) = (transformed("AllAtOnce").await, transformed("Canary10Percent5Minutes").await);
    let of = |made: &Value, kind: &str| object(made).values().filter(|resource| resource["Type"] == kind).count();
    for (made, groups) in [(&at_once, 0), (&gradual, 6)] {
        assert_eq!(of(made, "AWS::Lambda::Alias"), 6);
        assert_eq!(of(made, "AWS::CodeDeploy::DeploymentGroup"), groups);
    }
    assert!(gradual.get("CodeDeployServiceRole").is_none(), "it would have a managed policy");
    for (id, _) in published(&template()) {
        let policy = &gradual[format!("{id}Aliaslive")]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"];
        assert_eq!(policy["DeploymentGroupName"], json!({ "Ref": format!("{id}DeploymentGroup") }), "{id}");
        // Moving step by step, or at once, is no reason for a new version.
        let versions = |made: &Value| -> Vec<String> {
            object(made).keys().filter(|key| key.starts_with(&format!("{id}Version"))).cloned().collect()
        };
        assert_eq!(versions(&at_once), versions(&gradual), "{id}");
    }
}

/// API Gateway answers more than a few changes per second with an error.
#[test]
fn routes_are_created_one_after_the_other() {
    let template = template();
    let routes = of_type(&template, "AWS::ApiGatewayV2::Route");
    let waits_for = |id: &String| template["Resources"][id]["DependsOn"].as_str().map(str::to_owned);
    let first: Vec<_> = routes.keys().filter(|id| waits_for(id).is_none()).collect();
    let before: BTreeSet<_> = routes.keys().filter_map(waits_for).collect();
    assert_eq!(first.len(), 1, "{first:?} are created at once");
    assert_eq!(before.len(), routes.len() - 1, "two routes wait for the same one");
    assert!(before.iter().all(|id| routes.contains_key(id)));
}

#[test]
fn names_fit_for_stack_names_of_up_to_40_characters() {
    let template = template();
    let fits = |name: &Value, most: usize, id: &str| {
        let text = name.as_str().or_else(|| name["Fn::Sub"].as_str());
        let Some(text) = text else { return };
        let length = text
            .replace("${AWS::StackName}", &"s".repeat(LONGEST_STACK))
            .replace("${AWS::Region}", "ap-southeast-1")
            .len();
        assert!(length <= most, "{id} is named {text}: {length} of {most} characters");
    };
    let limits = [
        ("AWS::Serverless::Function", "FunctionName", 64),
        ("AWS::SQS::Queue", "QueueName", 80),
        ("AWS::Logs::LogGroup", "LogGroupName", 512),
        ("AWS::AppConfig::Application", "Name", 64),
        ("AWS::ApiGatewayV2::Api", "Name", 128),
    ];
    for (kind, property, most) in limits {
        for (id, resource) in of_type(&template, kind) {
            fits(&resource[property], most, &id);
        }
    }
    for (id, mapping) in of_type(&template, "AWS::Lambda::EventSourceMapping") {
        fits(&mapping["AmazonManagedKafkaEventSourceConfig"]["ConsumerGroupId"], 200, &id);
    }
}

//! The table of the views: the stack's own, or a replica of the global one. Both must be the same.

use serde_json::{Value, json};

use super::choice::{Choice, referred};
use super::shadow::TRIED;
use super::{TEMPLATES, arn_of, object, object_mut, of_type, properties, read, statements, strings, template};

pub(crate) const LOG: (&str, &str) = ("PrimaryLog", "kinesis");

#[test]
fn the_table_is_the_one_of_the_design() {
    let table = properties(&template(), "ViewsTable");
    let key = |hash: &str, range: &str| json!([{ "AttributeName": hash, "KeyType": "HASH" }, { "AttributeName": range, "KeyType": "RANGE" }]);
    assert_eq!(table["KeySchema"], key("pk", "sk"));
    let by_title = json!({
        "IndexName": "by_title", "KeySchema": key("pk", "title_id"), "Projection": { "ProjectionType": "KEYS_ONLY" }
    });
    assert_eq!(table["GlobalSecondaryIndexes"], json!([by_title]));
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    assert_eq!(table["StreamSpecification"]["StreamViewType"], "NEW_AND_OLD_IMAGES");
    assert_eq!(table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    let sse = &table["SSESpecification"];
    assert_eq!((&sse["SSEEnabled"], &sse["SSEType"]), (&json!(true), &json!("KMS")));
    assert_eq!(table["DeletionProtectionEnabled"], json!({ "Fn::If": ["IsDevelopment", false, true] }));
}

#[test]
fn the_global_table_matches_the_table_of_one_region() {
    let (regional, global) = (template(), read(TEMPLATES[2]));
    assert_eq!(regional["Conditions"]["IsDevelopment"], global["Conditions"]["IsDevelopment"]);
    let mut expected = object(&properties(&regional, "ViewsTable")).clone();
    // These belong to each replica, of which there is one per region.
    let of_a_replica = ["PointInTimeRecoverySpecification", "DeletionProtectionEnabled"];
    let protection = of_a_replica.map(|name| (name, expected.remove(name).unwrap()));
    let mut said = object(&properties(&global, "ViewsTable")).clone();
    assert_eq!(said.remove("TableName"), Some(json!({ "Ref": "TableName" })));
    assert!(said.remove("Replicas").is_some());
    // Which key may differ by region, so each replica names its own, or none.
    object_mut(expected.get_mut("SSESpecification").unwrap()).remove("KMSMasterKeyId");
    assert_eq!(said, expected);

    let others = [("SecondRegion", "us-west-2"), ("ThirdRegion", "eu-west-1"), ("FourthRegion", "ap-southeast-2")];
    for there in 0..=others.len() {
        // Both in the same stage, because `dev` decides about protection.
        for stage in [("Stage", "dev"), ("Stage", "prod")] {
            let parameters = others[..there].iter().copied().chain([stage]);
            let made = Choice::of(&global, parameters).resources()["ViewsTable"]["Properties"]["Replicas"].clone();
            let regions = ["AWS::Region", "SecondRegion", "ThirdRegion", "FourthRegion"];
            let named: Vec<Value> = made.as_array().unwrap().iter().map(|replica| replica["Region"].clone()).collect();
            assert_eq!(
                json!(named),
                regions[..=there].iter().map(|region| json!({ "Ref": region })).collect::<Value>()
            );
            let of_one_region = Choice::of(&regional, [LOG, stage]).resources();
            for (replica, name) in made.as_array().unwrap().iter().flat_map(|one| of_a_replica.map(|name| (one, name)))
            {
                assert_eq!(replica[name], of_one_region["ViewsTable"]["Properties"][name], "{stage:?}: {name}");
            }
        }
    }
    assert_eq!(protection[0].1["PointInTimeRecoveryEnabled"], true);
    for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(global["Resources"]["ViewsTable"][policy], regional["Resources"]["ViewsTable"][policy]);
    }
}

#[test]
fn a_named_table_replaces_the_stacks_own_everywhere() {
    let template = template();
    let check = |name: &str, table: &Value, arns: [&Value; 2]| {
        let choice = Choice::of(&template, [LOG, ("ViewsTableName", name)].into_iter().chain(TRIED));
        let made = choice.resources();
        assert_eq!(made.contains_key("ViewsTable"), name.is_empty());
        assert_eq!(choice.outputs()["ViewsTableName"]["Value"], *table);
        for function in ["CompareFunction", "ProcessFunction", "QueryFunction", "RetryFunction"] {
            let variables = &made[function]["Properties"]["Environment"]["Variables"];
            assert_eq!(variables["VIEWS_TABLE"], *table, "{function}");
        }
        let roles = of_type(&template, "AWS::IAM::Role").into_keys().filter_map(|role| made.get(&role));
        let mut found = 0;
        for statement in roles.flat_map(statements) {
            let actions = strings(&statement["Action"]);
            let of_views = statement["Resource"] != arn_of("ShadowTable") && actions[0] != "dynamodb:DescribeStream";
            if of_views && strings(&statement["Action"]).iter().any(|action| action.starts_with("dynamodb:")) {
                assert!(arns.contains(&&statement["Resource"]), "{statement}");
                found += 1;
            }
        }
        assert_eq!(found, 5, "process, retry and query write, query also reads the index, and compare reads");
        let mentioned = made.values().any(|resource| referred(resource).contains("ViewsTable"));
        assert_eq!(mentioned, name.is_empty());
    };
    let own = json!({ "Ref": "ViewsTable" });
    check("", &own, [&arn_of("ViewsTable"), &json!({ "Fn::Sub": "${ViewsTable.Arn}/index/by_title" })]);
    let arn = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${ViewsTableName}";
    let index = json!({ "Fn::Sub": format!("{arn}/index/by_title") });
    check("playhead-views", &json!({ "Ref": "ViewsTableName" }), [&json!({ "Fn::Sub": arn }), &index]);
}

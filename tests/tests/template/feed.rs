//! The change feed: what it needs, where there is one, and that no change is given up early.

use serde_json::json;

use super::choice::Choice;
use super::logs::{made_of, names};
use super::shadow::TRIED;
use super::views::LOG;
use super::{arn_of, number, properties, strings, template};

const PARTS: [&str; 9] = [
    "PublishFailedQueue",
    "PublishFailuresOverTlsOnly",
    "PublishFunction",
    "PublishLogs",
    "PublishMapping",
    "PublishRole",
    "ViewChangesStream",
    "ChangeArchiveStack",
    "PublishFunctionName",
];

#[test]
fn feed_exists_where_it_is_on_and_there_is_a_stream_to_read() {
    let template = template();
    let made = |parameters: &[(&'static str, &'static str)]| {
        let choice = Choice::of(&template, [LOG].into_iter().chain(parameters.iter().copied()));
        let (resources, outputs) = (choice.resources(), choice.outputs());
        let has = |id: &&str| resources.contains_key(*id) || outputs.iter().any(|(name, _)| name == *id);
        names(&PARTS.into_iter().filter(has).collect::<Vec<_>>())
    };
    let without_archive = names(&PARTS.into_iter().filter(|id| *id != "ChangeArchiveStack").collect::<Vec<_>>());
    assert_eq!(made(&[]), without_archive);
    assert_eq!(made(&[("ChangeArchive", "on")]), names(&PARTS));
    assert_eq!(made(&[("ChangeFeed", "off"), ("ChangeArchive", "on")]), names(&[]));
    assert_eq!(made(&[("ViewsTableName", "shared")]), names(&[]));
    let shared = [("ViewsTableName", "shared"), ("ViewsStreamLabel", "2026-11-29T05:50:30.123")];
    assert_eq!(made(&shared), without_archive);
}

#[test]
fn only_where_several_regions_write_are_parts_joined() {
    let template = template();
    let joined = |parameters: &[(&'static str, &'static str)]| {
        let choice = Choice::of(&template, [LOG].into_iter().chain(parameters.iter().copied()));
        let resources = choice.resources();
        let table = resources["PublishFunction"]["Properties"]["Environment"]["Variables"]["JOINED_TABLE"].clone();
        let policies = resources["PublishRole"]["Properties"]["Policies"].clone();
        let may_query = super::statements(&policies).iter().any(|of| strings(&of["Action"]) == ["dynamodb:Query"]);
        assert_eq!(may_query, table != json!(""), "{table}");
        table
    };
    assert_eq!(joined(&[]), json!(""));
    assert_eq!(joined(&TRIED), json!(""));
    assert_eq!(joined(&[("Regions", "us-east-1,us-west-2")]), json!({ "Ref": "ViewsTable" }));
    let shared = [("ViewsTableName", "shared"), ("ViewsStreamLabel", "2026-11-29T05:50:30.123")];
    assert_eq!(joined(&shared), json!({ "Ref": "ViewsTableName" }));
}

#[test]
fn changes_wait_for_the_feed_until_the_table_drops_them() {
    let template = template();
    let mapping = properties(&template, "PublishMapping");
    assert_eq!(mapping["MaximumRetryAttempts"], -1);
    let (age, day) = (number(&mapping["MaximumRecordAgeInSeconds"]), 24 * 60 * 60);
    assert!((day - 3 * 60 * 60..day).contains(&age), "DynamoDB keeps a change for a day, and then nobody is told");
    assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
    assert_eq!(mapping["BisectBatchOnFunctionError"], true);
    assert_eq!(mapping["StartingPosition"], "TRIM_HORIZON");
    // More would break the order of a profile's changes: it is kept per item only.
    assert_eq!(mapping.get("ParallelizationFactor"), None);
    assert_eq!(mapping["DestinationConfig"]["OnFailure"]["Destination"], arn_of("PublishFailedQueue"));
    assert_eq!(made_of(template["Resources"].as_object().unwrap(), "AWS::KinesisFirehose::DeliveryStream").len(), 0);
}

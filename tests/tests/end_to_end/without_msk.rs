//! A deployment whose only log is a Kinesis stream: the same template with PrimaryLog=kinesis,
//! without MSK.

use std::collections::BTreeSet;

use anyhow::Result;
use simulate::expect::expect;
use simulate::{Faults, Model};

use super::cloud::run_without_msk;
use super::simulated::{agree, plan, send_all};

#[test]
fn views_match_with_kinesis_as_the_only_log() -> Result<()> {
    run_without_msk(async |cloud| {
        let sdk = cloud.endpoints.sdk_config();
        let mappings = aws_sdk_lambda::Client::new(&sdk).list_event_source_mappings().send().await?;
        // A user's emulator may have those of other stacks.
        let functions = format!(":function:{}-", cloud.endpoints.stack);
        let mappings = mappings.event_source_mappings().iter();
        let mappings = mappings.filter(|mapping| mapping.function_arn().is_some_and(|arn| arn.contains(&functions)));
        let sources = mappings.filter_map(|mapping| mapping.event_source_arn());
        assert!(
            sources.clone().count() == 5 && !sources.clone().any(|arn| arn.contains(":kafka:")),
            "the stream, twice because the candidate reads it too, the queues, and the table's stream"
        );
        assert_eq!((&cloud.endpoints.log_bootstrap, &cloud.endpoints.standby_stream), (&None, &None));

        let faults = Faults { duplicates: 0.2, reorder: 0.2, late: 0.1, lost: 0.02, malformed: 0.05 };
        let model = Model {
            sessions: 30,
            viewers: Some(6),
            titles: 12,
            homes: vec!["use1".parse()?],
            travel: None,
            seed: 11,
            faults,
        };
        let plan = plan("streamed", &model)?;
        let expected = expect(&plan, &BTreeSet::new());
        let report = send_all(cloud, &plan).await?;
        assert_eq!((report.accepted, &report.rejected), (expected.accepted, &expected.rejected));
        agree(cloud, &expected).await
    })
}

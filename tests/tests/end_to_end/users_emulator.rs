//! An AWS emulator that runs already, with another deployment on it: that of the other tests.

use anyhow::{Result, ensure};
use aws_sdk_cloudformation::types::Stack;
use local::{LocalCloud, LocalOptions, Primary, Progress, Standby};
use serde_json::json;

use super::cloud::{Cloud, eventually, now_ms, run, session_at};
use super::member::{Answer, in_seconds, sign};

/// The names of all stacks, buckets, queues and streams.
async fn things(cloud: &Cloud) -> Result<Vec<String>> {
    let sdk = cloud.endpoints.sdk_config();
    let stacks = aws_sdk_cloudformation::Client::new(&sdk).describe_stacks().send().await?;
    let buckets = aws_sdk_s3::Client::new(&sdk).list_buckets().send().await?;
    let queues = aws_sdk_sqs::Client::new(&sdk).list_queues().send().await?;
    let streams = aws_sdk_kinesis::Client::new(&sdk).list_streams().send().await?;
    let stacks = stacks.stacks().iter().filter_map(Stack::stack_name).map(str::to_owned);
    let buckets = buckets.buckets().iter().filter_map(|bucket| bucket.name()).map(str::to_owned);
    let queues = queues.queue_urls().iter().cloned();
    Ok(stacks.chain(buckets).chain(queues).chain(streams.stream_names().iter().cloned()).collect())
}

#[test]
fn run_on_a_users_emulator_works_and_leaves_nothing_there() -> Result<()> {
    run(async |cloud| {
        let options = LocalOptions {
            aws: Some(cloud.endpoints.aws_endpoint.clone()),
            primary: Primary::Kinesis,
            standby: Standby::None,
            ..LocalOptions::named("end-to-end-users-emulator")?
        };
        let other = LocalCloud::start(options, &Progress::silent()).await?;
        let endpoints = other.endpoints().clone();
        ensure!(endpoints.left_out.is_empty(), "{:?}", endpoints.left_out);
        ensure!(endpoints.stack != cloud.endpoints.stack, "its names are its own");

        let token = sign(&json!({"profiles": ["guest"], "exp": in_seconds(600)}), &endpoints.jwt_secret);
        let session = session_at(now_ms()).to_string();
        let event = json!({"session_id": session, "profile_id": "guest", "title_id": "t1", "seq": 0,
            "kind": "started", "position_ms": 0});
        let post = cloud.http.post(format!("{}/v1/events", endpoints.api)).bearer_auth(&token);
        Answer::of(post.json(&json!({ "events": [event] }))).await?.expect(202)?;
        eventually("the event in the history", async || {
            let get = cloud.http.get(format!("{}/v1/profiles/guest/history", endpoints.api)).bearer_auth(&token);
            let history = Answer::of(get).await?.expect(200)?;
            Ok((history["sessions"][0]["session_id"] == session).then_some(()))
        })
        .await?;

        ensure!(things(cloud).await?.iter().any(|thing| thing.contains(&endpoints.stack)), "it was not there");
        other.stop().await?;
        let suffix = endpoints.stack.rsplit_once('-').map_or("", |(_, suffix)| suffix);
        let left: Vec<String> = things(cloud).await?.into_iter().filter(|thing| thing.contains(suffix)).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
}

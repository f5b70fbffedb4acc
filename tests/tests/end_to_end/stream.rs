//! A log on Kinesis: what is appended to the stream ends in views in spite of poison, partial
//! failures and pauses. What a mapping discards ends in its bucket, and is applied from there.

use anyhow::{Context as _, Result};
use aws_sdk_cloudformation::types::StackStatus;
use aws_sdk_kinesis::primitives::Blob;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use local::LocalCloud;
use local::functions::configure;
use local::poller::{Checkpoints, Poller, PollerConfig, PollerStats};
use local::proxy::{Fault, FaultProxy, Rule, When};
use serde_json::{Value, json};

use super::cloud::{Cloud, Need, eventually, run, run_alone};
use super::member::{Member, Viewing, with_events};
use super::poison::{invalid, record};

const GARBAGE: &[u8] = b"\xff\xfe this was never an envelope \x00";

/// The place of a record: its shard and its sequence number there.
type Place = (String, String);

/// Appends values, in this order, to one shard of a stream.
async fn append(cloud: &Cloud, stream: &str, key: &str, values: &[Vec<u8>]) -> Result<Vec<Place>> {
    let kinesis = aws_sdk_kinesis::Client::new(&cloud.endpoints.sdk_config());
    let mut places = Vec::new();
    for value in values {
        let put = kinesis.put_record().stream_name(stream).partition_key(key).data(Blob::new(value.clone()));
        let put = put.send().await.with_context(|| format!("append to {stream}"))?;
        places.push((put.shard_id, put.sequence_number));
    }
    Ok(places)
}

async fn append_to_standby(cloud: &Cloud, key: &str, values: &[Vec<u8>]) -> Result<Vec<Place>> {
    let stream = cloud.endpoints.standby_stream.as_deref().context("the standby log is on Kinesis")?;
    append(cloud, stream, key, values).await
}

pub(crate) fn of_standby(local: &LocalCloud) -> Result<PollerStats> {
    let poller = local.poller().and_then(|pollers| pollers.of("ProcessStandbyStreamMapping"));
    Ok(poller.context("nobody polls the standby stream")?.stats())
}

#[test]
fn poison_on_the_stream_does_not_stop_its_shard() -> Result<()> {
    run(async |cloud| {
        if cloud.lacks(&[Need::Standby]) {
            return Ok(());
        }
        let member = Member::new(cloud, "poisoned-shard");
        let (first, behind) = (Viewing::begin(&member, "t1"), Viewing::begin(&member, "t2"));
        let bad = invalid(&first, &member);
        let values = [
            record(&first, &member, 0),
            GARBAGE.to_vec(),
            bad.clone(),
            record(&first, &member, 1),
            record(&behind, &member, 0),
        ];
        let places = append_to_standby(cloud, &first.id(), &values).await?;
        member.history_with(&[(&first, 2), (&behind, 1)]).await?;

        for (at, reason, bytes) in [(1, "not_an_envelope", GARBAGE), (2, "invalid_envelope", &bad)] {
            let of_it = |source: &Source| {
                matches!(source, Source::Kinesis { shard, sequence_number, .. }
                    if (shard, sequence_number) == (&places[at].0, &places[at].1))
            };
            let letter = cloud.dead_letter(reason, |letter| of_it(&letter.letter.source)).await?;
            assert_eq!(letter.reason, reason, "{letter:?}");
            assert_eq!(BASE64_STANDARD.decode(&letter.letter.value_base64)?, bytes, "{letter:?}");
            assert_eq!(letter.letter.key_base64, Some(BASE64_STANDARD.encode(first.id())));
            assert_eq!(cloud.count_dead_letters(|letter| of_it(&letter.letter.source)).await?, 1);
        }
        Ok(())
    })
}

#[test]
fn shard_resumes_at_the_record_that_failed() -> Result<()> {
    run_alone(async |cloud, local| {
        if cloud.lacks(&[Need::FunctionsHere, Need::Standby]) {
            return Ok(());
        }
        let endpoints = &cloud.endpoints;
        let member = Member::new(cloud, "failed-in-part");
        let viewing = Viewing::begin(&member, "t1");
        let queues = FaultProxy::start(&endpoints.aws_endpoint, 3).await?;
        let fault = Fault::Error(500, "InternalFailure");
        queues.set(vec![Rule::always("no queue", "AmazonSQS", When::Before, fault)]);
        let send_through =
            async |url| configure(endpoints, &endpoints.process_function, &[("AWS_ENDPOINT_URL_SQS", url)]).await;

        local.stop_poller().await?; // so the three records are one batch
        let values = [record(&viewing, &member, 0), GARBAGE.to_vec(), record(&viewing, &member, 1)];
        let places = append_to_standby(cloud, &viewing.id(), &values).await?;
        send_through(Some(queues.url.as_str())).await?;
        let delivered_again = async {
            local.start_poller().await?;
            let again = eventually("a second retry", async || Ok(Some(of_standby(local)?).filter(|s| s.retries >= 2)));
            let meanwhile = again.await?;
            assert_eq!(
                (meanwhile.records_delivered, meanwhile.waiting),
                (1, 2),
                "only what came before the record that failed: {meanwhile:?}"
            );
            queues.set(Vec::new());
            eventually("the end", async || Ok(Some(of_standby(local)?).filter(|stats| stats.waiting == 0))).await
        };
        let delivered_again = delivered_again.await;
        // Pass or fail, later tests need the function unchanged.
        send_through(None).await?;
        let stats = delivered_again?;
        assert_eq!((stats.records_delivered, stats.discarded, stats.function_errors), (3, 0, 0), "{stats:?}");
        member.history_with(&[(&viewing, 2)]).await?;
        let is_it = |source: &Source| matches!(source, Source::Kinesis { sequence_number, .. } if *sequence_number == places[1].1);
        cloud.dead_letter("the record that failed", |letter| is_it(&letter.letter.source)).await?;
        assert_eq!(cloud.count_dead_letters(|letter| is_it(&letter.letter.source)).await?, 1);
        Ok(())
    })
}

#[test]
fn stream_resumes_where_the_poller_stopped() -> Result<()> {
    run_alone(async |cloud, local| {
        if cloud.lacks(&[Need::Standby]) {
            return Ok(());
        }
        let member = Member::new(cloud, "unpolled-stream");
        let viewings: Vec<Viewing> = (0..8).map(|_| Viewing::begin(&member, "t1")).collect();
        let append = async |seq| -> Result<()> {
            for viewing in &viewings {
                append_to_standby(cloud, &viewing.id(), &[record(viewing, &member, seq)]).await?;
            }
            Ok(())
        };
        append(0).await?;
        member.history_with(&with_events(&viewings, 1)).await?;
        local.stop_poller().await?;
        append(1).await?;
        let meanwhile = member.history().await?;
        assert!(meanwhile.iter().all(|session| session["events"] == 1), "{meanwhile:?}");

        local.start_poller().await?;
        member.history_with(&with_events(&viewings, 2)).await?;
        let settled = async || Ok(Some(of_standby(local)?).filter(|stats| stats.waiting == 0));
        assert_eq!(eventually("the last answer", settled).await?.records_delivered, 8, "nothing was delivered twice");
        Ok(())
    })
}

/// A stack with a stream, and a mapping to a function that always fails.
async fn deploy_hopeless(cloud: &Cloud, name: &str, bucket: &str) -> Result<()> {
    let template = json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "Stream": {"Type": "AWS::Kinesis::Stream", "Properties": {"Name": name, "ShardCount": 1}},
            "Mapping": {
                "Type": "AWS::Lambda::EventSourceMapping",
                "Properties": {
                    // It accepts only requests of the HTTP API.
                    "FunctionName": cloud.endpoints.query_function,
                    "EventSourceArn": {"Fn::GetAtt": ["Stream", "Arn"]},
                    "StartingPosition": "TRIM_HORIZON",
                    "FunctionResponseTypes": ["ReportBatchItemFailures"],
                    "BisectBatchOnFunctionError": true,
                    "MaximumRetryAttempts": 1,
                    "DestinationConfig": {"OnFailure": {"Destination": format!("arn:aws:s3:::{bucket}")}},
                },
            },
        },
    });
    let cloudformation = aws_sdk_cloudformation::Client::new(&cloud.endpoints.sdk_config());
    cloudformation.create_stack().stack_name(name).template_body(template.to_string()).send().await?;
    eventually("the stack", async || {
        let described = cloudformation.describe_stacks().stack_name(name).send().await?;
        let status = described.stacks().first().and_then(|stack| stack.stack_status());
        Ok((status == Some(&StackStatus::CreateComplete)).then_some(()))
    })
    .await
}

/// Lets a poller read that stack's stream until this many records were discarded.
async fn discard(cloud: &Cloud, name: &str, records: u64) -> Result<PollerStats> {
    let poller = Poller::start(PollerConfig {
        sdk: cloud.endpoints.sdk_config(),
        stack: name.to_owned(),
        logical_id: "Mapping".to_owned(),
        bootstrap: None,
        checkpoints: Checkpoints::default(),
        max_batch: None,
    });
    let poller = poller.await?;
    let discarded = async || Ok(Some(poller.stats()).filter(|stats| stats.discarded == records));
    eventually("all records discarded", discarded).await?;
    poller.stop().await
}

#[test]
fn failing_batch_is_split_and_discarded_record_by_record() -> Result<()> {
    run(async |cloud| {
        if cloud.lacks(&[Need::Standby]) {
            return Ok(());
        }
        let name = &format!("{}-hopeless", cloud.endpoints.stack);
        let s3 = aws_sdk_s3::config::Builder::from(&cloud.endpoints.sdk_config()).force_path_style(true).build();
        let s3 = aws_sdk_s3::Client::from_conf(s3);
        s3.create_bucket().bucket(name).send().await?;
        deploy_hopeless(cloud, name, name).await?;
        let values: Vec<Vec<u8>> = (0..3_u8).map(|value| vec![value]).collect();
        let places = append(cloud, name, "k", &values).await?;
        let stats = discard(cloud, name, 3).await?;
        // All three once, the first twice, the other two once, each of these twice.
        assert_eq!((stats.invocations, stats.function_errors, stats.records_delivered), (8, 8, 0), "{stats:?}");

        let listed = s3.list_objects_v2().bucket(name).send().await?;
        let mut objects: Vec<Value> = Vec::new();
        for object in listed.contents() {
            let key = object.key().context("an object without a key")?;
            assert!(key.starts_with("aws/lambda/") && key.contains("/shardId-000000000000/"), "{key}");
            let body = s3.get_object().bucket(name).key(key).send().await?.body.collect().await?;
            objects.push(serde_json::from_slice(&body.into_bytes())?);
        }
        assert_eq!(objects.len(), 3);
        objects.sort_by_key(|object| object["timestamp"].as_str().map(str::to_owned));
        for ((object, (shard, sequence_number)), value) in objects.iter().zip(&places).zip(&values) {
            let info = &object["KinesisBatchInfo"];
            assert_eq!((&info["shardId"], &info["batchSize"]), (&json!(shard), &json!(1)), "{object}");
            assert_eq!(
                (&info["startSequenceNumber"], &info["endSequenceNumber"]),
                (&json!(sequence_number), &json!(sequence_number))
            );
            let context = &object["requestContext"];
            assert_eq!(context["condition"], "RetryAttemptsExhausted", "{object}");
            assert_eq!(object["responseContext"]["functionError"], "Unhandled", "{object}");
            let event: Value = serde_json::from_str(object["payload"].as_str().context("no payload")?)?;
            assert_eq!(event["Records"].as_array().map(Vec::len), Some(1), "{event}");
            let record = &event["Records"][0];
            assert_eq!(record["eventID"], format!("{shard}:{sequence_number}"));
            assert_eq!(record["kinesis"]["data"], BASE64_STANDARD.encode(value));
        }
        Ok(())
    })
}

#[test]
fn batch_that_a_mapping_discarded_is_applied_from_the_bucket() -> Result<()> {
    run(async |cloud| {
        if cloud.lacks(&[Need::Standby]) {
            return Ok(());
        }
        let member = Member::new(cloud, "given-up");
        let viewing = Viewing::begin(&member, "t1");
        let name = &format!("{}-given-up", cloud.endpoints.stack);
        deploy_hopeless(cloud, name, &cloud.endpoints.failure_bucket).await?;
        let values: Vec<Vec<u8>> = (0..3).map(|seq| record(&viewing, &member, seq)).collect();
        append(cloud, name, &viewing.id(), &values).await?;
        assert_eq!(discard(cloud, name, 3).await?.records_delivered, 0);
        member.history_with(&[(&viewing, 3)]).await?;
        Ok(())
    })
}

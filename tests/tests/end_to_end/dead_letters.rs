//! The operator's commands for dead letters, against the queues of the local cloud.

use anyhow::{Context as _, Result, ensure};
use apply::DeadLetter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Parser;
use lambda::batch::Source;
use operate::dlq;
use operate::stack::Stack;
use playback::envelope::join_delimited;
use serde_json::Value;

use super::cloud::{Cloud, eventually, now_ms, run_alone};
use super::member::{Member, Viewing};
use super::poison::{invalid, record};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: dlq::Args,
}

/// What `playhead dlq …` prints.
async fn dlq(stack: &Stack, line: &str) -> Result<Value> {
    let args = Line::try_parse_from(std::iter::once("dlq").chain(line.split(' ')))?.args;
    let mut printed = Vec::new();
    dlq::run_on(stack, args, &mut printed).await?;
    serde_json::from_slice(&printed).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&printed)))
}

async fn send(cloud: &Cloud, queue: &str, body: String) -> Result<()> {
    cloud.sqs.send_message().queue_url(queue).message_body(body).send().await?;
    Ok(())
}

/// The dead letter of a record whose reason has been fixed since.
fn fixed(record: &[u8], reason: &str) -> Result<String> {
    let letter = serde_json::json!({
        "source": Source::Kafka { topic: "playback-events".into(), partition: 0, offset: 1 },
        "key_base64": null, "value_base64": BASE64_STANDARD.encode(record), "attempts": 16,
        "reason": reason, "detail": "made by a test", "dead_at": now_ms(),
    });
    let dead: DeadLetter = serde_json::from_value(letter)?;
    Ok(serde_json::to_string(&dead)?)
}

#[test]
fn redrive_applies_fixed_records_and_poison_dies_again() -> Result<()> {
    run_alone(async |cloud, _| {
        let stack = Stack::local(cloud.endpoints.clone()).await?;
        let queue = &cloud.endpoints.dead_letter_queue_url;
        dlq(&stack, "discard --yes --json").await?; // what other tests left
        let member = Member::new(cloud, "redriven");
        let (fixable, raw, hopeless) =
            (Viewing::begin(&member, "t1"), Viewing::begin(&member, "t2"), Viewing::begin(&member, "t3"));

        // A letter whose reason is fixed, a message that SQS moved from `inbound`, poison, and
        // something unknown.
        send(cloud, queue, fixed(&record(&fixable, &member, 0), "corrupt_view")?).await?;
        let moved = join_delimited([record(&raw, &member, 0).as_slice(), &record(&raw, &member, 1)]);
        send(cloud, queue, BASE64_STANDARD.encode(moved)).await?;
        let poison = BASE64_STANDARD.encode(join_delimited([invalid(&hopeless, &member).as_slice()]));
        send(cloud, &cloud.endpoints.inbound_queue_url, poison).await?;
        send(cloud, queue, "what is this?".to_owned()).await?;

        let listed = eventually("four dead letters", async || {
            let listed = dlq(&stack, "list --json").await?;
            Ok(Some(listed).filter(|listed| listed["letters_total"] == 4))
        })
        .await?;
        assert_eq!(listed["reasons"]["raw"]["letters"], 2, "{listed}");
        assert_eq!(listed["reasons"]["raw"]["events"], 2, "{listed}");
        assert_eq!(listed["reasons"]["corrupt_view"]["letters"], 1, "{listed}");
        let of_reason = |reason: &str| {
            let mut rows = listed["letters"].as_array().into_iter().flatten();
            rows.find(|row| row["reason"] == reason).and_then(|row| row["id"].as_str()).map(str::to_owned)
        };
        let id = of_reason("invalid_envelope").context("the poison is not listed")?;
        let shown = dlq(&stack, &format!("show {id} --json")).await?;
        assert_eq!(shown["records"][0]["session_id"], hopeless.id(), "{shown}");
        assert_eq!(shown["records"][0]["title_id"], "a,b", "{shown}");

        // A dry run changes nothing, nor does a filter that nothing passes.
        let dry = dlq(&stack, "redrive --dry-run --json").await?;
        assert_eq!((&dry["messages"], &dry["not_redrivable"]), (&4.into(), &1.into()), "{dry}");
        let none = dlq(&stack, "redrive --older-than 1h --json").await?;
        assert_eq!((&none["messages"], &none["left_out"]), (&0.into(), &4.into()), "{none}");

        let done = dlq(&stack, "redrive --json").await?;
        assert_eq!((&done["messages"], &done["not_redrivable"]), (&4.into(), &1.into()), "{done}");
        member.history_with(&[(&fixable, 1), (&raw, 2)]).await?;

        // The poison is back, remembers its earlier death, and is discarded. The unknown message is
        // still there.
        let shown = eventually("the poison's second death", async || {
            let listed = dlq(&stack, "list --reason invalid_envelope --json").await?;
            let Some(id) = listed["letters"][0]["id"].as_str() else { return Ok(None) };
            Ok(Some(dlq(&stack, &format!("show {id} --json")).await?))
        })
        .await?;
        let deaths = shown["message"]["redrives"].as_array().context("no history")?;
        ensure!(deaths.len() == 1 && deaths[0]["reason"] == "invalid_envelope", "{shown}");
        let folder = cloud.endpoints.run_dir.join("discarded.jsonl");
        let file = folder.to_str().context("a path that is not text")?;
        let done = dlq(&stack, &format!("discard --reason invalid_envelope --yes --json --save {file}")).await?;
        assert_eq!(done["letters"]["invalid_envelope"], 1, "{done}");
        let saved = std::fs::read_to_string(file)?;
        std::fs::remove_file(file)?;
        assert_eq!(saved.lines().count(), 1, "{saved}");
        let left = dlq(&stack, "list --json").await?;
        assert_eq!((&left["letters_total"], &left["reasons"]["raw"]["letters"]), (&1.into(), &1.into()), "{left}");
        dlq(&stack, "discard --yes --json").await?;
        Ok(())
    })
}

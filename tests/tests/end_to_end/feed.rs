//! The change feed, while its function is killed and its stream fails: every change of every view
//! arrives at least once and in order, and a second table made of it equals the member's history.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use examples::{Change, Feed};
use local::functions::{Environments, configure};
use local::proxy::{Fault, FaultProxy, Rule, When};
use reqwest::Method;
use simulate::expect::expect;
use simulate::{Faults, Model};

use super::cloud::{Cloud, Need, eventually, run_alone};
use super::member::{Member, Viewing, events_of, read_all, with_events};
use super::simulated::{agree, plan, send_all};

/// For the Kinesis client alone.
const VARIABLE: &str = "AWS_ENDPOINT_URL_KINESIS";
/// How often each fault is injected, and how often viewers play, at most, until that has happened.
const TIMES: usize = 3;
const ROUNDS: u64 = 20;

/// The changes of the profiles with this prefix that the table's stream holds, as `id`, by profile.
async fn written(cloud: &Cloud, prefix: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let sdk = cloud.endpoints.sdk_config();
    let (tables, streams) = (aws_sdk_dynamodb::Client::new(&sdk), aws_sdk_dynamodbstreams::Client::new(&sdk));
    let described = tables.describe_table().table_name(&cloud.endpoints.views_table).send().await?;
    let arn = described.table.and_then(|table| table.latest_stream_arn).context("no stream")?;
    let described = streams.describe_stream().stream_arn(&arn).send().await?.stream_description.context("no stream")?;
    let shard = described.shards().first().and_then(|shard| shard.shard_id()).context("no shard")?;
    let from = streams.get_shard_iterator().stream_arn(&arn).shard_id(shard);
    let from = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
    let (mut iterator, mut written) = (from.shard_iterator, BTreeMap::<String, Vec<String>>::new());
    while let Some(at) = iterator {
        let read = streams.get_records().shard_iterator(at).send().await?;
        for record in read.records() {
            let change = record.dynamodb().context("no change")?;
            // The deletion of a register follows an erasure, which was told.
            if change.new_image().is_none() && change.old_image().is_some_and(|old| !old.contains_key("view")) {
                continue;
            }
            let keys = change.keys().context("no keys")?;
            let profile = keys.get("pk").and_then(|pk| pk.as_s().ok()).context("no profile")?;
            if profile.starts_with(prefix) {
                written.entry(profile.clone()).or_default().push(record.event_id().unwrap_or_default().to_owned());
            }
        }
        iterator = read.next_shard_iterator.filter(|_| !read.records.unwrap_or_default().is_empty());
    }
    Ok(written)
}

/// What arrived on the feed for the profiles with this prefix, each change once.
async fn arrived(cloud: &Cloud, prefix: &str) -> Result<Vec<Change>> {
    let stream = cloud.endpoints.view_changes_stream.as_deref().context("no change feed")?;
    let changes = Feed::open(&cloud.endpoints.sdk_config(), stream).await?.read_to_end().await?;
    Ok(changes.into_iter().filter(|change| change.partitionkey.starts_with(prefix)).collect())
}

#[test]
fn changes_arrive_in_order_although_publish_dies_and_the_stream_fails() -> Result<()> {
    run_alone(async |cloud, local| {
        if cloud.lacks(&[Need::FunctionsHere, Need::Feed]) {
            return Ok(());
        }
        let endpoints = &cloud.endpoints;
        let publish = endpoints.publish_function.as_deref().context("no publish")?;
        let proxy = FaultProxy::start(&endpoints.aws_endpoint, 5).await?;
        let killed = Fault::Kill(Environments::of(endpoints, publish));
        let rules = [
            ("it is killed after it published", When::After, killed),
            ("its answer is lost", When::After, Fault::Error(500, "InternalFailure")),
            ("the stream refuses", When::Before, Fault::Error(400, "ProvisionedThroughputExceededException")),
        ];
        let rule =
            |(name, when, fault)| Rule { share: 0.3, times: TIMES, ..Rule::always(name, "PutRecords", when, fault) };
        proxy.set(rules.into_iter().map(rule).collect());
        let spent = async || proxy.done().await.values().filter(|times| **times == TIMES).count() == 3;
        configure(endpoints, publish, &[(VARIABLE, Some(proxy.url.as_str()))]).await?;
        let played = async {
            for round in 1..=ROUNDS {
                let model = Model {
                    sessions: 20,
                    viewers: Some(5),
                    titles: 6,
                    homes: vec!["use1".parse()?],
                    travel: None,
                    seed: round,
                    faults: Faults { duplicates: 0.1, reorder: 0.1, ..Faults::NONE },
                };
                let plan = plan(&format!("feed-{round}"), &model)?;
                let expected = expect(&plan, &BTreeSet::new());
                send_all(cloud, &plan).await?;
                agree(cloud, &expected).await?;
                let member = Member::new(cloud, &format!("feed-{round}-member"));
                let viewings: Vec<Viewing> = ["t1", "t2"].map(|title| Viewing::begin(&member, title)).into();
                member.post(&events_of(&viewings, 2)).await?;
                member.history_with(&with_events(&viewings, 2)).await?;
                member.call(Method::PUT, "titles/t3/watched").await?.expect(204)?;
                member.call(Method::DELETE, "titles/t1").await?.expect(204)?;
                member.call(Method::DELETE, "history").await?.expect(204)?;
                if spent().await {
                    return Ok(());
                }
            }
            bail!("too few faults to prove anything: {:?}", proxy.done().await)
        };
        let played = played.await;
        configure(endpoints, publish, &[(VARIABLE, None)]).await?;
        played?;

        // Every change, in order.
        let written = written(cloud, "feed-").await?;
        let total: usize = written.values().map(Vec::len).sum();
        let mut found = (0, 0);
        let changes = eventually("every change on the feed", async || {
            let changes = arrived(cloud, "feed-").await?;
            (found.0, found.1) = (changes.len(), total);
            Ok((changes.len() >= total).then_some(changes))
        });
        let mut by_profile = BTreeMap::<String, Vec<String>>::new();
        let changes = changes.await;
        let changes = changes.with_context(|| format!("{} of {} changes arrived", found.0, found.1))?;
        for change in &changes {
            by_profile.entry(change.partitionkey.clone()).or_default().push(change.id.clone());
        }
        assert_eq!(by_profile, written);

        // A second table.
        let mut second = BTreeMap::<(String, String, String), Option<u64>>::new();
        for change in changes {
            let (Some(session), Some(title)) = (change.data.session_id, change.data.title_id) else { continue };
            let key = (change.partitionkey, session, title);
            match change.kind.as_str() {
                "playhead.view.changed" => drop(second.insert(key, change.data.new.map(|view| view.played_ms))),
                "playhead.view.erased" => drop(second.remove(&key)),
                _ => {}
            }
        }
        let profiles: BTreeSet<String> = written.keys().cloned().collect();
        let mut first = BTreeMap::new();
        for (profile, sessions) in read_all(cloud, profiles, 100).await? {
            for session in sessions {
                let key = (profile.clone(), session.session_id, session.title_id);
                first.insert(key, u64::try_from(session.played_ms).ok());
            }
        }
        ensure!(first.len() > 10, "nothing to compare: {first:?}");
        assert_eq!(second, first);
        let poller = local.poller().and_then(|pollers| pollers.of("PublishMapping")).context("no poller")?;
        assert!(poller.stats().retries >= TIMES as u64, "{:?}", poller.stats());
        assert_eq!(poller.stats().discarded, 0);
        Ok(())
    })
}

//! Crashes between a write and its answer, and while nobody polls: nothing is lost, nothing counts
//! twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use local::functions::{Environments, configure};
use local::poller::{Checkpoints, Poller, PollerConfig, Pollers};
use local::proxy::{Fault, FaultProxy, Rule, When};
use simulate::expect::expect;
use simulate::{Faults, Model};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::cloud::{Cloud, Need, eventually, run_alone};
use super::member::{Member, Viewing, events_of, with_events};
use super::simulated::{agree, drain, plan, send_all};

/// For the DynamoDB client alone; the functions' other clients go to the emulator.
const VARIABLE: &str = "AWS_ENDPOINT_URL_DYNAMODB";
/// How often each fault is injected.
const TIMES: usize = 4;
/// How often viewers play, at most, until that has happened.
const ROUNDS: u64 = 30;

/// Viewers of one round.
fn model(round: u64) -> Result<Model> {
    Ok(Model {
        sessions: 40,
        viewers: Some(6),
        titles: 9,
        homes: vec!["use1".parse()?],
        travel: None,
        seed: round,
        faults: Faults { duplicates: 0.1, reorder: 0.1, ..Faults::NONE },
    })
}

/// A proxy that interferes after a write is durable.
async fn saboteur(
    cloud: &Cloud,
    rules: impl IntoIterator<Item = (&'static str, f64, usize, Fault)>,
) -> Result<Arc<FaultProxy>> {
    let proxy = FaultProxy::start(&cloud.endpoints.aws_endpoint, 3).await?;
    let rule = |(name, share, times, fault)| Rule {
        share,
        times,
        ..Rule::always(name, "BatchExecuteStatement", When::After, fault)
    };
    proxy.set(rules.into_iter().map(rule).collect());
    Ok(proxy)
}

/// Points `process` at the proxy, or back at the emulator, and waits until that holds.
async fn tell_process(cloud: &Cloud, dynamodb: Option<&FaultProxy>) -> Result<()> {
    let url = dynamodb.map(|proxy| proxy.url.as_str());
    configure(&cloud.endpoints, &cloud.endpoints.process_function, &[(VARIABLE, url)]).await
}

#[test]
fn kill_between_write_and_answer_loses_and_repeats_nothing() -> Result<()> {
    run_alone(async |cloud, local| {
        if cloud.lacks(&[Need::FunctionsHere]) {
            return Ok(());
        }
        let endpoints = &cloud.endpoints;
        let writers = Environments::of(endpoints, &endpoints.process_function);
        let killed = ("its writer is killed", 0.5, TIMES, Fault::Kill(writers));
        let lost = ("its answer is lost", 0.7, TIMES, Fault::Error(500, "InternalServerError"));
        let saboteur = saboteur(cloud, [killed, lost]).await?;
        let before = local.poller().context("no poller")?.stats();
        let spent = async || saboteur.done().await.values().filter(|times| **times == TIMES).count() == 2;

        tell_process(cloud, Some(&saboteur)).await?;
        let settled = async {
            // How many views share a write depends on how busy the machine is. So viewers play until every fault
            // has happened.
            for round in 1..=ROUNDS {
                let plan = plan(&format!("killed-{round}"), &model(round)?)?;
                let expected = expect(&plan, &BTreeSet::new());
                send_all(cloud, &plan).await?;
                agree(cloud, &expected).await?;
                drain(cloud, &format!("killed-{round}-last")).await?;
                agree(cloud, &expected).await?;
                if spent().await {
                    return Ok(());
                }
            }
            bail!("too few faults to prove anything: {:?}", saboteur.done().await)
        };
        let settled = settled.await;
        // Pass or fail, later tests need the function unchanged.
        tell_process(cloud, None).await?;
        settled?;

        let after = local.poller().context("no poller")?.stats();
        let killed = TIMES as u64;
        assert!(after.function_errors >= before.function_errors + killed, "{before:?} {after:?}");
        assert!(after.retries >= before.retries + killed, "{before:?} {after:?}");
        assert_eq!(after.discarded, before.discarded, "{before:?} {after:?}");
        Ok(())
    })
}

#[test]
fn events_wait_on_the_log_while_nobody_polls() -> Result<()> {
    run_alone(async |cloud, local| {
        let member = Member::new(cloud, "unpolled");
        let viewings: Vec<Viewing> = (0..8).map(|_| Viewing::begin(&member, "t1")).collect();
        member.post(&events_of(&viewings, 2)).await?;
        member.history_with(&with_events(&viewings, 2)).await?;

        local.stop_poller().await?;
        member.post(&events_of(&viewings, 5)).await?;
        let meanwhile = member.history().await?;
        assert!(meanwhile.iter().all(|session| session["events"] == 2), "{meanwhile:?}");

        local.start_poller().await?;
        member.history_with(&with_events(&viewings, 5)).await?;
        assert_eq!(local.poller().context("no poller")?.stats().function_errors, 0);
        Ok(())
    })
}

#[test]
fn uncommitted_records_of_a_dead_poller_are_redelivered() -> Result<()> {
    run_alone(async |cloud, local| {
        if cloud.lacks(&[Need::FunctionsHere]) {
            return Ok(());
        }
        let endpoints = &cloud.endpoints;
        let member = Member::new(cloud, "uncommitted");
        let viewings: Vec<Viewing> = (0..4).map(|_| Viewing::begin(&member, "t1")).collect();
        let (release, released) = watch::channel(false);
        let rule = ("its answer is held back", 1.0, usize::MAX, Fault::Hold(released));
        let saboteur = saboteur(cloud, [rule]).await?;

        local.stop_poller().await?;
        tell_process(cloud, Some(&saboteur)).await?;
        let mortal = Runtime::new()?;
        let died = async {
            let poller = mortal.spawn(Poller::start(PollerConfig {
                sdk: endpoints.sdk_config(),
                stack: endpoints.stack.clone(),
                logical_id: "ProcessLogMapping".to_owned(),
                bootstrap: endpoints.log_bootstrap.clone(),
                checkpoints: Checkpoints::default(),
                max_batch: None,
            }));
            let poller = poller.await??;
            member.post(&events_of(&viewings, 2)).await?;
            for viewing in &viewings {
                eventually("a write", async || cloud.stored(viewing).await).await?;
            }
            Ok::<_, anyhow::Error>(poller.stats())
        };
        let died = died.await;
        mortal.shutdown_background(); // in the middle of its invocations
        release.send(true)?;
        tell_process(cloud, None).await?;
        local.start_poller().await?;
        assert_eq!(died?.records_delivered, 0, "the poller got an answer: nothing is uncommitted");

        let stats = || local.poller().map(Pollers::stats).context("no poller");
        let again =
            eventually("the second delivery", async || Ok(Some(stats()?).filter(|stats| stats.records_delivered >= 4)));
        assert_eq!(again.await?.records_delivered, 4);
        let history = member.history_with(&with_events(&viewings, 2)).await?;
        assert!(history.iter().all(|session| session["played_ms"] == 1_000), "{history:?}");
        Ok(())
    })
}

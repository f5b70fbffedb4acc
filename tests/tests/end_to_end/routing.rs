//! The operator's commands for the routing document, and the functions that follow it.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use lambda::routing::MAX_AGE;
use operate::routing;
use operate::stack::Deployment;
use serde_json::Value;

use super::cloud::{Need, eventually, run_alone};
use super::member::{Member, Viewing, events_of, with_events};
use super::stream::of_standby;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: routing::Args,
}

/// What `playhead routing …` prints if it succeeds.
pub(crate) async fn command(deployment: &Deployment, line: &str) -> Result<String> {
    let args = Line::try_parse_from(std::iter::once("routing").chain(line.split(' ')))?.args;
    let mut printed = Vec::new();
    let status = routing::run_on(deployment, args, &mut printed).await?;
    assert_eq!(status, ExitCode::SUCCESS, "{line}: {}", String::from_utf8_lossy(&printed));
    Ok(String::from_utf8(printed)?)
}

async fn log_of(deployment: &Deployment) -> Result<Value> {
    let shown: Value = serde_json::from_str(&command(deployment, "show --json").await?)?;
    Ok(shown["documents"][0]["log"].clone())
}

#[test]
fn events_posted_while_the_standby_is_chosen_end_in_views() -> Result<()> {
    run_alone(async |cloud, local| {
        if cloud.lacks(&[Need::Standby]) {
            return Ok(());
        }
        let deployment = Deployment::local(&cloud.endpoints)?;
        let member = Member::new(cloud, "on-standby");
        let viewings: Vec<Viewing> = (0..4).map(|_| Viewing::begin(&member, "t1")).collect();
        let before = of_standby(local)?;
        let planned = command(&deployment, "set --log standby --dry-run").await?;
        assert!(planned.contains("+ log: \"standby\""), "{planned}");
        assert_eq!(log_of(&deployment).await?, "auto");

        command(&deployment, "set --log standby").await?;
        assert_eq!(log_of(&deployment).await?, "standby");
        // By then every environment is guaranteed to follow.
        tokio::time::sleep(MAX_AGE).await;
        let posted = member.post(&events_of(&viewings, 3)).await;
        command(&deployment, "set --log auto").await?;
        posted?;
        member.history_with(&with_events(&viewings, 3)).await?;
        let settled = async || Ok(Some(of_standby(local)?).filter(|stats| stats.waiting == 0));
        let after = eventually("the last answer", settled).await?;
        assert_eq!(after.records_delivered - before.records_delivered, 4, "one record per session, all on the standby");

        let history: Value = serde_json::from_str(&command(&deployment, "history --limit 2 --json").await?)?;
        let changes = |at: usize| history[at]["changes"][0].as_str().context("no change");
        assert_eq!([changes(0)?, changes(1)?], ["log: standby -> auto", "log: auto -> standby"]);
        let brought_back = command(&deployment, "set --version 1").await?;
        assert!(brought_back.starts_with("Nothing changes"), "it is the first document again: {brought_back}");
        Ok(())
    })
}

#[test]
fn invalid_routing_is_refused_and_changes_nothing() -> Result<()> {
    run_alone(async |cloud, _| {
        let deployment = Deployment::local(&cloud.endpoints)?;
        let before = command(&deployment, "show").await?;
        let file = cloud.endpoints.run_dir.join("routing.json");
        let path = file.to_str().context("a path that is not text")?;
        std::fs::write(&file, r#"{"version":1,"logs":"standby"}"#)?;
        for (line, because) in [
            (format!("set --file {path}"), "`logs`"),
            ("drain us-east-1 --to us-west-2".to_owned(), "in us-east-1 alone"),
            ("restore us-west-2".to_owned(), "not one of the deployment's regions"),
            ("set --version 99".to_owned(), "ParameterVersionNotFound"),
            ("set --dry-run".to_owned(), "say what to set"),
        ] {
            let refused = format!("{:#}", command(&deployment, &line).await.expect_err(&line));
            assert!(refused.contains(because), "{line}: {refused}");
        }
        std::fs::remove_file(&file)?;
        assert_eq!(command(&deployment, "show").await?, before);
        Ok(())
    })
}

//! What the controls of the page mean. Each is one POST with one JSON object.

use crate::shared::Shared;
use crate::traffic::Level;
use anyhow::{Context as _, Result, ensure};
use local::proxy::{Fault, FaultProxy, Rule, When};
use local::{Cut, LocalCloud, LocalRegions, Role, append_poison};
use operate::Endpoints;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;

/// Largest number of records of poison at once.
const MOST_POISON: u8 = 20;
/// Share of calls that a throttled store refuses. The SDK tries each call three times.
const THROTTLED_SHARE: f64 = 0.7;
const THROTTLED: &str = "the store throttles";
const HANGS: &str = "the store hangs";

/// A control.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Control {
    /// How much the simulated viewers send.
    Traffic { level: Level },
    /// Kill a broker, or start it again.
    Broker { region: String, log: Role, broker: usize, up: bool },
    /// Make all brokers of a log hang, or go on.
    Log { region: String, log: Role, hangs: bool },
    /// How the store answers the functions of a region.
    Store { region: String, state: Store },
    /// Append records that are no envelopes to the primary log.
    Poison { region: String, records: u8 },
    /// Make a whole region hang, or go on.
    Region { region: String, hangs: bool },
    /// Cut the link between the regions, or restore it.
    Link { cut: bool },
    /// Stop the viewers, and tell when nothing is in flight any more.
    Drain,
    /// Make everything work again.
    Repair,
}

/// How the store answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// As it should.
    #[default]
    Well,
    /// It refuses most calls.
    Throttles,
    /// It does not answer.
    Hangs,
}

impl Store {
    /// What the proxy in front of it does at present.
    pub(crate) fn of(proxy: &FaultProxy) -> Self {
        match proxy.in_force().first() {
            Some(&THROTTLED) => Self::Throttles,
            Some(&HANGS) => Self::Hangs,
            _ => Self::Well,
        }
    }

    fn rules(self) -> Vec<Rule> {
        match self {
            Self::Well => Vec::new(),
            Self::Throttles => {
                let rule = Rule::always(THROTTLED, "DynamoDB", When::Before, Fault::Throttle);
                vec![Rule { share: THROTTLED_SHARE, ..rule }]
            }
            Self::Hangs => vec![Rule::always(HANGS, "DynamoDB", When::Before, Fault::Hang)],
        }
    }
}

/// A control that the holder of the cloud must carry out, and where the result goes.
#[derive(Debug)]
pub(crate) struct Order {
    control: Control,
    done: oneshot::Sender<Result<()>>,
}

impl Control {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// If it is not a control.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let control: Self = serde_json::from_slice(body).context("not a control of this page")?;
        if let Self::Poison { records, .. } = &control {
            ensure!((1..=MOST_POISON).contains(records), "1 to {MOST_POISON} records of poison, not {records}");
        }
        Ok(control)
    }

    /// Carries it out.
    ///
    /// # Errors
    /// If it cannot be carried out. The message is for the person at the page.
    pub(crate) async fn carry_out(self, shared: &Arc<Shared>) -> Result<()> {
        if let Some(reason) = *shared.locked.borrow() {
            anyhow::bail!("the controls are locked: {reason}");
        }
        match self {
            Self::Traffic { level } => {
                shared.draining.send_replace(false);
                shared.level.send_replace(level);
                shared.note(level.in_words());
                Ok(())
            }
            Self::Poison { region, records } => poison(shared, &region, records).await,
            Self::Drain => {
                shared.level.send_replace(Level::Off);
                shared.draining.send_replace(true);
                shared.note("Draining: the viewers have stopped; waiting until nothing is in flight");
                Ok(())
            }
            control => {
                let (done, result) = oneshot::channel();
                shared.orders.send(Order { control, done }).await.context("the local cloud is stopping")?;
                result.await.context("the local cloud is stopping")?
            }
        }
    }
}

async fn poison(shared: &Shared, region: &str, records: u8) -> Result<()> {
    let endpoints = shared.endpoints.regions().find(|known| known.region == region);
    let endpoints: &Endpoints = endpoints.with_context(|| format!("there is no region {region}"))?;
    for _ in 0..records {
        append_poison(endpoints).await?;
        shared.poison.fetch_add(1, Relaxed);
    }
    shared.note(format!("{region}: {records} records of poison are on the primary log"));
    Ok(())
}

impl Order {
    /// Carries it out on the cloud, and tells the result.
    pub(crate) async fn carry_out(self, cloud: &mut LocalRegions, shared: &Shared) {
        let result = carry_out(self.control, cloud, shared).await;
        if let Err(error) = &result {
            shared.note(format!("Failed: {error:#}"));
        }
        // A browser that has gone does not want to know.
        let _ = self.done.send(result);
    }
}

async fn carry_out(control: Control, cloud: &mut LocalRegions, shared: &Shared) -> Result<()> {
    match control {
        Control::Broker { region, log, broker, up: true } => cloud.cloud_mut(&region)?.revive_broker(log, broker).await,
        Control::Broker { region, log, broker, up: false } => cloud.cloud_mut(&region)?.kill_broker(log, broker).await,
        Control::Log { region, log, hangs } => cloud.cloud_mut(&region)?.hang_log(log, hangs),
        Control::Store { region, state } => {
            set_store(cloud.cloud_mut(&region)?, state)?;
            shared.note(format!("{region}: the store {}", state.in_words()));
            Ok(())
        }
        Control::Region { region, hangs } => {
            cloud.cloud_mut(&region)?.hang_region(hangs)?;
            shared.note(format!("{region} {}", if hangs { "hangs" } else { "answers again" }));
            Ok(())
        }
        Control::Link { cut } => {
            set_link(cloud, cut);
            shared.note(if cut { "The link between the regions is cut" } else { "The link is back" });
            Ok(())
        }
        Control::Repair => {
            repair(cloud).await?;
            shared.note("Everything has been repaired");
            Ok(())
        }
        Control::Traffic { .. } | Control::Poison { .. } | Control::Drain => Ok(()), // not sent here
    }
}

impl Store {
    fn in_words(self) -> &'static str {
        match self {
            Self::Well => "answers",
            Self::Throttles => "throttles: it refuses most calls",
            Self::Hangs => "hangs: it does not answer",
        }
    }
}

fn set_store(cloud: &LocalCloud, state: Store) -> Result<()> {
    cloud.store().context("there is nothing between the functions and the store")?.set(state.rules());
    Ok(())
}

fn set_link(cloud: &LocalRegions, cut: bool) {
    match cut {
        true => cloud.link().cut(Cut::Silence),
        false => cloud.link().heal(),
    }
}

async fn repair(cloud: &mut LocalRegions) -> Result<()> {
    set_link(cloud, false);
    for cloud in cloud.clouds_mut() {
        if cloud.region_hangs() {
            cloud.hang_region(false)?;
        }
        if cloud.store().is_some() {
            set_store(cloud, Store::Well)?;
        }
        for role in [Role::Primary, Role::Standby] {
            cloud.repair_log(role).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Control> {
        Control::parse(text.as_bytes()).ok()
    }

    #[test]
    fn controls_are_read_from_json() {
        let region = || "us-east-1".to_owned();
        for (text, control) in [
            (r#"{"do":"traffic","level":"heavy"}"#, Control::Traffic { level: Level::Heavy }),
            (
                r#"{"do":"broker","region":"us-east-1","log":"primary","broker":2,"up":false}"#,
                Control::Broker { region: region(), log: Role::Primary, broker: 2, up: false },
            ),
            (
                r#"{"do":"log","region":"us-east-1","log":"standby","hangs":true}"#,
                Control::Log { region: region(), log: Role::Standby, hangs: true },
            ),
            (
                r#"{"do":"store","region":"us-east-1","state":"hangs"}"#,
                Control::Store { region: region(), state: Store::Hangs },
            ),
            (r#"{"do":"poison","region":"us-east-1","records":3}"#, Control::Poison { region: region(), records: 3 }),
            (r#"{"do":"drain"}"#, Control::Drain),
            (r#"{"do":"repair"}"#, Control::Repair),
        ] {
            assert_eq!(parsed(text), Some(control), "{text}");
        }
    }

    #[test]
    fn what_is_no_control_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"do":"format_disk"}"#,
            r#"{"do":"traffic"}"#,
            r#"{"do":"traffic","level":"extreme"}"#,
            r#"{"do":"broker","region":"us-east-1","log":"third","broker":0,"up":true}"#,
            r#"{"do":"broker","region":"us-east-1","log":"primary","broker":-1,"up":true}"#,
            r#"{"do":"poison","region":"us-east-1","records":0}"#,
            r#"{"do":"poison","region":"us-east-1","records":21}"#,
            r#"{"do":"link","cut":true,"regions":[]}"#,
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn state_of_the_store_is_what_its_proxy_does() {
        let proxy = FaultProxy::start("http://127.0.0.1:1", 1).await.unwrap();
        for state in [Store::Throttles, Store::Hangs, Store::Well] {
            proxy.set(state.rules());
            assert_eq!(Store::of(&proxy), state);
        }
    }
}

//! The parts of the cloud that can fail, and their state.

use crate::control::Store;
use anyhow::Result;
use local::{BrokerState, LocalCloud, LocalRegions, Role};
use serde::Serialize;

/// The parts of one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RegionParts {
    pub(crate) region: String,
    /// Whether the whole region hangs.
    pub(crate) hangs: bool,
    pub(crate) primary: Log,
    /// None if the stack has no standby log.
    pub(crate) standby: Option<Log>,
    pub(crate) store: Store,
    /// Whether the link to the other regions is cut.
    pub(crate) cut: bool,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Log {
    /// `kafka` or `kinesis`.
    service: &'static str,
    /// By number. Empty if there is none that we could stop.
    pub(crate) brokers: Vec<BrokerState>,
    /// Whether a broker that ends takes its records with it.
    in_memory: bool,
    /// Records that its pollers have read and not yet finished.
    waiting: u64,
    /// Times that a batch failed as a whole.
    errors: u64,
}

/// Looks at all parts.
///
/// # Errors
/// If an emulator has ended.
pub(crate) fn look(cloud: &mut LocalRegions) -> Result<Vec<RegionParts>> {
    let cut = cloud.link().is_cut();
    cloud.clouds_mut().iter_mut().map(|cloud| region(cloud, cut)).collect()
}

fn region(cloud: &mut LocalCloud, cut: bool) -> Result<RegionParts> {
    cloud.check()?;
    let endpoints = cloud.endpoints().clone();
    let standby = match (&endpoints.standby_stream, &endpoints.standby_bootstrap) {
        (Some(_), _) => Some("kinesis"),
        (None, Some(_)) => Some("kafka"),
        (None, None) => None,
    };
    let primary = if endpoints.events_stream.is_some() { "kinesis" } else { "kafka" };
    Ok(RegionParts {
        region: endpoints.region,
        hangs: cloud.region_hangs(),
        primary: log(cloud, primary, Role::Primary),
        standby: standby.map(|service| log(cloud, service, Role::Standby)),
        store: cloud.store().map(Store::of).unwrap_or_default(),
        cut,
    })
}

fn log(cloud: &mut LocalCloud, service: &'static str, role: Role) -> Log {
    let (brokers, in_memory) = cloud.brokers(role);
    let polled = cloud.poller().map(|pollers| pollers.stats_of(role)).unwrap_or_default();
    Log { service, brokers, in_memory, waiting: polled.waiting, errors: polled.function_errors }
}

impl RegionParts {
    /// The log of this role.
    pub(crate) fn log(&self, role: Role) -> Option<&Log> {
        match role {
            Role::Primary => Some(&self.primary),
            Role::Standby => self.standby.as_ref(),
        }
    }

    /// Brokers whose state changed, in words.
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, role) in [("primary", Role::Primary), ("standby", Role::Standby)] {
            let (Some(now), Some(then)) = (self.log(role), before.log(role)) else { continue };
            for (number, (now, then)) in now.brokers.iter().zip(&then.brokers).enumerate() {
                if now != then {
                    changes.push(format!("{}: broker {number} of the {name} log {}", self.region, word(*now)));
                }
            }
        }
        changes
    }
}

fn word(state: BrokerState) -> &'static str {
    match state {
        BrokerState::Up => "is up",
        BrokerState::Hangs => "hangs",
        BrokerState::Down => "is down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(primary: &[BrokerState], standby: Option<&[BrokerState]>) -> RegionParts {
        let log = |brokers: &[BrokerState]| Log {
            service: "kafka",
            brokers: brokers.to_vec(),
            in_memory: false,
            waiting: 0,
            errors: 0,
        };
        RegionParts {
            region: "us-east-1".to_owned(),
            hangs: false,
            primary: log(primary),
            standby: standby.map(log),
            store: Store::Well,
            cut: false,
        }
    }

    #[test]
    fn broker_that_changes_by_itself_is_noted_with_its_log() {
        use BrokerState::{Down, Hangs, Up};
        let before = parts(&[Up, Up, Up], Some(&[Up]));
        assert_eq!(before.changes_since(&before), Vec::<String>::new());
        let after = parts(&[Up, Down, Up], Some(&[Hangs]));
        let expected =
            ["us-east-1: broker 1 of the primary log is down", "us-east-1: broker 0 of the standby log hangs"];
        assert_eq!(after.changes_since(&before), expected);
        assert_eq!(before.changes_since(&after)[0], "us-east-1: broker 1 of the primary log is up");
        assert_eq!(parts(&[Up], None).changes_since(&parts(&[Up], Some(&[Up]))), Vec::<String>::new());
    }
}

//! `playhead routing show`: the document in each region, and where sessions and events go.

use super::copies::Copies;
use super::document::{Route, name_of, routes, same};
use crate::stack::Deployment;
use crate::text::clock_time;
use anyhow::Result;
use playback::routing::Document;
use serde::Serialize;
use std::fmt::Write as _;

/// What is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    parameter: String,
    /// Whether all regions were reached and have the same, valid document.
    pub(super) good: bool,
    /// Whether the regions that were reached have the same document.
    agree: bool,
    regions: Vec<Region>,
    /// The distinct documents. There should be one.
    documents: Vec<Meaning>,
}

#[derive(Debug, Serialize)]
struct Region {
    region: String,
    version: Option<i64>,
    /// Unix milliseconds.
    changed_at: Option<u64>,
    /// Why it was not reached.
    error: Option<String>,
}

/// A document, and what it means.
#[derive(Debug, Serialize)]
struct Meaning {
    /// The regions that have it.
    of: Vec<String>,
    text: String,
    /// Why it cannot be followed.
    error: Option<String>,
    routes: Vec<Route>,
    log: Option<&'static str>,
}

impl Shown {
    /// The regions' copies, grouped by document.
    pub(super) fn of(deployment: &Deployment, copies: &Copies) -> Self {
        let regions = copies.0.iter().map(|(region, copy)| Region {
            region: region.clone(),
            version: copy.as_ref().ok().map(|copy| copy.version),
            changed_at: copy.as_ref().ok().map(|copy| copy.changed_at),
            error: copy.as_ref().err().map(|error| format!("{error:#}")),
        });
        let mut documents: Vec<Meaning> = Vec::new();
        for (region, copy) in copies.reached() {
            match documents.iter_mut().find(|document| same(&document.text, &copy.text)) {
                Some(document) => document.of.push(region.to_owned()),
                None => documents.push(Meaning::of(region, &copy.text, deployment)),
            }
        }
        let good = documents.len() == 1 && copies.missed().count() == 0 && documents[0].error.is_none();
        Self {
            parameter: deployment.routing_parameter.clone(),
            good,
            agree: copies.agree(),
            regions: regions.collect(),
            documents,
        }
    }

    /// The documents as text.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n\n{:<16} {:>7}  changed\n", self.parameter, "region", "version");
        for Region { region, version, changed_at, error } in &self.regions {
            // Writing to a string cannot fail.
            let _ = match (version, changed_at, error) {
                (Some(version), Some(at), _) => writeln!(text, "{region:<16} {version:>7}  {}", clock_time(*at)),
                (_, _, error) => writeln!(text, "{region:<16} NOT REACHED: {}", error.as_deref().unwrap_or_default()),
            };
        }
        if !self.agree {
            text.push_str("\nTHE REGIONS HAVE DIFFERENT DOCUMENTS. Choose one for all: `routing set --from REGION`\n");
        }
        for Meaning { of, text: document, error, routes, log } in &self.documents {
            let _ = writeln!(text, "\nIn {}: {document}", of.join(", "));
            if let Some(error) = error {
                let _ = writeln!(text, "  CANNOT BE FOLLOWED. The functions keep the last good one: {error}");
            }
            for Route { home, region, target } in routes {
                let why = if region == target { String::new() } else { format!(": {region} is draining") };
                let _ = writeln!(text, "  sessions of {home} -> {target}{why}");
            }
            let _ = match log {
                None => Ok(()),
                Some("auto") => writeln!(text, "  log: auto, the primary while it is healthy, else the standby"),
                Some(log) => writeln!(text, "  log: {log} only, set by an operator"),
            };
        }
        text
    }
}

impl Meaning {
    fn of(region: &str, text: &str, deployment: &Deployment) -> Self {
        let followed = || -> Result<(Document, Vec<Route>)> {
            let document: Document = text.parse()?;
            let routes = routes(&document, &deployment.regions)?;
            Ok((document, routes))
        };
        let (of, text) = (vec![region.to_owned()], text.to_owned());
        match followed() {
            Ok((document, routes)) => Self { of, text, error: None, routes, log: Some(name_of(document.log)) },
            Err(error) => Self { of, text, error: Some(format!("{error:#}")), routes: Vec::new(), log: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ssm, deployment};
    use super::*;

    const DRAINED: &str =
        r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"us-east-1"}},"log":"standby"}"#;

    #[tokio::test]
    async fn shared_document_is_shown_once_with_its_meaning() {
        let (east, west) = tokio::join!(Ssm::start(&["{", DRAINED]), Ssm::start(&[DRAINED]));
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west)]);
        let shown = Shown::of(&deployment, &Copies::read(&deployment).await);
        let expect = format!(
            "\
/playhead-test/routing

region           version  changed
us-east-1              2  2026-09-21 14:13:22Z
us-west-2              1  2026-09-21 14:13:21Z

In us-east-1, us-west-2: {DRAINED}
  sessions of use1 -> us-east-1
  sessions of usw2 -> us-east-1: us-west-2 is draining
  log: standby only, set by an operator
"
        );
        assert_eq!((shown.text(), shown.good), (expect, true));
    }

    #[tokio::test]
    async fn differing_unreached_and_invalid_copies_are_shown() {
        let started = tokio::join!(Ssm::start(&[r#"{"version":1}"#]), Ssm::start(&["{"]), Ssm::start(&[DRAINED]));
        let (east, west, ireland) = started;
        let deployment = deployment(&[("us-east-1", &east), ("us-west-2", &west), ("eu-west-1", &ireland)]);
        ireland.set_down(true);
        let shown = Shown::of(&deployment, &Copies::read(&deployment).await);
        let text = shown.text();
        for said in
            ["eu-west-1        NOT REACHED: reading", "DIFFERENT DOCUMENTS", "In us-west-2: {\n  CANNOT BE FOLLOWED"]
        {
            assert!(text.contains(said), "{said} is missing in {text}");
        }
        assert!(!shown.good);
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!((&json["agree"], &json["documents"][0]["log"]), (&false.into(), &"auto".into()), "{json}");
        assert_eq!(json["documents"][0]["routes"][1]["target"], "us-east-1", "{json}");
        west.put(r#"{"version":1}"#);
        assert!(!Shown::of(&deployment, &Copies::read(&deployment).await).good, "one is still down");
    }
}

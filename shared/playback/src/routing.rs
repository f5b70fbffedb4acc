//! Where a session's events go: the regions of a deployment, the routing document with which an
//! operator changes that, and the decision for one session.
//!
//! A session's events are folded in its home region, which its id names. While that region is
//! draining, they are folded in its successor. Views end the same whatever this module decides,
//! because readers join what each region folded. An outdated document costs a detour but loses no
//! event, so it may be cached, and regions may differ for a while.
//!
//! This module must not fetch anything: the caller loads the document and decides how old it may
//! be.

use crate::rollout::Rollout;
use crate::session::Home;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// The version of the document that this code reads and writes.
pub const DOCUMENT_VERSION: u32 = 1;
/// Maximum size of a document, bytes: the limit of SSM Parameter Store's advanced tier.
pub const MAX_DOCUMENT_BYTES: usize = 8 * 1024;

/// An AWS region, and its code in session ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Such as `us-east-1`.
    pub name: String,
    /// Such as `use1`.
    pub home: Home,
}

impl Region {
    /// The region of this name; `None` when it is not a region's name.
    pub fn named(name: &str) -> Option<Self> {
        Some(Self { name: name.to_owned(), home: Home::of_region(name)? })
    }
}

/// The regions of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    here: Region,
    /// All but this one, sorted by name.
    others: Vec<Region>,
}

/// Why a list of regions is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRegions {
    /// Not the name of a region.
    #[error("{0:?} is not the name of a region, such as us-east-1")]
    Name(String),
    /// A region that is listed twice, or two regions that session ids cannot tell apart.
    #[error("{0} and {1} have the same code in session ids")]
    Twice(String, String),
    /// The list lacks the region that reads it.
    #[error("{0} is missing: the list must name this region too")]
    WithoutHere(String),
}

impl Regions {
    /// Parses a comma-separated `list` of region names, as seen from the region `here`. An empty
    /// list means `here` alone.
    ///
    /// # Errors
    /// [`MalformedRegions`] names the bad entry.
    pub fn parse(here: &str, list: &str) -> Result<Self, MalformedRegions> {
        let named = |name: &str| Region::named(name).ok_or_else(|| MalformedRegions::Name(name.to_owned()));
        let here = named(here)?;
        let mut all: Vec<Region> = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let region = named(name)?;
            if let Some(other) = all.iter().find(|other| other.home == region.home) {
                return Err(MalformedRegions::Twice(other.name.clone(), region.name));
            }
            all.push(region);
        }
        if !all.is_empty() && !all.contains(&here) {
            return Err(MalformedRegions::WithoutHere(here.name));
        }
        all.retain(|region| *region != here);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { here, others: all })
    }

    /// This region.
    pub fn here(&self) -> &Region {
        &self.here
    }

    /// All other regions, sorted by name.
    pub fn others(&self) -> &[Region] {
        &self.others
    }

    /// All regions, this one first.
    pub fn all(&self) -> impl Iterator<Item = &Region> {
        std::iter::once(&self.here).chain(&self.others)
    }

    fn named(&self, name: &str) -> Option<&Region> {
        self.all().find(|region| region.name == name)
    }
}

/// The operator's choice between the primary log and its standby.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// The primary's health decides.
    #[default]
    Auto,
    /// Always the primary.
    Primary,
    /// Always the standby.
    Standby,
}

/// The state an operator gives a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum State {
    /// It folds its sessions.
    Active,
    /// Its successor folds the new events of its sessions.
    Draining {
        /// The successor's name.
        to: String,
    },
}

/// The routing document. What it omits has a default: all regions active, the log chosen by its
/// health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`DOCUMENT_VERSION`].
    pub version: u32,
    /// By region name; a region that is not listed is active.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub regions: BTreeMap<String, State>,
    /// Where `ingest` appends.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub log: Override,
    /// Which path each profile is on, while a team moves from a legacy system to Playhead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

fn is_auto(log: &Override) -> bool {
    *log == Override::Auto
}

impl Default for Document {
    fn default() -> Self {
        Self { version: DOCUMENT_VERSION, regions: BTreeMap::new(), log: Override::Auto, rollout: None }
    }
}

/// Why a document is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// Longer than [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {0} bytes; at most {MAX_DOCUMENT_BYTES} are allowed")]
    TooLong(usize),
    /// Not JSON, or not a routing document.
    #[error("not a routing document: {0}")]
    Malformed(String),
    /// A version that this code does not know.
    #[error("`version` is {0}; this code knows only {DOCUMENT_VERSION}")]
    Version(u32),
    /// A region outside the deployment.
    #[error("`{field}` names {region}, which is not a region of this deployment")]
    UnknownRegion {
        /// The field.
        field: String,
        /// The region's name.
        region: String,
    },
    /// A successor that is also draining, or is the draining region itself.
    #[error(
        "`regions.{region}.to` is {to}, which is not an active region: choose another region, one that is not draining"
    )]
    SuccessorNotActive {
        /// The draining region.
        region: String,
        /// Its successor.
        to: String,
    },
}

impl FromStr for Document {
    type Err = InvalidDocument;

    /// Parses a document. Unknown fields are ignored, so newer tools may write them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(InvalidDocument::TooLong(text.len()));
        }
        let document: Self =
            serde_json::from_str(text).map_err(|error| InvalidDocument::Malformed(error.to_string()))?;
        match document.version {
            DOCUMENT_VERSION => Ok(document),
            version => Err(InvalidDocument::Version(version)),
        }
    }
}

impl Document {
    /// Checks the document against the deployment's regions.
    ///
    /// # Errors
    /// [`InvalidDocument`] names the first field at fault.
    pub fn validate(&self, regions: &Regions) -> Result<(), InvalidDocument> {
        let known = |field: String, region: &str| match regions.named(region) {
            Some(_) => Ok(()),
            None => Err(InvalidDocument::UnknownRegion { field, region: region.to_owned() }),
        };
        for (region, state) in &self.regions {
            known("regions".to_owned(), region)?;
            if let State::Draining { to } = state {
                known(format!("regions.{region}.to"), to)?;
                if self.successor(to).is_some() || to == region {
                    return Err(InvalidDocument::SuccessorNotActive { region: region.clone(), to: to.clone() });
                }
            }
        }
        Ok(())
    }

    /// The successor of a draining region; `None` for an active one.
    fn successor(&self, region: &str) -> Option<&str> {
        match self.regions.get(region)? {
            State::Active => None,
            State::Draining { to } => Some(to),
        }
    }
}

/// A valid document with its regions: the basis of every routing decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    regions: Regions,
    document: Document,
}

impl Routes {
    /// Validates a document against the regions.
    ///
    /// # Errors
    /// [`InvalidDocument`] names the first field at fault.
    pub fn new(regions: Regions, document: Document) -> Result<Self, InvalidDocument> {
        document.validate(&regions)?;
        Ok(Self { regions, document })
    }

    /// Routes with the default document: no operator has changed anything.
    pub fn undirected(regions: Regions) -> Self {
        Self { regions, document: Document::default() }
    }

    /// The regions.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// The operator's choice of the log.
    pub fn log(&self) -> Override {
        self.document.log
    }

    /// Which path each profile is on; `None` if there is no rollout.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.document.rollout.as_ref()
    }

    /// The region that folds new events of sessions with this home: the home region, or its
    /// successor while it drains. A home outside the deployment is folded here, where its events
    /// arrive.
    pub fn target(&self, home: &Home) -> &Region {
        match self.regions.all().find(|region| region.home == *home) {
            None => &self.regions.here,
            Some(region) => {
                let successor = self.document.successor(&region.name).and_then(|name| self.regions.named(name));
                successor.unwrap_or(region)
            }
        }
    }

    /// The index of `target` among the other regions, and how many there are. Records for one
    /// destination need not wait for records for another.
    pub fn lane(&self, target: &Region) -> (usize, usize) {
        let others = &self.regions.others;
        (others.iter().position(|region| region == target).unwrap_or(0), others.len())
    }

    /// The home of sessions that begin here: this region, or its successor while it drains. Then
    /// new sessions do not need this region.
    pub fn home_of_new_sessions(&self) -> &Home {
        &self.target(&self.regions.here.home).home
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "us-east-1,us-west-2,eu-west-1";

    fn regions() -> Regions {
        Regions::parse("us-east-1", THREE).unwrap()
    }

    fn routes(text: &str) -> Result<Routes, InvalidDocument> {
        Routes::new(regions(), text.parse()?)
    }

    fn home(code: &str) -> Home {
        code.parse().unwrap()
    }

    #[test]
    fn region_list_must_name_this_region_too() {
        let regions = Regions::parse("us-east-1", " us-west-2 , us-east-1,eu-west-1,").unwrap();
        assert_eq!(regions.here().home.as_str(), "use1");
        let others: Vec<&str> = regions.others().iter().map(|region| region.name.as_str()).collect();
        assert_eq!(others, ["eu-west-1", "us-west-2"]);
        assert_eq!(Regions::parse("us-east-1", "").unwrap().others(), []);
        let check = |list: &str, because: &str| {
            let error = Regions::parse("us-east-1", list).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        };
        check("us-west-2", "us-east-1 is missing");
        check("us-east-1,mars", "\"mars\" is not the name of a region");
        check("us-east-1,us-east-1", "have the same code");
    }

    #[test]
    fn sessions_fold_at_home_or_successor_and_unknown_homes_here() {
        let all_active = routes(r#"{"version":1}"#).unwrap();
        let drained = routes(r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"eu-west-1"}}}"#).unwrap();
        let check = |routes: &Routes, code: &str, target: &str| assert_eq!(routes.target(&home(code)).name, target);
        check(&all_active, "use1", "us-east-1");
        check(&all_active, "usw2", "us-west-2");
        check(&drained, "usw2", "eu-west-1");
        check(&drained, "use1", "us-east-1");
        check(&drained, "euw1", "eu-west-1");
        check(&drained, "apse2", "us-east-1");
    }

    #[test]
    fn new_sessions_of_a_draining_region_live_at_its_successor() {
        assert_eq!(routes(r#"{"version":1}"#).unwrap().home_of_new_sessions().as_str(), "use1");
        let drained = routes(r#"{"version":1,"regions":{"us-east-1":{"state":"draining","to":"us-west-2"}}}"#);
        assert_eq!(drained.unwrap().home_of_new_sessions().as_str(), "usw2");
    }

    #[test]
    fn an_invalid_document_names_the_field_at_fault() {
        let check = |text: &str, because: &str| {
            let error = routes(text).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        };
        check("", "not a routing document");
        check("[]", "not a routing document");
        check(r#"{"regions":{}}"#, "missing field `version`");
        check(r#"{"version":2}"#, "`version` is 2; this code knows only 1");
        check(r#"{"version":1,"log":"both"}"#, "both");
        check(r#"{"version":1,"regions":{"us-east-1":{"state":"asleep"}}}"#, "asleep");
        check(r#"{"version":1,"regions":{"us-east-1":{"state":"draining"}}}"#, "to");
        check(r#"{"version":1,"regions":{"us-east-2":{"state":"active"}}}"#, "`regions` names us-east-2");
        let draining = |region: &str, to: &str| format!(r#""{region}":{{"state":"draining","to":"{to}"}}"#);
        let document = |regions: &[String]| format!(r#"{{"version":1,"regions":{{{}}}}}"#, regions.join(","));
        check(&document(&[draining("us-east-1", "mars-1")]), "`regions.us-east-1.to` names mars-1");
        check(&document(&[draining("us-east-1", "us-east-1")]), "which is not an active region");
        let both = [draining("us-east-1", "us-west-2"), draining("us-west-2", "eu-west-1")];
        check(&document(&both), "`regions.us-east-1.to` is us-west-2, which is not an active region");
        check(r#"{"version":1,"rollout":{"salt":"s","async":"25"}}"#, "`rollout.async`");
        check(&format!("{{\"version\":1,\"x\":\"{}\"}}", "y".repeat(MAX_DOCUMENT_BYTES)), "bytes");
    }

    #[test]
    fn unknown_fields_are_ignored_and_defaults_are_not_written() {
        let text = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"eu-west-1"}},"log":"standby","rollout":{"salt":"s","async":"1%","shadow":"2%"}}"#;
        let document: Document = text.replacen('{', r#"{"of_tomorrow":{"a":1},"#, 1).parse().unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        assert_eq!(serde_json::to_string(&Document::default()).unwrap(), r#"{"version":1}"#);
    }
}

//! Where the events of a session go: the regions of a deployment, the routing document by which an operator changes that, and
//! the decision for one session.
//!
//! All events of a session are folded in its home region, which its id names; while that region is draining, in its
//! successor. Whatever this decides, views end the same, since readers join what each region folded: an old document costs
//! a detour, never an event. So a document may be cached, and each region may have another one for a while.
//!
//! It must not fetch anything: who has the document, and how old it may be, is the caller's business.

use crate::rollout::Rollout;
use crate::session::Home;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// The version of the document that this code reads and writes.
pub const DOCUMENT_VERSION: u32 = 1;
/// The longest document, bytes: what SSM Parameter Store takes in its advanced tier.
pub const MAX_DOCUMENT_BYTES: usize = 8 * 1024;

/// An AWS region, and the code by which session ids name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Such as `us-east-1`.
    pub name: String,
    /// Such as `use1`.
    pub home: Home,
}

impl Region {
    /// The region of this name; `None` when the name has not the form of one.
    pub fn named(name: &str) -> Option<Self> {
        Some(Self { name: name.to_owned(), home: Home::of_region(name)? })
    }
}

/// The regions that a deployment is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    here: Region,
    /// Without this one, by name.
    others: Vec<Region>,
}

/// Why a list of regions is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRegions {
    /// A word that is no region's name.
    #[error("{0:?} is not the name of a region, such as us-east-1")]
    Name(String),
    /// One that is there twice, or two that session ids could not tell apart.
    #[error("{0} and {1} have the same code in session ids")]
    Twice(String, String),
    /// The list leaves out the region that it is read in.
    #[error("{0} is missing: the list names this region too")]
    WithoutHere(String),
}

impl Regions {
    /// The regions of `list`, names with commas between them, as seen from the region `here`. An empty list is `here` alone.
    ///
    /// # Errors
    /// [`MalformedRegions`].
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

    /// All others, by name.
    pub fn others(&self) -> &[Region] {
        &self.others
    }

    /// All of them, this one first.
    pub fn all(&self) -> impl Iterator<Item = &Region> {
        std::iter::once(&self.here).chain(&self.others)
    }

    fn named(&self, name: &str) -> Option<&Region> {
        self.all().find(|region| region.name == name)
    }
}

/// What an operator says about the choice between the primary log and its standby.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// How the primary is decides.
    #[default]
    Auto,
    /// The primary only, however it is.
    Primary,
    /// The standby only, however it is.
    Standby,
}

/// What an operator says about a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum State {
    /// It folds its own sessions.
    Active,
    /// Another region folds the new events of its sessions.
    Draining {
        /// That region's name.
        to: String,
    },
}

/// The routing document. What it leaves out is as if nobody had said anything: all regions active, the log chosen by how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`DOCUMENT_VERSION`].
    pub version: u32,
    /// By name; a region that is not here is active.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub regions: BTreeMap<String, State>,
    /// Where `ingest` appends.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub log: Override,
    /// Which live path each profile is on, while a team moves from a legacy system to this one.
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

/// Why a document cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// Longer than [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {0} bytes, at most {MAX_DOCUMENT_BYTES} are taken")]
    TooLong(usize),
    /// Not JSON of the form of a document.
    #[error("not a routing document: {0}")]
    Malformed(String),
    /// Of another version.
    #[error("`version` is {0}, this code knows {DOCUMENT_VERSION}")]
    Version(u32),
    /// A region that the deployment is not in.
    #[error("`{field}` names {region}, which is none of the deployment's regions")]
    UnknownRegion {
        /// Where in the document.
        field: String,
        /// The name.
        region: String,
    },
    /// A successor that is drained itself, or that is the region itself.
    #[error("`regions.{region}.to` is {to}, which is not active: a successor must be another region that is")]
    SuccessorNotActive {
        /// The region that is drained.
        region: String,
        /// Its successor.
        to: String,
    },
}

impl FromStr for Document {
    type Err = InvalidDocument;

    /// Reads a document. Fields that this code does not know are ignored, so that a newer tool may write them.
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
    /// Holds the document against the regions that there are.
    ///
    /// # Errors
    /// [`InvalidDocument`], naming the first field at fault.
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

    /// Where the new events of a region's sessions go while it is drained.
    fn successor(&self, region: &str) -> Option<&str> {
        match self.regions.get(region)? {
            State::Active => None,
            State::Draining { to } => Some(to),
        }
    }
}

/// A valid document, and the regions that it was held against: what decisions are made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    regions: Regions,
    document: Document,
}

impl Routes {
    /// Takes a document for the regions.
    ///
    /// # Errors
    /// [`InvalidDocument`].
    pub fn new(regions: Regions, document: Document) -> Result<Self, InvalidDocument> {
        document.validate(&regions)?;
        Ok(Self { regions, document })
    }

    /// What holds while nobody has said anything.
    pub fn undirected(regions: Regions) -> Self {
        Self { regions, document: Document::default() }
    }

    /// The regions.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// The operator's hand on the choice of the log.
    pub fn log(&self) -> Override {
        self.document.log
    }

    /// Which live path each profile is on; `None` while nobody has said anything.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.document.rollout.as_ref()
    }

    /// The region that folds the new events of sessions of this home: the home, while it is drained its successor. A home
    /// that is none of the deployment's regions is folded where its events come in, rather than sent about.
    pub fn target(&self, home: &Home) -> &Region {
        match self.regions.all().find(|region| region.home == *home) {
            None => &self.regions.here,
            Some(region) => {
                let successor = self.document.successor(&region.name).and_then(|name| self.regions.named(name));
                successor.unwrap_or(region)
            }
        }
    }

    /// Which of the other regions `target` is, and how many there are: what waits for one of them need not hold up what
    /// is for another.
    pub fn lane(&self, target: &Region) -> (usize, usize) {
        let others = &self.regions.others;
        (others.iter().position(|region| region == target).unwrap_or(0), others.len())
    }

    /// The home of sessions that begin here: this region's, or while it is drained its successor's, so that nothing of
    /// them needs this region.
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
    fn regions_are_read_from_a_list_that_names_this_one_too() {
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
    fn a_session_is_folded_at_home_while_that_drains_at_its_successor_and_unknown_ones_here() {
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
    fn sessions_that_begin_in_a_drained_region_are_at_home_in_its_successor() {
        assert_eq!(routes(r#"{"version":1}"#).unwrap().home_of_new_sessions().as_str(), "use1");
        let drained = routes(r#"{"version":1,"regions":{"us-east-1":{"state":"draining","to":"us-west-2"}}}"#);
        assert_eq!(drained.unwrap().home_of_new_sessions().as_str(), "usw2");
    }

    #[test]
    fn a_document_that_cannot_be_followed_says_which_field_is_at_fault() {
        let check = |text: &str, because: &str| {
            let error = routes(text).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        };
        check("", "not a routing document");
        check("[]", "not a routing document");
        check(r#"{"regions":{}}"#, "missing field `version`");
        check(r#"{"version":2}"#, "`version` is 2, this code knows 1");
        check(r#"{"version":1,"log":"both"}"#, "both");
        check(r#"{"version":1,"regions":{"us-east-1":{"state":"asleep"}}}"#, "asleep");
        check(r#"{"version":1,"regions":{"us-east-1":{"state":"draining"}}}"#, "to");
        check(r#"{"version":1,"regions":{"us-east-2":{"state":"active"}}}"#, "`regions` names us-east-2");
        let draining = |region: &str, to: &str| format!(r#""{region}":{{"state":"draining","to":"{to}"}}"#);
        let document = |regions: &[String]| format!(r#"{{"version":1,"regions":{{{}}}}}"#, regions.join(","));
        check(&document(&[draining("us-east-1", "mars-1")]), "`regions.us-east-1.to` names mars-1");
        check(&document(&[draining("us-east-1", "us-east-1")]), "which is not active");
        let both = [draining("us-east-1", "us-west-2"), draining("us-west-2", "eu-west-1")];
        check(&document(&both), "`regions.us-east-1.to` is us-west-2, which is not active");
        check(r#"{"version":1,"rollout":{"salt":"s","async":"25"}}"#, "`rollout.async`");
        check(&format!("{{\"version\":1,\"x\":\"{}\"}}", "y".repeat(MAX_DOCUMENT_BYTES)), "bytes");
    }

    #[test]
    fn fields_of_newer_documents_are_ignored_and_defaults_are_left_out_when_written() {
        let text = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"eu-west-1"}},"log":"standby","rollout":{"salt":"s","async":"1%","shadow":"2%"}}"#;
        let document: Document = text.replacen('{', r#"{"of_tomorrow":{"a":1},"#, 1).parse().unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        assert_eq!(serde_json::to_string(&Document::default()).unwrap(), r#"{"version":1}"#);
    }
}

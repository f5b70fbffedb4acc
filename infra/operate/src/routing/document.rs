//! The document as it passes through an operator's hands: read strictly, written in one form, compared.
//!
//! Functions ignore fields that they do not know, so that a newer tool may write them. From a person's hand such a field is a slip of the
//! pen, and in a document that a newer tool wrote it is something that this one would throw away: so here it is an error.

use anyhow::{Context as _, Result, ensure};
use playback::routing::{Document, InvalidDocument, Override, Regions, Routes, State};
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Reads a document.
///
/// # Errors
/// If functions could not read it, or would ignore a part of it.
pub(crate) fn read(text: &str) -> Result<Document> {
    let document: Document = text.parse()?;
    let unknown = unknown_fields(&serde_json::from_str(text)?, &document)?;
    ensure!(
        unknown.is_empty(),
        "the document has what nobody would follow: {}. Correct it, or use the version of this tool that knows it",
        unknown.join(", ")
    );
    Ok(document)
}

/// The text of a document, as it is written everywhere.
///
/// # Errors
/// If it is too long, or functions could not read it again.
pub(super) fn text(document: &Document) -> Result<String> {
    let text = serde_json::to_string(document)?;
    text.parse::<Document>()?;
    Ok(text)
}

/// The fields of `given` that `document`, which was read from it, does not have.
fn unknown_fields(given: &Value, document: &Document) -> Result<Vec<String>> {
    let mut dropped = Vec::new();
    find_dropped(given, &serde_json::to_value(document)?, "", &mut dropped);
    // What says a default is left out as well when it is written. But it is no field at all if it may be anything.
    let may_be = |pointer: &str, anything: Value| {
        let mut changed = given.clone();
        if let Some(value) = changed.pointer_mut(pointer) {
            *value = anything;
        }
        Document::deserialize(changed).is_ok()
    };
    dropped.retain(|pointer| may_be(pointer, json!(true)) && may_be(pointer, json!("\0")));
    Ok(dropped.into_iter().map(|pointer| format!("`{}`", pointer.trim_start_matches('/').replace('/', "."))).collect())
}

/// The pointers to what `given` has and `kept` has not.
fn find_dropped(given: &Value, kept: &Value, at: &str, dropped: &mut Vec<String>) {
    let (Value::Object(given), Value::Object(kept)) = (given, kept) else { return };
    for (name, value) in given {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        match kept.get(name) {
            Some(kept) => find_dropped(value, kept, &at, dropped),
            None => dropped.push(at),
        }
    }
}

/// Whether two texts are the same document.
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((serde_json::from_str::<Value>(a), serde_json::from_str::<Value>(b)), (Ok(a), Ok(b)) if a == b)
}

/// Where the sessions of a home go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Route {
    /// The home, as session ids name it.
    pub(super) home: String,
    /// Its region.
    pub(super) region: String,
    /// The region that folds its new events.
    pub(super) target: String,
}

/// Where the sessions of each region go, by its name.
///
/// # Errors
/// If the document cannot be followed in these regions.
pub(super) fn routes(document: &Document, regions: &Regions) -> Result<Vec<Route>, InvalidDocument> {
    let routes = Routes::new(regions.clone(), document.clone())?;
    let route = |region: &playback::routing::Region| Route {
        home: region.home.to_string(),
        region: region.name.clone(),
        target: routes.target(&region.home).name.clone(),
    };
    let mut all: Vec<Route> = regions.all().map(route).collect();
    all.sort_by(|a, b| a.region.cmp(&b.region));
    Ok(all)
}

/// The region that a region is drained to, if it is.
pub(super) fn successor<'a>(document: &'a Document, region: &str) -> Option<&'a str> {
    match document.regions.get(region)? {
        State::Active => None,
        State::Draining { to } => Some(to),
    }
}

/// That a region is not one of these.
pub(super) fn not_of<'a>(region: &str, regions: impl Iterator<Item = &'a str>) -> String {
    let regions: Vec<&str> = regions.collect();
    format!("{region} is none of the deployment's regions, which are {}", regions.join(", "))
}

/// An override as it stands in the document.
pub(super) fn name_of(log: Override) -> &'static str {
    match log {
        Override::Auto => "auto",
        Override::Primary => "primary",
        Override::Standby => "standby",
    }
}

/// What the second document says that the first one does not, and the other way round, a line a value: `+ log: "standby"`.
///
/// # Errors
/// Never, for documents that were read.
pub(super) fn difference(before: &Value, after: &Document) -> Result<Vec<String>> {
    let (mut were, mut are) = (BTreeSet::new(), BTreeSet::new());
    values(before, String::new(), &mut were);
    values(&serde_json::to_value(after)?, String::new(), &mut are);
    let gone = were.difference(&are).map(|(at, value)| (at, "-", value));
    let new = are.difference(&were).map(|(at, value)| (at, "+", value));
    let mut lines: Vec<_> = gone.chain(new).collect();
    lines.sort_by_key(|(at, sign, _)| (*at, *sign == "+"));
    Ok(lines.into_iter().map(|(at, sign, value)| format!("{sign} {at}: {value}")).collect())
}

/// All values with their places. What is in a list has no number: the order of our lists says nothing.
fn values(value: &Value, at: String, all: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let dot = if at.is_empty() { "" } else { "." };
            fields.iter().for_each(|(name, value)| values(value, format!("{at}{dot}{name}"), all));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|value| values(value, format!("{at}[]"), all));
        }
        value => drop(all.insert((at, value.to_string()))),
    }
}

/// What has changed from one document to the next, in words.
///
/// # Errors
/// As [`difference`].
pub(super) fn words(before: &Document, after: &Document) -> Result<Vec<String>> {
    let regions: BTreeSet<&String> = before.regions.keys().chain(after.regions.keys()).collect();
    let mut words: Vec<String> = regions
        .into_iter()
        .filter_map(|region| match (successor(before, region), successor(after, region)) {
            (None, Some(to)) => Some(format!("{region} drains to {to}")),
            (Some(_), None) => Some(format!("{region} is active again")),
            (Some(from), Some(to)) if from != to => Some(format!("{region} drains to {to}, no longer to {from}")),
            _ => None,
        })
        .collect();
    if before.log != after.log {
        words.push(format!("log: {} -> {}", name_of(before.log), name_of(after.log)));
    }
    // All else as it stands there.
    let rest = |document: &Document| Document { regions: BTreeMap::new(), log: Override::Auto, ..document.clone() };
    words.extend(difference(&serde_json::to_value(rest(before))?, &rest(after))?);
    Ok(words)
}

/// The sessions that go elsewhere than before: their region, where they went, where they go.
pub(super) fn rerouted<'a>(before: &'a [Route], after: &'a [Route]) -> impl Iterator<Item = (&'a Route, &'a Route)> {
    before.iter().zip(after).filter(|(before, after)| before.target != after.target)
}

/// Holds a document against a deployment.
///
/// # Errors
/// If it cannot be followed there.
pub(super) fn check(document: &Document, regions: &Regions, has_standby: bool) -> Result<Vec<Route>> {
    let routes = routes(document, regions).with_context(|| {
        let names: Vec<&str> = regions.all().map(|region| region.name.as_str()).collect();
        format!("this document cannot be followed: the deployment is in {}", names.join(", "))
    })?;
    ensure!(
        has_standby || document.log != Override::Standby,
        "there is no standby log to choose: the stack has StandbyLog=none"
    );
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> Regions {
        Regions::parse("us-west-2", "us-east-1,us-west-2").unwrap()
    }

    const DRAINED: &str = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"us-east-1"}}}"#;

    #[test]
    fn what_functions_would_ignore_is_refused_and_defaults_that_are_said_are_not() {
        for good in [
            r#"{"version":1}"#,
            r#"{"version":1,"log":"auto","regions":{},"rollout":null}"#,
            r#"{"version":1,"regions":{"us-east-1":{"state":"active"}}}"#,
            r#"{"version":1,"rollout":{"salt":"a","async":"0%","shadow":"0%","always":{}}}"#,
            r#"{"version":1,"rollout":{"salt":"a","async":"25.0%","always":{"legacy":["p1"],"async":[]}}}"#,
            DRAINED,
        ] {
            read(good).unwrap_or_else(|error| panic!("{good}: {error:#}"));
        }
        let check = |text: &str, because: &str| {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(because), "{error}");
        };
        check(r#"{"version":1,"logs":"standby"}"#, "`logs`");
        check(r#"{"version":1,"a":1,"b":{"c":2}}"#, "`a`, `b`");
        check(r#"{"version":1,"regions":{"us-east-1":{"state":"active","to":"us-west-2"}}}"#, "`regions.us-east-1.to`");
        check(
            r#"{"version":1,"regions":{"us-east-1":{"state":"draining","to":"us-west-2","x":1}}}"#,
            "unknown field `x`",
        );
        check(r#"{"version":1,"rollout":{"salt":"a","asynch":"5%"}}"#, "asynch");
        check(r#"{"version":1,"log":"both"}"#, "both");
        check("{", "not a routing document");
    }

    #[test]
    fn routes_are_said_for_every_home_by_its_regions_name() {
        let routes = routes(&read(DRAINED).unwrap(), &regions()).unwrap();
        let route =
            |home: &str, region: &str| Route { home: home.into(), region: region.into(), target: "us-east-1".into() };
        assert_eq!(routes, [route("use1", "us-east-1"), route("usw2", "us-west-2")]);
    }

    #[test]
    fn a_document_that_this_deployment_cannot_follow_is_refused() {
        let check = |text: &str, has_standby: bool, because: &str| {
            let error = format!("{:#}", check(&read(text).unwrap(), &regions(), has_standby).unwrap_err());
            assert!(error.contains(because), "{error}");
        };
        check(r#"{"version":1,"log":"standby"}"#, false, "StandbyLog=none");
        check(&DRAINED.replace("us-west-2", "eu-west-1"), true, "the deployment is in us-west-2, us-east-1");
        check(&DRAINED.replace("us-east-1", "us-west-2"), true, "not active");
    }

    #[test]
    fn differences_are_said_value_by_value_and_changes_in_words() {
        let (none, drained) = (Document::default(), read(DRAINED).unwrap());
        let later = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"eu-west-1"}},"log":"standby",
            "rollout":{"salt":"a","async":"25%","always":{"legacy":["p2","p1"]}}}"#;
        let later = read(later).unwrap();
        let value = |document: &Document| serde_json::to_value(document).unwrap();
        assert_eq!(
            difference(&value(&none), &drained).unwrap(),
            [r#"+ regions.us-west-2.state: "draining""#, r#"+ regions.us-west-2.to: "us-east-1""#]
        );
        assert_eq!(
            difference(&value(&later), &drained).unwrap()[..4],
            [
                r#"- log: "standby""#,
                r#"- regions.us-west-2.to: "eu-west-1""#,
                r#"+ regions.us-west-2.to: "us-east-1""#,
                r#"- rollout.always.legacy[]: "p1""#,
            ]
        );
        let check = |before: &Document, after: &Document, expect: &[&str]| {
            assert_eq!(words(before, after).unwrap()[..expect.len()], *expect);
        };
        check(&none, &drained, &["us-west-2 drains to us-east-1"]);
        check(&drained, &none, &["us-west-2 is active again"]);
        let changed = ["us-west-2 drains to eu-west-1, no longer to us-east-1", "log: auto -> standby"];
        check(&drained, &later, &[changed[0], changed[1], r#"+ rollout.always.legacy[]: "p1""#]);
        assert_eq!(words(&later, &later).unwrap(), [""; 0]);
    }

    #[test]
    fn the_same_document_in_another_layout_is_the_same() {
        assert!(same(DRAINED, &DRAINED.replace(',', " ,\n")));
        assert!(!same(DRAINED, r#"{"version":1}"#));
        assert!(same("{", "{") && !same("{", "["));
    }
}

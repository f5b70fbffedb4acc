//! The document as an operator handles it: read strictly, written in one form, compared.
//!
//! Functions ignore unknown fields, so that a newer tool may write them. Here an unknown field is
//! an error. If a person wrote it, it is a typo. If a newer tool wrote it, this tool would lose it.

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
        "the document has fields that nothing would follow: {}. Correct it, or use a version of this tool that knows them",
        unknown.join(", ")
    );
    Ok(document)
}

/// The text of a document, as it is written everywhere.
///
/// # Errors
/// If it is too long, or functions could not read it.
pub(super) fn text(document: &Document) -> Result<String> {
    let text = serde_json::to_string(document)?;
    text.parse::<Document>()?;
    Ok(text)
}

/// The fields of `given` that are missing in `document`, which was parsed from it.
fn unknown_fields(given: &Value, document: &Document) -> Result<Vec<String>> {
    let mut dropped = Vec::new();
    find_dropped(given, &serde_json::to_value(document)?, "", &mut dropped);
    // Default values are dropped too. But a known field does not accept every value, and an unknown
    // one does.
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

/// Collects the pointers to the fields of `given` that `kept` does not have.
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

/// Where the sessions of a home region go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Route {
    /// The home's code in session ids.
    pub(super) home: String,
    /// Its region.
    pub(super) region: String,
    /// The region that folds its new events.
    pub(super) target: String,
}

/// Where the sessions of each region go, sorted by region.
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

/// The region that this region is drained to, if it is draining.
pub(super) fn successor<'a>(document: &'a Document, region: &str) -> Option<&'a str> {
    match document.regions.get(region)? {
        State::Active => None,
        State::Draining { to } => Some(to),
    }
}

/// The message that a region is not one of these.
pub(super) fn not_of<'a>(region: &str, regions: impl Iterator<Item = &'a str>) -> String {
    let regions: Vec<&str> = regions.collect();
    format!("{region} is not one of the deployment's regions: {}", regions.join(", "))
}

/// An override as the document spells it.
pub(super) fn name_of(log: Override) -> &'static str {
    match log {
        Override::Auto => "auto",
        Override::Primary => "primary",
        Override::Standby => "standby",
    }
}

/// The values that only one of the two documents has, one line per value: `+ log: "standby"`.
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

/// Collects all values with their paths. List items have no index, since the order of our lists has
/// no meaning.
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

/// The changes from one document to the next, in words.
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
    // Everything else, value by value.
    let rest = |document: &Document| Document { regions: BTreeMap::new(), log: Override::Auto, ..document.clone() };
    words.extend(difference(&serde_json::to_value(rest(before))?, &rest(after))?);
    Ok(words)
}

/// The routes whose target changes: before and after.
pub(super) fn rerouted<'a>(before: &'a [Route], after: &'a [Route]) -> impl Iterator<Item = (&'a Route, &'a Route)> {
    before.iter().zip(after).filter(|(before, after)| before.target != after.target)
}

/// Checks a document against a deployment, and returns its routes.
///
/// # Errors
/// If the deployment cannot follow it.
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
    fn fields_that_functions_ignore_are_refused() {
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
    fn routes_cover_every_home_in_order_of_region() {
        let routes = routes(&read(DRAINED).unwrap(), &regions()).unwrap();
        let route =
            |home: &str, region: &str| Route { home: home.into(), region: region.into(), target: "us-east-1".into() };
        assert_eq!(routes, [route("use1", "us-east-1"), route("usw2", "us-west-2")]);
    }

    #[test]
    fn document_that_the_deployment_cannot_follow_is_refused() {
        let check = |text: &str, has_standby: bool, because: &str| {
            let error = format!("{:#}", check(&read(text).unwrap(), &regions(), has_standby).unwrap_err());
            assert!(error.contains(because), "{error}");
        };
        check(r#"{"version":1,"log":"standby"}"#, false, "StandbyLog=none");
        check(&DRAINED.replace("us-west-2", "eu-west-1"), true, "the deployment is in us-west-2, us-east-1");
        check(
            &DRAINED.replace("us-east-1", "us-west-2"),
            true,
            "`regions.us-west-2.to` is us-west-2, which is not an active region",
        );
    }

    #[test]
    fn differences_are_listed_by_value_and_changes_in_words() {
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
    fn formatting_makes_no_different_document() {
        assert!(same(DRAINED, &DRAINED.replace(',', " ,\n")));
        assert!(!same(DRAINED, r#"{"version":1}"#));
        assert!(same("{", "{") && !same("{", "["));
    }
}

//! The layout of keys and views in items.

use crate::table::{Fault, Stored};
use aws_sdk_dynamodb::types::AttributeValue;
use playback::fold::ViewKey;
use playback::history::{Marks, Row, WatchedMark};
use playback::session::{Home, SessionId, parse_ulid};
use playback::view::{UnreadableView, View};
use std::collections::HashMap;
use ulid::Ulid;

/// An item of the SDK.
pub(super) type Item = HashMap<String, AttributeValue>;

/// Sorts after every session and before every mark: no ULID begins with `~`.
pub(super) const AFTER_SESSIONS: &str = "~";
/// Sorts after every mark.
pub(super) const AFTER_MARKS: &str = "~~";
/// The sort key of the mark of an erasure.
pub(super) const ERASED: &str = "~erased";
/// Sorts after `~erased` and `~forgotten#…`, and before `~watched#…`.
pub(super) const BEFORE_WATCHED: &str = "~g";
pub(super) const HIDDEN: &str = "~hidden";
pub(super) const FORGOTTEN: &str = "~forgotten";
pub(super) const WATCHED: &str = "~watched";

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The sort key under which the region `writer` folds a view: `<ULID>#<home>#~<title>` at home, with
/// the writer before the title elsewhere.
///
/// The first release wrote `<ULID>#<home>` and `<ULID>#<home>#<writer>`, one item for all titles of
/// a session. Both kinds of item are read and joined, and each is written by one release only, so
/// neither can lose what the other wrote.
pub(super) fn view_sk(key: &ViewKey, writer: &Home) -> String {
    let ViewKey { session_id: SessionId { ulid, home }, title_id, .. } = key;
    if home == writer { format!("{ulid}#{home}#~{title_id}") } else { format!("{ulid}#{home}#{writer}#~{title_id}") }
}

/// The sort key of the register that hides a session.
pub(super) fn hidden_sk(session: Ulid) -> String {
    format!("{session}#{HIDDEN}")
}

/// The sort key of the register that forgets a session, or one title of it.
pub(super) fn forgotten_session_sk(session: Ulid, title_id: Option<&str>) -> String {
    match title_id {
        None => format!("{session}#{FORGOTTEN}"),
        Some(title_id) => format!("{session}#{FORGOTTEN}#{title_id}"),
    }
}

/// The sort key of the register that forgets a title.
pub(super) fn forgotten_title_sk(title_id: &str) -> String {
    format!("{FORGOTTEN}#{title_id}")
}

/// The sort key of the register that marks a title as watched or not.
pub(super) fn watched_sk(title_id: &str) -> String {
    format!("{WATCHED}#{title_id}")
}

pub(super) fn primary_key(profile_id: &str, sk: impl Into<String>) -> Item {
    HashMap::from([("pk".to_owned(), text(profile_id)), ("sk".to_owned(), text(sk))])
}

pub(super) fn get_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str)
}

pub(super) fn get_number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// Reads a view's item.
pub(super) fn stored(item: &Item) -> Result<Stored, Fault> {
    let corrupt = |what: &str| UnreadableView::Corrupt(what.to_owned());
    let version = get_number(item, "version").ok_or_else(|| corrupt("version"))?;
    let packed = item.get("view").and_then(|value| value.as_b().ok()).ok_or_else(|| corrupt("view"))?;
    Ok(Stored { view: View::unpack(packed.as_ref())?, version })
}

/// Reads a row of a session.
pub(super) fn row(item: &Item) -> Result<(Ulid, Row), Fault> {
    let corrupt = |what: &str| UnreadableView::Corrupt(what.to_owned());
    let (ulid, rest) = get_text(item, "sk").and_then(|sk| sk.split_once('#')).ok_or_else(|| corrupt("sk"))?;
    let ulid = parse_ulid(ulid).ok_or_else(|| corrupt("sk"))?;
    if rest == HIDDEN {
        let hidden = item.get("hidden").and_then(|value| value.as_bool().ok()).ok_or_else(|| corrupt("hidden"))?;
        return Ok((ulid, Row::Hidden(*hidden)));
    }
    if let Some(rest) = rest.strip_prefix(FORGOTTEN) {
        return Ok((ulid, Row::Forgotten(rest.strip_prefix('#').map(str::to_owned))));
    }
    // What follows the home concerns the writer: the view says its title.
    let home = rest.split('#').next().unwrap_or(rest).parse().map_err(|_| corrupt("sk"))?;
    Ok((ulid, Row::Part { home, view: Box::new(stored(item)?.view) }))
}

/// Adds a mark of the profile.
pub(super) fn add_mark(item: &Item, marks: &mut Marks) -> Result<(), Fault> {
    let corrupt = |what: &str| UnreadableView::Corrupt(what.to_owned());
    let sk = get_text(item, "sk").ok_or_else(|| corrupt("sk"))?;
    let time = |name: &str| get_number(item, name).ok_or_else(|| corrupt(name));
    match sk.split_once('#') {
        None if sk == ERASED => marks.erased_at = Some(time("erased_at")?),
        Some((FORGOTTEN, title_id)) => {
            marks.forgotten.insert(title_id.to_owned(), time("forgotten_at")?);
        }
        Some((WATCHED, title_id)) => {
            let watched = item.get("watched").and_then(|value| value.as_bool().ok());
            let watched = *watched.ok_or_else(|| corrupt("watched"))?;
            marks.watched.insert(title_id.to_owned(), WatchedMark { watched, at: time("changed_at")? });
        }
        _ => return Err(corrupt("sk").into()),
    }
    Ok(())
}

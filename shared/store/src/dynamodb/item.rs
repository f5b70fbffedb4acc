//! The layout of keys and views in items.

use crate::table::{Fault, Stored};
use aws_sdk_dynamodb::types::AttributeValue;
use playback::fold::ViewKey;
use playback::history::Row;
use playback::session::{Home, SessionId, parse_ulid};
use playback::view::{UnreadableView, View};
use std::collections::HashMap;
use ulid::Ulid;

/// An item of the SDK.
pub(super) type Item = HashMap<String, AttributeValue>;

/// Sorts after every session and before `~erased`: no ULID begins with `~`.
pub(super) const AFTER_SESSIONS: &str = "~";
/// The sort key of the mark of an erasure.
pub(super) const ERASED: &str = "~erased";
const HIDDEN: &str = "~hidden";

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The sort key under which the region `writer` folds a session: the view if the session is at home
/// there, else a part.
pub(super) fn view_sk(session: &SessionId, writer: &Home) -> String {
    let SessionId { ulid, home } = session;
    if home == writer { format!("{ulid}#{home}") } else { format!("{ulid}#{home}#{writer}") }
}

/// The sort key of the register that hides a session.
pub(super) fn hidden_sk(session: &SessionId) -> String {
    format!("{}#{HIDDEN}", session.ulid)
}

/// The primary key of a view.
pub(super) fn view_key(key: &ViewKey, writer: &Home) -> Item {
    primary_key(&key.profile_id, view_sk(&key.session_id, writer))
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
    // `<home>`, or `<home>#<writer>` for a part that another region folded.
    let home = rest.split('#').next().unwrap_or(rest).parse().map_err(|_| corrupt("sk"))?;
    Ok((ulid, Row::Part { home, view: stored(item)?.view }))
}

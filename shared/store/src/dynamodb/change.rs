//! What a record of the table's stream says: which item changed, and what it was before and after.
//!
//! The form of a record: "StreamRecord" in the API reference of DynamoDB Streams, as Lambda passes
//! it on. Attributes that this code does not need are not read, so newer ones do no harm.

use super::item::{ERASED, FORGOTTEN, HIDDEN, WATCHED};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playback::contract::MAX_INSTANT;
use playback::session::{Home, SessionId, parse_ulid};
use playback::view::{UnreadableView, View};
use serde::Deserialize;
use ulid::Ulid;

/// A change of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The record's id: the same each time that the record is delivered.
    pub id: String,
    /// The record's number. A later change of an item has a greater one, compared as a number.
    pub sequence_number: String,
    /// When the item was written, Unix milliseconds. AWS rounds it to the second.
    pub at: u64,
    /// The profile that the item belongs to.
    pub profile_id: String,
    /// What changed.
    pub what: Changed,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A view, or the part of one that a region folds, was written or deleted.
    View {
        /// The session.
        session_id: SessionId,
        /// The item's sort key.
        sk: String,
        /// The view before; `None` if it is new.
        old: Option<Box<View>>,
        /// The view after; `None` if it was deleted, which only an erasure does.
        new: Option<Box<View>>,
    },
    /// The member hid a session, or shows it again. The register does not say the session's home.
    Hidden {
        /// The session.
        session: Ulid,
        /// Whether it is hidden now.
        hidden: bool,
    },
    /// The member forgot a session, or one title of it.
    SessionForgotten {
        /// The session.
        session: Ulid,
        /// The title, if not the whole session.
        title_id: Option<String>,
    },
    /// The member forgot a title.
    TitleForgotten {
        /// The title.
        title_id: String,
        /// Up to when, Unix milliseconds.
        up_to: u64,
    },
    /// The member marked a title as watched or not watched.
    Watched {
        /// The title.
        title_id: String,
        /// Whether it counts as watched.
        watched: bool,
        /// When they said so, Unix milliseconds.
        changed_at: u64,
    },
    /// The member erased everything.
    Erased {
        /// Up to when, Unix milliseconds.
        up_to: u64,
    },
    /// A register was deleted, which follows an erasure that was told already.
    Nothing,
}

/// Why a record of the stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableChange {
    /// It does not have the form of a record, or its item not the form of ours.
    #[error("not a change of a view or a register: {0}")]
    Malformed(String),
    /// The view in it cannot be read.
    #[error(transparent)]
    View(#[from] UnreadableView),
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventID")]
    event_id: String,
    dynamodb: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    /// Unix seconds.
    approximate_creation_date_time: f64,
    keys: Keys,
    old_image: Option<Image>,
    new_image: Option<Image>,
    sequence_number: String,
}

#[derive(Deserialize)]
struct Keys {
    pk: Text,
    sk: Text,
}

/// The attributes of views and registers.
#[derive(Deserialize)]
struct Image {
    view: Option<Binary>,
    hidden: Option<Flag>,
    watched: Option<Flag>,
    changed_at: Option<Number>,
    forgotten_at: Option<Number>,
    erased_at: Option<Number>,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "S")]
    text: String,
}

#[derive(Deserialize)]
struct Number {
    #[serde(rename = "N")]
    digits: String,
}

#[derive(Deserialize)]
struct Flag {
    #[serde(rename = "BOOL")]
    is: bool,
}

#[derive(Deserialize)]
struct Binary {
    #[serde(rename = "B")]
    base64: String,
}

impl Change {
    /// Reads a record of the stream, JSON.
    ///
    /// # Errors
    /// When it is not one, or its view cannot be read.
    pub fn read(record: &[u8]) -> Result<Self, UnreadableChange> {
        let record: Record =
            serde_json::from_slice(record).map_err(|error| UnreadableChange::Malformed(error.to_string()))?;
        let Data { approximate_creation_date_time, keys, old_image, new_image, sequence_number } = record.dynamodb;
        let what = Changed::of(keys.sk.text, old_image, new_image)?;
        let at = approximate_creation_date_time * 1_000.0;
        if !(0.0..=MAX_INSTANT as f64).contains(&at) {
            return Err(malformed("its time"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
        let at = at as u64;
        Ok(Self { id: record.event_id, sequence_number, at, profile_id: keys.pk.text, what })
    }
}

impl Changed {
    fn of(sk: String, old: Option<Image>, new: Option<Image>) -> Result<Self, UnreadableChange> {
        match sk.split('#').collect::<Vec<_>>()[..] {
            [ERASED] => register(new, |image| Some(Self::Erased { up_to: time(image.erased_at)? })),
            [FORGOTTEN, title_id] => register(new, |image| {
                Some(Self::TitleForgotten { title_id: title_id.to_owned(), up_to: time(image.forgotten_at)? })
            }),
            [WATCHED, title_id] => register(new, |image| {
                let (watched, changed_at) = (image.watched?.is, time(image.changed_at)?);
                Some(Self::Watched { title_id: title_id.to_owned(), watched, changed_at })
            }),
            [session, HIDDEN] => {
                let session = ulid(session)?;
                register(new, |image| Some(Self::Hidden { session, hidden: image.hidden?.is }))
            }
            [session, FORGOTTEN] => {
                let session = ulid(session)?;
                register(new, |_| Some(Self::SessionForgotten { session, title_id: None }))
            }
            [session, FORGOTTEN, title_id] => {
                let session = ulid(session)?;
                register(new, |_| Some(Self::SessionForgotten { session, title_id: Some(title_id.to_owned()) }))
            }
            [session, home, ..] => {
                let home: Home = home.parse().map_err(|_| malformed("the home in its key"))?;
                let session_id = SessionId { ulid: ulid(session)?, home };
                let (old, new) = (old.map(view).transpose()?, new.map(view).transpose()?);
                Ok(Self::View { session_id, sk, old, new })
            }
            _ => Err(malformed("its key")),
        }
    }
}

/// Reads a register; one that was deleted says nothing.
fn register(image: Option<Image>, read: impl FnOnce(Image) -> Option<Changed>) -> Result<Changed, UnreadableChange> {
    image.map_or(Ok(Changed::Nothing), |image| read(image).ok_or_else(|| malformed("its register")))
}

fn view(image: Image) -> Result<Box<View>, UnreadableChange> {
    let corrupt = || UnreadableView::Corrupt("view".to_owned());
    let packed = image.view.and_then(|view| BASE64_STANDARD.decode(view.base64).ok()).ok_or_else(corrupt)?;
    Ok(Box::new(View::unpack(&packed)?))
}

fn ulid(text: &str) -> Result<Ulid, UnreadableChange> {
    parse_ulid(text).ok_or_else(|| malformed("the session in its key"))
}

fn time(number: Option<Number>) -> Option<u64> {
    number?.digits.parse().ok()
}

fn malformed(what: &str) -> UnreadableChange {
    UnreadableChange::Malformed(format!("{what} cannot be read"))
}

#[cfg(test)]
mod tests;

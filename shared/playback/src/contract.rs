//! The words and limits of the contract with players: what an event is, and how large anything may be.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Events in one request.
pub const MAX_EVENTS: usize = 500;
/// Bytes of a request's body as sent.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Bytes of a request's body after decompression: as many times the plain limit as 500 events with
/// fields we do not know could need, and far below what a gzip bomb wants.
pub const MAX_DECOMPRESSED_BYTES: usize = 1024 * 1024;
/// The greatest sequence number; it bounds a session's item well below DynamoDB's 400 KB.
pub const MAX_SEQ: u64 = 65_535;
/// The longest title: seven days, in milliseconds.
pub const MAX_TITLE_DURATION_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// The greatest instant that any clock may claim: the end of the year 9999, Unix milliseconds.
pub const MAX_INSTANT: u64 = 253_402_300_799_999;
/// Bytes of a profile, title or device id.
pub const MAX_ID_BYTES: usize = 64;
/// Bytes of a device kind.
pub const MAX_DEVICE_KIND_BYTES: usize = 32;

/// What happened in the player.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Playback began.
    Started,
    /// A regular report while playing.
    Progressed,
    /// Playback was paused.
    Paused,
    /// Playback went on after a pause.
    Resumed,
    /// The member jumped to another position.
    Seeked,
    /// Playback ended.
    Stopped,
}

impl Kind {
    /// All kinds, in the order of the contract.
    pub const ALL: [Kind; 6] =
        [Kind::Started, Kind::Progressed, Kind::Paused, Kind::Resumed, Kind::Seeked, Kind::Stopped];

    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Started => "started",
            Kind::Progressed => "progressed",
            Kind::Paused => "paused",
            Kind::Resumed => "resumed",
            Kind::Seeked => "seeked",
            Kind::Stopped => "stopped",
        }
    }

    /// The kind that `word` names, if it is one of the contract's.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The device that sent an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The player's own id of the device.
    pub id: String,
    /// `tv`, `phone`, `tablet`, … : the player's word.
    pub kind: String,
}

/// An ISO 3166-1 alpha-2 country code: two upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// A text that is no country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an ISO 3166-1 alpha-2 code, two upper-case letters")]
pub struct MalformedCountry;

impl FromStr for Country {
    type Err = MalformedCountry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok(Self([*a, *b])),
            _ => Err(MalformedCountry),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&letter| write!(f, "{}", char::from(letter)))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One validated event of a session; which session, profile and title it belongs to is said by what holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts from 0 inside the session.
    pub seq: u16,
    /// What happened.
    pub kind: Kind,
    /// Where the player stands in the title, milliseconds; at most `title_duration_ms`.
    pub position_ms: u64,
    /// Played without a break up to `position_ms`, milliseconds; at most `position_ms`.
    pub played_ms: u64,
    /// The title's length, milliseconds, 1 to [`MAX_TITLE_DURATION_MS`].
    pub title_duration_ms: u64,
    /// The device's clock, Unix milliseconds; kept, never trusted.
    pub occurred_at: u64,
    /// Shared, since nearly all events of a request come from one device.
    pub device: Arc<Device>,
    /// Where the device was, if the player says so.
    pub country: Option<Country>,
}

/// Whether `text` can be a profile, title or device id: 1 to [`MAX_ID_BYTES`] letters, digits, `_`, `-`, `.` or `:`,
/// a letter or digit first, so that it is safe in a path, a key and a log.
pub fn is_id(text: &str) -> bool {
    is_token(text, MAX_ID_BYTES)
}

/// Whether `text` can be a device kind: as [`is_id`], up to [`MAX_DEVICE_KIND_BYTES`].
pub fn is_device_kind(text: &str) -> bool {
    is_token(text, MAX_DEVICE_KIND_BYTES)
}

fn is_token(text: &str, max_bytes: usize) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= max_bytes
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}

/// Whether a position counts as the whole title watched: at least 95% of its length.
pub fn is_completed(position_ms: u64, title_duration_ms: u64) -> bool {
    u128::from(position_ms) * 100 >= u128::from(title_duration_ms) * 95
}

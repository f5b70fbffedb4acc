//! The contract with players: what an event is, and how large anything may be.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Maximum number of events in one request.
pub const MAX_EVENTS: usize = 500;
/// Maximum size of a request body as sent, bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Maximum size of a request body after decompression, bytes. It leaves ample room for 500 events
/// with fields we do not know, and stops a gzip bomb early.
pub const MAX_DECOMPRESSED_BYTES: usize = 1024 * 1024;
/// The greatest sequence number; it bounds a session's item well below DynamoDB's 400 KB.
pub const MAX_SEQ: u64 = 65_535;
/// The longest title: seven days, in milliseconds.
pub const MAX_TITLE_DURATION_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// The latest time that any clock may claim: the end of the year 9999, Unix milliseconds.
pub const MAX_INSTANT: u64 = 253_402_300_799_999;
/// Maximum length of a profile, title or device id, bytes.
pub const MAX_ID_BYTES: usize = 64;
/// Maximum length of a device kind, bytes.
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
    /// Playback continued after a pause.
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

    /// The word used in the contract.
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

    /// Parses a word of the contract.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The device that sent an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The player's id for the device.
    pub id: String,
    /// The player's word: `tv`, `phone`, `tablet`, …
    pub kind: String,
}

/// An ISO 3166-1 alpha-2 country code: two upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// Not a country code.
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

/// One validated event. Its container says which session, profile and title it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts from 0 inside the session.
    pub seq: u16,
    /// What happened.
    pub kind: Kind,
    /// Position in the title, milliseconds; at most `title_duration_ms`.
    pub position_ms: u64,
    /// Time played without a break up to `position_ms`, milliseconds; at most `position_ms`.
    pub played_ms: u64,
    /// The title's length, milliseconds, 1 to [`MAX_TITLE_DURATION_MS`].
    pub title_duration_ms: u64,
    /// The device's clock, Unix milliseconds; kept, never trusted.
    pub occurred_at: u64,
    /// Shared, because nearly all events of a request come from one device.
    pub device: Arc<Device>,
    /// Where the device was, if known.
    pub country: Option<Country>,
}

/// Whether `text` is a valid profile, title or device id: 1 to [`MAX_ID_BYTES`] letters, digits,
/// `_`, `-`, `.` or `:`, starting with a letter or digit. Such an id is safe in a path, a key and a
/// log.
pub fn is_id(text: &str) -> bool {
    is_token(text, MAX_ID_BYTES)
}

/// Whether `text` is a valid device kind: the rules of [`is_id`], up to [`MAX_DEVICE_KIND_BYTES`].
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

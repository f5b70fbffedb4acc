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
/// The greatest position, milliseconds: a live stream may count from 1970.
pub const MAX_POSITION_MS: u64 = MAX_INSTANT;
/// Maximum length of a profile, title or device id, bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Maximum length of a device kind, bytes.
pub const MAX_DEVICE_KIND_BYTES: usize = 32;
/// Maximum number of ranges in a view's `seen` and in its `played`. Far above any real player, which
/// leaves a handful of each; it bounds what one session costs to read and to write.
pub const MAX_RANGES: usize = 2_000;

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

/// The device that sent an event, as far as it said.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The player's id for the device: an [`is_id`].
    pub id: Option<String>,
    /// The player's word: `tv`, `phone`, `tablet`, …: an [`is_device_kind`].
    pub kind: Option<String>,
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
    /// Position in the title, milliseconds; at most [`MAX_POSITION_MS`]. It may be past the end,
    /// and then means the end.
    pub position_ms: u64,
    /// Title time played without a break up to `position_ms`, milliseconds; at most `position_ms`.
    pub played_ms: u64,
    /// The title's length, milliseconds, 1 to [`MAX_TITLE_DURATION_MS`]. `None`: live, or not known
    /// yet.
    pub title_duration_ms: Option<u64>,
    /// Where the closing credits begin, milliseconds, if the player knows.
    pub credits_ms: Option<u64>,
    /// The device's clock, Unix milliseconds, if stated. Only [`crate::view`] reads it, corrected by
    /// the skew of the request.
    pub occurred_at: Option<u64>,
    /// Shared, because nearly all events of a request come from one device.
    pub device: Arc<Device>,
    /// Where the device was, if known.
    pub country: Option<Country>,
}

/// The rule of [`is_id`], for messages.
pub const ID_RULE: &str = "must be 1 to 128 of the characters A-Z a-z 0-9 - . _ ~ : / @ ! $ & ' ( ) * + ; = \
                           and must not begin with ~, nor be . or ..";

/// Whether `text` is a valid profile, title or device id: see [`ID_RULE`]. These are the characters
/// of a URI (RFC 3986, 2) that need no meaning of their own in our keys, paths and lists, so that
/// UUIDs, base64, base64url, URNs, CRIDs and EIDRs fit. `%` is left out, since paths are decoded
/// twice (see `lambda::route`).
pub fn is_id(text: &str) -> bool {
    let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:/@!$&'()*+;=".contains(b);
    let is_dots = matches!(text, "." | "..");
    (1..=MAX_ID_BYTES).contains(&text.len())
        && !text.starts_with('~')
        && !is_dots
        && text.bytes().all(|b| is_allowed(&b))
}

/// Whether `text` is a valid device kind: 1 to [`MAX_DEVICE_KIND_BYTES`] letters, digits, `_`, `-`,
/// `.` or `:`, starting with a letter or digit.
pub fn is_device_kind(text: &str) -> bool {
    is_token(text, MAX_DEVICE_KIND_BYTES)
}

/// The rule that earlier releases applied to all ids and to device kinds.
pub(crate) fn is_token(text: &str, max_bytes: usize) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= max_bytes
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}

/// The device kind that `text` means: other characters become `-`, and it is cut to
/// [`MAX_DEVICE_KIND_BYTES`]. `None` if nothing is left.
pub fn normal_device_kind(text: &str) -> Option<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':')));
    let joined = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let mut kind: String = joined.trim_start_matches(['_', '.', ':', '-']).to_owned();
    kind.truncate(MAX_DEVICE_KIND_BYTES);
    is_device_kind(&kind).then_some(kind)
}

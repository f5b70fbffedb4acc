//! What a player writes: the edge event of the contract, seen from the device's side.
//!
//! It is deliberately looser than the server's type (signed numbers, free text, an optional profile), since
//! a simulator must also be able to say what the contract forbids.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One event as it stands in the JSON of a POST. Fields have the order and the names of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeEvent {
    /// `<home>-<ULID>`.
    pub session_id: String,
    /// Who watches; absent only in a malformed event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_id: Option<String>,
    /// What is watched.
    pub title_id: String,
    /// Counts from 0 inside the session.
    pub seq: i64,
    /// `started`, `progressed`, `paused`, `resumed`, `seeked` or `stopped`.
    pub kind: Cow<'static, str>,
    /// Where the player stands, milliseconds from the title's beginning.
    pub position_ms: i64,
    /// Played without a break up to `position_ms` since the event before it, milliseconds; absent when 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub played_ms: i64,
    /// The title's length, milliseconds.
    pub title_duration_ms: i64,
    /// The device's clock, Unix milliseconds.
    pub occurred_at: i64,
    /// What plays.
    pub device: Device,
    /// ISO 3166-1 alpha-2.
    pub country: Cow<'static, str>,
}

/// The device of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Stable for one device.
    pub id: String,
    /// `tv`, `phone`, `tablet`, `web`, …
    pub kind: Cow<'static, str>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

//! The edge event of the contract, as the device writes it.
//!
//! It is deliberately looser than the server's type (signed numbers, free text, an optional
//! profile): the simulator must also be able to break the contract.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One event in the JSON of a POST. Fields have the contract's names and order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeEvent {
    /// `<home>-<ULID>`.
    pub session_id: String,
    /// Who watches. Absent only in a malformed event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_id: Option<String>,
    /// What is watched.
    pub title_id: String,
    /// Counts from 0 within the session.
    pub seq: i64,
    /// `started`, `progressed`, `paused`, `resumed`, `seeked` or `stopped`.
    pub kind: Cow<'static, str>,
    /// The player's position, milliseconds from the start of the title.
    pub position_ms: i64,
    /// Played without a break up to `position_ms` since the previous event, milliseconds. Absent
    /// when 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub played_ms: i64,
    /// The title's length, milliseconds.
    pub title_duration_ms: i64,
    /// The device's clock, Unix milliseconds.
    pub occurred_at: i64,
    /// The device that plays.
    pub device: Device,
    /// ISO 3166-1 alpha-2.
    pub country: Cow<'static, str>,
}

/// A device.
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

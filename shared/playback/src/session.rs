//! Session ids: `<home>-<ULID>`, e.g. `use1-01JD7X9K3M4N5P6Q7R8S9T0V1W`. The home is the short code
//! of the region where the session began. The ULID carries its start time. So neither the home
//! region nor the history's order needs a look-up.

use std::fmt;
use std::str::FromStr;
use ulid::Ulid;

/// The short code of a session's home region, e.g. `use1`: two to eight lower-case letters and
/// digits, starting with a letter and ending with a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home(String);

/// The id of one viewing session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// Carries the start time, and sorts the history.
    pub ulid: Ulid,
    /// The region that folds its events.
    pub home: Home,
}

/// Not a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be <home>-<ULID>, for example use1-01JD7X9K3M4N5P6Q7R8S9T0V1W")]
pub struct MalformedSessionId;

impl Home {
    /// The home code of an AWS region: `us-east-1` → `use1`, `ap-southeast-2` → `apse2`,
    /// `us-gov-west-1` → `usgw1`. `None` when the name is not a region's.
    pub fn of_region(region: &str) -> Option<Self> {
        let mut code = String::with_capacity(8);
        let mut parts = region.split('-').peekable();
        code.push_str(parts.next()?);
        while let Some(part) = parts.next() {
            code.push_str(match part {
                "northeast" => "ne",
                "northwest" => "nw",
                "southeast" => "se",
                "southwest" => "sw",
                other if parts.peek().is_none() => other,
                other => other.get(..1)?,
            });
        }
        code.parse().ok()
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Home {
    type Err = MalformedSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let well_formed = (2..=8).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().is_some_and(u8::is_ascii_digit);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(MalformedSessionId) }
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SessionId {
    /// Mints the id of a session that begins at `started_at` (Unix milliseconds, low 48 bits), with
    /// 80 bits of randomness (the low bits of `random`).
    pub fn mint(home: Home, started_at: u64, random: u128) -> Self {
        Self { ulid: Ulid::from_parts(started_at, random), home }
    }

    /// The start time that the id carries, Unix milliseconds.
    pub fn started_at(&self) -> u64 {
        self.ulid.timestamp_ms()
    }
}

impl FromStr for SessionId {
    type Err = MalformedSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (home, ulid) = text.split_once('-').ok_or(MalformedSessionId)?;
        let home = home.parse()?;
        let ulid = parse_ulid(ulid).ok_or(MalformedSessionId)?;
        Ok(Self { ulid, home })
    }
}

/// Parses only the canonical text of a ULID. The `ulid` crate also accepts lower case and the
/// letters that Crockford's base 32 reads as digits, but a session must have one spelling.
pub fn parse_ulid(text: &str) -> Option<Ulid> {
    let ulid = Ulid::from_string(text).ok()?;
    let mut canonical = [0; ulid::ULID_LEN];
    (ulid.array_to_str(&mut canonical) == text).then_some(ulid)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.home, self.ulid)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn home_codes_of_regions() {
        let check = |region: &str, code: Option<&str>| {
            assert_eq!(Home::of_region(region).as_ref().map(Home::as_str), code, "{region}");
        };
        check("us-east-1", Some("use1"));
        check("us-west-2", Some("usw2"));
        check("eu-central-1", Some("euc1"));
        check("ap-southeast-2", Some("apse2"));
        check("ap-northeast-1", Some("apne1"));
        check("us-gov-west-1", Some("usgw1"));
        check("", None);
        check("mars", None);
    }

    #[test]
    fn malformed_ids_are_rejected() {
        for text in [
            "",
            "use1",
            "use1-",
            "-01JD7X9K3M4N5P6Q7R8S9T0V1W",
            "USE1-01JD7X9K3M4N5P6Q7R8S9T0V1W",
            "use-01JD7X9K3M4N5P6Q7R8S9T0V1W",
            "use1-01jd7x9k3m4n5p6q7r8s9t0v1w",
            "use1-01JD7X9K3M4N5P6Q7R8S9T0V1",
            "use1-O1JD7X9K3M4N5P6Q7R8S9T0V1W",
            "use1-01JD7X9K3M4N5P6Q7R8S9T0V1W#x",
            "use1-91JD7X9K3M4N5P6Q7R8S9T0V1W",
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(started_at in 0u64..1 << 48, random in any::<u128>()) {
            let id = SessionId::mint("apse2".parse().unwrap(), started_at, random);
            prop_assert_eq!(id.started_at(), started_at);
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        }
    }
}

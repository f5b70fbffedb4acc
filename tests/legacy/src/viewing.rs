//! What the service stores of a session, and the answer it computes.
//!
//! It stores every event and computes the answer from all of them, sorted. That is the simple way,
//! and deliberately not the join of `playback`, with which it must agree. It uses its own names and
//! units: seconds with decimals, where Playhead has milliseconds.

use crate::behaviour::{Bug, Bugs};
use playback::contract::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    title: String,
    title_ms: Option<u64>,
    position_ms: u64,
    played_ms: u64,
    device: Option<String>,
    device_type: Option<String>,
    country: Option<String>,
    /// When it happened, Unix milliseconds: the device's clock, as far as it can be believed.
    happened_ms: u64,
    /// When it arrived, Unix milliseconds.
    arrived_ms: u64,
}

impl Kept {
    /// An event of a session that began at `began_ms`. The device sent it at `sent_ms`, by its own
    /// clock.
    pub(crate) fn of(event: &Event, title: &str, began_ms: u64, sent_ms: Option<u64>, arrived_ms: u64) -> Self {
        let device_now = sent_ms.unwrap_or(arrived_ms) as i64;
        let ago = event.occurred_at.map_or(0, |at| device_now - at as i64);
        let happened_ms = (arrived_ms as i64 - ago).max(began_ms as i64).min(arrived_ms as i64) as u64;
        Self {
            title: title.to_owned(),
            title_ms: event.title_duration_ms,
            position_ms: event.position_ms,
            played_ms: event.played_ms,
            device: event.device.id.clone(),
            device_type: event.device.kind.clone(),
            country: event.country.map(|country| country.to_string()),
            happened_ms,
            arrived_ms,
        }
    }
}

/// A stored session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Viewing {
    /// Events by sequence number.
    pub(crate) events: BTreeMap<u16, Kept>,
    /// The sequence number of the event that arrived last.
    pub(crate) arrived_last: u16,
}

/// A session as `GET /v1/profiles/{p}/sessions/{s}` returns it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Answer {
    viewing: String,
    movie: Movie,
    progress: Progress,
    reports: Reports,
    device: Device,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Movie {
    id: String,
    seconds: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Progress {
    resume_at_seconds: f64,
    watched_seconds: f64,
    finished: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Reports {
    count: usize,
    /// When the first one happened: Unix time, seconds.
    first: f64,
    /// When the last one arrived: Unix time, seconds.
    last: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Device {
    serial: Option<String>,
    r#type: Option<String>,
}

impl Viewing {
    /// The answer; `None` if no event is left.
    pub(crate) fn answer(&self, session: &str, bugs: &Bugs) -> Option<Answer> {
        let (_, first) = self.events.first_key_value()?;
        let (_, greatest) = self.events.last_key_value()?;
        let last = match self.events.get(&self.arrived_last) {
            Some(arrived) if bugs.contains(&Bug::LastArrivalWins) => arrived,
            _ => greatest,
        };
        let title_ms = self.events.values().rev().find_map(|kept| kept.title_ms);
        let reached = if bugs.contains(&Bug::LostSeek) { self.added_up(first) } else { last.position_ms };
        let in_title = |position: u64| title_ms.map_or(position, |end| position.min(end));
        Some(Answer {
            viewing: session.to_owned(),
            movie: Movie { id: first.title.clone(), seconds: title_ms.map(seconds) },
            progress: Progress {
                resume_at_seconds: seconds(in_title(reached)),
                watched_seconds: seconds(self.watched_ms()),
                finished: title_ms.is_some_and(|end| reached.max(self.watched_to()) * 100 >= end * 95),
            },
            reports: Reports {
                count: self.events.len(),
                first: seconds(first.happened_ms),
                last: seconds(greatest.arrived_ms),
            },
            device: Device { serial: last.device.clone(), r#type: last.device_type.clone() },
            country: first.country.clone(),
        })
    }

    /// The position of a player that started at the same place and never jumped.
    fn added_up(&self, first: &Kept) -> u64 {
        let played: u64 = self.events.values().skip(1).map(|kept| kept.played_ms).sum();
        first.position_ms + played
    }

    /// The furthest position up to which something was watched, milliseconds.
    fn watched_to(&self) -> u64 {
        self.events.values().filter(|kept| kept.played_ms > 0).map(|kept| kept.position_ms).max().unwrap_or(0)
    }

    /// How much of the title was watched, milliseconds. Replayed intervals count once.
    fn watched_ms(&self) -> u64 {
        let mut intervals: Vec<(u64, u64)> =
            self.events.values().map(|kept| (kept.position_ms - kept.played_ms, kept.position_ms)).collect();
        intervals.sort_unstable();
        let (mut watched, mut watched_to) = (0, 0);
        for (from, to) in intervals {
            watched += to.saturating_sub(from.max(watched_to));
            watched_to = watched_to.max(to);
        }
        watched
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use playback::contract::{Device as PlayersDevice, Kind};
    use playback::history::Rules;
    use playback::view::{Receipt, View};
    use proptest::prelude::*;
    use std::sync::Arc;

    const TITLE_MS: u64 = 100_000;
    const BEGAN: u64 = 1_790_000_000_000;

    fn event(seq: u16, kind: Kind, position_ms: u64, played_ms: u64) -> Event {
        let device = Arc::new(PlayersDevice { id: Some(format!("d{}", seq % 2)), kind: Some("tv".to_owned()) });
        let country = "US".parse().ok();
        let (title_duration_ms, occurred_at) = (Some(TITLE_MS), Some(BEGAN + u64::from(seq) * 5));
        Event { seq, kind, position_ms, played_ms, title_duration_ms, credits_ms: None, occurred_at, device, country }
    }

    /// The state after requests of one event each.
    fn kept(arrivals: &[(Event, u64)]) -> Viewing {
        let mut viewing = Viewing::default();
        for (event, at) in arrivals {
            viewing.events.entry(event.seq).or_insert(Kept::of(event, "t1", BEGAN, None, *at));
            viewing.arrived_last = event.seq;
        }
        viewing
    }

    fn answer(arrivals: &[(Event, u64)], bugs: &[Bug]) -> Answer {
        kept(arrivals).answer("s", &bugs.iter().copied().collect()).unwrap()
    }

    /// Events of one session, in any order, any number of times. A sequence number always has the
    /// same event.
    fn arrivals() -> impl Strategy<Value = Vec<(Event, u64)>> {
        let one = (0u64..=TITLE_MS, 0u64..=TITLE_MS, 0usize..6);
        let session = prop::collection::vec(one, 1..12);
        (session, prop::collection::vec(any::<prop::sample::Index>(), 1..40)).prop_map(|(session, order)| {
            let at = |(arrival, index): (usize, prop::sample::Index)| {
                let seq = index.index(session.len());
                let (position, played, kind) = session[seq];
                (event(seq as u16, Kind::ALL[kind], position, played.min(position)), BEGAN + 23 + arrival as u64)
            };
            order.into_iter().enumerate().map(at).collect()
        })
    }

    proptest! {
        #[test]
        fn without_bugs_it_agrees_with_playhead(arrivals in arrivals()) {
            let mut view: Option<View> = None;
            for (event, at) in &arrivals {
                let receipt = Receipt { received_at: *at, sent_at: None, session_started_at: BEGAN };
                let one = View::of(event, "t1", receipt);
                match &mut view {
                    Some(view) => view.merge(&one),
                    None => view = Some(one),
                }
            }
            let view = view.unwrap();
            let answer = answer(&arrivals, &[]);
            let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
            prop_assert_eq!(ms(answer.progress.resume_at_seconds), view.position_ms());
            prop_assert_eq!(ms(answer.progress.watched_seconds), view.played_ms());
            prop_assert_eq!(answer.progress.finished, Rules::default().is_finished(&view));
            prop_assert_eq!(answer.reports.count as u64, view.events());
            prop_assert_eq!(ms(answer.reports.first), view.first.watched_at);
            prop_assert_eq!(ms(answer.reports.last), view.latest.received_at);
            prop_assert_eq!(answer.movie.id, view.title_id.clone());
            prop_assert_eq!(answer.movie.seconds.map(ms), view.title_duration_ms());
            prop_assert_eq!(answer.device.serial, view.latest.device.id.clone());
            prop_assert_eq!(answer.country, view.first.country.map(|country| country.to_string()));
        }
    }

    #[test]
    fn each_bug_shows_where_it_should() {
        let jump = [
            (event(0, Kind::Started, 0, 0), 1),
            (event(1, Kind::Progressed, 10_000, 10_000), 2),
            (event(2, Kind::Seeked, 60_000, 0), 3),
            (event(3, Kind::Stopped, 65_000, 5_000), 4),
        ];
        let resume = |arrivals: &[(Event, u64)], bugs: &[Bug]| answer(arrivals, bugs).progress.resume_at_seconds;
        assert_eq!(resume(&jump, &[]), 65.0);
        assert_eq!(resume(&jump, &[Bug::LostSeek]), 15.0);
        assert_eq!(resume(&jump[..2], &[Bug::LostSeek]), 10.0, "there was no seek to lose");

        let mut overtaken = jump.clone();
        overtaken.swap(1, 3);
        assert_eq!(resume(&overtaken, &[]), 65.0);
        assert_eq!(resume(&overtaken, &[Bug::LastArrivalWins]), 10.0);
        assert_eq!(resume(&jump, &[Bug::LastArrivalWins]), 65.0, "they arrived in order");
    }

    #[test]
    fn a_session_without_events_has_no_answer() {
        assert_eq!(Viewing::default().answer("s", &Bugs::new()), None);
    }
}

//! What the service knows about one session, and its answer.
//!
//! Every event is stored, and the answer is computed from all of them at once, sorted. That is the
//! plain way, and deliberately not the join of `playback`, with which it must agree. Its names and
//! units are its own: seconds with decimals where Playhead has milliseconds.

use crate::behaviour::{Bug, Bugs};
use playback::contract::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One stored event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    title: String,
    title_ms: u64,
    position_ms: u64,
    played_ms: u64,
    device: String,
    device_type: String,
    country: Option<String>,
}

impl Kept {
    pub(crate) fn of(event: &Event, title: &str) -> Self {
        Self {
            title: title.to_owned(),
            title_ms: event.title_duration_ms,
            position_ms: event.position_ms,
            played_ms: event.played_ms,
            device: event.device.id.clone(),
            device_type: event.device.kind.clone(),
            country: event.country.map(|country| country.to_string()),
        }
    }
}

/// What is stored of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Viewing {
    /// By sequence number.
    pub(crate) events: BTreeMap<u16, Kept>,
    /// The sequence number of the event that arrived last.
    pub(crate) arrived_last: u16,
    /// When the first request about it arrived, Unix milliseconds.
    pub(crate) first_ms: u64,
    /// When the last one arrived.
    pub(crate) last_ms: u64,
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
    seconds: f64,
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
    /// Unix time, seconds.
    first: f64,
    /// Unix time, seconds.
    last: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Device {
    serial: String,
    r#type: String,
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
        let position_ms = if bugs.contains(&Bug::LostSeek) { self.added_up(first) } else { last.position_ms };
        Some(Answer {
            viewing: session.to_owned(),
            movie: Movie { id: first.title.clone(), seconds: seconds(first.title_ms) },
            progress: Progress {
                resume_at_seconds: seconds(position_ms),
                watched_seconds: seconds(self.watched_ms()),
                finished: position_ms * 100 >= first.title_ms * 95,
            },
            reports: Reports { count: self.events.len(), first: seconds(self.first_ms), last: seconds(self.last_ms) },
            device: Device { serial: last.device.clone(), r#type: last.device_type.clone() },
            country: first.country.clone(),
        })
    }

    /// The position of a player that began at the same place and never jumped.
    fn added_up(&self, first: &Kept) -> u64 {
        let played: u64 = self.events.values().skip(1).map(|kept| kept.played_ms).sum();
        (first.position_ms + played).min(first.title_ms)
    }

    /// How much of the title was watched. What was watched twice counts once.
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
    use playback::view::View;
    use proptest::prelude::*;
    use std::sync::Arc;

    const TITLE_MS: u64 = 100_000;

    fn event(seq: u16, kind: Kind, position_ms: u64, played_ms: u64) -> Event {
        let device = Arc::new(PlayersDevice { id: format!("d{}", seq % 2), kind: "tv".to_owned() });
        let country = "US".parse().ok();
        Event { seq, kind, position_ms, played_ms, title_duration_ms: TITLE_MS, occurred_at: 0, device, country }
    }

    /// What requests of one event each would leave.
    fn kept(arrivals: &[(Event, u64)]) -> Viewing {
        let mut viewing = Viewing { first_ms: u64::MAX, ..Viewing::default() };
        for (event, at) in arrivals {
            viewing.events.entry(event.seq).or_insert(Kept::of(event, "t1"));
            viewing.arrived_last = event.seq;
            viewing.first_ms = viewing.first_ms.min(*at);
            viewing.last_ms = viewing.last_ms.max(*at);
        }
        viewing
    }

    fn answer(arrivals: &[(Event, u64)], bugs: &[Bug]) -> Answer {
        kept(arrivals).answer("s", &bugs.iter().copied().collect()).unwrap()
    }

    /// Events of one session, in any order and any number of times. A sequence number always stands
    /// for the same event.
    fn arrivals() -> impl Strategy<Value = Vec<(Event, u64)>> {
        let one = (0u64..=TITLE_MS, 0u64..=TITLE_MS, 0usize..6);
        let session = prop::collection::vec(one, 1..12);
        (session, prop::collection::vec(any::<prop::sample::Index>(), 1..40)).prop_map(|(session, order)| {
            let at = |(arrival, index): (usize, prop::sample::Index)| {
                let seq = index.index(session.len());
                let (position, played, kind) = session[seq];
                (event(seq as u16, Kind::ALL[kind], position, played.min(position)), 1_790_000_000_123 + arrival as u64)
            };
            order.into_iter().enumerate().map(at).collect()
        })
    }

    proptest! {
        #[test]
        fn without_bugs_it_agrees_with_playhead(arrivals in arrivals()) {
            let mut view: Option<View> = None;
            for (event, at) in &arrivals {
                let one = View::of(event, "t1", *at);
                match &mut view {
                    Some(view) => view.merge(&one),
                    None => view = Some(one),
                }
            }
            let view = view.unwrap();
            let answer = answer(&arrivals, &[]);
            let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
            prop_assert_eq!(ms(answer.progress.resume_at_seconds), view.latest.position_ms);
            prop_assert_eq!(ms(answer.progress.watched_seconds), view.played_ms());
            prop_assert_eq!(answer.progress.finished, view.completed());
            prop_assert_eq!(answer.reports.count as u64, view.events());
            prop_assert_eq!(ms(answer.reports.first), view.started_at);
            prop_assert_eq!(ms(answer.reports.last), view.last_received_at);
            prop_assert_eq!(answer.movie.id, view.first.title_id);
            prop_assert_eq!(ms(answer.movie.seconds), view.first.title_duration_ms);
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
        assert_eq!(resume(&jump[..2], &[Bug::LostSeek]), 10.0, "nothing was lost");

        let mut overtaken = jump.clone();
        overtaken.swap(1, 3);
        assert_eq!(resume(&overtaken, &[]), 65.0);
        assert_eq!(resume(&overtaken, &[Bug::LastArrivalWins]), 10.0);
        assert_eq!(resume(&jump, &[Bug::LastArrivalWins]), 65.0, "they arrived in order");
    }

    #[test]
    fn session_without_events_is_absent() {
        assert_eq!(Viewing::default().answer("s", &Bugs::new()), None);
    }
}

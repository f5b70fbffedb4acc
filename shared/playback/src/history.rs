//! What a member sees: turns the stored rows of a profile into history entries, newest first, and
//! into what is known of each title: where to resume, and whether it was watched.
//!
//! All of it is computed here on read, so it costs no write. History, continue watching and a
//! title's bookmark come from the same entries by the same rules, so they cannot contradict each
//! other.

use crate::session::{Home, SessionId};
use crate::view::{Sequence, View};
use serde::Serialize;
use std::collections::HashMap;
use ulid::Ulid;

/// When a title counts as begun and as finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A session shorter than this share of the title, percent, …
    pub resume_minimum_percent: u8,
    /// … or than this, milliseconds, whichever is less, never displaces a resume point.
    pub resume_minimum_ms: u64,
    /// A title is finished at this share of its length, percent, or where its credits begin.
    pub completed_percent: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self { resume_minimum_percent: 3, resume_minimum_ms: 120_000, completed_percent: 95 }
    }
}

impl Rules {
    /// Whether a session finished the title: its position is at the finish, or it played past it
    /// and went back.
    pub fn is_finished(&self, view: &View) -> bool {
        let played_to = view.played.ranges().last().map_or(0, |range| range.end);
        self.is_at_finish(view) || self.finish(view).is_some_and(|finish| played_to >= finish)
    }

    /// Whether the session's position is at the finish.
    fn is_at_finish(&self, view: &View) -> bool {
        self.finish(view).is_some_and(|finish| view.latest.position_ms >= finish)
    }

    /// Whether the session finished the title, went back, and is well into it once more.
    fn plays_again(&self, view: &View) -> bool {
        !self.is_at_finish(view) && view.position_ms() >= self.resume_minimum(view)
    }

    /// The position from which the title counts as finished, milliseconds, if it has one.
    fn finish(&self, view: &View) -> Option<u64> {
        let by_share = view.title_duration_ms().map(|duration| percent(duration, self.completed_percent));
        by_share.into_iter().chain(view.credits.map(|credits| credits.ms)).min()
    }

    /// How long a session of the title must be to displace a resume point, milliseconds.
    fn resume_minimum(&self, view: &View) -> u64 {
        let by_share = view.title_duration_ms().map(|duration| percent(duration, self.resume_minimum_percent));
        by_share.map_or(self.resume_minimum_ms, |share| share.min(self.resume_minimum_ms))
    }

    /// Whether `next`, the newer session, takes the resume point of a title over from `point`.
    fn displaces(&self, next: &View, point: &View) -> bool {
        let minimum = self.resume_minimum(next);
        // Players that do not say how much they played still say where they began and ended.
        let length = match next.played_ms() {
            0 => next.latest.position_ms.saturating_sub(next.first.position_ms),
            played => played,
        };
        // A session that goes on from the resume point takes it along, however short it is.
        let goes_on = next.first.position_ms.abs_diff(point.position_ms()) <= minimum
            && next.position_ms() >= point.position_ms();
        length >= minimum || goes_on
    }
}

/// `share` percent of a duration, rounded up.
fn percent(duration_ms: u64, share: u8) -> u64 {
    duration_ms.saturating_mul(share.into()).div_ceil(100)
}

/// A row of a profile that belongs to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// What one region folded of the session and one title.
    Part {
        /// The session's home region.
        home: Home,
        /// The part's state.
        view: Box<View>,
    },
    /// Whether the member hid the session. A register: the later time wins.
    Hidden(bool),
    /// The member forgot the session: all of it, or one title.
    Forgotten(Option<String>),
}

/// What a member said about the profile and its titles. Each is a register: the later time wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Everything up to this time is erased, Unix milliseconds.
    pub erased_at: Option<u64>,
    /// Titles forgotten up to a time, Unix milliseconds.
    pub forgotten: HashMap<String, u64>,
    /// Titles marked as watched or not watched.
    pub watched: HashMap<String, WatchedMark>,
}

/// What a member said about having watched a title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchedMark {
    /// Watched, or not watched.
    pub watched: bool,
    /// When they said so, Unix milliseconds.
    pub at: u64,
}

impl Marks {
    /// The time up to which viewings of a title are erased, Unix milliseconds.
    pub fn erased_up_to(&self, title_id: &str) -> Option<u64> {
        self.erased_at.max(self.forgotten.get(title_id).copied())
    }

    fn erase(&self, session_id: &SessionId, view: &View) -> bool {
        is_erased(session_id, view, self.erased_up_to(&view.title_id))
    }
}

/// Whether an erasure up to `erased_at` (Unix milliseconds) covers a viewing. It does if the session
/// began before that, by the time in its id or by the server's clock. Both count, because a device
/// may mint an id ahead of time.
pub fn is_erased(session_id: &SessionId, view: &View, erased_at: Option<u64>) -> bool {
    erased_at.is_some_and(|erased_at| session_id.started_at().min(view.received_from) <= erased_at)
}

/// What one session watched of one title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The session.
    pub session_id: SessionId,
    /// The join of the parts that all regions folded.
    pub view: View,
    /// Whether the member hid the session.
    pub hidden: bool,
    /// Sequence numbers of the session that never arrived, all its titles together.
    pub missing: u64,
}

impl Entry {
    /// Newer viewing has the greater key: its watch time, then its session's start. The rest only
    /// decides between titles of one session.
    fn watched(&self) -> (u64, &SessionId, u16, &str) {
        (self.view.latest.watched_at, &self.session_id, self.view.latest.seq, &self.view.title_id)
    }
}

/// A view in the contract's form, as members read it and as the change feed tells of it.
#[derive(Debug, Serialize)]
pub struct ShownView {
    started_at: u64,
    watched_at: u64,
    last_received_at: u64,
    position_ms: u64,
    played_ms: u64,
    title_duration_ms: Option<u64>,
    completed: bool,
    device: ShownDevice,
    country: Option<String>,
    events: u64,
}

#[derive(Debug, Serialize)]
struct ShownDevice {
    id: Option<String>,
    kind: Option<String>,
}

impl ShownView {
    /// Shows a view.
    pub fn of(view: &View, rules: &Rules) -> Self {
        let device = &view.latest.device;
        Self {
            started_at: view.first.watched_at,
            watched_at: view.latest.watched_at,
            last_received_at: view.latest.received_at,
            position_ms: view.position_ms(),
            played_ms: view.played_ms(),
            title_duration_ms: view.title_duration_ms(),
            completed: rules.is_finished(view),
            device: ShownDevice { id: device.id.clone(), kind: device.kind.clone() },
            country: view.first.country.map(|country| country.to_string()),
            events: view.events(),
        }
    }
}

/// Joins rows into entries, in the order of the rows' sessions; the newest title of a session comes
/// first. The rows must be grouped by session. What the member erased or forgot makes no entry, and
/// neither does a session that was only hidden.
pub fn assemble(rows: impl IntoIterator<Item = (Ulid, Row)>, marks: &Marks) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rows = rows.into_iter().peekable();
    while let Some((ulid, row)) = rows.next() {
        let mut of_session = vec![row];
        while let Some((_, row)) = rows.next_if(|(next, _)| *next == ulid) {
            of_session.push(row);
        }
        assemble_session(ulid, of_session, marks, &mut entries);
    }
    entries
}

/// Adds the entries of one session, or of several that differ only in their home.
fn assemble_session(ulid: Ulid, rows: Vec<Row>, marks: &Marks, entries: &mut Vec<Entry>) {
    let (mut is_hidden, mut forgotten) = (false, Vec::new());
    let mut views: Vec<(Home, View)> = Vec::new();
    for row in rows {
        match row {
            Row::Hidden(hidden) => is_hidden = hidden,
            Row::Forgotten(title) => forgotten.push(title),
            Row::Part { home, view } => {
                match views.iter_mut().find(|(of, into)| *of == home && into.title_id == view.title_id) {
                    Some((_, into)) => into.merge(&view),
                    None => views.push((home, *view)),
                }
            }
        }
    }
    let missing = |home: &Home| Sequence::of(views.iter().filter(|(of, _)| of == home).map(|(_, view)| view)).missing();
    let missing: Vec<u64> = views.iter().map(|(home, _)| missing(home)).collect();
    let is_forgotten =
        |title: &String| forgotten.iter().any(|of| of.as_ref().is_none_or(|forgotten| forgotten == title));
    let from = entries.len();
    for ((home, view), missing) in views.into_iter().zip(missing) {
        let session_id = SessionId { ulid, home };
        if !is_forgotten(&view.title_id) && !marks.erase(&session_id, &view) {
            entries.push(Entry { session_id, view, hidden: is_hidden, missing });
        }
    }
    if let Some(new) = entries.get_mut(from..) {
        new.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.session_id.home.clone(), entry.view.latest.seq);
            key(b).cmp(&key(a)).then_with(|| a.view.title_id.cmp(&b.view.title_id))
        });
    }
}

/// What is known of one title.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TitleState {
    /// The viewing to go on from, at its position; `None` if there is none, or it was finished.
    pub resume: Option<Entry>,
    /// Whether it was watched to the end once, or marked so, since the member last said otherwise.
    pub watched: bool,
    /// When it was last finished or marked, Unix milliseconds, if it is watched.
    pub watched_at: Option<u64>,
}

/// The state of one title, from all its entries in any order.
///
/// The viewings count in the order of their watch time, so a late offline upload never displaces
/// newer viewing. Finishing the title, or marking it watched, clears the resume point; otherwise the
/// newest viewing that is not too short is it.
pub fn title_state(entries: impl IntoIterator<Item = Entry>, mark: Option<WatchedMark>, rules: &Rules) -> TitleState {
    let mut entries: Vec<Entry> = entries.into_iter().collect();
    entries.sort_by(|a, b| a.watched().cmp(&b.watched()));
    let mut state = TitleState::default();
    let says = |watched: bool| mark.filter(|mark| mark.watched == watched).map(|mark| mark.at);
    if let Some(at) = says(true) {
        (state.watched, state.watched_at) = (true, Some(at));
    }
    for entry in entries {
        let at = entry.view.latest.watched_at;
        let is_finished = rules.is_finished(&entry.view);
        if is_finished {
            state.resume = None;
            if says(false).is_none_or(|unwatched_at| at > unwatched_at) {
                (state.watched, state.watched_at) = (true, state.watched_at.max(Some(at)));
            }
        }
        if is_finished && !rules.plays_again(&entry.view) {
            continue;
        }
        if says(true).is_none_or(|watched_at| at > watched_at)
            && state.resume.as_ref().is_none_or(|point| rules.displaces(&entry.view, &point.view))
        {
            state.resume = Some(entry);
        }
    }
    state
}

/// The state of each title that has entries.
pub fn title_states(
    entries: impl IntoIterator<Item = Entry>,
    marks: &Marks,
    rules: &Rules,
) -> HashMap<String, TitleState> {
    let mut by_title: HashMap<String, Vec<Entry>> = HashMap::new();
    for entry in entries {
        by_title.entry(entry.view.title_id.clone()).or_default().push(entry);
    }
    let state = |(title, entries): (String, Vec<Entry>)| {
        let state = title_state(entries, marks.watched.get(&title).copied(), rules);
        (title, state)
    };
    by_title.into_iter().map(state).collect()
}

/// Continue watching: the resume point of each title that has one, unless its session is hidden.
/// Newest watch time first.
pub fn continue_watching(states: impl IntoIterator<Item = TitleState>) -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        states.into_iter().filter_map(|state| state.resume).filter(|entry| !entry.hidden).collect();
    entries.sort_by(|a, b| b.watched().cmp(&a.watched()));
    entries
}

#[cfg(test)]
mod tests;

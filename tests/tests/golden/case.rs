//! A golden case: an event as a trigger sends it, the state when it arrives, and its outcome. It is
//! stored in two files: `events/<trigger>/<name>.json`, which is only the event, and
//! `<name>.expected.json` beside it.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use store::Erase;

/// The folders of `events/`.
pub(crate) const TRIGGERS: [&str; 7] = ["api", "dynamodb", "forward", "kinesis", "msk", "retry", "sqs"];

/// The clock when an event is handled, unless the case says otherwise: 21 September 2026,
/// 14:13:30.200 UTC.
pub(crate) const NOW: u64 = 1_790_000_010_200;

/// An event and its expectation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    /// The folder.
    pub(crate) trigger: String,
    /// The file's name without `.json`.
    pub(crate) name: String,
    /// The event.
    pub(crate) event: Value,
    /// What is expected.
    pub(crate) expected: Expected,
}

/// The file `<name>.expected.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    /// What the case is about, in a sentence.
    pub(crate) about: String,
    /// The function that the event is for.
    pub(crate) function: Function,
    /// The state when the event arrives.
    pub(crate) given: Given,
    /// What the function did and answered.
    pub(crate) expect: Value,
}

/// A function of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Function {
    /// Accepts events.
    Ingest,
    /// Folds batches into views.
    Process,
    /// Serves the member's API.
    Query,
    /// Retries what could not be applied.
    Retry,
    /// Sends other regions' sessions to them.
    Forward,
    /// Publishes changes of views.
    Publish,
}

/// The state when an event arrives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    /// The clock, Unix milliseconds.
    pub(crate) now: u64,
    /// Requests of the edge contract that are folded already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) played: Vec<Request>,
    /// Sessions whose stored view is unreadable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) corrupt: Vec<Place>,
    /// Sessions that the member hid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) hidden: Vec<Place>,
    /// Up to when each profile's history was erased, Unix milliseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) erased_at: BTreeMap<String, u64>,
    /// Titles and sessions that the member forgot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) forgotten: Vec<Erase>,
    /// Titles that the member marked as watched or not watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) marked: Vec<Marked>,
    /// Sessions whose view the store refuses to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<Place>,
    /// Objects of the failure bucket, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) objects: BTreeMap<String, Value>,
    /// The routing document, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) routing: Option<Value>,
    /// The budget of events per profile and minute. The same request has come once before in this
    /// minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<u32>,
    /// What is unreachable.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) away: BTreeSet<Part>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            now: NOW,
            played: Vec::new(),
            corrupt: Vec::new(),
            hidden: Vec::new(),
            erased_at: BTreeMap::new(),
            forgotten: Vec::new(),
            marked: Vec::new(),
            refused: Vec::new(),
            objects: BTreeMap::new(),
            routing: None,
            budget: None,
            away: BTreeSet::new(),
        }
    }
}

/// A part of the system that can be unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// The durable log, or the change feed.
    Log,
    /// The views table.
    Store,
    /// The dead-letter queue.
    DeadLetterQueue,
    /// The queue `retry`.
    RetryQueue,
    /// The bucket of the batches that Lambda discarded.
    FailureBucket,
    /// The region us-west-2.
    UsWest2,
}

/// Which view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// Whose.
    pub(crate) profile_id: String,
    /// Of which session.
    pub(crate) session_id: String,
    /// Of which title.
    pub(crate) title_id: String,
}

/// What a member said about having watched a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marked {
    /// Who.
    pub(crate) profile_id: String,
    /// Which title.
    pub(crate) title_id: String,
    /// Watched, or not watched.
    pub(crate) watched: bool,
    /// When they said so, Unix milliseconds.
    pub(crate) at: u64,
}

/// A request that ingest accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// When, Unix milliseconds.
    pub(crate) received_at: u64,
    /// The device's clock when it sent the request, Unix milliseconds, if stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sent_at: Option<u64>,
    /// Events of the edge contract.
    pub(crate) events: Vec<Value>,
}

impl Case {
    /// `<trigger>/<name>`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.trigger, self.name)
    }

    /// Writes both files.
    pub(crate) fn write(&self) -> Result<()> {
        let folder = events_folder().join(&self.trigger);
        std::fs::create_dir_all(&folder)?;
        write_json(&folder.join(format!("{}.json", self.name)), &self.event)?;
        write_json(&folder.join(format!("{}.expected.json", self.name)), &self.expected)
    }
}

/// Reads every case of `events/`. An event without an expectation is an error, and so is an
/// expectation without an event, or any other file in a trigger's folder.
pub(crate) fn read_all() -> Result<BTreeMap<String, Case>> {
    let mut cases = BTreeMap::new();
    // `rollout` holds no events: the rollout's own tests use it.
    let is_of_a_trigger = |path: &PathBuf| path.is_dir() && !path.ends_with("rollout");
    for folder in entries(&events_folder())?.into_iter().filter(is_of_a_trigger) {
        let trigger = name_of(&folder)?.to_owned();
        let names: BTreeSet<String> =
            entries(&folder)?.iter().map(|path| name_of(path).map(str::to_owned)).collect::<Result<_>>()?;
        for file in &names {
            let stem = file.strip_suffix(".json").with_context(|| format!("{trigger}/{file} is not a JSON file"))?;
            if let Some(event) = stem.strip_suffix(".expected") {
                ensure!(names.contains(&format!("{event}.json")), "{trigger}/{file} has no event beside it");
                continue;
            }
            let expectation = format!("{stem}.expected.json");
            ensure!(names.contains(&expectation), "{trigger}/{file} has no expectation beside it");
            let case = Case {
                trigger: trigger.clone(),
                name: stem.to_owned(),
                event: read_json(&folder.join(file))?,
                expected: read_json(&folder.join(&expectation))?,
            };
            cases.insert(case.id(), case);
        }
    }
    Ok(cases)
}

/// The bytes of a case's event, as `--data-file` passes them to a function.
pub(crate) fn event_bytes(case: &Case) -> Result<Vec<u8>> {
    let path = events_folder().join(&case.trigger).join(format!("{}.json", case.name));
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// The folder `events/` of the repository.
pub(crate) fn events_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn name_of(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no name", path.display()))
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} has the wrong format", path.display()))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = format!("{}\n", serde_json::to_string_pretty(value)?);
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

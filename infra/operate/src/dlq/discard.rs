//! `playhead dlq discard`: deletes letters, and with `--save` saves them first.

use super::letter::Found;
use super::queue::{DeadLetterQueue, Look};
use super::redrive::Done;
use super::select::Filter;
use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A discard to run.
#[derive(Debug)]
pub(super) struct Discard<'a> {
    pub(super) filter: &'a Filter,
    /// Maximum number of letters.
    pub(super) limit: Option<usize>,
    pub(super) dry_run: bool,
    /// Where each letter is saved first.
    pub(super) save: Option<Saved>,
    /// When the command started, Unix milliseconds.
    pub(super) began: u64,
}

/// A file of letters, one JSON object per line.
#[derive(Debug)]
pub(super) struct Saved(File);

impl Saved {
    /// Opens the file for appending. Only the user may read it: it says what members watched.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        Ok(Self(file.with_context(|| format!("opening {}", path.display()))?))
    }

    /// Saves letters. They are on disk when this returns.
    fn append(&mut self, letters: &[Found]) -> Result<()> {
        let mut lines = String::new();
        for letter in letters {
            let line = json!({
                "id": letter.id,
                "sent_at": letter.sent_at,
                "moved_from": letter.moved_from,
                "reason": letter.reason(),
                "body": letter.body,
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        self.0.write_all(lines.as_bytes()).context("saving letters")?;
        self.0.sync_data().context("saving letters")
    }
}

impl Discard<'_> {
    /// Goes through the queue.
    ///
    /// # Errors
    /// If a call to SQS fails, or letters cannot be saved. `done` counts what was deleted until
    /// then.
    pub(super) async fn run(mut self, queue: &mut DeadLetterQueue, bar: &ProgressBar, done: &mut Done) -> Result<Look> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let messages = match queue.next().await? {
                Look::Found(messages) => messages,
                end => return Ok(end),
            };
            let found: Vec<Found> = messages.into_iter().map(Found::of).collect();
            let all = found.len();
            let mut chosen: Vec<Found> = found.into_iter().filter(|one| self.filter.takes(one, self.began)).collect();
            done.left_out += all - chosen.len();
            chosen.truncate(left);
            left -= chosen.len();
            if !self.dry_run {
                if let Some(save) = &mut self.save {
                    save.append(&chosen)?;
                }
                let ids: Vec<String> = chosen.iter().map(|letter| letter.id.clone()).collect();
                let failed = queue.delete(&ids).await;
                done.not_deleted += failed.len();
                for (id, why) in &failed {
                    done.problem(format!("{id} was not deleted: {why}"));
                }
                chosen.retain(|letter| failed.iter().all(|(id, _)| *id != letter.id));
            }
            for letter in &chosen {
                *done.letters.entry(letter.reason().to_owned()).or_default() += 1;
            }
            bar.inc(chosen.len() as u64);
        }
        Ok(Look::End)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Sqs, dead};
    use super::*;
    use serde_json::Value;

    async fn discard(sqs: &Sqs, save: Option<Saved>, limit: Option<usize>, dry_run: bool) -> (Done, Result<Look>) {
        let (_ask, mut queue) = sqs.dead_letters();
        let filter = Filter::of_reason("corrupt_view");
        let discard = Discard { filter: &filter, limit, dry_run, save, began: 1_000 };
        let mut done = Done::default();
        let end = discard.run(&mut queue, &ProgressBar::hidden(), &mut done).await;
        queue.release().await;
        (done, end)
    }

    async fn some() -> Sqs {
        let reasons = (0..30).map(|n| if n % 3 == 0 { "invalid_envelope" } else { "corrupt_view" });
        Sqs::start(reasons.map(|reason| serde_json::to_string(&dead(reason, 10)).unwrap()).collect()).await
    }

    #[tokio::test]
    async fn only_selected_letters_are_deleted_and_none_in_a_dry_run() {
        let sqs = some().await;
        let (done, _) = discard(&sqs, None, None, true).await;
        assert_eq!((done.total(), sqs.state().dead.len()), (20, 30), "{done:?}");
        let (done, _) = discard(&sqs, None, Some(5), false).await;
        assert_eq!((done.total(), sqs.state().dead.len()), (5, 25), "{done:?}");
        sqs.state().keep_every = 3;
        let (done, _) = discard(&sqs, None, None, false).await;
        let state = sqs.state();
        assert_eq!(done.total() + done.not_deleted, 15, "{done:?}");
        assert_eq!((done.not_deleted > 0, state.dead.len()), (true, 10 + done.not_deleted));
        assert!(state.dead.iter().all(|message| !message.hidden));
        assert!(state.retry.is_empty());
    }

    #[tokio::test]
    async fn letters_are_saved_before_they_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        let sqs = some().await;
        let before: Vec<String> = sqs.state().dead.iter().map(|message| message.body.clone()).collect();
        let (done, _) = discard(&sqs, Some(Saved::open(&path).unwrap()), None, false).await;
        assert_eq!(done.total(), 20);
        let lines = std::fs::read_to_string(&path).unwrap();
        let saved: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(saved.len(), 20);
        assert!(saved.iter().all(|line| before.iter().any(|body| line["body"] == **body)));
        // A letter that cannot be saved is not deleted.
        let sqs = some().await;
        let full = Saved(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let (done, end) = discard(&sqs, Some(full), None, false).await;
        assert!(end.is_err());
        assert_eq!((done.total(), sqs.state().dead.len()), (0, 30));
        assert!(sqs.state().dead.iter().all(|message| !message.hidden));
    }
}

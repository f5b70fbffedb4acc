//! `playhead dlq redrive`: sends letters to the queue `retry`, each with its history, and then
//! deletes them here.
//!
//! A crash in between leaves a letter on both queues. Applying it twice changes nothing.

use super::letter::Found;
use super::queue::{DeadLetterQueue, Look};
use super::select::Filter;
use anyhow::{Result, bail};
use indicatif::ProgressBar;
use queue::{Queue, SendError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum number of letters moved in one step.
const STEP: u32 = 40;
/// How many problems are described. All are counted.
const TOLD: usize = 5;

/// A redrive to run.
#[derive(Debug)]
pub(super) struct Redrive<'a> {
    pub(super) filter: &'a Filter,
    /// Letters per second.
    pub(super) rate: u32,
    /// Maximum number of letters.
    pub(super) limit: Option<usize>,
    pub(super) dry_run: bool,
    /// When the command started, Unix milliseconds.
    pub(super) began: u64,
}

/// What a redrive or discard did.
#[derive(Debug, Default, Serialize)]
pub(super) struct Done {
    /// Letters moved or deleted, by reason. In a dry run, those that would be.
    pub(super) letters: BTreeMap<String, usize>,
    /// Messages that they became on the queue `retry`.
    pub(super) messages: usize,
    /// Letters that the filters excluded.
    pub(super) left_out: usize,
    /// Letters that this run redrove and that have died again.
    pub(super) dead_again: usize,
    /// Letters that `retry` cannot apply.
    pub(super) not_redrivable: usize,
    /// Letters that could not be sent. They stay on the queue.
    pub(super) not_sent: usize,
    /// Letters that were sent or saved and could not be deleted. They will show up again, which is
    /// harmless.
    pub(super) not_deleted: usize,
    /// What went wrong, for the first few.
    pub(super) problems: Vec<String>,
}

impl Done {
    pub(super) fn total(&self) -> usize {
        self.letters.values().sum()
    }

    pub(super) fn problem(&mut self, what: String) {
        if self.problems.len() < TOLD {
            self.problems.push(what);
        }
    }

    /// Whether every selected letter was moved or deleted.
    pub(super) fn is_complete(&self) -> bool {
        self.not_sent + self.not_deleted + self.not_redrivable == 0
    }
}

impl Redrive<'_> {
    /// Redrives the selected letters. `now` is the clock, Unix milliseconds.
    ///
    /// # Errors
    /// If a call to SQS fails, or the queue `retry` accepts nothing. `done` counts what was moved
    /// until then.
    pub(super) async fn run(
        &self,
        queue: &mut DeadLetterQueue,
        retry: &Queue,
        now: impl Fn() -> u64,
        bar: &ProgressBar,
        done: &mut Done,
    ) -> Result<Look> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut next = Instant::now();
        while left > 0 {
            let messages = match queue.next().await? {
                Look::Found(messages) => messages,
                end => return Ok(end),
            };
            let mut chosen = Vec::new();
            for found in messages.into_iter().map(Found::of) {
                if !self.filter.takes(&found, self.began) {
                    done.left_out += 1;
                } else if found.redriven_since(self.began) {
                    done.dead_again += 1;
                } else if chosen.len() < left {
                    chosen.push(found);
                }
            }
            left -= chosen.len();
            for step in chosen.chunks(self.rate.clamp(1, STEP) as usize) {
                queue.sleep_until(next).await;
                if queue.interrupted() {
                    return Ok(Look::Interrupted);
                }
                next = Instant::now().max(next) + Duration::from_secs(1) * step.len() as u32 / self.rate.max(1);
                self.step(queue, retry, step, now(), done).await?;
                bar.inc(step.len() as u64);
            }
        }
        Ok(Look::End)
    }

    async fn step(
        &self,
        queue: &mut DeadLetterQueue,
        retry: &Queue,
        letters: &[Found],
        now: u64,
        done: &mut Done,
    ) -> Result<()> {
        let mut bodies = Vec::new();
        let mut parts = Vec::new();
        for letter in letters {
            let messages = letter.redrive(now)?;
            if messages.is_empty() {
                done.not_redrivable += 1;
                done.problem(format!("{} is neither a letter nor a message of one of our queues", letter.id));
            } else {
                parts.push((letter, messages.len()));
                bodies.extend(messages);
            }
        }
        if self.dry_run {
            for (letter, messages) in parts {
                *done.letters.entry(letter.reason().to_owned()).or_default() += 1;
                done.messages += messages;
            }
            return Ok(());
        }
        let mut results = retry.send_all(bodies).await.into_iter();
        let (mut sent, mut queue_error) = (Vec::new(), None);
        for (letter, messages) in parts {
            // A letter is sent when all of its messages are.
            let results: Vec<_> = results.by_ref().take(messages).collect();
            done.messages += results.iter().filter(|result| result.is_ok()).count();
            match results.into_iter().find_map(Result::err) {
                None => sent.push(letter),
                Some(error) => {
                    done.not_sent += 1;
                    done.problem(format!("{} was not sent: {error}", letter.id));
                    queue_error = queue_error.or(Some(error).filter(|error| !is_of_the_letter(error)));
                }
            }
        }
        let ids: Vec<String> = sent.iter().map(|letter| letter.id.clone()).collect();
        let failed = queue.delete(&ids).await;
        for letter in &sent {
            *done.letters.entry(letter.reason().to_owned()).or_default() += 1;
        }
        done.not_deleted += failed.len();
        for (id, why) in failed {
            done.problem(format!("{id} was sent, but not deleted: {why}"));
        }
        match queue_error {
            Some(error) if sent.is_empty() => bail!("the queue retry accepts nothing: {error}"),
            _ => Ok(()),
        }
    }
}

/// Whether only this letter is at fault. Others may succeed.
fn is_of_the_letter(error: &SendError) -> bool {
    match error {
        SendError::TooLarge { .. } | SendError::Unsendable { .. } => true,
        SendError::Refused { sender_fault, .. } => *sender_fault,
        SendError::Unanswered { .. } | SendError::NotSent { .. } | SendError::Call { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Sqs, dead};
    use super::*;
    use apply::Letter;

    const BEGAN: u64 = 1_000;

    fn bodies(n: usize, reason: &str) -> Vec<String> {
        (0..n).map(|_| serde_json::to_string(&dead(reason, 10)).unwrap()).collect()
    }

    /// Redrives and releases. Returns what was done, and how it ended.
    async fn redrive(sqs: &Sqs, filter: &Filter, limit: Option<usize>, dry_run: bool) -> (Done, Result<Look>) {
        let (_ask, mut queue) = sqs.dead_letters();
        let redrive = Redrive { filter, rate: 1_000, limit, dry_run, began: BEGAN };
        let mut done = Done::default();
        let end = redrive.run(&mut queue, &sqs.retry(), || BEGAN, &ProgressBar::hidden(), &mut done).await;
        assert_eq!(queue.release().await, 0);
        (done, end)
    }

    #[tokio::test]
    async fn every_letter_moves_once_with_its_history() {
        let sqs = Sqs::start(bodies(95, "corrupt_view")).await;
        let (done, end) = redrive(&sqs, &Filter::default(), None, false).await;
        assert!(matches!(end, Ok(Look::End)), "{end:?}");
        assert_eq!((done.total(), done.messages, done.is_complete()), (95, 95, true), "{done:?}");
        let state = sqs.state();
        assert!(state.dead.is_empty());
        for body in &state.retry {
            let letter: Letter = serde_json::from_str(body).unwrap();
            assert_eq!((letter.redrives.len(), letter.redrives[0].redriven_at), (1, BEGAN));
        }
    }

    #[tokio::test]
    async fn unsent_letter_is_not_deleted() {
        let sqs = Sqs::start(bodies(20, "corrupt_view")).await;
        sqs.state().refuse_every = 4;
        let (done, _) = redrive(&sqs, &Filter::default(), None, false).await;
        assert_eq!((done.total(), done.not_sent, done.problems.len()), (15, 5, 5), "{done:?}");
        {
            let state = sqs.state();
            assert_eq!((state.retry.len(), state.dead.len()), (15, 5));
            assert!(state.dead.iter().all(|message| !message.hidden), "what stays is visible again");
        }
        // A second run continues where the first one stopped.
        sqs.state().refuse_every = 0;
        let (rest, end) = redrive(&sqs, &Filter::default(), None, false).await;
        assert!(matches!(end, Ok(Look::End)), "{end:?}");
        let state = sqs.state();
        assert_eq!((rest.total(), state.retry.len(), state.dead.len()), (5, 20, 0));
    }

    #[tokio::test]
    async fn undeleted_letter_is_reported_and_visible_again() {
        let sqs = Sqs::start(bodies(10, "corrupt_view")).await;
        sqs.state().keep_every = 5;
        let (done, _) = redrive(&sqs, &Filter::default(), None, false).await;
        assert_eq!((done.total(), done.not_deleted, done.is_complete()), (10, 2, false), "{done:?}");
        assert!(sqs.state().dead.iter().all(|message| !message.hidden));
    }

    #[tokio::test]
    async fn redrive_stops_when_the_queue_accepts_nothing() {
        let sqs = Sqs::start(bodies(100, "corrupt_view")).await;
        sqs.state().down = true;
        let (done, end) = redrive(&sqs, &Filter::default(), None, false).await;
        assert!(end.unwrap_err().to_string().contains("accepts nothing"));
        assert_eq!((done.total(), sqs.state().dead.len()), (0, 100));
        assert!(sqs.state().dead.iter().all(|message| !message.hidden), "released, although it failed");
    }

    #[tokio::test]
    async fn unselected_letters_stay_unchanged() {
        let mut both = bodies(7, "corrupt_view");
        both.extend(bodies(8, "invalid_envelope"));
        both.push("hello".to_owned());
        let sqs = Sqs::start(both).await;
        let only = Filter::of_reason("invalid_envelope");
        let (dry, _) = redrive(&sqs, &only, None, true).await;
        assert_eq!((dry.total(), dry.left_out, sqs.state().dead.len()), (8, 8, 16), "{dry:?}");
        let (some, _) = redrive(&sqs, &only, Some(3), false).await;
        assert_eq!((some.total(), sqs.state().retry.len()), (3, 3), "{some:?}");
        let (rest, _) = redrive(&sqs, &only, None, false).await;
        assert_eq!((rest.total(), sqs.state().dead.len()), (5, 8), "{rest:?}");
        let (all, _) = redrive(&sqs, &Filter::default(), None, false).await;
        assert_eq!((all.total(), all.not_redrivable, sqs.state().dead.len()), (7, 1, 1), "{all:?}");
    }

    #[tokio::test]
    async fn letter_that_dies_again_is_redriven_once_per_run() {
        let mut again = dead("corrupt_view", 2_000);
        let death =
            apply::Redrive { reason: "corrupt_view".into(), attempts: 1, events: 1, dead_at: 10, redriven_at: BEGAN };
        again.letter.redrives.push(death);
        let sqs = Sqs::start(vec![serde_json::to_string(&again).unwrap()]).await;
        let (done, _) = redrive(&sqs, &Filter::default(), None, false).await;
        assert_eq!((done.total(), done.dead_again, sqs.state().dead.len()), (0, 1, 1), "{done:?}");
    }

    #[tokio::test]
    async fn interrupt_stops_between_two_steps_and_loses_nothing() {
        let sqs = Sqs::start(bodies(100, "corrupt_view")).await;
        let (ask, mut queue) = sqs.dead_letters();
        let filter = Filter::default();
        let redrive = Redrive { filter: &filter, rate: 20, limit: None, dry_run: false, began: BEGAN };
        let mut done = Done::default();
        let (retry, bar) = (sqs.retry(), ProgressBar::hidden());
        let asking = async {
            while sqs.state().retry.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ask.send_replace(true);
        };
        let (end, ()) = tokio::join!(redrive.run(&mut queue, &retry, || BEGAN, &bar, &mut done), asking);
        assert!(matches!(end, Ok(Look::Interrupted)), "{end:?}");
        queue.release().await;
        let state = sqs.state();
        assert_eq!((done.total(), state.retry.len(), state.dead.len()), (20, 20, 80));
        assert!(state.dead.iter().all(|message| !message.hidden));
    }

    #[tokio::test]
    async fn reaching_the_hold_limit_is_reported_and_all_released() {
        let sqs = Sqs::start(bodies(100, "corrupt_view")).await;
        let (_ask, queue) = sqs.dead_letters();
        let mut queue = queue.at_most(50);
        let filter = Filter::of_reason("raw");
        let redrive = Redrive { filter: &filter, rate: 1_000, limit: None, dry_run: false, began: BEGAN };
        let mut done = Done::default();
        let end = redrive.run(&mut queue, &sqs.retry(), || BEGAN, &ProgressBar::hidden(), &mut done).await;
        assert!(matches!(end, Ok(Look::Full)), "{end:?}");
        assert!((50..100).contains(&done.left_out), "{done:?}");
        queue.release().await;
        assert!(sqs.state().dead.iter().all(|message| !message.hidden));
    }
}

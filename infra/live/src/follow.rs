//! Reads the books and the queues while a browser is connected, and tells all browsers. Reading
//! continues where it stopped, so it costs what is new.

use crate::shared::{Shared, now_ms};
use crate::snapshot::{History, Queues, Region, Snapshot, Totals};
use anyhow::{Context as _, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use futures::future::try_join3;
use operate::Endpoints;
use operate::books::{Books, Reader};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

const EVERY: Duration = Duration::from_secs(1);
/// A region that has not answered by then is shown as silent.
const PATIENCE: Duration = Duration::from_secs(4);

/// What was last read of a region.
#[derive(Debug, Default)]
struct Reading {
    /// Unix milliseconds.
    at: u64,
    books: Books,
    queues: Queues,
    answers: bool,
}

/// Follows all regions for as long as the page is served.
///
/// # Errors
/// If a snapshot cannot be written as JSON.
pub(crate) async fn follow(shared: Arc<Shared>) -> Result<()> {
    let readings: Vec<Arc<Mutex<Reading>>> = shared.endpoints.regions().map(|_| Arc::default()).collect();
    let mut tasks = JoinSet::new();
    for (region, reading) in shared.endpoints.regions().zip(&readings) {
        tasks.spawn(read(Arc::clone(&shared), region.clone(), Arc::clone(reading)));
    }
    let mut histories: Vec<History> = readings.iter().map(|_| History::default()).collect();
    let mut of_all = History::default();
    loop {
        tokio::time::sleep(EVERY).await;
        if !shared.is_watched() {
            histories.iter_mut().chain([&mut of_all]).for_each(History::clear);
            continue;
        }
        let snapshot = snapshot(&shared, &readings, &mut histories, &mut of_all);
        if snapshot.draining && snapshot.all.totals.in_flight <= 0 {
            shared.draining.send_replace(false);
            let verdict = if snapshot.all.balanced { "the books balance" } else { "the books do not balance" };
            shared.note(format!("Drained: nothing is in flight, and {verdict}"));
        }
        shared.snapshots.send_replace(Arc::from(serde_json::to_string(&snapshot)?));
    }
}

/// Reads one region again and again.
async fn read(shared: Arc<Shared>, region: Endpoints, reading: Arc<Mutex<Reading>>) {
    let (mut reader, sqs) = (Reader::new(&region), Client::new(&region.sdk_config()));
    loop {
        if shared.is_watched() {
            let news = tokio::time::timeout(PATIENCE, async {
                let books = reader.catch_up().await?.clone();
                anyhow::Ok((books, queues(&sqs, &region).await?))
            });
            let news = news.await.context("no answer").flatten();
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            match news {
                Ok((books, queues)) => *reading = Reading { at: now_ms(), books, queues, answers: true },
                Err(error) => {
                    tracing::warn!(region = region.region, "the region could not be read: {error:#}");
                    reading.answers = false;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn queues(sqs: &Client, region: &Endpoints) -> Result<Queues> {
    let (retry, dead_letter, inbound) = try_join3(
        depth(sqs, &region.retry_queue_url),
        depth(sqs, &region.dead_letter_queue_url),
        depth(sqs, &region.inbound_queue_url),
    )
    .await?;
    Ok(Queues { retry, dead_letter, inbound })
}

/// All messages of a queue, those included that wait or are being worked on.
async fn depth(sqs: &Client, url: &str) -> Result<u64> {
    use QueueAttributeName::{
        ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed, ApproximateNumberOfMessagesNotVisible,
    };
    let parts =
        [ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed, ApproximateNumberOfMessagesNotVisible];
    let asked = sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(parts.to_vec())).send().await?;
    let attributes = asked.attributes.unwrap_or_default();
    Ok(parts.iter().filter_map(|part| attributes.get(part)?.parse::<u64>().ok()).sum())
}

fn snapshot(
    shared: &Shared,
    readings: &[Arc<Mutex<Reading>>],
    histories: &mut [History],
    of_all: &mut History,
) -> Snapshot {
    let now = now_ms();
    let mut sum = Books::default();
    let mut regions = Vec::new();
    for ((parts, reading), history) in shared.parts().into_iter().zip(readings).zip(histories) {
        let reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
        sum += &reading.books;
        if reading.at > 0 {
            history.add(reading.at, Totals::of(&reading.books));
        }
        let (answers, queues) = (reading.answers, reading.queues);
        regions.push(Region { parts, answers, queues, figures: history.figures(now) });
    }
    if regions.iter().all(|region| region.figures.totals != Totals::default() || region.answers) {
        of_all.add(now, Totals::of_all(&sum));
    }
    Snapshot {
        at: now,
        locked: *shared.locked.borrow(),
        draining: *shared.draining.borrow(),
        poison: shared.poison.load(Relaxed),
        traffic: shared.viewers().figures(*shared.level.borrow(), now),
        all: of_all.figures(now),
        regions,
        notes: shared.notes(),
    }
}

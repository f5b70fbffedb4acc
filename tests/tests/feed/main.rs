//! The change feed, whatever fails: each change arrives at least once, the changes of a profile in
//! order, and what a consumer keeps of them is what the table holds. Through the real function, the
//! real rules of a mapping, and a feed that fails at random.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod consumer;
mod table;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::stream::{Ack, AppendError, Attempt, DurableLog, LogRecord, RecordResult};
use apply::DeadLetter;
use apply::testing::Letters;
use boon::{Compiler, Schemas};
use consumer::Consumer;
use futures::Stream;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric, Metrics};
use lambda::runtime::{Invocation, ServeBatch as _};
use local::poller::{Mapping, MappingSettings, MappingStep};
use playback::history::Rules;
use playback::session::SessionId;
use proptest::prelude::*;
use publish::{Parts, Publish};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use store::dynamodb::PlacedView;
use store::{Fault, StoreError};
use table::Table;

/// A mutation of what surrounds the function, as a bug in it would do it. The check must find each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// A record that the feed refused counts as published.
    RefusalTakenForSuccess,
    /// The answer never names a failed record.
    FailuresNotNamed,
    /// A record overtakes the one that was sent before it.
    Overtaking,
}

/// A feed that takes a record, refuses it, or takes it and answers nothing.
#[derive(Clone)]
struct Feed {
    records: Arc<Mutex<Vec<LogRecord>>>,
    overtaken: Arc<Mutex<Vec<LogRecord>>>,
    rng: Arc<Mutex<ChaCha8Rng>>,
    failing: f64,
    mutation: Mutation,
}

impl Feed {
    fn take(&self, record: &LogRecord) -> Result<Ack, AppendError> {
        let mut rng = self.rng.lock().unwrap();
        let fails = rng.random_bool(self.failing);
        let taken = !fails || rng.random_bool(0.3);
        if taken && self.mutation == Mutation::Overtaking && rng.random_bool(0.2) {
            self.overtaken.lock().unwrap().push(record.clone());
        } else if taken {
            let mut records = self.records.lock().unwrap();
            records.push(record.clone());
            records.append(&mut self.overtaken.lock().unwrap());
        }
        if fails && self.mutation != Mutation::RefusalTakenForSuccess {
            return Err(AppendError::Unavailable(Attempt::new("view-changes", record, "InternalFailure", "away")));
        }
        Ok(Ack::ONCE)
    }
}

impl DurableLog for Feed {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        futures::stream::iter(records.iter().enumerate().map(|(index, record)| (index, self.take(record))))
    }
}

/// The regions' parts, as the table holds them, if it answers.
struct Stored {
    table: Arc<Mutex<Table>>,
    rng: Mutex<ChaCha8Rng>,
    failing: f64,
}

impl Parts for Stored {
    async fn of_session(&self, profile_id: &str, session_id: &SessionId) -> Result<Vec<PlacedView>, StoreError> {
        if self.rng.lock().unwrap().random_bool(self.failing) {
            let fault = Fault::Unavailable("away".to_owned());
            return Err(StoreError { operation: "Query", subject: "views".to_owned(), fault });
        }
        Ok(self.table.lock().unwrap().parts(profile_id, session_id))
    }
}

/// What a run left.
struct Run {
    table: Arc<Mutex<Table>>,
    feed: Vec<Value>,
    dead: Vec<DeadLetter>,
    counts: [u64; 2],
}

/// Lets members do things while the mapping delivers what the table's stream holds.
async fn run(seed: u64, failing: f64, regions: bool, mutation: Mutation) -> Run {
    let table = Arc::new(Mutex::new(Table::new(seed, regions)));
    let feed = Feed {
        records: Arc::default(),
        overtaken: Arc::default(),
        rng: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed + 1))),
        failing,
        mutation,
    };
    let publish = Publish {
        source: "/playhead/test/us-east-1".to_owned(),
        feed: feed.clone(),
        failed: Letters::<DeadLetter>::new(false),
        parts: regions.then(|| Stored {
            table: Arc::clone(&table),
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed + 3)),
            failing: failing / 10.0,
        }),
        rules: Rules::default(),
    };
    let settings = MappingSettings { batch_size: 20, window_ms: 0, max_retries: u32::MAX, max_age_ms: i64::MAX / 2 };
    let mut mapping = Mapping::of_table("views", settings);
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 2);
    let (mut now, mut delivered, mut counts) = (0, 0, [0, 0]);
    let emitter = Emitter::to("test", "publish", |_| {});
    loop {
        let is_over = {
            let mut table = table.lock().unwrap();
            for _ in 0..rng.random_range(0..30) {
                table.something_happens();
            }
            for record in table.records.iter().skip(delivered) {
                let sequence = record["dynamodb"]["SequenceNumber"].as_str().unwrap();
                let ordinal = i64::try_from(delivered).unwrap();
                mapping.receive(0, ordinal, now, sequence, record.to_string().as_bytes()).unwrap();
                delivered += 1;
            }
            table.is_over()
        };
        match mapping.next(now).unwrap() {
            MappingStep::Invoke { id, event } => {
                let metrics = emitter.start(1_790_000_000_000);
                let batch = Batch::parse(event.as_bytes()).unwrap();
                // Now and then it is killed before it answers.
                let killed = rng.random_bool(failing / 4.0);
                let answer =
                    publish.serve(&metrics, batch, Invocation::new(1_790_000_000_000, Duration::from_secs(60))).await;
                for (count, metric) in counts.iter_mut().zip([Metric::ChangesReceived, Metric::ChangesPublished]) {
                    *count += metrics.count(metric);
                }
                let payload = match mutation {
                    Mutation::FailuresNotNamed => br#"{"batchItemFailures":[]}"#.to_vec(),
                    _ => serde_json::to_vec(&answer.unwrap()).unwrap(),
                };
                mapping.answered(id, (!killed).then_some(payload), now);
            }
            MappingStep::Discard { .. } => panic!("the mapping gave up"),
            MappingStep::Wait(_) if is_over && mapping.stats().waiting == 0 => break,
            MappingStep::Wait(until) => now = until.unwrap_or(now + 1),
        }
    }
    let records = feed.records.lock().unwrap();
    let feed = records.iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect();
    Run { table, feed, dead: publish.failed.take(), counts }
}

/// What is wrong with what a run left; nothing if the promises hold.
fn broken(run: &Run) -> Vec<String> {
    let mut broken = Vec::new();
    let table = run.table.lock().unwrap();
    let mut consumer = Consumer::default();
    run.feed.iter().for_each(|event| consumer.take(event));
    if let Some(lost) = table.told.iter().find(|id| !consumer.seen.contains(*id)) {
        broken.push(format!("the change {lost} never arrived"));
    }
    let firsts: Vec<&String> = consumer.firsts.iter().collect();
    for profile in table.profiles() {
        let of = |id: &&&String| table.profile_of[**id] == profile;
        let arrived: Vec<_> = firsts.iter().filter(of).collect();
        let written: Vec<_> = table.told.iter().collect();
        let written: Vec<_> = written.iter().filter(of).collect();
        if arrived != written {
            broken.push(format!("the changes of {profile} did not arrive in order"));
        }
    }
    if consumer.views != table.shown() {
        broken.push("a second table, made of the feed, differs".to_owned());
    }
    broken
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_change_arrives_in_order_and_makes_the_same_views(
        seed: u32, failing in prop_oneof![Just(0.0), Just(0.1), Just(0.5)], regions: bool,
    ) {
        let run = runtime().block_on(run(seed.into(), failing, regions, Mutation::None));
        prop_assert_eq!(broken(&run), Vec::<String>::new());
        prop_assert_eq!(run.dead.len(), 0);
        prop_assert!(run.counts[1] <= run.counts[0] && run.counts[1] >= run.table.lock().unwrap().told.len() as u64);
    }
}

#[test]
fn each_mutation_of_the_feed_is_found() {
    for mutation in [Mutation::RefusalTakenForSuccess, Mutation::FailuresNotNamed, Mutation::Overtaking] {
        let found = (0..20).filter(|seed| !broken(&runtime().block_on(run(*seed, 0.3, false, mutation))).is_empty());
        assert!(found.count() > 15, "{mutation:?} is hardly ever found");
    }
}

#[test]
fn poison_goes_to_its_queue_and_stops_nothing() {
    let run = runtime().block_on(async {
        let table = Arc::new(Mutex::new(Table::new(1, false)));
        let event = {
            let mut table = table.lock().unwrap();
            while !table.is_over() {
                table.something_happens();
            }
            let mut records = table.records.clone();
            for record in records.iter_mut().skip(3).step_by(50) {
                record["dynamodb"]["Keys"]["sk"]["S"] = "~nobody-knows".into();
            }
            records.truncate(200);
            serde_json::json!({ "Records": records }).to_string()
        };
        let feed = Feed {
            records: Arc::default(),
            overtaken: Arc::default(),
            rng: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(1))),
            failing: 0.0,
            mutation: Mutation::None,
        };
        let publish = Publish {
            source: "/playhead/test/us-east-1".to_owned(),
            feed: feed.clone(),
            failed: Letters::<DeadLetter>::new(false),
            parts: None::<Stored>,
            rules: Rules::default(),
        };
        let metrics = Emitter::to("test", "publish", |_| {}).start(7);
        let batch = Batch::parse(event.as_bytes()).unwrap();
        let answer = publish.serve(&metrics, batch, Invocation::new(7, Duration::from_secs(60))).await;
        assert_eq!(serde_json::to_value(answer.unwrap()).unwrap()["batchItemFailures"], serde_json::json!([]));
        assert_eq!(metrics.count(Metric::ChangesDead("not_a_change")), 4);
        let published = metrics.count(Metric::ChangesPublished);
        assert_eq!(published, feed.records.lock().unwrap().len() as u64);
        assert_eq!(metrics.count(Metric::ChangesReceived), published + 4);
        publish.failed.take()
    });
    assert_eq!(run.len(), 4);
    assert!(run.iter().all(|letter| letter.reason == "not_a_change" && letter.dead_at == 7), "{run:?}");
    let source = serde_json::to_value(&run[0].letter.source).unwrap();
    assert_eq!(source["kind"], "dynamodb");
}

/// Publishes the first 200 records of a table, of which the fourth is poison, by a function that is
/// made for it. Returns the letters and what `count` reads.
async fn publish_with_poison<P: Parts, T>(
    failing: f64,
    parts: Option<P>,
    count: impl Fn(&Metrics) -> T,
) -> (Vec<DeadLetter>, T) {
    let mut table = Table::new(1, parts.is_some());
    while !table.is_over() {
        table.something_happens();
    }
    table.records[3]["dynamodb"]["Keys"]["sk"]["S"] = "~nobody-knows".into();
    table.records.truncate(200);
    let publish = Publish {
        source: "/playhead/test/us-east-1".to_owned(),
        feed: Feed {
            records: Arc::default(),
            overtaken: Arc::default(),
            rng: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(1))),
            failing,
            mutation: Mutation::None,
        },
        failed: Letters::<DeadLetter>::new(false),
        parts,
        rules: Rules::default(),
    };
    let metrics = Emitter::to("test", "publish", |_| {}).start(7);
    let batch = Batch::parse(serde_json::json!({ "Records": table.records }).to_string().as_bytes()).unwrap();
    let answer = publish.serve(&metrics, batch, Invocation::new(7, Duration::from_secs(60))).await.unwrap();
    assert_ne!(serde_json::to_value(answer).unwrap()["batchItemFailures"], serde_json::json!([]));
    (publish.failed.take(), count(&metrics))
}

#[test]
fn poison_behind_a_failure_is_not_buried_yet() {
    let count = |metrics: &Metrics| metrics.count(Metric::ChangesDead("not_a_change"));
    let run = publish_with_poison(1.0, None::<Stored>, count);
    let (letters, dead) = runtime().block_on(run);
    assert_eq!((letters.len(), dead), (0, 0), "it is delivered again, and would be buried each time");
}

/// A table that does not answer.
struct Hanging;

impl Parts for Hanging {
    async fn of_session(&self, _: &str, _: &SessionId) -> Result<Vec<PlacedView>, StoreError> {
        std::future::pending().await
    }
}

#[test]
fn a_table_that_hangs_leaves_time_to_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (took, failed) = runtime.block_on(async {
        let began = tokio::time::Instant::now();
        let count = |metrics: &Metrics| metrics.count(Metric::ChangesFailed("store_unavailable"));
        let (_, failed) = publish_with_poison(0.0, Some(Hanging), count).await;
        (began.elapsed(), failed)
    });
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(failed > 0);
}

#[test]
fn records_follow_their_schema_and_so_do_the_documented_examples() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let schema: Value =
        serde_json::from_slice(&std::fs::read(folder.join("view-change.schema.json")).unwrap()).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("urn:playhead:view-change:1", schema).unwrap();
    let schema = compiler.compile("urn:playhead:view-change:1", &mut schemas).unwrap();
    let valid = |event: &Value| {
        if let Err(error) = schemas.validate(event, schema) {
            panic!("{event:#}\n{error:#}");
        }
    };
    let run = runtime().block_on(run(5, 0.0, true, Mutation::None));
    run.feed.iter().for_each(valid);
    let kinds: std::collections::BTreeSet<&str> =
        run.feed.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");

    let asyncapi: Value = yaml_serde::from_slice(&std::fs::read(folder.join("asyncapi.yaml")).unwrap()).unwrap();
    let message = &asyncapi["components"]["messages"]["viewChange"];
    assert_eq!(message["payload"]["$ref"], "./view-change.schema.json");
    let examples = message["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 2);
    examples.iter().for_each(|example| valid(&example["payload"]));
    let mut wrong = examples[0]["payload"].clone();
    wrong["data"].as_object_mut().unwrap().remove("new");
    assert!(schemas.validate(&wrong, schema).is_err(), "the schema accepts a view that did not change");
}

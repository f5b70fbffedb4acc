//! Wiring only: configuration, clients, and the loop that Lambda drives.

use lambda::clock::now_ms;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use process::{Config, Part, Shadow, audition, process};
use queue::Queue;
use std::sync::Arc;
use store::dynamodb::Views;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = |table: &str| Views::new(&sdk, table, config.common.home.clone());
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    let shadow = config.shadow_table.as_deref().map(|table| Shadow::new(views(table)));

    let ended = match config.part {
        Part::Live { views_table, dead_letter_queue_url, retry_queue_url } => {
            let views = views(&views_table);
            let sqs = aws_sdk_sqs::Client::new(&sdk);
            let dead_letters = Queue::new(sqs.clone(), dead_letter_queue_url);
            let retry = Queue::new(sqs, retry_queue_url);
            warm_up("views", BOUND, views.warm_up()).await;
            let shared = Arc::new((views, shadow, retry, dead_letters, emitter));
            let handle = move |batch, _context| {
                let shared = Arc::clone(&shared);
                async move {
                    let (views, shadow, retry, dead_letters, emitter) = &*shared;
                    let now = now_ms();
                    process(views, shadow.as_ref(), retry, dead_letters, &emitter.start(now), batch, now).await
                }
            };
            lambda::runtime::run_batches(handle).await
        }
        Part::Candidate(sample) => {
            let shared = Arc::new((shadow.ok_or_else(|| anyhow::anyhow!("a candidate has a shadow table"))?, emitter));
            let handle = move |batch, _context| {
                let shared = Arc::clone(&shared);
                async move {
                    let (shadow, emitter) = &*shared;
                    audition(shadow, sample, &emitter.start(now_ms()), batch).await
                }
            };
            lambda::runtime::run_batches(handle).await
        }
    };
    ended.map_err(anyhow::Error::from_boxed)
}

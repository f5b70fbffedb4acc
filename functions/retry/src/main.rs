//! Wiring only: configuration, clients, and the loop that Lambda drives.

// The future of a batch that also erases is deeply nested.
#![recursion_limit = "256"]

use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use queue::Queue;
use retry::{Config, QueuePauses, Retry};
use store::dynamodb::Views;

fn main() -> anyhow::Result<()> {
    lambda::runtime::block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let sqs = queue::client(&sdk);
    let views = |table: &str| Views::new(&sdk, table, config.common.home.clone());
    let retry = Retry {
        table: views(&config.views_table),
        shadow: config.shadow_table.as_deref().map(views),
        retry: Queue::new(sqs.clone(), &config.retry_queue_url),
        dead_letters: Queue::new(sqs.clone(), &config.dead_letter_queue_url),
        objects: retry::bucket(&sdk),
        pauses: QueuePauses::new(sqs, &config.retry_queue_url),
        max_attempts: config.max_attempts,
        jitter: rand::random,
    };
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    warm_up("views", BOUND, retry.table.warm_up()).await;
    Ok(lambda::runtime::run_batches(emitter, retry).await?)
}

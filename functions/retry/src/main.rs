//! Wiring only: configuration, clients, and the loop that Lambda drives.

use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use retry::{Config, QueuePauses, Retry};
use store::dynamodb::Views;
use stream::Queue;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let retry = Retry {
        table: Views::new(&sdk, &config.views_table, config.common.home),
        retry: Queue::new(sqs.clone(), &config.retry_queue_url),
        dead_letters: Queue::new(sqs.clone(), &config.dead_letter_queue_url),
        objects: aws_sdk_s3::Client::new(&sdk),
        pauses: QueuePauses::new(sqs, &config.retry_queue_url),
        max_attempts: config.max_attempts,
        jitter: rand::random,
    };
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    warm_up("views", BOUND, retry.table.warm_up()).await;
    Ok(lambda::runtime::run_batches(emitter, retry).await?)
}

//! Wiring only: configuration, clients, and the loop that Lambda drives.

use lambda::clock::now_ms;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use process::{Config, process};
use std::sync::Arc;
use store::dynamodb::Views;
use stream::Queue;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = Views::new(&sdk, &config.views_table, config.common.home);
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let dead_letters = Queue::new(sqs.clone(), &config.dead_letter_queue_url);
    let retry = Queue::new(sqs, &config.retry_queue_url);
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    warm_up("views", BOUND, views.warm_up()).await;

    let shared = Arc::new((views, retry, dead_letters, emitter));
    let handle = move |batch, _context| {
        let shared = Arc::clone(&shared);
        async move {
            let (views, retry, dead_letters, emitter) = &*shared;
            let now = now_ms();
            process(views, retry, dead_letters, &emitter.start(now), batch, now).await
        }
    };
    lambda::runtime::run_batches(handle).await.map_err(anyhow::Error::from_boxed)
}

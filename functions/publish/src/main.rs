//! Wiring only: configuration, clients, and the loop that Lambda drives.

use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use publish::{Config, Publish};
use queue::Queue;
use store::dynamodb::Views;
use stream::{KinesisConfig, KinesisLog};

fn main() -> anyhow::Result<()> {
    lambda::runtime::block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = |table: &String| Views::new(&sdk, table, config.common.home.clone());
    let publish = Publish {
        source: config.source(),
        feed: KinesisLog::new(KinesisConfig::new(&config.stream), &sdk),
        failed: Queue::new(queue::client(&sdk), &config.failed_queue_url),
        parts: config.joined_table.as_ref().map(views),
        rules: config.rules,
    };
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    warm_up("view changes", BOUND, publish.feed.warm_up()).await;
    Ok(lambda::runtime::run_batches(emitter, publish).await?)
}

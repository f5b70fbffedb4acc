//! Wiring only: configuration, clients, and the loop that Lambda drives.

use aws_sdk_sqs::config::timeout::TimeoutConfig;
use lambda::auth::Authenticator;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use query::{Config, HAND_OVER_FOR, Query};
use queue::Queue;
use store::dynamodb::Views;

fn main() -> anyhow::Result<()> {
    lambda::runtime::block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = Views::new(&sdk, &config.views_table, config.common.home);
    let time_outs = TimeoutConfig::builder().operation_timeout(HAND_OVER_FOR).build();
    let sqs = aws_sdk_sqs::config::Builder::from(&sdk).timeout_config(time_outs).build();
    let sqs = aws_sdk_sqs::Client::from_conf(sqs);
    let authenticator = Authenticator::new(&config.auth)?;
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    tokio::join!(warm_up("views", BOUND, views.warm_up()), warm_up("keys", BOUND, authenticator.warm_up()));
    let Config { retry_queue_url, rules, window, frame_ancestors, .. } = config;
    let query = Query { views, retry: Queue::new(sqs, retry_queue_url), authenticator, rules, window, frame_ancestors };
    Ok(lambda::runtime::run_http(emitter, query).await?)
}
